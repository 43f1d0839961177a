package fsm_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/confirm"
	"datawatch/internal/ha/fsm"
	"datawatch/internal/ha/proto"
)

// takeover is what a monitor does by command (manual 6.6, 6.7).
func (w *world) takeover(inst string, force bool) error {
	id := fmt.Sprintf("to%d", w.reqs)
	cmds := []proto.WatcherCommand{{Cmd: proto.DWCmdBegin, Kind: proto.KindTakeover, Force: force}}
	for _, o := range []proto.InstanceCommand{{Cmd: proto.CmdApplyKeep}, {Cmd: proto.CmdMount}, {Cmd: proto.CmdSetMode, Mode: base.ModePrimary},
		{Cmd: proto.CmdSetArch, State: base.ArchInvalid}, {Cmd: proto.CmdOpen}} {
		cmds = append(cmds, proto.WatcherCommand{Cmd: proto.DWCmdStep, Order: &o})
	}
	for _, c := range append(cmds, proto.WatcherCommand{Cmd: proto.DWCmdEnd}) {
		c.ID = id
		if r, ok := w.ask(inst, c); !ok || r.Code != 0 {
			return fmt.Errorf("%s at %s: %v %s", c.Cmd, inst, ok, r.Msg)
		}
	}
	return nil
}

// TestStoppedWatcherForgetsItsOrders: the watcher of a suspended primary is
// stopped at any moment between the failed send and the reopening, with leave to
// go on or on the way to it. Its standby is made primary by force, because nobody
// answers for the old one. When the watcher goes on, it must not finish what it
// was about to do: two databases would acknowledge (G3).
func TestStoppedWatcherForgetsItsOrders(t *testing.T) {
	stopped := map[fsm.WState]int{}
	for at := range 24 {
		w := newWorld(t, uint64(at), 2, auto())
		w.startAll()
		w.settle(time.Minute)
		w.run(5 * time.Second)
		w.cut[link("d:A", "d:B")], w.cut[link("w:A", "w:B")] = true, true
		a, d := w.ws["A"], w.dbs["A"]
		for d.status != base.StatusSuspend || a.st.W == fsm.Open {
			w.run(ms(50))
		}
		w.run(time.Duration(at) * ms(50))
		if d.status == base.StatusOpen {
			break // it has gone on
		}
		a.frozen = true
		w.run(8 * time.Second)
		if d.status == base.StatusOpen {
			continue // the last order had been given
		}
		stopped[a.st.W]++
		if err := w.takeover("B", true); err != nil {
			t.Fatal(err)
		}
		w.run(time.Second)
		w.thaw("A")
		for range 100 {
			if w.run(ms(50)); d.up && d.mode == base.ModePrimary && d.status == base.StatusOpen {
				t.Fatalf("stopped after %d ms in %s: the old primary has opened", 50*at, a.st.W)
			}
		}
		w.fail()
		clear(w.cut)
		w.settle(2 * time.Minute)
		if w.primary() != "B" {
			t.Fatalf("primary is %q", w.primary())
		}
	}
	if stopped[fsm.Confirm] == 0 || stopped[fsm.Failover] < 2 {
		t.Fatalf("it was stopped in %v: not where it matters", stopped)
	}
}

// TestStoppedWatcherDoesNotKill: a healthy instance is not blamed for the
// silence of a watcher that did not listen.
func TestStoppedWatcherDoesNotKill(t *testing.T) {
	w := newWorld(t, 4, 2, auto())
	w.startAll()
	w.settle(time.Minute)
	inc := map[string]int{"A": w.dbs["A"].inc, "B": w.dbs["B"].inc}
	for _, n := range w.names {
		w.ws[n].frozen = true
		w.run(20 * time.Second)
		w.thaw(n)
		w.run(time.Second)
	}
	w.settle(time.Minute)
	for n, i := range inc {
		if w.dbs[n].inc != i {
			t.Errorf("%s was killed", n)
		}
	}
}

// dropClaim has the watcher of `from` ask that of `to` to renounce.
func (w *world) dropClaim(from, to string) {
	w.command("w:"+from, to, from, "", proto.WatcherCommand{Cmd: proto.DWCmdDropClaim}, func(proto.WatcherReply) {})
	w.run(time.Second)
}

// TestOutdatedTakeover: a takeover by command, decided while this standby could
// take over, is not begun when the primary has gone on without it since, and not
// when the monitor or this watcher stood still; force does not ask for a claim.
func TestOutdatedTakeover(t *testing.T) {
	begin := func(w *world, force bool) (proto.WatcherReply, bool) {
		return w.ask("B", proto.WatcherCommand{Cmd: proto.DWCmdBegin, Kind: proto.KindTakeover, ID: "t", Force: force})
	}
	for _, c := range []struct {
		name    string
		force   bool
		before  func(*world)
		refused string
	}{
		{name: "as decided", before: func(*world) {}},
		{name: "the claim is dropped", before: func(w *world) {
			w.dropClaim("A", "B")
		}, refused: "archive to it is Valid"},
		{name: "the claim is dropped, by force", force: true, before: func(w *world) {
			w.dropClaim("A", "B")
		}},
		{name: "the primary is back", before: func(w *world) {
			w.dbs["A"].start()
			w.run(time.Second)
		}, refused: "does not take over"},
		{name: "the watcher stood still", force: true, before: func(w *world) {
			w.ws["B"].frozen = true
			w.run(6 * time.Second)
			w.thaw("B")
		}, refused: "stood still"},
		{name: "the monitor stood still", force: true, before: func(w *world) {
			w.silent = true
			w.run(6 * time.Second)
			w.silent = false
			w.run(300 * time.Millisecond)
		}, refused: "the monitor was silent"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := auto()
			cfg.AutoRestart = false
			w := newWorld(t, 9, 2, cfg)
			w.startAll()
			w.settle(time.Minute)
			w.run(3 * time.Second)
			w.monStep(confirm.Busy{On: true}) // no decision but ours
			w.dbs["A"].crash()
			w.run(4 * time.Second)
			c.before(w)
			r, ok := begin(w, c.force)
			if !ok || (r.Code == 0) != (c.refused == "") || !strings.Contains(r.Msg, c.refused) {
				t.Fatalf("answer %v %d %q, want refused %q", ok, r.Code, r.Msg, c.refused)
			}
			if c.refused == "stood still" || c.refused == "the monitor was silent" {
				w.run(6 * time.Second)
				if r, ok := begin(w, c.force); !ok || r.Code != 0 {
					t.Fatalf("a while later: %v %d %q", ok, r.Code, r.Msg)
				}
			}
		})
	}
}

// TestArchiveInvalidByCommand: in AUTO mode a standby that cannot be told keeps
// its Valid archive; in MANUAL mode the operator decides.
func TestArchiveInvalidByCommand(t *testing.T) {
	for _, auto_ := range []bool{true, false} {
		for _, cut := range []bool{true, false} {
			cfg := auto()
			cfg.Auto = auto_
			w := newWorld(t, 3, 2, cfg)
			w.startAll()
			w.settle(time.Minute)
			w.run(3 * time.Second)
			r, ok := w.ask("A", proto.WatcherCommand{Cmd: proto.DWCmdBegin, Kind: proto.KindChangeArch, ID: "c"})
			if !ok || r.Code != 0 {
				t.Fatalf("begin: %v %s", ok, r.Msg)
			}
			w.cut[link("d:A", "d:B")] = cut
			w.dbs["A"].status = base.StatusMount // no commit finds out first
			r, ok = w.ask("A", proto.WatcherCommand{Cmd: proto.DWCmdStep, ID: "c",
				Order: &proto.InstanceCommand{Cmd: proto.CmdSetArch, Inst: "B", State: base.ArchInvalid}})
			if want := !auto_ || !cut; !ok || (r.Code == 0) != want || (w.dbs["A"].arch["B"].state == base.ArchInvalid) != want {
				t.Errorf("auto %v, cut %v: %v %d %q, archive %s", auto_, cut, ok, r.Code, r.Msg, w.dbs["A"].arch["B"].state)
			}
		}
	}
}
