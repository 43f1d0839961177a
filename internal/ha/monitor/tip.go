package monitor

import (
	"fmt"
	"strings"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/cond"
	"datawatch/internal/ha/proto"
)

// Report is the answer of a check: lines for people, and conditions.
type Report struct {
	OK    bool      `json:"ok"`
	Code  base.Code `json:"code"`
	Lines []string  `json:"lines"`
	Conds cond.List `json:"conditions,omitempty"`
}

// Tip judges the whole system (manual 4.4 #12; codes -25 to -27 of 10.2.4 #66).
func (m *Monitor) Tip() Report {
	r := Report{OK: true}
	say := func(f string, a ...any) { r.Lines = append(r.Lines, fmt.Sprintf(f, a...)) }
	worst := base.Code(0)
	note := func(c base.Code) {
		if c < worst {
			worst = c
		}
	}
	own, ownBad := "", false
	if e := (*proto.Ending)(m.sec.Ending()); e != nil {
		own, ownBad = m.tipEnding("this monitor's certificate", e, say)
		say("  next: %s", own)
	}
	for _, g := range m.groups {
		v := m.view(g)
		prims := v.ActivePrimaries()
		healthy := len(prims) == 1 && v.State(prims[0]) == proto.DWOpen && prims[0].Status.Inst.Status == base.StatusOpen && silent(v, prims[0]) == ""
		switch {
		case len(prims) > 1:
			say("group %s: several active primaries: %s", g.Name, peerNames(prims))
		case len(prims) == 0:
			say("group %s: there is no active primary", g.Name)
		default:
			say("group %s: %s is the primary, %s, its watcher %s", g.Name, prims[0].Inst(), prims[0].Status.Inst.Status, v.State(prims[0]))
		}
		abnormal := ownBad
		var renew []string
		for _, p := range v.Peers {
			if !p.Known {
				say("  %s: no message received from this watcher%s", p.Addr, m.linkError(g, p.Addr))
				abnormal = true
				continue
			}
			bad := m.tipPeer(v, p, prims, say)
			steps, ended := m.tipEndings(v, p, say)
			renew = append(renew, steps...)
			abnormal = abnormal || bad || ended
		}
		for _, t := range unequal(v) {
			say("  %s", t)
			abnormal = true
		}
		if v.Auto() && !confirmSeen(v) && !m.cfg.Confirm {
			say("  AUTO mode, but no confirm monitor is connected: nobody will take over by itself")
			abnormal = true
		}
		for _, t := range append(m.steps(v, g, prims), renew...) {
			say("  next: %s", t)
		}
		switch {
		case healthy && abnormal:
			note(CodeTipAbnormal)
		case !healthy && len(prims) <= 1 && m.handled(v):
			note(CodeTipHandling)
		case !healthy:
			note(CodeTipDecide)
		}
	}
	r.Code, r.OK = worst, worst == 0
	switch worst {
	case 0:
		say("all instances and watchers are running normally")
	case CodeTipAbnormal:
		say("every group has a normal primary, but other instances are abnormal")
	case CodeTipHandling:
		say("not every group has a normal primary; the watchers are handling it, look again later")
	default:
		say("not every group has a normal primary; the user must decide whether to step in")
	}
	return r
}

// unequal tells which parameters that must be equal in a group are not (manual
// 4.4 #34): one was perhaps changed while another watcher did not run.
func unequal(v cond.View) []string {
	var out []string
	for _, x := range []struct {
		name string
		of   func(proto.GroupConfig) string
	}{
		{"DW_MODE", func(c proto.GroupConfig) string { return c.Mode }},
		{"DW_ERROR_TIME", func(c proto.GroupConfig) string { return fmt.Sprint(c.ErrorTime) }},
	} {
		var at []string
		first, differs := "", false
		for _, p := range v.Peers {
			if !v.Alive(p) || !cond.Global(p) {
				continue
			}
			val := x.of(p.Status.Config)
			if len(at) == 0 {
				first = val
			}
			differs = differs || val != first
			at = append(at, val+" at "+p.Inst())
		}
		if differs {
			out = append(out, x.name+" is not the same everywhere: "+strings.Join(at, ", "))
		}
	}
	return out
}

func (m *Monitor) tipPeer(v cond.View, p cond.Peer, prims []cond.Peer, say func(string, ...any)) (bad bool) {
	n, in := p.Inst(), p.Status.Inst
	complain := func(f string, a ...any) {
		bad = true
		say("  "+n+": "+f, a...)
	}
	if s := v.State(p); s != proto.DWOpen {
		complain("its watcher is %s", s)
	}
	if q := v.Now.Sub(p.Heard); v.Alive(p) && q >= quietTime {
		complain("its watcher has been silent for %d s; at DW_ERROR_TIME (%d s) it counts as failed", q/time.Second, p.Status.Config.ErrorTime)
	}
	if t := silent(v, p); t != "" {
		complain("the instance %s", t)
	}
	if !v.InstOK(p) {
		complain("the instance is in Error (last heard %s/%s)", in.Mode, in.Status)
	} else if in.Status != base.StatusOpen {
		complain("the instance is %s", in.Status)
		if in.SuspendReason != "" {
			complain("suspended: %s", in.SuspendReason)
		}
	}
	if cond.Global(p) && p.Status.CtlStatus != proto.CtlValid {
		complain("its control file says %s", ctlText(p.Status.CtlStatus)) // why: Status.Why
	}
	if len(prims) == 1 && n != prims[0].Inst() && cond.Global(p) {
		if rel, _ := prims[0].Status.Inst.Lineage.Compare(in.Lineage); rel == base.Forked || rel == base.LocalContained {
			complain("it cannot join %s: its open records are %s", prims[0].Inst(), rel)
		}
		if a, ok := prims[0].Arch(n); ok && a.State != base.ArchValid {
			complain("the archive from %s is %s", prims[0].Inst(), a.State)
			if c := prims[0].Status.Recovered[n].Code; c < 0 {
				complain("its last recovery failed with code %d", c)
			}
		}
	}
	if r := in.Rejoin; r != nil {
		complain("it has rejoined with pages of %s as of %s and is at %s: it cannot be read before it is there", r.Primary, r.Whole, in.Apply)
	}
	if l, ok := m.rejoinConds(v, p); ok && cond.Global(p) {
		if l.OK() {
			complain("it is about to rejoin %s, giving up its redo after the fork", prims[0].Inst())
		} else if len(l) > 0 && l[:len(l)-1].OK() {
			complain("it has redo that %s is without, and could rejoin by giving that up: rejoin database, or DW_REJOIN = 1", prims[0].Inst())
		} else {
			complain("it cannot rejoin %s: %s", prims[0].Inst(), l[:max(len(l)-1, 0)].Why())
		}
	}
	if c := p.Status.Cmd; c != nil {
		complain("its watcher holds command %s of monitor %s", c.Kind, c.Mon)
	}
	for _, w := range p.Status.Why {
		say("  %s: %s", n, w)
	}
	return bad
}

// quietTime is after how long silence of a watcher that counts as alive is told.
const quietTime = 2 * time.Second

// silent says that the instance of p, judged OK, says nothing; "" when it does.
func silent(v cond.View, p cond.Peer) string {
	if p.Status.InstSilent == 0 || !v.InstOK(p) {
		return ""
	}
	return fmt.Sprintf("has been silent for %d s; at INST_ERROR_TIME (%d s) it counts as failed", p.Status.InstSilent, p.Status.Config.InstErrorTime)
}

func peerNames(ps []cond.Peer) string {
	var out []string
	for _, p := range ps {
		out = append(out, p.Inst())
	}
	return strings.Join(out, ", ")
}

// CheckOpen tells whether a database opens by itself and, if not, why: in the
// words of its own watcher, which decides (manual 4.4 #47).
func (m *Monitor) CheckOpen(groupName, db string) (Report, error) {
	g, p, err := m.database(groupName, db)
	if err != nil {
		return Report{}, err
	}
	v := m.view(g)
	in, step := p.Status.Inst, m.peerStep(v, g, p)
	r := Report{Code: CodeNoOpen}
	l := &r.Conds
	l.Add(v.Alive(p), "its watcher answers", "last heard %s: %s%s", p.Heard.Format(time.DateTime), step, m.linkError(g, p.Addr))
	if !l.OK() {
		r.Lines = []string{fmt.Sprintf("when last heard it was %s, %s, its watcher %s; nothing is known since", in.Mode, in.Status, p.Status.State)}
		return r, nil
	}
	l.Add(v.State(p) != proto.DWShutdown, "its watcher is guarding", "it is in %s: %s", proto.DWShutdown, step)
	if runs := v.InstOK(p); !runs && l.OK() && step != "" {
		l.Add(false, "the instance runs", "%s: %s", lost(p), step)
	} else {
		l.Add(runs, "the instance runs", "%s", lost(p))
	}
	l.Add(p.Status.Cmd == nil, "no monitor command runs", "one does")
	l.Add(p.Status.CtlStatus == proto.CtlValid || !cond.Global(p), "its control file is Valid", "it is %s: %s", ctlText(p.Status.CtlStatus), p.Status.CtlDesc)
	if !v.InstOK(p) { // what it was is not what it will be
		if p.Status.Cmd != nil || restarts(p) && v.State(p) != proto.DWShutdown && p.Status.CtlStatus == proto.CtlValid {
			r.Code = CodeOpenLater
		}
		return r, nil
	}
	if t := silent(v, p); t != "" {
		l.Add(false, "the instance answers its watcher", "it %s", t)
	}
	early := in.Status == base.StatusStartup || in.Status == base.StatusAfterRedo
	l.Add(!early, "the instance has reached Mount", "it is %s", in.Status)
	if diskFull(p) {
		l.Add(false, "its disk has room", "%s: %s", in.SuspendReason, freeSpace(p))
	}
	open := in.Status == base.StatusOpen
	for _, w := range p.Status.Why {
		l.Add(open && v.State(p) == proto.DWOpen, "the watcher is satisfied", "%s", w)
	}
	r.OK = l.OK()
	switch {
	case r.OK && open:
		r.Code, r.Lines = 0, append(r.Lines, p.Inst()+" is Open")
	case r.OK:
		r.Code, r.Lines = 0, append(r.Lines, p.Inst()+" meets the conditions and is opened by its watcher")
	case early || p.Status.Cmd != nil:
		r.Code = CodeOpenLater
	case open:
		r.Code = CodeNoOpenDW
	}
	return r, nil
}

// CheckRecover tells whether a standby would be recovered now (manual 4.4 #46,
// 3.1.9); what only the primary's watcher knows is quoted from it.
func (m *Monitor) CheckRecover(groupName, db string) (Report, error) {
	g, p, err := m.database(groupName, db)
	if err != nil {
		return Report{}, err
	}
	v := m.view(g)
	r := Report{}
	l := &r.Conds
	in := p.Status.Inst
	l.Add(in.Mode == base.ModeStandby, "it is a standby", "it is %s", in.Mode)
	prims := v.ActivePrimaries()
	if len(prims) != 1 {
		l.Add(false, "there is one active primary", "there are %d", len(prims))
		r.Code = CodeNoRecover
		return r, nil
	}
	q := prims[0]
	l.Add(q.Status.Inst.Status == base.StatusOpen, "the primary is Open", "%s is %s", q.Inst(), q.Status.Inst.Status)
	l.Add(v.State(q) == proto.DWOpen || v.State(q) == proto.DWRecovery, "its watcher is Open", "it is %s", v.State(q))
	l.Add(v.InstOK(p) && in.Status == base.StatusOpen, "the standby is Open", "%s, OK %v", in.Status, v.InstOK(p))
	l.Add(v.State(p) == proto.DWOpen, "the standby's watcher is Open", "it is %s", v.State(p))
	a, ok := q.Arch(p.Inst())
	l.Add(ok, "the primary has an archive to it", "none is configured")
	if ok && a.State == base.ArchValid {
		r.OK, r.Lines = true, []string{"the archive to " + p.Inst() + " is Valid: there is nothing to recover"}
		return r, nil
	}
	lin, _ := cond.Reach(in)
	rel, _ := q.Status.Inst.Lineage.Compare(lin)
	l.Add(rel == base.Equal || rel == base.RemoteContained, "it can join the primary by the open records", "they are %s", rel)
	if fork, end, ok := cond.Surplus(in, q.Status.Inst); ok {
		l.Add(false, "the primary has all its redo", "the histories part at %s, its redo ends at %s: explain %s tells whether it can rejoin", fork, end, p.Inst())
	}
	replayed := in.Apply == in.Stand
	l.Add(replayed, "it has replayed everything it has (ASEQ/ALSN = SSEQ/SLSN)", "applied %s, replayable %s", in.Apply, in.Stand)
	waiting := false
	for _, w := range q.Status.Why {
		if strings.Contains(w, p.Inst()) {
			waiting = true
			l.Add(false, "the primary's watcher is satisfied", "%s", w)
		}
	}
	if a.Recovering {
		r.Lines = append(r.Lines, fmt.Sprintf("the recovery is running: sent up to %s", a.Sent))
	}
	switch r.OK = l.OK(); {
	case r.OK:
		r.Lines = append(r.Lines, p.Inst()+" meets the conditions and is about to be recovered")
	case q.Status.Cmd != nil || !replayed || waiting:
		r.Code = CodeRecoverLater
	default:
		r.Code = CodeNoRecover
	}
	return r, nil
}
