package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"datawatch/dwmon"
	"datawatch/internal/app/dw"
)

// outcome is what a network fault leads to and holds until it is repaired.
type outcome struct {
	primary string // "same", or "taken over" by the standby
	state   string // of the watcher of the primary of before; "" as it comes
	status  string // of that primary
	archive string // state of the archive to the standby; "" as it comes
	commits bool   // whether they are acknowledged again
	says    string // for the document
}

// What can happen, in the words of manual table 6.1.
var (
	nothing  = outcome{"same", "OPEN", "Open", "Valid", true, "nothing: commits go on"}
	goesOn   = outcome{"same", "OPEN", "Open", "Invalid", true, "the primary suspends, Failover; the archive to the standby is Invalid, the primary goes on alone"}
	goesOn2  = outcome{"same", "OPEN", "Open", "Invalid", true, "the primary suspends, its watcher asks in CONFIRM, Failover; the archive to the standby is Invalid, the primary goes on alone"}
	waits    = outcome{"same", "CONFIRM", "Suspend", "", false, "the primary suspends, its watcher stays in CONFIRM; nobody takes over, commits wait"}
	takeover = outcome{"taken over", "", "", "", true, "the primary suspends, its watcher stays in CONFIRM; the standby takes over, clients of the old primary are disconnected after SESS_FREE_IN_SUSPEND"}
	unseen   = outcome{"same", "OPEN", "Open", "Valid", false, "nothing by itself: its clients do not reach the primary; `switchover` by hand"}
)

// netFault is a row of manual table 6.1, and of what its surroundings say
// (6.10): what fails, and what must follow.
type netFault struct {
	name         string
	fail         func(t *testing.T, l *lab, prim, sby *machine, how cut) (repair func())
	manual, auto outcome
	common       bool // in make test too
}

func failInner(ms ...func(l *lab, prim, sby *machine) *card) func(*testing.T, *lab, *machine, *machine, cut) func() {
	return func(t *testing.T, l *lab, prim, sby *machine, how cut) func() {
		var repairs []func()
		for _, m := range ms {
			repairs = append(repairs, m(l, prim, sby).fail(t, how))
		}
		return func() {
			for _, r := range repairs {
				r()
			}
		}
	}
}

func innerOfPrimary(_ *lab, prim, _ *machine) *card { return prim.inner }
func innerOfStandby(_ *lab, _, sby *machine) *card  { return sby.inner }
func innerOfMonitor(l *lab, _, _ *machine) *card    { return l.machines[len(l.machines)-1].inner }
func outerOfPrimary(_ *lab, prim, _ *machine) *card { return prim.outer }
func outerOfStandby(_ *lab, _, sby *machine) *card  { return sby.outer }

func failSwitch(_ *testing.T, l *lab, _, _ *machine, _ cut) func() {
	l.inner.down.Store(true)
	return func() { l.inner.down.Store(false) }
}

func failOuterSwitch(_ *testing.T, l *lab, _, _ *machine, _ cut) func() {
	l.outer.down.Store(true)
	return func() { l.outer.down.Store(false) }
}

var netFaults = []netFault{
	{"the primary's inner card", failInner(innerOfPrimary), goesOn, takeover, true},
	{"the standby's inner card", failInner(innerOfStandby), goesOn, goesOn2, true},
	{"the inner switch", failSwitch, goesOn, waits, true},
	{"the inner cards of primary and standby", failInner(innerOfPrimary, innerOfStandby), goesOn, waits, false},
	{"the monitor's inner card", failInner(innerOfMonitor), nothing, nothing, false},
	{"the primary's outer card", failInner(outerOfPrimary), unseen, unseen, false},
	{"the standby's outer card", failInner(outerOfStandby), nothing, nothing, false},
	{"the outer switch", failOuterSwitch, unseen, unseen, false},
}

// TestNetworkFaults is manual table 6.1 in MANUAL and AUTO mode, on machines
// with cards of their own: each fails, what must follow follows and holds, the
// fault is repaired and everything becomes healthy. Writers and readers run all
// the time: no acknowledged row is lost, no seen row vanishes, and one database
// acknowledges at a time. DW_NETWORK=all runs every row with every way in which
// a card can fail, otherwise the common rows with unplugged ones.
func TestNetworkFaults(t *testing.T) {
	if os.Getenv(labEnv) == "" {
		t.Parallel()
	}
	if !inLab(t) {
		return
	}
	for _, mode := range []string{"auto", "manual"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			l, ld := labUnderLoad(t, labOptions{Options: dw.Options{Standbys: 1, Mode: mode, Monitors: 1, Fast: true}, DM: [][2]string{{"SESS_FREE_IN_SUSPEND", "5"}}})
			changes := 0
			for _, f := range netFaults {
				ways := []cut{unplugged, disabled, silent}
				if os.Getenv("DW_NETWORK") != "all" {
					ways = ways[:1]
					if !f.common || mode == "manual" && f.name != netFaults[0].name {
						continue
					}
				}
				if strings.HasSuffix(f.name, "switch") {
					ways = ways[:1]
				}
				for _, how := range ways {
					if !t.Run(f.name+" "+string(how), func(t *testing.T) {
						want := f.auto
						if mode == "manual" {
							want = f.manual
						}
						l.failNetwork(t, ld, f, how, want)
						if want.primary != "same" {
							changes++
						}
					}) {
						return
					}
				}
			}
			ld.stop()
			ld.check(t, changes)
		})
	}
}

// watched is what follows when the card for clients fails and the watcher looks
// at it.
var watched = outcome{"taken over", "", "", "", true, "with INST_SERVICE_IP_CHECK = 1 and the card unplugged or disabled: after INST_ERROR_TIME the primary is ended, the standby takes over"}

// TestServiceCard: with INST_SERVICE_IP_CHECK a watcher ends its primary when
// the card that clients come by has no carrier or is off, and the standby takes
// over. The old primary rejoins, on a machine whose card is still off.
func TestServiceCard(t *testing.T) {
	if os.Getenv(labEnv) == "" {
		t.Parallel()
	}
	if os.Getenv("DW_NETWORK") != "all" {
		t.Skip("DW_NETWORK=all runs it")
	}
	if !inLab(t) {
		return
	}
	l, ld := labUnderLoad(t, labOptions{Options: dw.Options{Standbys: 1, Mode: "auto", Monitors: 1, Fast: true}, Watcher: [][2]string{{"INST_SERVICE_IP_CHECK", "1"}}})
	for _, how := range []cut{unplugged, disabled} {
		t.Run(string(how), func(t *testing.T) {
			l.failNetwork(t, ld, netFault{name: "the primary's outer card", fail: failInner(outerOfPrimary)}, how, watched)
		})
	}
	ld.stop()
	ld.check(t, 2)
}

// labUnderLoad starts a system on machines of its own, with clients.
func labUnderLoad(t *testing.T, o labOptions) (*lab, *load) {
	t.Helper()
	l := newLab(t, o)
	mustExec(t, l.sys, loadTable)
	ld := newLoad(l.sys, 6, 2)
	ld.direct = o.Direct
	ld.patience, ld.think = 4*time.Second, 20*time.Millisecond
	ld.start(t.Context())
	t.Cleanup(ld.stop)
	ld.flows(t, 20*time.Second)
	return l, ld
}

// failNetwork is one row of the table.
func (l *lab) failNetwork(t *testing.T, ld *load, f netFault, how cut, want outcome) {
	healthy(t, l.sys)
	prim := primary(t, l.sys)
	sby := standbyOf(l.sys, prim)
	m := l.watch(t)
	ld.flows(t, 20*time.Second)
	at := time.Now()
	repair := f.fail(t, l, l.of(prim), l.of(sby), how)
	repaired := false
	defer func() {
		if !repaired {
			repair()
		}
		if t.Failed() {
			t.Logf("%s", timeline(l.sys, at.Add(-time.Second), time.Now()))
		}
	}()
	last := ""
	met := func() bool {
		last = l.differs(m, prim, sby, how, want)
		return last == ""
	}
	// Error times of 3 s, and the checks of links every second on top of them.
	waitForWhy(t, "the outcome", 25*time.Second, met, func() string { return last })
	if want.commits {
		first, ok := ld.waitAckAfter(t.Context(), time.Now(), 15*time.Second)
		if !ok {
			t.Fatalf("no commit was acknowledged")
		}
		_ = first
	}
	settled := time.Now()
	if os.Getenv("DW_TIPS") != "" {
		t.Logf("%s", l.tips(t))
	}
	pause(t.Context(), 5*time.Second) // longer than every error time
	if !met() {
		t.Errorf("it did not hold: %s", last)
	}
	flowed := ld.last.Load() > settled.UnixNano()
	if flowed != want.commits {
		t.Errorf("commits acknowledged while it lasts: %v, want %v", flowed, want.commits)
	}
	if how == silent || how == unplugged {
		t.Logf("the outcome was there after %v", settled.Sub(at).Round(100*time.Millisecond))
	}
	repair()
	repaired = true
	back := time.Now()
	healthy(t, l.sys)
	ld.flows(t, 20*time.Second)
	t.Logf("repaired; healthy after %v", time.Since(back).Round(100*time.Millisecond))
	if now := primary(t, l.sys); (now == prim) != (want.primary == "same") {
		t.Errorf("%s is primary after the repair; it was %s, %s expected", now, prim, want.primary)
	}
}

// differs says in what the group is not as wanted yet; "" when it is.
func (l *lab) differs(m *dwmon.Monitor, prim, sby string, how cut, want outcome) string {
	var bad []string
	say := func(ok bool, format string, args ...any) {
		if !ok {
			bad = append(bad, fmt.Sprintf(format, args...))
		}
	}
	var p, s dwmon.DatabaseSnapshot
	for _, g := range m.Snapshot().Groups {
		for _, d := range g.Databases {
			switch d.Name {
			case prim:
				p = d
			case sby:
				s = d
			}
		}
	}
	if want.primary == "taken over" {
		say(s.Mode == "Primary" && s.Status == "Open" && s.WStatus == "OPEN", "%s is %s %s, its watcher %s", sby, s.Mode, s.Status, s.WStatus)
	} else {
		say(s.Mode == "Standby", "%s is %s", sby, s.Mode)
		say(p.Mode == "Primary", "%s is %s", prim, p.Mode)
	}
	say(want.state == "" || p.WStatus == want.state, "the watcher of %s is in %s, not %s", prim, p.WStatus, want.state)
	say(want.status == "" || p.Status == want.status, "%s is %s, not %s", prim, p.Status, want.status)
	if want.archive != "" {
		st := ""
		for _, a := range p.Archives {
			if strings.EqualFold(a.Inst, sby) {
				st = a.State.String()
			}
		}
		say(st == want.archive, "the archive to %s is %s, not %s", sby, st, want.archive)
	}
	return strings.Join(bad, "; ")
}

// tips is what `tip` says to somebody on the monitor's machine and on those of
// the databases.
func (l *lab) tips(t *testing.T) string {
	var b strings.Builder
	for i, m := range append(l.machines[len(l.machines)-1:], l.machines[:len(l.machines)-1]...) {
		var out []byte
		err := m.do(func() (err error) {
			out, err = exec.Command(filepath.Join(programs(t), "dmmonitor"), l.sys.MonitorIni(), "-e", "tip").CombinedOutput()
			return err
		})
		where := "on the monitor's machine"
		if i > 0 {
			where = "on that of " + l.sys.DBs[i-1].Name
		}
		fmt.Fprintf(&b, "---- tip %s (%v):\n%s", where, err, out)
	}
	return b.String()
}

// watch is a monitor for people, on the console network.
func (l *lab) watch(t *testing.T) *dwmon.Monitor {
	t.Helper()
	return monitor(t, l.sys)
}

func waitForWhy(t *testing.T, what string, patience time.Duration, ok func() bool, why func() string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for !ok() {
		if ctx.Err() != nil {
			t.Fatalf("waited %v in vain for %s: %s", patience, what, why())
		}
		pause(ctx, 20*time.Millisecond)
	}
}

const netFaultsDoc = "../../docs/network-faults.md"

// TestNetworkFaultsDoc: the document shows the table the test works from.
func TestNetworkFaultsDoc(t *testing.T) {
	var b bytes.Buffer
	b.WriteString(`# Network faults

Manual table 6.1 and 6.10, row by row: what fails, and what follows in a group of a primary and a standby with two network cards each
and a confirm monitor on a third machine. Generated from the table of ` + "`TestNetworkFaults`" + `, which makes each of these faults on machines
with cards of their own; ` + "`DW_NETWORK=all go test ./test/e2e -run 'TestNetworkFaults$' -v`" + ` runs them all, each card unplugged, disabled
and silent. After each repair the group becomes healthy by itself.

| what fails | MANUAL | AUTO |
|---|---|---|
`)
	for _, f := range netFaults {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", f.name, f.manual.says, f.auto.says)
	}
	fmt.Fprintf(&b, "| the primary's outer card | as above | %s |\n", watched.says)
	old, err := os.ReadFile(netFaultsDoc)
	if os.Getenv("DW_UPDATE") != "" {
		if err := os.WriteFile(netFaultsDoc, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if err != nil || !slices.Equal(old, b.Bytes()) {
		t.Errorf("docs/network-faults.md is not that of the table; DW_UPDATE=1 go test ./test/e2e -run TestNetworkFaultsDoc writes it (%v)", err)
	}
}
