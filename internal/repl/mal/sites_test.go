package mal_test

import (
	"testing"
	"testing/synctest"
	"time"

	"datawatch/internal/repl/mal"
	"datawatch/internal/repl/repltest"
)

// TestSites: what is known of the system and its sites follows links and messages.
func TestSites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate, got := make(chan struct{}), make(chan *mal.Request, 2)
		n, ra, rb := repltest.NewNet(), &rec{}, &rec{serve: func(q *mal.Request) { got <- q }}
		a := node(t, n, "A", same, ra, nil)
		if s, x := a.System(), a.SiteInfos(); s != (mal.System{State: mal.SystemOpen, Port: 1, Sites: 2, Self: 0, Next: 1}) || len(x) != 1 || x[0] != (mal.Site{Inst: "B", Seq: 1}) {
			t.Fatalf("alone: %+v, %+v", s, x)
		}
		b := node(t, n, "B", same, rb, nil)
		if s := b.System(); s.Self != 1 {
			t.Fatalf("B is number %d", s.Self)
		}
		time.Sleep(20 * time.Second) // with checks of the links
		before, there := a.SiteInfos()[0], b.SiteInfos()[0]
		if before.Links != 2 || before.Free != 2 || !before.Data || before.Open != 0 || before.Sent != there.Handled || before.Sent > 2 {
			t.Fatalf("linked: %+v, %+v", before, there)
		}
		call, err := a.Go("B", typEcho)
		if err != nil {
			t.Fatal(err)
		}
		q := <-got
		synctest.Wait()
		x, y := a.SiteInfos()[0], b.SiteInfos()[0]
		if s := a.System(); s.Open != 1 || s.Next != 2 {
			t.Fatalf("a request is under way: %+v", s)
		}
		if x.Open != 1 || x.Free != 1 || x.Links != 2 || x.Sent != before.Sent+1 || y.Handled != there.Handled+1 || y.Free != 1 || y.Open != 0 {
			t.Fatalf("a request is under way: %+v, %+v", x, y)
		}
		q.Reply()
		if _, err := call.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		x, y = a.SiteInfos()[0], b.SiteInfos()[0]
		if x.Open != 0 || x.Free != 2 || x.Handled != before.Handled+1 || y.Sent != there.Sent+1 || y.Free != 2 || a.System().Open != 0 {
			t.Fatalf("answered: %+v, %+v", x, y)
		}
		if err := a.Notify("B", typEcho); err != nil { // nobody waits for an answer
			t.Fatal(err)
		}
		<-got
		synctest.Wait()
		if x, y = a.SiteInfos()[0], b.SiteInfos()[0]; x.Free != 2 || y.Free != 2 || x.Sent != before.Sent+2 || y.Handled != there.Handled+2 {
			t.Fatalf("a notice: %+v, %+v", x, y)
		}
		n.Cut("A", "B")
		synctest.Wait()
		if x = a.SiteInfos()[0]; x.Links != 0 || x.Free != 0 || x.Data || x.Sent != before.Sent+2 {
			t.Fatalf("cut: %+v", x)
		}
		n.Heal("A", "B")
		time.Sleep(3 * time.Second)
		rb.serve = func(*mal.Request) { <-gate }
		if err := a.Notify("B", typEcho); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		done := make(chan struct{})
		go func() { b.Close(); close(done) }()
		synctest.Wait()
		if s := b.System().State; s != mal.SystemPreShutdown {
			t.Fatalf("closing: %d", s)
		}
		close(gate)
		<-done
		if s := b.System().State; s != mal.SystemShutdown {
			t.Fatalf("closed: %d", s)
		}
		a.Close()
	})
}
