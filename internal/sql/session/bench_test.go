package session

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"datawatch/internal/sql/dialect"
	"datawatch/internal/sql/sqlapi"
)

// BenchmarkInsert: autocommit inserts of one row through a prepared statement,
// by sessions of which none waits for a disk.
func BenchmarkInsert(b *testing.B) {
	for _, n := range []int{1, 16, 64} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			e := newEnv(b)
			e.client().exec("create table t(id integer primary key, v text)")
			each(b, e, n, "insert into t(v) values($1)", func(i int) []sqlapi.Value { return []sqlapi.Value{val("one hundred bytes or so of text in a row")} })
		})
	}
}

// BenchmarkSelect: point selects through a prepared statement.
func BenchmarkSelect(b *testing.B) {
	for _, n := range []int{1, 16, 64} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			e := newEnv(b)
			e.client().exec("create table t(id integer primary key, v text); with recursive s(i) as (select 1 union all select i+1 from s where i<100000) insert into t select i, 'row' from s")
			each(b, e, n, "select v from t where id=$1", func(i int) []sqlapi.Value { return []sqlapi.Value{val(i%100000 + 1)} })
		})
	}
}

// BenchmarkTPCB: pgbench's TPC-B-like transaction (scale 1), prepared, with no
// disk and no network: what its kinds cost the processor, and what becomes of
// them when the client needs some time between its statements.
func BenchmarkTPCB(b *testing.B) {
	sqls := []string{"", "update pgbench_accounts set abalance = abalance + $1 where aid = $2", "select abalance from pgbench_accounts where aid = $1",
		"update pgbench_tellers set tbalance = tbalance + $1 where tid = $2", "update pgbench_branches set bbalance = bbalance + $1 where bid = $2",
		"insert into pgbench_history (tid, bid, aid, delta, mtime) values ($1, $2, $3, $4, current_timestamp)", "commit"}
	for _, begin := range []string{"begin", "begin concurrent"} {
		for _, x := range []struct {
			n     int
			think time.Duration
		}{{1, 0}, {16, 0}, {16, 300 * time.Microsecond}} {
			n := x.n
			b.Run(fmt.Sprintf("%s/%d/%v", begin, n, x.think), func(b *testing.B) {
				e := newEnv(b)
				e.client().exec(`create table pgbench_history(tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
					create table pgbench_tellers(tid int not null primary key, bid int, tbalance int, filler char(84));
					create table pgbench_accounts(aid int not null primary key, bid int, abalance int, filler char(84));
					create table pgbench_branches(bid int not null primary key, bbalance int, filler char(88));
					with recursive g(i) as (select 1 union all select i + 1 from g where i < 100000) insert into pgbench_accounts select i, 1, 0, '' from g;
					with recursive g(i) as (select 1 union all select i + 1 from g where i < 10) insert into pgbench_tellers select i, 1, 0, '' from g;
					insert into pgbench_branches values(1, 0, '')`)
				ctx := context.Background()
				var wg sync.WaitGroup
				b.ResetTimer()
				b.ReportAllocs()
				start := cpuTime(b)
				for w := range n {
					c := e.client()
					var sts []sqlapi.Stmt
					for i, q := range sqls {
						if i == 0 {
							q = begin
						}
						st, err := c.Prepare(ctx, q, nil)
						if err != nil {
							b.Fatal(err)
						}
						sts = append(sts, st)
					}
					wg.Go(func() {
						for i := w; i < b.N; i += n {
							aid, tid, delta := val((i*7919)%100000+1), val(i%10+1), val(i%100)
							args := [][]sqlapi.Value{nil, {delta, aid}, {aid}, {delta, tid}, {delta, val(1)}, {tid, val(1), aid, delta}, nil}
							for k, st := range sts {
								po, err := st.Bind(args[k])
								if err == nil {
									_, _, err = po.Run(ctx, 0, func(sqlapi.Row) error { return nil })
									po.Close()
								}
								if err == nil {
									err = c.Sync(ctx, false)
								}
								if err != nil {
									b.Error(err)
									return
								}
								if x.think > 0 {
									time.Sleep(x.think)
								}
								runtime.Gosched()
							}
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(cpuTime(b)-start)/float64(b.N)/1000, "cpu-us/op")
			})
		}
	}
}

func each(b *testing.B, e *env, n int, sql string, args func(int) []sqlapi.Value) {
	ctx := context.Background()
	var wg sync.WaitGroup
	b.ResetTimer()
	b.ReportAllocs()
	for w := range n {
		c := e.client()
		st, err := c.Prepare(ctx, sql, nil)
		if err != nil {
			b.Fatal(err)
		}
		wg.Go(func() {
			for i := w; i < b.N; i += n {
				po, err := st.Bind(args(i))
				if err == nil {
					c.Final()
					_, _, err = po.Run(ctx, 0, func(sqlapi.Row) error { return nil })
				}
				po.Close()
				if err == nil {
					err = c.Sync(ctx, false)
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkTypes: what the CHECK constraints of declared types cost an insert,
// of pgbench's history row and of one with a column of every kind, without the
// commit.
func BenchmarkTypes(b *testing.B) {
	rows := []struct{ name, columns, insert string }{
		{"history", "tid int, bid int, aid int, delta int, mtime timestamp, filler char(22)",
			"insert into t(tid, bid, aid, delta, mtime) values($1, $2, $3, $4, current_timestamp)"},
		{"kinds", "id bigint, n numeric(10,2), v varchar(40), b boolean, d date, ts timestamp, j json",
			"insert into t values($1, $2, 'some words of text', true, '2024-02-29', '2024-02-29 12:30:00', '{\"a\": [1, 2]}')"},
	}
	for _, r := range rows {
		for _, checked := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/checked=%v", r.name, checked), func(b *testing.B) {
				e := newEnv(b)
				c, err := e.b.open(writerConn)
				if err != nil {
					b.Fatal(err)
				}
				defer c.close()
				sql := "create table t(" + r.columns + ")"
				if checked {
					st, err := dialect.Parse(sql)
					if err != nil {
						b.Fatal(err)
					}
					sql = st.SQL
				}
				if err := e.b.cfg.DB.LockWrite(context.Background(), c.h); err != nil {
					b.Fatal(err)
				}
				defer e.b.cfg.DB.UnlockWrite(c.h)
				defer c.rollback()
				for _, q := range []string{"begin immediate", sql} {
					if err := c.run(q); err != nil {
						b.Fatal(err)
					}
				}
				cs, err := c.prepare(r.insert)
				if err != nil {
					b.Fatal(err)
				}
				defer c.done(cs)
				b.ResetTimer()
				start := cpuTime(b)
				defer func() { b.ReportMetric(float64(cpuTime(b)-start)/float64(b.N), "cpu-ns/op") }()
				for i := range b.N {
					if err := cs.bind([]sqlapi.Value{val(i), val(i % 1000), val(7), val(8)}); err != nil {
						b.Fatal(err)
					}
					if _, err := c.step(cs); err != nil {
						b.Fatal(err)
					}
					if err := cs.s.Reset(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// cpuTime is the time that the process has had a processor for: on a busy
// machine the elapsed time says little.
func cpuTime(tb testing.TB) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
