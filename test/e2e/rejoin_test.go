package e2e

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datawatch/dwmon"
	"datawatch/internal/app/dump"
	"datawatch/internal/app/dw"
)

// TestRejoinByPages: a takeover by force while the old primary, alone, has
// acknowledged more. It is Split, as the manual says, and rejoins by command;
// the next time DW_REJOIN lets it rejoin by itself, also when it was only frozen
// and wakes up beside its successor. Nothing of it is lost from the file that it
// leaves, both databases are the same, and switchovers go on (docs/decisions/0008).
func TestRejoinByPages(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real processes")
	}
	t.Parallel()
	sys := up(t, dw.Options{Standbys: 1, Mode: "manual", Fast: true})
	a, b := sys.DBs[0], sys.DBs[1]
	mustExec(t, sys, "CREATE TABLE r(id INTEGER PRIMARY KEY, who VARCHAR(10), pad VARCHAR(300))")
	m := monitor(t, sys)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	next := 0
	insert := func(d dw.Database, who string, n int) {
		t.Helper()
		conn, err := dw.Connect(ctx, d.Port)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(ctx)
		for range n {
			next++
			if _, err := conn.Exec(ctx, fmt.Sprintf("INSERT INTO r VALUES (%d, '%s', '%s')", next, who, strings.Repeat(who, 50))).ReadAll(); err != nil {
				t.Fatalf("insert at %s: %v", d.Name, err)
			}
		}
	}
	insert(a, "both", 300)
	// The standby is killed next, and what it had in memory only is gone then.
	waitFor(t, "the standby to have replayed all", 20*time.Second, func() bool { return count(t, b.Port, "r") == 300 })

	// fork: old is alone and acknowledges, then away; the other takes over by force.
	fork := func(old, other dw.Database, round int) (back func()) {
		t.Helper()
		kill(t, sys, "W_"+other.Name, other.Name)
		insert(old, fmt.Sprint("lost", round), 100) // the first has to wait until the standby is given up
		waitFor(t, old.Name+" to go on alone", 30*time.Second, func() bool {
			open, dropped := false, false
			for _, d := range m.Snapshot().Groups[0].Databases {
				switch d.Name {
				case old.Name:
					open = strings.EqualFold(d.Status, "OPEN") && d.WStatus == "OPEN"
				case other.Name:
					dropped = strings.EqualFold(d.RStat, "INVALID")
				}
			}
			return open && dropped
		})
		if round == 2 {
			back = freeze(t, sys, "W_"+old.Name, old.Name)
		} else {
			kill(t, sys, "W_"+old.Name, old.Name)
			back = func() { dwCommand(t, sys, "start", "W_"+old.Name) }
		}
		dwCommand(t, sys, "start", other.Name)
		dwCommand(t, sys, "start", "W_"+other.Name)
		waitFor(t, "the takeover by force", 40*time.Second, func() bool {
			return m.Takeover(ctx, sys.Group, other.Name, true) == nil
		})
		insert(other, fmt.Sprint("new", round), 150)
		return back
	}
	same := func(gone string) {
		t.Helper()
		healthy(t, sys)
		waitFor(t, "both to have the same rows", 20*time.Second, func() bool { return count(t, a.Port, "r") == count(t, b.Port, "r") })
		for _, d := range sys.DBs {
			if n := count(t, d.Port, "r WHERE who = '"+gone+"'"); n != 0 {
				t.Errorf("%s has %d rows that were given up", d.Name, n)
			}
			if n := count(t, d.Port, "r WHERE who = 'both'"); n != 300 {
				t.Errorf("%s has %d of 300 rows from before", d.Name, n)
			}
		}
	}

	// Without leave: Split, which explain offers a way out of.
	began := time.Now()
	fork(a, b, 1)()
	logged(t, sys, began, "database is split", 60*time.Second)
	waitFor(t, a.Name+" to end", 20*time.Second, func() bool { return sys.PID(a.Name) == 0 })
	waitFor(t, "explain to offer a rejoin", 20*time.Second, func() bool { return explains(t, m, sys.Group, a.Name, "DW_REJOIN is 0") })
	if err := m.RejoinDatabase(ctx, sys.Group, b.Name); err == nil {
		t.Error("rejoin database of the primary was not refused")
	}
	if err := m.RejoinDatabase(ctx, sys.Group, a.Name); err != nil {
		t.Fatal(err)
	}
	same("lost1")
	surplus(t, sys, a, 100)
	logged(t, sys, began, "gives up transactions that it committed", 5*time.Second)
	if err := m.Switchover(ctx, sys.Group, a.Name); err != nil {
		t.Fatal(err)
	}
	healthy(t, sys)
	insert(a, "after", 50)

	// With leave: by itself, after waking up as a second primary.
	if err := m.SetGroupPara(ctx, sys.Group, "DW_REJOIN", "1"); err != nil {
		t.Fatal(err)
	}
	fork(a, b, 2)()
	same("lost2")
	surplus(t, sys, a, 200)
	if err := m.Switchover(ctx, sys.Group, a.Name); err != nil {
		t.Fatal(err)
	}
	healthy(t, sys)
	insert(a, "end", 10)
	same("lost2")
}

// explains tells whether explain says text of a database.
func explains(t *testing.T, m *dwmon.Monitor, group, db, text string) bool {
	t.Helper()
	l, err := m.Explain(group, db)
	if err != nil {
		return false
	}
	for _, e := range l {
		if strings.Contains(e.What, "rejoins") && strings.Contains(e.Conds.Why(), text) {
			return true
		}
	}
	return false
}

// surplus: the files hold at least n transactions, and dw dump redo reads them.
func surplus(t *testing.T, sys *dw.System, d dw.Database, n int) {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(sys.Dir, d.Name, "DAMENG", "surplus", "SURPLUS_*.log"))
	if len(files) == 0 {
		t.Fatal("no file with the redo that was given up")
	}
	var out bytes.Buffer
	for _, f := range files { // each is of another rejoin: together they have gaps
		if err := dump.Main([]string{"redo", "-v", f}, &out); err != nil {
			t.Fatalf("%s: %v\n%.2000s", f, err, out.String())
		}
	}
	if got := strings.Count(out.String(), "commit"); got < n {
		t.Errorf("%d transactions in %v, want %d:\n%.3000s", got, files, n, out.String())
	}
}
