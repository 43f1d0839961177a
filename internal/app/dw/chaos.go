package dw

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// ChaosOptions are what `dw chaos` can be told.
type ChaosOptions struct {
	Seconds int
	Clients int
	Seed    uint64
	Harm    string // kinds, separated by commas; "" all
}

// harms by name: what is done to a running system. Each returns when its cause
// is over; the system has yet to recover.
var harms = map[string]func(ctx context.Context, s *System, r *rand.Rand) (string, error){
	"kill": func(_ context.Context, s *System, r *rand.Rand) (string, error) { // its watcher starts it again
		d := s.DBs[r.IntN(len(s.DBs))]
		return "kill -9 " + d.Name, s.Kill(d.Name)
	},
	"pause": func(ctx context.Context, s *System, r *rand.Rand) (string, error) {
		d := s.DBs[r.IntN(len(s.DBs))]
		took := time.Duration(500+r.IntN(8000)) * time.Millisecond
		return fmt.Sprintf("%s stands still for %v", d.Name, took), pause(ctx, s.PID(d.Name), took)
	},
	"watcher": func(ctx context.Context, s *System, r *rand.Rand) (string, error) {
		n := watcherName(s.DBs[r.IntN(len(s.DBs))])
		return "kill -9 " + n + " and start it", s.killAndStart(ctx, n)
	},
	"monitor": func(ctx context.Context, s *System, _ *rand.Rand) (string, error) {
		if s.Monitors == 0 {
			return "no monitor", nil
		}
		return "kill -9 " + monitorName + " and start it", s.killAndStart(ctx, monitorName)
	},
}

// pause stops a process and lets it go on, whatever happens meanwhile.
func pause(ctx context.Context, pid int, d time.Duration) error {
	if pid == 0 {
		return nil // it is just being started again
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return fmt.Errorf("stop process %d: %w", pid, err)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) { // its watcher may have killed it
		return fmt.Errorf("continue process %d: %w", pid, err)
	}
	return nil
}

func (s *System) killAndStart(ctx context.Context, name string) error {
	if err := s.Kill(name); err != nil {
		return err
	}
	p, err := s.find(name)
	if err != nil {
		return err
	}
	for s.pid(p) != 0 {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	// The ports of a killed process may be taken for a moment longer than its
	// entry: what is started again too early ends at once.
	for range 20 {
		if err := s.start(p); err != nil {
			return err
		}
		select {
		case <-time.After(250 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
		if s.pid(p) != 0 {
			return nil
		}
	}
	return fmt.Errorf("%s does not start (log: %s)", name, s.logFile(name))
}

// acked collects the rows that clients were told are committed.
type acked struct {
	mu      sync.Mutex
	ids     []int64
	unknown int // commits without an answer
}

// Chaos harms a running system at random while clients write, and then looks
// whether every row is there that a client was told is committed, on every
// database, and whether the databases are sound.
func (s *System) Chaos(ctx context.Context, o ChaosOptions, out io.Writer) error {
	names, err := chosenHarms(o.Harm)
	if err != nil {
		return err
	}
	if o.Seconds < 1 || o.Clients < 1 || o.Clients > 1000 {
		return usageError{errors.New("-seconds must be at least 1, -clients 1 to 1000")}
	}
	if st, err := s.Status(ctx); err != nil {
		return err
	} else if !st.Healthy {
		return fmt.Errorf("%w: the system is not healthy before it is harmed: %s", errState, st.Why)
	}
	if o.Seed == 0 {
		o.Seed = rand.Uint64()
	}
	fmt.Fprintf(out, "seed %d: %d clients write for %d s; harm: %s\n", o.Seed, o.Clients, o.Seconds, strings.Join(names, ", "))
	table := fmt.Sprintf("DW_CHAOS_%d", time.Now().Unix())
	c, err := s.writable(ctx)
	if err != nil {
		return err
	}
	err = execAll(ctx, c, "CREATE TABLE "+table+" (ID BIGINT PRIMARY KEY)")
	c.Close(ctx)
	if err != nil {
		return err
	}
	load, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	a := &acked{}
	for i := range o.Clients {
		wg.Go(func() { s.insert(load, table, int64(i+1)<<40, a) })
	}
	harmErr := s.harmUntil(ctx, time.Now().Add(time.Duration(o.Seconds)*time.Second), names, rand.New(rand.NewPCG(o.Seed, 0)), out)
	stop()
	wg.Wait()
	if harmErr != nil {
		return harmErr
	}
	return s.judge(ctx, table, a, out)
}

func chosenHarms(list string) ([]string, error) {
	var names []string
	if list == "" {
		for n := range harms {
			names = append(names, n)
		}
	} else {
		names = strings.Split(list, ",")
	}
	slices.Sort(names)
	for _, n := range names {
		if harms[n] == nil {
			return nil, usageError{fmt.Errorf("-harm %s: kill, pause, watcher, monitor", n)}
		}
	}
	return names, nil
}

// harmUntil does one harm after the other, each on a system that has recovered
// from the one before.
func (s *System) harmUntil(ctx context.Context, end time.Time, names []string, r *rand.Rand, out io.Writer) error {
	for n := 1; time.Now().Before(end); n++ {
		start := time.Now()
		what, err := harms[names[r.IntN(len(names))]](ctx, s, r)
		if err != nil {
			return fmt.Errorf("harm %d: %s: %w", n, what, err)
		}
		wctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
		err = s.WaitHealthy(wctx)
		cancel()
		if err != nil {
			return fmt.Errorf("harm %d: %s: the system does not recover: %w", n, what, err)
		}
		fmt.Fprintf(out, "%3d  %-45s healthy again after %.1f s\n", n, what, time.Since(start).Seconds())
	}
	return nil
}

// writable connects to the database that takes writes.
func (s *System) writable(ctx context.Context) (*pgconn.PgConn, error) {
	err := errors.New("no database takes writes")
	for _, d := range s.DBs {
		cctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		c, e := s.Connect(cctx, d.Port)
		cancel()
		if e != nil {
			err = e
			continue
		}
		if c.ParameterStatus("default_transaction_read_only") == "off" {
			return c, nil
		}
		c.Close(ctx)
	}
	return nil, err
}

// insert writes rows with numbers from first on, each once, until ctx ends.
func (s *System) insert(ctx context.Context, table string, first int64, a *acked) {
	var c *pgconn.PgConn
	defer func() {
		if c != nil {
			closing, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			c.Close(closing)
		}
	}()
	for id := first; ctx.Err() == nil; {
		if c == nil {
			var err error
			if c, err = s.writable(ctx); err != nil {
				select {
				case <-time.After(100 * time.Millisecond):
				case <-ctx.Done():
				}
				continue
			}
		}
		ectx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second) // a row that is on its way gets its answer
		sql := fmt.Sprintf("INSERT INTO %s VALUES (%d)", table, id)
		if id%3 == 0 {
			sql = "BEGIN CONCURRENT; " + sql + "; COMMIT"
		}
		err := execAll(ectx, c, sql)
		cancel()
		a.mu.Lock()
		if err == nil {
			a.ids = append(a.ids, id)
		} else {
			a.unknown++
		}
		a.mu.Unlock()
		if id++; err != nil { // of unknown outcome, perhaps: never again
			closing, cancel := context.WithTimeout(context.Background(), time.Second)
			c.Close(closing)
			cancel()
			c = nil
		}
	}
}

// judge compares every database with what clients were told.
func (s *System) judge(ctx context.Context, table string, a *acked, out io.Writer) error {
	var bad []string
	prim := s.primary(ctx)
	want := -1
	for _, d := range append([]Database{prim}, slices.DeleteFunc(slices.Clone(s.DBs), func(d Database) bool { return d.Name == prim.Name })...) {
		ids, sound, err := s.content(ctx, d, table, want)
		if err != nil {
			return fmt.Errorf("%s: %w", d.Name, err)
		}
		if want < 0 {
			want = len(ids)
		}
		missing := 0
		for _, id := range a.ids {
			if !ids[id] {
				missing++
			}
		}
		fmt.Fprintf(out, "%s: %d rows, %d of %d acknowledged ones missing; check: %s\n", d.Name, len(ids), missing, len(a.ids), sound)
		switch {
		case missing > 0:
			bad = append(bad, fmt.Sprintf("%s lacks %d acknowledged rows", d.Name, missing))
		case len(ids) != want:
			bad = append(bad, fmt.Sprintf("%s has %d rows, %s has %d", d.Name, len(ids), prim.Name, want))
		}
		if !strings.HasPrefix(sound, "no damage") {
			bad = append(bad, d.Name+": "+sound)
		}
	}
	fmt.Fprintf(out, "%d commits acknowledged, %d without an answer\n", len(a.ids), a.unknown)
	if len(bad) > 0 {
		return errors.New(strings.Join(bad, "; "))
	}
	if len(a.ids) == 0 {
		return errors.New("nothing was written: this proves nothing")
	}
	return nil
}

// content reads the rows of a database, of a standby when it has as many as
// want, and checks it.
func (s *System) content(ctx context.Context, d Database, table string, want int) (ids map[int64]bool, sound string, err error) {
	c, err := s.Connect(ctx, d.Port)
	if err != nil {
		return nil, "", err
	}
	defer c.Close(ctx)
	for deadline := time.Now().Add(time.Minute); ; {
		ids = map[int64]bool{}
		res := c.ExecParams(ctx, "SELECT ID FROM "+table, nil, nil, nil, nil)
		for res.NextRow() {
			var id int64
			if _, err := fmt.Sscan(string(res.Values()[0]), &id); err != nil {
				return nil, "", err
			}
			ids[id] = true
		}
		if _, err := res.Close(); err != nil {
			return nil, "", err
		}
		if want < 0 || len(ids) == want || time.Now().After(deadline) {
			break
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, "", ctx.Err()
		}
	}
	r := c.ExecParams(ctx, "CHECK DATABASE", nil, nil, nil, nil).Read()
	if r.Err != nil {
		return nil, "", r.Err
	}
	return ids, string(r.Rows[len(r.Rows)-1][4]), nil
}
