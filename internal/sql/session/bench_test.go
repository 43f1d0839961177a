package session

import (
	"context"
	"fmt"
	"sync"
	"testing"

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
