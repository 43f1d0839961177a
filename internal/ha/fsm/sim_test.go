package fsm_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"datawatch/internal/ha/walktest"

	"datawatch/internal/base"
	"datawatch/internal/ha/fsm"
)

func TestStartAndKillPrimary(t *testing.T) {
	for n := 2; n <= 4; n++ {
		w := newWorld(t, uint64(n), n, auto())
		w.startAll()
		w.settle(time.Minute)
		w.run(5 * time.Second)
		for i := range 6 {
			w.dbs[w.primary()].crash()
			w.settle(2 * time.Minute)
			w.durable()
			w.run(time.Duration(i) * time.Second)
		}
		if len(w.acked) < 100 {
			t.Fatalf("only %d commits", len(w.acked))
		}
	}
}

func (w *world) primary() string {
	for _, n := range w.names {
		if d := w.dbs[n]; d.up && d.mode == base.ModePrimary && d.status == base.StatusOpen {
			return n
		}
	}
	return ""
}

// fault does one of the faults of the world; every number means one.
func (w *world) fault(k int) {
	pick := func(i int) string { return w.names[i%len(w.names)] }
	a, b := pick(k/16), pick(k/64)
	switch k % 16 {
	case 0, 1, 2:
		w.log("FAULT kill database %s", a)
		w.dbs[a].crash()
	case 3:
		if p := w.primary(); p != "" {
			w.log("FAULT kill primary %s", p)
			if w.dbs[p].dieNext = k/16%2 == 0; !w.dbs[p].dieNext {
				w.dbs[p].crash()
			}
		}
	case 4:
		w.log("FAULT kill watcher %s", a)
		w.ws[a].up = false
	case 5, 6:
		w.startWatcher(a)
	case 7:
		w.log("FAULT kill monitor")
		w.monUp = false
	case 8:
		w.startMonitor()
	case 9:
		w.log("FAULT cut databases %s %s", a, b)
		w.cut[link("d:"+a, "d:"+b)] = true
	case 10:
		w.log("FAULT cut watchers %s %s", a, b)
		w.cut[link("w:"+a, "w:"+b)] = true
	case 11:
		w.log("FAULT cut monitor %s", a)
		w.cut[link("w:"+a, "m:")] = true
	case 12:
		w.log("FAULT isolate %s", a)
		for _, n := range w.names {
			w.cut[link("d:"+a, "d:"+n)], w.cut[link("w:"+a, "w:"+n)] = true, true
		}
		w.cut[link("w:"+a, "m:")] = true
	case 13:
		w.log("FAULT heal")
		clear(w.cut)
		w.unmute()
	case 14:
		if k/512%2 == 0 {
			w.log("FAULT hang %s", a)
			if w.dbs[a].hung = k/256%2 == 0; !w.dbs[a].hung {
				w.dbs[a].lease.stall = true
			}
			break
		}
		w.log("FAULT stop watcher %s", a)
		w.ws[a].frozen = true
	case 15:
		w.log("FAULT resume %s", a)
		w.goOn(a)
		w.thaw(a)
	}
	w.links() // whoever dies loses its connections, however soon it is back
}

func (w *world) repair() {
	w.links()
	clear(w.cut)
	clear(w.lagging)
	w.unmute()
	w.slow = false
	w.thawMonitor()
	for _, n := range w.names {
		w.goOn(n)
		w.startWatcher(n)
		w.thaw(n)
	}
	w.startMonitor()
}

// walk lets faults happen, each followed by some time, and then lets the group
// become healthy.
func walk(t tester, cfg fsm.Config, seed uint64, databases int, faults []int) {
	t.Helper()
	newWorld(t, seed, databases, cfg).walk(faults)
}

func (w *world) walk(faults []int) {
	w.t.Helper()
	w.startAll()
	w.settle(2 * time.Minute)
	for _, k := range faults {
		w.fault(k % 1024)
		w.run(time.Duration(k/1024) * 600 * time.Millisecond)
		w.fail()
	}
	w.log("REPAIR")
	w.repair()
	w.settle(10 * time.Minute)
	w.durable()
}

// TestRandomWalks: whatever happens, G3 and durability hold, nothing splits,
// and once faults stop the group becomes healthy again without a hand.
func TestRandomWalks(t *testing.T) {
	walktest.Run(t, 25, func(rt *rapid.T) {
		cfg := auto()
		cfg.Reconnect = rapid.Bool().Draw(rt, "reconnect")
		cfg.FailoverForce = rapid.Bool().Draw(rt, "force")
		walk(rt, cfg, rapid.Uint64().Draw(rt, "seed"), rapid.IntRange(2, 4).Draw(rt, "databases"),
			rapid.SliceOfN(rapid.IntRange(0, 1<<14), 1, 25).Draw(rt, "faults"))
	})
}

// TestWalksThatFailedOnce: each found something that is mended now.
func TestWalksThatFailedOnce(t *testing.T) {
	for name, c := range map[string]struct {
		reconnect, force bool
		databases        int
		seed             uint64
		faults           []int
		timely           bool
	}{
		"the successor dies before it opens": {false, false, 2, 2, []int{1987, 144}, false},
		"a late commit, then one in time":    {false, false, 2, 7, []int{16384, 3, 8199, 13317, 0, 1040, 270, 7045}, true},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := auto()
			cfg.Reconnect, cfg.FailoverForce = c.reconnect, c.force
			w := newWorld(t, c.seed, c.databases, cfg)
			w.timely = c.timely
			w.walk(c.faults)
		})
	}
}
