package fsm

import (
	"fmt"
	"slices"
	"strings"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
)

// grant is a confirm monitor's permission to take over (manual 4.3, 6.6). What
// it says is checked against what this side sees now.
func (x *m) grant(c Command) {
	if x.W == Takeover && x.p != nil && x.p.cmdID == c.Cmd.ID && x.p.reply != nil {
		to := c.To
		x.p.reply = &to // asked again: answered at the end
		return
	}
	if x.Last == c.Cmd.ID {
		x.answer(c.To, 0, "done before")
		return
	}
	code, why := x.takeoverConditions(c.Cmd.Grant)
	if why != "" {
		x.log("takeover refused", "why", why, "evidence", c.Cmd.Evidence)
		x.answer(c.To, code, "%s does not take over: %s", x.Cfg.Name, why)
		return
	}
	g := c.Cmd.Grant
	x.term = max(x.term, g.Term)
	x.to(Takeover, "", "granted by the confirm monitor", "term", g.Term, "old_primary", g.OldPrimary, "evidence", c.Cmd.Evidence)
	to := c.To
	x.run(proc{kind: procTakeover, reply: &to, cmdID: c.Cmd.ID, why: fmt.Sprintf("decision %d, %s has failed", g.Term, g.OldPrimary),
		steps: []proto.InstanceCommand{simple(proto.CmdApplyKeep), simple(proto.CmdMount), setMode(base.ModePrimary),
			setArch("", base.ArchInvalid), openOrder()}})
}

// takeoverConditions are those of an automatic takeover, and of one by command
// that is not forced.
func (x *m) takeoverConditions(g *proto.Grant) (base.Code, string) {
	in := x.In.Status
	switch {
	case g == nil:
		return codeArg, "the command carries no grant"
	case x.p != nil:
		return codeBusy, procNames[x.p.kind] + " is in progress"
	case x.Held != nil:
		// Its monitor gives orders to the instance: two sequences would undo each other.
		return codeBusy, "command " + x.Held.Kind + " of monitor " + x.Held.Mon + " is running"
	case x.outdated(g.Era) != "":
		return codeClash, x.outdated(g.Era)
	case g.Term < x.term:
		return codeClash, fmt.Sprintf("decision %d is older than decision %d", g.Term, x.term)
	case x.Ctl != proto.CtlValid:
		return codeCtl, "the control file says " + x.Ctl
	case !x.ready():
		return codeInst, "its instance does not answer"
	case in.Mode != base.ModeStandby || in.Status != base.StatusOpen:
		return codeNotStdby, "its instance is " + in.Mode.String() + "/" + in.Status.String()
	case g.Lineage != 0 && in.Lineage.Last().ID != g.Lineage:
		return codeClash, fmt.Sprintf("its last open record is %d, the decision was made for %d", in.Lineage.Last().ID, g.Lineage)
	case in.Keep.Less(g.MinKeep):
		return codeArch, fmt.Sprintf("it has redo up to %s, the decision needs %s", in.Keep, g.MinKeep)
	case !x.effectiveClaim():
		return codeArch, "its primary, Open, has not said that the archive to it is Valid, or it has renounced since"
	case !strings.EqualFold(in.ValidClaimFrom, g.OldPrimary):
		return codeArch, fmt.Sprintf("its claim is from %s, the decision is about %s", in.ValidClaimFrom, g.OldPrimary)
	case x.malUp(g.OldPrimary):
		return codeActive, "its own MAL link to " + g.OldPrimary + " is up"
	}
	n, ok := x.remoteName(g.OldPrimary)
	if !ok {
		return codeArg, g.OldPrimary + " is not in its group"
	}
	if r := x.remote(n); r.Link && x.alive(n, x.now) && r.Status.InstOK {
		return codeActive, "the watcher of " + n + " answers and says that its instance is OK"
	}
	for _, o := range x.names() {
		if o == n || !x.alive(o, x.now) {
			continue
		}
		st := x.remote(o).Status
		if st.State == proto.DWTakeover {
			return codeClash, "the watcher of " + o + " takes over"
		}
		if st.InstOK && running(st.Inst, true) {
			return codeActive, o + " is " + st.Inst.Mode.String() + "/" + st.Inst.Status.String()
		}
	}
	return 0, ""
}

// ended lists the other databases whose processes their watchers saw end: a
// takeover need not wait until those can acknowledge nothing any more.
func (x *m) ended() []string {
	var out []string
	for _, n := range x.names() {
		if st := &x.remote(n).Status; st.InstGone && st.Inst.Incarnation != "" {
			out = append(out, st.Inst.Incarnation)
		}
	}
	return out
}

// tellEnded tells an instance that carries out such an order of processes that
// are known only now to have ended. It decides nothing: lost, the instance waits
// as long as it promised to.
func (x *m) tellEnded() {
	var late []string
	for id, p := range x.State.pend {
		if !p.waits {
			continue
		}
		all := x.ended()
		news := slices.DeleteFunc(slices.Clone(all), func(inc string) bool { return slices.Contains(p.ended, inc) })
		if len(news) > 0 {
			late, p.ended = all, all
			x.State.pend[id] = p
		}
	}
	if len(late) > 0 {
		x.order(proto.InstanceCommand{Cmd: proto.CmdEnded, Ended: late, Evidence: "their watchers saw the processes end"}, pend{kind: pendPlain})
	}
}

func (x *m) decideTakeover() {
	x.procTick()
	if x.Held == nil && x.p == nil {
		x.to(Startup, "", "takeover has ended")
		return
	}
	if x.p != nil {
		x.why("taking over: %s", x.Sub)
	} else {
		x.idle()
	}
}

// exitOld is told to the watcher of a primary that others know to be old.
func (x *m) exitOld(c Command) {
	in := x.In.Status
	switch {
	case !running(in, x.In.OK):
		x.answer(c.To, 0, "%s does not run as primary", x.Cfg.Name)
		return
	case !x.ready() || x.p != nil:
		x.answer(c.To, codeBusy, "busy; try again")
		return
	}
	name, _, why := x.outranked()
	confirm := c.MonID != "" && x.Mons[c.MonID].Confirm
	if name == "" && !confirm {
		x.answer(c.To, codeActive, "nothing newer than %s is seen from here", x.Cfg.Name)
		return
	}
	if name == "" {
		why = "the confirm monitor says: " + c.Cmd.Evidence
	}
	x.interruptRecovery(why)
	x.exit("a newer primary exists: " + why)
	x.answer(c.To, 0, "%s is being shut down", x.Cfg.Name)
}

// dropClaim makes this standby renounce taking over until its primary, Open
// again, says that the archive to it is Valid (package comment, "Claims").
func (x *m) dropClaim(c Command) {
	if why := x.keepsClaim(c.From); why != "" {
		x.answer(c.To, codeClash, "%s", why)
		return
	}
	x.burn(c)
	x.answer(c.To, 0, "")
}

func (x *m) burn(c Command) {
	if x.effectiveClaim() {
		x.log("claim to take over renounced", "asked_by", c.from(), "evidence", c.Cmd.Evidence)
	}
	x.claim = claim{burned: true}
}

// keepsClaim tells why this side does not renounce: a takeover by it has begun,
// or its database may belong to a newer reign than the asker's.
func (x *m) keepsClaim(asker string) string {
	switch {
	case x.W == Takeover || x.W == Switchover || x.p != nil && x.p.kind == procTakeover:
		return "the watcher of " + x.Cfg.Name + " is in state " + x.W.String()
	case x.Held != nil:
		return "the watcher of " + x.Cfg.Name + " serves monitor command " + x.Held.Kind
	case !x.In.Known:
		return x.Cfg.Name + " has not been heard of since its watcher started: it may be of a newer reign"
	case x.unsure:
		return x.Cfg.Name + " was lost while it may have become primary"
	case x.In.Status.Mode == base.ModePrimary:
		return x.Cfg.Name + " is in Primary mode"
	}
	if r := x.remote(asker); r.LastInst.Incarnation != "" {
		rel, n := x.In.Status.Lineage.Compare(r.LastInst.Lineage)
		// The record of the asker's own opening, which it has not hardened yet, is no
		// reign of another; one that is Open has hardened its own.
		own := n == 1 && x.In.Status.Lineage.Last().CurInst == asker && r.LastInst.Status != base.StatusOpen
		if rel == base.RemoteContained && !own {
			return fmt.Sprintf("%s has %d open records that %s is without", x.Cfg.Name, n, asker)
		}
	}
	return ""
}

// dropKeep has the instance drop its kept package: the primary is without it.
func (x *m) dropKeep(c Command) {
	if why := x.keepsClaim(c.From); why != "" {
		x.answer(c.To, codeClash, "%s", why)
		return
	}
	if _, ok := x.remoteName(c.From); !ok {
		x.answer(c.To, codeArg, "only a watcher of the group may ask for this")
		return
	}
	x.burn(c)
	switch {
	case !x.In.OK:
		x.answer(c.To, 0, "the instance does not run: nothing is kept")
	case !x.ready():
		x.answer(c.To, codeInst, "the instance does not answer")
	default:
		to := c.To
		x.order(proto.InstanceCommand{Cmd: proto.CmdDropKeep, Evidence: c.Cmd.Evidence}, pend{kind: pendPlain, reply: &to})
	}
}
