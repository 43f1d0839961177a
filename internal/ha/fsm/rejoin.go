package fsm

import (
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/cond"
	"datawatch/internal/ha/proto"
)

// rejoinPause is how long a rejoin that failed for a reason which may pass, a
// broken link, waits before it is tried again.
const rejoinPause = 5 * time.Second

// codeRejoin is what an instance answers when another attempt to rejoin would
// change nothing (package mal, CodeRejoin).
const codeRejoin base.Code = -6036

// rejoinPermit says who allowed this database to give redo up; "" nobody.
func (s *State) rejoinPermit() string {
	switch {
	case s.rejoinBad != "":
		return ""
	case s.rejoinBy != "":
		return "rejoin database, by monitor " + s.rejoinBy
	case s.Cfg.Rejoin:
		return "DW_REJOIN is 1"
	}
	return ""
}

// rejoinConditions lists those under which the database rejoins primary n.
func (s *State) rejoinConditions(n string, now time.Time) cond.List {
	return cond.Rejoin(s.In.Status, s.remote(n).LastInst, s.instOK(n, now), s.rejoinPermit(), s.rejoinBad)
}

// rejoin makes a database that is split from primary n give up its surplus, if
// that is allowed and possible. It reports whether it deals with the split.
//
// G1: what the surplus holds was never acknowledged by this rule's doing: that
// the group goes on without it was decided when n opened. It is saved to a file
// before anything of the database changes. G5: the instance compares packages
// with n before it gives anything up, and refuses otherwise.
func (x *m) rejoin(n, why string) bool {
	if x.rejoinInc != "" && x.rejoinInc == x.In.Status.Incarnation {
		x.why("the database has rejoined %s and is about to start anew", n)
		return true
	}
	l := x.rejoinConditions(n, x.now)
	if !l.OK() {
		x.why("the database is split from %s and does not rejoin it: %s", n, l.Why())
		return false
	}
	switch {
	case x.now.Before(x.notBefore):
		x.why("the database will be told to rejoin %s", n)
	case x.In.Status.Status != base.StatusMount:
		x.exit("it has to rejoin " + n + " from Mount: " + why)
	case !x.malUp(n):
		x.why("it rejoins %s when the MAL link to it is up", n)
	default:
		c := simple(proto.CmdRejoin)
		c.Inst = n
		c.Evidence = x.rejoinPermit() + "; " + why
		x.to(Startup, "", "the database is split and rejoins "+n)
		x.run(proc{kind: procRejoin, steps: []proto.InstanceCommand{c}, targets: []string{n}, why: why})
	}
	return true
}

// decideSplit deals with a database that is marked Split and may rejoin. It is
// not opened by any other rule.
func (x *m) decideSplit() {
	x.Sub = "SPLIT"
	for _, n := range x.names() {
		ri := x.remote(n).Status.Inst
		if !x.instOK(n, x.now) || ri.Mode != base.ModePrimary || ri.Status != base.StatusOpen {
			continue
		}
		switch v, text := x.judge(n); v {
		case Split:
			x.rejoin(n, n+" is Primary/Open: "+text)
		case LocalJoins:
			x.joined("it can join " + n + ": " + text)
		default:
			x.why("the database is split, and %s is no longer ahead of it: %s", n, text)
		}
		return
	}
	x.why("the database is split from its group (%s) and rejoins when a new primary is Open", x.CtlDesc)
}

// joined takes the mark Split away.
func (x *m) joined(why string) {
	x.rejoinBy = ""
	if x.Ctl != proto.CtlSplit {
		return
	}
	x.log("database is split no more", "why", why, "was", x.CtlDesc)
	x.Ctl, x.CtlDesc = proto.CtlValid, ""
	x.acts = append(x.acts, DropCtl{})
	x.to(Startup, "", why)
}

// markSplit marks the database Split and shuts it down (manual 3.6).
func (x *m) markSplit(why string) {
	x.Ctl, x.CtlDesc = proto.CtlSplit, why
	x.log("database is split", "evidence", why)
	x.acts = append(x.acts, WriteCtl{why})
	x.exit("[!!! split: " + why + " !!!]") // so tagged the instance's log has it too (manual 6.15)
}

// rejoinFailed takes the instance's answer: a reason that does not pass makes the
// database Split as it is without a rejoin.
func (x *m) rejoinFailed(p *proc, code base.Code, why string) {
	if code != codeRejoin {
		x.notBefore = x.now.Add(rejoinPause)
		return
	}
	x.rejoinBad, x.rejoinBy, x.notBefore = why, "", time.Time{}
	x.markSplit(p.why + "; it cannot rejoin: " + why)
}

// rejoinCmd serves rejoin database: once, whatever DW_REJOIN says.
func (x *m) rejoinCmd(c Command) {
	switch {
	case x.Held != nil:
		x.answer(c.To, codeBusy, "command %s of monitor %s is running", x.Held.Kind, x.Held.Mon)
		return
	case !x.Cfg.Global:
		x.answer(c.To, codeLocal, "DW_TYPE of %s is LOCAL: it belongs to no group that it could rejoin", x.Cfg.Name)
		return
	}
	split := x.Ctl == proto.CtlSplit
	for _, n := range x.names() {
		v, _ := x.judge(n)
		split = split || v == Split
	}
	if !split {
		x.answer(c.To, codeCtl, "%s is not split from its group: nothing has to be given up", x.Cfg.Name)
		return
	}
	x.rejoinBy, x.rejoinBad = c.Cmd.Mon, ""
	x.log("rejoin ordered", "monitor", c.Cmd.Mon)
	if !x.In.OK && x.Cfg.StartupCmd != "" {
		x.startAt = x.now
		x.start("rejoin database by monitor " + c.Cmd.Mon)
	}
	msg := x.Cfg.Name + " rejoins its group when a new primary is Open"
	if !x.In.OK {
		msg += "; its instance is not running yet"
	}
	x.answer(c.To, 0, "%s", msg)
}

// yields: n, from which our primary is split and which was opened before it, makes
// way for it. It has leave to give its redo up; or it has acknowledged nothing that
// ours is without, because its archive to ours is Valid still: it stood still, its
// last package is on its own disk only (manual 2.2.15), and the lease keeps it from
// acknowledging that. Its own watcher shuts it down and marks it Split. Otherwise no
// rule says whose rows to keep, and both are shut down (manual 2.2.16).
func (x *m) yields(n string) bool {
	in, r := x.In.Status, x.remote(n)
	if in.Mode != base.ModePrimary || in.Rejoin != nil {
		return false
	}
	if rel, _ := in.Lineage.Compare(r.LastInst.Lineage); rel != base.RemoteContained {
		return false
	}
	// In MANUAL mode it may go on alone by itself the moment after it said so.
	for _, a := range r.LastInst.Archives {
		if x.Cfg.Auto && a.Inst == x.Cfg.Name && a.State == base.ArchValid {
			return true
		}
	}
	return r.Status.RejoinBad == "" && (r.Status.Config.Rejoin || r.Status.RejoinBy != "")
}
