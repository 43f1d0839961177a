package fsm

import (
	"strings"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
)

const (
	confirmPause = time.Second     // between two requests to the confirm monitor
	resendPause  = 2 * time.Second // between two attempts to send again
)

func contains(l []string, s string) bool {
	for _, v := range l {
		if strings.EqualFold(v, s) {
			return true
		}
	}
	return false
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// failed lists the standbys whose failed send has suspended the primary.
func (x *m) failed() []string {
	var out []string
	for _, a := range x.In.Status.Archives {
		if !a.SendFailed {
			continue
		}
		n, ok := x.remoteName(a.Inst)
		if !ok {
			n = a.Inst
		}
		out = append(out, n)
	}
	return out
}

// blocked lists the standbys without which a suspended primary may go on only
// with leave: those of failed sends, and, when the watcher did not see all of the
// suspension, those whose archives are Invalid. Their archives may have become
// so for a reopening that never came; whoever gave the primary up since could
// have made them primary by force.
func (x *m) blocked() []string {
	out := x.failed()
	if !x.Cfg.Auto || !x.unwatched {
		return out
	}
	for _, n := range x.names() {
		if a, ok := x.arch(n); ok && a.State == base.ArchInvalid && !contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// decideSuspended deals with a primary in Suspend (manual 6.9).
func (x *m) decideSuspended() {
	if x.In.Status.Mode != base.ModePrimary || x.now.Before(x.notBefore) {
		return
	}
	if n := x.newerReign(); n != "" {
		x.why("%s has opened after this database: it must not go on as primary", n)
		return
	}
	f := x.blocked()
	if len(f) == 0 {
		// No archive has to change, so reopening takes nothing from anybody.
		x.why("the primary is suspended without a failed send: %s", x.In.Status.SuspendReason)
		if !x.suspSince.IsZero() && x.now.Sub(x.suspSince) >= suspendPause {
			x.run(proc{kind: procReopen, steps: []proto.InstanceCommand{openOrder()}, why: "suspended without a failed send"})
		}
		return
	}
	if w := x.commandElsewhere(); w != "" && !x.Cfg.Auto {
		x.why("%s", w)
		return
	}
	if !x.Cfg.Auto {
		x.failover(f, false, nil, "MANUAL mode, send failed")
		return
	}
	if x.direct(f) {
		x.failover(f, false, f, "the standby's watcher is normal and its instance is not, or has no claim to take over")
		return
	}
	x.to(Confirm, "STANDBY", "a send failed and the standby cannot be judged from here", "failed", strings.Join(f, ","))
}

// direct: the watchers of all failed standbys answer, and say that their
// instances could not take over.
func (x *m) direct(f []string) bool {
	if x.commandElsewhere() != "" {
		return false
	}
	for _, n := range f {
		if !x.answers(n) {
			return false
		}
		st := x.remote(n).Status
		if st.InstOK && (st.Inst.Mode != base.ModeStandby || st.Inst.ValidClaim) {
			return false
		}
	}
	return true
}

// failover makes the archives to targets Invalid and reopens; first the
// watchers in ask must renounce.
func (x *m) failover(targets []string, granted bool, ask []string, why string) {
	p := proc{kind: procFailover, targets: targets, granted: granted, why: why}
	for _, n := range targets {
		p.steps = append(p.steps, setArch(n, base.ArchInvalid))
	}
	p.steps = append(p.steps, openOrder())
	x.to(Failover, "", why, "targets", strings.Join(targets, ","), "granted", granted)
	cmds := map[string]string{}
	for _, n := range ask {
		if !x.splitOff(n) { // that is in Primary mode perhaps, and would refuse for ever
			cmds[n] = proto.DWCmdDropClaim
		}
	}
	if len(cmds) == 0 {
		x.run(p)
		return
	}
	x.p = &p
	x.log("sequence begins", "what", procNames[p.kind], "why", why)
	x.ask(x.p, cmds, "primary "+x.Cfg.Name+" goes on without it")
}

func (x *m) decideFailover() {
	x.procTick()
	if x.p == nil {
		x.to(Open, "", "failover has ended")
		return
	}
	x.why("failover of %s: %s", strings.Join(x.p.targets, ", "), x.Sub)
}

// decideConfirm waits for leave to go on without standbys: of a suspended
// primary (manual 6.9), or of a restarted one that cannot reach them.
func (x *m) decideConfirm() {
	x.procTick()
	if x.p != nil {
		return
	}
	if !x.ready() {
		x.whyUnready()
		return
	}
	in := x.In.Status
	name, _, why := x.outranked()
	if newer := x.newerReign(); name != "" || newer != "" || in.Mode != base.ModePrimary {
		x.to(Startup, "", "it was taken over: "+why+newer)
		return
	}
	var failed []string
	switch in.Status {
	case base.StatusSuspend:
		failed = x.blocked()
		if len(failed) == 0 {
			x.to(Open, "", "no send is failed any more")
			return
		}
		if x.now.Before(x.notBefore) {
			return
		}
		if x.direct(failed) {
			x.failover(failed, false, failed, "the standby's watcher is normal and its instance is not, or has no claim to take over")
			return
		}
		if x.resend(failed) {
			return
		}
	case base.StatusMount:
		missing, ok := x.openConditions()
		if !ok || len(missing) == 0 || x.confirmMon(x.now) == "" {
			x.to(Startup, "", "the standbys answer, or the conditions to open do not hold")
			return
		}
		failed = missing
	default:
		x.to(Open, "", "the instance is "+in.Status.String())
		return
	}
	if x.confirmSince.IsZero() {
		x.confirmSince = x.now
	}
	x.why("going on without %s needs the leave of the confirm monitor", strings.Join(failed, ", "))
	mon := x.confirmMon(x.now)
	if mon == "" {
		x.confirmReq = 0
		x.withoutMonitor(failed)
		return
	}
	x.noMonSince = time.Time{}
	if x.confirmWhy != "" {
		x.why("the confirm monitor answered: %s", x.confirmWhy)
	}
	if x.confirmReq != 0 || x.now.Before(x.confirmNext) {
		return
	}
	x.nextReq++
	x.confirmReq, x.confirmFor, x.confirmAsked = x.nextReq, failed, x.now
	x.State.pend[x.nextReq] = pend{kind: pendConfirm, inst: mon, remote: "", cmd: "confirm"}
	x.log("asking the confirm monitor", "monitor", mon, "failed", strings.Join(failed, ","))
	x.acts = append(x.acts, AskConfirm{mon, x.nextReq, proto.ConfirmRequest{Status: x.Report(0, x.now), Failed: failed}})
}

// resend tries to go on with the standbys as they are: when all of them can
// receive again, and answer in time, opening sends the pending package once more.
func (x *m) resend(failed []string) bool {
	for _, n := range failed {
		ri := x.remote(n).Status.Inst
		a, ok := x.arch(n)
		if !ok || a.State != base.ArchValid || a.Late || !x.instOK(n, x.now) || ri.Mode != base.ModeStandby || ri.Status != base.StatusOpen || !x.malUp(n) {
			return false
		}
	}
	if x.now.Before(x.resendNext) || x.commandElsewhere() != "" {
		return false
	}
	x.resendNext = x.now.Add(resendPause)
	x.run(proc{kind: procReopen, steps: []proto.InstanceCommand{openOrder()}, why: "all failed standbys can receive again"})
	return true
}

// withoutMonitor applies DW_FAILOVER_FORCE (manual 6.17, table 5.4). The
// standbys' watchers must answer and renounce, so nobody takes over meanwhile.
func (x *m) withoutMonitor(failed []string) {
	if x.noMonSince.IsZero() {
		x.noMonSince = x.now
	}
	if !x.Cfg.FailoverForce {
		x.why("no confirm monitor is connected and DW_FAILOVER_FORCE is 0")
		return
	}
	if w := x.commandElsewhere(); w != "" {
		x.why("%s", w)
		x.noMonSince = x.now
		return
	}
	for _, n := range x.names() {
		needed := contains(failed, n)
		if !x.answers(n) {
			if needed {
				x.why("no confirm monitor is connected and the watcher of %s does not answer", n)
				return
			}
			continue
		}
		for _, mo := range x.remote(n).Status.Monitors {
			if mo.Confirm {
				x.why("a confirm monitor is connected to the watcher of %s but not to this one", n)
				x.noMonSince = x.now
				return
			}
		}
		if v, text := x.judge(n); needed && v != RemoteJoins {
			x.why("%s could not join: %s", n, text)
			return
		}
	}
	left := 3*x.Cfg.ErrorTime - x.now.Sub(x.noMonSince)
	if left > 0 {
		x.why("no confirm monitor is connected; DW_FAILOVER_FORCE reopens in %s", left.Truncate(time.Second))
		return
	}
	x.failover(failed, false, failed, "no confirm monitor for 3 x DW_ERROR_TIME, DW_FAILOVER_FORCE is 1")
}

// confirmed takes the monitor's answer.
func (x *m) confirmed(e ConfirmReply) {
	if _, ok := x.State.pend[e.Req]; !ok {
		return
	}
	delete(x.State.pend, e.Req)
	if e.Req != x.confirmReq || x.W != Confirm {
		return
	}
	x.confirmReq, x.confirmNext = 0, x.now.Add(confirmPause)
	if e.Err == "" && x.now.Sub(x.confirmAsked) >= x.Cfg.ErrorTime {
		// This host stood still, or the answer did: others may have given us up
		// meanwhile (takeover force). The monitor knows; it is asked again.
		x.confirmWhy = "its answer came after DW_ERROR_TIME only"
		x.log("confirm monitor answered too late", "granted", e.Reply.Granted, "term", e.Reply.Term)
		return
	}
	if e.Err != "" || !e.Reply.Granted {
		x.confirmWhy = e.Reply.Why + e.Err
		x.log("confirm monitor did not grant", "why", x.confirmWhy, "term", e.Reply.Term)
		return
	}
	x.term = max(x.term, e.Reply.Term)
	x.log("confirm monitor granted", "term", e.Reply.Term, "why", e.Reply.Why)
	if x.p != nil || !x.ready() {
		return // it will be asked again
	}
	if name, _, _ := x.outranked(); name != "" || x.newerReign() != "" {
		return
	}
	switch x.In.Status.Status {
	case base.StatusSuspend:
		f := x.blocked()
		for _, n := range f {
			if !contains(x.confirmFor, n) {
				return
			}
		}
		if len(f) > 0 {
			x.failover(f, true, nil, "granted by the confirm monitor")
		}
	case base.StatusMount:
		missing, ok := x.openConditions()
		for _, n := range missing {
			ok = ok && contains(x.confirmFor, n)
		}
		if ok {
			left := x.confirmFor
			x.to(Startup, "", "granted by the confirm monitor", "left_out", strings.Join(left, ","))
			x.startOpening(left)
		}
	}
}
