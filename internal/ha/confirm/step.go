package confirm

import (
	"fmt"
	"slices"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/cond"
	"datawatch/internal/ha/proto"
)

// Step applies one event. The given state is not changed.
func Step(s State, ev Event, now time.Time) (State, []Action) {
	s.peers, s.meta = slices.Clone(s.peers), slices.Clone(s.meta)
	s.rec = s.rec.clone()
	acts := s.Advance(ev, now)
	return s, acts
}

// Advance is Step for those who have no use for the state as it was: it
// changes s. No copy of s may be used afterwards.
func (s *State) Advance(ev Event, now time.Time) []Action {
	var out []Action
	_, stalled := ev.(Stalled)
	if s.noteTime(now) || stalled {
		s.forget(now)
		out = append(out, Reconnect{}, Tell{fmt.Sprintf("this monitor stood still for more than half of DW_ERROR_TIME in group %s: waiting for fresh reports", s.cfg.Group)})
		switch ev.(type) {
		case Report, Ask:
			return out // it has waited in the connection that is dropped now
		}
	}
	switch e := ev.(type) {
	case Report:
		s.report(e, now)
	case Link:
		s.link(e)
	case Tick, Stalled:
	case Ask:
		return append(out, s.ask(e, now)...)
	case Reserve:
		return append(out, s.reserve(e, now)...)
	case Persisted:
		out = append(out, s.persisted(e, now)...)
	case PersistFailed:
		out = append(out, s.persistFailed(e, now)...)
	case GrantReply:
		out = append(out, s.grantReply(e, now)...)
	case Busy:
		s.busy = e.On
	default:
		panic(fmt.Sprintf("confirm: event %T", ev))
	}
	if _, ok := ev.(Tick); ok {
		out = append(out, s.exitOld(now)...)
		out = append(out, s.decide(now, true)...)
	} else if _, ok := ev.(Report); ok {
		out = append(out, s.decide(now, false)...) // the missing piece of evidence
	}
	return out
}

// noteTime moves the epoch when the process stood still: reports received
// before are then of unknown age, and some were perhaps missed.
func (s *State) noteTime(now time.Time) bool {
	gap := now.Sub(s.lastTick)
	if now.After(s.lastTick) {
		s.lastTick = now
	}
	return gap > s.view(now).ErrorTime()/2 || gap < 0
}

func (s *State) forget(now time.Time) {
	s.epoch, s.lastTick = now, now
	for i := range s.meta {
		s.meta[i].fresh = false
	}
	if s.att.inst != "" {
		s.att.at = now
	}
}

// byAddr finds the watcher at addr; -1 when there is none.
func (s *State) byAddr(addr string) int {
	for i := range s.peers {
		if s.peers[i].Addr == addr {
			return i
		}
	}
	return -1
}

// byInst finds the watcher of inst; -1 when none was heard.
func (s *State) byInst(inst string) int {
	for i := range s.peers {
		if s.peers[i].Known && s.peers[i].Inst() == inst {
			return i
		}
	}
	return -1
}

func (s *State) link(e Link) {
	i := s.byAddr(e.Addr)
	if i < 0 {
		return
	}
	s.peers[i].Connected = e.Up
	s.meta[i].onLink = false // what it said before may be old
}

func (s *State) report(e Report, now time.Time) {
	i := s.byAddr(e.Addr)
	if i < 0 {
		return
	}
	p, m := &s.peers[i], &s.meta[i]
	if now.Sub(p.Heard) >= s.view(now).ErrorTime()/2 {
		m.backAt = now
	}
	p.Known, p.Connected, p.Heard, p.Status, m.fresh, m.onLink = true, true, now, e.Status, true, true
	in := &p.Status.Inst
	if s.att.inst == in.InstName && !s.att.based {
		s.att.based, s.att.inc, s.att.era = true, e.Status.Incarnation, e.Status.Era
	}
	exited := !e.Status.InstOK && (e.Status.InstExitNorm || in.ExitingNormal)
	switch {
	case !exited:
		m.exitedAt = time.Time{}
	case m.exitedAt.IsZero():
		m.exitedAt = now
	}
	if e.Status.InstOK && in.Mode == base.ModePrimary && in.Status == base.StatusOpen {
		s.seen = max(s.seen, p.Reign())
		if s.att.inst != "" && s.rec.Taken != nil && p.Reign() > s.rec.Taken.Reign {
			s.att = attempt{} // the takeover, or another opening, is complete
		}
		s.lift(p, now)
	}
}

// lift ends exclusions that the Open primary p's own report disproves.
func (s *State) lift(p *cond.Peer, now time.Time) {
	if len(s.rec.Dropped) == 0 {
		return
	}
	last, err := s.view(now).LastPrimary()
	if err != nil || last.Inst() != p.Inst() || p.Reign() < s.seen {
		return
	}
	st := &p.Status
	if st.State != proto.DWOpen && st.State != proto.DWRecovery {
		return
	}
	for _, a := range st.Inst.Archives {
		if a.State != base.ArchValid || a.SendFailed {
			continue
		}
		if d, ok := s.rec.dropped(a.Inst); ok && p.Reign() >= d.Reign && !(s.pend.kind != decideNothing) &&
			(st.Incarnation != d.AskInc || st.Seq > d.AskSeq) {
			s.rec = s.rec.without(a.Inst)
		}
	}
}

// Failover lists every condition under which req would be granted now.
func (s State) Failover(req proto.ConfirmRequest, now time.Time) cond.List {
	v := s.view(now)
	l := cond.Failover(v, req)
	n := req.Status.Inst.Lineage.Last().ID
	l.Add(!s.cfg.ViewOnly, "this is a confirm monitor", "it is not")
	l.Add(s.pend.kind == decideNothing, "no other decision is being written", "one is; ask again")
	l.Add(!s.busy, "this monitor runs no manual command", "it does; ask again")
	for i, p := range s.peers {
		if p.Known && p.Inst() == req.Status.Inst.InstName {
			continue
		}
		l.Add(s.meta[i].fresh || now.Sub(s.epoch) >= v.ErrorTime(),
			"every other watcher was heard since this monitor started, or is unreachable for DW_ERROR_TIME",
			"nothing from %s yet; ask again", p.Addr)
	}
	l.Add(n >= s.seen, "the request is of the newest reign seen", "it is of reign %d, reign %d was seen", n, s.seen)
	if t := s.rec.Taken; t != nil && n <= t.Reign {
		why, void := s.void(req, now)
		l.Add(void, "its reign was not taken over", "reign %d was granted to %s (decision %d): %s", t.Reign, t.Candidate, t.Term, why)
	}
	return l
}

func (s *State) ask(e Ask, now time.Time) []Action {
	l := s.Failover(e.Req, now)
	if !l.OK() {
		return []Action{Answer{e.ID, proto.ConfirmReply{Term: s.rec.Term, Why: l.Why()}}}
	}
	st := e.Req.Status
	// A request may come without the number of a report; reports and requests
	// of a watcher arrive in order, so the newest report precedes it.
	if i := s.byInst(st.Inst.InstName); i >= 0 {
		if p := &s.peers[i]; st.Incarnation == "" || st.Incarnation == p.Status.Incarnation {
			st.Incarnation, st.Seq = p.Status.Incarnation, max(st.Seq, p.Status.Seq)
		}
	}
	next := s.next()
	for _, inst := range e.Req.Failed {
		next = next.withDrop(Drop{Inst: inst, Primary: st.Inst.InstName, Reign: st.Inst.Lineage.Last().ID,
			Term: next.Term, AskInc: st.Incarnation, AskSeq: st.Seq})
	}
	return s.write(pending{kind: decideFailover, reqID: e.ID, next: next, inst: st.Inst.InstName})
}

// next is the record with the next term and what is known of reigns.
func (s *State) next() Record {
	r := s.rec.clone()
	r.Term++
	r.Seen = max(r.Seen, s.seen)
	return r
}

func (s *State) write(p pending) []Action {
	s.seq++
	p.seq = s.seq
	s.pend = p
	return []Action{Persist{p.seq, p.next.clone()}}
}

func (s *State) persisted(e Persisted, now time.Time) []Action {
	p := s.pend
	if p.kind == decideNothing || e.Seq != p.seq {
		return nil
	}
	s.rec, s.pend = p.next, pending{}
	switch p.kind {
	case decideFailover:
		return []Action{
			Answer{p.reqID, proto.ConfirmReply{Granted: true, Term: s.rec.Term, Why: "conditions hold; decision written"}},
			Tell{fmt.Sprintf("decision %d: %s may go on without the failed standbys", s.rec.Term, p.inst)},
		}
	case decideManual:
		s.att = attemptOf(p, now)
		return []Action{Reserved{ID: p.reqID, OK: true, Grant: p.grant}}
	}
	q := s.byInst(p.inst)
	if q < 0 {
		return nil
	}
	s.att = attemptOf(p, now)
	return []Action{
		Tell{fmt.Sprintf("decision %d: %s takes over from %s", p.grant.Term, p.inst, p.grant.OldPrimary)},
		SendGrant{s.peers[q].Addr, p.inst, p.grant},
	}
}

// persistFailed drops the decision: nothing was answered or sent, so nobody can
// act on it, whatever reached the disk. The term is not used again.
func (s *State) persistFailed(e PersistFailed, now time.Time) []Action {
	p := s.pend
	if p.kind == decideNothing || e.Seq != p.seq {
		return nil
	}
	s.pend = pending{}
	s.rec.Term = p.next.Term
	why := "the decision could not be written: " + e.Why
	switch p.kind {
	case decideFailover:
		return []Action{Answer{p.reqID, proto.ConfirmReply{Term: s.rec.Term, Why: why}}, Tell{why}}
	case decideManual:
		return []Action{Reserved{ID: p.reqID, Why: why}, Tell{why}}
	}
	return []Action{Tell{why}}
}

func (s *State) grantReply(e GrantReply, now time.Time) []Action {
	if s.att.inst == "" || e.Term != s.att.term {
		return nil
	}
	if e.Err {
		return []Action{Tell{fmt.Sprintf("no answer of the watcher of %s to decision %d: %s", s.att.inst, e.Term, e.Msg)}}
	}
	if e.OK {
		return []Action{Tell{fmt.Sprintf("the watcher of %s carries out decision %d", s.att.inst, e.Term)}}
	}
	return []Action{Tell{fmt.Sprintf("%s did not take over (decision %d): %s", s.att.inst, e.Term, e.Msg)}}
}

// exitOld tells primaries that a newer, Open primary exists.
func (s *State) exitOld(now time.Time) []Action {
	v := s.view(now)
	var newest cond.Peer
	for _, p := range v.ActivePrimaries() {
		if p.Status.Inst.Status == base.StatusOpen && p.Reign() > newest.Reign() {
			newest = p
		}
	}
	if s.cfg.ViewOnly || !newest.Known || now.Before(s.exitAt) {
		return nil
	}
	var out []Action
	for _, p := range v.ActivePrimaries() {
		if p.Reign() < newest.Reign() && p.Status.Cmd == nil {
			out = append(out, SendExitOld{p.Addr, p.Inst(), fmt.Sprintf("%s is Primary and Open in reign %d, %s in reign %d",
				newest.Inst(), newest.Reign(), p.Inst(), p.Reign())})
		}
	}
	if out != nil {
		s.exitAt = now.Add(v.ErrorTime())
	}
	return out
}
