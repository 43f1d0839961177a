package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"datawatch/internal/app/dw"
)

// TestSoak runs mixed clients for DW_SOAK minutes (make chaos: 30) through
// switchovers and takeovers, and measures every process at rest again and
// again: memory, goroutines and open files must not grow from one rest to the
// next. Without DW_SOAK it is left out.
func TestSoak(t *testing.T) {
	minutes := envInt("DW_SOAK", 0)
	if testing.Short() || minutes == 0 {
		t.Skip("set DW_SOAK to the minutes to run")
	}
	sys := up(t, dw.Options{Standbys: 1, Mode: "auto", Monitors: 1, Fast: true})
	mustExec(t, sys, "CREATE TABLE soak(id BIGINT PRIMARY KEY, client INT, v TEXT, n INT); CREATE INDEX soak_client ON soak(client, n)")
	m := monitor(t, sys)
	s := &soak{sys: sys, base: map[string]usage{}}
	end := time.Now().Add(time.Duration(minutes) * time.Minute)
	period := min(time.Minute, time.Duration(minutes)*time.Minute/8)
	for round := 0; time.Now().Before(end); round++ {
		ctx, cancel := context.WithTimeout(t.Context(), period)
		s.load(ctx)
		for change := range 3 {
			pause(ctx, period/4)
			if ctx.Err() != nil {
				break
			}
			prim := primary(t, sys)
			if round%3 == 2 && change == 1 {
				kill(t, sys, prim)
				s.restarted(prim)
			} else {
				sctx, stop := context.WithTimeout(t.Context(), time.Minute)
				if err := m.Switchover(sctx, sys.Group, standbyOf(sys, prim)); err != nil {
					t.Errorf("switchover: %v", err)
				}
				stop()
			}
			healthy(t, sys)
		}
		<-ctx.Done()
		cancel()
		s.wg.Wait()
		healthy(t, sys)
		s.measure(t, round)
		if t.Failed() {
			break
		}
	}
	if s.done.Load() < 1000 || s.measured < 3 {
		t.Errorf("too little happened: %d statements, %d measurements", s.done.Load(), s.measured)
	}
	t.Logf("%d statements, %d refused, %d connections", s.done.Load(), s.refused.Load(), s.connections.Load())
	noPanics(t, sys)
}

// usage is what a process has at rest.
type usage struct {
	rounds     int // since its baseline
	rss        int // KiB
	goroutines int // 0: it has no admin port
	files      int
}

type soak struct {
	sys      *dw.System
	wg       sync.WaitGroup
	base     map[string]usage // by process: after its first rounds
	measured int

	done, refused, connections atomic.Int64
	next                       atomic.Int64
}

// load starts clients that end with ctx.
func (s *soak) load(ctx context.Context) {
	for i := range 10 {
		s.wg.Add(1)
		go func() {
			defer s.wg.Done()
			for ctx.Err() == nil {
				s.client(ctx, i)
				pause(ctx, 20*time.Millisecond)
			}
		}()
	}
}

// client connects, works for a while and leaves, one way or another.
func (s *soak) client(ctx context.Context, i int) {
	var c *pgconn.PgConn
	var err error
	if i < 7 {
		c, _, err = connectPrimary(ctx, s.sys)
	} else {
		c, err = s.sys.Connect(ctx, s.sys.DBs[i%len(s.sys.DBs)].Port)
	}
	if err != nil {
		return
	}
	s.connections.Add(1)
	defer func() {
		if rand.IntN(4) == 0 {
			c.Conn().Close() // without a word
			return
		}
		c.Close(context.WithoutCancel(ctx))
	}()
	for range 20 + rand.IntN(200) {
		sctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		if rand.IntN(50) == 0 { // a client without patience
			cancel()
			sctx, cancel = context.WithTimeout(ctx, time.Duration(rand.IntN(3000))*time.Microsecond)
		}
		err := s.statement(sctx, c, i)
		cancel()
		var pe *pgconn.PgError
		switch {
		case err == nil:
			s.done.Add(1)
		case errors.As(err, &pe):
			s.refused.Add(1)
		}
		if c.IsClosed() || ctx.Err() != nil {
			return
		}
	}
}

func (s *soak) statement(ctx context.Context, c *pgconn.PgConn, client int) error {
	run := func(sql string) error {
		_, err := c.Exec(ctx, sql).ReadAll()
		return err
	}
	if client >= 7 {
		return run([]string{"SELECT count(*), max(n) FROM soak WHERE client = " + strconv.Itoa(rand.IntN(7)), "SELECT * FROM soak ORDER BY id DESC LIMIT 50",
			"WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < 2000) SELECT sum(i) FROM r", "SELECT * FROM V$INSTANCE",
			"CREATE TEMP TABLE IF NOT EXISTS mine(a INT); INSERT INTO mine VALUES (1); DELETE FROM mine", "SELECT nosuch FROM soak", "SELECT relname FROM pg_class"}[rand.IntN(7)])
	}
	id := s.next.Add(1)
	switch rand.IntN(14) {
	case 0:
		rows := strings.NewReader(copyRows(&s.next, client, 50))
		_, err := c.CopyFrom(ctx, rows, "COPY soak FROM STDIN")
		return err
	case 1:
		return run(fmt.Sprintf("BEGIN; INSERT INTO soak VALUES (%d, %d, 'in a transaction', 1); SAVEPOINT a; UPDATE soak SET n = n + 1 WHERE client = %[2]d; ROLLBACK TO a; COMMIT", id, client))
	case 2:
		return run(fmt.Sprintf("INSERT INTO soak VALUES (%d, %d, 'x', 1); INSERT INTO soak VALUES (%[1]d, 1, 'again', 1)", id, client)) // refused
	case 3: // the table stays as large as it is
		return run(fmt.Sprintf("DELETE FROM soak WHERE client = %d AND id < %d", client, id-2000))
	case 4:
		return run(fmt.Sprintf("WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < 500) UPDATE soak SET v = printf('%%.*c', 200, 'y'), n = n + 1 WHERE client = %d AND n < 5", client))
	case 5:
		return run("BEGIN; SELECT count(*) FROM soak FOR UPDATE; ROLLBACK")
	case 7: // conflicts with what others do now and then, which leaves it to be rolled back
		err := run(fmt.Sprintf("BEGIN CONCURRENT; SELECT count(*) FROM soak WHERE client = %d; INSERT INTO soak VALUES (%d, %d, 'concurrent', 1); SAVEPOINT a; "+
			"UPDATE soak SET n = n + 1 WHERE client = %[3]d; ROLLBACK TO a; COMMIT", rand.IntN(7), id, client))
		if err != nil {
			_ = run("ROLLBACK")
		}
		return err
	case 8:
		return run(fmt.Sprintf("BEGIN CONCURRENT; UPDATE soak SET n = n + 1 WHERE client = %d; DELETE FROM soak WHERE client = %[1]d AND id < %d; LOCK TABLE soak; COMMIT", client, id-2000))
	case 6:
		res := c.ExecParams(ctx, "SELECT id, v FROM soak WHERE client = $1 ORDER BY id DESC LIMIT 20", [][]byte{[]byte(strconv.Itoa(client))}, nil, nil, []int16{1}).Read()
		return res.Err
	}
	res := c.ExecParams(ctx, "INSERT INTO soak VALUES ($1, $2, $3, 0)", [][]byte{[]byte(strconv.FormatInt(id, 10)), []byte(strconv.Itoa(client)), []byte("value of " + strconv.FormatInt(id, 10))}, nil, nil, nil).Read()
	return res.Err
}

func copyRows(next *atomic.Int64, client, n int) string {
	var b strings.Builder
	for range n {
		fmt.Fprintf(&b, "%d\t%d\tcopied\t0\n", next.Add(1), client)
	}
	return b.String()
}

// restarted forgets what a process had that is a new one now.
func (s *soak) restarted(name string) { delete(s.base, name) }

// Bounds of growth at rest, over the baseline of a process: what a garbage
// collector and caches that fill up may make of the same load.
const (
	warmUp      = 2 // rounds before the baseline
	moreMemory  = 96 << 10
	moreRoutine = 25
	moreFiles   = 12
)

// measure waits until every process is at rest, and compares.
func (s *soak) measure(t *testing.T, round int) {
	t.Helper()
	admin := map[string]int{}
	for _, d := range s.sys.DBs {
		admin[d.Name], admin["W_"+d.Name] = d.Admin, d.DWAdmin
	}
	s.measured++
	var line strings.Builder
	for _, name := range s.sys.Names() {
		pid := s.sys.PID(name)
		if pid == 0 {
			t.Errorf("%s does not run", name)
			continue
		}
		u, b := usageOf(t, pid, admin[name]), s.base[name]
		// The sessions of clients that left without a word end by and by.
		for from := time.Now(); b.rounds >= warmUp && time.Since(from) < 15*time.Second && u.grown(b) != ""; u = usageOf(t, pid, admin[name]) {
			pause(t.Context(), 200*time.Millisecond)
		}
		fmt.Fprintf(&line, " %s %d MiB %d goroutines %d files;", name, u.rss>>10, u.goroutines, u.files)
		if b.rounds < warmUp {
			u.rounds = b.rounds + 1
			s.base[name] = u
			continue
		}
		if why := u.grown(b); why != "" {
			t.Errorf("round %d: %s %s (then %+v, now %+v)", round, name, why, b, u)
		}
	}
	t.Logf("round %d: %d statements, %d refused;%s", round, s.done.Load(), s.refused.Load(), line.String())
}

func (u usage) grown(b usage) string {
	switch {
	case u.rss > b.rss*3/2 && u.rss > b.rss+moreMemory:
		return "needs more and more memory"
	case u.goroutines > b.goroutines+moreRoutine:
		return "has more and more goroutines"
	case u.files > b.files+moreFiles:
		return "has more and more open files"
	}
	return ""
}

func usageOf(t *testing.T, pid, admin int) usage {
	t.Helper()
	var u usage
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(status)) {
		if f := strings.Fields(l); len(f) > 1 && f[0] == "VmRSS:" {
			u.rss, _ = strconv.Atoi(f[1])
		}
	}
	files, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "fd"))
	if err != nil {
		t.Fatal(err)
	}
	u.files = len(files)
	if admin == 0 {
		return u
	}
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", admin))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for sc := bufio.NewScanner(resp.Body); sc.Scan(); {
		if n, ok := strings.CutPrefix(sc.Text(), "go_goroutines "); ok {
			u.goroutines, _ = strconv.Atoi(n)
		}
	}
	if u.rss == 0 || u.goroutines == 0 {
		t.Errorf("process %d: %+v", pid, u)
	}
	return u
}
