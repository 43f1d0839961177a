package fsm

import (
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
)

// WState is the state of a watcher (manual 3.4).
type WState uint8

// The states of manual 3.4. Error is only ever said about others;
// MppctlUpdate, UnifyEP and CssProcess are known by name.
const (
	Startup WState = iota
	Open
	Shutdown
	Switchover
	Failover
	Recovery
	Confirm
	Takeover
	OpenForce
	Error
	LoginCheck
	MppctlUpdate
	ChangeArch
	StandbyCheck
	ClearSend
	ClearRapply
	UnifyEP
	CssProcess
	numStates
)

var stateNames = [numStates]string{proto.DWStartup, proto.DWOpen, proto.DWShutdown, proto.DWSwitchover, proto.DWFailover,
	proto.DWRecovery, proto.DWConfirm, proto.DWTakeover, proto.DWOpenForce, proto.DWError, proto.DWLoginCheck,
	proto.DWMppctlUpdate, proto.DWChangeArch, proto.DWStandbyCheck, proto.DWClearSend, proto.DWClearRapply,
	proto.DWUnifyEP, proto.DWCssProcess}

// String is what `show` prints.
func (w WState) String() string {
	if w < numStates {
		return stateNames[w]
	}
	return "UNKNOWN"
}

// stateOf is the inverse of String.
func stateOf(name string) (WState, bool) {
	for w, n := range stateNames {
		if n == name {
			return WState(w), true
		}
	}
	return 0, false
}

// Config is the part of the configuration that decisions depend on. Durations
// that an operator can change at run time live here and change by set_para.
type Config struct {
	Group   string
	Name    string   // instance guarded
	Remotes []string // instances of the group that are archive targets of Name, sorted
	Global  bool     // DW_TYPE
	Auto    bool     // DW_MODE
	OGUID   uint32

	ErrorTime     time.Duration // DW_ERROR_TIME
	InstErrorTime time.Duration // INST_ERROR_TIME
	RecoverTime   int           // INST_RECOVER_TIME, seconds
	AutoRestart   bool
	ServiceCheck  bool
	SendThreshold int
	ApplyThresh   int
	Reconnect     bool
	FailoverForce bool
	Rejoin        bool // DW_REJOIN
	IniPath       string
	StartupCmd    string
	Host          string // MAL_HOST
	Port          int    // MAL_DW_PORT
}

// Inst is the watcher's view of the instance it guards.
type Inst struct {
	Link   bool // connection is up
	Known  bool // a status was ever received
	Status proto.InstanceStatus
	Heard  time.Time
	OK     bool      // judged OK
	Lost   time.Time // since when it is not
	Normal bool      // it said goodbye
	Gone   bool      // its process is known to be dead
	AtLoss WState    // state of the watcher when it was lost
}

// Remote is the view of one other watcher of the group.
type Remote struct {
	Link   bool
	UpAt   time.Time // of Link
	Known  bool
	Status proto.WatcherStatus
	Heard  time.Time
	// LastInst is the last instance status with a name in it: what is known of
	// the database when its watcher has been restarted without it.
	LastInst proto.InstanceStatus
}

// Monitor is a connected monitor.
type Monitor struct {
	Addr    string
	Confirm bool
	Since   time.Time
	Seen    time.Time
}

// Held is a monitor command that holds this watcher.
type Held struct {
	ID, Mon, Kind string
	MonID         string   // of the connection it came by
	wait          *Command // a step that waits for what other watchers have to report
	until         time.Time
	Last          time.Time // last step
	Busy          bool      // a step is being performed
}

// proc is a sequence of orders to the own instance, perhaps after a round of
// questions to other watchers.
type proc struct {
	kind    procKind
	asked   map[string]uint64 // remotes that still have to answer, with request
	askedAt time.Time
	steps   []proto.InstanceCommand
	wait    uint64 // request in progress
	tries   int
	retryAt time.Time
	targets []string // failover: standbys to drop
	granted bool     // a confirm monitor granted it
	reply   *Reply   // who waits for the end
	cmdID   string
	why     string
}

type procKind uint8

const (
	procOpen        procKind = iota + 1 // open a primary from Mount
	procStandbyOpen                     // open a standby
	procToStandby                       // a primary becomes a standby
	procToPrimary                       // a half-switched primary goes back
	procFailover
	procReopen // Suspend -> Open with archive states as they are
	procTakeover
	procExit // shut an old primary or a split database down
	procLocalOpen
	procStandbyCheck // slow standbys are cut off
	procRejoin       // a split database gives redo up
)

var procNames = map[procKind]string{procOpen: "opening the primary", procStandbyOpen: "opening the standby",
	procToStandby: "becoming a standby", procToPrimary: "becoming primary again", procFailover: "failover",
	procReopen: "reopening from Suspend", procTakeover: "takeover", procExit: "shutting the database down", procLocalOpen: "opening", procStandbyCheck: "cutting slow standbys off",
	procRejoin: "rejoining with pages of the new primary"}

// recStep is where the recovery of one standby stands (manual 3.1.9).
type recStep uint8

const (
	recDrop recStep = iota + 1
	recSend
	recReady // first send done, waits for the suspend phase
	recSuspend
	recSend2
	recValid
	recOpen
)

var recNames = [...]string{"", "drop kept package", "send archives", "wait for suspend", "suspend", "send the rest", "set valid", "open"}

type rec struct {
	step recStep
	wait uint64
	good bool // archive was set Valid
}

// pend is a request whose answer is awaited.
type pend struct {
	kind   pendKind
	remote string // "" own instance
	inst   string // standby of a recovery
	cmd    string
	reply  *Reply // monitor's request to answer with the result
	open   bool   // a successful answer means that a primary was opened by command
	// waits: it ends only when an old primary can acknowledge nothing any more;
	// ended are the processes that the instance was told of.
	waits bool
	ended []string
}

type pendKind uint8

const (
	pendProc pendKind = iota + 1
	pendAsk           // proc's question to a remote
	pendRec
	pendStep  // monitor's step
	pendPlain // forwarded command: login, stop, drop keep
	pendConfirm
)

// claim is what this watcher knows about its instance's right to take over:
// see the package comment, "Claims".
type claim struct {
	from   string // primary that said Valid while Open
	burned bool
}

// State is everything a watcher decides from. Step takes it as a value and
// returns a new one; Advance changes it.
type State struct {
	Cfg   Config
	W     WState
	Sub   string
	Since time.Time
	Begun time.Time

	Ctl, CtlDesc string

	In      Inst
	remotes []*Remote // of Cfg.Remotes, in their order
	Mons    map[string]Monitor
	Held    *Held
	Last    string // ID of the last command that ended
	Why     []string

	back    WState // where a login check returns
	p       *proc
	rec     map[string]rec
	recT    map[string]interval
	pend    map[uint64]pend
	nextReq uint64
	claim   claim
	unsure  bool // the instance was lost, or this watcher stood still, while it may have become primary
	// unsureOf is the order whose answer ends that; 0: only a new incarnation, or
	// an opening as standby, does.
	unsureOf uint64
	term     uint64

	confirmSince time.Time
	confirmReq   uint64
	confirmAsked time.Time
	confirmNext  time.Time
	confirmWhy   string
	confirmFor   []string
	exitInc      string // incarnation that was told to shut down
	noMonSince   time.Time
	resendNext   time.Time
	readySince   time.Time // a primary could open but for standbys not Open yet
	suspSince    time.Time
	openedAt     time.Time

	svcWhy   string    // why clients cannot reach the instance
	svcSince time.Time // since when
	svcDone  bool      // this outage has ended the primary once

	rejoinBy  string // monitor that ordered a rejoin; "" none
	rejoinInc string // incarnation that has rejoined and is about to start anew
	rejoinBad string // why the instance cannot rejoin; "" not tried, or it can

	notBefore time.Time // no new sequence of orders earlier, after a failed one
	lastFail  string    // why not

	startAt   time.Time // earliest next start of the process
	starts    int
	starting  bool
	startPID  int
	startedAt time.Time
	okSince   time.Time
	killed    bool
	down      string // why it is in Shutdown, when it went there by itself

	// unwatched: the primary may have been suspended since before this watcher
	// could see what others did about it (blocked).
	unwatched bool

	stepAt time.Time // of the newest event
	awake  time.Time // since this watcher goes on after it stood still
	era    uint64    // proto.WatcherStatus.Era
	eraAt  time.Time // when it began

	told  []byte // digest of what everybody has been told
	fault string // an undeclared transition, for tests
}

// New returns the state of a watcher that has just started. split is the
// description found in dmwatcher.ctl, ctl whether the file exists.
func New(cfg Config, ctl bool, split string, now time.Time) State {
	cfg.Remotes = append([]string(nil), cfg.Remotes...)
	sort.Strings(cfg.Remotes)
	s := State{Cfg: cfg, Since: now, Begun: now, Ctl: proto.CtlValid, remotes: make([]*Remote, len(cfg.Remotes)), Mons: map[string]Monitor{},
		rec: map[string]rec{}, recT: map[string]interval{}, pend: map[uint64]pend{},
		startAt: now.Add(cfg.InstErrorTime)}
	if ctl {
		s.Ctl, s.CtlDesc = proto.CtlSplit, split
	}
	for i, r := range cfg.Remotes {
		s.remotes[i] = &Remote{}
		s.recT[r] = interval{secs: cfg.RecoverTime, code: codeRecNone}
	}
	s.In.Lost, s.unwatched = now, true
	s.era, s.eraAt = 1, now
	s.told = (&m{State: &s, now: now}).digest(nil)
	return s
}

// clone copies what Step may change.
func (s State) clone() State {
	s.remotes = slices.Clone(s.remotes)
	for i, r := range s.remotes {
		c := *r
		s.remotes[i] = &c
	}
	s.Mons = maps.Clone(s.Mons)
	s.rec, s.recT = maps.Clone(s.rec), maps.Clone(s.recT)
	s.pend = maps.Clone(s.pend)
	if s.Held != nil {
		h := *s.Held
		s.Held = &h
	}
	if s.p != nil {
		p := *s.p
		p.asked = maps.Clone(p.asked)
		p.steps = append([]proto.InstanceCommand(nil), p.steps...)
		s.p = &p
	}
	s.Why = append([]string(nil), s.Why...)
	return s
}

// Fault names an undeclared transition Step has made; "" when there is none.
func (s State) Fault() string { return s.fault }

var noRemote Remote

// remote is the view of one other watcher, for reading; of an unknown one
// nothing is known.
func (s *State) remote(n string) *Remote {
	if r := s.known(n); r != nil {
		return r
	}
	return &noRemote
}

// known is the view of a watcher of the group; nil when n is none.
func (s *State) known(n string) *Remote {
	for i, name := range s.Cfg.Remotes {
		if name == n {
			return s.remotes[i]
		}
	}
	return nil
}

// names lists the remotes in order.
func (s *State) names() []string { return s.Cfg.Remotes }

// remoteName finds the configured spelling of an instance name.
func (s *State) remoteName(n string) (string, bool) {
	for _, r := range s.Cfg.Remotes {
		if strings.EqualFold(r, n) {
			return r, true
		}
	}
	return "", false
}

// alive: the remote watcher was heard within DW_ERROR_TIME.
func (s *State) alive(n string, now time.Time) bool {
	r := s.remote(n)
	return r.Known && now.Sub(r.Heard) < s.Cfg.ErrorTime
}

// hears: a connection to the remote watcher is up and was not silent for
// DW_ERROR_TIME. That of a host without power stays up for minutes.
func (s *State) hears(n string, now time.Time) bool {
	r := s.remote(n)
	return r.Link && (s.alive(n, now) || now.Sub(r.UpAt) < s.Cfg.ErrorTime)
}

// instOK: the remote watcher is alive and judges its instance OK.
func (s *State) instOK(n string, now time.Time) bool {
	return s.alive(n, now) && s.remote(n).Status.InstOK
}

// malUp: our instance reports its link to n connected.
func (s *State) malUp(n string) bool {
	for _, l := range s.In.Status.Links {
		if strings.EqualFold(l.Inst, n) {
			return l.Connected
		}
	}
	return false
}

// arch returns our archive to n.
func (s *State) arch(n string) (proto.ArchStatus, bool) {
	for _, a := range s.In.Status.Archives {
		if strings.EqualFold(a.Inst, n) && (a.Type == base.ArchRealtime || a.Type == base.ArchTimely) {
			return a, true
		}
	}
	return proto.ArchStatus{}, false
}

// confirmMon returns the first live confirm monitor connected here.
func (s *State) confirmMon(now time.Time) string {
	for _, id := range sorted(s.Mons) {
		if m := s.Mons[id]; m.Confirm && now.Sub(m.Seen) < s.Cfg.ErrorTime {
			return id
		}
	}
	return ""
}

func sorted[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
