package fsm_test

import (
	"strings"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/fsm"
)

// TestSlowStandby: a standby to which sending is too slow is cut off, after it
// has been told, and comes back when sending and replay are fast again (manual
// 3.1.7, 3.1.9). Nothing acknowledged is lost whoever dies next (G1).
func TestSlowStandby(t *testing.T) {
	start := func(t *testing.T) *world {
		cfg := auto()
		cfg.SendThreshold, cfg.ApplyThresh = 2, 3
		w := newWorld(t, 6, 3, cfg)
		w.startAll()
		w.settle(time.Minute)
		w.run(12 * time.Second) // INST_RECOVER_TIME is the configured one again
		return w
	}
	cutOff := func(t *testing.T, w *world) {
		t.Helper()
		w.dbs["A"].arch["B"].slow = 2100 * time.Millisecond
		seen := false
		for range 60 {
			w.run(ms(50))
			seen = seen || w.ws["A"].st.W == fsm.StandbyCheck
		}
		if a := w.dbs["A"]; !seen || a.arch["B"].state != base.ArchInvalid || a.arch["C"].state != base.ArchValid || w.ws["A"].st.W != fsm.Open {
			t.Fatalf("state seen %v, archives %s %s, watcher %s", seen, a.arch["B"].state, a.arch["C"].state, w.ws["A"].st.W)
		}
		if w.dbs["B"].claim != "" {
			t.Fatal("the standby believes to have everything")
		}
	}
	t.Run("at the threshold nothing happens", func(t *testing.T) {
		w := start(t)
		w.dbs["A"].arch["B"].slow, w.dbs["B"].replay = 2*time.Second, 10*time.Second
		w.run(10 * time.Second)
		if w.dbs["A"].arch["B"].state != base.ArchValid {
			t.Fatal("cut off")
		}
	})
	t.Run("it comes back when it is fast", func(t *testing.T) {
		w := start(t)
		cutOff(t, w)
		w.run(30 * time.Second)
		if w.dbs["A"].arch["B"].state != base.ArchInvalid || !strings.Contains(w.text(len(w.trace)), "recovery failed [standby B step wait for suspend") {
			t.Fatalf("archive %s while it is slow", w.dbs["A"].arch["B"].state)
		}
		w.dbs["A"].arch["B"].slow = 0
		w.settle(time.Minute)
		w.durable()
	})
	t.Run("not while its replay is slow", func(t *testing.T) {
		w := start(t)
		cutOff(t, w)
		w.dbs["A"].arch["B"].slow, w.dbs["B"].replay = 0, 3100*time.Millisecond
		for range 600 {
			w.run(ms(100))
			if w.dbs["A"].arch["B"].state == base.ArchValid {
				t.Fatal("Valid although its replay is slow")
			}
		}
		w.dbs["B"].replay = 0
		w.settle(6 * time.Minute)
	})
	t.Run("it is no successor", func(t *testing.T) {
		w := start(t)
		cutOff(t, w)
		w.run(2 * time.Second)
		w.ws["A"].st.Cfg.AutoRestart = false
		w.dbs["A"].crash()
		w.run(8 * time.Second)
		if w.primary() != "C" {
			t.Fatalf("primary %q", w.primary())
		}
		w.durable()
	})
	t.Run("one that cannot be told stays", func(t *testing.T) {
		w := start(t)
		w.dbs["A"].arch["B"].slow = time.Minute
		w.cut[link("d:A", "d:B")], w.idle = true, true // no commit finds out first
		w.run(5 * time.Second)
		if w.dbs["A"].arch["B"].state != base.ArchValid || !strings.Contains(w.text(len(w.trace)), "cannot be told") {
			t.Fatalf("archive %s", w.dbs["A"].arch["B"].state)
		}
		clear(w.cut)
		w.idle = false
		w.dbs["A"].arch["B"].slow = 0
		w.settle(time.Minute)
		w.durable()
	})
}

// TestPublicNetworkDown: INST_SERVICE_IP_CHECK ends an Open primary that clients
// cannot reach, once in an outage; a standby takes over, and without one the
// primary comes back and stays (manual 5.4, 6.10).
func TestPublicNetworkDown(t *testing.T) {
	for _, standby := range []bool{true, false} {
		cfg := auto()
		cfg.ServiceCheck = true
		w := newWorld(t, 8, 2, cfg)
		w.startAll()
		w.settle(time.Minute)
		w.run(3 * time.Second)
		inc := w.dbs["B"].inc
		w.ev("B", fsm.Service{Why: "no card"}) // a standby's clients are elsewhere
		if !standby {
			w.dbs["A"].arch["B"].state, w.dbs["B"].claim, w.dbs["B"].hung = base.ArchInvalid, "", true
			w.ws["B"].st.Cfg.AutoRestart = false
		}
		w.run(10 * time.Second)
		if standby && w.dbs["B"].inc != inc {
			t.Fatal("the standby was ended")
		}
		w.ev("B", fsm.Service{})
		if w.primary() != "A" {
			t.Fatalf("primary %q", w.primary())
		}
		inc = w.dbs["A"].inc
		w.ev("A", fsm.Service{Why: "no card"})
		w.run(4 * time.Second)
		if w.dbs["A"].inc != inc {
			t.Fatal("ended before INST_ERROR_TIME")
		}
		w.run(time.Minute)
		if w.dbs["A"].inc != inc+1 {
			t.Fatalf("started %d times", w.dbs["A"].inc-inc)
		}
		if want := map[bool]string{true: "B", false: "A"}[standby]; w.primary() != want {
			t.Fatalf("standby %v: primary %q", standby, w.primary())
		}
		w.dbs["B"].hung = false
		w.settle(2 * time.Minute)
		w.durable()
	}
}
