package ship

import (
	"context"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/repl/mal"
	"datawatch/internal/repl/standby"
	"datawatch/internal/storage/redo"
)

// leaseTries is how often Release asks standbys again whose answers took longer
// than the lease; then the round trip is too long to be a primary with.
const leaseTries = 3

// passed is the time between two moments; that for which the whole machine was
// suspended shows on the wall clock only.
func passed(from, to time.Time) time.Duration {
	return max(to.Sub(from), to.Round(0).Sub(from.Round(0)))
}

// Release is asked before the commits of a package are acknowledged. It returns
// nil only if no standby whose archive is Valid can have become primary: each
// has taken this package, sent less than standby.Lease ago, and promised to wait
// longer than that. Where the answers are older, because this process stood
// still or the disk was slow, the package is sent once more: a standby that may
// have taken over refuses it, and the send has failed (G3).
func (s *Shipper) Release(ctx context.Context, pkg *redo.Package) error {
	for range leaseTries {
		todo, err := s.overdue()
		if err != nil || len(todo) == 0 {
			return err
		}
		if err := s.renew(ctx, pkg, todo); err != nil {
			return err
		}
	}
	todo, err := s.overdue()
	if err != nil || len(todo) == 0 {
		return err
	}
	t := todo[0]
	return s.outcome(t, pkg, mal.KindRecover, base.Errorf(CodeLease, "its answers take longer than %v", standby.Lease))
}

// overdue lists the standbys whose promise is too old to acknowledge by.
func (s *Shipper) overdue() ([]*target, error) {
	now := s.cfg.Clock.Now()
	var todo []*target
	for _, t := range s.targets {
		if err := t.holds(); err != nil {
			return nil, err
		}
		t.mu.Lock()
		if t.state == base.ArchValid && passed(t.leased, now) >= standby.Lease {
			todo = append(todo, t)
		}
		t.mu.Unlock()
	}
	return todo, nil
}

// renew sends a package again to standbys that have it.
func (s *Shipper) renew(ctx context.Context, pkg *redo.Package, todo []*target) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	kind := mal.KindRealtime
	if todo[0].Type == base.ArchTimely { // all archives are of one type
		kind = mal.KindTimely
	}
	msg, err := s.message(pkg, kind)
	if err != nil {
		return err
	}
	s.cfg.Log.Info("asking standbys again before a commit is acknowledged", "gseq", pkg.GSEQ, "standbys", len(todo))
	return s.send(ctx, todo, pkg, kind, msg)
}

// Over tells the standbys that nothing is left that could be acknowledged, so
// that one of them can become primary without waiting (switchover). The database
// must be in Mount: only an opening, which begins with a package, leads out.
func (s *Shipper) Over(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ClaimTimeout)
	defer cancel()
	if s.enter(ctx) != nil {
		return
	}
	defer s.leave()
	for _, t := range s.targets {
		if !t.valid() {
			continue
		}
		if err := s.sayOver(ctx, t); err != nil {
			s.cfg.Log.Debug("standby not told that we are mounted", "peer", t.Inst, "err", err)
		}
	}
}
