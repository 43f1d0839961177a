package watcher

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"datawatch/internal/ha/proto"
	"datawatch/internal/wire"
)

// A machine that has vanished does not end its connections. What is connected
// and says nothing for twice DW_ERROR_TIME is left: the watcher dials again, and
// another confirm monitor may come. What speaks is not.
func TestSilentConnectionsAreLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{all: map[string]*listener{}}
		ln, err := n.listen("dw-B")
		if err != nil {
			t.Fatal(err)
		}
		dialled := make(chan net.Conn)
		go func() {
			defer close(dialled)
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				r, w := wire.NewReader(c, wire.MaxControl), wire.NewWriter(c)
				if _, err := r.Read(); err != nil {
					continue
				}
				_ = put(w, proto.TypeHelloReply, 0, proto.HelloReply{GuardVersion: proto.GuardVersion, Name: "B", OGUID: 9})
				go func() { // takes what comes, and says nothing
					for {
						if _, err := r.Read(); err != nil {
							return
						}
					}
				}()
				dialled <- c
			}
		}()
		g := startGuard(t, n, &procs{alive: map[int]bool{}}, "A", nil)
		swallow := func(r *wire.Reader) {
			for {
				if _, err := r.Read(); err != nil {
					return
				}
			}
		}
		first := <-dialled
		began := time.Now()
		speaks, r, w, h := dialMon(t, n, "speaks", false)
		if h.Code != 0 {
			t.Fatalf("%+v", h)
		}
		go swallow(r)
		silent, r, _, h := dialMon(t, n, "silent", true)
		if h.Code != 0 {
			t.Fatalf("%+v", h)
		}
		go swallow(r)
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Second):
					_ = put(w, proto.TypeMonStatus, 0, proto.MonitorStatus{MonID: "speaks"})
				}
			}
		}()
		second := <-dialled
		if d := time.Since(began); d < 9*time.Second || d > 12*time.Second {
			t.Errorf("the watcher of B was dialled again after %v, DW_ERROR_TIME is 5 s", d)
		}
		time.Sleep(time.Second)
		other, _, _, h := dialMon(t, n, "other", true)
		if h.Code != 0 {
			t.Errorf("another confirm monitor is refused while the first one is silent: %+v", h)
		}
		links := map[string]bool{}
		for _, l := range g.snap(t).Links {
			links[l.MonID] = true
		}
		if !links["speaks"] || links["silent"] || !links["other"] {
			t.Errorf("monitors connected: %v", links)
		}
		close(stop)
		g.stop(t)
		for _, c := range []net.Conn{first, second, speaks, silent, other} {
			c.Close()
		}
		ln.Close()
		for c := range dialled {
			c.Close()
		}
		time.Sleep(2 * time.Second)
	})
}
