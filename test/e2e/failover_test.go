package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"datawatch/internal/app/dw"
)

const (
	// slow failovers are explained by what the processes logged meanwhile.
	slow = 700 * time.Millisecond
)

// TestKillPrimary is the promise of the product: the primary is killed with
// SIGKILL at random moments under 16 writers and 4 readers, DW_KILLS times
// (default 30). Checked: G1 every acknowledged row is on both databases in the
// end; G2 no reader saw a row that is not; G3 acknowledgements never alternate
// between databases but at a takeover; and the group becomes healthy by itself
// each time.
func TestKillPrimary(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real processes for minutes")
	}
	sys := up(t, dw.Options{Standbys: 1, Mode: "auto", Monitors: 1, Fast: true})
	kills := envInt("DW_KILLS", 30)
	seed := uint64(envInt("DW_SEED", int(time.Now().UnixNano()&0x7fffffff)))
	t.Logf("seed %d (DW_SEED=%d repeats the random moments)", seed, seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	mustExec(t, sys, loadTable)

	l := newLoad(sys, 16, 4)
	l.start(t.Context())
	defer l.stop()
	var failover []time.Duration
	for k := range kills {
		pause(t.Context(), time.Duration(rnd.IntN(700))*time.Millisecond) // the random moment itself
		prim := primary(t, sys)
		at := time.Now()
		if err := sys.Kill(prim); err != nil {
			t.Fatalf("kill %d of %s: %v", k+1, prim, err)
		}
		first, ok := l.waitAckAfter(t.Context(), at, 60*time.Second)
		if !ok {
			t.Fatalf("kill %d of %s: no commit was acknowledged within 60 s", k+1, prim)
		}
		failover = append(failover, first.Sub(at))
		if d := first.Sub(at); d > slow {
			t.Logf("kill %d of %s: the first acknowledged write came after %v:\n%s", k+1, prim, d, timeline(sys, at.Add(-2*time.Second), first.Add(50*time.Millisecond)))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		err := sys.WaitHealthy(ctx)
		cancel()
		if err != nil {
			t.Fatalf("kill %d of %s: not healthy again by itself: %v", k+1, prim, err)
		}
	}
	l.stop()
	report(t, failover)
	l.check(t, kills)
	if med := median(failover); med > 2*time.Second {
		t.Errorf("median from kill to the first acknowledged write is %v, must be under 2 s", med)
	}
}

func median(d []time.Duration) time.Duration {
	s := slices.Clone(d)
	slices.Sort(s)
	return s[len(s)/2]
}

func report(t *testing.T, d []time.Duration) {
	s := slices.Clone(d)
	slices.Sort(s)
	q := func(p float64) time.Duration { return s[min(len(s)-1, int(p*float64(len(s))))].Round(time.Millisecond) }
	t.Logf("kill to first acknowledged write, %d kills: min %v  median %v  p90 %v  p99 %v  max %v", len(s), q(0), q(.5), q(.9), q(.99), q(1))
}

// ack is one acknowledged insert.
type ack struct {
	sent, at time.Time
	db       int // index of the database that acknowledged
}

type rowKey struct{ client, seq int }

const loadTable = "CREATE TABLE w(client INTEGER NOT NULL, seq INTEGER NOT NULL, pad VARCHAR(64), PRIMARY KEY(client, seq))"

// load is the running clients and what they saw.
type load struct {
	sys *dw.System

	writers, readers int
	direct           bool          // and a writer for each database that knows no other
	patience         time.Duration // of a client that waits for an answer
	think            time.Duration // of a writer between two inserts

	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	acked map[rowKey]ack
	seen  map[rowKey]string // by which reader first
	reads atomic.Int64
	last  atomic.Int64 // unix ns of the last ack's send time
}

func newLoad(sys *dw.System, writers, readers int) *load {
	return &load{sys: sys, writers: writers, readers: readers, patience: 10 * time.Second, acked: map[rowKey]ack{}, seen: map[rowKey]string{}}
}

func (l *load) start(ctx context.Context) {
	ctx, l.cancel = context.WithCancel(ctx)
	for c := range l.writers {
		l.wg.Add(1)
		go func() {
			defer l.wg.Done()
			l.write(ctx, c, func() (*pgconn.PgConn, int, error) {
				ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
				defer cancel()
				return connectPrimary(ctx, l.sys)
			})
		}()
	}
	for i, d := range l.sys.DBs {
		if l.direct {
			l.wg.Go(func() {
				l.write(ctx, directClient+i, func() (*pgconn.PgConn, int, error) {
					pause(ctx, 50*time.Millisecond) // it does not take writes most of the time
					ctx, cancel := context.WithTimeout(ctx, time.Second)
					defer cancel()
					conn, err := l.sys.Connect(ctx, d.Port)
					return conn, i, err
				})
			})
		}
	}
	for r := range l.readers {
		l.wg.Add(1)
		go func() { defer l.wg.Done(); l.read(ctx, r) }()
	}
}

// setPatience changes how long clients wait for an answer.
func (l *load) setPatience(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.patience = d
}

func (l *load) waits() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.patience
}

func (l *load) stop() {
	l.cancel()
	l.wg.Wait()
}

// directClient is the first number of the writers that know one database only.
const directClient = 1000

// write inserts (client, seq) one by one through a client that connects again
// when something fails. After an uncertain commit it goes on with the next
// number, so an unacknowledged row may or may not exist.
func (l *load) write(ctx context.Context, client int, dial func() (*pgconn.PgConn, int, error)) {
	for seq := 1; ctx.Err() == nil; {
		conn, db, err := dial()
		if err != nil {
			pause(ctx, 20*time.Millisecond)
			continue
		}
		for ctx.Err() == nil {
			key := rowKey{client, seq}
			seq++
			sent := time.Now()
			// Client-side patience: a commit on an isolated primary hangs.
			wctx, cancel := context.WithTimeout(ctx, l.waits())
			_, err := conn.Exec(wctx, fmt.Sprintf("INSERT INTO w VALUES (%d, %d, 'row %d of client %d')", key.client, key.seq, key.seq, key.client)).ReadAll()
			cancel()
			if err != nil {
				break
			}
			l.mu.Lock()
			l.acked[key] = ack{sent, time.Now(), db}
			l.mu.Unlock()
			for {
				old := l.last.Load()
				if old >= sent.UnixNano() || l.last.CompareAndSwap(old, sent.UnixNano()) {
					break
				}
			}
			if l.think > 0 {
				pause(ctx, l.think)
			}
		}
		conn.Close(context.WithoutCancel(ctx))
	}
}

// read looks at the newest rows of every client on one database over and over;
// readers 0 and 2 use the first, 1 and 3 the second, whatever their modes are.
func (l *load) read(ctx context.Context, reader int) {
	db := l.sys.DBs[reader%len(l.sys.DBs)]
	name := fmt.Sprintf("reader %d on %s", reader, db.Name)
	for ctx.Err() == nil {
		cctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		conn, err := pgconn.Connect(cctx, fmt.Sprintf("host=%s port=%d user=SYSDBA password=%s dbname=DAMENG connect_timeout=2 %s", db.Host(), db.Port, l.sys.Password(), l.sys.SQLOptions()))
		cancel()
		if err != nil {
			pause(ctx, 50*time.Millisecond)
			continue
		}
		high := make([]int, l.writers)
		for n := 0; ctx.Err() == nil; n++ {
			c := n % l.writers
			rctx, cancel := context.WithTimeout(ctx, l.waits())
			res, err := conn.Exec(rctx, fmt.Sprintf("SELECT seq FROM w WHERE client = %d AND seq >= %d ORDER BY seq DESC LIMIT 100", c, high[c])).ReadAll()
			cancel()
			if err != nil {
				break
			}
			l.reads.Add(1)
			l.mu.Lock()
			for i, row := range res[0].Rows {
				s, _ := strconv.Atoi(string(row[0]))
				if i == 0 {
					high[c] = s
				}
				if k := (rowKey{c, s}); l.seen[k] == "" {
					l.seen[k] = name
				}
			}
			l.mu.Unlock()
			pause(ctx, 2*time.Millisecond)
		}
		conn.Close(context.WithoutCancel(ctx))
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// waitAckAfter waits for a commit that was both sent and acknowledged after t0.
func (l *load) waitAckAfter(ctx context.Context, t0 time.Time, patience time.Duration) (time.Time, bool) {
	return l.waitAckOf(ctx, t0, patience, func(int) bool { return true })
}

// waitAckOf is waitAckAfter for the clients that count.
func (l *load) waitAckOf(ctx context.Context, t0 time.Time, patience time.Duration, counts func(client int) bool) (time.Time, bool) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for ctx.Err() == nil {
		if l.last.Load() > t0.UnixNano() {
			l.mu.Lock()
			best := time.Time{}
			for k, a := range l.acked {
				if counts(k.client) && a.sent.After(t0) && (best.IsZero() || a.at.Before(best)) {
					best = a.at
				}
			}
			l.mu.Unlock()
			if !best.IsZero() {
				return best, true
			}
		}
		pause(ctx, 5*time.Millisecond)
	}
	return time.Time{}, false
}

// check compares what clients were told with what the databases hold; the
// primary may have changed as often as given.
func (l *load) check(t *testing.T, changes int) {
	t.Helper()
	if least := max(changes*10, 16); len(l.acked) < least || len(l.seen) < least {
		t.Errorf("only %d acknowledged and %d seen rows: the load did not run", len(l.acked), len(l.seen))
	}
	settle(t, l.sys)
	var sets []map[rowKey]bool
	for _, d := range l.sys.DBs {
		set := rows(t, l.sys, d.Port)
		sets = append(sets, set)
		lost, vanished := 0, 0
		for k, a := range l.acked {
			if !set[k] {
				if lost++; lost <= 5 {
					t.Errorf("G1: %s lacks client %d seq %d, acknowledged by %s at %s", d.Name, k.client, k.seq, l.sys.DBs[a.db].Name, a.at.Format("15:04:05.000"))
				}
			}
		}
		for k, who := range l.seen {
			if !set[k] {
				if vanished++; vanished <= 5 {
					t.Errorf("G2: %s saw client %d seq %d, which is not on %s", who, k.client, k.seq, d.Name)
				}
			}
		}
		t.Logf("%s: %d rows; %d acknowledged, %d lost; %d seen by readers, %d vanished", d.Name, len(set), len(l.acked), lost, len(l.seen), vanished)
	}
	for i := range sets[1:] {
		if len(sets[i]) != len(sets[i+1]) {
			t.Errorf("%s has %d rows, %s %d", l.sys.DBs[i].Name, len(sets[i]), l.sys.DBs[i+1].Name, len(sets[i+1]))
		}
	}
	l.checkReigns(t, changes)
	t.Logf("%d reads", l.reads.Load())
}

// settle waits until all databases have the same number of rows twice in a
// row: a statement whose client has gone may still commit, and a standby shows
// a commit a moment after its primary.
func settle(t *testing.T, sys *dw.System) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	last := ""
	for ctx.Err() == nil {
		var counts []string
		for _, d := range sys.DBs {
			conn, err := sys.Connect(ctx, d.Port)
			if err != nil {
				t.Fatal(err)
			}
			res, err := conn.Exec(ctx, "SELECT count(*) FROM w").ReadAll()
			conn.Close(ctx)
			if err != nil {
				t.Fatal(err)
			}
			counts = append(counts, string(res[0].Rows[0][0]))
		}
		slices.Sort(counts)
		if counts = slices.Compact(counts); len(counts) == 1 && counts[0] == last {
			return
		}
		last = counts[0]
		pause(ctx, 100*time.Millisecond)
	}
	t.Error("the databases never came to the same number of rows")
}

// checkReigns verifies G3: acknowledgements in order of time change the
// database at most as often as something happened to a primary, and never
// overlap: an insert acknowledged by the new primary is never followed by one
// that the old one accepted later.
func (l *load) checkReigns(t *testing.T, limit int) {
	t.Helper()
	all := make([]ack, 0, len(l.acked))
	for _, a := range l.acked {
		all = append(all, a)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].at.Before(all[j].at) })
	changes := 0
	for i := 1; i < len(all); i++ {
		if all[i].db != all[i-1].db {
			changes++
		}
	}
	t.Logf("the acknowledging database changed %d times; at most %d are possible", changes, limit)
	if changes > limit {
		t.Errorf("G3: the acknowledging database changed %d times, at most %d are possible: two primaries acknowledged at once", changes, limit)
	}
}

// rows reads the whole table w from one database.
func rows(t *testing.T, sys *dw.System, port int) map[rowKey]bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, err := sys.Connect(ctx, port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	res, err := conn.Exec(ctx, "SELECT client, seq FROM w").ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	set := make(map[rowKey]bool, len(res[0].Rows))
	for _, r := range res[0].Rows {
		c, _ := strconv.Atoi(string(r[0]))
		s, _ := strconv.Atoi(string(r[1]))
		set[rowKey{c, s}] = true
	}
	return set
}

// connectPrimary connects to the database that takes writes, as a driver with
// target_session_attrs=read-write does.
func connectPrimary(ctx context.Context, sys *dw.System) (*pgconn.PgConn, int, error) {
	var hosts, ports []string
	for _, d := range sys.DBs {
		hosts, ports = append(hosts, d.Host()), append(ports, strconv.Itoa(d.Port))
	}
	conn, err := pgconn.Connect(ctx, fmt.Sprintf("host=%s port=%s user=SYSDBA password=%s dbname=DAMENG %s target_session_attrs=read-write connect_timeout=2",
		strings.Join(hosts, ","), strings.Join(ports, ","), sys.Password(), sys.SQLOptions()))
	if err != nil {
		return nil, 0, err
	}
	addr := conn.Conn().RemoteAddr().String()
	for i, p := range ports {
		if strings.HasSuffix(addr, ":"+p) {
			return conn, i, nil
		}
	}
	conn.Close(ctx)
	return nil, 0, fmt.Errorf("connected to unknown address %s", addr)
}

// primary returns the name of the database that is Primary and Open.
func primary(t *testing.T, sys *dw.System) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, i, err := connectPrimary(ctx, sys)
	if err != nil {
		t.Fatalf("no primary: %v", err)
	}
	conn.Close(ctx)
	return sys.DBs[i].Name
}

func mustExec(t *testing.T, sys *dw.System, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, _, err := connectPrimary(ctx, sys)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, sql).ReadAll(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}
