package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datawatch/dwmon"
	"datawatch/internal/app/dw"
)

// TestTimely is the life of a group with timely archives under load, with either
// ARCH_WAIT_APPLY: its standby is killed, its roles are switched, its primary is
// frozen together with its watcher until the standby has taken over, and its
// primary is killed. No acknowledged row is lost (G1), no row seen vanishes (G2),
// acknowledgements come from one database at a time (G3). An old primary may have
// redo that nobody else has (manual 2.2.15): then it is split and rebuilt. Should it
// and its successor shut each other down (manual 2.2.16), the test does what a
// person does: it opens the successor.
func TestTimely(t *testing.T) {
	for _, wait := range []string{"1", "0"} {
		t.Run("ARCH_WAIT_APPLY "+wait, func(t *testing.T) {
			sys, l := underLoad(t, dw.Options{Standbys: 1, Mode: "auto", Monitors: 1, Archive: "timely", Wait: wait})
			if wait == "1" {
				readableAtOnce(t, sys, 200)
			}
			prim := primary(t, sys)
			kill(t, sys, standbyOf(sys, prim))
			l.flows(t, 30*time.Second)
			healthy(t, sys)

			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := monitor(t, sys).Switchover(ctx, sys.Group, standbyOf(sys, prim)); err != nil {
				t.Fatalf("switchover: %v", err)
			}
			l.flows(t, 30*time.Second)
			healthy(t, sys)

			splits := 0
			for _, frozen := range []bool{true, false} {
				waitTakeoverReady(t)
				prim = primary(t, sys)
				if frozen {
					thaw := freeze(t, sys, prim, "W_"+prim)
					l.flows(t, 40*time.Second)
					thaw()
				} else {
					kill(t, sys, prim)
					l.flows(t, 40*time.Second)
				}
				if split(t, sys, prim) {
					splits++
					rebuild(t, sys, prim)
				}
				healthy(t, sys)
				l.flows(t, 30*time.Second)
			}
			t.Logf("%d of 2 old primaries were split", splits)
			l.stop()
			l.check(t, 3)
			noPanics(t, sys)
		})
	}
}

// readableAtOnce: with ARCH_WAIT_APPLY = 1 a row that is acknowledged on the
// primary is readable on the standby at once (manual 2.2.11.5).
func readableAtOnce(t *testing.T, sys *dw.System, rows int) {
	t.Helper()
	mustExec(t, sys, "CREATE TABLE once(n INTEGER PRIMARY KEY)")
	p, i, err := connectPrimary(t.Context(), sys)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(context.WithoutCancel(t.Context()))
	s, err := sys.Connect(t.Context(), sys.DBs[1-i].Port)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(context.WithoutCancel(t.Context()))
	for n := range rows {
		if _, err := p.Exec(t.Context(), fmt.Sprintf("INSERT INTO once VALUES (%d)", n)).ReadAll(); err != nil {
			t.Fatal(err)
		}
		res, err := s.Exec(t.Context(), fmt.Sprintf("SELECT n FROM once WHERE n = %d", n)).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		if len(res[0].Rows) != 1 {
			t.Fatalf("row %d is acknowledged and not on the standby", n)
		}
	}
}

// split waits until an old primary is back in the group, or marked split. When it
// and its successor have shut each other down it chooses the successor.
func split(t *testing.T, sys *dw.System, name string) bool {
	t.Helper()
	m := monitor(t, sys)
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); {
		if _, err := os.Stat(filepath.Join(sys.Dir, name, "DAMENG", "dmwatcher.ctl")); err == nil {
			return true
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err := sys.WaitHealthy(ctx)
		cancel()
		if err == nil {
			return false
		}
		if undecided(m) {
			t.Logf("both are in Primary mode and Mount status: %s is chosen", standbyOf(sys, name))
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			if err := m.OpenDatabase(ctx, sys.Group, standbyOf(sys, name)); err != nil {
				t.Logf("open database: %v", err)
			}
			cancel()
		}
	}
	t.Fatalf("%s is neither back nor split", name)
	return false
}

// undecided: every database of the group runs, in Primary mode and Mount status.
// Nothing but a person ends that.
func undecided(m *dwmon.Monitor) bool {
	for _, d := range m.Snapshot().Groups[0].Databases {
		if !strings.EqualFold(d.InstOK, "OK") || !strings.EqualFold(d.Mode, "Primary") || !strings.EqualFold(d.Status, "Mount") {
			return false
		}
	}
	return true
}

// rebuild makes a split database a copy of the primary (docs/operations.md).
func rebuild(t *testing.T, sys *dw.System, name string) {
	t.Helper()
	bin := func(name string) string { return filepath.Join(programs(t), name) }
	db := filepath.Join(sys.Dir, name, "DAMENG")
	ini := filepath.Join(db, "dm.ini")
	port := map[string]int{}
	for _, d := range sys.DBs {
		port[d.Name] = d.Port
	}
	sql := func(inst, q string) {
		run(t, 0, bin("disql"), fmt.Sprintf("SYSDBA/SYSDBA@127.0.0.1:%d", port[inst]), "-e", q)
	}
	dwCommand(t, sys, "stop", "W_"+name)
	if sys.PID(name) != 0 {
		kill(t, sys, name)
	}
	keep := map[string][]byte{}
	for _, f := range []string{"dm.ini", "dmmal.ini", "dmarch.ini", "dmwatcher.ini"} {
		b, err := os.ReadFile(filepath.Join(db, f))
		if err != nil {
			t.Fatal(err)
		}
		keep[f] = b
	}
	if err := os.RemoveAll(db); err != nil {
		t.Fatal(err)
	}
	run(t, 0, bin("dminit"), "path="+filepath.Dir(db), "LOG_SIZE=16")
	set := filepath.Join(t.TempDir(), "set")
	sql(primary(t, sys), fmt.Sprintf("BACKUP DATABASE FULL BACKUPSET '%s'", set))
	for _, stmt := range []string{fmt.Sprintf("RESTORE DATABASE '%s' FROM BACKUPSET '%s'", ini, set),
		fmt.Sprintf("RECOVER DATABASE '%s' FROM BACKUPSET '%s'", ini, set), fmt.Sprintf("RECOVER DATABASE '%s' UPDATE DB_MAGIC", ini)} {
		run(t, 0, bin("dmrman"), "CTLSTMT="+stmt)
	}
	for f, b := range keep {
		write(t, filepath.Join(db, f), string(b))
	}
	dwCommand(t, sys, "start", name)
	waitSQL(t, port[name])
	for _, q := range []string{"SP_SET_PARA_VALUE(1, 'ALTER_MODE_STATUS', 1)", fmt.Sprintf("sp_set_oguid(%d)", sys.OGUID),
		"alter database standby", "SP_SET_PARA_VALUE(1, 'ALTER_MODE_STATUS', 0)"} {
		sql(name, q)
	}
	dwCommand(t, sys, "start", "W_"+name)
}
