package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"datawatch/internal/app/dw"
)

// timesOf are the error times of a group: dw's short ones for tests, dw's own,
// and those of docs/parameters.md.
type timesOf struct {
	name    string
	fast    bool
	watcher [][2]string
	mal     [][2]string
	dwError time.Duration // DW_ERROR_TIME
}

var (
	shortTimes   = timesOf{name: "DW_ERROR_TIME 3 s", fast: true, dwError: 3 * time.Second}
	dwTimes      = timesOf{name: "DW_ERROR_TIME 6 s (dw up)", dwError: 6 * time.Second}
	defaultTimes = timesOf{name: "DW_ERROR_TIME 15 s (defaults)", dwError: 15 * time.Second,
		watcher: [][2]string{{"DW_ERROR_TIME", "15"}, {"INST_ERROR_TIME", "15"}, {"DW_RECONNECT", "1"}},
		mal:     [][2]string{{"MAL_CHECK_INTERVAL", "30"}, {"MAL_CONN_FAIL_INTERVAL", "10"}}}
)

// measure is one row of the table: durations and what they may be.
type measure struct {
	what, times string
	got         []time.Duration
	median, max time.Duration // targets; 0: none
}

func (m measure) missed() string {
	s := slices.Sorted(slices.Values(m.got))
	switch {
	case len(s) == 0:
		return "nothing was measured"
	case m.median > 0 && s[len(s)/2] > m.median:
		return fmt.Sprintf("the median must be at most %v", m.median)
	case m.max > 0 && s[len(s)-1] > m.max:
		return fmt.Sprintf("the maximum must be at most %v", m.max)
	}
	return ""
}

func (m measure) row() string {
	s := slices.Sorted(slices.Values(m.got))
	if len(s) == 0 {
		return fmt.Sprintf("| %s | %s | 0 | | | | | |", m.what, m.times)
	}
	q := func(p float64) string {
		return fmt.Sprintf("%.2f", s[min(len(s)-1, int(p*float64(len(s))))].Seconds())
	}
	target := ""
	if m.median > 0 {
		target = fmt.Sprintf("median %g, ", m.median.Seconds())
	}
	if m.max > 0 {
		target += fmt.Sprintf("max %g", m.max.Seconds())
	}
	return fmt.Sprintf("| %s | %s | %d | %s | %s | %s | %s | %s |", m.what, m.times, len(s), q(0), q(.5), q(.99), q(1), target)
}

// TestMeasured measures, on machines of their own, how long the clients of a
// group have to wait when something fails, DW_SAMPLES times each (in make
// chaos 20), with short error times and, from 5 samples on, with those of dw and
// the defaults too; DW_TIMES=3,15 takes those with these DW_ERROR_TIMEs. It prints
// a table for docs/measured.md, which DW_UPDATE=1 writes. Six clients have a list of
// hosts and connect_timeout=2, the shortest that libpq has: they give up waiting for
// a machine or an answer after 2 s, and so find a new primary 2, 4 or 6 s after the
// old one is lost. Two more, each of one database, show when it takes writes.
func TestMeasured(t *testing.T) {
	if os.Getenv(labEnv) == "" {
		t.Parallel()
	}
	if os.Getenv("DW_SAMPLES") == "" {
		t.Skip("takes minutes: DW_SAMPLES=5 measures everything five times")
	}
	if !inLab(t) {
		return
	}
	samples := envInt("DW_SAMPLES", 1)
	all := []timesOf{shortTimes, dwTimes, defaultTimes}
	if only := os.Getenv("DW_TIMES"); only != "" {
		all = slices.DeleteFunc(all, func(ts timesOf) bool {
			return !slices.Contains(strings.Split(only, ","), fmt.Sprint(ts.dwError.Seconds()))
		})
	} else if samples < 5 {
		all = all[:1]
	}
	var table []measure
	for _, ts := range all {
		t.Run(ts.name, func(t *testing.T) {
			n := samples
			if ts.dwError > 10*time.Second {
				n = max(2, samples/4) // each takes a minute and more
			}
			l, ld := labUnderLoad(t, labOptions{Options: dw.Options{Standbys: 1, Mode: "auto", Monitors: 1, Fast: ts.fast}, Watcher: ts.watcher, MAL: ts.mal, Direct: true})
			ld.setPatience(2 * time.Second)
			changes := 0
			for _, m := range []struct {
				measure
				hit func(t *testing.T, l *lab, prim string) (repair func())
			}{
				{measure{"the primary's process is killed", ts.name, nil, 2 * time.Second, 4 * time.Second}, crash},
				{measure{"the primary's machine is lost", ts.name, nil, 0, ts.dwError + 3*time.Second}, loseMachine},
				{measure{"the primary's inner card fails", ts.name, nil, 0, ts.dwError + 3*time.Second}, losePrimaryCard},
				{measure{"the standby's machine is lost", ts.name, nil, 0, ts.dwError + 3*time.Second}, loseStandby},
			} {
				libpq := measure{what: m.what + ": clients with connect_timeout=2", times: ts.name}
				for range n {
					took, retried, changed := l.sample(t, ld, m.hit)
					m.got, libpq.got = append(m.got, took), append(libpq.got, retried)
					if changed {
						changes++
					}
				}
				table = append(table, m.measure, libpq)
			}
			ld.stop()
			ld.check(t, changes)
			table = append(table, l.measureSwitchovers(t, ts, max(2, n))...)
		})
	}
	var b strings.Builder
	fmt.Fprintf(&b, "| what | error times | samples | min | median | p99 | max | target |\n|---|---|--:|--:|--:|--:|--:|---|\n")
	for _, m := range table {
		fmt.Fprintln(&b, m.row())
		if why := m.missed(); why != "" {
			t.Errorf("%s, %s: %s", m.what, m.times, why)
		}
	}
	t.Logf("seconds until the next commit is acknowledged:\n%s", b.String())
	if os.Getenv("DW_UPDATE") != "" {
		writeMeasured(t, b.String())
	}
}

// writeMeasured puts the table in the place of the one in docs/measured.md.
func writeMeasured(t *testing.T, table string) {
	const path = "../../docs/measured.md"
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(b), "| what | error times |")
	_, tail, ok2 := strings.Cut(rest, "\n\n")
	if !ok || !ok2 {
		t.Fatalf("%s has no table of times", path)
	}
	if err := os.WriteFile(path, []byte(head+table+"\n"+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}

// sample does one fault and waits for everything to be well again: how long until
// anybody's next commit, and until the next one of a client with a list of hosts.
func (l *lab) sample(t *testing.T, ld *load, hit func(*testing.T, *lab, string) func()) (took, retried time.Duration, changed bool) {
	t.Helper()
	healthy(t, l.sys)
	waitTakeoverReady(t)
	ld.flows(t, 20*time.Second)
	prim := primary(t, l.sys)
	at := time.Now()
	repair := hit(t, l, prim)
	first, ok := ld.waitAckAfter(t.Context(), at, 90*time.Second)
	if !ok {
		t.Fatalf("no commit was acknowledged:\n%s", timeline(l.sys, at.Add(-time.Second), time.Now()))
	}
	listed, ok := ld.waitAckOf(t.Context(), at, 90*time.Second, func(client int) bool { return client < directClient })
	if !ok {
		t.Fatal("no commit of a client with a list of hosts was acknowledged")
	}
	took, retried = first.Sub(at), listed.Sub(at)
	if os.Getenv("DW_TIMELINES") != "" {
		t.Logf("%v:\n%s", took, timeline(l.sys, at.Add(-500*time.Millisecond), first.Add(100*time.Millisecond)))
	}
	repair()
	healthy(t, l.sys)
	return took, retried, primary(t, l.sys) != prim
}

func crash(t *testing.T, l *lab, prim string) func() {
	kill(t, l.sys, prim)
	return func() {}
}

func loseMachine(t *testing.T, l *lab, prim string) func() {
	return l.lose(t, "W_"+prim, prim)
}

// lose is a machine that loses its power: nothing ends its connections. The
// repair gives it power and starts what its system would start, the first of
// the processes.
func (l *lab) lose(t *testing.T, processes ...string) (repair func()) {
	t.Helper()
	m := l.of(processes[0])
	repairs := []func(){m.inner.fail(t, silent)}
	if m.outer != nil {
		repairs = append(repairs, m.outer.fail(t, silent))
	}
	kill(t, l.sys, processes...)
	return func() {
		for _, r := range repairs {
			r()
		}
		if err := l.sys.Start(processes[0]); err != nil {
			t.Fatal(err)
		}
	}
}

func losePrimaryCard(t *testing.T, l *lab, prim string) func() {
	return l.of(prim).inner.fail(t, unplugged)
}

func loseStandby(t *testing.T, l *lab, prim string) func() {
	return loseMachine(t, l, standbyOf(l.sys, prim))
}

// measureSwitchovers swaps the roles under clients that retry: they must see no
// error but those that say so, and all their rows arrive.
func (l *lab) measureSwitchovers(t *testing.T, ts timesOf, n int) []measure {
	pauseOf := measure{"switchover: no commit of anybody", ts.name, nil, 0, 500 * time.Millisecond}
	waitOf := measure{"switchover: one statement", ts.name, nil, 0, 0}
	p := &patient{done: map[rowKey]bool{}, unexpected: map[string]int{}}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for c := range 6 {
		wg.Go(func() { p.write(ctx, l.sys, 100+c) })
	}
	defer wg.Wait()
	defer cancel()
	m := monitor(t, l.sys)
	for range n {
		healthy(t, l.sys)
		pause(t.Context(), time.Second)
		prim := primary(t, l.sys)
		at := time.Now()
		p.reset()
		sctx, stop := context.WithTimeout(t.Context(), 60*time.Second)
		err := m.Switchover(sctx, l.sys.Group, standbyOf(l.sys, prim))
		stop()
		if err != nil {
			t.Fatalf("switchover: %v\n%s", err, timeline(l.sys, at, time.Now()))
		}
		pause(t.Context(), 500*time.Millisecond)
		gap, longest := p.since(at)
		pauseOf.got, waitOf.got = append(pauseOf.got, gap), append(waitOf.got, longest)
		if os.Getenv("DW_TIMELINES") != "" {
			t.Logf("gap %v, longest statement %v:\n%s", gap, longest, timeline(l.sys, at, time.Now()))
		}
	}
	cancel()
	wg.Wait()
	for why, k := range p.unexpected {
		t.Errorf("a retrying client saw %d times: %s", k, why)
	}
	settle(t, l.sys)
	for _, d := range l.sys.DBs {
		set, lost := rows(t, l.sys, d.Port), 0
		for k := range p.done {
			if !set[k] {
				lost++
			}
		}
		if lost > 0 {
			t.Errorf("%s lacks %d of %d acknowledged rows", d.Name, lost, len(p.done))
		}
	}
	return []measure{pauseOf, waitOf}
}
