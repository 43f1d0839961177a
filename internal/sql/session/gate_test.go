package session

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// enterAll queues n waiters, the i-th with a job when jobs[i].
func enterAll(g *gate, jobs ...bool) (mine chan int) {
	mine = make(chan int, len(jobs))
	for i, j := range jobs {
		w := waiter{turn: make(chan bool, 1)}
		if j {
			w.job = &job{quick: true}
		}
		go func() {
			if ok, err := g.enter(context.Background(), 0, w); ok && err == nil {
				mine <- i
			} else {
				mine <- -1
			}
		}()
		synctest.Wait()
	}
	return mine
}

// TestGather: what ends the wait for company, and when.
func TestGather(t *testing.T) {
	const limit = time.Second
	for _, c := range []struct {
		name   string
		before []bool // queued before gather
		after  []bool // one every 10 ms from then on
		land   time.Duration
		want   time.Duration
		job    bool // one is next
	}{
		{name: "there already", before: []bool{true, false}, job: true},
		{name: "somebody else is next", before: []bool{false, true}},
		{name: "later", after: []bool{true, false}, want: 10 * time.Millisecond, job: true},
		{name: "somebody else comes", after: []bool{false}, want: 10 * time.Millisecond},
		{name: "the package lands", land: 5 * time.Millisecond, want: 5 * time.Millisecond},
		{name: "limit", want: limit},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &gate{}
				if !g.tryLock() {
					t.Fatal("new gate is held")
				}
				n := len(c.before) + len(c.after)
				mine := make(chan int, n)
				if len(c.before) > 0 {
					mine = enterAll(g, c.before...)
				}
				land := make(chan struct{})
				if c.land > 0 {
					time.AfterFunc(c.land, func() { close(land) })
				}
				var late []chan int
				done := make(chan struct{})
				go func() {
					defer close(done)
					for _, j := range c.after {
						time.Sleep(10 * time.Millisecond)
						late = append(late, enterAll(g, j))
					}
				}()
				start := time.Now()
				job := g.gather(land, limit)
				if d := time.Since(start); d != c.want || job != c.job {
					t.Errorf("gathered for %v, a job is next: %v; want %v, %v", d, job, c.want, c.job)
				}
				if job != g.company() {
					t.Error("company says otherwise")
				}
				<-done
				g.gather(nil, 0) // nothing is left over from before
				for range n {    // hand the gate through
					g.unlock()
					synctest.Wait()
				}
				got := 0
				for _, ch := range append(late, mine) {
					for len(ch) > 0 && <-ch >= 0 {
						got++
					}
				}
				if got != n {
					t.Errorf("%d of %d waiters got the gate", got, n)
				}
			})
		})
	}
}

// TestGateWithdraw: a waiter that gives up leaves neither its job nor the gate
// behind.
func TestGateWithdraw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{}
		g.tryLock()
		ctx, cancel := context.WithCancel(t.Context())
		w := waiter{turn: make(chan bool, 1), job: &job{quick: true}}
		res := make(chan error, 1)
		enter := func() { _, err := g.enter(ctx, 0, w); res <- err }
		go enter()
		synctest.Wait()
		if _, ok := g.next(); !ok {
			t.Fatal("no job")
		}
		cancel()
		if err := <-res; !errors.Is(err, context.Canceled) || w.job.take() {
			t.Fatalf("%v; a withdrawn job can be run", err)
		}
		// Running already: the result counts, not the cancelling.
		w = waiter{turn: make(chan bool, 1), job: &job{quick: true}}
		ctx, cancel = context.WithCancel(t.Context())
		go enter()
		synctest.Wait()
		taken, _ := g.next()
		if !taken.job.take() {
			t.Fatal("job cannot be taken")
		}
		cancel()
		synctest.Wait()
		taken.turn <- false
		if err := <-res; err != nil {
			t.Fatal(err)
		}
		// Handed the gate while giving up: it goes on to the next.
		g.unlock()
		if !g.tryLock() {
			t.Fatal("the gate is lost")
		}
	})
}
