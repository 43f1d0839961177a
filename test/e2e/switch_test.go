package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"datawatch/dwmon"
	"datawatch/internal/app/dw"
)

// patient is a client that retries until it has an answer, as an application
// with a failover driver does. It counts what no such application expects.
type patient struct {
	mu         sync.Mutex
	done       map[rowKey]bool
	unexpected map[string]int
	longest    time.Duration
	answers    []time.Time // of acknowledged rows since reset
	recent     time.Duration
}

// reset begins what since measures.
func (p *patient) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers, p.recent = nil, 0
}

// since returns the longest time without an acknowledgement to anybody, from a
// moment until now, and the longest wait of one client.
func (p *patient) since(from time.Time) (gap, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := from
	for _, a := range append(p.answers, time.Now()) {
		gap, last = max(gap, a.Sub(last)), a
	}
	return gap, p.recent
}

// write inserts one row after the other; each must succeed in the end.
func (p *patient) write(ctx context.Context, sys *dw.System, client int) {
	var conn *pgconn.PgConn
	defer func() {
		if conn != nil {
			conn.Close(context.Background())
		}
	}()
	for seq := 1; ctx.Err() == nil; seq++ {
		start, tried := time.Now(), false
		for ctx.Err() == nil {
			actx, cancel := context.WithTimeout(ctx, 5*time.Second)
			var err error
			if conn == nil {
				conn, _, err = connectPrimary(actx, sys)
			}
			if err == nil {
				_, err = conn.Exec(actx, fmt.Sprintf("INSERT INTO w VALUES (%d, %d, 'x')", client, seq)).ReadAll()
				var pe *pgconn.PgError
				if tried && errors.As(err, &pe) && pe.Code == "23505" {
					err = nil // an earlier try of unknown outcome had succeeded
				}
				tried = true
			} else {
				conn = nil
			}
			cancel()
			if err == nil {
				p.mu.Lock()
				p.done[rowKey{client, seq}] = true
				p.longest, p.recent = max(p.longest, time.Since(start)), max(p.recent, time.Since(start))
				p.answers = append(p.answers, time.Now())
				p.mu.Unlock()
				break
			}
			if why := surprising(err); why != "" && ctx.Err() == nil {
				p.mu.Lock()
				p.unexpected[why]++
				p.mu.Unlock()
			}
			if conn != nil {
				conn.Close(context.Background())
				conn = nil
			}
			pause(ctx, 20*time.Millisecond)
		}
	}
}

// surprising names an error that is not one of a database that changes its
// role, starts, ends or is gone.
func surprising(err error) string {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		return "" // connection refused, closed, timed out, or no host is read-write
	}
	switch pe.Code {
	case "25006", // read only: a standby now
		"40001", "40003", "08006", "08007", // rolled back, outcome unknown, link lost
		"57P01", "57P02", "57P03": // ends, crashed, not open
		return ""
	}
	return pe.Code + " " + pe.Message
}

// TestSwitchover swaps the roles back and forth under load. A client that
// retries sees no error but those it retries on, and every row arrives.
func TestSwitchover(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real processes")
	}
	t.Parallel()
	sys := up(t, dw.Options{Standbys: 1, Mode: "auto", Monitors: 1, Fast: true})
	mustExec(t, sys, loadTable)
	p := &patient{done: map[rowKey]bool{}, unexpected: map[string]int{}}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for c := range 6 {
		wg.Go(func() { p.write(ctx, sys, c) })
	}
	defer wg.Wait()
	defer cancel()
	pool := primaryPool(t, sys)
	m := monitor(t, sys)
	rounds := envInt("DW_SWITCHOVERS", 5)
	for r := range rounds {
		prim := primary(t, sys)
		to := standbyOf(sys, prim)
		// Others have heard that all is well; this monitor may hear it a moment later.
		waitFor(t, "the monitor to find that a switchover is possible", 20*time.Second, func() bool {
			l, err := m.ChooseSwitchover(sys.Group)
			return err == nil && slices.ContainsFunc(l, func(c dwmon.Choice) bool { return c.Name == to && c.OK })
		})
		at := time.Now()
		sctx, stop := context.WithTimeout(t.Context(), 40*time.Second)
		err := m.Switchover(sctx, sys.Group, to)
		stop()
		if err != nil {
			t.Fatalf("switchover %d to %s: %v\n%s", r+1, to, err, timeline(sys, at, time.Now()))
		}
		t.Logf("switchover %d to %s took %v", r+1, to, time.Since(at).Round(time.Millisecond))
		if now := primary(t, sys); now != to {
			t.Fatalf("%s is primary after the switchover to %s", now, to)
		}
		poolFollows(t, pool, r)
		healthy(t, sys)
	}
	cancel()
	wg.Wait()
	for why, n := range p.unexpected {
		t.Errorf("a retrying client saw %d times: %s", n, why)
	}
	settle(t, sys)
	for _, d := range sys.DBs {
		set := rows(t, sys, d.Port)
		lost := 0
		for k := range p.done {
			if !set[k] {
				lost++
			}
		}
		t.Logf("%s: %d rows, %d acknowledged, %d lost; the longest wait of a client was %v", d.Name, len(set), len(p.done), lost, p.longest.Round(time.Millisecond))
		if lost > 0 || len(p.done) < 100 {
			t.Errorf("%d of %d acknowledged rows are lost", lost, len(p.done))
		}
	}
	if p.longest > 10*time.Second {
		t.Errorf("a client waited for %v", p.longest)
	}
}

// primaryPool is a pool of connections to the primary that knows nothing of
// switchovers.
func primaryPool(t *testing.T, sys *dw.System) *pgxpool.Pool {
	t.Helper()
	var hosts []string
	for _, d := range sys.DBs {
		hosts = append(hosts, "127.0.0.1:"+strconv.Itoa(d.Port))
	}
	cfg, err := pgxpool.ParseConfig("postgres://SYSDBA:SYSDBA@" + strings.Join(hosts, ",") + "/DAMENG?sslmode=prefer&target_session_attrs=read-write&connect_timeout=2")
	if err != nil {
		t.Fatal(err)
	}
	cfg.MinConns, cfg.MaxConns = 4, 4
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	mustExec(t, sys, "CREATE TABLE pooled(r INT, n INT)")
	var held []*pgxpool.Conn
	for range 4 {
		c, err := pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	for _, c := range held {
		c.Release()
	}
	return pool
}

// poolFollows: after a switchover every connection of the pool, in use or not,
// has gone, so that writes by it reach the new primary, after at most one error
// for each.
func poolFollows(t *testing.T, pool *pgxpool.Pool, round int) {
	t.Helper()
	failed := 0
	for n := 0; n < 8; {
		_, err := pool.Exec(t.Context(), "INSERT INTO pooled VALUES ($1, $2)", round, n)
		if err == nil {
			n++
			continue
		}
		if failed++; failed > 4 || surprising(err) != "" {
			t.Fatalf("pool, error %d after the switchover: %v", failed, err)
		}
	}
}

// TestManualTakeover: in MANUAL mode nothing is taken over by itself; the
// command does it (manual 6.6), and the old primary rejoins.
func TestManualTakeover(t *testing.T) {
	sys, l := underLoad(t, dw.Options{Standbys: 1, Mode: "manual"})
	m := monitor(t, sys)
	prim := primary(t, sys)
	to := standbyOf(sys, prim)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if err := m.Takeover(ctx, sys.Group, to, false); err == nil {
		t.Fatal("takeover from a healthy primary was not refused")
	} else {
		t.Logf("refused: %v", err)
	}
	at := time.Now()
	kill(t, sys, "W_"+prim, prim)
	waitFor(t, "choose takeover to offer "+to, 20*time.Second, func() bool {
		cs, err := m.ChooseTakeover(sys.Group, false)
		if err != nil {
			return false
		}
		for _, c := range cs {
			if strings.EqualFold(c.Name, to) && c.OK {
				return true
			}
		}
		return false
	})
	if l.last.Load() > at.Add(time.Second).UnixNano() {
		t.Error("somebody took over in MANUAL mode without a command")
	}
	if err := m.Takeover(ctx, sys.Group, to, false); err != nil {
		t.Fatalf("takeover: %v\n%s", err, timeline(sys, at, time.Now()))
	}
	t.Logf("taken over; the next commit was acknowledged after %v", l.flows(t, 20*time.Second))
	if now := primary(t, sys); now != to {
		t.Errorf("%s is primary, not %s", now, to)
	}
	dwCommand(t, sys, "start", "W_"+prim)
	healthy(t, sys)
	l.stop()
	l.check(t, 1)
}

// TestStopAndStart: an ordered stop by the monitor and by dw, and starts after
// them, keep everything (manual 6.4).
func TestStopAndStart(t *testing.T) {
	sys, l := underLoad(t, dw.Options{Standbys: 1, Mode: "auto", Monitors: 1})
	prim := primary(t, sys)
	m := monitor(t, sys)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
	defer cancel()
	if err := m.StopGroup(ctx, sys.Group); err != nil {
		t.Fatalf("stop group: %v", err)
	}
	for _, d := range sys.DBs {
		waitFor(t, d.Name+" to end", 10*time.Second, func() bool { return sys.PID(d.Name) == 0 })
	}
	if err := m.StartupGroup(ctx, sys.Group); err != nil {
		t.Fatalf("startup group: %v", err)
	}
	healthy(t, sys)
	t.Logf("after stop group and startup group a commit took %v", l.flows(t, 20*time.Second))
	m.Close()
	dwCommand(t, sys, "down")
	for _, n := range sys.Names() {
		if pid := sys.PID(n); pid != 0 {
			t.Errorf("%s (pid %d) runs after dw down", n, pid)
		}
	}
	dwCommand(t, sys, "up")
	t.Logf("after dw down and dw up a commit took %v", l.flows(t, 20*time.Second))
	if now := primary(t, sys); now != prim {
		t.Errorf("%s is primary after ordered stops, it was %s", now, prim)
	}
	l.stop()
	l.check(t, 0)
}

// TestStartOrders: whatever is started first, a group becomes healthy, and the
// database that was the primary is it again (manual 6.2). Watchers start their
// databases. A primary alone must wait: the other one might be newer.
func TestStartOrders(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real processes")
	}
	t.Parallel()
	sys := up(t, dw.Options{Standbys: 1, Mode: "auto", Monitors: 1, Fast: true})
	mustExec(t, sys, "CREATE TABLE s(a INTEGER PRIMARY KEY)")
	prim := primary(t, sys)
	sby := standbyOf(sys, prim)
	wp, ws := "W_"+prim, "W_"+sby
	for i, order := range [][]string{
		{wp, ws, "MONITOR1"},
		{"MONITOR1", ws, wp},
		{prim, sby, wp, ws, "MONITOR1"},
		{sby, "MONITOR1", wp, prim, ws},
		{ws, sby, wp, "MONITOR1"},
	} {
		t.Run(strings.Join(order, ","), func(t *testing.T) {
			mustExec(t, sys, fmt.Sprintf("INSERT INTO s VALUES (%d)", i))
			kill(t, sys, "MONITOR1", wp, ws, prim, sby)
			for _, n := range sys.Names() {
				waitFor(t, n+" to end", 10*time.Second, func() bool { return sys.PID(n) == 0 })
			}
			for _, n := range order {
				dwCommand(t, sys, "start", n)
			}
			start := time.Now()
			healthy(t, sys)
			t.Logf("healthy %v after the last start", time.Since(start).Round(time.Millisecond))
			if now := primary(t, sys); now != prim {
				t.Fatalf("%s is primary, it was %s\n%s", now, prim, timeline(sys, start.Add(-2*time.Second), time.Now()))
			}
			for _, d := range sys.DBs {
				waitFor(t, "every row on "+d.Name, 10*time.Second, func() bool { return count(t, d.Port, "s") == i+1 })
			}
		})
	}
	t.Run("the primary alone stays in Mount", func(t *testing.T) {
		kill(t, sys, "MONITOR1", wp, ws, prim, sby)
		for _, n := range sys.Names() {
			waitFor(t, n+" to end", 10*time.Second, func() bool { return sys.PID(n) == 0 })
		}
		at := time.Now()
		dwCommand(t, sys, "start", wp)
		logged(t, sys, at, "instance is OK", 10*time.Second)
		// Longer than every error time of this system, 3 s.
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		for ctx.Err() == nil {
			if conn, _, err := connectPrimary(ctx, sys); err == nil {
				conn.Close(ctx)
				t.Fatalf("%s opened without knowing whether %s is newer", prim, sby)
			}
			pause(ctx, 100*time.Millisecond)
		}
		dwCommand(t, sys, "start", ws)
		dwCommand(t, sys, "start", "MONITOR1")
		healthy(t, sys)
	})
}

func count(t *testing.T, port int, table string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := dw.Connect(ctx, port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	res, err := conn.Exec(ctx, "SELECT count(*) FROM "+table).ReadAll()
	if err != nil {
		return -1
	}
	n := 0
	_, _ = fmt.Sscan(string(res[0].Rows[0][0]), &n)
	return n
}
