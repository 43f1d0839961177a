package dw

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// benchInsert is the single-row insert and benchSelect the read by primary key
// that every system runs, through the same pgbench, prepared.
const benchInsert = "\\set id random(1, 1000000000)\nINSERT INTO dw_bench(a, b) VALUES (:id, 'a row of about one hundred bytes, as an order or a reading may have ...........................');\n"

const benchSelect = "\\set id random(1, 100000)\nSELECT a, b FROM dw_read WHERE id = :id;\n"

// benchRows rows are in the table that is read, the same in every system.
const benchRows = "WITH RECURSIVE g(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM g WHERE i < 100000) " +
	"INSERT INTO dw_read SELECT i, i * 7, 'a row of about one hundred bytes, as an order or a reading may have ...........................' FROM g"

const benchReadTable = "CREATE TABLE dw_read(id INTEGER PRIMARY KEY, a INTEGER, b VARCHAR(120))"
const benchTable = "CREATE TABLE dw_bench(id INTEGER PRIMARY KEY, a INTEGER, b VARCHAR(120))"
const benchTablePG = "CREATE TABLE dw_bench(id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a INTEGER, b VARCHAR(120))"

// benchTarget is a running system that pgbench can be pointed at.
type benchTarget struct {
	name string
	conn []string // pgbench connection arguments
	env  []string
	stop func(context.Context) error
}

// benchResult is one pgbench run.
type benchResult struct {
	tps     float64
	latency float64 // average, ms
}

// benchRun is one script and its table of results.
type benchRun struct {
	file, text, title, unit string
	standbyCost             bool // it has one
}

var benchRuns = []benchRun{
	{"insert.sql", benchInsert, "Single-row insert, commits per second", "commits/s", true},
	{"select.sql", benchSelect, "Select of one row by primary key, per second", "selects/s", false},
}

// Bench measures commits per second of single-row inserts, and selects by
// primary key, with one realtime standby, without one, and of PostgreSQL with
// one synchronous standby where its server is installed. The systems take turns,
// round by round, so that a slow moment of the machine hits all of them; the
// best round counts.
func Bench(ctx context.Context, dir string, port, seconds, rounds int, bin string, out io.Writer) error {
	if _, err := exec.LookPath("pgbench"); err != nil {
		return fmt.Errorf("pgbench is needed (Debian: postgresql-contrib or postgresql-client): %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, b := range benchRuns {
		if err := os.WriteFile(filepath.Join(dir, b.file), []byte(b.text), 0o644); err != nil {
			return err
		}
	}
	targets, err := benchTargets(ctx, dir, port, bin, out)
	defer func() {
		for _, t := range targets {
			if err := t.stop(context.WithoutCancel(ctx)); err != nil {
				fmt.Fprintf(out, "stopping %s: %v\n", t.name, err)
			}
		}
	}()
	if err != nil {
		return err
	}
	for _, b := range benchRuns {
		if err := b.measure(ctx, dir, targets, seconds, rounds, out); err != nil {
			return err
		}
	}
	return nil
}

// measure runs one script against all targets and prints its table.
func (b benchRun) measure(ctx context.Context, dir string, targets []benchTarget, seconds, rounds int, out io.Writer) error {
	clients := []int{1, 16, 64}
	res := make([]map[int]benchResult, len(targets))
	for i := range res {
		res[i] = map[int]benchResult{}
	}
	for _, c := range clients {
		for r := 0; r < rounds; r++ {
			for i, t := range targets {
				x, err := t.run(ctx, filepath.Join(dir, b.file), c, seconds)
				if err != nil {
					return fmt.Errorf("%s, %s, %d clients: %w", t.name, b.file, c, err)
				}
				fmt.Fprintf(out, "  %-42s %3d clients  round %d  %9.0f %s  %7.3f ms\n", t.name, c, r+1, x.tps, b.unit, x.latency)
				if x.tps > res[i][c].tps {
					res[i][c] = x
				}
			}
		}
	}
	b.print(out, targets, clients, res, seconds, rounds)
	return nil
}

func (b benchRun) print(out io.Writer, targets []benchTarget, clients []int, res []map[int]benchResult, seconds, rounds int) {
	fmt.Fprintf(out, "\n%s (pgbench -M prepared, %d s, best of %d), by clients\n\n", b.title, seconds, rounds)
	fmt.Fprintf(out, "| %-42s |", "system")
	for _, c := range clients {
		fmt.Fprintf(out, " %9s |", fmt.Sprintf("%d", c))
	}
	fmt.Fprintln(out)
	for i, t := range targets {
		fmt.Fprintf(out, "| %-42s |", t.name)
		for _, c := range clients {
			fmt.Fprintf(out, " %9.0f |", res[i][c].tps)
		}
		fmt.Fprintln(out)
	}
	ratio := func(name string, a, b int, cost bool) {
		fmt.Fprintf(out, "| %-42s |", name)
		for _, c := range clients {
			v := res[a][c].tps / res[b][c].tps
			if cost {
				fmt.Fprintf(out, " %8.1f%% |", 100*(1-v))
			} else {
				fmt.Fprintf(out, " %8.2fx |", v)
			}
		}
		fmt.Fprintln(out)
	}
	if b.standbyCost {
		ratio("cost of the realtime standby", 0, 1, true)
	}
	if len(targets) > 2 {
		ratio("with standby / PostgreSQL with standby", 0, 2, false)
	}
}

// benchTargets starts the systems; those started are returned even on error.
func benchTargets(ctx context.Context, dir string, port int, bin string, out io.Writer) ([]benchTarget, error) {
	var ts []benchTarget
	for i, n := range []int{1, 0} {
		o := Options{Dir: filepath.Join(dir, fmt.Sprintf("dw%d", n)), Standbys: n, Mode: "auto", Monitors: n, Port: port + 10*i}
		name := "Datawatch, one realtime standby"
		if n == 0 {
			o.Mode, name = "manual", "Datawatch, no standby"
		}
		fmt.Fprintf(out, "starting: %s\n", name)
		s, err := Up(ctx, o, bin, io.Discard)
		if err != nil {
			return ts, fmt.Errorf("%s: %w", name, err)
		}
		ts = append(ts, benchTarget{name: name,
			conn: []string{"-h", "127.0.0.1", "-p", strconv.Itoa(o.Port), "-U", defaultUser, "DAMENG"},
			env:  []string{"PGPASSWORD=" + defaultPassword, "PGSSLMODE=disable"},
			stop: func(ctx context.Context) error { return s.Down(ctx, true, io.Discard) }})
		c, err := Connect(ctx, o.Port)
		if err != nil {
			return ts, err
		}
		err = execAll(ctx, c, benchTable, benchReadTable, benchRows)
		c.Close(ctx)
		if err != nil {
			return ts, fmt.Errorf("%s: %w", name, err)
		}
	}
	pg, err := startPostgres(ctx, filepath.Join(dir, "pg"), port+20)
	if errors.Is(err, errNoPostgres) {
		fmt.Fprintln(out, "PostgreSQL's server is not installed here; measuring without it")
		return ts, nil
	} else if err != nil {
		return ts, err
	}
	ts = append(ts, *pg)
	return ts, nil
}

func execAll(ctx context.Context, c *pgconn.PgConn, sqls ...string) error {
	for _, q := range sqls {
		if _, err := c.Exec(ctx, q).ReadAll(); err != nil {
			return fmt.Errorf("%s: %w", q, err)
		}
	}
	return nil
}

var (
	tpsLine     = regexp.MustCompile(`(?m)^tps = ([0-9.]+)`)
	latencyLine = regexp.MustCompile(`(?m)^latency average = ([0-9.]+) ms`)
	failedLine  = regexp.MustCompile(`(?m)^number of failed transactions: ([0-9]+)`)
)

// run is one pgbench run; failed transactions are an error.
func (t benchTarget) run(ctx context.Context, script string, clients, seconds int) (benchResult, error) {
	args := append([]string{"-n", "-M", "prepared", "-f", script, "-c", strconv.Itoa(clients), "-j", "2", "-T", strconv.Itoa(seconds)}, t.conn...)
	cmd := exec.CommandContext(ctx, "pgbench", args...)
	cmd.Env = append(os.Environ(), t.env...)
	b, err := cmd.CombinedOutput()
	if err != nil {
		return benchResult{}, fmt.Errorf("pgbench %s: %w\n%s", strings.Join(args, " "), err, b)
	}
	m, l := tpsLine.FindSubmatch(b), latencyLine.FindSubmatch(b)
	if m == nil || l == nil {
		return benchResult{}, fmt.Errorf("pgbench printed no result:\n%s", b)
	}
	if f := failedLine.FindSubmatch(b); f != nil && string(f[1]) != "0" {
		return benchResult{}, fmt.Errorf("pgbench: %s failed transactions", f[1])
	}
	var r benchResult
	if r.tps, err = strconv.ParseFloat(string(m[1]), 64); err != nil {
		return r, err
	}
	r.latency, err = strconv.ParseFloat(string(l[1]), 64)
	return r, err
}

// benchTimeout bounds the start of a peer.
const (
	benchTimeout = 60 * time.Second
	benchPoll    = 100 * time.Millisecond
)
