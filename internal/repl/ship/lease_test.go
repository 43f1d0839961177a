package ship_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/repl/mal"
	"datawatch/internal/repl/repltest"
	"datawatch/internal/repl/standby"
)

// TestLease: a primary that stands still after its standbys have answered, for
// however long, does not acknowledge beside one of them that has become primary
// meanwhile, whenever the takeover begins (G3); and it does acknowledge, late,
// when nobody has taken over. Without the check at the release, or without the
// wait at the takeover, it fails.
func TestLease(t *testing.T) {
	for _, typ := range []base.ArchType{base.ArchRealtime, base.ArchTimely} {
		for stall := time.Duration(0); stall <= 5*time.Second; stall += 500 * time.Millisecond {
			for _, begins := range []time.Duration{-1, 0, 1100 * time.Millisecond, 4 * time.Second} {
				bubble(t, fmt.Sprintf("%v/stands still %v, takeover after %v", typ, stall, begins), func(t *testing.T) {
					c := newCluster(t, 2, typ)
					a := c.all()
					c.commit(a)
					time.Sleep(time.Second)
					b := c.up["B"]
					var took time.Time
					over := make(chan error, 1)
					a.Stall = func() {
						if begins >= 0 {
							go func() {
								time.Sleep(begins)
								err := b.Recv.ApplyKeep(context.Background())
								b.Set(base.ModePrimary, base.StatusOpen)
								took = time.Now()
								over <- err
							}()
						}
						time.Sleep(stall)
					}
					_, err := a.Commit(t.Context(), a.Ship, 10)
					acked := time.Now()
					if (begins < 0 || begins > stall) && err != nil {
						t.Fatalf("nobody has taken over: %v", err)
					}
					if err != nil && (a.Status() != base.StatusSuspend || !state(a, "B").Failed) {
						t.Fatalf("%v, %+v", a.Status(), state(a, "B"))
					}
					if begins < 0 {
						return
					}
					if failed := <-over; failed != nil {
						t.Fatal(failed)
					}
					if err == nil && !took.After(acked) {
						t.Fatalf("acknowledged at %v, B is primary since %v", acked, took)
					}
				})
			}
		}
	}
}

// TestPromise: how long a takeover waits.
func TestPromise(t *testing.T) {
	for _, k := range []struct {
		name string
		do   func(c *cluster, a *repltest.Instance)
		want time.Duration
		gone bool
	}{
		{"a package has just been taken", func(*cluster, *repltest.Instance) {}, standby.Promise, false},
		{"a second ago", func(*cluster, *repltest.Instance) { time.Sleep(time.Second) }, standby.Promise - time.Second, false},
		{"long ago", func(*cluster, *repltest.Instance) { time.Sleep(time.Minute) }, 0, false},
		{"the primary's process has ended", func(*cluster, *repltest.Instance) {}, 0, true},
		{"the primary is in Mount", func(c *cluster, a *repltest.Instance) {
			a.Set(base.ModePrimary, base.StatusMount)
			a.Ship.Over(c.t.Context())
		}, 0, false},
		{"the primary has opened again", func(c *cluster, a *repltest.Instance) {
			a.Set(base.ModePrimary, base.StatusMount)
			a.Ship.Over(c.t.Context())
			if err := a.Open(c.t.Context(), a.Ship); err != nil {
				c.t.Fatal(err)
			}
		}, standby.Promise, false},
	} {
		bubble(t, k.name, func(t *testing.T) {
			c := newCluster(t, 1, base.ArchRealtime)
			a := c.all()
			time.Sleep(time.Minute)
			c.commit(a)
			k.do(c, a)
			b := c.up["B"]
			var ended []string
			if k.gone {
				ended = []string{"other", a.Incarnation}
			}
			begun := time.Now()
			if err := b.Recv.ApplyKeep(t.Context(), ended...); err != nil {
				t.Fatal(err)
			}
			if got := time.Since(begun); got != k.want {
				t.Fatalf("waited %v, want %v", got, k.want)
			}
			begun = time.Now()
			if err := b.Recv.ApplyKeep(t.Context()); err != nil || time.Since(begun) != 0 {
				t.Fatalf("again: %v after %v", err, time.Since(begun))
			}
		})
	}
}

// TestPromiseAgain: a promise for a package is renewed without the package, but
// only to the primary whose claim stands, for the newest package that is there,
// and not when a takeover has begun (G3).
func TestPromiseAgain(t *testing.T) {
	for name, k := range map[string]struct {
		do   func(ctx context.Context, b *repltest.Instance, from *string, w *mal.Renewal)
		want bool
	}{
		"the newest":           {func(context.Context, *repltest.Instance, *string, *mal.Renewal) {}, true},
		"an older one":         {func(_ context.Context, _ *repltest.Instance, _ *string, w *mal.Renewal) { w.Pos.Seq-- }, false},
		"of another database":  {func(_ context.Context, _ *repltest.Instance, _ *string, w *mal.Renewal) { w.OpenGUID = "X" }, false},
		"of an older reign":    {func(_ context.Context, _ *repltest.Instance, _ *string, w *mal.Renewal) { w.OpenID-- }, false},
		"for another primary":  {func(_ context.Context, _ *repltest.Instance, from *string, _ *mal.Renewal) { *from = "C" }, false},
		"a takeover has begun": {func(ctx context.Context, b *repltest.Instance, _ *string, _ *mal.Renewal) { go b.Recv.ApplyKeep(ctx) }, false},
		"it has become primary": {func(ctx context.Context, b *repltest.Instance, _ *string, _ *mal.Renewal) {
			b.Set(base.ModePrimary, base.StatusOpen)
		}, false},
		"the archive is Invalid": {func(ctx context.Context, b *repltest.Instance, _ *string, _ *mal.Renewal) { b.Recv.DropKeep() }, false},
	} {
		bubble(t, name, func(t *testing.T) {
			c := newCluster(t, 2, base.ArchRealtime)
			a := c.all()
			time.Sleep(time.Minute)
			p, err := a.Commit(t.Context(), a.Ship, 10)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
			b, from := c.up["B"], "A"
			w := mal.Renewal{Pos: p.Pos(), OpenID: p.OpenID, OpenGUID: a.Lineage().Last().TGUID}
			k.do(t.Context(), b, &from, &w)
			synctest.Wait()
			m, err := mal.EncodeJSON(mal.State{Renew: &w})
			if err != nil {
				t.Fatal(err)
			}
			var info mal.StandbyInfo
			b.Recv.Serve(mal.NewRequest(from, mal.TypeState, m, func(r []byte, e error) {
				if err = e; err == nil {
					err = mal.DecodeJSON(r, &info)
				}
			}))
			if err != nil || info.Promised != k.want {
				t.Fatalf("promised %v, %v", info.Promised, err)
			}
			if !k.want {
				return
			}
			begun := time.Now()
			if err := b.Recv.ApplyKeep(t.Context()); err != nil || time.Since(begun) != standby.Promise {
				t.Fatalf("waited %v, %v", time.Since(begun), err)
			}
		})
	}
}
