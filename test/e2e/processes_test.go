package e2e

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"datawatch/internal/app/dw"
)

// role is what a process is in the group when the fault comes.
type role string

const (
	thePrimary role = "primary"
	theStandby role = "standby"
	pWatcher   role = "primary's watcher"
	sWatcher   role = "standby's watcher"
	theMonitor role = "confirm monitor"
)

// procFault kills or stops processes at once.
type procFault struct {
	what []role
	// While it lasts; "" for either.
	killed, stopped after
	common          bool // in make test too, killed or stopped in turn
}

// after is what the group does before anybody repairs anything.
type after struct {
	primary string // "same", "taken over", "" either
	commits string // "yes" they go on within the error times, "no", "" either
}

var (
	sameGoesOn = after{"same", "yes"}
	takenOver  = after{"taken over", "yes"}
	sameWaits  = after{"same", "no"}
	either     = after{}
)

// AUTO mode, a confirm monitor on a machine of its own, INST_AUTO_RESTART = 1:
// a killed database is started again by its watcher, the others by the test
// when it repairs. What is stopped for longer than every error time is continued
// then.
var procFaults = []procFault{
	{[]role{thePrimary}, takenOver, takenOver, false},
	{[]role{theStandby}, sameGoesOn, sameGoesOn, false},
	{[]role{pWatcher}, sameGoesOn, sameGoesOn, false},
	{[]role{sWatcher}, sameGoesOn, sameGoesOn, false},
	{[]role{theMonitor}, sameGoesOn, sameGoesOn, false},
	{[]role{thePrimary, pWatcher}, takenOver, takenOver, false},
	{[]role{theStandby, sWatcher}, sameGoesOn, sameGoesOn, true},
	{[]role{pWatcher, sWatcher}, sameGoesOn, sameGoesOn, true},
	{[]role{theMonitor, pWatcher}, sameGoesOn, sameGoesOn, true},
	{[]role{theMonitor, sWatcher}, sameGoesOn, sameGoesOn, false},
	{[]role{theMonitor, thePrimary}, sameGoesOn, either, false}, // the stopped one is killed by its watcher, as a dead one is
	{[]role{theMonitor, theStandby}, sameGoesOn, either, false},
	{[]role{thePrimary, sWatcher}, either, either, false},
	{[]role{theStandby, pWatcher}, sameWaits, sameWaits, false}, // nobody may make the archive Invalid
	{[]role{thePrimary, theStandby}, either, either, false},
	{[]role{thePrimary, theStandby, pWatcher, sWatcher, theMonitor}, after{"", "no"}, after{"", "no"}, false},
}

// TestProcessFaults kills and stops every process and pairs of them on machines
// of their own, under writers and readers: no acknowledged row is lost, no seen
// row vanishes, one database acknowledges at a time (G1, G2, G3), and the group
// becomes healthy once killed programs are started and stopped ones go on. A
// client that asks a stopped database gets its answer when it wakes up: if that
// is an acknowledgement, the row is kept like any other (G3). DW_PROCESSES=all
// runs every row both ways.
func TestProcessFaults(t *testing.T) {
	if os.Getenv(labEnv) == "" {
		t.Parallel()
	}
	if !inLab(t) {
		return
	}
	l, ld := labUnderLoad(t, labOptions{Options: dw.Options{Standbys: 1, Mode: "auto", Monitors: 1, Fast: true}, DM: [][2]string{{"SESS_FREE_IN_SUSPEND", "5"}}})
	all := os.Getenv("DW_PROCESSES") == "all"
	changes, n := 0, 0
	for _, f := range procFaults {
		if !all && !f.common {
			continue
		}
		for i, how := range []string{"killed", "stopped"} {
			if n++; !all && n/2%2 == i { // one of the two
				continue
			}
			name := fmt.Sprint(f.what) + " " + how
			if !t.Run(strings.ReplaceAll(strings.Trim(name, "[]"), "] ", " "), func(t *testing.T) {
				want := f.killed
				if how == "stopped" {
					want = f.stopped
				}
				if l.failProcesses(t, ld, f.what, how == "stopped", want, n) {
					changes++
				}
			}) {
				return
			}
		}
	}
	ld.stop()
	ld.check(t, changes)
}

// failProcesses is one row; it reports whether the primary changed.
func (l *lab) failProcesses(t *testing.T, ld *load, what []role, stop bool, want after, n int) bool {
	healthy(t, l.sys)
	waitTakeoverReady(t)
	prim := primary(t, l.sys)
	sby := standbyOf(l.sys, prim)
	ld.flows(t, 20*time.Second)
	name := map[role]string{thePrimary: prim, theStandby: sby, pWatcher: "W_" + prim, sWatcher: "W_" + sby, theMonitor: "MONITOR1"}
	var names []string
	for _, r := range what {
		names = append(names, name[r])
	}
	// Watchers first: they see their databases die.
	slices.SortStableFunc(names, func(a, b string) int {
		return cmp.Compare(strings.Index(b, "W_"), strings.Index(a, "W_"))
	})
	at := time.Now()
	defer func() {
		if t.Failed() {
			t.Logf("%s", timeline(l.sys, at.Add(-time.Second), time.Now()))
		}
	}()
	var asked chan error
	repair := func() {}
	if stop {
		old := l.connectTo(t, prim)
		defer old.Close(context.Background())
		repair = freeze(t, l.sys, names...)
		asked = make(chan error, 1)
		go func() { // read by the primary when it goes on, if it stands still
			ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
			defer cancel()
			_, err := old.Exec(ctx, fmt.Sprintf("INSERT INTO w VALUES (%d, 1, 'asked while it stood still')", 1000+n)).ReadAll()
			asked <- err
		}()
	} else {
		kill(t, l.sys, names...)
	}
	// Error times of 3 s, the restart of a database and its recovery.
	pause(t.Context(), 8*time.Second)
	flowed := ld.last.Load() > at.Add(6*time.Second).UnixNano()
	if want.commits != "" && flowed != (want.commits == "yes") {
		t.Errorf("commits go on: %v, want %s", flowed, want.commits)
	}
	if flowed {
		if first, ok := ld.waitAckAfter(t.Context(), at, time.Second); ok {
			t.Logf("the first commit was acknowledged after %v, the longest gap was %v", first.Sub(at).Round(time.Millisecond), ld.longestGap(at, time.Now()).Round(time.Millisecond))
		}
	}
	repair()
	back := time.Now()
	for _, x := range names {
		if strings.HasPrefix(x, "GRP") && slices.Contains(names, "W_"+x) {
			continue // its watcher starts it
		}
		if !strings.HasPrefix(x, "GRP") {
			if err := l.sys.Start(x); err != nil {
				t.Fatal(err)
			}
		}
	}
	healthy(t, l.sys)
	ld.flows(t, 20*time.Second)
	t.Logf("repaired; healthy after %v", time.Since(back).Round(100*time.Millisecond))
	now := primary(t, l.sys)
	if changed := now != prim; want.primary != "" && changed != (want.primary == "taken over") {
		t.Errorf("%s is primary, it was %s; want: %s", now, prim, want.primary)
	}
	if asked != nil {
		select {
		case err := <-asked:
			if err == nil {
				ld.mu.Lock()
				ld.acked[rowKey{1000 + n, 1}] = ack{at, time.Now(), l.index(prim)}
				ld.mu.Unlock()
			}
			t.Logf("what was asked of the primary meanwhile: %v", err)
			if err == nil && now != prim {
				t.Error("G3: the old primary acknowledged a commit although another one has taken over")
			}
		case <-time.After(45 * time.Second):
			t.Error("a client of the primary never got an answer")
		}
	}
	return now != prim
}

func (l *lab) index(db string) int {
	return slices.IndexFunc(l.sys.DBs, func(d dw.Database) bool { return d.Name == db })
}

// connectTo connects as a client of the external network does.
func (l *lab) connectTo(t *testing.T, db string) *pgconn.PgConn {
	t.Helper()
	d := l.sys.DBs[l.index(db)]
	c, err := pgconn.Connect(t.Context(), fmt.Sprintf("host=%s port=%d user=SYSDBA password=%s dbname=DAMENG connect_timeout=3 %s", d.Host(), d.Port, l.sys.Password(), l.sys.SQLOptions()))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// longestGap is the longest time without an acknowledgement between two
// moments.
func (l *load) longestGap(from, to time.Time) time.Duration {
	return slices.Max(append(l.gaps(from, to, 0), 0))
}

// TestMachineLost takes the power of each machine (of the standby's only without
// DW_PROCESSES=all) for DW_LOST seconds (15; chaos 60), much longer than every
// error time, and gives it back: the group is healthy soon, however long it was
// away.
func TestMachineLost(t *testing.T) {
	if os.Getenv(labEnv) == "" {
		t.Parallel()
	}
	if !inLab(t) {
		return
	}
	l, ld := labUnderLoad(t, labOptions{Options: dw.Options{Standbys: 1, Mode: "auto", Monitors: 1, Fast: true}})
	lost := envSeconds("DW_LOST", 15)
	changes := 0
	for _, c := range []struct {
		name string
		lose func(prim, sby string) []string
	}{
		{"the monitor's", func(_, _ string) []string { return []string{"MONITOR1"} }},
		{"the standby's", func(_, sby string) []string { return []string{"W_" + sby, sby} }},
		{"the primary's", func(prim, _ string) []string { return []string{"W_" + prim, prim} }},
		{"the standby's again", func(_, sby string) []string { return []string{"W_" + sby, sby} }}, // the names are the other way round now
	} {
		if c.name != "the standby's" && os.Getenv("DW_PROCESSES") != "all" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			healthy(t, l.sys)
			ld.flows(t, 20*time.Second)
			prim := primary(t, l.sys)
			at := time.Now()
			repair := l.lose(t, c.lose(prim, standbyOf(l.sys, prim))...)
			pause(t.Context(), lost)
			repair()
			back := time.Now()
			healthy(t, l.sys)
			took := time.Since(back)
			t.Logf("healthy %v after its power was back", took.Round(100*time.Millisecond))
			if took > 12*time.Second {
				t.Errorf("that is too long; DW_ERROR_TIME is 3 s\n%s", timeline(l.sys, at, time.Now()))
			}
			if now := primary(t, l.sys); now != prim {
				changes++
			}
			if first, ok := ld.waitAckAfter(t.Context(), at, 10*time.Second); ok {
				t.Logf("the first commit after %v, the longest gap was %v", first.Sub(at).Round(time.Millisecond), ld.longestGap(at, time.Now()).Round(time.Millisecond))
			}
		})
	}
	ld.stop()
	ld.check(t, changes)
}
