package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"datawatch/internal/app/dw"
)

// TestAlterDatabase goes through the rules of manual 2.2.3, 2.2.4, 5.1 and 7.2
// for changing mode, status, OGUID and parameters by hand, on one instance
// without MAL. Each step is a statement, the SQLSTATE it must answer with, and
// mode and status afterwards. A session of its own keeps its connection through
// all of it.
func TestAlterDatabase(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real processes")
	}
	dir, port := t.TempDir(), freePort(t, 1)
	bin := func(name string) string { return filepath.Join(programs(t), name) }
	run(t, 0, bin("dminit"), "PATH="+dir, "INSTANCE_NAME=ONE", fmt.Sprintf("PORT_NUM=%d", port), "LOG_SIZE=16")
	ini := filepath.Join(dir, "DAMENG", "dm.ini")
	p := start(t, bin("dmserver"), ini)
	waitSQL(t, port)
	c, err := dw.Connect(t.Context(), port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	const on, off = "SP_SET_PARA_VALUE(1, 'ALTER_MODE_STATUS', 1)", "SP_SET_PARA_VALUE(1, 'ALTER_MODE_STATUS', 0)"
	for i, s := range []struct{ sql, state, after string }{
		{"CREATE TABLE a(n INT PRIMARY KEY)", "", "NORMAL OPEN"},
		{"INSERT INTO a VALUES (1)", "", "NORMAL OPEN"},
		// Normal, Open.
		{"ALTER DATABASE PRIMARY", "55000", "NORMAL OPEN"}, // modes change in Mount only
		{"SP_SET_OGUID(5)", "55000", "NORMAL OPEN"},
		{"ALTER DATABASE OPEN", "", "NORMAL OPEN"}, // it is
		{"ALTER DATABASE SUSPEND", "", "NORMAL SUSPEND"},
		{"SELECT n FROM a", "", "NORMAL SUSPEND"},
		{"ALTER DATABASE MOUNT", "55000", "NORMAL SUSPEND"}, // Suspend and Mount do not change into each other
		{"ALTER DATABASE OPEN", "", "NORMAL OPEN"},
		{"INSERT INTO a VALUES (2)", "", "NORMAL OPEN"},
		// Open to Mount rolls transactions back and keeps sessions.
		{"BEGIN", "", "NORMAL OPEN"},
		{"INSERT INTO a VALUES (3)", "", "NORMAL OPEN"},
		{"ALTER DATABASE MOUNT", "25001", ""},
		{"ROLLBACK", "", "NORMAL OPEN"},
		{"ALTER DATABASE MOUNT", "", "NORMAL MOUNT"},
		{"SELECT n FROM a", "57P03", "NORMAL MOUNT"},
		{"INSERT INTO a VALUES (4)", "57P03", "NORMAL MOUNT"},
		{"SELECT count(*) FROM V$PARAMETER", "", "NORMAL MOUNT"},
		{"ALTER DATABASE SUSPEND", "55000", "NORMAL MOUNT"},
		// ALTER_MODE_STATUS = 0: nothing by hand, but the mode of a Normal database.
		{off, "", "NORMAL MOUNT"},
		{"SP_SET_OGUID(5)", "42501", "NORMAL MOUNT"},
		{"ALTER DATABASE OPEN", "42501", "NORMAL MOUNT"},
		{"ALTER DATABASE STANDBY", "", "STANDBY MOUNT"},
		{"ALTER DATABASE PRIMARY", "42501", "STANDBY MOUNT"},
		{"ALTER DATABASE NORMAL", "42501", "STANDBY MOUNT"},
		{on, "", "STANDBY MOUNT"},
		{"SP_SET_OGUID(-1)", "22023", "STANDBY MOUNT"},
		{"SP_SET_OGUID(2147483648)", "22023", "STANDBY MOUNT"},
		{"SP_SET_OGUID('x')", "22023", "STANDBY MOUNT"},
		{"SP_SET_OGUID()", "42883", "STANDBY MOUNT"},
		{"sp_set_oguid(453331)", "", "STANDBY MOUNT"},
		// Primary and Standby open with FORCE only.
		{"ALTER DATABASE OPEN", "55000", "STANDBY MOUNT"},
		{"ALTER DATABASE OPEN FORCE", "", "STANDBY OPEN"},
		{"SELECT n FROM a", "", "STANDBY OPEN"},
		{"INSERT INTO a VALUES (5)", "25006", "STANDBY OPEN"},
		{"ALTER DATABASE MOUNT", "", "STANDBY MOUNT"},
		{"ALTER DATABASE PRIMARY", "", "PRIMARY MOUNT"},
		{"ALTER DATABASE OPEN", "55000", "PRIMARY MOUNT"},
		{"ALTER DATABASE OPEN FORCE", "", "PRIMARY OPEN"},
		{"INSERT INTO a VALUES (6)", "", "PRIMARY OPEN"},
		{"ALTER DATABASE NORMAL", "55000", "PRIMARY OPEN"},
		{"ALTER DATABASE MOUNT", "", "PRIMARY MOUNT"},
		{"ALTER DATABASE NORMAL", "", "NORMAL MOUNT"},
		{"ALTER DATABASE OPEN", "", "NORMAL OPEN"},
		// Parameters.
		{"SP_SET_PARA_VALUE(1, 'NO_SUCH', 1)", "22023", "NORMAL OPEN"},
		{"SP_SET_PARA_VALUE(1, 'ALTER_MODE_STATUS', 2)", "22023", "NORMAL OPEN"},
		{"SP_SET_PARA_VALUE(1, 'ALTER_MODE_STATUS', 'x')", "22023", "NORMAL OPEN"},
		{"SP_SET_PARA_VALUE(3, 'ALTER_MODE_STATUS', 1)", "22023", "NORMAL OPEN"},
		{"SP_SET_PARA_VALUE(1, 'DW_INACTIVE_INTERVAL', 1801)", "22023", "NORMAL OPEN"},
		{"SP_SET_PARA_VALUE(1, 'PORT_NUM', 6000)", "22023", "NORMAL OPEN"}, // static: file only
		{"SP_SET_PARA_VALUE(1, 'ALTER_MODE_STATUS')", "42883", "NORMAL OPEN"},
		{"CALL SP_SET_PARA_VALUE(0, 'DW_INACTIVE_INTERVAL', 7)", "", "NORMAL OPEN"},
		{"ALTER DATABASE", "42601", "NORMAL OPEN"},
		{"ALTER DATABASE SIDEWAYS", "42601", "NORMAL OPEN"},
	} {
		_, err := c.Exec(t.Context(), s.sql).ReadAll()
		got := ""
		var pe *pgconn.PgError
		if errors.As(err, &pe) {
			got = pe.Code
		} else if err != nil {
			t.Fatalf("step %d, %s: %v", i, s.sql, err)
		}
		if got != s.state {
			t.Errorf("step %d, %s: SQLSTATE %q, want %q (%v)", i, s.sql, got, s.state, err)
		}
		if s.after == "" {
			continue
		}
		if now := queryOne(t, port, "SELECT MODE$, STATUS$ FROM V$INSTANCE"); strings.ReplaceAll(now, "|", " ") != s.after {
			t.Fatalf("step %d, after %s: %s, want %s", i, s.sql, now, s.after)
		}
	}
	if got := queryOne(t, port, "SELECT group_concat(n) FROM (SELECT n FROM a ORDER BY n)"); got != "1,2,6" {
		t.Errorf("rows %s, want 1,2,6", got)
	}
	if got := queryOne(t, port, "SELECT OGUID FROM V$INSTANCE"); got != "453331" {
		t.Errorf("OGUID %s", got)
	}
	if b, err := os.ReadFile(ini); err != nil || !strings.Contains(string(b), "\nALTER_MODE_STATUS = 1") || strings.Contains(string(b), "\nDW_INACTIVE_INTERVAL") {
		t.Errorf("scope 1 must be in dm.ini, scope 0 not (%v):\n%s", err, b)
	}
	p.stop(t)
	if strings.Contains(p.out.String(), "panic") {
		t.Errorf("a panic:\n%s", p.out)
	}
}

// TestWatcherForbidsByHand: while a watcher guards an instance, and for
// DW_INACTIVE_INTERVAL after the last word of it, nothing is changed by hand,
// whatever ALTER_MODE_STATUS says (manual 5.1).
func TestWatcherForbidsByHand(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real processes")
	}
	sys := up(t, dw.Options{Standbys: 0, Mode: "manual", Fast: true})
	port := sys.DBs[0].Port
	c, err := dw.Connect(t.Context(), port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	exec := func(sql string) error { _, err := c.Exec(t.Context(), sql).ReadAll(); return err }
	if err := errors.Join(exec("SP_SET_PARA_VALUE(0, 'ALTER_MODE_STATUS', 1)"), exec("SP_SET_PARA_VALUE(0, 'DW_INACTIVE_INTERVAL', 1)")); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"ALTER DATABASE MOUNT", "ALTER DATABASE SUSPEND", "ALTER DATABASE STANDBY", "SP_SET_OGUID(7)", "SP_SET_ARCH_STATUS('X', 1)"} {
		wantState(t, exec(sql), "42501")
	}
	dwCommand(t, sys, "stop", "W_"+sys.DBs[0].Name)
	eventually(t, "allowed after the interval", func() error { return exec("ALTER DATABASE SUSPEND") })
	if err := exec("ALTER DATABASE OPEN FORCE"); err != nil {
		t.Error(err)
	}
	dwCommand(t, sys, "start", "W_"+sys.DBs[0].Name)
	eventually(t, "refused again", func() error {
		var pe *pgconn.PgError
		if err := exec("SP_SET_OGUID(7)"); !errors.As(err, &pe) || pe.Code != "42501" {
			return fmt.Errorf("SP_SET_OGUID with a watcher: %v", err)
		}
		return nil
	})
}
