package fsm

import (
	"cmp"
	"slices"

	"datawatch/internal/base"
)

// cell says what a state does with an event: it is handled by the function of
// the event (absorb) followed by the rules of the state (deciders), or refused
// with a reason. Only commands can be refused: what has happened has happened.
// No cell is empty.
type cell struct {
	takes  bool
	refuse string
	code   base.Code // of the refusal
}

// edge is a change of state.
type edge struct{ from, to WState }

var (
	table [numStates][numEvents]cell
	// edges are the changes of state that rules and commands may make, with
	// the reason. Any other change is a fault, which tests look for.
	edges = map[edge]string{}
)

const never = "this state is never entered by itself"

// allowed lists, for each command, the states that take it; a state that is
// missing refuses it.
var allowed = map[EventKind]struct {
	states []WState
	refuse string
	code   base.Code // 0: codeState
}{
	EvBegin: {[]WState{Startup, Open, Recovery, Confirm, Switchover, Takeover, OpenForce, ChangeArch, ClearSend, ClearRapply},
		"monitor commands start in Startup, Open, Recovery or Confirm", 0},
	EvLogin:     {[]WState{Startup, Open, Recovery, Confirm, Shutdown, LoginCheck}, "login is checked in Startup, Open or Recovery", codeLogin},
	EvStartDW:   {[]WState{Startup, Open, Shutdown, Recovery, Confirm, Failover, LoginCheck}, "a monitor command is running", 0},
	EvStopDW:    {[]WState{Startup, Open, Shutdown, Recovery, Confirm, LoginCheck}, "a command or failover is running", 0},
	EvStartInst: {[]WState{Startup, Open, Shutdown, Recovery, Confirm, LoginCheck}, "a command or failover is running", 0},
	EvStopInst:  {[]WState{Startup, Open, Shutdown, Recovery, Confirm, LoginCheck}, "a command or failover is running", 0},
	EvKillInst: {[]WState{Startup, Open, Shutdown, Recovery, Confirm, Failover, LoginCheck, Switchover, Takeover, OpenForce,
		ChangeArch, ClearSend, ClearRapply, StandbyCheck}, never, 0},
	EvSetPara: {[]WState{Startup, Open, Shutdown}, "parameters are changed in Startup, Open or Shutdown", codePara},
	EvGrant:   {[]WState{Startup, Open, Takeover}, "takeover starts in Startup or Open", 0},
	EvRejoin:  {[]WState{Startup}, "it is not split from its group: the watcher of one that is is in Startup", 0},
	EvExitOld: {[]WState{Startup, Open, Recovery, Confirm}, "nothing is shut down in this state", 0},
}

// everywhere are the commands that every state takes: those that renounce or ask,
// that end or go on with what holds the watcher (and are refused when nothing
// does), and what no watcher knows.
var everywhere = []EventKind{EvStep, EvEnd, EvRecoverTime, EvDropKeep, EvDropClaim, EvNoop, EvUnknownCmd}

// unused are the states no rule enters: Error is said of others only; the rest
// belong to parts of the system this watcher does not have.
var unused = []WState{Error, MppctlUpdate, UnifyEP, CssProcess}

func isIn(w WState, l []WState) bool { return slices.Contains(l, w) }

func init() {
	for w := range numStates {
		for k := range numEvents {
			c := &table[w][k]
			switch a, ok := allowed[k]; {
			case k < EvBegin: // it has happened
				c.takes = true
			case isIn(w, unused):
				c.refuse, c.code = never, codeState
			case ok && !isIn(w, a.states):
				c.refuse, c.code = a.refuse, cmp.Or(a.code, codeState)
			case ok || slices.Contains(everywhere, k):
				c.takes = true
			}
		}
	}
	on := func(why string, from []WState, to ...WState) {
		for _, f := range from {
			for _, t := range to {
				if f != t {
					edges[edge{f, t}] = why
				}
			}
		}
	}
	held := []WState{Switchover, Takeover, OpenForce, ChangeArch, ClearSend, ClearRapply}
	on("the instance failed, has left Open, or must shut down", []WState{Open, Failover, Recovery, Confirm, LoginCheck, Takeover, StandbyCheck}, Startup)
	on("the database is open", []WState{Startup, Failover, Recovery, Confirm, Takeover}, Open)
	on("a send failed and the standby cannot take over", []WState{Startup, Open, Confirm}, Failover)
	on("leave of the confirm monitor is needed", []WState{Startup, Open}, Confirm)
	on("a standby can be recovered", []WState{Open}, Recovery)
	on("sending to a standby takes longer than RLOG_SEND_THRESHOLD", []WState{Open}, StandbyCheck)
	on("slow standbys have been cut off, or another has failed", []WState{StandbyCheck}, Open)
	on("granted by the confirm monitor", []WState{Startup, Open}, Takeover)
	on("monitor command", []WState{Startup, Open, Recovery, Confirm}, held...)
	on("monitor command has ended or its monitor is silent", held, Open, Startup)
	on("login check", []WState{Startup, Open}, LoginCheck)
	on("login check has ended", []WState{LoginCheck}, Startup, Open)
	on("stop dmwatcher, stop database or kill database", []WState{Startup, Open, Recovery, Confirm, Failover, LoginCheck, Takeover, StandbyCheck}, Shutdown)
	on("the standby's local archive has no space left (DW_ARCH_SPACE_CHECK)", []WState{Startup, Open}, Shutdown)
	on("startup dmwatcher or startup database", []WState{Shutdown}, Startup)
	on("never entered by itself", unused, Startup)
}
