package standby_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/repl/mal"
	"datawatch/internal/repl/repltest"
	"datawatch/internal/repl/standby"
	"datawatch/internal/storage/redo"
)

// erratic is an engine whose log and replay take any time, and may fail. It checks
// how it is used, and knows what is on disk and what is replayed.
type erratic struct {
	*repltest.Engine
	log, replay func() (time.Duration, error)

	mu       sync.Mutex
	logging  bool
	failed   error
	logged   base.Seq
	replayed base.Seq
	batches  int           // logged, or being logged, and not replayed
	last     chan struct{} // end of the newest replay
	wrong    string
}

func (e *erratic) LogForeign(ctx context.Context, pkgs []*redo.Package) (func() error, error) {
	d, fails := e.log()
	e.mu.Lock()
	e.batches++
	switch {
	case e.logging:
		e.wrong = "two batches are logged at once"
	case e.failed != nil:
		e.wrong = "something is logged after an error"
	case e.batches > 2:
		e.wrong = fmt.Sprintf("%d batches are under way", e.batches)
	case pkgs[0].GSEQ != e.logged+1:
		e.wrong = fmt.Sprintf("package %d is logged after %d", pkgs[0].GSEQ, e.logged)
	}
	e.logging = true
	e.mu.Unlock()
	time.Sleep(d)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.logging = false
	if err := ctx.Err(); err != nil && len(pkgs)%2 == 0 {
		return nil, err // it may see it, or be too far
	}
	if fails != nil {
		e.failed = fails
		return nil, fails
	}
	e.logged = pkgs[len(pkgs)-1].GSEQ
	before, last := e.last, make(chan struct{})
	e.last = last
	var err error
	go func() {
		defer close(last)
		d, fails := e.replay()
		if before != nil {
			<-before
		}
		time.Sleep(d)
		e.mu.Lock()
		if err = e.failed; err == nil && fails != nil {
			e.failed, err = fails, fails
		}
		if err == nil {
			e.replayed, e.batches = pkgs[len(pkgs)-1].GSEQ, e.batches-1
		}
		e.mu.Unlock()
		if err == nil {
			if err := e.Engine.AppendForeign(context.Background(), pkgs); err != nil {
				e.mu.Lock()
				e.wrong = err.Error()
				e.mu.Unlock()
			}
		}
	}()
	return func() error { <-last; return err }, nil
}

func (e *erratic) at() (logged, replayed base.Seq, wrong string, failed error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.logged, e.replayed, e.wrong, e.failed
}

// TestPipelineModel: whatever time log and replay take, and whether or not they
// fail, each answer is given once, and not before what it promises is so (G1);
// nothing is logged out of turn, twice, or behind an error (G5); and the standby
// halts, once, exactly when something failed.
func TestPipelineModel(t *testing.T) {
	failures, closed := 0, 0
	for seed := range uint64(400) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, c := pipelineLife(t, rand.New(rand.NewPCG(seed, 7)), seed%4 == 0)
				failures, closed = failures+f, closed+c
			})
		})
	}
	if failures < 20 || closed < 100 {
		t.Errorf("%d lives with a failure, %d closed in the middle: they prove little", failures, closed)
	}
}

func pipelineLife(t *testing.T, r *rand.Rand, fails bool) (failures, closed int) {
	var mu sync.Mutex // of r, for the engine
	takes := func() (time.Duration, error) {
		mu.Lock()
		defer mu.Unlock()
		if fails && r.IntN(15) == 0 {
			return time.Millisecond, errors.New("disk")
		}
		return time.Duration(r.IntN(20)*r.IntN(20)) * time.Millisecond, nil
	}
	pick := func(n int) int { mu.Lock(); defer mu.Unlock(); return r.IntN(n) }
	e := &erratic{Engine: repltest.NewEngine("B", base.ModeStandby), log: takes, replay: takes}
	e.Set(base.ModeStandby, base.StatusOpen)
	halts := 0
	s := standby.New(standby.Config{Engine: e, PmntMagic: repltest.Magic, Log: repltest.Quiet, BufNum: 8 * pick(3), OnHalt: func(error) { mu.Lock(); halts++; mu.Unlock() }})
	open := true
	defer func() {
		if open {
			s.Close()
		}
	}()

	var answers sync.Mutex
	asked, given := 0, map[int]int{}
	// promise notes an answer that promises seq to be logged, or replayed.
	promise := func(what string, seq base.Seq, replay bool) func(error) {
		answers.Lock()
		defer answers.Unlock()
		n := asked
		asked++
		return func(err error) {
			answers.Lock()
			defer answers.Unlock()
			given[n]++
			logged, replayed, _, failed := e.at()
			if err != nil && failed == nil && open {
				t.Errorf("%s, %d, is refused: %v", what, seq, err)
			}
			if err == nil && (replay && replayed < seq || logged < seq) {
				t.Errorf("%s, %d, is answered with %d logged, %d replayed", what, seq, logged, replayed)
			}
		}
	}
	x := &chain{}
	x.open("one")
	must(t, offer(s, "A", x.head(mal.KindTimely), first(x)))
	for range 60 {
		if _, _, _, err := e.at(); err != nil {
			break
		}
		switch k := pick(9); k {
		case 0, 1, 2:
			var pkgs []*redo.Package
			for range 1 + pick(4) {
				pkgs = append(pkgs, x.next())
			}
			done := promise("a recovery", x.pos.Seq, false)
			s.Accept("A", x.head(mal.KindRecover), pkgs, func(_ mal.Ack, err error) { done(err) })
		case 3, 4:
			h, p := x.head(mal.KindTimely), x.next()
			seq := base.Seq(0) // what is only received promises nothing of log and replay
			if k == 4 {
				h.Flags, seq = mal.FlagWaitApply, p.GSEQ
			}
			done := promise("a package", seq, true)
			s.Accept("A", h, []*redo.Package{p}, func(_ mal.Ack, err error) { done(err) })
		case 5:
			done := promise("a kept package", 0, false)
			s.Accept("A", x.head(mal.KindRealtime), []*redo.Package{x.next()}, func(_ mal.Ack, err error) { done(err) })
			if pick(2) == 0 {
				s.Hardened("A", mal.Hardened{Pos: x.pos, OpenID: x.id}, promise("a notice", x.pos.Seq, true))
			}
		case 6:
			time.Sleep(time.Duration(pick(300)) * time.Millisecond)
		case 7:
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(pick(6000))*time.Millisecond)
			if err := s.ApplyKeep(ctx, "A-1"); err == nil {
				if _, replayed, _, _ := e.at(); replayed != x.pos.Seq {
					t.Errorf("a takeover goes on with package %d of %d replayed", replayed, x.pos.Seq)
				}
			}
			cancel()
			s.Thaw()
		case 8:
			want := s.Info().Stand.Seq
			if err := s.Drain(t.Context()); err == nil {
				if _, replayed, _, _ := e.at(); replayed < want {
					t.Errorf("drained with package %d of %d replayed", replayed, want)
				}
			}
		}
		i := s.Info()
		if logged, replayed, _, _ := e.at(); i.Replay.Seq > replayed || i.Stand.Seq < logged || i.Failed == nil && i.NTask < int(i.Stand.Seq-replayed) {
			t.Errorf("%+v with %d logged, %d replayed", i, logged, replayed)
		}
	}
	if pick(2) == 0 {
		closed++
		answers.Lock()
		open = false
		answers.Unlock()
		s.Close()
		synctest.Wait()
	} else {
		time.Sleep(time.Minute)
		synctest.Wait()
	}
	logged, replayed, wrong, failed := e.at()
	if wrong != "" {
		t.Error(wrong)
	}
	if failed != nil {
		failures++
	}
	if i := s.Info(); open && failed == nil && (i.NTask != 0 || i.TaskMem != 0 || logged != i.Stand.Seq || replayed != logged) {
		t.Errorf("at rest: %+v with %d logged, %d replayed", i, logged, replayed)
	}
	mu.Lock()
	n := halts
	mu.Unlock()
	if n > 1 || n == 1 && failed == nil || n == 0 && failed != nil && open {
		t.Errorf("halted %d times, error %v", n, failed)
	}
	answers.Lock()
	defer answers.Unlock()
	for i := range asked {
		if given[i] != 1 && !(given[i] == 0 && open && failed == nil) {
			t.Errorf("answer %d of %d is given %d times (closed %v, error %v)", i, asked, given[i], !open, failed)
		}
	}
	return failures, closed
}
