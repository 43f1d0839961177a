package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"datawatch/dwmon"
	"datawatch/internal/app/dw"
)

// The variants of TestKillPrimary: other processes, several at once, frozen
// instead of dead. Each ends with the same comparison: nothing acknowledged
// lost, nothing seen vanished, one database acknowledging at a time.

// underLoad starts a system with running clients. Tests that use it wait for
// error times more than they work, so they run beside each other.
func underLoad(t *testing.T, o dw.Options) (*dw.System, *load) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real processes")
	}
	if o.Dir == "" {
		t.Parallel()
	}
	o.Fast = true
	sys := up(t, o)
	mustExec(t, sys, loadTable)
	l := newLoad(sys, 6, 2)
	l.patience, l.think = 4*time.Second, 2*time.Millisecond
	l.start(t.Context())
	t.Cleanup(l.stop)
	l.flows(t, 20*time.Second)
	return sys, l
}

// flows waits until commits are acknowledged that were sent from now on.
func (l *load) flows(t *testing.T, patience time.Duration) time.Duration {
	t.Helper()
	from := time.Now()
	first, ok := l.waitAckAfter(t.Context(), from, patience)
	if !ok {
		t.Fatalf("no commit was acknowledged within %v", patience)
	}
	return first.Sub(from)
}

func healthy(t *testing.T, sys *dw.System) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for {
		if err := sys.WaitHealthy(ctx); err != nil {
			t.Fatalf("not healthy again by itself: %v", err)
		}
		// What a process was that has just been killed, watchers say for a moment still.
		err := answers(ctx, sys)
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("not healthy again by itself: %v", err)
		}
		pause(ctx, 100*time.Millisecond)
	}
}

// answers connects to every database.
func answers(ctx context.Context, sys *dw.System) error {
	for _, d := range sys.DBs {
		c, err := sys.Connect(ctx, d.Port)
		if err != nil {
			return fmt.Errorf("%s: %w", d.Name, err)
		}
		c.Close(ctx)
	}
	return nil
}

// standbyOf returns the name of the first database that is not prim.
func standbyOf(sys *dw.System, prim string) string {
	for _, d := range sys.DBs {
		if d.Name != prim {
			return d.Name
		}
	}
	return ""
}

func kill(t *testing.T, sys *dw.System, names ...string) {
	t.Helper()
	for _, n := range names {
		if err := sys.Kill(n); err != nil {
			t.Fatalf("kill %s: %v", n, err)
		}
	}
}

// freeze stops processes with SIGSTOP and returns what lets them go on; those
// that were killed meanwhile are left alone.
func freeze(t *testing.T, sys *dw.System, names ...string) (thaw func()) {
	t.Helper()
	pids := map[string]int{}
	for _, n := range names {
		pid := sys.PID(n)
		if pid == 0 {
			t.Fatalf("%s does not run", n)
		}
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatalf("SIGSTOP %s: %v", n, err)
		}
		pids[n] = pid
	}
	done := false
	thaw = func() {
		if done {
			return
		}
		done = true
		for n, pid := range pids {
			if sys.PID(n) == pid {
				_ = syscall.Kill(pid, syscall.SIGCONT)
			}
		}
	}
	t.Cleanup(thaw)
	return thaw
}

// dwCommand runs the program dw.
func dwCommand(t *testing.T, sys *dw.System, args ...string) string {
	t.Helper()
	return run(t, 0, filepath.Join(programs(t), "dw"), slices.Concat(args[:1], []string{"-dir", sys.Dir}, args[1:])...)
}

// monitor is a plain monitor with a DBA logged in.
func monitor(t *testing.T, sys *dw.System) *dwmon.Monitor {
	t.Helper()
	g := dwmon.Group{Name: sys.Group, OGUID: sys.OGUID}
	for _, d := range sys.DBs {
		g.Addrs = append(g.Addrs, d.ConsoleDW())
	}
	m, err := dwmon.Open(t.Context(), dwmon.Config{Groups: []dwmon.Group{g}, TLS: sys.MonitorTLS()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := m.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	if err := m.Login(ctx, "SYSDBA", sys.Password()); err != nil {
		t.Fatal(err)
	}
	return m
}

// waitFor polls until ok says true.
func waitFor(t *testing.T, what string, patience time.Duration, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for !ok() {
		if ctx.Err() != nil {
			t.Fatalf("waited %v in vain: %s", patience, what)
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// logged waits until a process has logged a text since from.
func logged(t *testing.T, sys *dw.System, from time.Time, text string, patience time.Duration) {
	t.Helper()
	waitFor(t, fmt.Sprintf("%q in the logs", text), patience, func() bool {
		return strings.Contains(timeline(sys, from, time.Now().Add(time.Second)), text)
	})
}

func TestKillBothDatabases(t *testing.T) {
	sys, l := underLoad(t, dw.Options{Standbys: 1, Mode: "auto", Monitors: 1})
	n := envInt("DW_ROUNDS", 2)
	for range n {
		kill(t, sys, sys.DBs[0].Name, sys.DBs[1].Name)
		t.Logf("both killed; the next commit was acknowledged after %v", l.flows(t, 60*time.Second))
		healthy(t, sys)
	}
	l.stop()
	l.check(t, n)
}

func TestKillStandby(t *testing.T) {
	sys, l := underLoad(t, dw.Options{Standbys: 1, Mode: "auto", Monitors: 1})
	prim := primary(t, sys)
	for range envInt("DW_ROUNDS", 2) {
		kill(t, sys, standbyOf(sys, prim))
		d := l.flows(t, 30*time.Second)
		t.Logf("standby killed; the next commit was acknowledged after %v", d)
		if d > 5*time.Second {
			t.Errorf("the primary stood still for %v after its standby was killed", d)
		}
		healthy(t, sys)
	}
	if now := primary(t, sys); now != prim {
		t.Errorf("%s became primary although only the standby was killed", now)
	}
	l.stop()
	l.check(t, 0)
}

// TestHostLoss: a primary and its watcher at once. The standby takes over when
// nothing was heard for DW_ERROR_TIME, 3 s here.
func TestHostLoss(t *testing.T) {
	sys, l := underLoad(t, dw.Options{Standbys: 1, Mode: "auto", Monitors: 1})
	waitTakeoverReady(t)
	prim := primary(t, sys)
	at := time.Now()
	kill(t, sys, "W_"+prim, prim)
	d := l.flows(t, 30*time.Second)
	t.Logf("host lost; the next commit was acknowledged after %v", d)
	if d < 2*time.Second || d > 8*time.Second {
		t.Errorf("the takeover came after %v; DW_ERROR_TIME is 3 s\n%s", d, timeline(sys, at, time.Now()))
	}
	if now := primary(t, sys); now == prim {
		t.Errorf("%s is primary still", now)
	}
	dwCommand(t, sys, "start", "W_"+prim)
	healthy(t, sys)
	l.stop()
	l.check(t, 1)
}

// waitTakeoverReady lets the monitor see the archive Valid for the time it
// wants to (a second and more), which nothing reports.
func waitTakeoverReady(t *testing.T) {
	t.Helper()
	pause(t.Context(), 1500*time.Millisecond)
}

// TestNoMonitorNoTakeover: in AUTO mode nobody but a confirm monitor decides.
// The primary opens again by itself after its restart, both databases being
// there.
func TestNoMonitorNoTakeover(t *testing.T) {
	sys, l := underLoad(t, dw.Options{Standbys: 1, Mode: "auto", Monitors: 1})
	prim := primary(t, sys)
	kill(t, sys, "MONITOR1")
	// With each round the watcher waits twice as long before it starts the database again.
	for range min(4, envInt("DW_ROUNDS", 2)) {
		kill(t, sys, prim)
		t.Logf("primary killed without a monitor; the next commit was acknowledged after %v", l.flows(t, 30*time.Second))
		if now := primary(t, sys); now != prim {
			t.Fatalf("%s took over without a confirm monitor", now)
		}
	}
	dwCommand(t, sys, "start", "MONITOR1")
	healthy(t, sys)
	l.stop()
	l.check(t, 0)
}

// TestFrozenPrimary: a server that stands still is judged dead by its watcher
// after INST_ERROR_TIME, killed, and taken over.
func TestFrozenPrimary(t *testing.T) {
	sys, l := underLoad(t, dw.Options{Standbys: 1, Mode: "auto", Monitors: 1})
	waitTakeoverReady(t)
	prim := primary(t, sys)
	pid := sys.PID(prim)
	thaw := freeze(t, sys, prim)
	t.Logf("primary frozen; the next commit was acknowledged after %v", l.flows(t, 30*time.Second))
	thaw()
	healthy(t, sys)
	if sys.PID(prim) == pid {
		t.Errorf("the frozen process %d was not replaced", pid)
	}
	l.stop()
	l.check(t, 1)
}

// TestFrozenHost: primary and watcher stand still, the standby takes over, and
// then they go on. The old primary must not acknowledge anything it was asked
// before or after: it ends and comes back as a standby.
func TestFrozenHost(t *testing.T) {
	sys, l := underLoad(t, dw.Options{Standbys: 1, Mode: "auto", Monitors: 1})
	waitTakeoverReady(t)
	prim := primary(t, sys)
	port := 0
	for _, d := range sys.DBs {
		if d.Name == prim {
			port = d.Port
		}
	}
	old, err := sys.Connect(t.Context(), port)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close(context.Background())
	thaw := freeze(t, sys, prim, "W_"+prim)
	// Asked while it stands still: read by it when it goes on.
	answer := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
		defer cancel()
		_, err := old.Exec(ctx, "INSERT INTO w VALUES (1000, 1, 'too late')").ReadAll()
		answer <- err
	}()
	t.Logf("host frozen; the next commit was acknowledged after %v", l.flows(t, 40*time.Second))
	if now := primary(t, sys); now == prim {
		t.Fatalf("%s is primary still", now)
	}
	thaw()
	select {
	case err := <-answer:
		if err == nil {
			t.Error("G3: the old primary acknowledged a commit after it was taken over")
		} else {
			t.Logf("the old primary answered: %v", err)
		}
	case <-time.After(45 * time.Second):
		t.Error("the old primary's client never got an answer")
	}
	healthy(t, sys)
	if now := primary(t, sys); now == prim {
		t.Errorf("%s is primary again", now)
	}
	l.stop()
	l.check(t, 1)
	for _, d := range sys.DBs {
		if rows(t, sys, d.Port)[rowKey{1000, 1}] {
			t.Errorf("%s has the row of the old primary", d.Name)
		}
	}
}

// TestFrozenStandby: the primary goes on after the link was judged broken and
// the failover done; the standby is replaced and recovered.
func TestFrozenStandby(t *testing.T) {
	sys, l := underLoad(t, dw.Options{Standbys: 1, Mode: "auto", Monitors: 1})
	prim := primary(t, sys)
	thaw := freeze(t, sys, standbyOf(sys, prim))
	d := l.flows(t, 30*time.Second)
	t.Logf("standby frozen; the next commit was acknowledged after %v", d)
	thaw()
	healthy(t, sys)
	if now := primary(t, sys); now != prim {
		t.Errorf("%s became primary although only the standby was frozen", now)
	}
	l.stop()
	l.check(t, 0)
}

func TestTwoStandbys(t *testing.T) {
	sys, l := underLoad(t, dw.Options{Standbys: 2, Mode: "auto", Monitors: 1})
	n := envInt("DW_ROUNDS", 2)
	for range n {
		waitTakeoverReady(t)
		prim := primary(t, sys)
		kill(t, sys, prim)
		t.Logf("primary killed; the next commit was acknowledged after %v", l.flows(t, 30*time.Second))
		healthy(t, sys)
	}
	l.stop()
	l.check(t, n)
}
