package standby_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/repl/mal"
	"datawatch/internal/repl/standby"
)

// keep lets a takeover begin, and returns what it came to after which time.
func keep(ctx context.Context, r *standby.Receiver, ended ...string) func() (time.Duration, error) {
	begun, done := time.Now(), make(chan error, 1)
	took := time.Duration(0)
	go func() {
		err := r.ApplyKeep(ctx, ended...)
		took = time.Since(begun)
		done <- err
	}()
	synctest.Wait()
	return func() (time.Duration, error) { err := <-done; return took, err }
}

// TestEnded: news that a process has ended shorten the wait of a takeover for
// what was promised to that process, whenever they come, and to no other.
func TestEnded(t *testing.T) {
	for _, k := range []struct {
		name string
		news [][]string // the first before the takeover, the others a second later each
		want time.Duration
	}{
		{"no news", nil, standby.Promise},
		{"before", [][]string{{"A-1"}}, 0},
		{"meanwhile", [][]string{nil, {"A-1"}}, time.Second},
		{"of several", [][]string{nil, {"C-1", "A-1"}}, time.Second},
		{"twice, and when all is over", [][]string{nil, {"A-1"}, {"A-1"}, {"A-1"}, {"A-1"}}, time.Second},
		{"of another process", [][]string{{"C-1"}, {"A-0", "C-1"}}, standby.Promise},
		{"of nobody", [][]string{{""}, {""}}, standby.Promise},
		{"of another, then of this", [][]string{{"C-1"}, {"C-1"}, {"C-1", "A-1"}}, 2 * time.Second},
	} {
		t.Run(k.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, _ := receiver(t, nil)
				c := &chain{}
				c.open("one")
				must(t, offer(r, "A", c.head(mal.KindRealtime), first(c)))
				if k.news != nil {
					r.Ended(k.news[0]...)
				}
				result := keep(t.Context(), r)
				for _, l := range k.news[min(1, len(k.news)):] {
					time.Sleep(time.Second)
					r.Ended(l...)
				}
				if took, err := result(); err != nil || took != k.want {
					t.Fatalf("%v after %v, want %v", err, took, k.want)
				}
			})
		})
	}
}

// TestKeptUntilThePromiseIsOver: while the old primary may live, and be without the
// kept package, a takeover does not replay it: one that is given up has not (G7).
func TestKeptUntilThePromiseIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, e := receiver(t, nil)
		c := &chain{}
		c.open("one")
		must(t, offer(r, "A", c.head(mal.KindRealtime), first(c)))
		had := c.pos
		must(t, offer(r, "A", c.head(mal.KindRealtime), c.next()))
		kept := func(when string, logged int, has bool) {
			t.Helper()
			synctest.Wait()
			if n := len(e.Log()); n != logged || r.Info().HasKeep != has {
				t.Fatalf("%s: %d packages in the log, want %d; kept %v", when, n, logged, r.Info().HasKeep)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		result := keep(ctx, r)
		kept("waiting", 1, true)
		cancel()
		if _, err := result(); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		kept("given up", 1, true)
		r.Thaw()
		r.Hardened("A", mal.Hardened{Pos: had, OpenID: 1}, nil)
		kept("the primary is without it", 1, true)
		result = keep(t.Context(), r)
		r.Thaw()
		if _, err := result(); base.CodeOf(err, 0) != standby.CodeChanging {
			t.Fatalf("a takeover goes on although redo is taken again: %v", err)
		}
		kept("redo is taken again", 1, true)
		must(t, offer(r, "A", c.head(mal.KindRealtime), c.next()))
		kept("the next package has come", 2, true)
		result = keep(t.Context(), r)
		kept("waiting again", 2, true)
		if _, err := result(); err != nil {
			t.Fatal(err)
		}
		kept("taken over", 3, false)
	})
}

// TestEndedIsOfOneProcess: the end of one process says nothing of the next one
// of the same database, to which something is promised afterwards.
func TestEndedIsOfOneProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := receiver(t, nil)
		c := &chain{}
		c.open("one")
		must(t, offer(r, "A", c.head(mal.KindRealtime), first(c)))
		result := keep(t.Context(), r)
		r.Ended("A-1")
		if took, err := result(); err != nil || took != 0 {
			t.Fatal(took, err)
		}
		r.Thaw()
		h := c.head(mal.KindRealtime)
		h.Sender = "A-2"
		must(t, offer(r, "A", h, c.next()))
		r.Ended("A-1")
		if took, err := keep(t.Context(), r, "A-1")(); err != nil || took != standby.Promise {
			t.Fatalf("%v after %v", err, took)
		}
		// What A-1 has sent before its end may arrive after the news of it.
		r.Thaw()
		must(t, offer(r, "A", c.head(mal.KindRealtime), c.next()))
		if took, err := keep(t.Context(), r)(); err != nil || took != 0 {
			t.Fatalf("%v after %v", err, took)
		}
	})
}

// TestEndedAfterGivingUp: a wait that was given up leaves the promise as it is.
func TestEndedAfterGivingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := receiver(t, nil)
		c := &chain{}
		c.open("one")
		must(t, offer(r, "A", c.head(mal.KindRealtime), first(c)))
		ctx, cancel := context.WithCancel(t.Context())
		result := keep(ctx, r)
		cancel()
		if _, err := result(); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		for n := range 100 { // more than are remembered
			r.Ended(fmt.Sprint("C-", n))
		}
		result = keep(t.Context(), r)
		time.Sleep(time.Second)
		r.Ended("A-1")
		if took, err := result(); err != nil || took != time.Second {
			t.Fatalf("%v after %v", err, took)
		}
	})
}
