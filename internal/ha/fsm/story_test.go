package fsm_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/fsm"
	"datawatch/internal/ha/proto"
)

// ask performs one watcher command and waits for its answer.
func (w *world) ask(inst string, c proto.WatcherCommand) (proto.WatcherReply, bool) {
	var got *proto.WatcherReply
	c.Mon = "mon"
	w.command("m:", inst, "", "mon", c, func(r proto.WatcherReply) { got = &r })
	for range 200 {
		if got != nil {
			return *got, true
		}
		w.run(ms(50))
	}
	return proto.WatcherReply{}, false
}

// switchover is what a monitor does (manual 6.5), up to and without step `until`.
func (w *world) switchover(a, b string, until int) error {
	step := func(n string, o proto.InstanceCommand) func() (string, proto.WatcherCommand) {
		return func() (string, proto.WatcherCommand) { return n, proto.WatcherCommand{Cmd: proto.DWCmdStep, Order: &o} }
	}
	ctl := func(n, cmd string) func() (string, proto.WatcherCommand) {
		return func() (string, proto.WatcherCommand) {
			return n, proto.WatcherCommand{Cmd: cmd, Kind: proto.KindSwitchover}
		}
	}
	steps := []func() (string, proto.WatcherCommand){
		ctl(a, proto.DWCmdBegin), ctl(b, proto.DWCmdBegin),
		step(a, proto.InstanceCommand{Cmd: proto.CmdMount}), step(b, proto.InstanceCommand{Cmd: proto.CmdApplyKeep}),
		step(b, proto.InstanceCommand{Cmd: proto.CmdMount}), step(a, proto.InstanceCommand{Cmd: proto.CmdSetMode, Mode: base.ModeStandby}),
		step(b, proto.InstanceCommand{Cmd: proto.CmdSetMode, Mode: base.ModePrimary}),
		step(b, proto.InstanceCommand{Cmd: proto.CmdSetArch, State: base.ArchInvalid}),
		step(a, proto.InstanceCommand{Cmd: proto.CmdOpen}), step(b, proto.InstanceCommand{Cmd: proto.CmdOpen}),
		ctl(a, proto.DWCmdEnd), ctl(b, proto.DWCmdEnd),
	}
	id := fmt.Sprintf("sw%d", w.reqs)
	for i, s := range steps {
		if i == until {
			return nil
		}
		n, c := s()
		c.ID = id
		r, ok := w.ask(n, c)
		if ok && r.Code == 0 && c.Order != nil && c.Order.Cmd == proto.CmdApplyKeep && len(w.dbs[b].log) < len(w.dbs[a].log) {
			ok = false // nothing the old primary has may be missing on the new one
		}
		if !ok || r.Code != 0 {
			for _, x := range []string{a, b} {
				w.ask(x, proto.WatcherCommand{Cmd: proto.DWCmdEnd, ID: id, Failed: true})
			}
			return fmt.Errorf("step %d at %s: %v %s", i, n, ok, r.Msg)
		}
	}
	return nil
}

const switchSteps = 12

func TestSwitchover(t *testing.T) {
	w := newWorld(t, 1, 3, auto())
	w.startAll()
	w.settle(time.Minute)
	for _, to := range []string{"B", "C", "A"} {
		if err := w.switchover(w.primary(), to, switchSteps); err != nil {
			t.Fatal(err)
		}
		w.settle(time.Minute)
		if w.primary() != to {
			t.Fatalf("primary is %s instead of %s", w.primary(), to)
		}
		w.durable()
	}
}

// TestSwitchoverCutOff: the monitor ends, or falls silent, before every step,
// and perhaps a database dies with it; the group becomes healthy by itself.
func TestSwitchoverCutOff(t *testing.T) {
	for _, how := range []string{"monitor dies", "monitor lives but gives up", "primary dies too", "standby dies too", "watchers restart too"} {
		for until := 1; until < switchSteps; until++ {
			t.Run(fmt.Sprintf("%s before step %d", how, until), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, uint64(until), 2, auto())
				w.startAll()
				w.settle(time.Minute)
				if err := w.switchover("A", "B", until); err != nil {
					t.Fatal(err)
				}
				w.monUp = how == "monitor lives but gives up"
				switch how {
				case "primary dies too":
					w.dbs["A"].crash()
				case "standby dies too":
					w.dbs["B"].crash()
				case "watchers restart too":
					w.ws["A"].up, w.ws["B"].up = false, false
				}
				w.links()
				w.startWatcher("A")
				w.startWatcher("B")
				w.run(3 * time.Second)
				w.startMonitor()
				w.settle(5 * time.Minute)
				w.durable()
			})
		}
	}
}

func TestAutomaticTakeover(t *testing.T) {
	cfg := auto()
	cfg.AutoRestart = false
	w := newWorld(t, 3, 2, cfg)
	w.startAll()
	w.settle(time.Minute)
	w.run(5 * time.Second)
	w.dbs["A"].crash()
	w.run(3 * time.Second)
	if w.primary() != "B" {
		t.Fatalf("B did not take over within 3 s: %s", strings.Join(w.ws["B"].st.Why, "; "))
	}
	w.durable()
	w.dbs["A"].start()
	w.settle(time.Minute)
	if w.primary() != "B" {
		t.Fatal("the old primary took the group back")
	}
}

// TestSilentHost: the connections of a host without power stay up; what counts
// is that nothing is heard.
func TestSilentHost(t *testing.T) {
	cfg := auto()
	cfg.Name, cfg.Remotes = "B", []string{"A"}
	now := time.Unix(1e9, 0)
	s := fsm.New(cfg, false, "", now)
	do := func(ev fsm.Event) proto.RemoteView {
		s, _ = fsm.Step(s, ev, now)
		return s.Report(1, now).Remotes[0]
	}
	if v := do(fsm.Tick{}); v.DWLink || v.InstOK {
		t.Errorf("before any connection: %+v", v)
	}
	if v := do(fsm.RemoteUp{Inst: "A"}); !v.DWLink || v.InstOK {
		t.Errorf("connected, nothing heard yet: %+v", v)
	}
	now = now.Add(cfg.ErrorTime - time.Second)
	if v := do(fsm.RemoteStatus{Inst: "A", Status: proto.WatcherStatus{InstOK: true}}); !v.DWLink || !v.InstOK {
		t.Errorf("heard: %+v", v)
	}
	now = now.Add(cfg.ErrorTime - 1)
	if v := do(fsm.Tick{}); !v.DWLink || !v.InstOK {
		t.Errorf("heard within DW_ERROR_TIME: %+v", v)
	}
	now = now.Add(1)
	if v := do(fsm.Tick{}); v.DWLink || v.InstOK {
		t.Errorf("silent for DW_ERROR_TIME: %+v", v)
	}
}

// TestIsolatedPrimary: cut off from everybody the old primary acknowledges
// nothing, is shut down when it is back, and rejoins without a hand.
func TestIsolatedPrimary(t *testing.T) {
	for n := 2; n <= 4; n++ {
		w := newWorld(t, uint64(n), n, auto())
		w.startAll()
		w.settle(time.Minute)
		w.run(5 * time.Second)
		w.fault(12) // isolates A
		w.run(time.Minute)
		w.fail()
		if p := w.dbs["A"]; p.status == base.StatusOpen {
			t.Fatalf("isolated primary is %s", p.status)
		}
		clear(w.cut)
		w.settle(2 * time.Minute)
		w.durable()
		if w.primary() == "A" {
			t.Fatal("nobody took over")
		}
	}
}

func TestStartOrders(t *testing.T) {
	for _, mode := range []string{"MANUAL", "AUTO"} {
		for order := range 24 {
			cfg := auto()
			cfg.Auto = mode == "AUTO"
			w := newWorld(t, uint64(order), 2, cfg)
			parts := []func(){func() { w.dbs["A"].start() }, func() { w.dbs["B"].start() }, func() { w.startWatcher("A") }, func() { w.startWatcher("B") }}
			for i, k := 0, order; i < 4; i++ {
				j := k % (4 - i)
				k /= 4 - i
				parts[j]()
				parts = append(parts[:j], parts[j+1:]...)
				w.run(4 * time.Second)
			}
			w.settle(time.Minute)
			if w.primary() != "A" {
				t.Fatalf("order %d: primary is %q", order, w.primary())
			}
		}
	}
}

func TestLocalOpensAtOnce(t *testing.T) {
	w := newWorld(t, 1, 1, fsm.Config{Group: "L", ErrorTime: 5 * time.Second, InstErrorTime: 5 * time.Second, AutoRestart: true, StartupCmd: "x"})
	w.startAll()
	w.settle(5 * time.Second)
	w.dbs["A"].crash()
	w.settle(10 * time.Second)
}

func TestStandbyFailureModes(t *testing.T) {
	for _, tc := range []struct {
		name            string
		auto, mon, cut  bool // the watchers are cut off from each other, too
		force           bool
		after           time.Duration
		want            base.Status
		state           fsm.WState
		thenHealed      time.Duration
		healthyWithoutM bool
	}{
		{"manual: at once", false, false, true, true, 2 * time.Second, base.StatusOpen, fsm.Open, 0, true},
		{"auto: standby dead, its watcher normal", true, false, false, false, 2 * time.Second, base.StatusOpen, fsm.Open, 0, true},
		{"auto: network, confirm monitor grants", true, true, true, true, 8 * time.Second, base.StatusOpen, fsm.Open, 0, true},
		{"auto: network, no monitor, stays", true, false, true, true, time.Minute, base.StatusSuspend, fsm.Confirm, time.Minute, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := auto()
			cfg.Auto, cfg.FailoverForce, cfg.AutoRestart = tc.auto, tc.force, tc.cut
			w := newWorld(t, 5, 2, cfg)
			for _, n := range w.names {
				w.dbs[n].start()
				w.startWatcher(n)
			}
			if tc.mon {
				w.startMonitor()
			}
			w.settle(time.Minute)
			w.run(2 * time.Second)
			if tc.cut {
				w.cut[link("d:A", "d:B")], w.cut[link("w:A", "w:B")] = true, true
			} else {
				w.dbs["B"].crash()
			}
			w.run(tc.after)
			w.fail()
			if a := w.dbs["A"]; a.status != tc.want || w.ws["A"].st.W != tc.state {
				t.Fatalf("primary is %s, its watcher %s: %v", a.status, w.ws["A"].st.W, w.ws["A"].st.Why)
			}
			clear(w.cut)
			w.dbs["B"].start()
			w.settle(2 * time.Minute)
			w.durable()
		})
	}
}

// caught runs f with a tester that records failure.
type recorder struct{ failed string }

func (r *recorder) Helper()    {}
func (r *recorder) Log(...any) {}
func (r *recorder) Fatalf(f string, a ...any) {
	r.failed = fmt.Sprintf(f, a...)
	panic(r)
}

func caught(f func(tester)) (why string) {
	r := &recorder{}
	defer func() {
		if v := recover(); v != nil && v != any(r) {
			panic(v)
		}
		why = r.failed
	}()
	f(r)
	return
}

// TestMutationsAreCaught: the invariants can fail.
func TestMutationsAreCaught(t *testing.T) {
	noop := func(match func(proto.InstanceCommand) bool) func(fsm.Action) fsm.Action {
		return func(a fsm.Action) fsm.Action {
			if s, ok := a.(fsm.SendInst); ok && match(s.Cmd) {
				s.Cmd = proto.InstanceCommand{Cmd: proto.CmdNoop}
				return s
			}
			return a
		}
	}
	isolate := func(w *world) {
		w.fault(12)
		w.run(time.Minute)
		w.fail()
		clear(w.cut)
		w.settle(5 * time.Minute)
		w.durable()
	}
	for name, m := range map[string]struct {
		mutate func(fsm.Action) fsm.Action
		forge  bool
		do     func(*world)
	}{
		"failover without leave":             {nil, true, isolate},
		"kept package forgotten at takeover": {noop(func(c proto.InstanceCommand) bool { return c.Cmd == proto.CmdApplyKeep }), false, isolate},
		"archive stays Valid at failover": {noop(func(c proto.InstanceCommand) bool {
			return c.Cmd == proto.CmdSetArch && c.State == base.ArchInvalid
		}), false, func(w *world) {
			w.cut[link("d:A", "d:B")], w.cut[link("w:A", "w:B")] = true, true
			w.run(10 * time.Second)
			if w.dbs["A"].status != base.StatusOpen {
				w.t.Fatalf("primary did not go on")
			}
		}},
		"kept package stays at recovery": {noop(func(c proto.InstanceCommand) bool { return c.Cmd == proto.CmdDropKeep }), false, func(w *world) {
			w.monUp = false
			w.dbs["A"].dieNext = true
			w.run(time.Second)
			w.settle(2 * time.Minute)
		}},
	} {
		why := caught(func(r tester) {
			cfg := auto()
			w := newWorld(r, 7, 2, cfg)
			if m.forge {
				w.cfg.Auto, w.forge = false, true
			}
			w.startAll()
			w.settle(time.Minute)
			w.run(5 * time.Second)
			w.mutate = m.mutate
			m.do(w)
		})
		if why == "" {
			t.Errorf("%s: not noticed", name)
		}
	}
}

// TestSuccessorDiesToo: the primary dies, and the standby that takes over dies
// at every moment of that, most of all after it has applied the package that the
// primary is without and before it has opened. Both are restarted: nothing is
// lost (G1), and the group becomes healthy without a hand.
func TestSuccessorDiesToo(t *testing.T) {
	beyond, opened := 0, 0
	for n := 2; n <= 4; n++ {
		for at := range 16 {
			cfg := auto()
			cfg.Reconnect = false
			w := newWorld(t, uint64(2*n+at), n, cfg)
			w.startAll()
			w.settle(time.Minute)
			w.run(3 * time.Second)
			w.dbs["A"].dieNext = true // it has sent what it does not have
			w.run(time.Duration(300+50*at) * time.Millisecond)
			succ := "B"
			for _, x := range w.names[1:] {
				if w.ws[x].st.W == fsm.Takeover || w.dbs[x].mode == base.ModePrimary {
					succ = x
				}
			}
			s, a := w.dbs[succ], w.dbs["A"]
			if len(s.log) > len(a.log) && s.mode == base.ModeStandby {
				beyond++
			}
			if s.status == base.StatusOpen && s.mode == base.ModePrimary {
				opened++
			}
			s.crash()
			w.links()
			w.settle(3 * time.Minute)
			w.durable()
		}
	}
	if beyond < 3 || opened < 3 {
		t.Fatalf("the successor died %d times with redo that the primary was without, %d times when it was open: too few to prove anything", beyond, opened)
	}
}

// TestOpeningWhoseRecordIsNotSent: a primary opens with a Valid archive, the
// standby is lost before it has the open record, and the primary goes on without
// it after a Failover. That was an opening all the same: the standby is recovered
// soon, not after INST_RECOVER_TIME (manual 3.1.9).
func TestOpeningWhoseRecordIsNotSent(t *testing.T) {
	cfg := auto()
	cfg.RecoverTime = 600
	w := newWorld(t, 5, 2, cfg)
	lost := 0
	w.mutate = func(a fsm.Action) fsm.Action {
		if s, ok := a.(fsm.SendInst); ok && s.Cmd.Cmd == proto.CmdOpen && strings.HasPrefix(s.Cmd.Evidence, "opening the primary") {
			w.cut[link("d:A", "d:B")] = true
			lost++
		}
		return a
	}
	w.startAll()
	for range 300 {
		if w.run(ms(100)); lost > 0 && w.dbs["A"].status == base.StatusOpen && w.dbs["A"].arch["B"].state == base.ArchInvalid {
			break
		}
	}
	if w.primary() != "A" || lost != 1 {
		t.Fatalf("primary %q, opened %d times: the story went wrong", w.primary(), lost)
	}
	w.run(2 * time.Second)
	clear(w.cut)
	w.settle(20 * time.Second)
	w.durable()
}
