package session

import (
	"context"
	"errors"
	"sync"
	"time"
)

// errGateTimeout: the limit given to lock passed.
var errGateTimeout = errors.New("timeout")

// gate is a mutex that serves first come, first served, and whose waiters can
// be cancelled.
type gate struct {
	mu      sync.Mutex
	held    bool
	waiters []chan struct{}
}

// tryLock takes the gate if nobody has it.
func (g *gate) tryLock() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held {
		return false
	}
	g.held = true
	return true
}

// lock waits for the gate, at most limit (0: for ever); the error is ctx's
// cause or errGateTimeout.
func (g *gate) lock(ctx context.Context, limit time.Duration) error {
	g.mu.Lock()
	if !g.held {
		g.held = true
		g.mu.Unlock()
		return nil
	}
	c := make(chan struct{})
	g.waiters = append(g.waiters, c)
	g.mu.Unlock()
	var expired <-chan time.Time
	if limit > 0 {
		t := time.NewTimer(limit)
		defer t.Stop()
		expired = t.C
	}
	reason := errGateTimeout
	select {
	case <-c:
		return nil
	case <-expired:
	case <-ctx.Done():
		reason = context.Cause(ctx)
	}
	g.mu.Lock()
	for i, w := range g.waiters {
		if w == c {
			g.waiters = append(g.waiters[:i], g.waiters[i+1:]...)
			g.mu.Unlock()
			return reason
		}
	}
	g.mu.Unlock()
	g.unlock() // it was handed to us meanwhile
	return reason
}

// unlock hands the gate to the first waiter.
func (g *gate) unlock() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiters) == 0 {
		g.held = false
		return
	}
	c := g.waiters[0]
	g.waiters[0] = nil
	g.waiters = g.waiters[1:]
	close(c)
}
