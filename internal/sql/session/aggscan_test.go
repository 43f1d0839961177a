package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"datawatch/internal/sql/sqlapi"
)

// answer is everything that a client sees of a statement: columns, rows with the
// kinds of their values, tag and error.
func (c *client) answer(sql string, args ...sqlapi.Value) string {
	ctx := context.Background()
	var b strings.Builder
	err := func() error {
		st, err := c.Prepare(ctx, sql, nil)
		if err != nil {
			return err
		}
		defer st.Close()
		po, err := st.Bind(args)
		if err != nil {
			return err
		}
		defer po.Close()
		fmt.Fprintln(&b, po.Columns())
		tag, _, err := po.Run(ctx, 0, func(r sqlapi.Row) error {
			for i := range st.Columns() {
				fmt.Fprintf(&b, "%d:", r.Kind(i))
				switch r.Kind(i) {
				case sqlapi.Integer:
					fmt.Fprintf(&b, "%d|", r.Int64(i))
				case sqlapi.Float:
					fmt.Fprintf(&b, "%x %s|", r.Float64(i), r.Bytes(i))
				case sqlapi.Text, sqlapi.Blob:
					fmt.Fprintf(&b, "%q|", r.Bytes(i))
				}
			}
			b.WriteByte('\n')
			return nil
		})
		b.WriteString(tag)
		return err
	}()
	if err != nil {
		fmt.Fprint(&b, "error: ", err)
	}
	if err := c.Sync(ctx, err != nil); err != nil {
		fmt.Fprint(&b, "sync: ", err)
	}
	return b.String()
}

// same runs a statement with the executor and without and wants the same answer;
// used says that the executor must have done it.
func (c *client) same(sql string, used bool, args ...sqlapi.Value) {
	c.tb.Helper()
	n := c.b.scans.done.Load()
	c.exec("set enable_aggscan = always")
	got := c.answer(sql, args...)
	ran := c.b.scans.done.Load() > n
	c.exec("set enable_aggscan = off")
	want := c.answer(sql, args...)
	if got != want {
		c.tb.Errorf("%s %v:\n%s\nSQLite says:\n%s", sql, args, got, want)
	}
	if used != ran {
		c.tb.Errorf("%s: done by the executor: %v, want %v\n%s", sql, ran, used, c.plan(sql))
	}
}

// plan says why the executor does not do a statement.
func (c *client) plan(sql string) string {
	r, err := c.b.readers.get(context.Background())
	if err != nil {
		return err.Error()
	}
	defer c.b.readers.put(r)
	_, err = r.program(sql)
	return fmt.Sprint(err)
}

// scanEnv has tables for scans of every kind of value.
func scanEnv(tb testing.TB, rows int) (*env, *client) {
	e := newEnv(tb)
	c := e.client()
	c.exec("set enable_aggscan = always; create table t(id integer primary key, a int, b varchar(120), r real, n numeric(12,2), d date, f boolean, x, z int not null default 7)")
	c.exec(fmt.Sprintf(`with recursive s(i) as (select 1 union all select i+1 from s where i<%d) insert into t select i,
		case when i%%7=0 then null else (i*7919)%%1000-300 end, case when i%%11=0 then null else 'text '||(i*31)%%97 end,
		case when i%%13=0 then null else (i*i)%%1009/8.0 end, case when i%%5=0 then (i%%100)+0.25 else i%%100 end,
		case when i%%17=0 then null else date('2024-01-01', (i%%400)||' days') end, i%%3=0,
		case i%%9 when 0 then null when 1 then i when 2 then i+0.5 when 3 then 'word'||i when 4 then x'00ff' when 5 then -i else i*1.0 end, i%%4 from s`, rows))
	return e, c
}

func TestAggregateScan(t *testing.T) {
	_, c := scanEnv(t, 20000)
	for _, q := range []struct {
		sql  string
		used bool
	}{
		{"select count(*), sum(a), max(a), avg(id) from t where a >= 0", true},
		{"select max(a) from t", true},
		{"select min(b), max(b), count(b) from t", true},
		{"select sum(r), total(r), avg(r), min(r), max(r) from t", true},
		{"select sum(n), avg(n), total(n), min(n), max(n) from t", true},
		{"select min(d), max(d), count(d) from t where d > '2024-03-01'", true},
		{"select count(*) from t where f", true},
		{"select count(*) from t where not f", true},
		{"select count(*) from t where f = true and a is not null", true},
		{"select min(x), max(x), count(x) from t", true},
		{"select sum(x) from t where id > 0 and x < 100", false},
		{"select count(*) from t where a between 10 and 500 and b in ('text 1', 'text 2')", true},
		{"select count(*) from t where a in (1, 2, 3, 4, 5, 6, 7) or a in (20, 30, 40, 50)", true},
		{"select count(*) from t where b in ('text 1', 'text 2', 'text 3', 'text 4')", true},
		{"select count(*) from t where a not in (1, 2, 3, 4, 5)", false},
		{"select count(*) from t where r in (1, 2.5, 3, 4)", true},
		{"select count(*), sum(a) from t where b is null or a is null", true},
		{"select count(*) from t where r > 50.125", true},
		{"select count(*) from t where r > 50", true},
		{"select count(*) from t where n > 0.1 and n < 3", true},
		{"select count(*) from t where x > 5", true},
		{"select count(*) from t where x > 5.5", true},
		{"select count(*) from t where x > 'word2'", true},
		{"select count(*) from t where x = x'00ff'", false},
		{"select sum(a+1), sum(a*id), sum(a-id), sum(a/7), sum(a%7), sum(r*2), sum(-a) from t", true},
		{"select sum(case when a > 3 then 1 else 0 end), count(*) filter (where r < 3), sum(a > 100) from t", true},
		{"select sum(a), count(*)/2, coalesce(sum(a),0), round(avg(r),2), 1+count(*) from t", true},
		{"select sum(a)::bigint, avg(a)::numeric(10,3) from t", true},
		{"select count(*) from t having count(*) > 3", true},
		{"select count(*) from t where a > 100 having count(*) > 100000", true},
		{"select count(*) from t where a > 100 limit 0", true},
		{"select avg(a) from t limit 1", true},
		{"select sum(a) from t where id < 0 and a > 3", false},
		{"select count(a), sum(a), total(a), avg(a), min(a), max(a) from t where a > 100000", true},
		{"select sum(9223372036854775807) from t where a > 0", false},
		{"select sum(a) from (select a, b from t where a > 5) where b > 'text 5'", true},
		{"select z, count(*), sum(a), avg(r), min(b), max(id) from t group by z", true},
		{"select b, count(*) from t group by b", true},
		{"select b, a, count(*), sum(r) from t where a > 3 group by b, a", true},
		{"select x, count(*), sum(a) from t group by x", true},
		{"select n, count(*) from t group by n order by n desc", true},
		{"select a%10, count(*) from t group by a%10 having count(*) > 1900 order by 2 desc, 1", true},
		{"select f, sum(r), sum(n), count(*) filter (where a > 0) from t group by f", true},
		{"select d, count(*) from t where a > 1000 group by d", true},
		{"select count(*) c, z from t group by z order by c, z", true},
		{"select z, r, count(*) from t group by z", true},
		{"select z, min(b) from t group by z", true},
		{"select z, b, min(a) from t group by z", false},
		{"select x, max(a) from t group by x", true},
		{"select r, max(a) from t group by r", true},
		{"select max(a), b from t", false},
		{"select count(distinct a) from t", false},
		{"select count(*) from t, t u where t.id = u.id", false},
		{"select count(*) from t where b like 'text%'", false},
		{"select count(*) from t where upper(b) = 'TEXT 1'", false},
		{"select group_concat(b) from t where a = 1", false},
		{"select count(*) from t where b collate nocase = 'TEXT 1'", false},
		{"select min(b collate nocase) from t", false},
		{"select max(id) from t", false},
		{"select count(*) from t where id between 10 and 20", false},
		{"select sum(a) over () from t limit 3", false},
		{"select a, b from t where a > 5 order by count(*) over () limit 1", false},
	} {
		c.same(q.sql, q.used)
	}
	for _, q := range []struct {
		sql  string
		used bool
		args []sqlapi.Value
	}{
		{"select count(*), sum(a) from t where a > $1", true, []sqlapi.Value{val(10)}},
		{"select count(*) from t where a > $1", true, []sqlapi.Value{val(10.5)}},
		{"select count(*) from t where a > $1", true, []sqlapi.Value{val(nil)}},
		{"select count(*) from t where a > $1", false, []sqlapi.Value{val("10")}},
		{"select count(*) from t where a > $1", false, []sqlapi.Value{val(10)}}, // it has given up once
		{"select count(*) from t where b > $1", true, []sqlapi.Value{val("text 5")}},
		{"select count(*) from t where b >= $1", true, []sqlapi.Value{val(5)}},
		{"select sum(a + $1), $2 from t where r between $3 and $4", true, []sqlapi.Value{val(1), val("x"), val(1.5), val(70)}},
		{"select count(*) from t where a in ($1, $2, $3, $4)", true, []sqlapi.Value{val(1), val(2), val(3), val(4.5)}},
		{"select z + $1, count(*) from t group by 1", true, []sqlapi.Value{val(1)}},
	} {
		c.same(q.sql, q.used, q.args...)
	}
}

// TestAggregateScanStates: the executor reads what SQLite reads, wherever pages
// are: in version chains, in the data file, in a cache that is too small, on a
// snapshot of a transaction (G2, G6); and it keeps away where it must.
func TestAggregateScanStates(t *testing.T) {
	e, c := scanEnv(t, 20000)
	const sum = "select count(*), sum(a), avg(r), min(b) from t where a > -1000"
	c.same(sum, true)
	if _, err := e.db.store.Checkpoint(context.Background(), e.db.store.Hardened()); err != nil {
		t.Fatal(err)
	}
	c.same(sum, true)
	c.exec("delete from t where id % 3 = 0; update t set a = a + 1 where id % 5 = 0")
	c.same(sum, true)

	// Rows older than a column have its default.
	c.exec("alter table t add column q int default 42; alter table t add column s text default ''; alter table t add column u varchar(9)")
	c.same("select sum(q), min(s), count(s), count(u) from t", true)
	c.exec("update t set q = 7, s = 'x', u = 'y' where id % 2 = 0")
	c.same("select sum(q), min(s), max(s), count(u) from t where q > 0", true)
	c.same("select q, s, count(*) from t group by q, s", true)
	c.exec("alter table t add column fr real default 5; alter table t add column nn numeric(9,2) default 1.5; alter table t add column bo boolean default true; alter table t add column da date default '2024-01-01'")
	c.same("select sum(fr), sum(nn), count(*) filter (where bo), min(da), max(fr) from t", true)

	// A transaction with one snapshot does not see what comes later.
	c.exec("begin isolation level repeatable read read only; select 1 from t limit 1")
	before := c.exec(sum)
	o := e.client()
	o.exec("delete from t where id < 1000")
	c.is(sum, before)
	n := e.b.scans.done.Load()
	c.is("set enable_aggscan=always; "+sum, before)
	if e.b.scans.done.Load() == n {
		t.Error("not done by the executor on a pinned snapshot")
	}
	c.exec("rollback")
	c.same(sum, true)

	// A transaction that writes sees its own changes: SQLite has them.
	c.exec("begin; update t set a = 100000 where id = 5000")
	n = e.b.scans.done.Load()
	c.is("set enable_aggscan=always; select max(a) from t", "100000")
	if e.b.scans.done.Load() != n {
		t.Error("the executor read under the write lock")
	}
	c.exec("rollback")
	c.is("select max(a) from t", o.exec("select max(a) from t"))

	n = e.b.scans.done.Load()
	c.exec("begin concurrent; update t set a = 200000 where id = 5000")
	c.is("select max(a) from t", "200000")
	if e.b.scans.done.Load() != n {
		t.Error("the executor read in a transaction with pages of its own")
	}
	c.exec("rollback")

	// A temporary table hides one of the same name.
	c.exec("create temp table t(a int); insert into t values(1), (2)")
	c.is("select count(*), sum(a) from t where a > 0", "2|3")
	c.same("select count(*), sum(a) from main.t where a > 0", true)
	c.exec("drop table temp.t")

	// Nothing that is not hardened is seen (G2).
	before = o.exec(sum)
	e.db.setHold(true)
	done := make(chan error)
	w := e.client()
	go func() { _, err := w.ext("delete from t"); done <- err }()
	until(t, "the commit waits", func() bool { return e.db.waits.Load() > 0 })
	c.is(sum, before)
	e.db.setHold(false)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	c.is("select count(*) from t where a > -1000", "0")
}

// A statement that was prepared for an older schema is compiled again, by SQLite.
func TestAggregateScanSchema(t *testing.T) {
	e, c := scanEnv(t, 3000)
	ctx := context.Background()
	st, err := c.Prepare(ctx, "select sum(a), count(*) from t where a > 0", nil)
	if err != nil {
		t.Fatal(err)
	}
	run := func() string {
		po, err := st.Bind(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer po.Close()
		out := ""
		if _, _, err = po.Run(ctx, 0, func(r sqlapi.Row) error { out = rowText(r, 2); return nil }); err != nil {
			t.Fatal(err)
		}
		if err := c.Sync(ctx, false); err != nil {
			t.Fatal(err)
		}
		return out
	}
	o := e.client()
	for _, ddl := range []string{"create table t2(a int)", "alter table t drop column b", "drop table t; create table t(b int, a int); insert into t select 1, 2 from t2 union all select 5, 6", "vacuum full"} {
		o.exec(ddl)
		run() // by SQLite, which notices
		if got, want := run(), o.exec("set enable_aggscan=off; select sum(a), count(*) from t where a > 0"); got != want {
			t.Fatalf("after %s: %s, want %s", ddl, got, want)
		}
	}
	if e.b.scans.done.Load() < 4 {
		t.Errorf("the executor did %d", e.b.scans.done.Load())
	}
}

// Rights are checked as for any statement, a cancelled scan ends, EXPLAIN tells.
func TestAggregateScanServer(t *testing.T) {
	e, c := scanEnv(t, 20000)
	c.exec("create user reader identified by 'Reader-123456'; create table secret(a int); insert into secret values(1)")
	r := e.clientAs(sqlapi.Info{User: "reader"})
	r.exec("set enable_aggscan = always")
	r.fails("select sum(a) from t where a > 1", "42501")
	c.exec("grant select on t to reader")
	r.same("select sum(a) from t where a > 1", true)
	c.exec("revoke select on t from reader")
	r.fails("select sum(a) from t where a > 1", "42501")

	// Also when the connection has learnt of the change by another statement, and
	// asks only now what the executor can do with one that it has prepared before.
	c.exec("grant select on t to reader; create table open(a int); grant select on open to reader")
	ctx := context.Background()
	prepared := func(sql string) func() error {
		st, err := r.Prepare(ctx, sql, nil)
		if err != nil {
			t.Fatal(err)
		}
		return func() error {
			po, err := st.Bind(nil)
			if err != nil {
				t.Fatal(err)
			}
			defer po.Close()
			_, _, err = po.Run(ctx, 0, func(sqlapi.Row) error { return nil })
			if e := r.Sync(ctx, err != nil); e != nil {
				t.Fatal(e)
			}
			return err
		}
	}
	r.exec("set enable_aggscan = off")
	sum, open := prepared("select sum(a), 1 from t where a > 1"), prepared("select a from open")
	if err := errors.Join(sum(), open()); err != nil {
		t.Fatal(err)
	}
	r.exec("set enable_aggscan = always")
	c.exec("revoke select on t from reader")
	if err := open(); err != nil {
		t.Fatal(err)
	}
	if err := sum(); err == nil || codeOf(t, err) != "42501" {
		t.Errorf("a prepared aggregate after REVOKE: %v, want 42501", err)
	}

	const q = "select sum(a) from t where a > 1"
	if got := c.exec("explain " + q); !strings.Contains(got, "OWN EXECUTOR") {
		t.Errorf("explain: %s", got)
	}
	if got := c.exec("explain select max(id) from t"); strings.Contains(got, "OWN EXECUTOR") {
		t.Errorf("explain of a look-up: %s", got)
	}
	c.exec("set enable_aggscan = off")
	if got := c.exec("explain " + q); strings.Contains(got, "OWN EXECUTOR") {
		t.Errorf("explain with the executor off: %s", got)
	}
	o := e.client()
	n := e.b.scans.done.Load()
	o.exec("select count(*) from secret where a > 0")
	if n := e.b.scans.done.Load() - n; n != 1 && e.db.store.Pages() >= scanPages || n != 0 && e.db.store.Pages() < scanPages {
		t.Errorf("done %d times with %d pages", n, e.db.store.Pages())
	}
}

// TestAggregateScanMemory: what min and max of each group keep counts, and so does
// what stands in a row before the columns that are wanted: beyond what a statement
// may have, SQLite does it, which needs none of that.
func TestAggregateScanMemory(t *testing.T) {
	e, c := scanEnv(t, 1)
	c.exec(`create table m(g int, big blob, v text, n int);
		with recursive s(i) as (select 1 union all select i+1 from s where i<1000) insert into m select i, null, '', i from s union all select i, null, printf('%10000d', i), i from s;
		create table l(big blob, n int); insert into l values(zeroblob(5000000), 7)`)
	const groups, few, large = "select g, max(v) > '' from m group by g", "select max(v), sum(n) from m where g > 0", "select sum(n) from l where n > 0"
	e.b.SetLimits(Limits{Memory: 128 << 20})
	c.same(groups, true)
	c.same(few, true)
	c.same(large, true)
	e.b.SetLimits(Limits{Memory: 16 << 20})
	c.same(groups, false)
	c.same(few, true)
	c.same(large, false)
}

// BenchmarkAggregateScan: the statement of dw bench, with the executor and
// without, over a million rows.
func BenchmarkAggregateScan(b *testing.B) {
	e := newEnv(b)
	c := e.client()
	c.exec("CREATE TABLE dw_scan(id INTEGER PRIMARY KEY, a INTEGER, b VARCHAR(120))")
	c.exec("WITH RECURSIVE g(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM g WHERE i < 1000000) " +
		"INSERT INTO dw_scan SELECT i, i * 7, 'a row of about fifty bytes ...................' FROM g")
	for _, on := range []string{"always", "off"} {
		for _, q := range []struct{ name, sql string }{
			{"ints", "SELECT count(*), sum(a), max(a), avg(id) FROM dw_scan WHERE a >= 0"},
			{"doubles", "SELECT sum(a * 0.5) FROM dw_scan"},
			{"group", "SELECT a % 100, count(*), sum(id) FROM dw_scan GROUP BY 1"},
		} {
			b.Run(q.name+"/"+on, func(b *testing.B) {
				c.exec("set enable_aggscan = " + on)
				b.ReportAllocs()
				var from, to syscall.Rusage
				_ = syscall.Getrusage(syscall.RUSAGE_SELF, &from)
				for b.Loop() {
					c.exec(q.sql)
				}
				_ = syscall.Getrusage(syscall.RUSAGE_SELF, &to)
				b.ReportMetric(float64(to.Utime.Nano()+to.Stime.Nano()-from.Utime.Nano()-from.Stime.Nano())/1e6/float64(b.N), "cpu-ms/op")
			})
		}
	}
}
