package session

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/sql/sqlapi"
)

func TestTransactions(t *testing.T) {
	e := newEnv(t)
	a, b := e.client(), e.client()
	a.exec("create table t(id integer primary key, v int); insert into t values(1,1)")

	a.exec("begin")
	if a.TxStatus() != sqlapi.TxActive {
		t.Fatal("not in a transaction")
	}
	a.exec("update t set v=2")
	a.is("select v from t", "2") // its own write
	b.is("select v from t", "1") // nobody else sees it
	a.exec("savepoint s; update t set v=3; rollback to s")
	a.is("select v from t", "2")
	a.fails("insert into t values(1,1)", "23505")
	if a.TxStatus() != sqlapi.TxFailed {
		t.Fatal("the transaction is not failed")
	}
	a.fails("select 1", "25P02")
	a.exec("rollback to s")
	a.is("select v from t", "2")
	a.is("commit", "COMMIT")
	b.is("select v from t", "2")

	// A failed transaction without savepoints gives the lock up at once and ends in ROLLBACK.
	a.exec("begin; update t set v=9")
	a.code("select nosuch from t")
	b.exec("update t set v=5")
	a.is("commit", "ROLLBACK")
	b.is("select v from t", "5")

	// Several statements in one simple query are one transaction.
	a.fails("update t set v=6; insert into t values(1,1)", "23505")
	b.is("select v from t", "5")
	a.exec("update t set v=7; select 1; update t set v=v+1")
	b.is("select v from t", "8")
	a.exec("update t set v=1; commit; select 1")
	b.is("select v from t", "1")

	// An extended series is one transaction up to Sync.
	if _, _, err := a.run("update t set v=10"); err != nil {
		t.Fatal(err)
	}
	b.is("select v from t", "1")
	if _, _, err := a.run("insert into t values(1,1)"); err == nil {
		t.Fatal("no error")
	}
	a.Sync(context.Background(), true)
	b.is("select v from t", "1")
	if _, err := a.ext("update t set v=11"); err != nil {
		t.Fatal(err)
	}
	b.is("select v from t", "11")
	a.exec("begin; insert into t values(100,1); rollback and chain; select 1; commit")
	b.is("select count(*) from t", "1")
	a.is("rollback", "ROLLBACK")
	if len(a.notices) == 0 {
		t.Error("no warning about ROLLBACK outside a transaction")
	}
	// A failed statement leaves no partial rows.
	a.code("insert into t select 200+value, 1 from (values(1),(2),(3)) union all select 1, 1")
	b.is("select count(*) from t", "1")
}

// TestTempInSimpleQuery: several statements in one simple query are one
// transaction for temporary tables, too.
func TestTempInSimpleQuery(t *testing.T) {
	for _, mode := range []base.Mode{base.ModePrimary, base.ModeStandby} {
		e := newEnv(t)
		a := e.client()
		a.exec("create table t(id integer primary key)")
		a.exec("create temp table x(v int)")
		e.db.mode.Store(uint32(mode))
		a.code("insert into x values(1); insert into x values(2) returning v; select nosuch from x")
		a.is("select count(*) from x", "0")
		a.exec("insert into x values(1); insert into x values(2)")
		a.code("select 1; insert into x values(3); delete from x; select nosuch from t")
		a.is("select count(*), sum(v) from x", "2|3")
		if a.TxStatus() != sqlapi.TxIdle {
			t.Errorf("%v: a transaction is left", mode)
		}
		if mode == base.ModePrimary {
			a.code("insert into x values(9); insert into t values(1); insert into t values(1)")
			a.exec("insert into x values(3); insert into t values(1)")
			a.is("select (select count(*) from x), (select count(*) from t)", "3|1")
		}
	}
}

// TestIsolation: what a second read in a transaction sees after another
// session committed in between, and whether it may then write.
func TestIsolation(t *testing.T) {
	for _, x := range []struct {
		begin  string
		second string
		write  string // "" allowed
		locks  bool   // the first statement takes the write lock
	}{
		{"begin", "2", "", false},
		{"begin isolation level read committed read only", "2", "25006", false},
		{"begin isolation level serializable read only", "1", "25006", false},
		{"begin isolation level repeatable read, read only", "1", "25006", false},
		{"begin isolation level serializable", "1", "", true},
		{"begin isolation level repeatable read", "1", "", true},
	} {
		t.Run(x.begin, func(t *testing.T) {
			e := newEnv(t)
			a, b := e.client(), e.client()
			a.exec("create table t(v int); insert into t values(1)")
			b.exec("set lock_timeout = '50ms'")
			a.exec(x.begin)
			a.is("select v from t", "1")
			if x.locks {
				b.fails("update t set v=2", "55P03")
			} else {
				b.exec("update t set v=2")
			}
			a.is("select v from t", x.second)
			if x.write == "" {
				a.exec("update t set v=v+10")
				a.exec("commit")
				want := "12"
				if x.locks {
					want = "11"
				}
				b.is("select v from t", want)
			} else {
				a.fails("update t set v=v+10", x.write)
			}
		})
	}
}

// TestLostUpdate counts increments by sessions of every kind and reads the
// counter on fresh connections.
func TestLostUpdate(t *testing.T) {
	e := newEnv(t)
	e.client().exec("create table c(id integer primary key, v int); insert into c values(0,0),(1,0)")
	const writers, each = 16, 60
	var wg sync.WaitGroup
	var stop atomic.Bool
	for w := range writers {
		c := e.client()
		if w%5 == 4 {
			c.exec("create temp table mine(a int)") // owns a connection, writes there
		}
		wg.Go(func() {
			for i := range each {
				var err error
				switch (w + i) % 4 {
				case 0:
					_, _, err = c.simpleQ("update c set v=v+1 where id=0")
				case 1:
					_, err = c.ext("update c set v=v+$1 where id=$2", 1, 0)
				case 2:
					_, _, err = c.simpleQ("begin; select v from c where id=0 for update; update c set v=v+1 where id=0; update c set v=v+1 where id=1; commit")
				case 3:
					_, _, err = c.simpleQ("begin isolation level serializable; select v from c; update c set v=v+1 where id=0; commit")
				}
				if err != nil {
					t.Errorf("writer %d: %v", w, err)
					return
				}
			}
		})
	}
	var readers sync.WaitGroup
	for range 4 {
		c := e.client()
		readers.Go(func() {
			last := 0
			for !stop.Load() {
				rows, _, err := c.simpleQ("select v from c where id=0")
				n, _ := strconv.Atoi(rows)
				if err != nil || n < last {
					t.Errorf("reader: %q %v after %d", rows, err, last)
					return
				}
				last = n
			}
		})
	}
	wg.Wait()
	stop.Store(true)
	readers.Wait()
	fresh := New(Config{DB: e.b.cfg.DB})
	s, err := fresh.NewSession(context.Background(), sqlapi.Info{User: "SYSDBA"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &client{tb: t, Session: s.(*Session)}
	c.is("select v from c where id=0", fmt.Sprint(writers*each))
	c.is("pragma integrity_check", "ok")
	fresh.Close(t.Context(), "done")
}

// TestSpill: a transaction larger than SQLite's cache is still atomic.
func TestSpill(t *testing.T) {
	e := newEnv(t, func(c *Config) { c.WriterCache = 256 })
	a, b := e.client(), e.client()
	a.exec("create table t(id integer primary key, v text)")
	fill := "with recursive s(i) as (select 1 union all select i+1 from s where i<400) insert into t select i, hex(randomblob(8000)) from s"
	a.exec("begin; " + fill)
	b.is("select count(*) from t", "0")
	a.is("select count(*) from t", "400")
	a.exec("rollback")
	b.is("select count(*) from t", "0")
	a.exec("begin; " + fill)
	a.exec("commit")
	b.is("select count(*) from t", "400")
	b.is("pragma integrity_check", "ok")
	a.exec("delete from t where id > 10")
	a.is("vacuum full", "VACUUM")
	b.is("select count(*), (select count(*) from pragma_integrity_check where integrity_check='ok') from t", "10|1")
	buf := make([]byte, 100)
	h := e.b.cfg.DB.NewHandle(true)
	defer h.Close()
	if _, err := h.ReadAt(buf, 0); err != nil || buf[20] != 16 {
		t.Errorf("reserved bytes after VACUUM: %d %v", buf[20], err)
	}
}

func TestLockAndCancel(t *testing.T) {
	e := newEnv(t)
	a, b := e.client(), e.client()
	a.exec("create table t(v int); insert into t values(1)")
	a.exec("begin; update t set v=2")
	b.exec("set lock_timeout=30")
	b.fails("update t set v=3", "55P03")
	b.fails("begin; select v from t for update nowait", "55P03")
	b.exec("rollback; set lock_timeout=0")

	result := make(chan error, 1)
	go func() { _, _, err := b.simpleQ("update t set v=3"); result <- err }()
	until(t, "b waits for the lock", func() bool { return b.waitingFor() == waitLock })
	b.Cancel()
	if code := codeOf(t, <-result); code != "57014" {
		t.Fatalf("cancelled waiter: %s", code)
	}
	a.exec("commit")
	b.is("select v from t", "2")

	go func() { _, _, err := b.simpleQ("select pg_sleep(100)"); result <- err }()
	until(t, "b sleeps", func() bool { return b.describe().State == "active" })
	b.Cancel()
	if code := codeOf(t, <-result); code != "57014" {
		t.Fatalf("cancelled statement: %s", code)
	}
	b.exec("set statement_timeout='20ms'")
	b.fails("with recursive s(i) as (select 1 union all select i+1 from s) select count(*) from s", "57014")
	b.fails("insert into t with recursive s(i) as (select 1 union all select i+1 from s) select i from s", "57014")
	b.exec("reset statement_timeout")
	b.is("select v from t", "2")
	// A cancelled query after a savepoint does not cost the transaction.
	b.exec("begin; update t set v=20; savepoint s; set local statement_timeout='20ms'")
	b.fails("with recursive s(i) as (select 1 union all select i+1 from s) select count(*) from s", "57014")
	b.exec("rollback to s; set local statement_timeout=0")
	b.is("select v from t", "20")
	b.exec("update t set v=2; commit")
	// An interrupted write in a transaction: everything is undone, the session goes on.
	b.exec("begin; update t set v=7; savepoint s; set local statement_timeout='20ms'")
	b.fails("insert into t with recursive s(i) as (select 1 union all select i+1 from s) select i from s", "57014")
	b.exec("rollback")
	b.is("select v from t", "2")
	b.is("show statement_timeout", "0")
}

func TestSuspendedCommit(t *testing.T) {
	e := newEnv(t)
	a, b, r := e.client(), e.client(), e.client()
	a.exec("create table t(v int); insert into t values(1)")
	e.db.status.Store(uint32(base.StatusSuspend))
	e.db.setHold(true)
	result := make(chan error, 2)
	go func() { _, _, err := a.simpleQ("update t set v=v+1"); result <- err }()
	until(t, "a waits for hardening", func() bool { return a.waitingFor() == waitHardened })
	// The write lock is free again: another writer gets as far.
	go func() { _, _, err := b.simpleQ("update t set v=v+1"); result <- err }()
	until(t, "b waits for hardening", func() bool { return b.waitingFor() == waitHardened })
	r.is("select v from t", "1") // nothing unhardened is seen (G2)
	e.db.setHold(false)
	for range 2 {
		if err := <-result; err != nil {
			t.Fatal(err)
		}
	}
	r.is("select v from t", "3")

	e.db.setHold(true)
	go func() { _, _, err := a.simpleQ("update t set v=v+1"); result <- err }()
	until(t, "a waits", func() bool { return a.waitingFor() == waitHardened })
	a.Cancel()
	if code := codeOf(t, <-result); code != "08007" {
		t.Fatalf("cancelled commit: %s", code)
	}
	go func() { _, _, err := b.simpleQ("update t set v=v+1"); result <- err }()
	until(t, "b waits", func() bool { return b.waitingFor() == waitHardened })
	e.b.DropAll("suspended")
	if code := codeOf(t, <-result); code != "57P01" {
		t.Fatalf("terminated commit: %s", code)
	}
	select {
	case <-b.Done():
	default:
		t.Fatal("Done is open after Terminate")
	}
	e.db.setHold(false)
}

func TestStandby(t *testing.T) {
	e := newEnv(t)
	c := e.client()
	c.exec("create table t(v int); insert into t values(1)")
	c.Parameters()
	e.db.mode.Store(uint32(base.ModeNormal)) // a primary would end its sessions
	e.b.StatusChanged()
	e.db.mode.Store(uint32(base.ModeStandby))
	e.b.StatusChanged()
	c.is("select pg_is_in_recovery()", "1")
	if c.params["in_hot_standby"] != "on" || c.params["default_transaction_read_only"] != "on" {
		t.Errorf("reported parameters: %v", c.params)
	}
	c.is("show transaction_read_only", "on")
	c.is("show in_hot_standby", "on")
	c.is("show default_transaction_read_only", "on")
	for _, q := range []string{"insert into t values(1)", "create table x(a int)", "begin; delete from t", "select v from t where v=1; update t set v=2",
		"begin; select * from t for update", "vacuum full", "analyze", "truncate t", "drop table t", "alter user sysdba password 'x'", "begin; lock table t"} {
		c.fails(q, "25006")
		c.exec("rollback")
	}
	c.is("select v from t", "1")
	c.exec("begin isolation level serializable")
	c.is("select v from t", "1")
	c.exec("commit")
	c.exec("create temp table x(a int)")
	c.exec("insert into x values(1),(2)")
	c.is("select sum(a)+v from x, t", "4")
	c.exec("begin; insert into x values(3); rollback")
	c.is("select count(*) from x", "2")
	c.fails("insert into t select a from x", "25006")
	e.db.mode.Store(uint32(base.ModePrimary))
	e.b.StatusChanged()
	c.exec("insert into t select a from x")
	c.is("select count(*) from t", "3")
	c.is("show transaction_read_only", "off")
	if c.params["in_hot_standby"] != "off" {
		t.Errorf("reported parameters: %v", c.params)
	}
	c.exec("discard all")
	c.fails("select * from x", "42P01")

	// A primary in Mount takes no writes either, and a suspended one lets them
	// wait: a driver that looks for the primary must go on.
	for _, st := range []base.Status{base.StatusMount, base.StatusSuspend} {
		for _, now := range []struct {
			st base.Status
			on string
		}{{base.StatusOpen, "off"}, {st, "on"}} {
			e.db.status.Store(uint32(now.st))
			e.b.StatusChanged()
			for _, v := range []string{"in_hot_standby", "transaction_read_only", "default_transaction_read_only"} {
				c.is("show "+v, now.on)
			}
			if c.params["in_hot_standby"] != now.on {
				t.Errorf("%s: reported parameters: %v", now.st, c.params)
			}
		}
	}
}

func TestTemp(t *testing.T) {
	e := newEnv(t)
	a, b := e.client(), e.client()
	a.exec("create table t(v int)")
	a.exec("begin; insert into t values(1); create temp table x as select v+1 as w from t; insert into t select w from x; commit")
	b.is("select count(*) from t", "2")
	b.fails("select * from x", "42P01")
	b.exec("insert into t values(9)") // a new writer connection
	a.is("select sum(v) from t", "12")
	a.exec("insert into t select w from x")
	b.is("select sum(v) from t", "14")
	a.exec("begin; update x set w=100; rollback")
	a.is("select w from x", "2")
}

func TestIdleWriter(t *testing.T) {
	e := newEnv(t, func(c *Config) { c.IdleInWrite = 30 * time.Millisecond })
	a, b := e.client(), e.client()
	a.exec("create table t(v int); insert into t values(1)")
	a.exec("begin; update t set v=2")
	b.exec("update t set v=v+10") // waits until a is thrown out
	b.is("select v from t", "11")
	<-a.Done()
	_, _, err := a.simpleQ("select 1")
	if e := errOf(t, err); e.Code != "25P03" || e.Severity != "FATAL" {
		t.Fatalf("%+v", e)
	}
}

func TestCommitFails(t *testing.T) {
	e := newEnv(t)
	c := e.client()
	c.exec("create table t(v int primary key); insert into t values(1)")
	full := fmt.Errorf("write log: %w", syscall.ENOSPC)
	e.db.fail.Store(&full)
	c.fails("insert into t values(2)", "53100")
	c.exec("begin; insert into t values(3)")
	c.fails("commit", "53100")
	own := error(&sqlapi.Error{Code: "57P03", Message: "shutting down"})
	e.db.fail.Store(&own)
	c.fails("insert into t values(4)", "57P03")
	e.db.fail.Store(nil)
	c.is("select count(*) from t", "1")
	c.exec("insert into t values(2)")
	c.is("pragma integrity_check", "ok")
	c.exec("create table p(id integer primary key); create table r(p int references p(id) deferrable initially deferred)")
	if _, err := c.ext("insert into r values(1)"); err == nil || codeOf(t, err) != "23503" {
		t.Errorf("deferred constraint at Sync: %v", err)
	}
	c.fails("begin; insert into r values(1); commit", "23503")
	c.is("select count(*) from r", "0")
}

func TestSuspendedPortal(t *testing.T) {
	e := newEnv(t)
	c, w := e.client(), e.client()
	c.exec("create table t(v int); insert into t values(1),(2),(3),(4),(5)")
	ctx := t.Context()
	step := func(po sqlapi.Portal, max int) (string, bool, error) {
		var out []string
		_, more, err := po.Run(ctx, max, func(r sqlapi.Row) error { out = append(out, rowText(r, 1)); return nil })
		return fmt.Sprint(out), more, err
	}
	for _, own := range []bool{false, true} {
		if own {
			c.exec("create temp table x(a int)")
		}
		c.exec("begin")
		st, err := c.Prepare(ctx, "select v from t where v<6 order by v", nil)
		if err != nil {
			t.Fatal(err)
		}
		po, _ := st.Bind(nil)
		if rows, more, err := step(po, 2); rows != "[1 2]" || !more || err != nil {
			t.Fatal(rows, more, err)
		}
		c.Sync(ctx, false)
		w.exec("insert into t values(6)")
		if _, _, err := c.run("update t set v=v+10"); err != nil { // no BUSY_SNAPSHOT
			t.Fatal(err)
		}
		if rows, more, err := step(po, 2); rows != "[3 4]" || !more || err != nil {
			t.Fatal(rows, more, err)
		}
		if rows, more, err := step(po, 0); rows != "[5]" || more || err != nil {
			t.Fatal(rows, more, err)
		}
		c.exec("rollback")
		if _, _, err := step(po, 1); err == nil {
			t.Error("a portal ran after its transaction")
		}
		po.Close()
		w.exec("delete from t where v=6")
	}
}

// TestRandomMix runs random statements of many sessions, with cancels and
// terminations, and checks that a bank keeps its sum and its counter.
func TestRandomMix(t *testing.T) {
	e := newEnv(t)
	e.client().exec("create table acc(id integer primary key, v int); with recursive s(i) as (select 1 union all select i+1 from s where i<50) insert into acc select i,100 from s; insert into acc values(0,0)")
	var done atomic.Int64
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 7))
			c := e.client()
			for range 60 {
				x, y := rnd.IntN(50)+1, rnd.IntN(50)+1
				if rnd.IntN(6) == 0 {
					go c.Cancel()
				}
				_, _, err := c.simpleQ(fmt.Sprintf("begin; update acc set v=v-1 where id=%d; update acc set v=v+1 where id=%d; update acc set v=v+1 where id=0; commit", x, y))
				if err != nil {
					c.simpleQ("rollback")
					var se *sqlapi.Error
					if !errors.As(err, &se) || se.Code != "57014" && se.Code != "08007" {
						t.Errorf("%v", err)
					}
					if se.Code == "08007" {
						done.Add(1)
					}
					continue
				}
				done.Add(1)
				if rows, _, err := c.simpleQ("select sum(v) from acc where id>0"); err != nil && codeOf(t, err) != "57014" || err == nil && rows != "5000" {
					t.Errorf("sum %s %v", rows, err)
				}
			}
		})
	}
	wg.Wait()
	e.client().is("select v from acc where id=0", fmt.Sprint(done.Load()))
}

// A transaction that has the write lock works on commits that are not hardened;
// its client must not see rows of them (G2).
func TestRowsUnderTheWriteLock(t *testing.T) {
	for _, q := range []string{"select v from t", "update t set v=v returning v"} {
		t.Run(q, func(t *testing.T) {
			e := newEnv(t)
			a, b := e.client(), e.client()
			a.exec("create table t(v int); create table u(v int); insert into t values(1); insert into u values(1)")
			e.db.setHold(true)
			first := make(chan error, 1)
			go func() { _, _, err := a.simpleQ("update t set v=2"); first <- err }()
			until(t, "a waits for hardening", func() bool { return a.waitingFor() == waitHardened })
			b.exec("begin; update u set v=v+1") // no rows: nothing to wait for
			rows := make(chan error, 1)
			go func() { _, _, err := b.simpleQ(q); rows <- err }()
			until(t, "b waits for what it would see", func() bool { return b.waitingFor() == waitRows })
			b.Cancel()
			if code := codeOf(t, <-rows); code != "57014" {
				t.Fatalf("cancelled: %s", code)
			}
			b.exec("rollback; begin; update u set v=v+1")
			go func() { _, _, err := b.simpleQ(q); rows <- err }()
			until(t, "b waits again", func() bool { return b.waitingFor() == waitRows })
			e.db.setHold(false)
			if err := errors.Join(<-first, <-rows); err != nil {
				t.Fatal(err)
			}
			e.db.setHold(true)
			b.is(q, "2") // seen once, no more waiting
			e.db.setHold(false)
			b.exec("commit")
		})
	}
}

// TestProtocolErrorFailsTransaction: what the protocol refuses (a parameter that
// cannot be read) fails the transaction as a statement's error does.
func TestProtocolErrorFailsTransaction(t *testing.T) {
	e := newEnv(t)
	c := e.client()
	c.exec("create table t(id int primary key)")
	c.exec("begin")
	c.exec("insert into t values(1)")
	if err := c.Sync(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if got := c.TxStatus(); got != sqlapi.TxFailed {
		t.Fatalf("status %c", got)
	}
	c.fails("insert into t values(2)", "25P02")
	c.is("commit", "ROLLBACK")
	c.is("select count(*) from t", "0")
	c.exec("begin; insert into t values(1); savepoint a; insert into t values(2)")
	c.Sync(t.Context(), true)
	c.exec("rollback to a; commit")
	c.is("select id from t", "1")
}
