package ship

import (
	"context"
	"errors"
	"fmt"

	"datawatch/internal/base"
	"datawatch/internal/repl/mal"
	"datawatch/internal/repl/standby"
	"datawatch/internal/storage/redo"
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
				s.cfg.Log.Debug("notice not sent", "peer", t.Inst, "err", err)
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
	if !t.valid() {
		// A failed send is not yet a decision to go on without the standby: it
		// keeps its right to take over until then.
		if t.holds() == nil {
			s.sayInvalid(s.ctx, t)
		}
		return
	}
	if err := s.settleValid(t); err != nil && t.valid() {
		s.behind(t, err)
	}
}

// settleValid returns an error only when the standby lacks something.
func (s *Shipper) settleValid(t *target) error {
	// No package may be under way: one that waits for this very link fails with
	// it, so the lock comes free.
	if s.enter(s.ctx) != nil {
		return nil
	}
	defer s.leave()
	if !t.valid() {
		return nil
	}
	ctx, cancel := t.untilInvalid(s.ctx)
	defer cancel()
	// Packages wait meanwhile: not long for one that answers late, which is asked
	// again later.
	ctx, stop := context.WithTimeout(ctx, standby.Lease)
	defer stop()
	defer func() {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			s.wg.Go(func() {
				if s.cfg.Clock.Sleep(s.ctx, s.cfg.FailInterval) == nil {
					s.recheck(t.Inst)
				}
			})
		}
	}()
	info, err := s.say(ctx, t, base.ArchUnknown)
	if err != nil {
		return nil // the link again; it comes back here
	}
	if err := s.compare(t, info); err != nil {
		return err
	}
	if info.Mode != base.ModeStandby || info.Status != base.StatusOpen {
		return nil // PeerIdentity tells when it opens
	}
	select { // no Invalid may be said before our Valid and take effect behind it
	case t.send <- struct{}{}:
		defer func() { <-t.send }()
	case <-ctx.Done():
		return nil
	}
	if !t.valid() {
		return nil
	}
	_, err = s.say(ctx, t, base.ArchValid)
	switch code := base.CodeOf(err, 0); {
	case err == nil:
		id := s.cfg.Engine.Lineage().Last().ID
		t.mu.Lock()
		if t.acked.Seq == 0 || t.ackedID != id {
			t.acked, t.ackedID = info.Keep, id
		}
		t.mu.Unlock()
	case code == standby.CodeNotNext || code == standby.CodeLineage:
		return err
	default:
		s.cfg.Log.Warn("standby does not take our claim", "peer", t.Inst, "err", err)
	}
	return nil
}

// ends returns the end of the own log, as far as it concerns a target, and the
// package beyond it that was sent or will be, if any; failed says that it will
// be sent again. Read in this order, a package that is hardened meanwhile is in
// one of the two. A timely target gets packages when they are in the own log
// already: for it a package is pending until it is hardened.
func (s *Shipper) ends(t *target) (file base.Position, pending *redo.Package, failed bool) {
	s.mu.Lock()
	pending, failed = s.pending, s.failed
	hardened := s.hardened
	s.mu.Unlock()
	file = s.cfg.Engine.LogEnd()
	if file.Less(hardened) {
		file = hardened
	}
	if pending != nil && pending.GSEQ <= file.Seq {
		if t.Type == base.ArchTimely {
			return base.Position{Seq: pending.GSEQ - 1, LSN: pending.PrevLSN}, pending, false
		}
		pending, failed = nil, false
	}
	return file, pending, failed
}

// compare checks that a standby with a Valid archive has what it must have: the
// newest package it acknowledged, or the one before when that is the pending
// package, which comes again.
func (s *Shipper) compare(t *target, info mal.StandbyInfo) error {
	file, p, failed := s.ends(t)
	t.mu.Lock()
	want := t.acked
	if t.ackedID != s.cfg.Engine.Lineage().Last().ID {
		want = base.Position{}
	}
	t.mu.Unlock()
	if want.Seq == 0 {
		want = file
	}
	if info.Keep == want {
		return nil
	}
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
	s.cfg.Log.Error("standby does not have what its archive state says", "peer", t.Inst, "err", err)
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
	return s.ask(ctx, t, mal.State{State: st})
}

func (s *Shipper) sayOver(ctx context.Context, t *target) error {
	_, err := s.ask(ctx, t, mal.State{Over: true})
	return err
}

func (s *Shipper) ask(ctx context.Context, t *target, m mal.State) (mal.StandbyInfo, error) {
	var info mal.StandbyInfo
	file, pending, _ := s.ends(t)
	l := s.cfg.Engine.Lineage()
	m.File = file
	if pending != nil {
		m.Pending = pending.Pos()
		// The open record in force at File: not one that only the pending
		// package brings.
		if rec, ok, err := standby.OpenRecordOf(pending); err == nil && ok && len(l) > 0 && l.Last().TGUID == rec.TGUID {
			l = l[:len(l)-1]
		}
	}
	m.OpenID, m.OpenGUID = l.Last().ID, l.Last().TGUID
	b, err := mal.EncodeJSON(m)
	if err != nil {
		return info, err
	}
	if b, err = s.cfg.Transport.Call(ctx, t.Inst, mal.TypeState, b); err != nil {
		return info, err
	}
	return info, mal.DecodeJSON(b, &info)
}

// sayInvalid tells a standby that its archive is Invalid, if that is so and as
// far as it can be told within ClaimTimeout.
func (s *Shipper) sayInvalid(ctx context.Context, t *target) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ClaimTimeout)
	defer cancel()
	select {
	case t.send <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-t.send }()
	if !t.valid() && t.holds() == nil && s.ctx.Err() == nil {
		_ = s.tellInvalid(ctx, t)
	}
}

// tellInvalid takes the claim to take over from a standby. The caller holds
// t.send, so that no package that says Valid is written behind it.
func (s *Shipper) tellInvalid(ctx context.Context, t *target) error {
	ctx, cancel := context.WithCancel(ctx)
	told := make(chan error, 1)
	s.wg.Go(func() { // a write to a peer that does not read blocks, whatever ctx says
		defer cancel()
		_, err := s.say(ctx, t, base.ArchInvalid)
		told <- err
	})
	var err error
	select {
	case err = <-told:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		s.cfg.Log.Warn("standby not told that its archive is Invalid", "peer", t.Inst, "err", err)
	}
	return err
}

// Probe asks a standby what it has and forgets the answer: an error says that
// it cannot be reached now.
func (s *Shipper) Probe(ctx context.Context, inst string) error {
	t := s.byName[inst]
	if t == nil {
		return base.Errorf(CodeNoTarget, "no realtime or timely archive to %s", inst)
	}
	_, err := s.say(ctx, t, base.ArchUnknown)
	return err
}

// SetState changes the state of the archive to inst, "" for all of them.
//
// Invalid takes effect whether or not the standby can be told, but it is told
// first if it answers within ClaimTimeout; a send under way is then not waited
// for any more. Valid, on a primary, is refused unless the database is
// suspended or mounted and the standby has exactly what the own log has (manual
// 3.1.9). Either is idempotent.
func (s *Shipper) SetState(ctx context.Context, inst string, st base.ArchState) error {
	return s.setState(ctx, inst, st, false)
}

func (s *Shipper) setState(ctx context.Context, inst string, st base.ArchState, must bool) error {
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
			err = s.invalidate(ctx, t, must)
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

// Invalidate makes the archive to inst, "" for all of them, Invalid, but only
// when the standby has been told so that it does not take over on the word that
// its archive is Valid (G1, G3). Otherwise it is an error and the archive stays
// as it was.
func (s *Shipper) Invalidate(ctx context.Context, inst string) error {
	return s.setState(ctx, inst, base.ArchInvalid, true)
}

// invalidate tells the standby before the state takes effect: until it knows,
// packages wait at t.send, so no commit is acknowledged without it while it
// still believes to have everything. With must it is an error when it cannot be
// told.
func (s *Shipper) invalidate(ctx context.Context, t *target, must bool) error {
	if s.cfg.Engine.Mode() == base.ModePrimary {
		wait := s.cfg.ClaimTimeout
		if must { // one whose answers are a lease can be told, however slow it is
			wait = max(wait, standby.Lease)
		}
		ctx, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		var err error
		select {
		case t.send <- struct{}{}:
			defer func() { <-t.send }()
			err = s.tellInvalid(ctx, t)
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if err != nil && must && t.valid() {
			s.recheck(t.Inst) // it may have been told, only its answer is missing
			return base.Errorf(mal.CodeLost, "the standby could not be told, so it might still take over: %v", err)
		}
	}
	t.mu.Lock()
	t.setInvalid()
	t.sendFailed, t.lastError = false, ""
	t.mu.Unlock()
	return nil
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
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	if st := e.Status(); st != base.StatusSuspend && st != base.StatusMount {
		return base.Errorf(standby.CodeState, "database is %v; it must be suspended (or mounted)", st)
	}
	select { // no Invalid may be said behind our Valid
	case t.send <- struct{}{}:
		defer func() { <-t.send }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	info, err := s.sayQuick(ctx, t, base.ArchUnknown)
	if err != nil {
		return err
	}
	file, p, _ := s.ends(t)
	switch {
	case info.Mode != base.ModeStandby:
		return base.Errorf(standby.CodeMode, "it is in %v mode, not Standby", info.Mode)
	case info.Status != base.StatusOpen:
		return base.Errorf(standby.CodeState, "it is %v, not Open", info.Status)
	case info.Stand == file && p != nil && info.Keep == p.Pos(): // it keeps the pending package
	case info.Keep == file && !s.passed(t, p):
	case info.Keep == file:
		return base.Errorf(standby.CodeChanging, "package %d is being written and has gone to the other standbys already", p.GSEQ)
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

// passed tells that the pending package will be hardened without being sent to
// t (again): who becomes Valid now would be without an acknowledged package (G1).
func (s *Shipper) passed(t *target, p *redo.Package) bool {
	if p == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.Type == base.ArchTimely {
		return s.timely == p.GSEQ
	}
	return s.pending == p && !s.failed
}

// setValid needs t.mu.
func (t *target) setValid() {
	if t.state != base.ArchValid {
		t.state = base.ArchValid
		t.invalid, t.closed = make(chan struct{}), false
	}
	t.check, t.waiting = false, 0
	t.sendFailed, t.lastError = false, ""
}
