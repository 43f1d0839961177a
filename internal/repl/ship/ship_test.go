package ship_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/repl/repltest"
	"datawatch/internal/repl/ship"
	"datawatch/internal/repl/standby"
)

func TestParallelStandbys(t *testing.T) {
	for _, typ := range []base.ArchType{base.ArchRealtime, base.ArchTimely} {
		for n := 1; n <= 8; n++ {
			bubble(t, fmt.Sprintf("%v/%d", typ, n), func(t *testing.T) {
				c := newCluster(t, n, typ)
				a := c.all()
				for range 10 {
					c.commit(a)
					for _, b := range c.names[1:] {
						c.has(b, a)
						i := c.up[b].Recv.Info()
						if !i.Claim.Valid || i.Claim.From != "A" || i.HasKeep && typ == base.ArchTimely {
							t.Fatalf("%s: %+v", b, i)
						}
					}
				}
				time.Sleep(10 * time.Millisecond) // the notice of the idle primary
				synctest.Wait()
				for _, b := range c.names[1:] {
					if got, want := c.engines[b].LogEnd(), a.LogEnd(); got != want {
						t.Fatalf("%s replayed %v of %v", b, got, want)
					}
				}
				for _, s := range a.Ship.SendInfos() {
					if s.TotalCnt != 11 || s.RecentCnt != 11 || s.LastLSN != a.LogEnd().LSN {
						t.Fatalf("%+v", s)
					}
				}
				for _, s := range a.Ship.States() {
					if s.RecentSends != 11 || s.RecentTime < 0 {
						t.Fatalf("%+v", s)
					}
				}
				a.Ship.ClearStats("")
				if a.Ship.SendInfos()[0].TotalCnt != 0 {
					t.Fatal("not cleared")
				}
			})
		}
	}
}

func TestSlowStandbyDelaysCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, base.ArchRealtime)
		c.bufNum = 1
		a := c.all()
		gate := make(chan struct{})
		c.engines["C"].SetGate(gate)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 5 {
				c.commit(a)
			}
		}()
		time.Sleep(time.Minute) // longer than the link checks: backlog is no silence
		select {
		case <-done:
			t.Fatal("commits did not wait for the slow standby")
		default:
		}
		if a.Status() != base.StatusOpen {
			t.Fatal(a.Reasons())
		}
		close(gate)
		<-done
	})
}

func TestFailedSends(t *testing.T) {
	for _, typ := range []base.ArchType{base.ArchRealtime, base.ArchTimely} {
		for _, phase := range []struct {
			name string
			do   func(c *cluster)
		}{
			{"link down before", func(c *cluster) { c.net.Cut("A", "C"); synctest.Wait() }},
			{"link silent", func(c *cluster) { c.net.Mute("A", "C") }},
			{"standby gone", func(c *cluster) { c.stop("C"); synctest.Wait() }},
			{"standby mounted", func(c *cluster) { c.engines["C"].Set(base.ModeStandby, base.StatusMount); synctest.Wait() }},
			{"standby cut off while it waits", func(c *cluster) {
				gate := make(chan struct{})
				c.engines["C"].SetGate(gate)
				go func() { time.Sleep(time.Second); c.net.Cut("A", "C"); close(gate) }()
			}},
		} {
			bubble(t, fmt.Sprintf("%v/%s", typ, phase.name), func(t *testing.T) {
				c := newCluster(t, 2, typ)
				c.bufNum, c.wait = 1, typ == base.ArchTimely
				a := c.all()
				c.commit(a)
				time.Sleep(time.Second)
				phase.do(c)
				var err error
				for err == nil { // acknowledgements wait only when the queue is full
					_, err = a.Commit(context.Background(), a.Ship, 10)
				}
				if !strings.Contains(err.Error(), "archive to C") || strings.Contains(err.Error(), "archive to B") {
					t.Fatalf("error names the wrong ones: %v", err)
				}
				s := state(a, "C")
				if !s.Failed || a.Status() != base.StatusSuspend || (s.State == base.ArchInvalid) != (typ == base.ArchTimely) {
					t.Fatalf("%+v, %v", s, a.Status())
				}
				c.has2("B", a, typ)
				c.failover(a, "C")
				c.commit(a)
				c.has("B", a)
				if s := state(a, "C"); s.Failed || s.State != base.ArchInvalid {
					t.Fatalf("%+v", s)
				}
				// It comes back, is sent what it lacks, and is Valid again.
				c.net.Heal("A", "C")
				if c.up["C"] == nil {
					c.start("C")
				}
				time.Sleep(20 * time.Second)
				c.engines["C"].Set(base.ModeStandby, base.StatusOpen)
				synctest.Wait()
				if i := c.up["C"].Recv.Info(); i.Claim.Valid {
					t.Fatalf("claims: %+v", i)
				}
				if err := a.Ship.SetState(context.Background(), "C", base.ArchValid); code(err) != standby.CodeState {
					t.Fatalf("Valid while open: %v", err)
				}
				if err := c.recover(a, "C"); err != nil {
					t.Fatal(err)
				}
				c.commit(a)
				c.has("B", a)
				c.has("C", a)
				if !c.up["C"].Recv.Info().Claim.Valid {
					t.Fatal("no claim after recovery")
				}
			})
		}
	}
}

// has2 allows for the pending package.
func (c *cluster) has2(name string, a *repltest.Instance, typ base.ArchType) {
	c.t.Helper()
	i := c.up[name].Recv.Info()
	if p := a.Pending(); typ == base.ArchRealtime && (p == nil || i.Keep != p.Pos()) {
		c.t.Fatalf("%s has %v, pending is %v", name, i.Keep, p)
	}
	// G7: what the primary lacks is not replayed.
	if n, own := len(c.engines[name].Log()), len(a.Log()); n > own {
		c.t.Fatalf("%s replayed %d packages, primary has %d on disk", name, n, own)
	}
}

func TestRestartedStandbyThatLostPackages(t *testing.T) {
	bubble(t, "found at link-up", func(t *testing.T) {
		c := newCluster(t, 2, base.ArchRealtime)
		a := c.all()
		c.engines["C"].SetGate(make(chan struct{})) // nothing gets logged there
		for range 3 {
			c.commit(a)
		}
		c.stop("C")
		c.engines["C"].SetGate(nil)
		c.start("C")
		time.Sleep(5 * time.Second)
		c.engines["C"].Set(base.ModeStandby, base.StatusOpen)
		time.Sleep(time.Second)
		if a.Status() != base.StatusSuspend || !state(a, "C").Failed || !strings.Contains(state(a, "C").Err, "lost packages") {
			t.Fatalf("%v %+v", a.Status(), state(a, "C"))
		}
		if c.up["C"].Recv.Info().Claim.Valid {
			t.Fatal("claim without the packages")
		}
		if s := state(a, "B"); s.Failed {
			t.Fatalf("%+v", s)
		}
		if err := a.Ship.SetState(context.Background(), "C", base.ArchValid); code(err) != standby.CodeNotNext {
			t.Fatalf("Valid without the packages: %v", err)
		}
		c.failover(a, "C")
		if err := c.recover(a, "C"); err != nil {
			t.Fatal(err)
		}
		c.commit(a)
		c.has("C", a)
	})
	bubble(t, "nothing lost", func(t *testing.T) {
		c := newCluster(t, 2, base.ArchRealtime)
		a := c.all()
		c.commit(a)
		time.Sleep(time.Second)
		c.stop("C")
		c.start("C")
		time.Sleep(5 * time.Second)
		c.engines["C"].Set(base.ModeStandby, base.StatusOpen)
		time.Sleep(time.Second)
		if a.Status() != base.StatusOpen || !c.up["C"].Recv.Info().Claim.Valid {
			t.Fatalf("%v %v %+v", a.Status(), a.Reasons(), c.up["C"].Recv.Info())
		}
		c.commit(a)
		c.has("C", a)
	})
	bubble(t, "only the pending package, which comes again", func(t *testing.T) {
		c := newCluster(t, 2, base.ArchRealtime)
		a := c.all()
		c.commit(a)
		time.Sleep(time.Second)
		c.net.Cut("A", "B")
		synctest.Wait()
		if _, err := a.Commit(context.Background(), a.Ship, 10); err == nil {
			t.Fatal("committed without B")
		}
		c.stop("C") // it kept the pending package
		c.start("C")
		time.Sleep(5 * time.Second)
		c.engines["C"].Set(base.ModeStandby, base.StatusOpen)
		time.Sleep(time.Second)
		if state(a, "C").Failed {
			t.Fatalf("%+v", state(a, "C"))
		}
		c.failover(a, "B")
		c.has("C", a)
	})
	bubble(t, "ahead of the primary", func(t *testing.T) {
		c := newCluster(t, 1, base.ArchRealtime)
		a := c.all()
		c.commit(a)
		time.Sleep(time.Second)
		c.stop("B")
		// Somebody gave B a package the primary never made.
		e := c.engines["B"]
		if err := e.AppendForeign(context.Background(), pkgs(repltest.Package(e.LogEnd(), 1, 1, nil, 5))); err != nil {
			t.Fatal(err)
		}
		c.start("B")
		time.Sleep(5 * time.Second)
		c.engines["B"].Set(base.ModeStandby, base.StatusOpen)
		time.Sleep(time.Second)
		if a.Status() != base.StatusSuspend || !strings.Contains(state(a, "B").Err, "ahead") {
			t.Fatalf("%+v", state(a, "B"))
		}
		c.failover(a, "B")
		if err := a.Ship.CatchUp(context.Background(), "B"); code(err) != 0 && code(err) != standby.CodeNotNext {
			t.Fatal(err)
		}
		c.commit(a)
		c.commit(a)
		if err := a.Ship.CatchUp(context.Background(), "B"); err == nil {
			// Positions alone cannot tell once the primary has overtaken it: the
			// engine's own history would be needed. It must never be called equal.
			t.Log("position overtaken")
		}
	})
}

func TestInvalidReleasesHangingShip(t *testing.T) {
	for name, mute := range map[string]bool{"slow": false, "silent": true} {
		bubble(t, name, func(t *testing.T) {
			c := newCluster(t, 2, base.ArchRealtime)
			c.bufNum = 1
			a := c.all()
			gate := make(chan struct{})
			c.engines["C"].SetGate(gate)
			var acked []error
			done := make(chan struct{})
			go func() {
				defer close(done)
				for range 4 {
					_, err := a.Commit(context.Background(), a.Ship, 10)
					acked = append(acked, err)
				}
			}()
			time.Sleep(time.Second)
			if mute {
				c.net.Mute("A", "C")
			}
			start := time.Now()
			if err := a.Ship.SetState(context.Background(), "C", base.ArchInvalid); err != nil {
				t.Fatal(err)
			}
			<-done
			if d := time.Since(start); d > 1100*time.Millisecond {
				t.Fatalf("took %v", d)
			}
			if err := errors.Join(acked...); err != nil || a.Status() != base.StatusOpen {
				t.Fatal(err)
			}
			if !mute && c.up["C"].Recv.Info().Claim.Valid {
				t.Fatal("standby still believes to have everything")
			}
			close(gate)
			if mute {
				c.net.Heal("A", "C")
				time.Sleep(20 * time.Second)
				if c.up["C"].Recv.Info().Claim.Valid {
					t.Fatal("claim not taken back when the link returned")
				}
			}
		})
	}
}

func TestWaitApplyRealtime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2, base.ArchRealtime)
		c.wait = true
		a := c.all()
		for range 3 {
			c.commit(a)
			for _, b := range c.names[1:] {
				if c.engines[b].LogEnd() != a.LogEnd() {
					t.Fatalf("%s replayed %v of %v when the commit returned", b, c.engines[b].LogEnd(), a.LogEnd())
				}
			}
		}
		c.net.Cut("A", "B")
		synctest.Wait()
		if _, err := a.Commit(context.Background(), a.Ship, 1); err == nil || state(a, "B").State != base.ArchValid {
			t.Fatalf("%v %+v", err, state(a, "B"))
		}
	})
}

func TestPrimaryRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2, base.ArchRealtime)
		a := c.all()
		c.commit(a)
		time.Sleep(time.Second)
		c.net.Cut("A", "C")
		synctest.Wait()
		if _, err := a.Commit(context.Background(), a.Ship, 1); err == nil {
			t.Fatal("committed without C")
		}
		if i := c.up["B"].Recv.Info(); !i.HasKeep {
			t.Fatalf("%+v", i)
		}
		c.stop("A") // loses the pending package, B keeps it
		c.net.Heal("A", "C")
		a = c.start("A")
		time.Sleep(5 * time.Second)
		if err := a.Open(context.Background(), a.Ship); err != nil {
			t.Fatal(err)
		}
		c.commit(a)
		c.has("B", a)
		c.has("C", a)
		time.Sleep(time.Second)
		for _, b := range c.names[1:] {
			if got, want := c.engines[b].Lineage().Last(), a.Lineage().Last(); got.TGUID != want.TGUID || got.ID != 2 {
				t.Fatalf("%s: %+v", b, got)
			}
		}
	})
}

func TestSetStateRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, base.ArchRealtime)
		a := c.all()
		ctx := context.Background()
		if err := a.Ship.SetState(ctx, "Z", base.ArchInvalid); code(err) != ship.CodeNoTarget {
			t.Fatal(err)
		}
		if err := a.Ship.SetState(ctx, "B", base.ArchUnknown); err == nil {
			t.Fatal("Unknown set")
		}
		if err := a.Ship.SetState(ctx, "B", base.ArchValid); err != nil {
			t.Fatalf("already Valid: %v", err)
		}
		if err := a.Ship.SetState(ctx, "", base.ArchInvalid); err != nil {
			t.Fatal(err)
		}
		if err := a.Ship.SetState(ctx, "B", base.ArchInvalid); err != nil {
			t.Fatalf("already Invalid: %v", err)
		}
		c.commit(a)
		a.Suspend("test")
		if err := a.Ship.SetState(ctx, "B", base.ArchValid); code(err) != standby.CodeNotNext {
			t.Fatalf("behind: %v", err)
		}
		c.engines["B"].Set(base.ModeStandby, base.StatusMount)
		if err := a.Ship.SetState(ctx, "B", base.ArchValid); code(err) != standby.CodeState {
			t.Fatalf("mounted: %v", err)
		}
		c.engines["B"].Set(base.ModeNormal, base.StatusOpen)
		if err := a.Ship.SetState(ctx, "B", base.ArchValid); code(err) != standby.CodeMode {
			t.Fatalf("normal: %v", err)
		}
		c.stop("B")
		synctest.Wait()
		if err := a.Ship.SetState(ctx, "B", base.ArchValid); err == nil {
			t.Fatal("Valid to nobody")
		}
		// On a standby the state has no meaning and may be set freely (manual 2.2.11.8).
		a.Set(base.ModeStandby, base.StatusMount)
		if err := a.Ship.SetState(ctx, "", base.ArchValid); err != nil {
			t.Fatal(err)
		}
	})
}

// A package that has been sent and waits for the disk must not be missing on a
// standby that becomes Valid meanwhile (G1).
func TestNoValidWhileThePackageIsWritten(t *testing.T) {
	for _, typ := range []base.ArchType{base.ArchRealtime, base.ArchTimely} {
		bubble(t, typ.String(), func(t *testing.T) {
			ctx := context.Background()
			c := newCluster(t, 2, typ)
			a := c.all()
			c.commit(a)
			if err := a.Ship.SetState(ctx, "B", base.ArchInvalid); err != nil {
				t.Fatal(err)
			}
			a.Suspend("disk is full")
			p := repltest.Package(a.LogEnd(), a.Lineage().Last().ID, 1, nil, 100)
			if err := a.Ship.Ship(ctx, p); err != nil {
				t.Fatal(err)
			}
			if err := a.Ship.ShipTimely(ctx, p); err != nil {
				t.Fatal(err)
			}
			if err := a.Ship.SetState(ctx, "B", base.ArchValid); code(err) != standby.CodeChanging {
				t.Fatalf("set Valid: %v", err)
			}
			if s := state(a, "B"); s.State != base.ArchInvalid {
				t.Fatalf("archive to B is %v", s.State)
			}
		})
	}
}

// TestInvalidIsToldFirst: while a standby has not been told that its archive is
// Invalid, no commit is acknowledged without it: it could take over without that
// commit, or beside this primary (G1, G3).
func TestInvalidIsToldFirst(t *testing.T) {
	for name, must := range map[string]bool{"as the watcher sets it": false, "only when told": true} {
		bubble(t, name, func(t *testing.T) {
			c := newCluster(t, 1, base.ArchRealtime)
			a := c.all()
			c.commit(a)
			time.Sleep(time.Second)
			c.net.Mute("A", "B") // what is sent arrives when it is healed
			set := make(chan error, 1)
			go func() {
				if must {
					set <- a.Ship.Invalidate(t.Context(), "B")
				} else {
					set <- a.Ship.SetState(t.Context(), "B", base.ArchInvalid)
				}
			}()
			time.Sleep(100 * time.Millisecond)
			acked := make(chan error, 1)
			go func() {
				_, err := a.Commit(context.Background(), a.Ship, 10)
				acked <- err
			}()
			time.Sleep(400 * time.Millisecond)
			select {
			case err := <-acked:
				t.Fatalf("acknowledged (%v) while the standby believes to have everything: %+v", err, c.up["B"].Recv.Info().Claim)
			default:
			}
			c.net.Heal("A", "B")
			if err := errors.Join(<-set, <-acked); err != nil {
				t.Fatal(err)
			}
			if c.up["B"].Recv.Info().Claim.Valid || state(a, "B").State != base.ArchInvalid || c.up["B"].Recv.Info().Keep == a.LogEnd() {
				t.Fatalf("claim %+v, archive %+v", c.up["B"].Recv.Info().Claim, state(a, "B"))
			}
		})
	}
}

// TestNotToldStaysValid: a standby that cannot be told keeps its Valid archive,
// and with it everything that is acknowledged.
func TestNotToldStaysValid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, base.ArchRealtime)
		a := c.all()
		c.commit(a)
		time.Sleep(time.Second)
		c.net.Mute("A", "B")
		start := time.Now()
		if err := a.Ship.Invalidate(t.Context(), "B"); err == nil || !strings.Contains(err.Error(), "could not be told") {
			t.Fatalf("error %v", err)
		}
		if d := time.Since(start); d > standby.Lease {
			t.Fatalf("took %v", d)
		}
		if s := state(a, "B"); s.State != base.ArchValid {
			t.Fatalf("archive %+v", s)
		}
		c.net.Heal("A", "B")
		time.Sleep(time.Second)
		c.commit(a)
		c.has("B", a)
		if i := c.up["B"].Recv.Info(); !i.Claim.Valid {
			t.Fatalf("the standby has lost its claim: %+v", i.Claim)
		}
		if err := a.Ship.Invalidate(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		c.net.Mute("A", "B")
		if err := a.Ship.Invalidate(t.Context(), "B"); err != nil {
			t.Fatalf("Invalid already: %v", err)
		}
	})
}
