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
	"slices"
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

// benchScan reads every row of dw_scan.
const benchScan = "SELECT count(*), sum(a), max(a), avg(id) FROM dw_scan WHERE a >= 0;\n"

const benchScanRows = "WITH RECURSIVE g(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM g WHERE i < 1000000) " +
	"INSERT INTO dw_scan SELECT i, i * 7, 'a row of about fifty bytes ...................' FROM g"

const benchScanTable = "CREATE TABLE dw_scan(id INTEGER PRIMARY KEY, a INTEGER, b VARCHAR(120))"
const benchReadTable = "CREATE TABLE dw_read(id INTEGER PRIMARY KEY, a INTEGER, b VARCHAR(120))"
const benchTable = "CREATE TABLE dw_bench(id INTEGER PRIMARY KEY, a INTEGER, b VARCHAR(120))"
const benchTablePG = "CREATE TABLE dw_bench(id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a INTEGER, b VARCHAR(120))"

// benchTarget is a running system that pgbench can be pointed at.
type benchTarget struct {
	name     string
	postgres bool
	conn     []string // pgbench connection arguments
	env      []string
	args     []string // of pgbench besides
	stop     func(context.Context) error
}

// benchResult is one pgbench run.
type benchResult struct {
	tps     float64
	latency float64 // average, ms
}

// benchRun is one script and its table of results.
type benchRun struct {
	key         string // names it on the command line
	script      string // of pgbench; empty: builtin
	builtin     string
	title       string
	clients     []int
	standbyCost bool // it has one
	concurrent  bool // also as concurrent transactions
}

var benchRuns = []benchRun{
	{key: "insert", script: benchInsert, title: "Single-row insert, commits per second", clients: []int{1, 16, 64}, standbyCost: true},
	{key: "select", script: benchSelect, title: "Select of one row by primary key, per second", clients: []int{1, 16, 64}},
	{key: "tpcb", builtin: "tpcb-like", title: "pgbench's TPC-B-like transaction (scale 10), per second", clients: []int{1, 16}, standbyCost: true, concurrent: true},
	{key: "scan", script: benchScan, title: "Aggregates over a table of one million rows, per second", clients: []int{1}},
}

// setup makes the tables of the runs.
func setup(runs []benchRun, postgres bool) (sqls []string) {
	for _, b := range runs {
		switch b.key {
		case "insert":
			sqls = append(sqls, map[bool]string{false: benchTable, true: benchTablePG}[postgres])
		case "select":
			sqls = append(sqls, benchReadTable, benchRows)
		case "scan":
			sqls = append(sqls, benchScanTable, benchScanRows)
		}
		if postgres && (b.key == "select" || b.key == "scan") {
			sqls = append(sqls, "VACUUM ANALYZE")
		}
	}
	return sqls
}

// tpcb reports whether pgbench's own tables are needed.
func tpcb(runs []benchRun) bool {
	return slices.ContainsFunc(runs, func(b benchRun) bool { return b.builtin != "" })
}

// BenchOptions say what Bench measures.
type BenchOptions struct {
	Dir     string // of the systems it makes
	Port    int    // the first of 30
	Seconds int    // each pgbench takes
	Rounds  int    // in each every system has its turn
	Only    string // keys of benchRuns, separated by commas; empty: all
}

func (o BenchOptions) runs() ([]benchRun, error) {
	if o.Seconds < 1 || o.Rounds < 1 {
		return nil, fmt.Errorf("-seconds %d -rounds %d: at least 1 of each", o.Seconds, o.Rounds)
	}
	if o.Only == "" {
		return benchRuns, nil
	}
	var rs []benchRun
	for _, key := range strings.Split(o.Only, ",") {
		i := slices.IndexFunc(benchRuns, func(b benchRun) bool { return b.key == key })
		if i < 0 {
			return nil, fmt.Errorf("-only %s: there is insert, select, tpcb and scan", key)
		}
		rs = append(rs, benchRuns[i])
	}
	return rs, nil
}

// Bench measures with one realtime standby, without one, and PostgreSQL with
// one synchronous standby where its server is installed. The systems take turns,
// round by round, so that a slow moment of the machine hits all of them. The
// tables have the medians of the rounds; ratios are taken within each round, and
// their median is shown.
func Bench(ctx context.Context, o BenchOptions, bin string, out io.Writer) error {
	runs, err := o.runs()
	if err != nil {
		return err
	}
	if _, err := exec.LookPath("pgbench"); err != nil {
		return fmt.Errorf("pgbench is needed (Debian: postgresql-contrib or postgresql-client): %w", err)
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return err
	}
	targets, err := benchTargets(ctx, o.Dir, o.Port, runs, bin, out)
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
	for _, b := range runs {
		if err := b.measure(ctx, o, targets, out); err != nil {
			return err
		}
	}
	return nil
}

// rates are transactions per second by target, number of clients and round.
type rates []map[int][]float64

// measure runs one script against all targets and prints its table.
func (b benchRun) measure(ctx context.Context, o BenchOptions, targets []benchTarget, out io.Writer) error {
	what := []string{"-b", b.builtin}
	if b.script != "" {
		file := filepath.Join(o.Dir, b.key+".sql")
		if err := os.WriteFile(file, []byte(b.script), 0o644); err != nil {
			return err
		}
		what = []string{"-f", file}
	}
	if b.concurrent {
		targets = append(slices.Clone(targets), concurrently(targets[0]))
	}
	res := make(rates, len(targets))
	for i := range res {
		res[i] = map[int][]float64{}
	}
	for _, c := range b.clients {
		for r := range o.Rounds {
			for i, t := range targets {
				x, err := t.run(ctx, what, c, o.Seconds)
				if err != nil {
					return fmt.Errorf("%s, %s, %d clients: %w", t.name, b.key, c, err)
				}
				fmt.Fprintf(out, "  %-6s  %-42s %3d clients  round %d  %9.1f/s  %8.3f ms\n", b.key, t.name, c, r+1, x.tps, x.latency)
				res[i][c] = append(res[i][c], x.tps)
			}
		}
	}
	b.print(out, targets, res, o)
	return nil
}

func (b benchRun) print(out io.Writer, targets []benchTarget, res rates, o BenchOptions) {
	fmt.Fprintf(out, "\n%s (pgbench -M prepared, median of %d rounds of %d s), by clients\n\n", b.title, o.Rounds, o.Seconds)
	row := func(name string, cell func(clients int) string) {
		fmt.Fprintf(out, "| %-42s |", name)
		for _, c := range b.clients {
			fmt.Fprintf(out, " %9s |", cell(c))
		}
		fmt.Fprintln(out)
	}
	row("system", strconv.Itoa)
	row(strings.Repeat("-", 42), func(int) string { return "--------:" })
	for i, t := range targets {
		row(t.name, func(c int) string {
			if m := median(res[i][c]); m >= 100 {
				return fmt.Sprintf("%.0f", m)
			} else {
				return fmt.Sprintf("%.1f", m)
			}
		})
	}
	if b.standbyCost {
		row("cost of the realtime standby", func(c int) string { return fmt.Sprintf("%.1f%%", 100*(1-ratio(res[0][c], res[1][c]))) })
	}
	if i := slices.IndexFunc(targets, func(t benchTarget) bool { return t.postgres }); i >= 0 {
		row("with standby / PostgreSQL with standby", func(c int) string { return fmt.Sprintf("%.2fx", ratio(res[0][c], res[i][c])) })
		if n := len(targets) - 1; b.concurrent {
			row("concurrent / PostgreSQL with standby", func(c int) string { return fmt.Sprintf("%.2fx", ratio(res[n][c], res[i][c])) })
		}
	}
	fmt.Fprintln(out)
}

// ratio is the median of the ratios of the rounds.
func ratio(a, b []float64) float64 {
	var q []float64
	for i := range a {
		q = append(q, a[i]/b[i])
	}
	return median(q)
}

func median(x []float64) float64 {
	x = slices.Sorted(slices.Values(x))
	n := len(x)
	return (x[n/2] + x[(n-1)/2]) / 2
}

// concurrently is a target whose transactions do without the write lock until
// their COMMIT. One that meets another is run again by pgbench, which needs to be
// told so.
func concurrently(t benchTarget) benchTarget {
	t.name = "Datawatch, one standby, concurrent trx."
	t.env = append(slices.Clone(t.env), "PGOPTIONS=-c default_transaction_concurrent=on")
	t.args = []string{"--max-tries=100"}
	return t
}

// benchTargets starts the systems; those started are returned even on error.
func benchTargets(ctx context.Context, dir string, port int, runs []benchRun, bin string, out io.Writer) ([]benchTarget, error) {
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
		err = execAll(ctx, c, setup(runs, false)...)
		c.Close(ctx)
		if err == nil && tpcb(runs) {
			err = ts[len(ts)-1].initTPCB(ctx)
		}
		if err != nil {
			return ts, fmt.Errorf("%s: %w", name, err)
		}
	}
	pg, err := startPostgres(ctx, filepath.Join(dir, "pg"), port+20, runs)
	if errors.Is(err, errNoPostgres) {
		fmt.Fprintln(out, "PostgreSQL's server is not installed here; measuring without it")
		return ts, nil
	} else if err != nil {
		return ts, err
	}
	ts = append(ts, *pg)
	if tpcb(runs) {
		err = pg.initTPCB(ctx)
	}
	return ts, err
}

// initTPCB makes the tables of pgbench's own scripts.
func (t benchTarget) initTPCB(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "pgbench", append([]string{"-i", "-q", "-s", "10"}, t.conn...)...)
	cmd.Env = append(os.Environ(), t.env...)
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pgbench -i: %w\n%s", err, b)
	}
	return nil
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
func (t benchTarget) run(ctx context.Context, what []string, clients, seconds int) (benchResult, error) {
	args := append([]string{"-n", "-M", "prepared", "-c", strconv.Itoa(clients), "-j", strconv.Itoa(min(clients, 2)), "-T", strconv.Itoa(seconds)}, what...)
	args = append(append(args, t.args...), t.conn...)
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
