package ship_test

import (
	"context"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/repl/repltest"
	"datawatch/internal/repl/ship"
	"datawatch/internal/repl/standby"
)

// patience is how long an instance waits for a lease at least: the fail interval
// of the links is 2 s here.
const patience = standby.Lease + 2*time.Second

func late(a *repltest.Instance, inst string) bool {
	for _, st := range a.Ship.States() {
		if st.Inst == inst {
			return st.Late
		}
	}
	return false
}

// TestLateAnswers: a standby whose answers take longer than the lease, but come,
// is one whose sending has failed after a bounded time; it does not become Valid
// again as long as that is so, and does afterwards.
func TestLateAnswers(t *testing.T) {
	for _, typ := range []base.ArchType{base.ArchRealtime, base.ArchTimely} {
		for _, oneWay := range []time.Duration{1300 * time.Millisecond, 1500 * time.Millisecond, 1900 * time.Millisecond} {
			bubble(t, typ.String()+"/"+oneWay.String(), func(t *testing.T) {
				c := newCluster(t, 2, typ)
				a := c.all()
				c.commit(a)
				c.net.Delay("A", "B", oneWay)
				begun := time.Now()
				_, err := a.Commit(t.Context(), a.Ship, 10)
				took := time.Since(begun)
				if code(err) != ship.CodeLease || took < patience || took > patience+2*standby.Lease {
					t.Fatalf("%v after %v, want %v", err, took, patience)
				}
				if s := state(a, "B"); !s.Failed || !late(a, "B") || state(a, "C").Failed || late(a, "C") || a.Status() != base.StatusSuspend {
					t.Fatalf("%+v, late %v; C %+v; %v", s, late(a, "B"), state(a, "C"), a.Status())
				}
				c.failover(a, "B") // commits flow, and the standby gets to know
				c.commit(a)
				time.Sleep(5 * time.Second)
				if c.up["B"].Recv.Info().Claim.Valid {
					t.Fatal("the standby believes still that it has everything")
				}
				for range 20 { // it stays away
					if err := c.recover(a, "B"); code(err) != ship.CodeLease {
						t.Fatalf("recovered with late answers: %v", err)
					}
					c.commit(a)
					if a.Suspend("recovery"); code(a.Ship.SetState(t.Context(), "B", base.ArchValid)) != ship.CodeLease {
						t.Fatal("Valid by command with late answers")
					}
					if err := a.Open(t.Context(), a.Ship); err != nil {
						t.Fatal(err)
					}
					time.Sleep(5 * time.Second)
				}
				c.net.Delay("A", "B", 0)
				time.Sleep(10 * time.Second)
				if late(a, "B") {
					t.Fatal("still late")
				}
				if err := c.recover(a, "B"); err != nil {
					t.Fatal(err)
				}
				c.commit(a)
				c.has("B", a)
			})
		}
	}
}

// TestLateFoundAtRecovery: answers that became late while nothing was sent are
// noticed before the standby is Valid again.
func TestLateFoundAtRecovery(t *testing.T) {
	bubble(t, "catch-up", func(t *testing.T) {
		c := newCluster(t, 1, base.ArchRealtime)
		a := c.all()
		c.failover(a, "B")
		c.commit(a)
		c.net.Delay("A", "B", 1500*time.Millisecond)
		c.up["B"].Recv.DropKeep()
		if err := a.Ship.CatchUp(t.Context(), "B"); code(err) != ship.CodeLease || !late(a, "B") {
			t.Fatalf("%v, late %v", err, late(a, "B"))
		}
	})
	bubble(t, "becoming Valid", func(t *testing.T) {
		c := newCluster(t, 1, base.ArchRealtime)
		a := c.all()
		c.failover(a, "B")
		c.commit(a)
		c.up["B"].Recv.DropKeep()
		a.Suspend("recovery")
		if err := a.Ship.CatchUp(t.Context(), "B"); err != nil {
			t.Fatal(err)
		}
		c.net.Delay("A", "B", 1500*time.Millisecond)
		if err := a.Ship.SetState(t.Context(), "B", base.ArchValid); code(err) != ship.CodeLease || !late(a, "B") || state(a, "B").State != base.ArchInvalid {
			t.Fatalf("%v, %+v", err, state(a, "B"))
		}
	})
}

// TestNotLate: what is no fault of the standby's answers does not make it late.
func TestNotLate(t *testing.T) {
	for name, do := range map[string]func(t *testing.T, c *cluster, a *repltest.Instance){
		"answers within the lease": func(t *testing.T, c *cluster, a *repltest.Instance) {
			c.net.Delay("A", "B", 1200*time.Millisecond)
		},
		"late for a while": func(t *testing.T, c *cluster, a *repltest.Instance) {
			c.net.Delay("A", "B", 1500*time.Millisecond)
			time.AfterFunc(2*time.Second, func() { c.net.Delay("A", "B", 0) })
		},
		"this process stands still before every release": func(t *testing.T, c *cluster, a *repltest.Instance) {
			a.Stall = func() { time.Sleep(time.Minute) }
		},
	} {
		bubble(t, name, func(t *testing.T) {
			c := newCluster(t, 1, base.ArchRealtime)
			a := c.all()
			do(t, c, a)
			for range 10 {
				c.commit(a)
			}
			if s := state(a, "B"); s.State != base.ArchValid || s.Failed || late(a, "B") {
				t.Fatalf("%+v, late %v", s, late(a, "B"))
			}
		})
	}
}

// TestTellLateAnswers: a standby whose answers take long, but are a lease, can be
// told that its archive is to become Invalid: it is slow, not dead.
func TestTellLateAnswers(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		c := newCluster(t, 1, base.ArchRealtime)
		a := c.all()
		c.commit(a)
		c.net.Delay("A", "B", 1200*time.Millisecond)
		if err := a.Ship.Invalidate(t.Context(), "B"); err != nil || state(a, "B").State != base.ArchInvalid {
			t.Fatalf("%v, %+v", err, state(a, "B"))
		}
		if c.up["B"].Recv.Info().Claim.Valid {
			t.Fatal("it does not know")
		}
		c.commit(a)
	})
}

// TestLateEndsWithTheReign: a database that is primary no more asks nobody.
func TestLateEndsWithTheReign(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		c := newCluster(t, 1, base.ArchRealtime)
		a := c.all()
		c.net.Delay("A", "B", 1500*time.Millisecond)
		if _, err := a.Commit(context.Background(), a.Ship, 10); code(err) != ship.CodeLease {
			t.Fatal(err)
		}
		a.Set(base.ModeStandby, base.StatusMount)
		time.Sleep(10 * time.Second)
		if late(a, "B") {
			t.Fatal("still late")
		}
	})
}

// TestLargePackageOnSlowLink: a package that is longer under way than the lease
// lasts is acknowledged nevertheless, and its standby is not late.
func TestLargePackageOnSlowLink(t *testing.T) {
	for _, typ := range []base.ArchType{base.ArchRealtime, base.ArchTimely} {
		bubble(t, typ.String(), func(t *testing.T) {
			c := newCluster(t, 1, typ)
			a := c.all()
			c.net.Rate("A", "B", 3<<19) // 2.7 s for such a package
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for range 3 {
				begun := time.Now()
				if _, err := a.Commit(ctx, a.Ship, 4<<20-100); err != nil {
					t.Fatalf("%v after %v", err, time.Since(begun))
				}
				if took := time.Since(begun); took > 10*time.Second {
					t.Fatalf("it took %v", took)
				}
			}
			if s := state(a, "B"); s.State != base.ArchValid || s.Failed || late(a, "B") {
				t.Fatalf("%+v, late %v", s, late(a, "B"))
			}
			c.has("B", a)
		})
	}
}
