package e2e

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // registers the driver

	"datawatch/internal/app/dw"
)

// nodePostgres runs testdata/node/client.js with node and its pg module.
func nodePostgres(t *testing.T, sys *dw.System) {
	node := needs(t, "node")
	modules := ""
	for _, dir := range []string{filepath.Join("..", "..", ".cache", "node", "node_modules"), "/usr/share/nodejs"} {
		if abs, err := filepath.Abs(dir); err == nil {
			if _, err := os.Stat(filepath.Join(abs, "pg")); err == nil {
				modules = abs
				break
			}
		}
	}
	if modules == "" {
		t.Skip("node-postgres is not there: .ci/node gets it")
	}
	cmd := exec.CommandContext(t.Context(), node, "client.js")
	cmd.Dir = filepath.Join("testdata", "node")
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules, "PGPORT="+strconv.Itoa(sys.DBs[0].Port))
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "node-postgres works") {
		t.Errorf("%v:\n%s", err, out)
	}
}

// databaseSQL uses the server as a Go program does that knows database/sql only.
func databaseSQL(t *testing.T, sys *dw.System) {
	ctx := t.Context()
	db, err := sql.Open("pgx", fmt.Sprintf("postgres://SYSDBA:SYSDBA@127.0.0.1:%d/DAMENG", sys.DBs[0].Port))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(4)
	do := func(_ sql.Result, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	do(db.ExecContext(ctx, "CREATE TABLE std(id INT PRIMARY KEY, name TEXT, price NUMERIC(8,2), ok BOOLEAN, at TIMESTAMP, data BYTEA)"))
	at := time.Date(2024, 2, 29, 1, 2, 3, 0, time.UTC)
	st, err := db.PrepareContext(ctx, "INSERT INTO std VALUES ($1, $2, $3, $4, $5, $6)")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		do(st.ExecContext(ctx, i, sql.NullString{String: "row", Valid: i%2 == 0}, "9.99", i%3 == 0, at, []byte{byte(i)}))
	}
	st.Close()
	var name sql.NullString
	var price float64
	var ok bool
	var got time.Time
	var data []byte
	if err := db.QueryRowContext(ctx, "SELECT name, price, ok, at, data FROM std WHERE id = $1", 3).Scan(&name, &price, &ok, &got, &data); err != nil ||
		name.Valid || price != 9.99 || !ok || !got.Equal(at) || len(data) != 1 || data[0] != 3 {
		t.Errorf("%v %v %v %v %v %v", name, price, ok, got, data, err)
	}
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable})
	if err != nil {
		t.Fatal(err)
	}
	res, err := tx.ExecContext(ctx, "UPDATE std SET price = price + 1 WHERE id < $1", 10)
	do(res, err)
	if n, err := res.RowsAffected(); n != 10 || err != nil {
		t.Errorf("%d rows affected (%v)", n, err)
	}
	if err := tx.Rollback(); err != nil {
		t.Error(err)
	}
	ro, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	_, err = ro.ExecContext(ctx, "DELETE FROM std")
	wantState(t, err, "25006")
	ro.Rollback()
	rows, err := db.QueryContext(ctx, "SELECT id, price FROM std ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	n, sum := 0, 0.0
	for rows.Next() {
		var id int
		if err := rows.Scan(&id, &price); err != nil || id != n {
			t.Errorf("row %d: %d %v", n, id, err)
		}
		n, sum = n+1, sum+price
	}
	if err := rows.Err(); err != nil || n != 20 || sum < 199.79 || sum > 199.81 {
		t.Errorf("%d rows, sum %v (%v)", n, sum, err)
	}
	quick, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if _, err := db.ExecContext(quick, "WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM s) SELECT count(*) FROM s"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a query without end: %v", err)
	}
	if err := db.PingContext(ctx); err != nil {
		t.Error(err)
	}
}

// psqlInteractive: what people type into psql beyond SQL.
func psqlInteractive(t *testing.T, sys *dw.System) {
	for _, x := range []struct{ name, script, want string }{
		{"gdesc", "SELECT 1 AS a, 'x'::varchar(5) AS b, now() AS c \\gdesc\n", "a|integer\nb|character varying(5)\nc|timestamp"},
		{"gset", "SELECT 5 AS five, 'x' AS x \\gset my_\n\\echo :my_five :my_x\n", "5 x"},
		{"gexec", "SELECT 'SELECT ' || i FROM generate_series(1, 2) g(i) \\gexec\n", "1\n2"},
		{"crosstabview", "SELECT * FROM (VALUES ('a', 'x', 1), ('a', 'y', 2), ('b', 'x', 3)) v \\crosstabview\n", "column1|x|y\na|1|2\nb|3|"},
		{"x", "\\x\nSELECT 1 AS a, 2 AS b;\n", "a|1\nb|2"},
		{"semicolons", "SELECT 1\\; SELECT 2;\n", "1\n2"},
		{"if", "SELECT true AS yes \\gset\n\\if :yes\n\\echo taken\n\\else\n\\echo not\n\\endif\n", "taken"},
		{"parameters", "\\set id 7\n\\set name '''it''''s'''\nSELECT :id + 1, :'id', :name;\n", "8|7|it's"},
		{"errverbose", "SELECT nosuch;\n\\errverbose\n", "42703"},
		{"AUTOCOMMIT off", "\\set AUTOCOMMIT off\nCREATE TABLE off(a int);\nROLLBACK;\nSELECT count(*) FROM sqlite_schema WHERE name = 'off';\nCOMMIT;\n", "0"},
		{"ON_ERROR_ROLLBACK", "\\set ON_ERROR_ROLLBACK on\nBEGIN;\nCREATE TABLE oer(a int);\nSELECT nosuch;\nINSERT INTO oer VALUES (3);\nCOMMIT;\nSELECT a FROM oer;\n", "3"},
		{"o and copy", "\\o /dev/null\nSELECT 'hidden';\n\\o\n\\copy (SELECT 1, 'b') to stdout csv\n", "1,b"},
		{"encoding", "\\encoding\nSHOW server_version;\nSHOW transaction_isolation;\nSHOW search_path;\n", "UTF8\n15"},
		{"comments", "SELECT /* one ; two */ 1; -- three ;\nSELECT $$a;b$$;\n", "1\na;b"},
	} {
		out, err := client(t, sys, x.script, "psql", "-qAt")
		if x.name == "gdesc" || x.name == "crosstabview" || x.name == "x" {
			out, err = client(t, sys, x.script, "psql", "-qA")
		}
		if err != nil || !strings.Contains(out, x.want) {
			t.Errorf("%s: %v\n%s\nwant %s", x.name, err, out, x.want)
		}
	}
	// \watch goes on until it is interrupted.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, needs(t, "psql"), "-X", "-At")
	cmd.Env = pgEnv(sys.DBs[0].Port)
	cmd.Stdin = strings.NewReader("SELECT 'again' \\watch 0.1\n")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	seen, buf := "", make([]byte, 1000)
	for strings.Count(seen, "again") < 3 {
		n, err := out.Read(buf)
		if seen += string(buf[:n]); err != nil {
			break
		}
	}
	cmd.Process.Signal(os.Interrupt)
	cmd.Process.Kill()
	cmd.Wait()
	if strings.Count(seen, "again") < 3 {
		t.Errorf("\\watch: %q", seen)
	}
}

// TestHostLists: clients that name both databases find the right one before
// and after a takeover, by every value of target_session_attrs that says which.
func TestHostLists(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real processes")
	}
	sys := up(t, dw.Options{Standbys: 1, Mode: "auto", Monitors: 1, Fast: true})
	dsn := func(attrs string) string {
		return fmt.Sprintf("host=127.0.0.1,127.0.0.1 port=%d,%d user=SYSDBA password=SYSDBA dbname=DAMENG sslmode=disable connect_timeout=5 target_session_attrs=%s", sys.DBs[0].Port, sys.DBs[1].Port, attrs)
	}
	pool, err := pgxpool.New(t.Context(), dsn("read-write"))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if _, err := pool.Exec(t.Context(), "CREATE TABLE hosts(n INT)"); err != nil {
		t.Fatal(err)
	}
	check := func(when string, prim, stdby int) {
		t.Helper()
		for attrs, want := range map[string]int{"read-write": prim, "primary": prim, "standby": stdby, "read-only": stdby, "prefer-standby": stdby} {
			c, err := pgconn.Connect(t.Context(), dsn(attrs))
			if err != nil {
				t.Errorf("%s, pgx %s: %v", when, attrs, err)
				continue
			}
			if got := answer(t.Context(), c, "SELECT PORT_NUM FROM V$INSTANCE"); got != strconv.Itoa(want) {
				t.Errorf("%s, pgx %s: port %s, want %d", when, attrs, got, want)
			}
			c.Close(t.Context())
			if psql, err := exec.LookPath("psql"); err == nil {
				out, err := exec.CommandContext(t.Context(), psql, "-XAt", "-c", "SELECT PORT_NUM FROM V$INSTANCE", dsn(attrs)).CombinedOutput()
				if strings.TrimSpace(string(out)) != strconv.Itoa(want) {
					t.Errorf("%s, psql %s: %s, want %d (%v)", when, attrs, out, want, err)
				}
			}
		}
	}
	check("before", sys.DBs[0].Port, sys.DBs[1].Port)
	// A killed primary that its watcher has restarted before the standby's link to it
	// was seen broken stays primary: rare, and then it is killed again.
	first := primary(t, sys)
	for tries := 0; tries < 3 && primary(t, sys) == first; tries++ {
		kill(t, sys, first)
		// The pool connects to the new primary by itself; meanwhile its statements
		// fail and are tried again, as an application's are.
		waitFor(t, "the pool writes again", 30*time.Second, func() bool {
			_, err := pool.Exec(t.Context(), "INSERT INTO hosts VALUES (1)")
			return err == nil
		})
		healthy(t, sys)
	}
	check("after the takeover", sys.DBs[1].Port, sys.DBs[0].Port)
}
