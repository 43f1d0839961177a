package monitor

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/clock"
	"datawatch/internal/ha/proto"
	"datawatch/internal/vfs"
)

var switchSteps = []string{
	"A begin switchover", "B begin switchover", "A step mount", "B step apply_keep", "B step mount",
	"A step set_mode Standby", "B step set_mode Primary", "B step set_arch", "A step open", "B step open",
}

func TestSwitchover(t *testing.T) {
	g := newFakes(t, "A", "B")
	m := g.open(t, nil)
	ready(t, m)
	if err := m.Switchover(t.Context(), "", "B"); base.CodeOf(err, 0) != CodeLogin {
		t.Fatalf("without login: %v", err)
	}
	login(t, m)
	if err := m.Switchover(t.Context(), "GRP1", ""); err != nil {
		t.Fatal(err)
	}
	want := append(append([]string{"A login"}, switchSteps...), "A end failed=false", "B end failed=false")
	if got := g.journal(); !slices.Equal(got, want) {
		t.Fatalf("commands\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	until(t, "roles are swapped", func() bool { return m.Snapshot().Groups[0].Primary == "B" })
}

// Whatever step fails, and wherever the link is cut, the command says which
// step it was and ends as failed at every watcher it can reach.
func TestSwitchoverFailsAtEveryStep(t *testing.T) {
	for _, how := range []string{"fail", "cut"} {
		for i, step := range switchSteps {
			t.Run(fmt.Sprintf("%s %d %s", how, i+1, step), func(t *testing.T) {
				t.Parallel()
				g := newFakes(t, "A", "B")
				m := g.open(t, nil)
				login(t, m)
				g.mu.Lock()
				if how == "fail" {
					g.fail = step
				} else {
					g.cutAt = step
				}
				g.mu.Unlock()
				err := m.Switchover(t.Context(), "", "B")
				if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("step %d ", i+1)) || base.CodeOf(err, 0) >= -1 {
					t.Fatalf("error %v", err)
				}
				log := g.journal()
				at := slices.Index(log, step)
				for _, l := range log[at+1:] {
					if !strings.HasSuffix(l, " end failed=true") {
						t.Fatalf("after the failure: %s", l)
					}
				}
				victim, other := step[:1], map[string]string{"A": "B", "B": "A"}[step[:1]]
				if how == "fail" && !slices.Contains(log, victim+" end failed=true") {
					t.Fatalf("not ended at %s: %v", victim, log)
				}
				if i > 0 && !slices.Contains(log, other+" end failed=true") {
					t.Fatalf("not ended at %s: %v", other, log)
				}
				if err := m.Switchover(t.Context(), "", "B"); base.CodeOf(err, 0) == CodeBusy {
					t.Fatal("the monitor is still busy")
				}
			})
		}
	}
}

func TestSwitchoverChecksPositions(t *testing.T) {
	g := newFakes(t, "A", "B")
	m := g.open(t, nil)
	login(t, m)
	g.change("B", func(s *proto.WatcherStatus) { s.Inst.Apply = base.Position{Seq: 8, LSN: 80} })
	err := m.Switchover(t.Context(), "", "B")
	if err == nil || !strings.Contains(err.Error(), "B has 8:80, A has 9:90") {
		t.Fatalf("error %v", err)
	}
	if log := g.journal(); slices.Contains(log, "A step set_mode Standby") {
		t.Fatalf("went on: %v", log)
	}
}

func TestConditionsAreShownAsDecided(t *testing.T) {
	g := newFakes(t, "A", "B")
	m := g.open(t, nil)
	login(t, m)
	l, err := m.ChooseSwitchover("")
	if err != nil || len(l) != 1 || !l[0].OK {
		t.Fatalf("%+v %v", l, err)
	}
	g.change("A", func(s *proto.WatcherStatus) { s.Inst.Archives[0].State = base.ArchInvalid })
	until(t, "the archive shows", func() bool { l, _ = m.ChooseSwitchover(""); return !l[0].OK })
	err = m.Switchover(t.Context(), "", "B")
	if base.CodeOf(err, 0) != -8111 || l[0].Conds.Code() != -8111 || !strings.Contains(err.Error(), l[0].Conds.Why()) {
		t.Fatalf("error %v, shown %s", err, l[0].Conds.Why())
	}
}

func fail(g *fakes) {
	g.change("B", func(s *proto.WatcherStatus) {
		s.Inst.Links[0].Connected, s.Remotes[0].MALLink = false, false
	})
	g.change("A", func(s *proto.WatcherStatus) { s.InstOK, s.StateAtLoss, s.State = false, proto.DWOpen, proto.DWStartup })
}

func TestManualTakeover(t *testing.T) {
	g := newFakes(t, "A", "B")
	for _, n := range []string{"A", "B"} {
		g.change(n, func(s *proto.WatcherStatus) { s.Config.Mode = "MANUAL" })
	}
	m := g.open(t, nil)
	login(t, m)
	if err := m.Takeover(t.Context(), "", "B", false); base.CodeOf(err, 0) != -8399 {
		t.Fatalf("with the primary alive: %v", err)
	}
	if err := m.Takeover(t.Context(), "", "B", true); base.CodeOf(err, 0) != -8394 {
		t.Fatalf("by force with the primary alive: %v", err)
	}
	fail(g)
	until(t, "the conditions hold", func() bool { l, _ := m.ChooseTakeover("", false); return len(l) == 1 && l[0].OK })
	if err := m.Takeover(t.Context(), "", "B", false); err != nil {
		t.Fatal(err)
	}
	want := []string{"A login", "B begin takeover", "B step apply_keep", "B step mount", "B step set_mode Primary", "B step set_arch", "B step open", "B end failed=false"}
	if got := g.journal(); !slices.Equal(got, want) {
		t.Fatalf("commands %v", got)
	}
}

// settled waits until the confirm monitor trusts what it hears of B.
func settled(t *testing.T, m *Monitor) {
	until(t, "B is no longer suspect", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return !strings.Contains(m.groups[0].st.Takeover("B", true, m.clk.Now()).Why(), "last failure or interruption")
	})
}

func TestConfirmMonitorTakesOverAfterWriting(t *testing.T) {
	g := newFakes(t, "A", "B")
	mem := vfs.NewMem()
	m := g.open(t, func(c *Config) { c.Confirm, c.FS = true, mem })
	ready(t, m)
	settled(t, m)
	var onDisk string
	g.mu.Lock()
	g.onCmd = func(line string) {
		if line == "B takeover_grant" {
			f, err := mem.Open("/mon/dmmonitor_GRP1.ctl")
			if err != nil {
				onDisk = err.Error()
				return
			}
			defer f.Close()
			b := make([]byte, 4096)
			n, _ := f.ReadAt(b, 0)
			onDisk = string(b[:n])
		}
	}
	g.mu.Unlock()
	fail(g)
	until(t, "the grant arrives", func() bool { return slices.Contains(g.journal(), "B takeover_grant") })
	g.mu.Lock()
	defer g.mu.Unlock()
	if !strings.Contains(onDisk, `"candidate":"B"`) {
		t.Fatalf("on disk when the grant arrived: %s", onDisk)
	}
}

func TestNoGrantWhenTheDiskFails(t *testing.T) {
	g := newFakes(t, "A", "B")
	mem := vfs.NewMem()
	m := g.open(t, func(c *Config) { c.Confirm, c.FS = true, mem })
	ready(t, m)
	settled(t, m)
	mem.SetHook(func(op vfs.Op) error { return errors.New("disk is broken") })
	msgs, cancel := m.Subscribe()
	defer cancel()
	fail(g)
	for end := time.After(10 * time.Second); ; {
		select {
		case x := <-msgs:
			if strings.Contains(x.Text, "could not be written") {
				if slices.Contains(g.journal(), "B takeover_grant") {
					t.Fatal("granted without a record")
				}
				return
			}
		case <-end:
			t.Fatal("no complaint")
		}
	}
}

func TestConfirmRequest(t *testing.T) {
	g := newFakes(t, "A", "B")
	m := g.open(t, func(c *Config) { c.Confirm = true })
	ready(t, m)
	a := g.all["A"]
	ask := func(change func(*proto.WatcherStatus)) proto.ConfirmReply {
		g.mu.Lock()
		change(&a.st)
		b, _ := json.Marshal(proto.ConfirmRequest{Status: a.st, Failed: []string{"B"}})
		for _, w := range a.conns {
			w.Write(proto.TypeConfirmReq, 5, b)
		}
		g.mu.Unlock()
		select {
		case r := <-a.reps:
			return r
		case <-time.After(10 * time.Second):
			t.Fatal("no answer")
		}
		return proto.ConfirmReply{}
	}
	if r := ask(func(*proto.WatcherStatus) {}); r.Granted || !strings.Contains(r.Why, "Confirm") {
		t.Fatalf("open primary: %+v", r)
	}
	if r := ask(func(s *proto.WatcherStatus) { s.State, s.Inst.Status = proto.DWConfirm, base.StatusSuspend }); !r.Granted || r.Term != 1 {
		t.Fatalf("suspended primary: %+v", r)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	// The same disk again: the decision is there.
	m2 := g.open(t, func(c *Config) { c.Confirm, c.FS = true, m.cfg.FS })
	if r := m2.groups[0].st.Record(); len(r.Dropped) != 1 || r.Dropped[0].Inst != "B" {
		t.Fatalf("record %+v", r)
	}
}

func TestManualTakeoverOnConfirmMonitorIsWrittenFirst(t *testing.T) {
	g := newFakes(t, "A", "B")
	m := g.open(t, func(c *Config) { c.Confirm = true })
	login(t, m)
	g.change("B", func(s *proto.WatcherStatus) { s.CtlStatus = proto.CtlSplit }) // keeps the automatic one away
	fail(g)
	until(t, "refused for the control file", func() bool {
		err := m.Takeover(t.Context(), "", "B", false)
		return err != nil && strings.Contains(err.Error(), "control file")
	})
	if m.groups[0].st.Record().Taken != nil {
		t.Fatal("a refused takeover was written")
	}
}

func TestSecondConfirmMonitorExits(t *testing.T) {
	g := newFakes(t, "A")
	g.mu.Lock()
	g.all["A"].hello = CodeTwoConfirm
	g.mu.Unlock()
	m := g.open(t, func(c *Config) { c.Confirm = true })
	select {
	case <-m.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("did not end")
	}
	if base.CodeOf(m.Err(), 0) != CodeTwoConfirm {
		t.Fatalf("error %v", m.Err())
	}
	if err := m.WaitReady(t.Context()); base.CodeOf(err, 0) != CodeTwoConfirm {
		t.Fatalf("WaitReady %v", err)
	}
}

func TestListedSecondConfirmMonitorExits(t *testing.T) {
	g := newFakes(t, "A")
	m := g.open(t, func(c *Config) { c.Confirm = true })
	ready(t, m)
	g.change("A", func(s *proto.WatcherStatus) {
		s.Monitors = append([]proto.MonitorInfo{{ID: "other", Confirm: true}}, s.Monitors...)
	})
	select {
	case <-m.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("did not end")
	}
	if base.CodeOf(m.Err(), 0) != CodeTwoConfirm {
		t.Fatalf("error %v", m.Err())
	}
}

func TestNoWatcher(t *testing.T) {
	g := newFakes(t, "A")
	g.all["A"].close()
	m := g.open(t, nil)
	ctx, cancel := contextTimeout(t, 100*time.Millisecond)
	defer cancel()
	if err := m.WaitReady(ctx); base.CodeOf(err, 0) != CodeNoWatcher || !strings.Contains(err.Error(), ": connecting: ") {
		t.Fatalf("error %v, want %d with the reason", err, CodeNoWatcher)
	}
}

// What certainly does not run is not waited for: explain and its like answer
// within a second where one of two machines is up but its watcher is not.
func TestRefusedWatchersAreNotWaitedFor(t *testing.T) {
	g := newFakes(t, "A", "B")
	g.all["B"].close()
	m := g.open(t, nil)
	begun := time.Now()
	if err := m.WaitReady(t.Context()); err != nil { // a minute, if it is for nothing else
		t.Fatal(err)
	}
	if s := m.Snapshot().Groups[0].Databases; s[0].Heard.IsZero() || !s[1].Heard.IsZero() {
		t.Fatalf("%+v", s)
	}
	if d := time.Since(begun); d > 10*time.Second {
		t.Errorf("it took %v", d)
	}
}

func TestLogin(t *testing.T) {
	g := newFakes(t, "A", "B")
	m := g.open(t, nil)
	ready(t, m)
	if err := m.Login(t.Context(), "", ""); base.CodeOf(err, 0) != -8197 {
		t.Fatalf("empty: %v", err)
	}
	g.mu.Lock()
	g.fail = "A login"
	g.mu.Unlock()
	if err := m.Login(t.Context(), "SYSDBA", "wrong"); err == nil || m.LoggedIn() != "" {
		t.Fatalf("wrong password: %v", err)
	}
	g.mu.Lock()
	g.fail = ""
	g.mu.Unlock()
	if err := m.Login(t.Context(), "SYSDBA", "x"); err != nil || m.LoggedIn() != "SYSDBA" {
		t.Fatal(err)
	}
	m.Logout()
	if err := m.StopGroup(t.Context(), ""); base.CodeOf(err, 0) != CodeLogin {
		t.Fatalf("after logout: %v", err)
	}
}

func TestGroupCommands(t *testing.T) {
	g := newFakes(t, "A", "B")
	m := g.open(t, nil)
	login(t, m)
	for _, c := range []struct {
		name string
		run  func() error
		code base.Code
		want []string
	}{
		{"set recover time", func() error { return m.SetRecoverTime(t.Context(), "", "B", 60) }, 0, []string{"A recover_time"}},
		{"recover time out of range", func() error { return m.SetRecoverTime(t.Context(), "", "B", 2) }, CodeArgument, nil},
		{"recover time of the primary", func() error { return m.SetRecoverTime(t.Context(), "", "A", 60) }, -8459, nil},
		{"unknown parameter", func() error { return m.SetGroupPara(t.Context(), "", "X", "1") }, CodeArgument, nil},
		{"set para", func() error { return m.SetGroupPara(t.Context(), "", "dw_error_time", "15") }, 0, []string{"A set_para", "B set_para"}},
		{"stop an attached standby", func() error { return m.StopDatabase(t.Context(), "", "B") }, -8656, nil},
		{"detach", func() error { return m.Detach(t.Context(), "", "B") }, 0,
			[]string{"A recover_time", "A begin change arch", "A step set_arch", "A end failed=false"}},
		{"attach", func() error { return m.Attach(t.Context(), "", "B") }, 0, []string{"A recover_time"}},
		{"clear", func() error { return m.ClearApply(t.Context(), "", "") }, 0, []string{"B begin clear rapply stat", "B step clear_apply", "B end failed=false"}},
		{"startup guard that is on", func() error { return m.StartupWatch(t.Context(), "", "") }, CodeAlready, nil},
		{"stop group", func() error { return m.StopGroup(t.Context(), "") }, 0, []string{"A stop_dw", "B stop_dw", "A stop_inst", "B stop_inst"}},
		{"stop group again", func() error { return m.StopGroup(t.Context(), "") }, CodeAlready, nil},
		{"startup group", func() error { return m.StartupGroup(t.Context(), "") }, 0, []string{"A startup_dw", "B startup_dw", "A startup_inst", "B startup_inst"}},
		{"open database that its watcher opens", func() error { return m.OpenDatabase(t.Context(), "", "A") }, -8368, nil},
		{"open database", func() error {
			g.change("A", func(s *proto.WatcherStatus) { s.Why = []string{"no answer from the watchers of B"} })
			until(t, "its watcher does not open it", func() bool { r, err := m.CheckOpen("", "A"); return err == nil && !r.OK })
			return m.OpenDatabase(t.Context(), "", "A")
		}, 0,
			[]string{"A begin open force", "A step set_arch", "A step open", "A end failed=false"}},
		{"kill database", func() error { return m.KillDatabase(t.Context(), "", "B") }, 0, []string{"B kill_inst"}},
		{"no such database", func() error { return m.KillDatabase(t.Context(), "", "X") }, CodeArgument, nil},
		{"no such group", func() error { return m.KillGroup(t.Context(), "X") }, CodeArgument, nil},
	} {
		g.mu.Lock()
		g.log = nil
		// What the fakes have told must have arrived before the next command.
		want := map[string]uint64{}
		for n, f := range g.all {
			f.sendAll()
			want[n] = f.st.Seq
		}
		g.mu.Unlock()
		until(t, "reports arrive", func() bool {
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, p := range m.groups[0].st.View(m.clk.Now()).Peers {
				if p.Status.Seq < want[p.Inst()] {
					return false
				}
			}
			return true
		})
		err := c.run()
		if base.CodeOf(err, 0) != c.code || (err != nil) != (c.code != 0) {
			t.Fatalf("%s: %v, want code %d", c.name, err, c.code)
		}
		if got := g.journal(); !slices.Equal(got, c.want) {
			t.Fatalf("%s: commands %v, want %v", c.name, got, c.want)
		}
	}
}

func TestReconnectsAndTip(t *testing.T) {
	g := newFakes(t, "A", "B")
	m := g.open(t, nil)
	ready(t, m)
	g.change("A", func(s *proto.WatcherStatus) { s.Config.Mode = "MANUAL" })
	g.change("B", func(s *proto.WatcherStatus) { s.Config.Mode = "MANUAL" })
	until(t, "all is well", func() bool { return m.Tip().Code == 0 })
	g.mu.Lock()
	for c := range g.all["A"].conns {
		c.Close()
	}
	g.mu.Unlock()
	until(t, "connected again", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.groups[0].links[0].conn != nil
	})
	g.change("B", func(s *proto.WatcherStatus) { s.InstOK = false; s.Why = []string{"the process is gone"} })
	until(t, "tip complains", func() bool { return m.Tip().Code == CodeTipAbnormal })
	if s := strings.Join(m.Tip().Lines, "\n"); !strings.Contains(s, "the process is gone") {
		t.Fatalf("tip\n%s", s)
	}
	g.change("A", func(s *proto.WatcherStatus) { s.InstOK = false })
	until(t, "tip sees no primary", func() bool { return m.Tip().Code == CodeTipHandling })
	g.change("A", func(s *proto.WatcherStatus) { s.State = proto.DWShutdown })
	until(t, "tip leaves it to the user: no watcher can make a primary", func() bool { return m.Tip().Code == CodeTipDecide })
	r, err := m.CheckOpen("", "B")
	if err != nil || r.OK || r.Code != CodeNoOpenDW && r.Code != CodeNoOpen {
		t.Fatalf("check open %+v %v", r, err)
	}
	r, err = m.CheckRecover("", "B")
	if err != nil || r.OK || r.Code != CodeNoRecover {
		t.Fatalf("check recover %+v %v", r, err)
	}
}

// leap is a clock that can be put forward, as if the process had stood still.
type leap struct {
	clock.Real
	by atomic.Int64
}

func (l *leap) Now() time.Time { return l.Real.Now().Add(time.Duration(l.by.Load())) }

// TestOldDecisionIsNotBegun: a monitor that stood still for DW_ERROR_TIME
// between writing a manual takeover down and beginning it begins nothing: the
// old primary may have gone on meanwhile (G3).
func TestOldDecisionIsNotBegun(t *testing.T) {
	for _, force := range []bool{false, true} {
		t.Run(fmt.Sprint("force ", force), func(t *testing.T) {
			g := newFakes(t, "A", "B")
			mem, clk := vfs.NewMem(), &leap{}
			m := g.open(t, func(c *Config) { c.Confirm, c.FS, c.Clock = true, mem, clk })
			login(t, m)
			settled(t, m)
			for _, n := range []string{"A", "B"} { // so that it takes over by command only
				g.change(n, func(s *proto.WatcherStatus) { s.Config.Mode = "MANUAL" })
			}
			fail(g)
			until(t, "the conditions hold", func() bool { l, _ := m.ChooseTakeover("", force); return len(l) == 1 && l[0].OK })
			var once sync.Once
			mem.SetHook(func(vfs.Op) error {
				once.Do(func() { clk.by.Add(int64(4 * time.Second)) }) // ErrorTime
				return nil
			})
			err := m.Takeover(t.Context(), "", "B", force)
			if base.CodeOf(err, 0) != CodeNotNormal || !strings.Contains(err.Error(), "checked more than DW_ERROR_TIME") {
				t.Fatalf("error %v", err)
			}
			if log := g.journal(); slices.Contains(log, "B begin takeover") {
				t.Fatalf("begun: %v", log)
			}
			until(t, "the conditions hold again", func() bool { l, _ := m.ChooseTakeover("", true); return len(l) == 1 && l[0].OK })
			until(t, "repeated", func() bool { // the links were silent for as long, and are made anew
				err = m.Takeover(t.Context(), "", "B", true)
				return base.CodeOf(err, 0) != CodeInstFailed
			})
			if err != nil {
				t.Fatalf("repeated: %v", err)
			}
		})
	}
}
