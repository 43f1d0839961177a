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
)

// benchScript is the single-row insert every system runs, through the same
// pgbench, prepared.
const benchScript = "\\set id random(1, 1000000000)\nINSERT INTO dw_bench(a, b) VALUES (:id, 'a row of about one hundred bytes, as an order or a reading may have ...........................');\n"

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

// Bench measures commits per second of single-row inserts with one realtime
// standby, without one, and of PostgreSQL with one synchronous standby where
// its server is installed. The systems take turns, round by round, so that a
// slow moment of the machine hits all of them; the best round counts.
func Bench(ctx context.Context, dir string, port, seconds, rounds int, bin string, out io.Writer) error {
	if _, err := exec.LookPath("pgbench"); err != nil {
		return fmt.Errorf("pgbench is needed (Debian: postgresql-contrib or postgresql-client): %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	script := filepath.Join(dir, "insert.sql")
	if err := os.WriteFile(script, []byte(benchScript), 0o644); err != nil {
		return err
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
	clients := []int{1, 16, 64}
	res := make([]map[int]benchResult, len(targets))
	for i := range res {
		res[i] = map[int]benchResult{}
	}
	for _, c := range clients {
		for r := 0; r < rounds; r++ {
			for i, t := range targets {
				x, err := t.run(ctx, script, c, seconds)
				if err != nil {
					return fmt.Errorf("%s, %d clients: %w", t.name, c, err)
				}
				fmt.Fprintf(out, "  %-42s %3d clients  round %d  %9.0f commits/s  %7.3f ms\n", t.name, c, r+1, x.tps, x.latency)
				if x.tps > res[i][c].tps {
					res[i][c] = x
				}
			}
		}
	}
	printBench(out, targets, clients, res, seconds, rounds)
	return nil
}

func printBench(out io.Writer, targets []benchTarget, clients []int, res []map[int]benchResult, seconds, rounds int) {
	fmt.Fprintf(out, "\nSingle-row insert, commits per second (pgbench -M prepared, %d s, best of %d)\n\n", seconds, rounds)
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
	ratio("cost of the realtime standby", 0, 1, true)
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
		c, err := connect(ctx, o.Port)
		if err != nil {
			return ts, err
		}
		_, err = c.Exec(ctx, benchTable).ReadAll()
		c.Close(ctx)
		if err != nil {
			return ts, fmt.Errorf("%s: %s: %w", name, benchTable, err)
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
