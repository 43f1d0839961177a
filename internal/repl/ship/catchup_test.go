package ship_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/repl/mal"
	"datawatch/internal/repl/repltest"
	"datawatch/internal/repl/ship"
	"datawatch/internal/repl/standby"
	"datawatch/internal/storage/redo"
)

func pkgs(p ...*redo.Package) []*redo.Package { return p }

func TestCatchUpWhileCommitsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4, base.ArchRealtime)
		a := c.all()
		c.failover(a, "C", "D", "E")
		for range 1000 {
			if _, err := a.Commit(context.Background(), a.Ship, 2000); err != nil {
				t.Fatal(err)
			}
		}
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
					c.commit(a)
					time.Sleep(time.Millisecond)
				}
			}
		}()
		goal := a.LogEnd()
		var wg sync.WaitGroup
		for _, b := range []string{"C", "D", "E"} {
			wg.Go(func() {
				if err := a.Ship.CatchUp(context.Background(), b); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, b := range []string{"C", "D", "E"} {
			if c.engines[b].LogEnd().Less(goal) {
				t.Fatalf("%s at %v, goal %v", b, c.engines[b].LogEnd(), goal)
			}
		}
		close(stop)
		<-done
		if err := c.recover(a, "C", "D", "E"); err != nil {
			t.Fatal(err)
		}
		c.commit(a)
		for _, b := range c.names[1:] {
			c.has(b, a)
		}
		if s := a.Ship.SendInfos()[1]; s.ForRecovery || s.TotalPTX < 1000 {
			t.Fatalf("%+v", s)
		}
	})
}

func TestCatchUpInterruptedAndResumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, base.ArchRealtime)
		a := c.all()
		c.failover(a, "B")
		for name, stop := range map[string]func(cancel func()){
			"by the watcher": func(cancel func()) { cancel() },
			"by the network": func(func()) { c.net.Reset("A", "B") },
			"by a restart":   func(func()) { c.stop("B") },
		} {
			for range 1600 { // more than is under way at a time, which may be one batch
				if _, err := a.Commit(context.Background(), a.Ship, 8000); err != nil {
					t.Fatal(err)
				}
			}
			gate := make(chan struct{})
			c.engines["B"].SetGate(gate)
			ctx, cancel := context.WithCancel(context.Background())
			res := make(chan error, 1)
			go func() { res <- a.Ship.CatchUp(ctx, "B") }()
			time.Sleep(time.Second)
			if !a.Ship.States()[0].Recovering {
				t.Fatalf("%s: not recovering", name)
			}
			if err := a.Ship.CatchUp(context.Background(), "B"); code(err) != ship.CodeNotRun {
				t.Fatalf("second one: %v", err)
			}
			gate <- struct{}{} // one batch gets through
			synctest.Wait()
			stop(cancel)
			err := <-res
			cancel()
			if want := map[string]base.Code{"by the watcher": ship.CodeInterrupted}[name]; err == nil || want != 0 && code(err) != want {
				t.Fatalf("%s: %v", name, err)
			}
			if c.up["B"] != nil {
				close(gate)
			}
			c.engines["B"].SetGate(nil)
			if c.up["B"] == nil {
				c.start("B")
			}
			time.Sleep(3 * time.Second)
			c.engines["B"].Set(base.ModeStandby, base.StatusOpen)
			time.Sleep(time.Second)
			if at := c.engines["B"].LogEnd(); at.Seq == 0 {
				t.Fatalf("%s: nothing got there", name)
			}
		}
		if err := c.recover(a, "B"); err != nil {
			t.Fatal(err)
		}
		c.commit(a)
		c.has("B", a)
	})
}

// TestCatchUpWaitsForTheLink: a standby that has just started is recovered, although
// the primary has no link to it yet; one that does not come is given up.
func TestCatchUpWaitsForTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, base.ArchRealtime)
		a := c.all()
		c.failover(a, "B")
		c.commit(a)
		c.stop("B")
		synctest.Wait()
		c.start("B")
		c.engines["B"].Set(base.ModeStandby, base.StatusOpen)
		if err := a.Ship.CatchUp(context.Background(), "B"); err != nil {
			t.Fatalf("just started: %v", err)
		}
		c.stop("B")
		synctest.Wait()
		at := time.Now()
		if err := a.Ship.CatchUp(context.Background(), "B"); code(err) != mal.CodeLost {
			t.Fatalf("not there: %v", err)
		}
		if d := time.Since(at); d > 3*time.Second {
			t.Errorf("given up after %v", d)
		}
	})
}

func TestCatchUpRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, base.ArchRealtime)
		a := c.all()
		ctx := context.Background()
		if err := a.Ship.CatchUp(ctx, "Z"); code(err) != ship.CodeNoTarget {
			t.Fatal(err)
		}
		if err := a.Ship.CatchUp(ctx, "B"); err != nil {
			t.Fatalf("Valid already: %v", err)
		}
		c.failover(a, "B")
		c.commit(a)
		b := c.engines["B"]
		b.Set(base.ModeStandby, base.StatusMount)
		if err := a.Ship.CatchUp(ctx, "B"); code(err) != standby.CodeState {
			t.Fatal(err)
		}
		b.Set(base.ModePrimary, base.StatusMount)
		if err := a.Ship.CatchUp(ctx, "B"); code(err) != standby.CodeMode {
			t.Fatal(err)
		}
		b.Set(base.ModeStandby, base.StatusOpen)
		a.NoArch = true
		if err := a.Ship.CatchUp(ctx, "B"); code(err) != ship.CodeNoArchive {
			t.Fatal(err)
		}
		a.NoArch = false
		// The archiver is behind: the call waits for it.
		a.HoldArchive()
		c.commit(a)
		res := make(chan error, 1)
		go func() { res <- a.Ship.CatchUp(ctx, "B") }()
		time.Sleep(time.Second)
		select {
		case err := <-res:
			t.Fatalf("did not wait for the archive: %v", err)
		default:
		}
		a.ReleaseArchive()
		if err := <-res; err != nil {
			t.Fatal(err)
		}
		// A fork is refused before anything is sent.
		other := repltest.NewEngine("B", base.ModeStandby)
		rec := base.OpenRecord{ID: 1, TGUID: "fork"}
		if err := other.AppendForeign(ctx, pkgs(repltest.Package(base.Position{}, 1, 1, &rec, 0))); err != nil {
			t.Fatal(err)
		}
		c.stop("B")
		c.engines["B"] = other
		c.start("B")
		time.Sleep(3 * time.Second)
		other.Set(base.ModeStandby, base.StatusOpen)
		if err := a.Ship.CatchUp(ctx, "B"); code(err) != standby.CodeLineage {
			t.Fatal(err)
		}
		c.stop("B")
		synctest.Wait()
		if err := a.Ship.CatchUp(ctx, "B"); err == nil {
			t.Fatal("sent to nobody")
		}
		a.Set(base.ModeStandby, base.StatusOpen)
		if err := a.Ship.CatchUp(ctx, "B"); code(err) != standby.CodeMode {
			t.Fatal(err)
		}
	})
}

// TestProgress: what a recovery still has to send, while it does.
func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2, base.ArchRealtime)
		a := c.all()
		c.failover(a, "B")
		for range 1600 {
			if _, err := a.Commit(context.Background(), a.Ship, 8000); err != nil {
				t.Fatal(err)
			}
		}
		if p := a.Ship.Recoveries(); len(p) != 0 {
			t.Fatalf("nothing is being sent: %+v", p)
		}
		var total int64
		if err := c.up["B"].Recv.Drain(t.Context()); err != nil { // the gate is for what comes now
			t.Fatal(err)
		}
		has := c.up["B"].Recv.Info().Stand
		for _, p := range c.engines["A"].Log() {
			if p.GSEQ > has.Seq {
				total += int64(p.EncodedLen())
			}
		}
		gate := make(chan struct{})
		c.engines["B"].SetGate(gate)
		c.net.Delay("A", "B", 100*time.Millisecond)
		res := make(chan error, 1)
		go func() { res <- a.Ship.CatchUp(context.Background(), "B") }()
		synctest.Wait()
		if p := a.Ship.Recoveries(); len(p) != 1 || p[0].Inst != "B" || p[0].Known {
			t.Fatalf("before its answer: %+v", p)
		}
		time.Sleep(time.Second)
		if p := a.Ship.Recoveries(); len(p) != 1 || !p[0].Known || p[0].Total != total || p[0].Done != 0 || p[0].Files != 1 || p[0].Sent != has.LSN {
			t.Fatalf("at the start: %+v, want %d bytes", p, total)
		}
		steps := 0
		for before := int64(0); ; steps++ { // its log takes a batch
			gate <- struct{}{}
			time.Sleep(time.Second)
			p := a.Ship.Recoveries()
			if len(p) == 0 {
				break
			}
			if p[0].Done <= before || p[0].Done > total || p[0].Total != total || p[0].Sent != c.engines["B"].LogEnd().LSN {
				t.Fatalf("%+v after %d of %d bytes, B is at %v", p[0], before, total, c.engines["B"].LogEnd())
			}
			before = p[0].Done
		}
		close(gate)
		if err := <-res; err != nil || steps == 0 {
			t.Fatalf("%d steps, %v", steps, err)
		}
		if p := a.Ship.Recoveries(); len(p) != 0 {
			t.Fatalf("done: %+v", p)
		}
		c.commit(a)
		c.net.Heal("A", "B")
		if err := c.recover(a, "B"); err != nil {
			t.Fatal(err)
		}
	})
}
