package ship

import (
	"context"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/repl/mal"
	"datawatch/internal/repl/standby"
	"datawatch/internal/storage/redo"
)

// passed is the time between two moments; that for which the whole machine was
// suspended shows on the wall clock only.
func passed(from, to time.Time) time.Duration {
	return max(to.Sub(from), to.Round(0).Sub(from.Round(0)))
}

// Release is asked before the commits of a package are acknowledged. It returns
// nil only if no standby whose archive is Valid can have become primary: each
// has taken this package, sent less than standby.Lease ago, and promised to wait
// longer than that. Where the answers are older, because this process stood
// still or the disk was slow, the standbys are asked once more: one that may have
// taken over refuses, and the send has failed (G3). They may be acknowledged until the time returned; zero: always, no archive is Valid.
func (s *Shipper) Release(ctx context.Context, pkg *redo.Package) (time.Time, error) {
	for {
		todo, until, err := s.overdue()
		if err != nil || len(todo) == 0 {
			return until, err
		}
		if err := s.renew(ctx, pkg, todo); err != nil { // at the latest when one of them is late
			return time.Time{}, err
		}
	}
}

// overdue lists the standbys whose promise is too old to acknowledge by, and
// tells until when those of the others are good.
func (s *Shipper) overdue() (todo []*target, until time.Time, err error) {
	now := s.cfg.Clock.Now()
	for _, t := range s.targets {
		if err := t.holds(); err != nil {
			return nil, time.Time{}, err
		}
		t.mu.Lock()
		valid, end := t.state == base.ArchValid, t.leased.Add(standby.Lease)
		over := passed(t.leased, now) >= standby.Lease
		if valid && !over {
			t.waiting = 0
		}
		t.mu.Unlock()
		switch {
		case !valid:
		case over:
			todo = append(todo, t)
		case until.IsZero() || end.Before(until):
			until = end
		}
	}
	return todo, until, nil
}

// renew has standbys that have a package promise again.
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
	return s.send(ctx, todo, pkg, kind, len(msg), func(t *target) error {
		if ok, err := s.renewOne(ctx, t, pkg); ok || err != nil {
			return err
		}
		return s.sendOne(ctx, t, pkg, kind, msg)
	})
}

// renewOne asks for a promise for a package without sending that again: one that
// is longer under way than the lease lasts would bring none, however often it
// is sent. Not ok: the standby has something else, or has perhaps taken over,
// which the package itself will show.
func (s *Shipper) renewOne(ctx context.Context, t *target, pkg *redo.Package) (ok bool, err error) {
	guid, err := s.guid(pkg)
	if err != nil {
		return false, err
	}
	b, err := mal.EncodeJSON(mal.State{Renew: &mal.Renewal{Pos: pkg.Pos(), OpenID: pkg.OpenID, OpenGUID: guid}})
	if err != nil {
		return false, err
	}
	start := s.cfg.Clock.Now()
	b, err = s.exchange(ctx, t, mal.TypeState, b)
	if err != nil {
		return false, err
	}
	var info mal.StandbyInfo
	if err := mal.DecodeJSON(b, &info); err != nil || !info.Promised {
		return false, err
	}
	t.mu.Lock()
	t.leased = start
	t.mu.Unlock()
	return true, nil
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
