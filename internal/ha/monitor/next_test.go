package monitor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
)

// TestTipNamesTheNextStep: for each kind of trouble tip says what to type, and
// whether the watchers mend it or a person has to.
func TestTipNamesTheNextStep(t *testing.T) {
	g := newFakes(t, "A", "B")
	m := g.open(t, nil)
	ready(t, m)
	tells := func(what string, code base.Code, want ...string) {
		t.Helper()
		until(t, what, func() bool {
			r := m.Tip()
			s := strings.Join(r.Lines, "\n")
			for _, w := range want {
				if !strings.Contains(s, "  next: "+w) {
					return false
				}
			}
			return r.Code == code && strings.Count(s, "next:") == len(want)
		})
	}
	const arbiter = "start the confirm monitor: dmmonitor dmmonitor.ini -service (MON_DW_CONFIRM = 1)"
	tells("no confirm monitor", CodeTipAbnormal, arbiter)
	if l, err := m.Explain("", ""); err != nil || len(l) != 1 || l[0].OK || !strings.Contains(l[0].Conds.Why(), "a confirm monitor is connected") {
		t.Fatalf("explain %+v, %v", l, err)
	}

	g.change("A", func(s *proto.WatcherStatus) {
		s.State, s.Inst.Status, s.Inst.Archives[0].SendFailed = proto.DWConfirm, base.StatusSuspend, true
	})
	tells("suspended, and nobody gives leave", CodeTipDecide, arbiter, "explain GRP1.A tells what it waits for")
	if l, err := m.Explain("", "A"); err != nil || l[0].OK || !strings.Contains(l[0].Conds.Why(), "a confirm monitor is connected") {
		t.Fatalf("explain %+v, %v", l, err)
	}
	g.change("A", func(s *proto.WatcherStatus) { s.Config.FailoverForce = true })
	tells("it goes on by force", CodeTipHandling, arbiter, "explain GRP1.A tells what it waits for")
	g.change("A", func(s *proto.WatcherStatus) { s.Remotes[0].DWLink = false })
	tells("it does not go on by force, the standby's watcher does not answer it", CodeTipDecide, arbiter, "explain GRP1.A tells what it waits for")
	g.change("A", func(s *proto.WatcherStatus) { s.Config.FailoverForce, s.Remotes[0].DWLink = false, true })

	g.change("B", func(s *proto.WatcherStatus) { s.Monitors = []proto.MonitorInfo{{Confirm: true}} })
	tells("a confirm monitor has come", CodeTipHandling, "explain GRP1.A tells what it waits for")
	g.change("A", func(s *proto.WatcherStatus) {
		s.State, s.Inst.Archives[0].SendFailed, s.Inst.SuspendReason = proto.DWOpen, false, "disk is full: write archive file x"
	})
	tells("its disk is full", CodeTipDecide, "free space on the disk of A; it opens by itself within seconds")
	if l, err := m.Explain("", ""); err != nil || len(l) != 1 || l[0].Lines[0] != "suspended: disk is full: write archive file x" ||
		l[0].What != "it opens by itself" || !strings.HasPrefix(l[0].Conds.Why(), "its disk has room: disk is full: write archive file x: free space") {
		t.Fatalf("explain %+v, %v", l, err)
	}
	g.change("A", func(s *proto.WatcherStatus) { s.Inst.Status, s.Inst.SuspendReason = base.StatusOpen, "" })
	tells("normal", 0)

	g.change("B", func(s *proto.WatcherStatus) {
		s.Inst.Status, s.Inst.SuspendReason = base.StatusSuspend, "disk is full: write archive file y"
	})
	tells("a standby's disk is full", CodeTipAbnormal, "free space on the disk of B; it opens by itself within seconds")
	r, err := m.CheckOpen("", "B")
	if want := "its disk has room: disk is full: write archive file y: free space on the disk of B; it opens by itself within seconds"; err != nil || r.OK || r.Code != CodeNoOpen || r.Conds.Why() != want {
		t.Errorf("check open: %+v, %v, want %q", r, err, want)
	}
	g.change("B", func(s *proto.WatcherStatus) { s.Inst.Status, s.Inst.SuspendReason = base.StatusOpen, "" })
	tells("normal once more", 0)

	g.change("A", func(s *proto.WatcherStatus) { s.InstSilent, s.Config.InstErrorTime = 4, 15 })
	const silence = "has been silent for 4 s; at INST_ERROR_TIME (15 s) it counts as failed"
	tells("the primary's process stands still", CodeTipHandling)
	if s := strings.Join(m.Tip().Lines, "\n"); !strings.Contains(s, "A: the instance "+silence) {
		t.Errorf("tip: %s", s)
	}
	if r, err := m.CheckOpen("", "A"); err != nil || r.OK || r.Conds.Why() != "the instance answers its watcher: it "+silence {
		t.Errorf("check open: %+v, %v", r, err)
	}
	if l, err := m.Explain("", ""); err != nil || len(l) != 1 || l[0].Inst != "A" || l[0].OK {
		t.Errorf("explain: %+v, %v", l, err)
	}
	if d := m.Snapshot().Groups[0].Databases[0]; d.Silent != 4 {
		t.Errorf("snapshot: %+v", d)
	}
	g.change("A", func(s *proto.WatcherStatus) { s.InstSilent = 0 })
	tells("it answers", 0)

	g.change("A", func(s *proto.WatcherStatus) {
		s.Inst.Archives[0].State, s.RecoverTime = base.ArchInvalid, map[string]int{"B": 60}
	})
	tells("recovered within a minute", CodeTipAbnormal)
	g.change("A", func(s *proto.WatcherStatus) { s.RecoverTime = map[string]int{"B": detachTime} })
	tells("detached", CodeTipAbnormal, "attach database GRP1.B, if it was detached and shall be recovered")
	g.change("B", func(s *proto.WatcherStatus) { s.Inst.Status = base.StatusMount })
	tells("detached and not open yet", CodeTipAbnormal)
	g.change("B", func(s *proto.WatcherStatus) { s.Inst.Status = base.StatusOpen })
	for _, c := range []struct {
		code base.Code
		next []string
	}{
		{-10050, nil},
		{-715, []string{"rebuild B (docs/operations.md, Rebuilding a standby): the archive of A no longer has the redo that it lacks"}},
		{-718, []string{"rebuild B (docs/operations.md, Rebuilding a standby): the archive of A no longer has the redo that it lacks"}},
	} {
		g.change("A", func(s *proto.WatcherStatus) {
			s.RecoverTime, s.Recovered = map[string]int{"B": 1800}, map[string]proto.Recovered{"B": {Code: c.code}}
		})
		tells("its recovery failed", CodeTipAbnormal, c.next...)
		until(t, fmt.Sprint("code ", c.code), func() bool {
			return strings.Contains(strings.Join(m.Tip().Lines, "\n"), fmt.Sprintf("  B: its last recovery failed with code %d\n", c.code))
		})
	}
	g.change("A", func(s *proto.WatcherStatus) { s.Recovered = nil })
	g.change("A", func(s *proto.WatcherStatus) { s.Inst.Archives[0].State, s.RecoverTime = base.ArchValid, nil })
	g.change("B", func(s *proto.WatcherStatus) { s.Inst.Status = base.StatusOpen })
	tells("normal again", 0)

	g.change("B", func(s *proto.WatcherStatus) { s.InstOK = false })
	tells("not restarted by its watcher", CodeTipAbnormal, "startup database GRP1.B, or start its dmserver with mount on its machine")
	g.change("B", func(s *proto.WatcherStatus) { s.Config.AutoRestart, s.Config.StartupCmd = true, "dmserver" })
	tells("restarted by its watcher", CodeTipAbnormal, "when B does not come back: log/B_start.log in its SYSTEM_PATH ends with the reason")
	g.change("B", func(s *proto.WatcherStatus) { s.State = proto.DWShutdown })
	tells("not guarded", CodeTipAbnormal, "startup dmwatcher database GRP1.B")
}

// TestTipOfHalfANetwork: while a standby's watcher hears the primary's, and only this
// monitor does not, tip does not name takeover force, and that is refused.
func TestTipOfHalfANetwork(t *testing.T) {
	g := newFakes(t, "A", "B")
	g.change("B", func(s *proto.WatcherStatus) { s.Remotes[0].InstOK = true })
	dead := g.all["A"].ln.Addr().String()
	m := g.open(t, func(c *Config) {
		c.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			if addr == dead {
				return nil, errors.New("no route")
			}
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}
	})
	until(t, "B is heard", func() bool { return m.Login(t.Context(), "SYSDBA", "x") == nil })
	next := func(want string) {
		t.Helper()
		until(t, want, func() bool {
			s := strings.Join(m.Tip().Lines, "\n")
			return strings.Contains(s, "  next: "+want) && strings.Contains(s, "takeover force") != strings.HasPrefix(want, "A runs")
		})
	}
	next("A runs, as the watcher of B hears: mend the network of this machine, or ask a monitor on another")
	if err := m.Takeover(t.Context(), "", "B", true); err == nil || !strings.Contains(err.Error(), "A runs, as the watcher of B hears, and is not heard here") {
		t.Errorf("takeover force: %v", err)
	}
	g.change("B", func(s *proto.WatcherStatus) { s.Remotes[0].InstOK = false })
	force := "only if the old primary is lost for good (while its machine runs, tip there shows it): login, then takeover force GRP1.B"
	next(force)
	if s := strings.Join(m.Tip().Lines, "\n"); strings.Contains(s, "look again after") {
		t.Errorf("without a confirm monitor\n%s", s)
	}
	g.change("B", func(s *proto.WatcherStatus) { s.Monitors = []proto.MonitorInfo{{Confirm: true}} })
	next(force)
	next("look again after DW_ERROR_TIME (4 s): the confirm monitor may let a standby take over")
}

// TestAttachTooEarly: an instance that has not started is not said to be none that
// can be attached, only to be none yet.
func TestAttachTooEarly(t *testing.T) {
	g := newFakes(t, "A", "B")
	m := g.open(t, nil)
	login(t, m)
	if err := m.Attach(t.Context(), "", "A"); base.CodeOf(err, 0) != -8459 || strings.Contains(err.Error(), "try again") {
		t.Fatalf("a primary: %v", err)
	}
	g.change("B", func(s *proto.WatcherStatus) { s.InstOK, s.Inst.Mode = false, base.ModeNormal })
	until(t, "it has not started", func() bool {
		err := m.Attach(t.Context(), "", "B")
		return base.CodeOf(err, 0) == -8459 && strings.Contains(err.Error(), "try again when it is Open")
	})
}

// TestTipStandbyAhead: a standby with a Valid archive that was heard later than its
// primary is not split, one whose archive is Invalid may be.
func TestTipStandbyAhead(t *testing.T) {
	g := newFakes(t, "A", "B")
	g.change("B", func(s *proto.WatcherStatus) {
		s.Inst.Keep = base.Position{Seq: 10, LSN: 100}
		s.Inst.File, s.Inst.Apply = s.Inst.Keep, s.Inst.Keep
	})
	m := g.open(t, nil)
	ready(t, m)
	tip := func() string { return strings.Join(m.Tip().Lines, "\n") }
	if s := tip(); strings.Contains(s, "redo that A is without") || strings.Contains(s, "cannot rejoin A") {
		t.Fatal(s)
	}
	g.change("A", func(s *proto.WatcherStatus) { s.Inst.Archives[0].State = base.ArchInvalid })
	until(t, "its archive is Invalid", func() bool {
		return strings.Contains(tip(), "redo that A is without") || strings.Contains(tip(), "cannot rejoin A")
	})
}

// TestTipWithoutPrimary: takeover is offered where it loses nothing, force only
// where it is all that is left.
func TestTipWithoutPrimary(t *testing.T) {
	g := newFakes(t, "A", "B")
	for _, n := range []string{"A", "B"} {
		g.change(n, func(s *proto.WatcherStatus) {
			s.Config.Mode, s.Config.AutoRestart, s.Config.StartupCmd = "MANUAL", true, "dmserver"
		})
	}
	m := g.open(t, nil)
	ready(t, m)
	tip := func() string { return strings.Join(m.Tip().Lines, "\n") }
	fail(g)
	until(t, "takeover is offered", func() bool {
		return strings.Contains(tip(), "next: if the old primary does not come back: login, then takeover GRP1.B; nothing acknowledged is lost")
	})
	if s := tip(); strings.Contains(s, "takeover force") {
		t.Fatalf("%s", s)
	}
	g.change("B", func(s *proto.WatcherStatus) { s.Inst.ValidClaim = false })
	until(t, "only force is left", func() bool {
		return strings.Contains(tip(), "next: only if the old primary is lost for good (while its machine runs, tip there shows it): login, then takeover force GRP1.B; what B lacks is lost")
	})
	if s := tip(); strings.Contains(s, "nothing acknowledged is lost") || !strings.Contains(s, "next: explain GRP1 tells what each database waits for") {
		t.Fatalf("%s", s)
	}
	g.change("A", func(s *proto.WatcherStatus) { s.Inst.Mode, s.CtlStatus = base.ModeStandby, proto.CtlSplit })
	until(t, "nobody brings it back", func() bool { return m.Tip().Code == CodeTipDecide })

	// The arbiter has a standby, or all watchers are there and choose one.
	for _, n := range []string{"A", "B"} {
		g.change(n, func(s *proto.WatcherStatus) { s.Config.Mode, s.Monitors = "AUTO", []proto.MonitorInfo{{Confirm: true}} })
	}
	until(t, "a split one chooses nobody", func() bool { return m.Tip().Code == CodeTipDecide })
	g.change("A", func(s *proto.WatcherStatus) { s.CtlStatus = proto.CtlValid })
	until(t, "all of them choose one", func() bool { return m.Tip().Code == CodeTipHandling })
	g.change("A", func(s *proto.WatcherStatus) { s.State = proto.DWShutdown })
	until(t, "one does not guard", func() bool { return m.Tip().Code == CodeTipDecide })
	g.change("A", func(s *proto.WatcherStatus) {
		s.State, s.Inst.Mode, s.CtlStatus = proto.DWStartup, base.ModePrimary, proto.CtlSplit // so it is no help
	})
	g.change("B", func(s *proto.WatcherStatus) { s.Inst.ValidClaim = true })
	until(t, "the arbiter has a standby", func() bool { return m.Tip().Code == CodeTipHandling })
}

// TestCheckOpenOfTheDead: of an instance that does not run, or whose watcher is
// gone, check open says which condition that is, since when, and what to do, and
// nothing by what was true before.
func TestCheckOpenOfTheDead(t *testing.T) {
	g := newFakes(t, "A", "B")
	clk := &leap{}
	m := g.open(t, func(c *Config) { c.Clock = clk })
	ready(t, m)
	fails := func(what string, code base.Code, want ...string) {
		t.Helper()
		var r Report
		until(t, what, func() bool {
			var err error
			r, err = m.CheckOpen("", "B")
			if err != nil || r.OK != (len(want) == 0) || r.Code != code {
				return false
			}
			var bad []string
			for _, c := range r.Conds {
				if !c.OK {
					bad = append(bad, c.Text+": "+c.Why)
				}
			}
			for i, w := range want {
				if len(bad) != len(want) || !strings.Contains(bad[i], w) {
					return false
				}
			}
			return true
		})
		if code != 0 && r.Conds[len(r.Conds)-1].Text == "the instance has reached Mount" {
			t.Errorf("%s: it has not: %v", what, r.Conds)
		}
	}
	fails("it is open", 0)
	at := time.Date(2026, 11, 29, 2, 21, 29, 0, time.Local)
	g.change("B", func(s *proto.WatcherStatus) {
		s.State, s.InstOK, s.InstGone, s.InstLost, s.Config.AutoRestart, s.Config.StartupCmd = proto.DWStartup, false, true, at, true, "dmserver"
		s.Why = []string{"the instance is not running"}
	})
	fails("its watcher starts it again", CodeOpenLater, "the instance runs: its process ended at 2026-11-29 02:21:29: when B does not come back: log/B_start.log")
	g.change("B", func(s *proto.WatcherStatus) { s.Config.AutoRestart = false })
	fails("nobody starts it again", CodeNoOpen, "its process ended at 2026-11-29 02:21:29: startup database GRP1.B")
	g.change("B", func(s *proto.WatcherStatus) { s.InstGone = false })
	fails("it is silent", CodeNoOpen, "the instance runs: it does not answer since 2026-11-29 02:21:29: startup database GRP1.B")
	g.change("B", func(s *proto.WatcherStatus) { s.InstExitNorm, s.State = true, proto.DWShutdown })
	fails("it was stopped", CodeNoOpen, "its watcher is guarding: it is in SHUTDOWN: startup dmwatcher database GRP1.B", "the instance runs: it was ended normally at 2026-11-29 02:21:29")

	g.all["B"].close()
	until(t, "the link is gone", func() bool { return strings.Contains(m.linkErrors(), "refused") })
	clk.by.Add(int64(4 * time.Second)) // DW_ERROR_TIME
	fails("its watcher is gone too", CodeNoOpen, "its watcher answers: last heard ")
	r, err := m.CheckOpen("", "B")
	if why := r.Conds.Why(); err != nil || !strings.Contains(why, ": start dmwatcher of B, or mend its machine or the network (") || !strings.Contains(why, "connection refused)") {
		t.Errorf("%v, %v", why, err)
	}
	if len(r.Lines) != 1 || r.Lines[0] != "when last heard it was Standby, Open, its watcher SHUTDOWN; nothing is known since" {
		t.Errorf("%q", r.Lines)
	}

	// A monitor that began later has never heard of it.
	m2 := g.open(t, nil)
	until(t, "A is known, B is not", func() bool {
		_, err := m2.CheckOpen("", "A")
		return err == nil && strings.Contains(m2.linkErrors(), "refused")
	})
	_, err = m2.CheckOpen("", "B")
	if base.CodeOf(err, 0) != CodeInstFailed || !strings.Contains(err.Error(), `no message of a database "B" has been received, and none from the watcher at 127.0.0.1:`) ||
		!strings.Contains(err.Error(), "connection refused): start dmwatcher at 127.0.0.1:") {
		t.Errorf("%v", err)
	}
}
