package confirm

import (
	"fmt"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/cond"
	"datawatch/internal/ha/proto"
)

// Takeover lists every condition under which inst would take over now, by
// itself (auto) or by command.
func (s State) Takeover(inst string, auto bool, now time.Time) cond.List {
	v := s.view(now)
	target, ok := v.Find(inst)
	if !ok {
		var l cond.List
		l.Add(false, "the standby has been heard", "nothing is known of %s", inst)
		return l
	}
	o := cond.TakeoverOptions{Auto: auto, ShutdownWait: s.cfg.ShutdownWait, Suspend: !s.cfg.ViewOnly}
	prim, err := v.LastPrimary()
	if err == nil {
		o.ExitedAt = s.metaOf(prim).exitedAt
	}
	l := cond.Takeover(v, target, o)
	if err != nil {
		return l
	}
	s.exclusions(&l, prim, target, now)
	if !auto {
		return l
	}
	l.Add(!s.cfg.ViewOnly, "this is a confirm monitor", "it is not")
	pm, tm := s.metaOf(prim), s.metaOf(target)
	l.Add(pm.fresh, "the primary was heard since this monitor started", "not yet; a takeover by command is possible")
	l.Add(tm.fresh && target.Connected, "the standby was heard since this monitor started", "not connected to its watcher")
	// What it says of its claim is then of a moment after anything this monitor
	// may have missed (package comment, "What must have been heard").
	l.Add(tm.onLink, "the standby was heard since the connection to its watcher came up", "not yet")
	// When this monitor's own network has just come back, the primary is about to be heard, too.
	l.Add(now.Sub(tm.backAt) >= backGrace || !prim.Heard.Before(tm.backAt),
		"the standby's watcher, silent before, is heard again for a second, or the primary since, too", "neither yet")
	l.Add(!s.busy, "this monitor runs no manual command", "it does")
	return l
}

// backGrace is how long the primary's watcher has to be heard once the standby's
// is heard again: a switch that is repaired gives all of them back, one after
// the other. It is counted from the end of a silence, not from a connection: one
// that breaks again and again brings reports, and must not put a takeover off.
const backGrace = time.Second

// metaOf is the rest of what is known of p, which a view of s gave out.
func (s *State) metaOf(p cond.Peer) meta { return s.meta[s.byAddr(p.Addr)] }

// exclusions adds the conditions that earlier decisions impose.
func (s State) exclusions(l *cond.List, prim, target cond.Peer, now time.Time) {
	l.Add(s.pend.kind == decideNothing, "no other decision is being written", "one is")
	d, dropped := s.rec.dropped(target.Inst())
	l.Add(!dropped, "the standby was not cut off by a granted Failover",
		"%s was allowed to go on without it (decision %d) and has not reported it Valid since", d.Primary, d.Term)
	l.Add(prim.Reign() >= s.seen, "the failed primary is the newest one seen", "%s is of reign %d, reign %d was seen", prim.Inst(), prim.Reign(), s.seen)
	if t := s.rec.Taken; t != nil && prim.Reign() <= t.Reign {
		why, certain := s.didNotOpen(now)
		l.Add(certain, "an earlier takeover of this reign has certainly not happened", "%s", why)
	}
}

func attemptOf(p pending, now time.Time) attempt {
	return attempt{inst: p.inst, term: p.grant.Term, at: now, based: true, inc: p.inc, era: p.grant.Era}
}

// didNotOpen reports whether the last granted candidate certainly stands where
// it stood: its watcher says so in a report of an era in which it would refuse
// the grant, so nothing of it is on its way any more. A watcher that was
// restarted since never had the grant, or has lost it.
func (s State) didNotOpen(now time.Time) (string, bool) {
	if s.att.inst == "" {
		return "its outcome is unknown", false
	}
	v := s.view(now)
	c, ok := v.Find(s.att.inst)
	if !ok || !v.InstOK(c) || !c.Connected || !s.metaOf(c).onLink {
		return fmt.Sprintf("the state of %s is unknown", s.att.inst), false
	}
	if c.Status.Incarnation == s.att.inc && c.Status.Era < s.att.era+2 {
		return fmt.Sprintf("decision %d for %s is less than DW_ERROR_TIME old", s.att.term, s.att.inst), false
	}
	in := c.Status.Inst
	if in.Mode != base.ModeStandby || c.Reign() > s.rec.Taken.Reign || c.Status.Cmd != nil ||
		(c.Status.State != proto.DWOpen && c.Status.State != proto.DWStartup) {
		return fmt.Sprintf("%s is %s/%s in reign %d, watcher %s", c.Inst(), in.Mode, in.Status, c.Reign(), c.Status.State), false
	}
	return "", true
}

// void reports whether the takeover of the requester's reign came to nothing, so
// that the requester may go on: the candidate certainly did not open, and it has
// nothing that the requester is without.
func (s State) void(req proto.ConfirmRequest, now time.Time) (string, bool) {
	t := s.rec.Taken
	if req.Status.Inst.Lineage.Last().ID < t.Reign {
		return "", false
	}
	if why, certain := s.didNotOpen(now); !certain {
		return why, false
	}
	c, _ := s.view(now).Find(s.att.inst)
	if req.Status.Inst.File.Less(c.Status.Inst.Apply) {
		return fmt.Sprintf("%s has redo up to %s, %s up to %s", c.Inst(), c.Status.Inst.Apply, req.Status.Inst.InstName, req.Status.Inst.File), false
	}
	return "", true
}

// decide starts an automatic takeover when one is due; with tell it says why
// none is, once for each reason.
func (s *State) decide(now time.Time, tell bool) []Action {
	if s.cfg.ViewOnly || s.pend.kind != decideNothing || s.busy {
		return nil
	}
	v := s.view(now)
	prim, err := v.LastPrimary()
	if err != nil || v.InstOK(prim) || !v.Auto() || len(v.ActivePrimaries()) > 0 {
		s.told = ""
		return nil
	}
	var best cond.Peer
	var whys string
	for _, t := range v.Standbys() {
		if m := s.metaOf(t); !tell && (!m.fresh || !m.onLink || !t.Status.Inst.ValidClaim) {
			continue // conditions that fail most often; nobody asks which
		}
		l := s.Takeover(t.Inst(), true, now)
		if !l.OK() {
			whys += t.Inst() + ": " + l.Why() + ". "
			continue
		}
		if !best.Known || best.Status.Inst.Keep.Less(t.Status.Inst.Keep) {
			best = t
		}
	}
	if !best.Known {
		underWay := s.att.inst != "" && now.Sub(s.att.at) < v.ErrorTime()
		if !tell || underWay || whys == "" || whys == s.told {
			return nil
		}
		s.told = whys
		return []Action{Tell{fmt.Sprintf("%s has failed; no standby takes over now. %s", prim.Inst(), whys)}}
	}
	return s.grant(decideTakeover, 0, prim.Inst(), prim.Reign(), best, now)
}

func (s *State) grant(kind decisionKind, reqID uint64, old string, reign uint64, target cond.Peer, now time.Time) []Action {
	next := s.next()
	keep := target.Status.Inst.Keep
	next.Taken = &Taken{Reign: reign, OldPrimary: old, Candidate: target.Inst(), Term: next.Term, MinKeep: keep,
		Manual: kind == decideManual, Time: now}
	return s.write(pending{kind: kind, reqID: reqID, next: next, inst: target.Inst(), inc: target.Status.Incarnation,
		grant: proto.Grant{Term: next.Term, OldPrimary: old, Lineage: reign, MinKeep: keep, Era: target.Status.Era}})
}

// reserve writes a manual takeover down before its first step, so that no
// request of the old primary can be granted beside it.
func (s *State) reserve(e Reserve, now time.Time) []Action {
	v := s.view(now)
	target, ok := v.Find(e.Inst)
	var l cond.List
	switch {
	case !ok:
		l.Add(false, "the standby has been heard", "nothing is known of %s", e.Inst)
	case e.Force:
		l = cond.TakeoverForce(v, target)
		l.Add(s.pend.kind == decideNothing, "no other decision is being written", "one is")
	default:
		l = s.Takeover(e.Inst, false, now)
	}
	if !l.OK() {
		return []Action{Reserved{ID: e.ID, Why: l.Why()}}
	}
	old, reign := "", target.Reign()
	if p, err := v.LastPrimary(); err == nil {
		old, reign = p.Inst(), max(reign, p.Reign())
	}
	return s.grant(decideManual, e.ID, old, reign, target, now)
}

// TakeoverWait returns the database whose normal exit is being waited out and
// the time left (manual 4.4 #15); ok is false when none is.
func (s State) TakeoverWait(now time.Time) (inst string, left time.Duration, ok bool) {
	if s.cfg.ShutdownWait == 0 {
		return "", 0, false
	}
	p, err := s.view(now).LastPrimary()
	if err != nil {
		return "", 0, false
	}
	q := s.metaOf(p)
	if q.exitedAt.IsZero() {
		return "", 0, false
	}
	return p.Inst(), max(0, s.cfg.ShutdownWait-now.Sub(q.exitedAt)), true
}
