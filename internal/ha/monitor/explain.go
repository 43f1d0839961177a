package monitor

import (
	"fmt"

	"datawatch/internal/base"
	"datawatch/internal/ha/cond"
	"datawatch/internal/ha/proto"
)

// Explanation answers why one thing does or does not happen now: the conditions
// are those by which the watchers and the monitor decide, evaluated for this
// answer, and the watchers' own words for what only they know.
type Explanation struct {
	Group string    `json:"group"`
	Inst  string    `json:"inst"`
	What  string    `json:"what"` // that may happen
	OK    bool      `json:"ok"`   // it can happen, or has happened
	Conds cond.List `json:"conditions"`
	Lines []string  `json:"lines,omitempty"`
}

// Explain answers for one database everything that may happen to it: that it
// opens, is recovered, takes over, becomes primary by switchover, goes on without
// a standby. Without a database it answers, for a group or for all, what does not
// happen although the group is not as it should be; nothing when all is normal.
func (m *Monitor) Explain(groupName, db string) ([]Explanation, error) {
	if db != "" {
		g, p, err := m.database(groupName, db)
		if err != nil {
			return nil, err
		}
		return m.explain(g, p, true), nil
	}
	gs, err := m.groupsOf(groupName)
	if err != nil {
		return nil, err
	}
	var out []Explanation
	for _, g := range gs {
		v := m.view(g)
		if v.Auto() && !m.cfg.Confirm && !confirmSeen(v) {
			e := Explanation{Group: g.Name, Inst: g.Name, What: "a standby takes over by itself when the primary fails"}
			e.Conds.Add(false, "a confirm monitor is connected, which decides", "none is: start dmmonitor with MON_DW_CONFIRM = 1")
			out = append(out, e)
		}
		for _, p := range v.Peers {
			if p.Known {
				out = append(out, m.explain(g, p, false)...)
			} else {
				e := Explanation{Group: g.Name, Inst: p.Addr, What: "its state is known"}
				e.Conds.Add(false, "its watcher has been heard", "no message has been received from it%s: %s", m.linkError(g, p.Addr), m.peerStep(v, g, p))
				out = append(out, e)
			}
		}
	}
	return out, nil
}

// explain asks the questions about p; only those of something wrong unless all.
func (m *Monitor) explain(g *group, p cond.Peer, all bool) []Explanation {
	v := m.view(g)
	n, in := p.Inst(), p.Status.Inst
	prims := v.ActivePrimaries()
	var out []Explanation
	add := func(what string, l cond.List, lines ...string) {
		out = append(out, Explanation{Group: g.Name, Inst: n, What: what, OK: l.OK(), Conds: l, Lines: lines})
	}
	open := v.InstOK(p) && in.Status == base.StatusOpen && v.State(p) == proto.DWOpen && silent(v, p) == ""
	if suspended := v.InstOK(p) && in.Mode == base.ModePrimary && in.Status == base.StatusSuspend && !diskFull(p); suspended {
		add("it goes on without the standbys that failed", m.failoverConds(v, g, p), append([]string{"suspended: " + in.SuspendReason}, p.Status.Why...)...)
	} else if all || !open {
		if r, err := m.CheckOpen(g.Name, n); err == nil {
			if all {
				r.Lines = append(r.Lines, m.decisions(g, n)...)
			}
			if in.SuspendReason != "" && v.InstOK(p) {
				r.Lines = append([]string{"suspended: " + in.SuspendReason}, r.Lines...)
			}
			add("it opens by itself", r.Conds, r.Lines...)
		}
	}
	if l, ok := m.rejoinConds(v, p); ok && cond.Global(p) {
		add("it rejoins its group with pages of the primary, giving up redo that the primary is without", l)
	}
	if in.Mode != base.ModeStandby || !cond.Global(p) {
		return out
	}
	valid := false
	if len(prims) == 1 {
		a, ok := prims[0].Arch(n)
		valid = ok && a.State == base.ArchValid
	}
	if all || len(prims) == 1 && !valid {
		if r, err := m.CheckRecover(g.Name, n); err == nil {
			add("it is recovered, so that its archive becomes Valid", r.Conds, r.Lines...)
		}
	}
	if all || len(prims) == 0 {
		add("it takes over by itself", m.autoTakeoverConds(v, g, p))
	}
	if all {
		add("it can be switched to primary", cond.Switchover(v, p))
	}
	return out
}

// rejoinConds are those under which p, split from the group, rejoins: the very
// list that its watcher goes by. False: it is not split.
func (m *Monitor) rejoinConds(v cond.View, p cond.Peer) (cond.List, bool) {
	prims := v.ActivePrimaries()
	if len(prims) != 1 || prims[0].Inst() == p.Inst() {
		return nil, false
	}
	q := prims[0]
	_, _, surplus := cond.Surplus(p.Status.Inst, q.Status.Inst)
	// A standby with a Valid archive has redo before its primary's own log has it,
	// and is often heard later: that is no split.
	if a, ok := q.Arch(p.Inst()); ok && a.State == base.ArchValid && p.Status.Inst.Mode == base.ModeStandby {
		surplus = false
	}
	if !surplus && p.Status.CtlStatus != proto.CtlSplit {
		return nil, false
	}
	permit := ""
	switch {
	case p.Status.RejoinBad != "":
	case p.Status.RejoinBy != "":
		permit = "by command of monitor " + p.Status.RejoinBy
	case p.Status.Config.Rejoin:
		permit = "DW_REJOIN is 1"
	}
	return cond.Rejoin(p.Status.Inst, q.Status.Inst, v.InstOK(q), permit, p.Status.RejoinBad), true
}

// failoverConds are those under which the suspended primary p may go on now.
func (m *Monitor) failoverConds(v cond.View, g *group, p cond.Peer) cond.List {
	req := proto.ConfirmRequest{Status: p.Status}
	for _, a := range p.Status.Inst.Archives {
		if a.SendFailed {
			req.Failed = append(req.Failed, a.Inst)
		}
	}
	if !m.cfg.Confirm {
		l := cond.Failover(v, req)
		l.Add(confirmSeen(v), "a confirm monitor is connected, which decides", "none is")
		return l
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return g.st.Failover(req, m.clk.Now())
}

// autoTakeoverConds are those of the confirm monitor; another monitor does not
// know what that one has decided before.
func (m *Monitor) autoTakeoverConds(v cond.View, g *group, p cond.Peer) cond.List {
	if !m.cfg.Confirm {
		l := cond.Takeover(v, p, cond.TakeoverOptions{Auto: true, Suspend: true})
		l.Add(confirmSeen(v), "a confirm monitor is connected, which decides", "none is")
		return l
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return g.st.Takeover(p.Inst(), true, m.clk.Now())
}

// decisions are those on record that concern inst.
func (m *Monitor) decisions(g *group, inst string) []string {
	if !m.cfg.Confirm {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r := g.st.Record()
	var out []string
	if t := r.Taken; t != nil && equalFold(t.Candidate, inst) {
		how := "the monitor"
		if t.Manual {
			how = "command"
		}
		out = append(out, fmt.Sprintf("decision %d, by %s: %s was to take over reign %d from %s", t.Term, how, t.Candidate, t.Reign, t.OldPrimary))
	}
	for _, d := range r.Dropped {
		if equalFold(d.Inst, inst) {
			out = append(out, fmt.Sprintf("decision %d: %s may go on without %s in reign %d", d.Term, d.Primary, d.Inst, d.Reign))
		}
	}
	return out
}
