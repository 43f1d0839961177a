package cond

import (
	"fmt"
	"strings"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
)

// Codes of the manual for conditions that are not met (10.2.8.1).
const (
	codeIsPrimary   base.Code = -8106
	codeArchSwitch  base.Code = -8111 // archive to the standby not Valid
	codeClash       base.Code = -8113 // another command
	codeInst        base.Code = -8125 // instance not OK
	codeOnePrimary  base.Code = -8148 // none or several active
	codeNotStandby  base.Code = -8392 // not Standby and Open
	codePrimaryOpen base.Code = -8394 // another active primary
	codeNoPrimary   base.Code = -8395 // no primary known
	codeWasNotOpen  base.Code = -8396 // failed primary was not Primary and Open
	codeBehind      base.Code = -8397 // the primary's FLSN is beyond the standby's SLSN
	codeWasDW       base.Code = -8398 // its watcher was in the wrong state
	codeActive      base.Code = -8399 // it is active still
	codeWasArch     base.Code = -8400 // its archive to the standby was not Valid
	codeCtl         base.Code = -8401 // control file not Valid
	codeLineage     base.Code = -8402 // open records differ
	codeNotMost     base.Code = -8403 // another standby has more
	codeDWNotOpen   base.Code = -8439
	codeNotOpen     base.Code = -8440
	codeDWState     base.Code = -8458 // watcher not Open or Startup
	codeMode        base.Code = -8459 // not Standby
	codeStatus      base.Code = -8460 // not Open or Mount
)

// Switchover lists the conditions under which primary and standby may swap
// roles (manual 6.5).
func Switchover(v View, target Peer) List {
	var l List
	prims := v.ActivePrimaries()
	if len(prims) != 1 {
		l.Add(false, "exactly one active primary", "there are %d", len(prims)).Else(codeOnePrimary)
		return l
	}
	p := prims[0]
	pn, sn := p.Inst(), target.Inst()
	l.Add(pn != sn, "the target is a standby", "%s is the primary", sn).Else(codeIsPrimary)
	l.Add(v.State(p) == proto.DWOpen, "the primary's watcher is Open", "the watcher of %s is %s", pn, v.State(p)).Else(codeDWNotOpen)
	l.Add(v.State(target) == proto.DWOpen, "the standby's watcher is Open", "the watcher of %s is %s", sn, v.State(target)).Else(codeDWNotOpen)
	rel, _ := p.Status.Inst.Lineage.Compare(target.Status.Inst.Lineage)
	l.Add(rel == base.Equal, "the open records are equal", "those of %s against %s: %s", sn, pn, rel).Else(codeLineage)
	l.Add(p.Status.CtlStatus == proto.CtlValid && target.Status.CtlStatus == proto.CtlValid, "both control files are Valid",
		"%s %s, %s %s", pn, p.Status.CtlStatus, sn, target.Status.CtlStatus).Else(codeCtl)
	v.runs(&l, p, "the primary runs normally")
	v.runs(&l, target, "the standby runs normally")
	l.Add(p.Status.Inst.Status == base.StatusOpen, "the primary is Open", "%s is %s", pn, modeStatus(p)).Else(codeNotOpen)
	l.Add(target.Status.Inst.Mode == base.ModeStandby && target.Status.Inst.Status == base.StatusOpen,
		"the standby is Standby and Open", "%s is %s", sn, modeStatus(target)).Else(codeNotStandby)
	l.notWhole(target)
	a, ok := p.Arch(sn)
	l.Add(ok && a.State == base.ArchValid, "the archive to the standby is Valid", "%s -> %s is %s", pn, sn, a.State).Else(codeArchSwitch)
	why, free := v.commandFree(false)
	l.Add(free, "no monitor command runs", "%s", why).Else(codeClash)
	return l
}

// runs adds that an instance runs normally and answers: one that stands still is
// judged to have failed only after INST_ERROR_TIME, and no step gets through to it.
func (v View) runs(l *List, p Peer, what string) {
	if !v.InstOK(p) {
		l.Add(false, what, "%s is in Error", p.Inst()).Else(codeInst)
		return
	}
	l.Add(p.Status.InstSilent == 0, what, "%s has been silent for %d s", p.Inst(), p.Status.InstSilent).Else(codeInst)
}

// TakeoverOptions says who asks.
type TakeoverOptions struct {
	// Auto: the confirm monitor decides by itself (manual 4.3).
	Auto bool
	// ShutdownWait is MON_TAKEOVER_SHUTDOWN; 0 means never after a normal exit.
	ShutdownWait time.Duration
	// ExitedAt is when the monitor first saw the primary's normal exit.
	ExitedAt time.Time
	// ConfirmElsewhere: this is no confirm monitor, but the group is in AUTO
	// mode and one is connected; then the decision belongs to that one.
	ConfirmElsewhere bool
	// Suspend allows a primary last heard suspended by a failed send. Only the
	// confirm monitor knows that it gave no leave to go on meanwhile.
	Suspend bool
}

// Takeover lists the conditions under which target may take over from the
// failed primary (manual 6.6; 4.3 with Auto).
func Takeover(v View, target Peer, o TakeoverOptions) List {
	l := make(List, 0, 24)
	p, err := v.LastPrimary()
	if err != nil {
		l.Add(false, "messages of the failed primary were received", "%v", err).Else(codeNoPrimary)
		return l
	}
	pn, sn := p.Inst(), target.Inst()
	pi, ti := p.Status.Inst, target.Status.Inst
	l.Add(!v.InstOK(p), "the primary has failed: its watcher says so, or has been silent for DW_ERROR_TIME",
		"the watcher of %s reports it %s", pn, modeStatus(p)).Else(codeActive)
	for _, q := range v.ActivePrimaries() {
		l.Add(q.Inst() == pn, "there is no other active primary", "%s is %s", q.Inst(), modeStatus(q)).Else(codePrimaryOpen)
	}
	l.Add(pi.Mode == base.ModePrimary && wasOpen(p, o.Suspend), "the primary was Primary and Open when it failed",
		"%s was %s", pn, modeStatus(p)).Else(codeWasNotOpen)
	before := p.Status.State
	if v.Alive(p) && p.Status.StateAtLoss != "" {
		before = p.Status.StateAtLoss
	}
	// STANDBY CHECK makes an archive Invalid only when that standby has been told.
	// LOGIN CHECK is STARTUP or OPEN, and does nothing: somebody who logs in to see
	// why the instance hangs must not prevent the takeover.
	allowed := []string{proto.DWStartup, proto.DWOpen, proto.DWRecovery, proto.DWStandbyCheck, proto.DWLoginCheck}
	if o.Suspend {
		allowed = append(allowed, proto.DWConfirm, proto.DWFailover)
	}
	l.Add(oneOf(before, allowed...) && p.Status.State != proto.DWShutdown, "its watcher was in "+strings.Join(allowed, ", ")+" before",
		"the watcher of %s was %s", pn, before).Else(codeWasDW)
	a, ok := p.Arch(sn)
	l.Add(ok && (a.State == base.ArchValid || undecided(a)), "the archive to the standby was Valid, or a failed send had just made it Invalid",
		"%s -> %s was %s", pn, sn, a.State).Else(codeWasArch)
	l.Add(!(a.SendFailed && before == proto.DWFailover), "the primary was not about to drop the standby",
		"the watcher of %s was in FAILOVER after a failed send to %s", pn, sn).Else(codeWasArch)
	l.Add(v.InstOK(target), "the standby runs normally", "%s is in Error", sn).Else(codeInst)
	l.Add(ti.Mode == base.ModeStandby && ti.Status == base.StatusOpen, "the standby is Standby and Open", "%s is %s", sn, modeStatus(target)).Else(codeNotStandby)
	l.notWhole(target)
	l.Add(oneOf(v.State(target), proto.DWOpen, proto.DWStartup), "the standby's watcher is Open or Startup",
		"the watcher of %s is %s", sn, v.State(target)).Else(codeDWState)
	l.Add(target.Status.CtlStatus == proto.CtlValid, "the standby's control file is Valid", "that of %s is %s", sn, target.Status.CtlStatus).Else(codeCtl)
	rel, _ := pi.Lineage.Compare(ti.Lineage)
	l.Add(rel == base.Equal && len(pi.Lineage) > 0, "the open records are equal", "those of %s against %s: %s", sn, pn, rel).Else(codeLineage)
	l.Add(ti.ValidClaim && ti.ValidClaimFrom == pn && ti.ValidClaimID == p.Reign(),
		"the standby itself was told by this primary that its archive is Valid",
		"%s says %v, from %q in reign %d (the primary's reign is %d)", sn, ti.ValidClaim, ti.ValidClaimFrom, ti.ValidClaimID, p.Reign()).Else(codeWasArch)
	// A package is on the primary's disk only after every Valid realtime standby
	// has it, so one with less has lost something that was acknowledged (G1).
	l.Add(a.Type != base.ArchRealtime || !ti.Keep.Less(pi.File), "the standby has all that the primary was last heard to have on disk",
		"%s has %s, %s had %s", sn, ti.Keep, pn, pi.File).Else(codeBehind)
	// With a timely archive the primary's disk is ahead of what is acknowledged.
	l.Add(a.Type != base.ArchTimely || !ti.Keep.Less(a.Acked), "the standby has all that it was last heard to have acknowledged",
		"%s has %s, it had acknowledged %s", sn, ti.Keep, a.Acked).Else(codeBehind)
	link, ok := target.Link(pn)
	l.Add(ok && !link.Connected, "the standby's own MAL link to the primary is broken", "%s", linkText(ok, sn, pn)).Else(codeActive)
	why, free := v.commandFree(true)
	l.Add(free, "no monitor command runs or was cut off by the failure", "%s", why).Else(codeClash)
	if !o.Auto {
		l.Add(!o.ConfirmElsewhere, "this monitor decides for the group",
			"the group is in AUTO mode and a confirm monitor is connected, which decides by itself: explain %s says what keeps it", sn)
		return l
	}
	l.Add(strings.EqualFold(target.Status.Config.Mode, "AUTO") && strings.EqualFold(p.Status.Config.Mode, "AUTO"),
		"primary and standby are guarded in AUTO mode", "%s %s, %s %s", pn, p.Status.Config.Mode, sn, target.Status.Config.Mode)
	// The taker's watcher checks the same before it obeys; a decision it must
	// refuse would only cost the time until the next one.
	rv, _ := target.Remote(pn)
	l.Add(!rv.InstOK, "the standby's watcher knows of the failure too", "the watcher of %s has not heard of the failure of %s yet", sn, pn)
	if !v.Alive(p) {
		l.Add(!rv.DWLink, "the standby's watcher does not hear the primary's watcher either", "the watcher of %s hears that of %s", sn, pn)
	}
	if p.Status.InstExitNorm || pi.ExitingNormal {
		waited := v.Now.Sub(o.ExitedAt)
		why := fmt.Sprintf("%s exited normally %s ago; MON_TAKEOVER_SHUTDOWN is %s", pn, waited.Truncate(time.Second), o.ShutdownWait)
		if o.ExitedAt.IsZero() { // this monitor did not see it
			why = pn + " exited normally; the confirm monitor acts MON_TAKEOVER_SHUTDOWN after that, with 0 never"
		}
		l.Add(o.ShutdownWait > 0 && !o.ExitedAt.IsZero() && waited >= o.ShutdownWait,
			"a normal exit of the primary lies MON_TAKEOVER_SHUTDOWN back",
			"%s", why)
	}
	return l
}

// wasOpen accepts Open, and with suspend also a Suspend that a failed send or
// a running recovery explains: what an isolated primary falls into (4.3 case 3).
func wasOpen(p Peer, suspend bool) bool {
	in := p.Status.Inst
	if in.Status == base.StatusOpen {
		return true
	}
	if !suspend || in.Status != base.StatusSuspend {
		return false
	}
	for _, a := range in.Archives {
		if a.SendFailed {
			return true
		}
	}
	return oneOf(p.Status.State, proto.DWRecovery, proto.DWConfirm) || oneOf(p.Status.StateAtLoss, proto.DWRecovery, proto.DWConfirm)
}

// undecided: a failed send has made a timely archive Invalid (manual 2.2.11.5),
// and its primary, suspended by that, has not gone on without the standby.
func undecided(a proto.ArchStatus) bool {
	return a.Type == base.ArchTimely && a.State == base.ArchInvalid && a.SendFailed
}

// TakeoverForce lists the conditions of a forced takeover (manual 6.7).
func TakeoverForce(v View, target Peer) List {
	var l List
	sn := target.Inst()
	prims := v.ActivePrimaries()
	l.Add(len(prims) == 0, "there is no active primary", "%s is active", names(prims)).Else(codePrimaryOpen)
	if q := v.HeardBy(target); q != "" { // its watcher would refuse in the middle of the takeover
		l.Add(false, "whoever may be the primary is heard", "%s runs, as the watcher of %s hears, and is not heard here", q, sn).Else(codePrimaryOpen)
	}
	l.Add(oneOf(v.State(target), proto.DWOpen, proto.DWStartup), "the standby's watcher is Open or Startup",
		"the watcher of %s is %s", sn, v.State(target)).Else(codeDWState)
	l.Add(v.InstOK(target), "the standby runs normally", "%s is in Error", sn).Else(codeInst)
	ti := target.Status.Inst
	l.Add(ti.Mode == base.ModeStandby, "the database is in Standby mode", "%s is %s", sn, ti.Mode).Else(codeMode)
	l.Add(ti.Status == base.StatusOpen || ti.Status == base.StatusMount, "it is Open or Mount", "%s is %s", sn, ti.Status).Else(codeStatus)
	l.notWhole(target)
	most := target
	for _, q := range v.Standbys() {
		if v.InstOK(q) && most.Status.Inst.Keep.Less(q.Status.Inst.Keep) {
			most = q
		}
	}
	l.Add(!ti.Keep.Less(most.Status.Inst.Keep), "its KLSN is the largest of all standbys", "%s has %s, %s has %s", sn, ti.Keep, most.Inst(), most.Status.Inst.Keep).Else(codeNotMost)
	l.Add(target.Status.CtlStatus == proto.CtlValid, "its control file is Valid", "that of %s is %s", sn, target.Status.CtlStatus).Else(codeCtl)
	why, free := v.commandFree(false)
	l.Add(free, "no monitor command runs", "%s", why).Else(codeClash)
	return l
}

func linkText(known bool, from, to string) string {
	if !known {
		return from + " does not report its link to " + to
	}
	return from + " is still connected to " + to
}

func names(ps []Peer) string {
	var out []string
	for _, p := range ps {
		out = append(out, p.Inst())
	}
	return strings.Join(out, ", ")
}

// Failover lists the conditions under which a primary may go on without the
// standbys named in req.Failed (manual 6.9, automatic mode, case 1). The same
// rules cover a restarted primary that asks from Mount.
func Failover(v View, req proto.ConfirmRequest) List {
	var l List
	st := req.Status
	pn := st.Inst.InstName
	p := Peer{Known: true, Connected: true, Heard: v.Now, Status: st}
	mount := st.Inst.Status == base.StatusMount
	l.Add(len(req.Failed) > 0, "the request names the failed standbys", "it names none")
	l.Add(strings.EqualFold(st.Config.Mode, "AUTO"), "the group is in AUTO mode", "%s is guarded in mode %q", pn, st.Config.Mode)
	if mount {
		l.Add(oneOf(st.State, proto.DWStartup, proto.DWConfirm), "the primary's watcher is in Startup or Confirm", "it is %s", st.State)
	} else {
		l.Add(st.State == proto.DWConfirm, "the primary's watcher is in Confirm", "it is %s", st.State)
	}
	l.Add(st.InstOK && st.Inst.Mode == base.ModePrimary && (mount || st.Inst.Status == base.StatusSuspend),
		"the primary is normal and in Suspend (or restarted and in Mount)", "%s is %s, OK %v", pn, modeStatus(p), st.InstOK)
	l.Add(p.Reign() > 0 || mount, "the primary has an open record", "%s has none", pn)
	l.Add(st.CtlStatus == proto.CtlValid, "its control file is Valid", "it is %s", st.CtlStatus)
	for _, q := range v.Peers {
		if !q.Known || q.Inst() == pn || !Global(q) {
			continue
		}
		qn := q.Inst()
		l.Add(q.Reign() <= p.Reign(), "no database has a newer reign", "%s is in reign %d, %s in %d", qn, q.Reign(), pn, p.Reign())
		if q.Status.Inst.Mode == base.ModePrimary {
			l.Add(q.Reign() < p.Reign(), "there is no other primary", "%s is %s in reign %d", qn, modeStatus(q), q.Reign())
		}
	}
	why, free := v.commandFree(false)
	l.Add(free && st.Cmd == nil, "no takeover, switchover or other monitor command runs", "%s", why)
	for _, a := range st.Inst.Archives {
		if a.Type != base.ArchRealtime && a.Type != base.ArchTimely {
			continue
		}
		q, ok := v.Find(a.Inst)
		if a.State != base.ArchValid || !ok {
			continue
		}
		rel, _ := st.Inst.Lineage.Compare(q.Status.Inst.Lineage)
		l.Add(rel == base.Equal || rel == base.RemoteContained, "every standby with a Valid archive can join the primary",
			"the open records of %s against %s: %s", a.Inst, pn, rel)
	}
	return l
}
