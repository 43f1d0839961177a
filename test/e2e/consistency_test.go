package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"datawatch/internal/app/dw"
)

// clients runs n functions, each with a connection of its own, and waits for
// them.
func clients(t *testing.T, port, n int, f func(i int, c *pgx.Conn) error) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range n {
		c := connect(t, port)
		wg.Go(func() {
			if err := f(i, c); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	wg.Wait()
}

// ownWrites: what a client was told is committed is seen by every connection
// opened later, and no increment of a counter is lost, whichever of the safe
// ways of incrementing it uses.
func ownWrites(t *testing.T, sys *dw.System) {
	const n, rounds = 16, 12
	mustExec(t, sys, "CREATE TABLE own(client INT, seq INT, PRIMARY KEY(client, seq)); CREATE TABLE counter(id INT PRIMARY KEY, n INT NOT NULL); INSERT INTO counter VALUES (1, 0), (2, 0), (3, 0)")
	port := sys.DBs[0].Port
	ctx := t.Context()
	fresh := func(f func(c *pgx.Conn) error) error {
		cfg, err := pgx.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=SYSDBA password=SYSDBA dbname=DAMENG", port))
		if err != nil {
			return err
		}
		c, err := pgx.ConnectConfig(ctx, cfg)
		if err != nil {
			return err
		}
		defer c.Close(context.Background())
		return f(c)
	}
	clients(t, port, n, func(i int, c *pgx.Conn) error {
		for k := range rounds {
			if _, err := c.Exec(ctx, "INSERT INTO own VALUES ($1, $2)", i, k); err != nil {
				return err
			}
			var mine int
			if err := c.QueryRow(ctx, "SELECT count(*) FROM own WHERE client = $1", i).Scan(&mine); err != nil || mine != k+1 {
				return fmt.Errorf("own connection sees %d of its %d rows (%v)", mine, k+1, err)
			}
			// One statement; a locked read; a serializable transaction.
			var after [3]int
			if err := c.QueryRow(ctx, "UPDATE counter SET n = n + 1 WHERE id = 1 RETURNING n").Scan(&after[0]); err != nil {
				return err
			}
			for id, o := range map[int]pgx.TxOptions{2: {}, 3: {IsoLevel: pgx.Serializable}} {
				if err := pgx.BeginTxFunc(ctx, c, o, func(tx pgx.Tx) error {
					q := "SELECT n FROM counter WHERE id = $1"
					if id == 2 {
						q += " FOR UPDATE"
					}
					if err := tx.QueryRow(ctx, q, id).Scan(&after[id-1]); err != nil {
						return err
					}
					after[id-1]++
					_, err := tx.Exec(ctx, "UPDATE counter SET n = $2 WHERE id = $1", id, after[id-1])
					return err
				}); err != nil {
					return err
				}
			}
			if err := fresh(func(f *pgx.Conn) error {
				if err := f.QueryRow(ctx, "SELECT count(*) FROM own WHERE client = $1", i).Scan(&mine); err != nil || mine != k+1 {
					return fmt.Errorf("a fresh connection sees %d of %d acknowledged rows (%v)", mine, k+1, err)
				}
				for id := range 3 {
					var now int
					if err := f.QueryRow(ctx, "SELECT n FROM counter WHERE id = $1", id+1).Scan(&now); err != nil || now < after[id] {
						return fmt.Errorf("a fresh connection reads counter %d as %d after it was committed as %d (%v)", id+1, now, after[id], err)
					}
				}
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	})
	for id := range 3 {
		if got, want := queryOne(t, port, fmt.Sprintf("SELECT n FROM counter WHERE id = %d", id+1)), fmt.Sprint(n*rounds); got != want {
			t.Errorf("counter %d is %s after %s increments: updates were lost", id+1, got, want)
		}
	}
}

// snapshots: 8 clients move money between accounts in transactions of several
// statements, each raising a version on every row, while 8 readers on each
// database check what a statement, and a READ ONLY SERIALIZABLE transaction,
// sees: whole transactions only, and versions that never go back.
func snapshots(t *testing.T, sys *dw.System) {
	mustExec(t, sys, `CREATE TABLE bank(id INT PRIMARY KEY, bal INT NOT NULL, ver INT NOT NULL);
		CREATE TABLE moves(id INTEGER PRIMARY KEY, amount INT);
		WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM s WHERE i < 60) INSERT INTO bank SELECT i, 100, 0 FROM s`)
	eventually(t, "the standby has the tables", func() error {
		if got := queryOne(t, sys.DBs[1].Port, "SELECT (SELECT count(*) FROM sqlite_schema WHERE name = 'moves') + (SELECT count(*) FROM sqlite_schema WHERE name = 'bank')"); got != "2" {
			return fmt.Errorf("%s tables", got)
		}
		if got := queryOne(t, sys.DBs[1].Port, "SELECT count(*) FROM bank"); got != "60" {
			return fmt.Errorf("%s rows", got)
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	var moved, reads atomic.Int64
	const check = "SELECT sum(bal), min(ver), max(ver), count(*) FROM bank"
	verify := func(row pgx.Row) (ver int, err error) {
		var sum, lo, hi, n int
		if err := row.Scan(&sum, &lo, &hi, &n); err != nil {
			return 0, err
		}
		if sum != 6000 || lo != hi || n != 60 {
			return 0, fmt.Errorf("part of a transaction is visible: sum %d (6000), versions %d to %d, %d rows (60)", sum, lo, hi, n)
		}
		return lo, nil
	}
	var wg sync.WaitGroup
	for db := range 2 {
		wg.Go(func() {
			var last atomic.Int64 // newest version that any reader of this database had seen before
			clients(t, sys.DBs[db].Port, 8, func(i int, c *pgx.Conn) error {
				for ctx.Err() == nil {
					floor := last.Load()
					ver, err := verify(c.QueryRow(t.Context(), check))
					if err != nil {
						return err
					}
					if int64(ver) < floor {
						return fmt.Errorf("database %d showed version %d after %d", db+1, ver, floor)
					}
					for v := last.Load(); v < int64(ver) && !last.CompareAndSwap(v, int64(ver)); v = last.Load() {
					}
					if err := pgx.BeginTxFunc(t.Context(), c, pgx.TxOptions{IsoLevel: pgx.Serializable, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
						var first, moves, again int
						for k := range 3 {
							v, err := verify(tx.QueryRow(t.Context(), check))
							if err != nil {
								return err
							}
							if err := tx.QueryRow(t.Context(), "SELECT count(*) FROM moves").Scan(&again); err != nil {
								return err
							}
							if k == 0 {
								first, moves = v, again
							}
							if v != first || again != moves || again != v {
								return fmt.Errorf("one snapshot shows version %d with %d moves, then %d with %d", first, moves, v, again)
							}
						}
						return nil
					}); err != nil {
						return err
					}
					reads.Add(1)
				}
				return nil
			})
		})
	}
	clients(t, sys.DBs[0].Port, 8, func(i int, c *pgx.Conn) error {
		for ctx.Err() == nil {
			a, b, n := rand.IntN(60)+1, rand.IntN(60)+1, rand.IntN(50)
			undo := rand.IntN(5) == 0
			err := pgx.BeginFunc(t.Context(), c, func(tx pgx.Tx) error {
				for _, q := range []struct {
					sql  string
					args []any
				}{
					{"UPDATE bank SET bal = bal - $1 WHERE id = $2", []any{n, a}},
					{"UPDATE bank SET ver = ver + 1", nil},
					{"INSERT INTO moves(amount) VALUES ($1)", []any{n}},
					{"UPDATE bank SET bal = bal + $1 WHERE id = $2", []any{n, b}},
				} {
					if _, err := tx.Exec(t.Context(), q.sql, q.args...); err != nil {
						return err
					}
				}
				if undo {
					return errUndo
				}
				return nil
			})
			if err != nil && err != errUndo {
				return err
			}
			if err == nil {
				moved.Add(1)
			}
		}
		return nil
	})
	wg.Wait()
	t.Logf("%d transactions, %d checks", moved.Load(), reads.Load())
	want := fmt.Sprintf("6000|%d|%d|60", moved.Load(), moved.Load())
	if got := queryOne(t, sys.DBs[0].Port, check); got != want {
		t.Errorf("in the end %s, want %s", got, want)
	}
	eventually(t, "the standby ends with the same", func() error {
		if got := queryOne(t, sys.DBs[1].Port, check); got != want {
			return fmt.Errorf("%s, want %s", got, want)
		}
		return nil
	})
}

var errUndo = fmt.Errorf("rolled back on purpose")
