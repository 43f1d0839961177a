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
