package ship

import (
	"context"
	"fmt"

	"datawatch/internal/base"
	"datawatch/internal/repl/mal"
	"datawatch/internal/repl/standby"
)

// LinkUp, LinkDown and PeerIdentity are a part of mal.Handler.
func (s *Shipper) LinkUp(inst string, _ mal.Identity) { s.recheck(inst) }

// LinkDown needs no work: sends under way fail by themselves.
func (s *Shipper) LinkDown(string, error) {}

// PeerIdentity settles positions and claims again: a standby may have opened.
func (s *Shipper) PeerIdentity(inst string, _ mal.Identity) { s.recheck(inst) }

// EngineChanged must be called after mode, status or lineage of the own
// database have changed: the standbys hear the state of their archives then.
func (s *Shipper) EngineChanged() {
	for _, t := range s.targets {
		s.recheck(t.Inst)
	}
}

func (s *Shipper) recheck(inst string) {
	t := s.byName[inst]
	if t == nil {
		return
	}
	t.mu.Lock()
	t.check = true
	t.mu.Unlock()
	t.kick()
}

// tell is the goroutine of a target.
func (s *Shipper) tell(t *target) {
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-t.wake:
		}
		t.mu.Lock()
		check := t.check
		t.check = false
		t.mu.Unlock()
		if check {
			s.settle(t)
		}
		t.mu.Lock()
		pos := t.notice
		t.mu.Unlock()
		if pos.Seq == 0 {
			continue
		}
		if s.cfg.Clock.Sleep(s.ctx, s.cfg.NoticeDelay) != nil {
			return
		}
		t.mu.Lock()
		pos, t.notice = t.notice, base.Position{}
		id := t.ackedID
		valid := t.state == base.ArchValid
		t.mu.Unlock()
		s.mu.Lock()
		overtaken := s.started > pos.Seq // a newer package carries it
		s.mu.Unlock()
		if pos.Seq != 0 && valid && !overtaken {
			if err := s.cfg.Transport.Notify(t.Inst, mal.TypeHardened, mal.Hardened{Pos: pos, OpenID: id}.Append(nil)); err != nil {
				s.cfg.Log.Debug("notice not sent", "inst", t.Inst, "err", err)
			}
		}
	}
}

// reigning tells whether the database is a primary past its opening: before, it
// has nothing to claim.
func (s *Shipper) reigning() bool {
	st := s.cfg.Engine.Status()
	return s.cfg.Engine.Mode() == base.ModePrimary && (st == base.StatusOpen || st == base.StatusSuspend)
}

// settle compares positions with a standby whose link has come up and tells it
// the state of its archive. A Valid archive to a standby that lacks what it has
// acknowledged is a failed send.
func (s *Shipper) settle(t *target) {
	if !s.reigning() {
		return
	}
	// No package may be under way: one that waits for this very link fails with
	// it, so the lock comes free.
	s.one.Lock()
	defer s.one.Unlock()
	ctx, cancel := t.untilInvalid(s.ctx)
	defer cancel()
	if !t.valid() {
		if _, err := s.say(s.ctx, t, base.ArchInvalid); err != nil {
			s.cfg.Log.Debug("state of the archive not told", "inst", t.Inst, "err", err)
		}
		return
	}
	info, err := s.say(ctx, t, base.ArchUnknown)
	if err != nil {
		return // the link again; it comes back here
	}
	if err := s.compare(t, info); err != nil {
		s.behind(t, err)
		return
	}
	if info.Mode != base.ModeStandby || info.Status != base.StatusOpen {
		return // PeerIdentity tells when it opens
	}
	_, err = s.say(ctx, t, base.ArchValid)
	switch code := base.CodeOf(err, 0); {
	case err == nil:
		t.mu.Lock()
		if t.acked.Seq == 0 || t.ackedID != s.cfg.Engine.Lineage().Last().ID {
			t.acked, t.ackedID = info.Keep, info.OpenID
		}
		t.mu.Unlock()
	case code == standby.CodeNotNext || code == standby.CodeLineage:
		s.behind(t, err)
	default:
		s.cfg.Log.Warn("standby does not take our claim", "inst", t.Inst, "err", err)
	}
}

// compare checks that a standby with a Valid archive has what it must have: the
// newest package it acknowledged, or the one before when that is the pending
// package, which comes again.
func (s *Shipper) compare(t *target, info mal.StandbyInfo) error {
	t.mu.Lock()
	want := t.acked
	if t.ackedID != s.cfg.Engine.Lineage().Last().ID {
		want = base.Position{}
	}
	t.mu.Unlock()
	if want.Seq == 0 {
		want = s.cfg.Engine.LogEnd()
	}
	if info.Keep == want {
		return nil
	}
	s.mu.Lock()
	p, failed := s.pending, s.failed
	s.mu.Unlock()
	if p != nil && (info.Keep == p.Pos() || failed && info.Keep.Seq+1 == p.GSEQ && info.Keep.LSN == p.PrevLSN) {
		return nil
	}
	what := "has lost packages it had acknowledged"
	if want.Less(info.Keep) {
		what = "is ahead of us"
	}
	return base.Errorf(standby.CodeNotNext, "standby %s: it is at %v, should be at %v", what, info.Keep, want)
}

// behind books a failed send and suspends the database.
func (s *Shipper) behind(t *target, err error) {
	t.mu.Lock()
	t.sendFailed, t.lastError = true, err.Error()
	if t.Type == base.ArchTimely {
		t.setInvalid()
	}
	t.mu.Unlock()
	reason := fmt.Sprintf("%v archive to %s: %v", t.Type, t.Inst, err)
	s.cfg.Log.Error("standby does not have what its archive state says", "inst", t.Inst, "err", err)
	s.cfg.Engine.Suspend(reason)
	s.cfg.OnChange()
}

// untilInvalid derives a context that also ends when the archive is made
// Invalid.
func (t *target) untilInvalid(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	invalid := t.invalidated()
	if t.valid() {
		go func() {
			select {
			case <-invalid:
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	return ctx, cancel
}

// say sends a State and returns the standby's answer.
func (s *Shipper) say(ctx context.Context, t *target, st base.ArchState) (mal.StandbyInfo, error) {
	last := s.cfg.Engine.Lineage().Last()
	m := mal.State{State: st, OpenID: last.ID, OpenGUID: last.TGUID, File: s.cfg.Engine.LogEnd()}
	s.mu.Lock()
	if s.pending != nil {
		m.Pending = s.pending.Pos()
	}
	s.mu.Unlock()
	var info mal.StandbyInfo
	b, err := mal.EncodeJSON(m)
	if err != nil {
		return info, err
	}
	if b, err = s.cfg.Transport.Call(ctx, t.Inst, mal.TypeState, b); err != nil {
		return info, err
	}
	return info, mal.DecodeJSON(b, &info)
}

// SetState changes the state of the archive to inst, "" for all of them.
//
// Invalid takes effect whether or not the standby can be told, but it is told
// first if it answers within ClaimTimeout; a send under way is then not waited
// for any more. Valid, on a primary, is refused unless the database is
// suspended or mounted and the standby has exactly what the own log has (manual
// 3.1.9). Either is idempotent.
func (s *Shipper) SetState(ctx context.Context, inst string, st base.ArchState) error {
	if st != base.ArchValid && st != base.ArchInvalid {
		return base.Errorf(standby.CodeState, "archive state %v cannot be set", st)
	}
	todo := s.targets
	if inst != "" {
		t := s.byName[inst]
		if t == nil {
			return base.Errorf(CodeNoTarget, "no realtime or timely archive to %s", inst)
		}
		todo = []*target{t}
	}
	for _, t := range todo {
		var err error
		if st == base.ArchInvalid {
			s.invalidate(ctx, t)
		} else {
			err = s.validate(ctx, t)
		}
		if err != nil {
			return fmt.Errorf("set archive to %s %v: %w", t.Inst, st, err)
		}
	}
	s.cfg.OnChange()
	return nil
}

func (s *Shipper) invalidate(ctx context.Context, t *target) {
	tctx, cancel := context.WithTimeout(ctx, s.cfg.ClaimTimeout)
	defer cancel()
	// With t.send no package that says Valid can be written behind our Invalid.
	select {
	case t.send <- struct{}{}:
		defer func() { <-t.send }()
	case <-tctx.Done():
	}
	if s.cfg.Engine.Mode() == base.ModePrimary {
		if _, err := s.say(tctx, t, base.ArchInvalid); err != nil {
			s.cfg.Log.Warn("standby not told that its archive is Invalid", "inst", t.Inst, "err", err)
		}
	}
	t.mu.Lock()
	t.setInvalid()
	t.sendFailed, t.lastError = false, ""
	t.mu.Unlock()
}

func (s *Shipper) validate(ctx context.Context, t *target) error {
	e := s.cfg.Engine
	if e.Mode() != base.ModePrimary {
		t.mu.Lock()
		t.setValid()
		t.mu.Unlock()
		return nil
	}
	t.mu.Lock()
	done := t.state == base.ArchValid && !t.sendFailed
	busy := t.recovering
	t.mu.Unlock()
	if done {
		return nil
	}
	if busy {
		return base.Errorf(standby.CodeChanging, "archive is being sent to it")
	}
	s.one.Lock()
	defer s.one.Unlock()
	if st := e.Status(); st != base.StatusSuspend && st != base.StatusMount {
		return base.Errorf(standby.CodeState, "database is %v; it must be suspended (or mounted)", st)
	}
	info, err := s.say(ctx, t, base.ArchUnknown)
	if err != nil {
		return err
	}
	file := e.LogEnd()
	s.mu.Lock()
	p := s.pending
	s.mu.Unlock()
	switch {
	case info.Mode != base.ModeStandby:
		return base.Errorf(standby.CodeMode, "it is in %v mode, not Standby", info.Mode)
	case info.Status != base.StatusOpen:
		return base.Errorf(standby.CodeState, "it is %v, not Open", info.Status)
	case info.Keep == file:
	case info.Stand == file && p != nil && info.Keep == p.Pos(): // it keeps the pending package
	default:
		return base.Errorf(standby.CodeNotNext, "it is at %v, received %v; our log is at %v", info.Stand, info.Keep, file)
	}
	if _, err := s.say(ctx, t, base.ArchValid); err != nil {
		return err
	}
	t.mu.Lock()
	t.setValid()
	t.acked, t.ackedID = info.Keep, e.Lineage().Last().ID
	t.mu.Unlock()
	return nil
}

// setValid needs t.mu.
func (t *target) setValid() {
	if t.state != base.ArchValid {
		t.state = base.ArchValid
		t.invalid = make(chan struct{})
	}
	t.sendFailed, t.lastError = false, ""
}
