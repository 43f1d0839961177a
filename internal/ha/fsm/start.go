package fsm

import (
	"fmt"
	"strings"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
)

// suspendPause is how long an unexplained Suspend is left alone: the report
// of the failed send that explains it may be on its way.
const suspendPause = 600 * 1e6 // 600 ms in time.Duration

func openOrder() proto.InstanceCommand {
	return proto.InstanceCommand{Cmd: proto.CmdOpen, Force: true}
}

// decideStartup opens the database (manual 6.2).
func (x *m) decideStartup() {
	x.procTick()
	if x.p != nil {
		x.why("%s: %s", procNames[x.p.kind], x.Sub)
		return
	}
	in := x.In.Status
	if x.Ctl == proto.CtlSplit && x.rejoinPermit() == "" {
		x.Sub = "SPLIT"
		x.why("the database is split from its group: %s. Let it rejoin (rejoin database, or DW_REJOIN = 1), or rebuild it, delete dmwatcher.ctl and restart the watcher", x.CtlDesc)
		return
	}
	if !x.ready() {
		x.whyUnready()
		return
	}
	if x.now.Before(x.notBefore) {
		x.why("it is tried again in a moment: %s", x.lastFail)
		return
	}
	x.Sub = "WAIT TO OPEN"
	switch in.Status {
	case base.StatusMount, base.StatusOpen, base.StatusSuspend:
	default:
		x.why("the instance is in status %s and has not reached Mount", in.Status)
		return
	}
	if x.Ctl == proto.CtlSplit {
		x.decideSplit()
		return
	}
	if !x.Cfg.Global {
		if in.Status == base.StatusOpen {
			x.to(Open, "", "the instance is Open")
			return
		}
		x.run(proc{kind: procLocalOpen, steps: []proto.InstanceCommand{openOrder()}, why: "LOCAL guard opens its database at once"})
		return
	}
	if in.Mode == base.ModeNormal {
		if in.Status == base.StatusOpen {
			x.to(Open, "", "the instance is Normal and Open")
			return
		}
		x.why("the instance is in Normal mode and Mount: set Primary or Standby mode")
		return
	}
	if x.demote() {
		return
	}
	switch {
	case in.Status == base.StatusOpen && in.Mode == base.ModeStandby && x.unsure && x.unsureOf == 0:
		// The instance was lost in a takeover and is the same one still: it takes no redo
		// before it is told to open, and what it was ordered then is over when it answers.
		x.run(proc{kind: procStandbyOpen, steps: []proto.InstanceCommand{openOrder()}, why: "a takeover by it may have begun"})
	case in.Status == base.StatusOpen:
		x.to(Open, "", "the instance is Open")
	case in.Status == base.StatusSuspend:
		x.decideSuspended()
	case in.Mode == base.ModeStandby:
		if !x.lead() {
			x.openStandby()
		}
	default:
		x.openPrimary()
	}
}

// demote deals with a primary that ours must give way to. It reports whether
// it did something.
func (x *m) demote() bool {
	name, split, why := x.outranked()
	if name == "" || x.In.Status.Mode == base.ModeNormal {
		return false
	}
	in := x.In.Status
	if !split {
		if in.Status == base.StatusMount {
			if w := x.commandElsewhere(); w != "" {
				x.why("%s", w)
				return true
			}
			x.to(Startup, "", why)
			x.run(proc{kind: procToStandby, steps: []proto.InstanceCommand{setMode(base.ModeStandby)}, why: why})
			return true
		}
		x.exit("a newer primary exists: " + why)
		return true
	}
	if x.yields(name) {
		x.why("%s has redo that this database is without, and makes way for it: %s", name, why)
		return false
	}
	if in.Mode == base.ModePrimary && in.Status == base.StatusOpen {
		// Two Open primaries that have forked: going on makes it worse, and no
		// rule says whose rows to keep (manual 2.2.16).
		x.exit("[!!! two primaries are Open: " + why + " !!!]")
		return true
	}
	if !x.rejoin(name, why) {
		x.markSplit(why)
	}
	return true
}

// exit shuts the database down at once, with what is not hardened dropped. A
// normal shutdown would write more redo.
func (x *m) exit(why string) {
	if x.now.Before(x.notBefore) {
		return
	}
	x.notBefore, x.lastFail = x.now.Add(3*procPause), why
	x.to(Startup, "", why)
	if x.exitInc == x.In.Status.Incarnation {
		x.kill("it was told to shut down and still runs: " + why)
		return
	}
	x.exitInc = x.In.Status.Incarnation
	x.run(proc{kind: procExit, why: why, steps: []proto.InstanceCommand{{Cmd: proto.CmdShutdown, How: "abort"}}})
}

// openStandby opens a standby that can join any one remote database.
func (x *m) openStandby() {
	if len(x.names()) == 0 {
		x.why("no realtime or timely archive is configured")
	}
	for _, n := range x.names() {
		if !x.alive(n, x.now) {
			x.why("the watcher of %s does not answer", n)
			continue
		}
		v, text := x.judge(n)
		ri := x.remote(n).LastInst
		ok := v == LocalJoins || v == EitherJoins
		if v == RemoteJoins && ri.Mode == base.ModeStandby {
			rel, _ := x.In.Status.Lineage.Compare(ri.Lineage)
			ok = rel == base.Equal
		}
		if ok {
			x.run(proc{kind: procStandbyOpen, steps: []proto.InstanceCommand{openOrder()}, why: "it can join " + n + ": " + text})
			return
		}
		x.why("the database cannot join %s: %s", n, text)
	}
}

// lead makes the standby whose log reaches furthest primary when nobody is:
// a switchover was cut off between the two changes of mode, or a primary has
// yielded to a standby that died while it took over. Every database of the
// group but split ones is heard, normal and Standby, no command is held anywhere, and
// all their logs are prefixes of this one; among equals the one that made the last
// opening leads.
//
// G1: what was acknowledged is in the log of the primary that acknowledged it,
// which is among those heard, so it is in this one; what a split one has besides was
// given up when it was marked (3.6). G3: no standby acknowledges
// anything, and Primary in Mount is not open yet: the opening asks every watcher
// again, and one that serves a takeover or is Primary by now refuses. G7: a
// package kept beyond this log was never acknowledged; the opening has it dropped.
func (x *m) lead() bool {
	in := x.In.Status
	if in.Rejoin != nil { // it has pages of a primary that it must hear from first
		x.why("the database has rejoined its group with pages of %s and has not replayed up to %s", in.Rejoin.Primary, in.Rejoin.Whole)
		return false
	}
	others := x.unsplit()
	if len(in.Lineage) == 0 || len(others) == 0 || x.now.Before(x.notBefore) || !x.allStandbys() {
		return false
	}
	for _, n := range others {
		ri := x.remote(n).Status.Inst
		if !prefix(ri, in) {
			x.why("no database is primary, and the log of %s (%s) is not a part of the one here (%s)", n, end(ri), end(in))
			return false
		}
		if prefix(in, ri) && !goesFirst(in, ri) {
			return false
		}
	}
	steps := []proto.InstanceCommand{setMode(base.ModePrimary)}
	if in.Status != base.StatusMount {
		steps = append([]proto.InstanceCommand{simple(proto.CmdMount)}, steps...)
	}
	x.to(Startup, "", "all databases are standbys")
	x.run(proc{kind: procToPrimary, steps: steps, why: "all databases are standbys, and none has redo that this one is without"})
	return true
}

// yield makes a restarted primary a standby when a standby has redo that it is
// without: one that took over, applied its kept package and died before it
// opened. Then lead makes that one primary. All conditions of lead but this
// database's mode must hold, so that somebody can lead afterwards.
//
// G1, G3: a standby acknowledges nothing, and no log is changed.
func (x *m) yield() bool {
	in := x.In.Status
	if !x.allStandbys() {
		return false
	}
	for _, n := range x.unsplit() {
		ri := x.remote(n).Status.Inst
		if !prefix(in, ri) || prefix(ri, in) {
			continue
		}
		for _, o := range x.unsplit() {
			if !prefix(x.remote(o).Status.Inst, ri) {
				x.why("%s has redo that this database is without, but %s could not follow it", n, o)
				return false
			}
		}
		why := fmt.Sprintf("%s has redo up to %s, this database up to %s only, and nobody is primary", n, end(ri), end(in))
		x.to(Startup, "", why)
		x.run(proc{kind: procToStandby, steps: []proto.InstanceCommand{setMode(base.ModeStandby)}, why: why})
		return true
	}
	return false
}

// unsplit are the other databases of the group that are not marked Split: one that
// is neither leads nor keeps others from it, as it keeps none from opening.
func (x *m) unsplit() (out []string) {
	for _, n := range x.names() {
		if !x.splitOff(n) {
			out = append(out, n)
		}
	}
	return out
}

// allStandbys: every other database of the group that is not Split is heard, normal
// and Standby, and no watcher is in the hands of a command.
func (x *m) allStandbys() bool {
	for _, n := range x.unsplit() {
		if !x.instOK(n, x.now) || !x.answers(n) || x.remote(n).Status.Inst.Mode != base.ModeStandby {
			return false
		}
	}
	return x.commandElsewhere() == ""
}

// openPrimary opens a primary that every remote database can join.
func (x *m) openPrimary() {
	if x.yield() {
		return
	}
	missing, ok := x.openConditions()
	if !ok {
		x.readySince = x.now
		return
	}
	if len(missing) > 0 {
		x.why("no answer from the watchers of %s", strings.Join(missing, ", "))
		x.readySince = x.now
		if x.Cfg.Auto && x.now.Sub(maxTime(x.Begun, x.okSince)) >= x.Cfg.ErrorTime && x.confirmMon(x.now) != "" {
			x.to(Confirm, "START", "watchers of standbys do not answer", "missing", strings.Join(missing, ","))
			x.decideConfirm()
		}
		return
	}
	if wait := x.standbysComing(); wait != "" {
		if x.readySince.IsZero() {
			x.readySince = x.now
		}
		if x.now.Sub(x.readySince) < x.Cfg.ErrorTime {
			x.why("%s", wait)
			return
		}
	}
	x.startOpening(nil)
}

// openConditions lists the remotes that do not answer, and whether all others
// can join. What stands against it goes into Why.
func (x *m) openConditions() (missing []string, ok bool) {
	ok = true
	if w := x.commandElsewhere(); w != "" {
		x.why("%s", w)
		ok = false
	}
	if len(x.names()) == 0 {
		x.why("no realtime or timely archive is configured")
		return nil, false
	}
	for _, n := range x.names() {
		if !x.answers(n) {
			missing = append(missing, n)
			continue
		}
		if x.splitOff(n) {
			x.why("%s is split from the group and left out until it is rebuilt", n)
			continue
		}
		v, text := x.judge(n)
		ri := x.remote(n).LastInst
		switch {
		case ri.Mode == base.ModePrimary && x.instOK(n, x.now):
			if v == Split {
				text += "; no rule chooses between two primaries in Mount: `open database` the one whose data stay, the other is split then"
			}
			x.why("%s is in Primary mode too (%s)", n, text)
			ok = false
		case v != RemoteJoins && v != EitherJoins:
			// Ours was Open after the fork. Its watcher marks it Split when ours is again, and
			// whether that may cost its redo is a person's to say (manual 3.6).
			if rel, _ := x.In.Status.Lineage.Compare(ri.Lineage); v == Split && rel == base.RemoteContained {
				text += fmt.Sprintf("; no rule gives redo up that only a standby has: `open database %s` if its data stay, %s is split then", x.Cfg.Name, n)
			}
			x.why("%s cannot join: %s", n, text)
			ok = false
		}
	}
	return missing, ok
}

// splitOff: the watcher of n answers and has marked its database split. It
// never opens it again and lets it take over by no command (manual 3.5).
func (x *m) splitOff(n string) bool {
	return x.answers(n) && x.remote(n).Status.CtlStatus == proto.CtlSplit
}

// standbysComing names a standby that is about to be able to receive.
func (x *m) standbysComing() string {
	for _, n := range x.names() {
		if !x.instOK(n, x.now) {
			continue
		}
		ri := x.remote(n).Status.Inst
		if ri.Mode != base.ModeStandby || ri.Status != base.StatusOpen {
			return n + " is not Standby and Open yet (" + ri.Mode.String() + "/" + ri.Status.String() + ")"
		}
		if !x.malUp(n) {
			return "the MAL link to " + n + " is not up yet"
		}
	}
	return ""
}

// startOpening asks every watcher that answers to renounce, and to drop kept
// packages that the primary is without; then it opens. granted are those a
// confirm monitor allowed to leave out.
func (x *m) startOpening(granted []string) {
	cmds := map[string]string{}
	for _, n := range x.names() {
		if !x.answers(n) || x.splitOff(n) {
			continue
		}
		cmds[n] = proto.DWCmdDropClaim
		if ri := x.remote(n).Status.Inst; x.instOK(n, x.now) && ri.Mode == base.ModeStandby && x.In.Status.File.Less(ri.Keep) {
			cmds[n] = proto.DWCmdDropKeep
		}
	}
	p := &proc{kind: procOpen, targets: granted, why: "every standby can join"}
	x.p = p
	x.log("sequence begins", "what", procNames[procOpen], "left_out", strings.Join(granted, ","), "file", x.In.Status.File.String())
	if len(cmds) == 0 {
		x.openAsked()
		return
	}
	x.ask(p, cmds, "primary "+x.Cfg.Name+" at "+x.In.Status.File.String()+" is about to open")
}

// openAsked continues on the fresh answers.
func (x *m) openAsked() {
	missing, ok := x.openConditions()
	if name, _, why := x.outranked(); name != "" {
		x.procFailed(why)
		return
	}
	for _, n := range missing {
		if !contains(x.p.targets, n) {
			ok = false
		}
	}
	if !ok || x.In.Status.Mode != base.ModePrimary || x.In.Status.Status != base.StatusMount {
		x.procFailed("conditions have changed: " + strings.Join(x.Why, "; "))
		return
	}
	for _, n := range x.names() {
		st, why := x.archAtOpen(n)
		c := setArch(n, st)
		c.Evidence = why
		x.p.steps = append(x.p.steps, c)
	}
	x.p.steps = append(x.p.steps, openOrder())
	x.next()
}

// archAtOpen: a standby that has exactly what the primary has, and can receive
// now, is Valid (manual 6.2).
func (x *m) archAtOpen(n string) (base.ArchState, string) {
	in, ri := x.In.Status, x.remote(n).Status.Inst
	at := "primary at " + in.File.String() + ", " + n + " at " + ri.Apply.String() + ", kept " + ri.Keep.String()
	switch {
	case contains(x.p.targets, n) && !x.answers(n):
		return base.ArchInvalid, "left out by grant of the confirm monitor"
	case !x.instOK(n, x.now) || ri.Mode != base.ModeStandby || ri.Status != base.StatusOpen:
		return base.ArchInvalid, n + " is not Standby and Open"
	case !x.malUp(n):
		return base.ArchInvalid, "the MAL link to " + n + " is down"
	case in.File.Less(ri.Keep):
		return base.ArchInvalid, at
	case ri.Apply == in.File || ri.Keep == in.File:
		return base.ArchValid, at
	}
	return base.ArchInvalid, at
}
