package server

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
	"datawatch/internal/sql/session"
)

// TestWaitApplyPair: with ARCH_WAIT_APPLY = 1 what is acknowledged on the primary
// is what the standby's readers see at once; TIMELY has it by default, with
// REALTIME it is configured (manual 2.6.5).
func TestWaitApplyPair(t *testing.T) {
	for typ, arch := range map[string]string{"TIMELY": "", "REALTIME": "ARCH_WAIT_APPLY = 1"} {
		t.Run(typ, func(t *testing.T) {
			p := newPairWith(t, typ, arch, nil)
			p.open()
			for v := byte(1); v < 100; v++ {
				p.commit(p.a, v)
				if got := p.value(p.b); got != v {
					t.Fatalf("%d is acknowledged, the standby shows %d", v, got)
				}
			}
		})
	}
}

// TestTimelyPair: a timely primary whose standby is gone has the commit on its
// disk and neither acknowledges nor shows it (G1, G2); it goes on when the
// watcher says so, and a standby that comes back catches up.
func TestTimelyPair(t *testing.T) {
	p := newPairWith(t, "TIMELY", "ARCH_WAIT_APPLY = 0", nil)
	p.open()
	p.commit(p.a, 1)
	if err := p.end(p.b, stopAbort); err != nil {
		t.Fatal(err)
	}
	lsn := p.publish(p.a, 2)
	p.until("the primary suspends", func() bool { return p.a.eng.Status() == base.StatusSuspend })
	if a := p.a.ship.States()[0]; a.State != base.ArchInvalid || !a.SendFailed {
		t.Fatalf("%+v", a)
	}
	if p.a.eng.Hardened() >= lsn || p.value(p.a) != 1 || p.a.eng.LogInfo().FileLSN != lsn {
		t.Fatalf("hardened %d, commit %d, log %d, readers see %d", p.a.eng.Hardened(), lsn, p.a.eng.LogInfo().FileLSN, p.value(p.a))
	}
	open := proto.InstanceCommand{Cmd: proto.CmdOpen, Force: true}
	if err := p.a.execute(t.Context(), open); err == nil || p.a.eng.Hardened() >= lsn {
		t.Fatalf("opened without a decision: %v", err)
	}
	p.order(p.a, proto.InstanceCommand{Cmd: proto.CmdSetArch, Inst: "B", State: base.ArchInvalid})
	p.order(p.a, open)
	if p.value(p.a) != 2 || !p.a.alone.Load() {
		t.Fatalf("readers see %d, alone %v", p.value(p.a), p.a.alone.Load())
	}
	p.b = p.start("B")
	p.order(p.b, open)
	p.until("the links are up", func() bool { return p.linked(p.a) && p.linked(p.b) })
	send := proto.InstanceCommand{Cmd: proto.CmdArchSend, Inst: "B"}
	p.order(p.a, send)
	p.order(p.a, proto.InstanceCommand{Cmd: proto.CmdSuspend})
	p.order(p.a, send)
	p.order(p.a, proto.InstanceCommand{Cmd: proto.CmdSetArch, Inst: "B", State: base.ArchValid})
	p.order(p.a, open)
	if p.a.alone.Load() {
		t.Fatal("still alone")
	}
	p.commit(p.a, 3)
	p.until("the standby shows it", func() bool { return p.value(p.b) == 3 })
}

// TestConsistencyCheck: a standby with DW_CONSISTENCY_CHECK = 1 serves reads only
// while its primary's link is up and its archive is Valid, V$ views always.
func TestConsistencyCheck(t *testing.T) {
	p := newPairWith(t, "REALTIME", "", map[string]string{"B": "DW_CONSISTENCY_CHECK = 1\n"})
	p.open()
	if err := session.InitSchema(t.Context(), session.FromEngine(p.a.eng), "SYSDBA", "SYSDBA"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.client("A", "SYSDBA", "SYSDBA").Exec(t.Context(), "CREATE TABLE t(a INT)"); err != nil {
		t.Fatal(err)
	}
	p.until("the standby has the table", func() bool { return p.b.eng.Hardened() == p.a.eng.Hardened() })
	c := p.client("B", "SYSDBA", "SYSDBA")
	read := func() error { _, err := c.Exec(t.Context(), "SELECT * FROM t"); return err }
	views := func() error { _, err := c.Exec(t.Context(), "SELECT * FROM V$INSTANCE"); return err }
	if err := errors.Join(read(), views()); err != nil {
		t.Fatal(err)
	}
	refused := func(why string) {
		t.Helper()
		p.until("reads are refused: "+why, func() bool {
			err := read()
			return sqlstate(err) == "57P03" && strings.Contains(err.Error(), why)
		})
		if err := views(); err != nil {
			t.Fatal(err)
		}
	}
	p.order(p.a, proto.InstanceCommand{Cmd: proto.CmdSetArch, Inst: "B", State: base.ArchInvalid, Told: true})
	refused("no primary says that the archive")
	p.order(p.a, proto.InstanceCommand{Cmd: proto.CmdSuspend})
	p.order(p.a, proto.InstanceCommand{Cmd: proto.CmdArchSend, Inst: "B"})
	p.order(p.a, proto.InstanceCommand{Cmd: proto.CmdSetArch, Inst: "B", State: base.ArchValid})
	p.order(p.a, proto.InstanceCommand{Cmd: proto.CmdOpen})
	p.until("reads are served again", func() bool { return read() == nil })
	if err := p.end(p.a, stopAbort); err != nil {
		t.Fatal(err)
	}
	refused("the link from the primary A is down")
	p.order(p.b, proto.InstanceCommand{Cmd: proto.CmdApplyKeep})
	p.order(p.b, proto.InstanceCommand{Cmd: proto.CmdMount})
	p.order(p.b, proto.InstanceCommand{Cmd: proto.CmdSetMode, Mode: base.ModePrimary})
	p.order(p.b, proto.InstanceCommand{Cmd: proto.CmdSetArch, State: base.ArchInvalid})
	p.order(p.b, proto.InstanceCommand{Cmd: proto.CmdOpen})
	c = p.client("B", "SYSDBA", "SYSDBA") // as primary it serves
	if err := read(); err != nil {
		t.Fatal(err)
	}
}

// TestMaxSvrWaitTime: an instance that no watcher has ever connected to ends
// after DW_MAX_SVR_WAIT_TIME; one whose watcher has come and gone does not.
func TestMaxSvrWaitTime(t *testing.T) {
	p := newPairWith(t, "REALTIME", "", map[string]string{"A": "DW_MAX_SVR_WAIT_TIME = 1\n", "B": "DW_MAX_SVR_WAIT_TIME = 1\n"})
	p.b.dw.heard() // as by any message of a watcher
	select {
	case <-p.a.stopCh:
	case <-time.After(20 * time.Second):
		t.Fatal("A goes on without a watcher")
	}
	if err := p.a.end(); !errors.Is(err, ErrHalted) || !strings.Contains(fmt.Sprint(err), "DW_MAX_SVR_WAIT_TIME") {
		t.Fatalf("A ended so: %v", err)
	}
	p.ended[p.a] = true
	p.b.awaitWatcher(time.Millisecond)
	select {
	case <-p.b.stopCh:
		t.Fatal("B has had a watcher and ends")
	default:
	}
}
