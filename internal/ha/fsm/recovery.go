package fsm

import (
	"fmt"
	"strings"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
)

// decideOpen is normal work.
func (x *m) decideOpen() {
	x.procTick()
	if x.p != nil {
		x.why("%s: %s", procNames[x.p.kind], x.Sub)
		return
	}
	if !x.ready() {
		x.whyUnready()
		return
	}
	in := x.In.Status
	switch {
	case in.Status == base.StatusMount || in.Status == base.StatusStartup || in.Status == base.StatusAfterRedo:
		x.to(Startup, "", "the instance is "+in.Status.String())
		return
	case !x.Cfg.Global:
		if in.Status == base.StatusSuspend {
			x.to(Startup, "", "the instance is Suspend")
		}
		return
	case in.Mode == base.ModeNormal, x.demote():
		return
	case in.Mode == base.ModeStandby:
		x.lead()
		return
	case in.Status == base.StatusSuspend:
		x.decideSuspended()
		return
	case in.Status != base.StatusOpen, x.unserved():
		return
	}
	if len(x.rec) > 0 {
		x.to(Recovery, "", "recovery goes on")
		return
	}
	if x.now.Before(x.notBefore) || x.checkStandbys() {
		return
	}
	for _, n := range x.names() {
		if ok, why := x.canRecover(n); ok {
			x.to(Recovery, "", n+" can be recovered")
			return
		} else if why != "" {
			x.why("%s is not recovered: %s", n, why)
		}
	}
}

// canRecover says whether standby n can be recovered now, and why not; no reason
// means that it needs none. A primary that is Open asks.
func (x *m) canRecover(n string) (bool, string) {
	a, ok := x.arch(n)
	if !ok || a.State != base.ArchInvalid {
		return false, ""
	}
	in, r := x.In.Status, x.remote(n)
	ri := r.Status.Inst
	switch {
	case !x.alive(n, x.now):
		return false, "its watcher does not answer"
	case !r.Link:
		return false, "the connection to its watcher is down"
	case r.Status.CtlStatus == proto.CtlSplit:
		return false, "its control file says Split"
	case !r.Status.InstOK:
		return false, "its instance is in Error"
	case ri.Mode != base.ModeStandby || ri.Status != base.StatusOpen:
		return false, "it is " + ri.Mode.String() + "/" + ri.Status.String()
	case r.Status.State != proto.DWOpen:
		return false, "its watcher is in state " + r.Status.State
	case r.Status.Cmd != nil:
		return false, "its watcher serves a monitor command"
	case !x.malUp(n):
		return false, "the MAL link to it is down"
	case a.Late:
		return false, "its answers take so long that no commit could be acknowledged by them"
	case ri.Stand != (base.Position{}) && ri.Apply != ri.Stand:
		return false, fmt.Sprintf("it still replays: ASEQ:ALSN %s, SSEQ:SLSN %s", ri.Apply, ri.Stand)
	}
	if v, text := x.judge(n); v != RemoteJoins {
		return false, "it cannot join: " + text
	}
	if ri.Apply == in.File {
		// Nothing has to be sent, so nothing would show that it is faster now.
		if why := x.slow(n); why != "" {
			return false, why
		}
	}
	if left := x.recT[n].left(x.now); left > 0 {
		return false, fmt.Sprintf("INST_RECOVER_TIME: %s left", left.Truncate(time.Second))
	}
	return true, ""
}

// decideRecovery moves every recovery on by one step (manual 3.1.9). The part
// that suspends the primary is done for one standby at a time.
func (x *m) decideRecovery() {
	x.procTick()
	if x.p != nil {
		return
	}
	in := x.In.Status
	switch {
	case !x.ready():
		x.whyUnready()
		return
	case in.Mode != base.ModePrimary || in.Status == base.StatusMount:
		clear(x.rec)
		x.to(Startup, "", "the instance is "+in.Mode.String()+"/"+in.Status.String())
		return
	case in.Status == base.StatusSuspend && len(x.failed()) > 0:
		x.interruptRecovery("a send failed")
		x.to(Open, "", "failover comes first")
		return
	}
	if name, _, why := x.outranked(); name != "" {
		x.interruptRecovery(why)
		x.to(Startup, "", why)
		return
	}
	// A recovery can last for hours; but when it is to give the primary its only
	// successor, that comes first.
	if in.Status == base.StatusOpen && x.successor() && x.unserved() {
		return
	}
	busy := false
	for _, n := range sorted(x.rec) {
		r := x.rec[n]
		if why := x.recBroken(n); why != "" && r.step < recOpen {
			x.recFailed(n, 0, why)
			continue
		}
		busy = busy || r.step >= recSuspend
	}
	if x.p != nil {
		return
	}
	if slow, why := x.slowStandbys(); in.Status == base.StatusOpen && !busy && len(slow) > 0 {
		x.interruptRecovery("standby check comes first: " + why)
		x.to(Open, "", "standby check comes first")
		return
	}
	if in.Status == base.StatusOpen {
		for _, n := range x.names() {
			if _, on := x.rec[n]; on {
				continue
			}
			if ok, _ := x.canRecover(n); ok {
				x.log("recovery begins", "standby", n, "its_log", x.remote(n).Status.Inst.Apply.String(), "primary", in.File.String())
				x.change(n, func(v *interval) { v.begin(x.now) })
				x.rec[n] = rec{step: recDrop, wait: x.tell(n, proto.WatcherCommand{Cmd: proto.DWCmdDropKeep, Evidence: "recovery by " + x.Cfg.Name},
					pend{kind: pendRec, inst: n})}
			}
		}
	}
	var parts []string
	for _, n := range sorted(x.rec) {
		r := x.rec[n]
		if !busy && r.step == recReady && in.Status == base.StatusOpen {
			if why := x.slow(n); why != "" {
				x.recFailed(n, codeFail, why)
				continue
			}
			busy = true
			r.step, r.wait = recSuspend, x.order(proto.InstanceCommand{Cmd: proto.CmdSuspend, Evidence: "recovery of " + n}, pend{kind: pendRec, inst: n})
			x.rec[n] = r
		}
		parts = append(parts, n+": "+recNames[r.step])
	}
	x.Sub = strings.Join(parts, ", ")
	if len(x.rec) > 0 {
		return
	}
	if in.Status == base.StatusSuspend {
		if !x.now.Before(x.notBefore) { // it may have no room on its disk
			x.run(proc{kind: procReopen, steps: []proto.InstanceCommand{openOrder()}, why: "recovery has ended"})
		}
		return
	}
	x.to(Open, "", "recovery has ended")
}

// recBroken tells why a recovery in progress cannot go on.
func (x *m) recBroken(n string) string {
	r := x.remote(n)
	switch {
	case !x.alive(n, x.now) || !r.Status.InstOK:
		return "the standby has failed"
	case r.Status.Inst.Mode != base.ModeStandby || r.Status.Inst.Status != base.StatusOpen:
		return "the standby is " + r.Status.Inst.Mode.String() + "/" + r.Status.Inst.Status.String()
	case !x.malUp(n):
		return "the MAL link is down"
	}
	return ""
}

func (x *m) recReply(n string, req uint64, code base.Code, err string) {
	r, ok := x.rec[n]
	if !ok || r.wait != req {
		return
	}
	r.wait = 0
	if err != "" {
		x.recFailed(n, code, recNames[r.step]+": "+err)
		return
	}
	send := proto.InstanceCommand{Cmd: proto.CmdArchSend, Inst: n, Evidence: "recovery of " + n}
	p := pend{kind: pendRec, inst: n}
	switch r.step {
	case recDrop:
		r.step, r.wait = recSend, x.order(send, p)
	case recSend:
		r.step = recReady
	case recSuspend:
		r.step, r.wait = recSend2, x.order(send, p)
	case recSend2:
		c := setArch(n, base.ArchValid)
		c.Evidence = "recovery of " + n + ": it has everything"
		r.step, r.wait = recValid, x.order(c, p)
	case recValid:
		c := openOrder()
		c.Evidence = "recovery of " + n
		r.step, r.wait, r.good = recOpen, x.order(c, p), true
	case recOpen:
		delete(x.rec, n)
		x.change(n, func(v *interval) { v.done(x.Cfg.RecoverTime, x.now) })
		x.log("recovery done", "standby", n, "primary", x.In.Status.File.String())
		return
	}
	x.rec[n] = r
}

// recFailed ends one recovery; when it has suspended the primary, the primary
// is opened again with its archive states as they are.
func (x *m) recFailed(n string, code base.Code, why string) {
	r := x.rec[n]
	delete(x.rec, n)
	x.change(n, func(v *interval) { v.failed(code, x.now) })
	x.log("recovery failed", "standby", n, "step", recNames[r.step], "error", why, "next_in_seconds", x.recT[n].secs)
	if r.step >= recSuspend && x.In.OK && len(x.failed()) == 0 && x.p == nil {
		x.run(proc{kind: procReopen, steps: []proto.InstanceCommand{openOrder()}, why: "recovery of " + n + " failed"})
	}
}

// interruptRecovery drops all of them; late answers find nothing.
func (x *m) interruptRecovery(why string) {
	for _, n := range sorted(x.rec) {
		x.log("recovery interrupted", "standby", n, "why", why)
		x.change(n, func(v *interval) { v.interrupted(x.now) })
	}
	clear(x.rec)
}

// recSuspended: a recovery holds the primary in Suspend.
func (x *m) recSuspended() bool {
	for _, n := range sorted(x.rec) {
		if x.rec[n].step >= recSuspend {
			return true
		}
	}
	return false
}
