package ship_test

import (
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/repl/ship"
	"datawatch/internal/storage/redo"
)

// TestTimelyFailureDecidesNothing: a failed send makes a timely archive Invalid
// at once (manual 2.2.11.5), but until somebody has decided to go on without the
// standby nothing is acknowledged without it, whatever opens the database, and
// the standby keeps its right to take over (G1, G3).
func TestTimelyFailureDecidesNothing(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		ctx := t.Context()
		c := newCluster(t, 2, base.ArchTimely)
		a := c.all()
		c.commit(a)
		c.net.Cut("A", "C")
		if _, err := a.Commit(ctx, a.Ship, 10); err == nil {
			t.Fatal("acknowledged without C")
		}
		if s := state(a, "C"); s.State != base.ArchInvalid || !s.Failed || a.Status() != base.StatusSuspend {
			t.Fatalf("%+v %v", s, a.Status())
		}
		end := a.LogEnd()
		for range 3 {
			c.net.Heal("A", "C")
			time.Sleep(10 * time.Second) // links come up, claims are settled
			if err := a.Open(ctx, a.Ship); code(err) != ship.CodeUndecided {
				t.Fatalf("opens without a decision: %v", err)
			}
		}
		if a.LogEnd() != end {
			t.Fatalf("hardened %v without a decision", a.LogEnd())
		}
		if i := c.up["C"].Recv.Info(); !i.Claim.Valid || i.Keep != end {
			t.Fatalf("C: %+v", i)
		}
		c.failover(a, "C")
		if i := c.up["C"].Recv.Info(); i.Claim.Valid {
			t.Fatal("C was not told that it is left behind")
		}
		if s := state(a, "B"); s.State != base.ArchValid || a.LogEnd() != c.engines["B"].LogEnd() {
			t.Fatalf("B: %+v, %v of %v", s, c.engines["B"].LogEnd(), a.LogEnd())
		}
		if err := c.recover(a, "C"); err != nil {
			t.Fatal(err)
		}
		c.commit(a)
		c.has("C", a)
	})
}

// TestWaitApply: with ARCH_WAIT_APPLY = 1 a package is acknowledged after every
// standby has replayed it, with either type (manual 2.6.5), and a realtime
// standby replays it only when the primary has it (G7).
func TestWaitApply(t *testing.T) {
	for _, typ := range []base.ArchType{base.ArchRealtime, base.ArchTimely} {
		bubble(t, typ.String(), func(t *testing.T) {
			c := newCluster(t, 2, typ)
			c.wait = true
			a := c.all()
			for n := 1; n < 20; n++ {
				c.engines["B"].Appended = func(p *redo.Package) {
					if log := a.Log(); len(log) < int(p.GSEQ) {
						t.Errorf("B replays package %d, the primary has %d", p.GSEQ, len(log))
					}
				}
				c.commit(a)
				for _, b := range c.names[1:] {
					if c.engines[b].LogEnd() != a.LogEnd() {
						t.Fatalf("acknowledged up to %v, %s has replayed up to %v", a.LogEnd(), b, c.engines[b].LogEnd())
					}
				}
			}
		})
	}
}
