package ship_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"datawatch/internal/base"
)

// TestNewestSend: what is known of the newest send, from its start on, whatever
// becomes of it.
func TestNewestSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, base.ArchRealtime)
		a := c.all()
		c.commit(a)
		synctest.Wait() // its notice is out: it would be delayed, and the next package behind it
		before, start := a.LogEnd(), time.Now()
		c.net.Delay("A", "B", 100*time.Millisecond)
		done := make(chan struct{})
		go func() { c.commit(a); close(done) }()
		time.Sleep(50 * time.Millisecond)
		s := a.Ship.SendInfos()[0]
		x := s.Newest
		if x.FirstLSN != before.LSN+1 || x.LastLSN < x.FirstLSN || !x.Start.Equal(start) || !x.End.IsZero() || x.Time != 50*time.Millisecond || x.PTX == 0 || x.Len == 0 {
			t.Fatalf("under way: %+v", x)
		}
		if s.LastLSN != before.LSN {
			t.Fatalf("%+v counts one that is not acknowledged", s)
		}
		<-done
		s = a.Ship.SendInfos()[0]
		if x = s.Newest; x.LastLSN != s.LastLSN || x.LastLSN != a.LogEnd().LSN || x.End.Sub(x.Start) != s.LastTime || x.Time != s.LastTime || x.Failed || x.ForRecovery || x.Len != s.LastLen {
			t.Fatalf("acknowledged: %+v", s)
		}
		last := a.LogEnd().LSN
		c.net.Cut("A", "B")
		synctest.Wait()
		if _, err := a.Commit(context.Background(), a.Ship, 10); err == nil {
			t.Fatal("committed without standby")
		}
		s = a.Ship.SendInfos()[0]
		if x = s.Newest; !x.Failed || x.FirstLSN != last+1 || x.End.IsZero() || s.LastLSN != last {
			t.Fatalf("failed: %+v", s)
		}
		c.failover(a, "B")
		for range 3 {
			c.commit(a)
		}
		c.net.Heal("A", "B")
		time.Sleep(20 * time.Second)
		has := c.up["B"].Recv.Info().Stand.LSN // without the package it keeps
		if err := a.Ship.CatchUp(context.Background(), "B"); err != nil {
			t.Fatal(err)
		}
		if x = a.Ship.SendInfos()[0].Newest; !x.ForRecovery || x.Failed || x.FirstLSN != has+1 || x.LastLSN != a.LogEnd().LSN || x.End.IsZero() || x.PTX < 4 {
			t.Fatalf("recovery: %+v", x)
		}
		a.Ship.ClearStats("")
		if x = a.Ship.SendInfos()[0].Newest; !x.Start.IsZero() {
			t.Fatalf("cleared: %+v", x)
		}
	})
}
