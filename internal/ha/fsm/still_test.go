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

func (w *world) era(inst string) uint64 { return w.ws[inst].st.Report(0, w.now).Era }

// takeover is what a monitor does by command (manual 6.6, 6.7).
func (w *world) takeover(inst string, force bool) error {
	id := fmt.Sprintf("to%d", w.reqs)
	cmds := []proto.WatcherCommand{{Cmd: proto.DWCmdBegin, Kind: proto.KindTakeover, Force: force, Era: w.era(inst)}}
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
	begin := func(w *world, force bool, era uint64) (proto.WatcherReply, bool) {
		return w.ask("B", proto.WatcherCommand{Cmd: proto.DWCmdBegin, Kind: proto.KindTakeover, ID: "t", Force: force, Era: era})
	}
	for _, c := range []struct {
		name    string
		force   bool
		fresh   bool // decided just now
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
		{name: "the watcher stood still", force: true, fresh: true, before: func(w *world) {
			w.ws["B"].frozen = true
			w.run(6 * time.Second)
			w.thaw("B")
		}, refused: "stood still"},
		{name: "decided long ago", force: true, before: func(w *world) { w.run(6 * time.Second) }, refused: "older than DW_ERROR_TIME"},
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
			era := w.era("B")
			c.before(w)
			if c.fresh {
				era = w.era("B")
			}
			r, ok := begin(w, c.force, era)
			if !ok || (r.Code == 0) != (c.refused == "") || !strings.Contains(r.Msg, c.refused) {
				t.Fatalf("answer %v %d %q, want refused %q", ok, r.Code, r.Msg, c.refused)
			}
			if c.force && c.refused != "" {
				w.run(6 * time.Second)
				if r, ok := begin(w, c.force, w.era("B")); !ok || r.Code != 0 {
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

// TestOldGrant: a decision of the confirm monitor is obeyed in the era of the
// report it was made by and the next one; a later report shows the monitor that it
// cannot be obeyed any more (G3).
func TestOldGrant(t *testing.T) {
	for _, c := range []struct {
		age   time.Duration
		obeys bool
	}{{0, true}, {2 * time.Second, true}, {6 * time.Second, false}} {
		cfg := auto()
		cfg.AutoRestart = false
		w := newWorld(t, 9, 2, cfg)
		w.startAll()
		w.settle(time.Minute)
		w.run(3 * time.Second)
		w.monStep(confirm.Busy{On: true}) // no decision but ours
		w.dbs["A"].crash()
		w.run(4 * time.Second)
		g := proto.Grant{Term: 1, OldPrimary: "A", Lineage: w.dbs["B"].lin.Last().ID, Era: w.era("B")}
		w.run(c.age)
		late := w.era("B") >= g.Era+2
		r, ok := w.ask("B", proto.WatcherCommand{Cmd: proto.DWCmdTakeover, ID: "g", Grant: &g})
		if !ok || (r.Code == 0) != c.obeys || late == c.obeys {
			t.Errorf("%s old: %v %d %q, reports show that it cannot be obeyed: %v", c.age, ok, r.Code, r.Msg, late)
		}
	}
}

// TestTakeoverSoonAfterReturn: a standby that has just been cut off from the
// confirm monitor, or has just become Valid again, takes over as soon as any.
func TestTakeoverSoonAfterReturn(t *testing.T) {
	for _, how := range []string{"its watcher was cut off from the monitor", "it was restarted and recovered"} {
		t.Run(how, func(t *testing.T) {
			cfg := auto()
			w := newWorld(t, 11, 2, cfg)
			w.startAll()
			w.settle(time.Minute)
			w.run(3 * time.Second)
			switch how {
			case "it was restarted and recovered":
				w.dbs["B"].crash()
				for w.run(ms(50)); w.dbs["A"].arch["B"].state == base.ArchValid; w.run(ms(50)) {
				}
				w.settle(time.Minute)
			default:
				w.cut[link("w:B", "m:")] = true
				w.run(time.Second)
				clear(w.cut)
				w.run(ms(200))
			}
			w.run(ms(300)) // less than the second it used to take
			w.ws["A"].st.Cfg.AutoRestart = false
			w.dbs["A"].crash()
			w.run(3 * time.Second)
			if w.primary() != "B" {
				t.Fatalf("B did not take over: %v", w.mon.Takeover("B", true, w.now).Why())
			}
			w.durable()
		})
	}
}
