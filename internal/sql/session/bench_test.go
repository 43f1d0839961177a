package session

import (
	"context"
	"fmt"
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
