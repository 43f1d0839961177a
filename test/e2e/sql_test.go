package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"datawatch/internal/app/dw"
)

// TestSQL uses one healthy system of a primary and a standby as SQL users do:
// psql with scripts, pgbench and the pgx driver. Each subtest makes its own
// tables.
func TestSQL(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real processes")
	}
	sys := up(t, dw.Options{Standbys: 1, Mode: "auto", Monitors: 1, Fast: true})
	t.Run("psql on the primary", func(t *testing.T) { psqlScripts(t, sys.DBs[0].Port, "primary_*.sql") })
	t.Run("psql on the standby", func(t *testing.T) { psqlScripts(t, sys.DBs[1].Port, "standby_*.sql") })
	t.Run("target_session_attrs", func(t *testing.T) { targetSession(t, sys) })
	t.Run("pgbench", func(t *testing.T) { pgbench(t, sys) })
	t.Run("pgx modes", func(t *testing.T) { pgxModes(t, sys) })
	t.Run("pgx batch", func(t *testing.T) { pgxBatch(t, sys) })
	t.Run("cancel", func(t *testing.T) { cancelQuery(t, sys) })
	t.Run("states of errors", func(t *testing.T) { sqlstates(t, sys) })
	t.Run("notices", func(t *testing.T) { notices(t, sys) })
	t.Run("own writes and counters", func(t *testing.T) { ownWrites(t, sys) })
	t.Run("snapshots", func(t *testing.T) { snapshots(t, sys) })
	noPanics(t, sys)
}

// noPanics looks through every log for the traces of a crash.
func noPanics(t *testing.T, sys *dw.System) {
	t.Helper()
	logs, _ := filepath.Glob(filepath.Join(sys.Dir, "log", "*.log"))
	if len(logs) == 0 {
		t.Errorf("no logs in %s", sys.Dir)
	}
	for _, l := range logs {
		b, err := os.ReadFile(l)
		if err != nil {
			t.Error(err)
		}
		if i := bytes.Index(b, []byte("panic")); i >= 0 {
			t.Errorf("%s speaks of a panic: %.600s", filepath.Base(l), b[i:])
		}
	}
}

func needs(t *testing.T, program string) string {
	t.Helper()
	p, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s is not installed", program)
	}
	return p
}

func pgEnv(port int) []string {
	return append(os.Environ(), "PGHOST=127.0.0.1", fmt.Sprintf("PGPORT=%d", port), "PGUSER=SYSDBA", "PGPASSWORD=SYSDBA",
		"PGDATABASE=DAMENG", "PGOPTIONS=", "PGSSLMODE=prefer", "PAGER=", "LC_ALL=C.UTF-8", "PGTZ=UTC")
}

// psqlScripts runs scripts of testdata with psql and compares what a user sees
// with the .txt file beside each. DW_UPDATE=1 writes those files.
func psqlScripts(t *testing.T, port int, glob string) {
	psql := needs(t, "psql")
	scripts, _ := filepath.Glob(filepath.Join("testdata", glob))
	if len(scripts) == 0 {
		t.Fatalf("no scripts %s", glob)
	}
	for _, script := range scripts {
		t.Run(filepath.Base(script), func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), psql, "-X", "-a", "-f", filepath.Base(script))
			cmd.Dir, cmd.Env = filepath.Dir(script), pgEnv(port)
			b, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("psql: %v\n%s", err, b)
			}
			got := regexp.MustCompile(`[ \t]+\n`).ReplaceAllString(string(b), "\n")
			out := strings.TrimSuffix(script, ".sql") + ".txt"
			if os.Getenv("DW_UPDATE") != "" {
				write(t, out, got)
				return
			}
			want, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("the output of %s differs from %s\n%s", script, out, firstDifference(got, string(want)))
			}
		})
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range g {
		if i >= len(w) || g[i] != w[i] {
			return fmt.Sprintf("first at line %d\n got: %s\nwant: %s", i+1, strings.Join(g[i:min(i+6, len(g))], "\n      "),
				strings.Join(w[min(i, len(w)):min(i+6, len(w))], "\n      "))
		}
	}
	return fmt.Sprintf("got ends early; missing: %q", w[len(g):])
}

// targetSession: libpq and pgx find the right database of two hosts for every
// value of target_session_attrs.
func targetSession(t *testing.T, sys *dw.System) {
	p, s := sys.DBs[0].Port, sys.DBs[1].Port
	for _, c := range []struct {
		attr  string
		ports [2]int
		want  int
	}{
		{"any", [2]int{p, s}, p}, {"any", [2]int{s, p}, s},
		{"read-write", [2]int{p, s}, p}, {"read-write", [2]int{s, p}, p},
		{"read-only", [2]int{p, s}, s}, {"read-only", [2]int{s, p}, s},
		{"primary", [2]int{p, s}, p}, {"primary", [2]int{s, p}, p},
		{"standby", [2]int{p, s}, s}, {"standby", [2]int{s, p}, s},
		{"prefer-standby", [2]int{p, s}, s}, {"prefer-standby", [2]int{p, p}, p},
	} {
		dsn := fmt.Sprintf("host=127.0.0.1,127.0.0.1 port=%d,%d user=SYSDBA password=SYSDBA dbname=DAMENG target_session_attrs=%s", c.ports[0], c.ports[1], c.attr)
		conn, err := pgx.Connect(t.Context(), dsn)
		if err != nil {
			t.Errorf("pgx, %s over %v: %v", c.attr, c.ports, err)
			continue
		}
		var port int
		if err := conn.QueryRow(t.Context(), "SELECT PORT_NUM FROM V$INSTANCE").Scan(&port); err != nil || port != c.want {
			t.Errorf("pgx, %s over %v: port %d, want %d (%v)", c.attr, c.ports, port, c.want, err)
		}
		conn.Close(t.Context())
		if psql, err := exec.LookPath("psql"); err == nil {
			out, err := exec.CommandContext(t.Context(), psql, "-X", "-At", "-c", "SELECT PORT_NUM FROM V$INSTANCE", dsn).CombinedOutput()
			if got := strings.TrimSpace(string(out)); err != nil || got != fmt.Sprint(c.want) {
				t.Errorf("psql, %s over %v: %s, want %d (%v)", c.attr, c.ports, got, c.want, err)
			}
		}
	}
}

// pgbench runs custom scripts in every protocol mode; none of its transactions
// may fail, and the books must balance on both databases afterwards.
func pgbench(t *testing.T, sys *dw.System) {
	bench := needs(t, "pgbench")
	mustExec(t, sys, `CREATE TABLE acc(id INT PRIMARY KEY, bal INT NOT NULL, pad TEXT);
		CREATE TABLE hist(id INTEGER PRIMARY KEY, aid INT, d INT, ts TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
		WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM s WHERE i < 500) INSERT INTO acc SELECT i, 0, 'x' FROM s`)
	dir := t.TempDir()
	file := func(name, text string) string {
		f := filepath.Join(dir, name)
		write(t, f, text)
		return f
	}
	tx := file("tx.sql", `\set aid random(1, 500)
\set d random(-5, 5)
BEGIN;
UPDATE acc SET bal = bal + :d WHERE id = :aid;
SELECT bal FROM acc WHERE id = :aid;
INSERT INTO hist(aid, d) VALUES (:aid, :d);
END;
`)
	sel := file("sel.sql", "\\set aid random(1, 500)\nSELECT bal FROM acc WHERE id = :aid \\gset\nSELECT :bal + 1;\n")
	pipe := file("pipe.sql", "\\startpipeline\nSELECT 1;\nINSERT INTO hist(aid, d) VALUES (1, 0);\nSELECT 2;\n\\endpipeline\n")
	p, s := sys.DBs[0].Port, sys.DBs[1].Port
	eventually(t, "the standby has the tables", func() error {
		if got := queryOne(t, s, "SELECT count(*) FROM sqlite_schema WHERE name IN ('acc', 'hist')"); got != "2" {
			return fmt.Errorf("%s of 2", got)
		}
		return nil
	})
	for _, c := range []struct {
		name string
		port int
		args []string
	}{
		{"simple", p, []string{"-M", "simple", "-f", tx, "-c", "8", "-t", "20"}},
		{"extended", p, []string{"-M", "extended", "-f", tx, "-c", "8", "-t", "20"}},
		{"prepared", p, []string{"-M", "prepared", "-f", tx, "-c", "16", "-j", "2", "-t", "20"}},
		{"a connection each", p, []string{"-C", "-f", tx, "-c", "4", "-t", "4"}},
		{"at a rate", p, []string{"-M", "prepared", "-R", "300", "-f", tx, "-c", "4", "-t", "30"}},
		{"mixed", p, []string{"-M", "simple", "-f", tx + "@1", "-f", sel + "@4", "-c", "8", "-t", "30"}},
		{"pipeline", p, []string{"-M", "extended", "-f", pipe, "-c", "4", "-t", "10"}},
		{"reads on the standby", s, []string{"-M", "simple", "-f", sel, "-c", "8", "-t", "50"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), bench, append([]string{"-n"}, c.args...)...)
			cmd.Env = pgEnv(c.port)
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "number of failed transactions: 0 ") {
				t.Errorf("pgbench %v: %v\n%s", c.args, err, out)
			}
		})
	}
	const books = "SELECT sum(bal), (SELECT sum(d) FROM hist), (SELECT count(*) FROM hist) FROM acc"
	want := queryOne(t, p, books)
	if f := strings.Split(want, "|"); f[0] != f[1] || f[2] == "0" {
		t.Errorf("sum of balances, of changes, number of changes: %s", want)
	}
	eventually(t, "the standby has the primary's rows", func() error {
		if got := queryOne(t, s, books); got != want {
			return fmt.Errorf("standby %s, primary %s", got, want)
		}
		return nil
	})
}

// eventually tries until it works or ten seconds have gone.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var err error
	for ctx.Err() == nil {
		if err = f(); err == nil {
			return
		}
		pause(ctx, 20*time.Millisecond)
	}
	t.Errorf("%s: %v", what, err)
}

// queryOne returns the first row, its values between bars.
func queryOne(t *testing.T, port int, sql string) string {
	t.Helper()
	c, err := dw.Connect(t.Context(), port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	res, err := c.Exec(t.Context(), sql).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	for _, r := range res {
		if len(r.Rows) > 0 {
			return string(bytes.Join(r.Rows[0], []byte("|")))
		}
	}
	return ""
}

func connect(t *testing.T, port int, change ...func(*pgx.ConnConfig)) *pgx.Conn {
	t.Helper()
	cfg, err := pgx.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=SYSDBA password=SYSDBA dbname=DAMENG", port))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(cfg)
	}
	c, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

// wantState checks the SQLSTATE of an error.
func wantState(t *testing.T, err error, state string) {
	t.Helper()
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code != state {
		t.Errorf("error %v, want SQLSTATE %s", err, state)
	}
}

// cancelQuery: a query without end and a wait for the write lock both end when
// the client cancels, and the connection goes on.
func cancelQuery(t *testing.T, sys *dw.System) {
	mustExec(t, sys, "CREATE TABLE held(a INT)")
	for _, d := range sys.DBs {
		c := connect(t, d.Port)
		wait := make(chan error, 1)
		go func() {
			_, err := c.Exec(context.Background(), "WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM s) SELECT count(*) FROM s")
			wait <- err
		}()
		cancelUntil(t, c, wait)
		if err := c.Ping(t.Context()); err != nil {
			t.Errorf("%s after a cancel: %v", d.Name, err)
		}
	}
	holder, waiter := connect(t, sys.DBs[0].Port), connect(t, sys.DBs[0].Port)
	tx, err := holder.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "INSERT INTO held VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	wait := make(chan error, 1)
	go func() {
		_, err := waiter.Exec(context.Background(), "INSERT INTO held VALUES (2)")
		wait <- err
	}()
	cancelUntil(t, waiter, wait)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := queryOne(t, sys.DBs[0].Port, "SELECT count(*), max(a) FROM held"); got != "1|1" {
		t.Errorf("rows %s, want only the holder's", got)
	}
}

// cancelUntil sends cancel requests until the query ends, with 57014.
func cancelUntil(t *testing.T, c *pgx.Conn, wait chan error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		select {
		case err := <-wait:
			wantState(t, err, "57014")
			return
		case <-ctx.Done():
			t.Fatal("the cancelled query did not end")
		case <-time.After(20 * time.Millisecond): // a cancel may come before the query
			if err := c.PgConn().CancelRequest(ctx); err != nil {
				t.Error(err)
			}
		}
	}
}

// sqlstates: the class of every error that an application may handle.
func sqlstates(t *testing.T, sys *dw.System) {
	mustExec(t, sys, `CREATE TABLE par(id INT PRIMARY KEY, u TEXT UNIQUE);
		CREATE TABLE err(id INT PRIMARY KEY, nn TEXT NOT NULL, c INT CHECK (c > 0), p INT REFERENCES par(id));
		CREATE VIEW vv AS SELECT 1 AS one;
		INSERT INTO par VALUES (1, 'a'); INSERT INTO err VALUES (1, 'x', 1, 1)`)
	type test struct{ sql, state string }
	both := func(port int, c test) {
		conn, err := dw.Connect(t.Context(), port)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		for _, way := range []string{"simple", "extended"} {
			if way == "simple" {
				_, err = conn.Exec(t.Context(), c.sql).ReadAll()
			} else {
				err = conn.ExecParams(t.Context(), c.sql, nil, nil, nil, nil).Read().Err
			}
			var pe *pgconn.PgError
			if !errors.As(err, &pe) || pe.Code != c.state {
				t.Errorf("%s, %s: %v, want %s", c.sql, way, err, c.state)
			}
		}
		if _, err := conn.Exec(t.Context(), "SELECT 1").ReadAll(); err != nil {
			t.Errorf("after %s: %v", c.sql, err)
		}
	}
	for _, c := range []test{
		{"SELECTT 1", "42601"},
		{"SELECT FROM WHERE", "42601"},
		{"SELECT 'unterminated", "42601"},
		{"SELECT * FROM nosuch", "42P01"},
		{"SELECT nosuch FROM err", "42703"},
		{"SELECT nosuch(1)", "42883"},
		{"SELECT id FROM err, par", "42702"},
		{"INSERT INTO err VALUES (1, 'x', 1, 1)", "23505"},
		{"INSERT INTO par VALUES (2, 'a')", "23505"},
		{"INSERT INTO err VALUES (2, NULL, 1, 1)", "23502"},
		{"INSERT INTO err VALUES (2, 'x', 0, 1)", "23514"},
		{"INSERT INTO err VALUES (2, 'x', 1, 99)", "23503"},
		{"DELETE FROM par WHERE id = 1", "23503"},
		{"CREATE TABLE err(a INT)", "42P07"},
		{"DROP TABLE nosuch", "42P01"},
		{"DROP INDEX nosuch", "42704"},
		{"INSERT INTO vv VALUES (1)", "42809"},
		{"INSERT INTO err(id) VALUES (1, 2)", "42601"},
		{"SELECT sum(sum(id)) FROM err", "42803"},
		{"SELECT 1 UNION SELECT 1, 2", "42601"},
		{"SAVEPOINT a", "25P01"},
		{"ATTACH DATABASE 'x' AS y", "0A000"},
		{"ALTER DATABASE NONSENSE", "42601"},
		{"ALTER DATABASE MOUNT", "42501"},
		{"SP_SET_OGUID(1)", "42501"},
		{"SP_SET_PARA_VALUE(1, 'NO_SUCH_PARAMETER', 1)", "22023"},
		{"SET nosuch_setting = 1", "42704"},
	} {
		both(sys.DBs[0].Port, c)
	}
	eventually(t, "the standby has the tables", func() error {
		if got := queryOne(t, sys.DBs[1].Port, "SELECT count(*) FROM sqlite_schema WHERE name IN ('par', 'err', 'vv')"); got != "3" {
			return fmt.Errorf("%s of 3", got)
		}
		return nil
	})
	for _, sql := range []string{"INSERT INTO par VALUES (7, 'x')", "UPDATE par SET u = 'y'", "DELETE FROM par", "CREATE TABLE x(a INT)", "DROP TABLE par",
		"CREATE INDEX i ON par(u)", "ALTER TABLE par ADD COLUMN z INT", "TRUNCATE par", "VACUUM", "SELECT * FROM par FOR UPDATE"} {
		both(sys.DBs[1].Port, test{sql, "25006"})
	}
}

func notices(t *testing.T, sys *dw.System) {
	var got []string
	c := connect(t, sys.DBs[0].Port, func(c *pgx.ConnConfig) {
		c.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { got = append(got, n.Severity+" "+n.Code) }
	})
	for _, sql := range []string{"COMMIT", "BEGIN", "BEGIN", "ROLLBACK", "ROLLBACK"} {
		if _, err := c.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"WARNING 25P01", "WARNING 25001", "WARNING 25P01"}; !slices.Equal(got, want) {
		t.Errorf("notices %q, want %q", got, want)
	}
}
