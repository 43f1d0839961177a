package session

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// errGateTimeout: the limit given to lock passed.
var errGateTimeout = errors.New("timeout")

// gate is a mutex that serves first come, first served, and whose waiters can
// be cancelled. A waiter may leave a job in the queue, which whoever has the
// gate may run instead of handing the gate on for it.
type gate struct {
	mu      sync.Mutex
	held    bool
	waiters []waiter
	awaited bool          // by gather
	arrived chan struct{} // capacity 1
}

// waiter is a place in the queue.
type waiter struct {
	turn chan bool // capacity 1; true: the gate is yours, false: your job was run
	job  *job      // nil: nobody else can do it
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
	_, err := g.enter(ctx, limit, waiter{turn: make(chan bool, 1)})
	return err
}

// enter waits like lock. mine is false, without an error, when the waiter's job
// was run by another; after an error it was not and will not be run.
func (g *gate) enter(ctx context.Context, limit time.Duration, w waiter) (mine bool, err error) {
	g.mu.Lock()
	if !g.held {
		g.held = true
		g.mu.Unlock()
		return true, nil
	}
	g.waiters = append(g.waiters, w)
	if g.awaited {
		g.awaited = false
		g.arrived <- struct{}{}
	}
	g.mu.Unlock()
	var expired <-chan time.Time
	if limit > 0 {
		t := time.NewTimer(limit)
		defer t.Stop()
		expired = t.C
	}
	reason := errGateTimeout
	select {
	case mine := <-w.turn:
		return mine, nil
	case <-expired:
	case <-ctx.Done():
		reason = context.Cause(ctx)
	}
	g.mu.Lock()
	if i := slices.IndexFunc(g.waiters, func(x waiter) bool { return x.turn == w.turn }); i >= 0 {
		g.waiters = slices.Delete(g.waiters, i, i+1)
		g.mu.Unlock()
		return false, reason
	}
	g.mu.Unlock()
	// It is our turn, or somebody has taken our job: unless it runs already, he
	// will find it withdrawn.
	select {
	case mine = <-w.turn:
	default:
		if w.job != nil && w.job.withdraw() {
			return false, reason
		}
		mine = <-w.turn
	}
	if mine {
		g.unlock()
		return false, reason
	}
	return false, nil
}

// gather lets the owner of the gate wait for a job that it may run with its own;
// false: there is none, because until was closed or limit passed first, or
// because somebody is next whose work cannot be combined.
func (g *gate) gather(until <-chan struct{}, limit time.Duration) bool {
	g.mu.Lock()
	if len(g.waiters) > 0 || limit <= 0 {
		defer g.mu.Unlock()
		return g.combinable()
	}
	if g.arrived == nil {
		g.arrived = make(chan struct{}, 1)
	}
	g.awaited = true
	g.mu.Unlock()
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-g.arrived:
	case <-until:
	case <-t.C:
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.awaited = false; len(g.arrived) > 0 {
		<-g.arrived
	}
	return g.combinable()
}

// company reports whether a job is next that may run with others.
func (g *gate) company() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.combinable()
}

func (g *gate) combinable() bool {
	return len(g.waiters) > 0 && g.waiters[0].job != nil && g.waiters[0].job.quick
}

// next takes the job at the head of the queue, if there is one that may run in
// a transaction with others. The caller has the gate, and runs it.
func (g *gate) next() (w waiter, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.combinable() {
		return waiter{}, false
	}
	w = g.waiters[0]
	g.pop()
	return w, true
}

func (g *gate) pop() {
	g.waiters[0] = waiter{}
	g.waiters = g.waiters[1:]
}

// unlock hands the gate to the first waiter.
func (g *gate) unlock() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiters) == 0 {
		g.held, g.waiters = false, nil
		return
	}
	w := g.waiters[0]
	g.pop()
	w.turn <- true
}
