package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"datawatch/internal/app/dw"
)

// TestRebuildStandby follows manual 6.14 and 7.1.2: a standby is lost with its
// disk while clients write; the primary is backed up online, the set restored
// over a newly initialised database, which joins and catches up. Before that,
// every damage to the set is refused with nothing changed.
func TestRebuildStandby(t *testing.T) {
	sys, l := underLoad(t, dw.Options{Standbys: 1, Mode: "auto", Monitors: 1})
	bin := func(name string) string { return filepath.Join(programs(t), name) }
	db := filepath.Join(sys.Dir, sys.DBs[1].Name, "DAMENG")
	ini := filepath.Join(db, "dm.ini")
	rman := func(code int, stmt string, args ...any) string {
		return run(t, code, bin("dmrman"), "CTLSTMT="+fmt.Sprintf(stmt, args...))
	}
	sql := func(i int, code int, q string) string {
		return run(t, code, bin("disql"), fmt.Sprintf("SYSDBA/SYSDBA@127.0.0.1:%d", sys.DBs[i].Port), "-e", q)
	}

	// The standby's host is lost: processes and disk.
	kill(t, sys, "W_"+sys.DBs[1].Name, sys.DBs[1].Name)
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
	l.flows(t, 30*time.Second) // the monitor has let the primary go on alone

	run(t, 0, bin("dminit"), "path="+filepath.Dir(db), "LOG_SIZE=16")
	set := filepath.Join(t.TempDir(), "BACKUP_FILE_01")
	sql(0, 0, fmt.Sprintf("BACKUP DATABASE FULL BACKUPSET '%s'", set))
	sql(0, 1, fmt.Sprintf("BACKUP DATABASE FULL BACKUPSET '%s'", set)) // not over another set
	wants(t, rman(0, "CHECK BACKUPSET '%s'", set), "")

	before := content(t, db)
	restore := fmt.Sprintf("RESTORE DATABASE '%s' FROM BACKUPSET '%s'", ini, set)
	for _, f := range files(t, set) {
		for name, damage := range map[string]func([]byte) []byte{
			"a flipped byte at the start":  flip(0),
			"a flipped byte in the middle": func(b []byte) []byte { return flip(len(b) / 2)(b) },
			"a flipped byte at the end":    func(b []byte) []byte { return flip(len(b) - 1)(b) },
			"cut short":                    func(b []byte) []byte { return b[:len(b)-1] },
			"half":                         func(b []byte) []byte { return b[:len(b)/2] },
			"empty":                        func([]byte) []byte { return nil },
			"longer":                       func(b []byte) []byte { return append(b, 'x') },
		} {
			t.Run(filepath.Base(f)+" "+name, func(t *testing.T) {
				defer patch(t, f, damage)()
				wants(t, run(t, -1, bin("dmrman"), "CTLSTMT="+restore), filepath.Base(f))
				unchanged(t, db, before)
			})
		}
		t.Run(filepath.Base(f)+" missing", func(t *testing.T) {
			if err := os.Rename(f, f+".away"); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = os.Rename(f+".away", f) }()
			wants(t, run(t, -1, bin("dmrman"), "CTLSTMT="+restore), filepath.Base(f))
			unchanged(t, db, before)
		})
	}

	run(t, 0, bin("dmrman"), "CTLSTMT="+restore)
	rman(0, "RECOVER DATABASE '%s' FROM BACKUPSET '%s'", ini, set)
	rman(0, "RECOVER DATABASE '%s' UPDATE DB_MAGIC", ini)
	for f, b := range keep {
		write(t, filepath.Join(db, f), string(b))
	}
	p := start(t, bin("dmserver"), ini, "mount")
	t.Cleanup(func() { p.stop(t) })
	waitSQL(t, sys.DBs[1].Port)
	sql(1, 0, "SP_SET_PARA_VALUE(1, 'ALTER_MODE_STATUS', 1)")
	sql(1, 0, fmt.Sprintf("sp_set_oguid(%d)", sys.OGUID))
	sql(1, 0, "alter database standby")
	sql(1, 0, "SP_SET_PARA_VALUE(1, 'ALTER_MODE_STATUS', 0)")
	dwCommand(t, sys, "start", "W_"+sys.DBs[1].Name)
	healthy(t, sys)
	l.flows(t, 10*time.Second)
	l.stop()
	l.check(t, 0)
	noPanics(t, sys)
}

// files lists the files of a directory, which must not be empty.
func files(t *testing.T, dir string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(all) == 0 {
		t.Fatalf("files in %s: %v %v", dir, all, err)
	}
	return all
}

func content(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for _, f := range files(t, dir) {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out[f] = b
	}
	return out
}

func unchanged(t *testing.T, dir string, before map[string][]byte) {
	t.Helper()
	now := content(t, dir)
	for f, b := range before {
		if !bytes.Equal(now[f], b) {
			t.Errorf("%s was changed", f)
		}
	}
	for f := range now {
		if _, ok := before[f]; !ok {
			t.Errorf("%s was left behind", f)
		}
	}
}
