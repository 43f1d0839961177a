package repltest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/repl/standby"
	"datawatch/internal/storage/redo"
)

var errStopped = errors.New("the process has ended")

// lag is what a standby has logged and not replayed.
type lag struct {
	time  func() time.Duration // nil: everything is replayed as it is logged
	ahead []*redo.Package
	last  chan struct{}   // closed when the newest of the replays has ended
	ctx   context.Context // of the process
	end   context.CancelCauseFunc
}

func newLag(f func() time.Duration) lag {
	l := lag{time: f}
	l.ctx, l.end = context.WithCancelCause(context.Background())
	return l
}

// SetLag makes every replay take that long while the next packages are logged.
func (e *Engine) SetLag(f func() time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lag.time = f
}

// Logged is what is on disk, replayed or not.
func (e *Engine) Logged() []*redo.Package {
	l := e.Log()
	e.mu.Lock()
	defer e.mu.Unlock()
	return append(l, e.lag.ahead...)
}

// LogForeign logs at once; with a lag it replays later, one batch after the other.
func (e *Engine) LogForeign(ctx context.Context, pkgs []*redo.Package) (wait func() error, err error) {
	e.mu.Lock()
	f := e.lag.time
	e.mu.Unlock()
	if f == nil {
		return func() error { return nil }, e.AppendForeign(ctx, pkgs)
	}
	d := f()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mode != base.ModeStandby {
		return nil, errors.New("not a standby")
	}
	end := e.end()
	if n := len(e.lag.ahead); n > 0 {
		end = e.lag.ahead[n-1].Pos()
	}
	for _, p := range pkgs {
		if p.GSEQ != end.Seq+1 || p.PrevLSN != end.LSN {
			return nil, fmt.Errorf("package %d after %d does not continue %v", p.GSEQ, p.PrevLSN, end)
		}
		end = p.Pos()
	}
	e.lag.ahead = append(e.lag.ahead[:len(e.lag.ahead):len(e.lag.ahead)], pkgs...)
	before, last := e.lag.last, make(chan struct{})
	life := e.lag.ctx
	e.lag.last = last
	var ended error
	go func() {
		defer close(last)
		t := time.NewTimer(d)
		defer t.Stop()
		if before != nil {
			<-before
		}
		select {
		case <-t.C:
			ended = e.AppendForeign(life, pkgs)
		case <-life.Done():
			ended = context.Cause(life)
		}
		if ended == nil {
			e.mu.Lock()
			e.lag.ahead = e.lag.ahead[len(pkgs):]
			e.mu.Unlock()
		}
	}()
	return func() error { <-last; return ended }, nil
}

// kill ends replays; what was logged stays so.
func (e *Engine) kill() {
	e.mu.Lock()
	last := e.lag.last
	e.lag.end(errStopped)
	e.mu.Unlock()
	if last != nil {
		<-last
	}
}

// restarted has what was logged replayed, as the next start of the process does.
// Under mu.
func (e *Engine) restarted() {
	e.log = append(e.log, e.lag.ahead...)
	e.lag = newLag(e.lag.time)
}

var _ standby.Engine = (*Engine)(nil)
