package e2e

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"datawatch/internal/app/dw"
)

// peak returns the largest resident memory of a process, in MB, since it was
// last reset, and resets it.
func peak(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	if err == nil {
		err = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return kb >> 10
}

// watch selects a row of a small table all the time and keeps the longest wait.
func watch(ctx context.Context, t *testing.T, sys *dw.System, port int, longest *atomic.Int64) func() {
	t.Helper()
	c, err := sys.Connect(ctx, port)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		for {
			start := time.Now()
			_, err := c.Exec(ctx, "SELECT v FROM small WHERE id = 1").ReadAll()
			if ctx.Err() != nil {
				err = nil
			}
			if err != nil || ctx.Err() != nil {
				done <- err
				return
			}
			longest.Store(max(longest.Load(), int64(time.Since(start))))
			pause(ctx, 5*time.Millisecond)
		}
	}()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("reader on port %d: %v", port, err)
		}
		c.Close(context.Background())
	}
}

func one(t *testing.T, sys *dw.System, port int, sql string) string {
	t.Helper()
	c, err := sys.Connect(t.Context(), port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	res, err := c.Exec(t.Context(), sql).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return string(bytes.Join(res[0].Rows[0], []byte(" ")))
}

// largeSystem is a group in dir whose servers have MEMORY_LIMIT set. edit, unless
// nil, changes the text of dmarch.ini.
func largeSystem(t *testing.T, dir string, limit int, edit func(name, text string) string) *dw.System {
	t.Helper()
	o := dw.Options{Dir: dir, Standbys: 1, Mode: "auto", Monitors: 1, Fast: true}
	sys := up(t, o)
	if err := sys.Down(t.Context(), false, testWriter{t}); err != nil {
		t.Fatal(err)
	}
	for _, d := range sys.DBs {
		path := filepath.Join(o.Dir, d.Name, "DAMENG", "dm.ini")
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var keep []string
		for _, l := range strings.Split(string(b), "\n") {
			if k, _, _ := strings.Cut(l, "="); strings.TrimSpace(k) != "BUFFER" {
				keep = append(keep, l)
			}
		}
		keep = append(keep, fmt.Sprintf("MEMORY_LIMIT = %d\nBUFFER = %d\n", limit, limit/4))
		if err := os.WriteFile(path, []byte(strings.Join(keep, "\n")), 0o644); err != nil {
			t.Fatal(err)
		}
		if edit == nil {
			continue
		}
		path = filepath.Join(filepath.Dir(path), "dmarch.ini")
		if b, err = os.ReadFile(path); err == nil {
			err = os.WriteFile(path, []byte(edit("dmarch.ini", string(b))), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return up(t, dw.Options{Dir: o.Dir, Standbys: -1})
}

// TestLarge: large values, tables and transactions on servers with little memory.
// `make large` runs it with ten million rows and prints memory and waits.
func TestLarge(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real processes")
	}
	limit := envInt("DW_LARGE_MEMORY", 256)
	sys := largeSystem(t, filepath.Join(t.TempDir(), "run"), limit, nil)
	t.Run("values and columns", func(t *testing.T) { largeValues(t, sys, envInt("DW_LARGE_VALUE", 16)<<20, limit) })
	t.Run("transactions", func(t *testing.T) { largeTransactions(t, sys, envInt("DW_LARGE_ROWS", 100_000), limit) })
}

// largeTransactions runs statements that change every row of a table, much more
// than the online log or memory holds, while others read; then it kills the
// primary in the middle of one.
func largeTransactions(t *testing.T, sys *dw.System, rows, limit int) {
	mustExec(t, sys, "CREATE TABLE small(id INTEGER PRIMARY KEY, v TEXT); INSERT INTO small VALUES (1, 'x'); "+
		"CREATE TABLE big(id INTEGER PRIMARY KEY, k INTEGER, v TEXT)")
	const made = "SELECT count(*) FROM sqlite_schema WHERE name = 'big'"
	for limit := time.Now().Add(time.Minute); one(t, sys, sys.DBs[0].Port, made) != "1" || one(t, sys, sys.DBs[1].Port, made) != "1"; pause(t.Context(), 50*time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("a database has not got the tables")
		}
	}
	const sum = "SELECT count(*), sum(k), sum(length(v)) FROM big"
	for _, c := range []struct{ what, sql string }{
		{"INSERT", fmt.Sprintf("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<%d) "+
			"INSERT INTO big SELECT i, (i*7919)%%1000003, hex(randomblob(50)) FROM c", rows)},
		{"CREATE INDEX", "CREATE INDEX bigk ON big(k)"},
		{"UPDATE", "UPDATE big SET v = v || 'x'"},
		{"VACUUM FULL", "VACUUM FULL"},
		{"DELETE", fmt.Sprintf("DELETE FROM big WHERE id > %d", rows/2)},
	} {
		var waits [2]atomic.Int64
		var stops []func()
		for i, d := range sys.DBs {
			peak(t, sys.PID(d.Name))
			stops = append(stops, watch(t.Context(), t, sys, d.Port, &waits[i]))
		}
		start := time.Now()
		conn, i, err := connectPrimary(t.Context(), sys)
		if err == nil {
			moved := flushes(t.Context(), t, sys, sys.DBs[i].Port)
			_, err = conn.Exec(t.Context(), c.sql).ReadAll()
			n, longest := moved()
			t.Logf("%-12s of %d rows: the hardened LSN moved %d times, the longest pause between was %v", c.what, rows, n, longest.Round(time.Millisecond))
			conn.Close(t.Context())
		}
		if err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		took := time.Since(start)
		want := one(t, sys, sys.DBs[i].Port, sum)
		for j, d := range sys.DBs {
			for limit := time.Now().Add(time.Minute); one(t, sys, d.Port, sum) != want; pause(t.Context(), 50*time.Millisecond) {
				if time.Now().After(limit) {
					t.Fatalf("%s: %s has %s, the primary %s", c.what, d.Name, one(t, sys, d.Port, sum), want)
				}
			}
			stops[j]()
			mb := peak(t, sys.PID(d.Name))
			t.Logf("%-12s of %d rows in %v: %s used at most %d MB, a reader there waited at most %v",
				c.what, rows, took.Round(time.Millisecond), d.Name, mb, time.Duration(waits[j].Load()).Round(time.Millisecond))
			if mb > limit*3/2 {
				t.Errorf("%s: %s used %d MB, MEMORY_LIMIT is %d", c.what, d.Name, mb, limit)
			}
		}
	}
	// The primary is killed while it writes the parts of a large commit, or
	// around that; nobody ever sees a part of it.
	before := one(t, sys, sys.DBs[0].Port, sum)
	mustExec(t, sys, "CREATE TABLE marks(id INTEGER PRIMARY KEY)")
	old := primary(t, sys)
	conn, i, err := connectPrimary(t.Context(), sys)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	lsn := func() int {
		n, err := strconv.Atoi(one(t, sys, sys.DBs[1-i].Port, "SELECT FILE_LSN FROM V$RLOG"))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	at := lsn()
	done := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "UPDATE big SET k = k + 1, v = v || 'y'").ReadAll()
		done <- err
	}()
	acked := false
	for lsn() < at+3 && !acked { // parts have arrived at the standby
		select {
		case err := <-done:
			acked = err == nil
		default:
		}
	}
	if err := sys.Kill(old); err != nil {
		t.Fatal(err)
	}
	if !acked {
		acked = <-done == nil
	}
	for limit := time.Now().Add(time.Minute); ; pause(t.Context(), 50*time.Millisecond) {
		c, j, err := connectPrimary(t.Context(), sys)
		if err == nil {
			c.Close(t.Context())
			if j == i {
				t.Fatalf("%s is the primary again", old)
			}
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("nobody took over: %v", err)
		}
	}
	after := one(t, sys, sys.DBs[1-i].Port, sum)
	t.Logf("killed in a commit of %d rows (acknowledged: %v): %q before, %q after", rows/2, acked, before, after)
	// All of it or nothing (G6); acknowledged, it is there (G1). What was not
	// acknowledged may be there: the standby had it, and the client was not told.
	var n, k, v int64
	if _, err := fmt.Sscan(before, &n, &k, &v); err != nil {
		t.Fatal(err)
	}
	if whole := fmt.Sprint(n, k+n, v+n); after != whole && (acked || after != before) {
		t.Errorf("before %q, after the takeover %q, acknowledged: %v", before, after, acked)
	}
	mustExec(t, sys, "INSERT INTO marks VALUES (1)")
	if err := sys.WaitHealthy(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, d := range sys.DBs {
		for limit := time.Now().Add(time.Minute); one(t, sys, d.Port, "SELECT count(*) FROM marks") != "1" || one(t, sys, d.Port, sum) != after; pause(t.Context(), 50*time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatalf("%s has %s, the primary %s", d.Name, one(t, sys, d.Port, sum), after)
			}
		}
	}
}

// largeValues sends a value of many megabytes through the protocol, reads it on
// both databases, and makes tables with as many columns as SQLite has.
func largeValues(t *testing.T, sys *dw.System, size, limit int) {
	mustExec(t, sys, "CREATE TABLE b(id INTEGER PRIMARY KEY, v BYTEA)")
	rnd := rand.NewChaCha8([32]byte{1})
	value := make([]byte, size)
	_, _ = rnd.Read(value) // never fails
	for _, d := range sys.DBs {
		peak(t, sys.PID(d.Name))
	}
	conn, _, err := connectPrimary(t.Context(), sys)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	start := time.Now()
	res := conn.ExecParams(t.Context(), "INSERT INTO b VALUES (1, $1)", [][]byte{value}, nil, []int16{1}, nil).Read()
	if res.Err != nil {
		t.Fatal(res.Err)
	}
	wrote := time.Since(start)
	for _, d := range sys.DBs {
		c, err := sys.Connect(t.Context(), d.Port)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(context.Background())
		var got *pgconn.Result
		for limit := time.Now().Add(time.Minute); ; pause(t.Context(), 50*time.Millisecond) {
			if got = c.ExecParams(t.Context(), "SELECT v FROM b", nil, nil, nil, []int16{1}).Read(); got.Err != nil {
				t.Fatal(got.Err)
			}
			if len(got.Rows) == 1 || time.Now().After(limit) {
				break
			}
		}
		if len(got.Rows) != 1 || !bytes.Equal(got.Rows[0][0], value) {
			t.Fatalf("%s: the value of %d bytes did not come back", d.Name, size)
		}
		mb := peak(t, sys.PID(d.Name))
		t.Logf("a value of %d MB, written in %v: %s used at most %d MB", size>>20, wrote.Round(time.Millisecond), d.Name, mb)
		if most := max(limit, 130+4*size>>20); mb > most {
			t.Errorf("a value of %d MB: %s used %d MB, more than %d", size>>20, d.Name, mb, most)
		}
	}
	const most = 2000
	var cols, vals []string
	for i := range most {
		cols, vals = append(cols, fmt.Sprintf("c%d VARCHAR(20)", i)), append(vals, fmt.Sprintf("'%d'", i))
	}
	if _, err := conn.Exec(t.Context(), "CREATE TABLE w("+strings.Join(cols, ",")+")").ReadAll(); err != nil {
		t.Fatalf("a table of %d columns: %v", most, err)
	}
	if _, err := conn.Exec(t.Context(), "INSERT INTO w VALUES("+strings.Join(vals, ",")+")").ReadAll(); err != nil {
		t.Fatal(err)
	}
	got := conn.ExecParams(t.Context(), "SELECT * FROM w", nil, nil, nil, nil).Read()
	if got.Err != nil || len(got.Rows) != 1 || len(got.Rows[0]) != most || string(got.Rows[0][most-1]) != strconv.Itoa(most-1) {
		t.Fatalf("SELECT * of %d columns: %d rows, %v", most, len(got.Rows), got.Err)
	}
	if _, err := conn.Exec(t.Context(), "CREATE TABLE x("+strings.Join(append(cols, "z INTEGER"), ",")+")").ReadAll(); err == nil || !strings.Contains(err.Error(), "54") {
		t.Fatalf("a table of %d columns: %v", most+1, err)
	}
}
