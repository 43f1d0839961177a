package fsm_test

import (
	"strings"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/fsm"
	"datawatch/internal/ha/proto"
)

// TestArchiveFull: with DW_ARCH_SPACE_CHECK a standby whose local archive has no
// space left is shut down, and its watcher with it, so that the primary goes on and
// the instance is not started before somebody has made room (manual 6.26).
func TestArchiveFull(t *testing.T) {
	w := newWorld(t, 6, 2, auto())
	w.startAll()
	w.settle(time.Minute)
	w.run(12 * time.Second)
	a, b := w.dbs["A"], w.dbs["B"]
	b.status, b.archFull = base.StatusSuspend, "no space left on device"
	w.run(40 * time.Second)
	st := &w.ws["B"].st
	if st.W != fsm.Shutdown || b.up {
		t.Fatalf("watcher of the standby is %s, its instance runs: %v\n%s", st.W, b.up, w.text(40))
	}
	if why := strings.Join(st.Why, "; "); !strings.Contains(why, "no space left on device") || !strings.Contains(why, "startup dmwatcher") {
		t.Fatalf("it says %q", why)
	}
	if w.primary() != "A" || a.status != base.StatusOpen || a.arch["B"].state != base.ArchInvalid {
		t.Fatalf("primary %q is %v, its archive %v", w.primary(), a.status, a.arch["B"].state)
	}
	b.archFull = ""
	if r, ok := w.ask("B", proto.WatcherCommand{Cmd: proto.DWCmdStartDW}); !ok || r.Code < 0 {
		t.Fatalf("startup dmwatcher: %+v", r)
	}
	w.settle(time.Minute)
	w.durable()
	// A primary waits for space: nobody else has what it has.
	a.archFull = "no space left on device"
	w.run(10 * time.Second)
	if w.ws["A"].st.W != fsm.Open || !a.up {
		t.Fatalf("the watcher of the primary is %s", w.ws["A"].st.W)
	}
}

// TestPrimaryDiskFull: a primary that cannot go on after a recovery, because its
// disk has no room, is tried again every second, not at once for ever.
func TestPrimaryDiskFull(t *testing.T) {
	cfg := auto()
	cfg.AutoRestart = false
	w := newWorld(t, 7, 2, cfg)
	w.startAll()
	w.settle(time.Minute)
	w.run(12 * time.Second)
	a, b := w.dbs["A"], w.dbs["B"]
	b.crash()
	w.run(12 * time.Second)
	if a.arch["B"].state != base.ArchInvalid {
		t.Fatalf("archive to B is %v", a.arch["B"].state)
	}
	opens := 0
	w.mutate = func(x fsm.Action) fsm.Action {
		if s, ok := x.(fsm.SendInst); ok && s.Cmd.Cmd == proto.CmdOpen && strings.HasPrefix(s.Cmd.Evidence, "reopening") {
			if opens++; opens > 1000 {
				t.Fatalf("opened %d times\n%s", opens, w.text(20))
			}
		}
		return x
	}
	a.full = true
	b.start()
	w.run(time.Minute)
	if a.status != base.StatusSuspend || opens == 0 {
		t.Fatalf("the primary is %v, opened %d times", a.status, opens)
	}
	before := opens
	w.run(20 * time.Second)
	if n := opens - before; n < 10 || n > 22 {
		t.Errorf("opened %d times in 20 s", n)
	}
	a.full = false
	w.settle(time.Minute)
	w.durable()
}
