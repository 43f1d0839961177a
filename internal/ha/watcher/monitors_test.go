package watcher

import (
	"fmt"
	"net"
	"testing"
	"testing/synctest"

	"datawatch/internal/wire"
)

// TestTenMonitors: a watcher takes ten monitors and refuses one more, until one
// has left (manual 4.1).
func TestTenMonitors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{all: map[string]*listener{}}
		g := startGuard(t, n, &procs{alive: map[int]bool{}}, "A", nil)
		var conns []net.Conn
		come := func(id int) int {
			c, r, _, h := dialMon(t, n, fmt.Sprint("m", id), false)
			if h.Code != 0 {
				c.Close()
				return int(h.Code)
			}
			conns = append(conns, c)
			go func(r *wire.Reader) {
				for {
					if _, err := r.Read(); err != nil {
						return
					}
				}
			}(r)
			return 0
		}
		for i := range 10 {
			if code := come(i); code != 0 {
				t.Fatalf("monitor %d is refused with %d", i+1, code)
			}
		}
		if code := come(10); code != -19 {
			t.Fatalf("the eleventh monitor: code %d", code)
		}
		conns[0].Close()
		until(t, "one has left", func() bool { return len(g.snap(t).Links) == 9 })
		if code := come(11); code != 0 {
			t.Fatalf("in place of one that has left: code %d", code)
		}
		for _, c := range conns {
			c.Close()
		}
		until(t, "all have left", func() bool { return len(g.snap(t).Links) == 0 })
		g.stop(t)
	})
}
