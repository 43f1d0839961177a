package standby_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/repl/mal"
	"datawatch/internal/repl/repltest"
	"datawatch/internal/repl/standby"
	"datawatch/internal/storage/redo"
)

// slowReplay is an engine that logs at once and replays when the test lets it.
type slowReplay struct {
	*repltest.Engine
	let    chan error // what a replay ends with
	logged *int       // packages
}

func (s slowReplay) LogForeign(ctx context.Context, pkgs []*redo.Package) (func() error, error) {
	*s.logged += len(pkgs)
	return func() error {
		if err := <-s.let; err != nil {
			return err
		}
		return s.Engine.AppendForeign(ctx, pkgs)
	}, nil
}

func slowReceiver(t *testing.T, change func(*standby.Config)) (*standby.Receiver, slowReplay) {
	e := repltest.NewEngine("B", base.ModeStandby)
	e.Set(base.ModeStandby, base.StatusOpen)
	s := slowReplay{e, make(chan error), new(int)}
	c := standby.Config{Engine: s, PmntMagic: repltest.Magic, Log: repltest.Quiet, OnHalt: func(err error) { t.Error(err) }}
	if change != nil {
		change(&c)
	}
	r := standby.New(c)
	t.Cleanup(r.Close)
	return r, s
}

// TestLogWhileReplaying: while one batch is replayed the next is logged, one and
// no more; a recovery is acknowledged by the log, ARCH_WAIT_APPLY and a takeover
// wait for the replay (G1, G7).
func TestLogWhileReplaying(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, e := slowReceiver(t, nil)
		x := &chain{}
		x.open("one")
		must(t, offer(r, "A", x.head(mal.KindRecover), first(x)))
		must(t, offer(r, "A", x.head(mal.KindRecover), x.next(), x.next()))
		third := offer(r, "A", x.head(mal.KindRecover), x.next())
		pending(t, third)
		if i := r.Info(); *e.logged != 3 || i.Replay.Seq != 0 || i.NTask != 4 || i.Stand != x.pos {
			t.Fatalf("%d packages logged, %+v", *e.logged, i)
		}
		e.let <- nil
		must(t, third)
		if i := r.Info(); *e.logged != 4 || i.Replay.Seq != 1 || i.NTask != 3 {
			t.Fatalf("%d packages logged, %+v", *e.logged, i)
		}
		h := x.head(mal.KindTimely)
		h.Flags = mal.FlagWaitApply
		timely := offer(r, "A", h, x.next())
		e.let <- nil
		pending(t, timely)
		e.let <- nil
		pending(t, timely)
		if i := r.Info(); *e.logged != 5 || i.Replay.Seq != 4 {
			t.Fatalf("%d packages logged, %+v", *e.logged, i)
		}
		kept := make(chan error, 1)
		go func() { kept <- r.ApplyKeep(t.Context()) }()
		synctest.Wait()
		if len(kept) != 0 {
			t.Fatal("a takeover goes on before all is replayed")
		}
		e.let <- nil
		must(t, timely)
		if err := <-kept; err != nil {
			t.Fatal(err)
		}
		if i := r.Info(); i.Replay != x.pos || i.NTask != 0 || i.TaskMem != 0 || !i.Since.IsZero() {
			t.Fatalf("%+v", i)
		}
	})
}

// slowLog is one that also logs the next packages when the test lets it.
type slowLog struct {
	slowReplay
	log chan struct{}
}

func (s slowLog) LogForeign(ctx context.Context, pkgs []*redo.Package) (func() error, error) {
	<-s.log
	return s.slowReplay.LogForeign(ctx, pkgs)
}

// TestReplayedWhileLogging: what is replayed is answered, and its time is over, also
// while the log takes long for what follows.
func TestReplayedWhileLogging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := make(chan struct{}, 1)
		r, e := slowReceiver(t, func(c *standby.Config) {
			c.MaxDelay, c.Engine = time.Minute, slowLog{c.Engine.(slowReplay), log}
		})
		x := &chain{}
		h := headOf(x, x.open("one"))
		h.Kind, h.Flags = mal.KindTimely, mal.FlagWaitApply
		log <- struct{}{}
		one := offer(r, "A", h, first(x))
		time.Sleep(50 * time.Second)
		must(t, offer(r, "A", x.head(mal.KindTimely), x.next()))
		e.let <- nil
		must(t, one)
		time.Sleep(50 * time.Second)
		if i := r.Info(); *e.logged != 1 || i.Failed != nil || i.NTask != 1 || time.Since(i.Since) != 50*time.Second {
			t.Errorf("%d packages logged, %+v", *e.logged, i)
		}
		close(log)
		e.let <- nil
		if err := r.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// TestSlowReplayHalts: REDOS_MAX_DELAY is for the replay of one batch, not for its
// wait for the one before it; what is logged behind a replay that failed is never
// called replayed.
func TestSlowReplayHalts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		halted := make(chan error, 2)
		r, e := slowReceiver(t, func(c *standby.Config) {
			c.MaxDelay, c.OnHalt = time.Minute, func(err error) { halted <- err }
		})
		x := &chain{}
		x.open("one")
		must(t, offer(r, "A", x.head(mal.KindRecover), first(x)))
		must(t, offer(r, "A", x.head(mal.KindRecover), x.next()))
		h := x.head(mal.KindTimely)
		h.Flags = mal.FlagWaitApply
		timely := offer(r, "A", h, x.next())
		time.Sleep(50 * time.Second)
		e.let <- nil
		time.Sleep(50 * time.Second)
		synctest.Wait()
		if len(halted) != 0 {
			t.Fatal("halted although no replay took a minute")
		}
		e.let <- base.Errorf(standby.CodeBadLog, "page is damaged")
		synctest.Wait()
		refused(t, timely, standby.CodeBadLog)
		if len(halted) != 1 || base.CodeOf(<-halted, 0) != standby.CodeBadLog {
			t.Fatal("not halted once")
		}
		if i := r.Info(); i.Replay.Seq != 1 {
			t.Fatalf("%+v", i)
		}
		e.let <- nil // the engine's own business
	})
}

// TestTrickleBesideReplay: packages that nobody waits for do not cost a sync each
// while others are replayed: they are one batch after it, or with what is waited for.
func TestTrickleBesideReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, e := slowReceiver(t, nil)
		x := &chain{}
		x.open("one")
		must(t, offer(r, "A", x.head(mal.KindTimely), first(x)))
		time.Sleep(time.Second)
		for range 5 {
			must(t, offer(r, "A", x.head(mal.KindTimely), x.next()))
			time.Sleep(time.Second)
		}
		if *e.logged != 1 {
			t.Errorf("%d packages logged beside a replay", *e.logged)
		}
		must(t, offer(r, "A", x.head(mal.KindRecover), x.next()))
		if *e.logged != 7 {
			t.Errorf("%d packages logged with one that is waited for", *e.logged)
		}
		e.let <- nil
		synctest.Wait() // replays end in order
		e.let <- nil
		if err := r.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// TestStandbyAgain: a database that was primary since, and is a standby again, goes
// on from its own log, not from what it took before.
func TestStandbyAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, e := receiver(t, nil)
		x := &chain{}
		x.open("one")
		must(t, offer(r, "A", x.head(mal.KindRecover), first(x), x.next()))
		if err := r.ApplyKeep(t.Context(), "A-1"); err != nil {
			t.Fatal(err)
		}
		r.DropKeep()
		if err := e.AppendForeign(t.Context(), []*redo.Package{x.open("two"), x.next()}); err != nil { // its own
			t.Fatal(err)
		}
		if i := r.Info(); i.Stand != x.pos || i.Keep != x.pos {
			t.Fatalf("%+v, the log ends at %v", i, x.pos)
		}
		must(t, offer(r, "A", x.head(mal.KindRealtime), x.next()))
	})
}
