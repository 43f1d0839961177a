package standby_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/repl/mal"
	"datawatch/internal/repl/standby"
)

func TestClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := receiver(t, nil)
		c := &chain{}
		c.open("one")
		claim := func() standby.Claim { return r.Info().Claim }
		if claim().Valid {
			t.Fatal("claim out of nothing")
		}
		must(t, offer(r, "A", c.head(mal.KindRealtime), first(c)))
		if claim() != (standby.Claim{Valid: true, From: "A", OpenID: 1}) {
			t.Fatalf("%+v", claim())
		}
		say := func(from string, st base.ArchState, id uint64, guid string, file base.Position) error {
			_, err := r.State(from, mal.State{State: st, OpenID: id, OpenGUID: guid, File: file})
			return err
		}
		if say("A", base.ArchInvalid, 1, "one", c.pos); claim().Valid {
			t.Fatal("Invalid not heard")
		}
		if err := say("A", base.ArchValid, 1, "one", base.Position{Seq: 7, LSN: 7}); base.CodeOf(err, 0) != standby.CodeNotNext || claim().Valid {
			t.Fatalf("claim for what we lack: %v", err)
		}
		if err := say("A", base.ArchValid, 1, "fork", c.pos); err == nil || claim().Valid {
			t.Fatal("claim of a fork believed")
		}
		if err := say("A", base.ArchValid, 1, "one", c.pos); err != nil || !claim().Valid {
			t.Fatal(err)
		}
		// An older primary changes nothing.
		say("Z", base.ArchInvalid, 0, "", c.pos)
		r.PeerIdentity("Z", mal.Identity{Mode: base.ModePrimary, Status: base.StatusOpen})
		if !claim().Valid {
			t.Fatal("claim taken away by an older primary")
		}
		// A refused package of our own primary shows that we lack something.
		lost := *c
		lost.next()
		refused(t, offer(r, "A", lost.head(mal.KindRealtime), lost.next()), standby.CodeNotNext)
		if claim().Valid {
			t.Fatal("claim outlived a gap")
		}
		must(t, offer(r, "A", c.head(mal.KindRealtime), c.next()))
		r.PeerIdentity("C", mal.Identity{Mode: base.ModePrimary, Status: base.StatusOpen, Lineage: base.Lineage{{ID: 1}, {ID: 2}}})
		if claim().Valid {
			t.Fatal("another primary is there")
		}
	})
}

func TestServeRefusesDamage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := receiver(t, nil)
		c := &chain{}
		c.open("one")
		p := first(c)
		msg := p.Encode(mal.PackageLen(c.head(mal.KindRealtime).Append(nil), p.EncodedLen()))
		ask := func(typ uint16, b []byte) (got []byte, err error) {
			done := false
			q := mal.NewRequest("A", typ, b, func(b []byte, e error) { got, err, done = b, e, true })
			if !r.Serve(q) {
				t.Fatal("type not known")
			}
			synctest.Wait()
			if !done {
				t.Fatal("no answer")
			}
			return
		}
		for i := 0; i < len(msg); i++ {
			bad := append([]byte(nil), msg...)
			bad[i] ^= 0x40
			if _, err := ask(mal.TypeRedo, bad); err == nil && i >= mal.RedoHeaderSize {
				t.Fatalf("byte %d flipped and accepted", i)
			} else if err == nil {
				r.DropKeep() // a field of the header that names no part of the package
			}
		}
		if _, err := ask(mal.TypeHardened, []byte("x")); base.CodeOf(err, 0) != mal.CodeMessage {
			t.Fatal(err)
		}
		if _, err := ask(mal.TypeState, []byte("x")); base.CodeOf(err, 0) != mal.CodeMessage {
			t.Fatal(err)
		}
		if b, err := ask(mal.TypeRedo, msg); err != nil || len(b) != mal.AckSize {
			t.Fatal(err)
		}
		if r.Serve(mal.NewRequest("A", 77, nil, nil)) {
			t.Fatal("unknown type taken")
		}
	})
}

func TestCloseAnswersWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, e := receiver(t, nil)
		e.SetGate(make(chan struct{}))
		c := &chain{}
		c.open("one")
		ch := offer(r, "A", c.head(mal.KindRecover), first(c))
		r.Close()
		refused(t, ch, standby.CodeState)
		if err := r.Drain(context.Background()); err == nil {
			t.Fatal("drained after close")
		}
	})
}

// TestGather: packages nobody waits for are replayed together after
// ApplyDelay, acknowledged at once; whoever waits for replay ends the delay.
func TestGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, e := receiver(t, func(c *standby.Config) { c.ApplyDelay = 3 * time.Millisecond })
		c := &chain{}
		first := c.open("one")
		must(t, offer(r, "A", c.head(mal.KindRealtime), first))
		for range 9 {
			must(t, offer(r, "A", c.head(mal.KindRealtime), c.next()))
		}
		if n := len(e.Log()); n != 0 {
			t.Fatalf("%d packages logged before the delay is over", n)
		}
		time.Sleep(3 * time.Millisecond)
		synctest.Wait()
		if n := len(e.Log()); n != 9 {
			t.Fatalf("%d packages logged after it, want 9", n)
		}
		start := time.Now()
		if err := r.ApplyKeep(t.Context(), "A-1"); err != nil {
			t.Fatal(err)
		}
		if n := len(e.Log()); n != 10 || time.Since(start) != 0 {
			t.Fatalf("takeover: %d packages logged after %v", n, time.Since(start))
		}
	})
}
