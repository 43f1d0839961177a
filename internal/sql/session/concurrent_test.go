package session

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"datawatch/internal/sql/sqlapi"
)

// kind is the transaction of a client: "private", "locked", or "" when it has
// neither.
func (c *client) kind() string {
	c.Session.mu.Lock()
	defer c.Session.mu.Unlock()
	switch {
	case c.tx.rec != nil:
		return "private"
	case c.tx.locked:
		return "locked"
	}
	return ""
}

const concurrentTables = `create table t(id int primary key, v int); insert into t values(1, 10), (2, 20), (3, 30);
	create table k(id serial primary key, v int); create table log(what text, at timestamp default current_timestamp);
	create table q(id bigint generated always as identity (start with 100) primary key, v int);
	create table u(id text default (gen_random_uuid()) primary key, v int);
	create table r(id bigint default (random()), v int);
	create table p(id int primary key); insert into p values(1); create table c(p int references p(id)); create table d(p int references p(id) deferrable initially deferred);
	create view tv as select id, v from t where v > 15;
	create trigger t_log after update on t begin insert into log(what) values(old.v || '>' || new.v); end`

// TestConcurrent: between two statements of a concurrent transaction another
// client commits something. What the transaction knows decides whether it may be
// committed.
func TestConcurrent(t *testing.T) {
	for _, x := range []struct {
		name, before, other, after string
		code                       string // of COMMIT; "" success
		query, want                string // afterwards
	}{
		{"nothing in common", "update t set v = 11 where id = 1", "update t set v = 21 where id = 2", "", "", "select group_concat(v) from t", "11,21,30"},
		{"adding", "update t set v = v + 1 where id = 1", "update t set v = v + 5 where id = 1", "", "", "select v from t where id = 1", "16"},
		{"read, then written", "select v from t where id = 1", "update t set v = 15 where id = 1", "update t set v = 11 where id = 1", "40001", "select v from t where id = 1", "15"},
		{"read and not written", "select v from t where id = 1", "update t set v = 15 where id = 1", "select v from t where id = 1", "", "select v from t where id = 1", "15"},
		{"read again after its own write", "update t set v = v + 1 where id = 1; select v from t where id = 1", "update t set v = 15 where id = 1", "", "40001", "select v from t where id = 1", "15"},
		{"returned", "update t set v = v + 1 where id = 1 returning v", "update t set v = 15 where id = 1", "", "40001", "select v from t where id = 1", "15"},
		{"returned, another row", "update t set v = v + 1 where id = 1 returning v", "update t set v = 15 where id = 2", "", "", "select v from t where id = 1", "11"},
		{"phantom", "select count(*) from t where v > 15", "insert into t values(4, 40)", "insert into t values(5, 2)", "40001", "select count(*) from t", "4"},
		{"phantom by a view", "select count(*) from tv", "insert into t values(4, 40)", "insert into t values(5, 2)", "40001", "select count(*) from t", "4"},
		{"not in the result", "select count(*) from t where v > 15", "insert into t values(4, 4)", "insert into t values(5, 2)", "", "select count(*) from t", "5"},
		{"number of rows", "delete from t where v > 15", "insert into t values(4, 40)", "", "40001", "select count(*) from t", "4"},
		{"same number of rows", "delete from t where id = 2", "update t set v = 7 where id = 2", "", "", "select count(*) from t", "2"},
		{"duplicate key", "insert into t values(4, 40)", "insert into t values(4, 41)", "", "40001", "select v from t where id = 4", "41"},
		{"key not seen", "insert into k(v) values(1)", "insert into k(v) values(2)", "", "", "select group_concat(v || '=' || id) from (select * from k order by id)", "2=1,1=2"},
		{"key seen later", "insert into k(v) values(1); select id from k where v = 1", "insert into k(v) values(2)", "", "40001", "select count(*) from k", "1"},
		{"two rows swapped", "update t set v = 1 where id = 1", "update t set v = 1 where id = 2", "select sum(v) from t", "40001", "select v from t where id = 1", "10"}, // by what it had seen before
		{"trigger", "update t set v = 11 where id = 1", "update t set v = 12 where id = 1", "", "", "select group_concat(what) from log", "10>12,12>11"},
		{"foreign key", "insert into c values(1)", "delete from p", "", "40001", "select count(*) from c", "0"},
		{"deferred foreign key", "insert into d values(1)", "delete from p", "", "23503", "select count(*) from d", "0"},
		{"deferred, mended", "insert into d values(2)", "insert into p values(3)", "insert into p values(2)", "", "select count(*) from d", "1"},
		{"deferred, left", "insert into d values(2)", "", "", "23503", "select count(*) from d", "0"},
		{"schema", "update t set v = 11 where id = 1", "create table another(a int)", "", "40001", "select v from t where id = 1", "10"},
		{"privileges", "update t set v = 11 where id = 1", "create role nobody; grant select on t to nobody", "", "40001", "select v from t where id = 1", "10"},
		{"error, gone back", "savepoint s", "", "insert into t values(1, 1)!; rollback to s; update t set v = 5 where id = 1", "", "select v from t where id = 1", "5"},
		{"error that is none any more", "savepoint s; insert into t values(1, 1)!; rollback to s; update t set v = 5 where id = 2", "delete from t where id = 1", "", "40001", "select v from t where id = 2", "20"},
		{"gone back", "update t set v = 1 where id = 1; savepoint s; update t set v = 2 where id = 1", "", "rollback to s", "", "select v from t where id = 1", "1"},
		{"gone back from what is different", "update t set v = 1 where id = 1; savepoint s; update t set v = v + 1 where id = 2 returning v", "update t set v = 5 where id = 2", "rollback to s", "40001", "select v from t where id = 1", "10"},
		{"savepoints of one name", "savepoint dw_job; update t set v = 1 where id = 1; savepoint dw_job; update t set v = 2 where id = 1; rollback to dw_job", "", "release dw_job; rollback to dw_job", "", "select v from t where id = 1", "10"},
		{"views of the server", "select count(*) from pg_class; select count(*) from v$instance; update t set v = 1 where id = 1", "update t set v = 3 where id = 2", "", "", "select group_concat(v) from t", "1,3,30"},
		{"chance alone", "select random(), gen_random_uuid(), clock_timestamp(); update t set v = 1 where id = 1", "update t set v = 3 where id = 2", "", "", "select group_concat(v) from t", "1,3,30"},
		{"time", "select current_timestamp, now(), v from t where id = 1; update t set v = 1 where id = 1", "update t set v = 3 where id = 2", "", "", "select group_concat(v) from t", "1,3,30"},
		{"uuid seen", "insert into u(v) values(1) ; select id from u", "update t set v = 3 where id = 2", "select clock_timestamp(), gen_random_uuid(), v from u", "", "select count(*) from u", "1"},
		{"sequence", "insert into q(v) values(1); select id from q", "update t set v = 3 where id = 2", "", "", "select id from q", "100"},
		{"sequence taken by both", "insert into q(v) values(1); select id from q where v = 1", "insert into q(v) values(2)", "", "", "select group_concat(v || '=' || id) from (select * from q order by id)", "1=100,2=101"},
		{"distinct on", "select distinct on (v % 20) id, v from t order by v % 20, id; update t set v = 11 where id = 1", "update t set v = 21 where id = 3", "", "40001", "select v from t where id = 1", "10"},
		{"distinct on, unchanged", "select distinct on (v % 20) id from t order by v % 20, id; update t set v = 11 where id = 1", "insert into t values(4, 40)", "", "", "select v from t where id = 1", "11"},
		{"many values drawn", "select id from t where id = 2", "", "select count(gen_random_uuid()) from t, generate_series(1, 5000); update t set v = 1 where id = 1", "", "select v from t where id = 1", "1"},
		{"many values drawn, seen", "select id from t where id = 2; savepoint s", "update t set v = 31 where id = 3", "select gen_random_uuid() from t, generate_series(1, 5000)!; rollback to s; update t set v = 1 where id = 1", "", "select v from t where id = 1", "1"},
		{"cursor", "declare x cursor for select v from t order by id; fetch 1 from x", "update t set v = 31 where id = 3", "update t set v = 1 where id = 1", "40001", "select v from t where id = 1", "10"},
	} {
		t.Run(x.name, func(t *testing.T) {
			e := newEnv(t)
			a, b := e.client(), e.client()
			a.exec(concurrentTables)
			steps := func(sql string) {
				for _, q := range strings.Split(sql, "; ") {
					if q, ok := strings.CutSuffix(q, "!"); ok {
						a.code(q)
					} else if q != "" {
						a.exec(q)
					}
				}
			}
			a.exec("begin concurrent")
			steps(x.before)
			if a.kind() != "private" && a.TxStatus() == sqlapi.TxActive && !strings.HasPrefix(x.before, "savepoint s") {
				t.Errorf("the transaction is %q", a.kind())
			}
			if x.other != "" {
				b.exec(x.other) // without waiting
			}
			steps(x.after)
			_, _, err := a.simpleQ("commit")
			if code := ""; err != nil || x.code != "" {
				if err != nil {
					code = codeOf(t, err)
				}
				if code != x.code {
					t.Errorf("COMMIT: %q (%v), want %q", code, err, x.code)
				}
			}
			b.is(x.query, x.want)
			if a.kind() != "" || a.TxStatus() != sqlapi.TxIdle {
				t.Errorf("still in a transaction, %q", a.kind())
			}
		})
	}
}

// TestConcurrentUpgrade: what cannot be repeated takes the write lock, and what
// was done before is done again under it, or found to be different.
func TestConcurrentUpgrade(t *testing.T) {
	for _, x := range []struct{ name, sql string }{
		{"ddl", "create table another(a int)"}, {"alter", "alter table t add column w int"}, {"index", "create index t_v on t(v)"},
		{"returning a key", "insert into k(v) values(1) returning id"}, {"random in a query", "select v from t order by random()"},
		{"random in an update", "update t set v = abs(random() % 5)"}, {"random in a default", "insert into r(v) values(1)"},
		{"more uuids than are remembered", "with recursive g(n) as (select 1 union all select n + 1 from g where n < 10001) insert into u(v) select n from g"},
		{"sqlite's time", "update t set v = v where date('now') > '2000-01-01'"}, {"last row", "select last_insert_rowid()"},
		{"for update", "select v from t where id = 1 for update"}, {"lock", "lock table t"}, {"analyze", "analyze t"},
		{"temp table", "create temp table mine(a int)"}, {"sequence", "create sequence s"}, {"setval", "select setval('q_id_seq', 1000)"},
		{"currval", "insert into t select currval('q_id_seq'), 1"}, {"its own status", "select v, (select count(*) from v$instance) from t"},
		{"set", "set timezone = 'Asia/Shanghai'"}, {"set_config", "select set_config('my.x', '1', false)"}, {"reset", "reset all"},
		{"grant", "grant select on t to public"}, {"current_setting", "select v from t where current_setting('timezone') <> ''"},
	} {
		t.Run(x.name, func(t *testing.T) {
			e := newEnv(t)
			a, b := e.client(), e.client()
			a.exec(concurrentTables)
			a.exec("insert into q(v) values(0)") // for currval
			a.exec("begin concurrent")
			a.exec("update t set v = v + 1 where id = 1")
			b.exec("update t set v = v + 5 where id = 1")
			a.exec(x.sql)
			if a.kind() != "locked" {
				t.Fatalf("the transaction is %q", a.kind())
			}
			if x.name != "random in an update" {
				a.is("select v from t where id = 1", "16")
			}
			a.exec("update t set v = 99 where id = 3; commit")
			b.is("select v from t where id = 3", "99")
			if x.name == "more uuids than are remembered" {
				b.is("select count(*), count(distinct id) from u", "10001|10001") // once
			}

			if a.own != nil { // nothing is concurrent from now on
				return
			}
			a.exec("begin concurrent")
			a.exec("update t set v = v + 1 where id = 2 returning v")
			b.exec("update t set v = v + 5 where id = 2")
			a.exec("savepoint s")
			sql := x.sql
			if f := strings.Fields(sql); f[0] == "create" || f[0] == "alter" {
				sql = "create table yet_another(a int)"
			}
			_, _, err := a.simpleQ(sql)
			if code := codeOf(t, err); code != "40001" {
				t.Fatalf("%s: %v, want 40001", sql, err)
			}
			a.fails("select 1", "25P02")
			a.fails("rollback to s", "25P02")
			b.exec("update t set v = v + 5 where id = 2") // the lock is free
			a.exec("rollback")
			b.is("select count(*) from t where id = 2", "1")
		})
	}
}

// TestConcurrentLostUpdate: clients that count together lose nothing, whether
// they add in SQL or in the client, as concurrent transactions or locking ones,
// read on a fresh connection (architecture 12.1).
func TestConcurrentLostUpdate(t *testing.T) {
	e := newEnv(t)
	e.client().exec("create table n(id int primary key, v int); insert into n values(1, 0), (2, 0)")
	const clients, each = 8, 40
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			c := e.client()
			rnd := rand.New(rand.NewPCG(uint64(i), 7))
			for range each {
				for {
					begin := "begin concurrent"
					if rnd.IntN(4) == 0 {
						begin = "begin isolation level serializable"
					}
					c.exec(begin)
					err := func() error {
						if _, _, err := c.simpleQ("update n set v = v + 1 where id = 1"); err != nil {
							return err
						}
						v, _, err := c.simpleQ("select v from n where id = 2")
						if err != nil {
							return err
						}
						n := 0
						fmt.Sscan(v, &n)
						if rnd.IntN(10) == 0 {
							if _, _, err := c.simpleQ("lock table n"); err != nil {
								return err
							}
						}
						if _, err := c.ext("update n set v = $1 where id = 2", n+1); err != nil {
							return err
						}
						_, _, err = c.simpleQ("commit")
						return err
					}()
					if err == nil {
						break
					}
					if code := codeOf(t, err); code != "40001" {
						t.Errorf("%v", err)
						return
					}
					c.exec("rollback")
				}
			}
		})
	}
	wg.Wait()
	e.client().is("select group_concat(v) from n", fmt.Sprintf("%d,%[1]d", clients*each))
	if s := e.b.Stats(); s.ConcurrentCommits == 0 || s.Conflicts == 0 || s.Upgrades == 0 {
		t.Errorf("nothing happened at the same time: %+v", s)
	}
}

// TestConcurrentCommitTogether: the commits of several transactions are one
// redo transaction, and one that conflicts leaves nothing in it.
func TestConcurrentCommitTogether(t *testing.T) {
	e := newEnv(t)
	e.b.maxTime = time.Hour
	a := e.client()
	a.exec("create table t(id int primary key, v int); insert into t values(1, 0), (2, 0), (3, 0)")
	a.exec("begin; update t set v = v + 100 where id = 3")
	var cs []*client
	out := make(chan error, 8)
	for i := range 8 {
		c := e.client()
		c.exec("begin concurrent")
		c.exec("savepoint s")
		c.exec("update t set v = v + 1 where id = 1")
		if i%4 == 2 {
			c.exec("select v from t where id = 3") // conflicts with a
			c.exec("insert into t values(7, 7)")   // of which nothing stays
		}
		c.exec("insert into t values(" + fmt.Sprint(10+i) + ", 0)")
		cs = append(cs, c)
	}
	for i, c := range cs {
		c.tx.rec.took = 1 // quick, whatever the machine does
		go func() { _, _, err := c.simpleQ("commit"); out <- err }()
		until(t, "commit queued", func() bool {
			e.b.gate.mu.Lock()
			defer e.b.gate.mu.Unlock()
			return len(e.b.gate.waiters) == i+1
		})
	}
	before := e.db.NextLSN()
	a.exec("commit")
	bad := 0
	for range cs {
		if err := <-out; err != nil {
			if bad++; codeOf(t, err) != "40001" {
				t.Error(err)
			}
		}
	}
	if bad != 2 {
		t.Errorf("%d conflicts, want 2", bad)
	}
	if n := e.db.NextLSN() - before; n != 2 {
		t.Errorf("%d redo transactions, want 2: the one before and one for all", n)
	}
	a.is("select group_concat(v), count(*) from t where id < 10", "6,0,100|3")
	a.is("select count(*) from t where id >= 10", "6")
}

// TestConcurrentG2: a concurrent transaction sees hardened data only; its commit
// is answered when it is hardened (G1), and so is a conflict with a commit that
// is not.
func TestConcurrentG2(t *testing.T) {
	e := newEnv(t)
	a, b, c := e.client(), e.client(), e.client()
	a.exec("create table t(id int primary key, v int); insert into t values(1, 10), (2, 20)")
	b.exec("begin concurrent")
	b.is("select v from t where id = 1", "10")
	b.exec("update t set v = 21 where id = 2")
	e.db.setHold(true)
	done, failed := make(chan error, 1), make(chan error, 1)
	go func() { _, _, err := a.simpleQ("update t set v = 11 where id = 1"); done <- err }()
	until(t, "the commit waits", func() bool { return a.waitingFor() == waitHardened })
	c.exec("begin concurrent")
	c.is("select v from t where id = 1", "10") // at once
	c.is("update t set v = v + 1 where id = 1 returning v", "11")
	c.exec("rollback")
	go func() { _, _, err := b.simpleQ("commit"); failed <- err }()
	until(t, "the conflict waits", func() bool { return b.waitingFor() == waitRows })
	select {
	case err := <-failed:
		t.Fatalf("told of a commit that is not hardened: %v", err)
	default:
	}
	e.db.setHold(false)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if code := codeOf(t, <-failed); code != "40001" {
		t.Fatalf("%s, want 40001", code)
	}

	b.exec("begin concurrent")
	b.exec("update t set v = 22 where id = 2")
	e.db.setHold(true)
	go func() { _, _, err := b.simpleQ("commit"); failed <- err }()
	until(t, "the commit waits", func() bool { return b.waitingFor() == waitHardened })
	c.is("select v from t where id = 2", "20")
	e.db.setHold(false)
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	c.is("select v from t where id = 2", "22")

	// A conflict found on the way to the lock waits as well, and gives it back.
	b.exec("begin concurrent")
	b.is("select v from t where id = 1", "11")
	e.db.setHold(true)
	go func() { _, _, err := a.simpleQ("update t set v = 12 where id = 1"); done <- err }()
	until(t, "the commit waits", func() bool { return a.waitingFor() == waitHardened })
	go func() { _, _, err := b.simpleQ("lock table t"); failed <- err }()
	until(t, "the conflict waits", func() bool { return b.waitingFor() == waitRows })
	e.db.setHold(false)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if code := codeOf(t, <-failed); code != "40001" {
		t.Fatalf("%s, want 40001", code)
	}
	b.exec("rollback")
}
