package ship

import (
	"context"
	"errors"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/repl/mal"
	"datawatch/internal/repl/standby"
)

// A standby that answers, but so late that its answers are no lease, stops the
// primary like one that does not answer, and no check of its link notices. When
// MAL_CONN_FAIL_INTERVAL has been waited for a lease, it is asked for its state
// on the same link, behind the package: a standby that is near answers at once,
// and a package that waits for its disk or its replay is backlog, which delays
// the primary (manual 6.26). One whose answer is not there within the lease is
// late: the send has failed, a little after a silent link would have been found
// broken. Sending again is no remedy then, and it must not become Valid before
// its answers are quick again, which probe finds out.

const (
	// turn is the unit in which the waiting is counted. What passes while this
	// process stands still is one turn at most, so that it is no fault of the
	// standby's.
	turn = standby.Lease / 5
	// probePause is the time between two probes of a late target; it has to
	// answer probes of them in a row within quick, which is less than the lease,
	// so that one at the limit does not come and go.
	probePause = time.Second
	probes     = 3
	quick      = standby.Lease * 4 / 5
)

// await waits for the answer to a package. Every turn of it counts until the
// target's next lease, whatever the number of sends.
func (s *Shipper) await(ctx context.Context, t *target, call *mal.Call, invalid <-chan struct{}) ([]byte, error) {
	for {
		timer := s.cfg.Clock.NewTimer(turn)
		var err error
		select {
		case <-call.Done():
			timer.Stop()
			return call.Result()
		case <-invalid:
			err = errInvalidated
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-timer.C:
			if !s.tooLate(t) {
				continue
			}
			err = lateError("no answer of it has come within %v for %v", standby.Lease, s.cfg.FailInterval)
		}
		timer.Stop()
		call.Forget()
		return nil, err
	}
}

func lateError(format string, a ...any) error { return base.Errorf(CodeLease, format, a...) }

// tooLate counts a turn, has the target asked when it is time to, and tells
// whether it is late.
func (s *Shipper) tooLate(t *target) bool {
	t.mu.Lock()
	t.waiting += turn
	over := t.waiting >= s.cfg.FailInterval
	ask := over && !t.asking && !t.late
	t.asking = t.asking || ask
	late := over && t.late
	t.mu.Unlock()
	if ask {
		s.wg.Go(func() { s.checkLate(t) })
	}
	return late
}

// checkLate finds out whether it is the answers of a target that take so long, or
// the package.
func (s *Shipper) checkLate(t *target) {
	ctx, cancel := context.WithTimeout(s.ctx, standby.Lease)
	defer cancel()
	_, err := s.say(ctx, t, base.ArchUnknown)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		s.setLate(t)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asking = false
	if err == nil {
		t.waiting = 0
	}
}

// setLate notes that the answers of a target are too late to be a lease.
func (s *Shipper) setLate(t *target) {
	t.mu.Lock()
	begin := !t.late
	t.late = true
	t.mu.Unlock()
	if begin {
		s.cfg.Log.Warn("answers of a standby come too late to acknowledge by", "peer", t.Inst, "lease", standby.Lease)
		s.wg.Go(func() { s.probe(t) })
	}
}

// probe ends the lateness of a target.
func (s *Shipper) probe(t *target) {
	for n := 0; n < probes && s.cfg.Engine.Mode() == base.ModePrimary; {
		if s.cfg.Clock.Sleep(s.ctx, probePause) != nil {
			return
		}
		ctx, cancel := context.WithTimeout(s.ctx, standby.Lease)
		_, took, err := s.sayTimed(ctx, t, base.ArchUnknown)
		cancel()
		if n++; err != nil || took >= quick {
			n = 0
		}
	}
	t.mu.Lock()
	t.late, t.waiting = false, 0
	t.mu.Unlock()
	s.cfg.Log.Info("answers of a standby are quick enough again", "peer", t.Inst)
	s.cfg.OnChange()
}

// sayTimed is say with the time that it took.
func (s *Shipper) sayTimed(ctx context.Context, t *target, st base.ArchState) (mal.StandbyInfo, time.Duration, error) {
	begun := s.cfg.Clock.Now()
	info, err := s.say(ctx, t, st)
	return info, passed(begun, s.cfg.Clock.Now()), err
}

// sayQuick is say to a standby that is to become Valid: it is an error when the
// answer takes so long that it would be no lease.
func (s *Shipper) sayQuick(ctx context.Context, t *target, st base.ArchState) (mal.StandbyInfo, error) {
	t.mu.Lock()
	late := t.late
	t.mu.Unlock()
	if late {
		return mal.StandbyInfo{}, lateError("its answers take longer than %v", standby.Lease)
	}
	info, took, err := s.sayTimed(ctx, t, st)
	if err == nil && took >= standby.Lease {
		s.setLate(t)
		err = lateError("its answer took %v, longer than %v", took.Round(time.Millisecond), standby.Lease)
	}
	return info, err
}
