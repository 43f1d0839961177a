package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/sql/sqlapi"
)

// TestConcurrentEnds: what ends a transaction from outside ends a concurrent one.
func TestConcurrentEnds(t *testing.T) {
	e := newEnv(t, func(c *Config) { c.Concurrent = 2 })
	a, b := e.client(), e.client()
	a.exec("create table t(id int primary key, v int); insert into t values(1, 10), (2, 20)")
	idle := func() {
		t.Helper()
		e.b.private.mu.Lock()
		defer e.b.private.mu.Unlock()
		if e.b.private.inUse != 0 {
			t.Errorf("%d private connections are still in use", e.b.private.inUse)
		}
	}

	a.exec("begin concurrent; update t set v = 11 where id = 1")
	resume, err := e.b.Quiesce(context.Background(), "a test")
	if err != nil {
		t.Fatal(err)
	}
	resume()
	a.fails("update t set v = 12 where id = 1", "57P01")
	a.exec("rollback")
	idle()

	a.exec("begin concurrent; update t set v = 11 where id = 1")
	e.db.mode.Store(uint32(base.ModeStandby))
	if code := a.code("commit"); code != "25006" {
		t.Errorf("commit on a standby: %s", code)
	}
	e.db.mode.Store(uint32(base.ModePrimary))
	idle()

	a.exec("begin concurrent; update t set v = 11 where id = 1")
	a.Terminate(errTerminated)
	until(t, "it is rolled back", func() bool { e.b.private.mu.Lock(); defer e.b.private.mu.Unlock(); return e.b.private.inUse == 0 })

	// While it waits for the lock at its COMMIT it can be cancelled.
	a = e.client()
	a.exec("begin concurrent; update t set v = 11 where id = 1")
	b.exec("begin; update t set v = v")
	out := make(chan error, 1)
	go func() { _, _, err := a.simpleQ("commit"); out <- err }()
	until(t, "it waits", func() bool { return a.waitingFor() == waitLock })
	a.Cancel()
	if code := codeOf(t, <-out); code != "57014" || a.TxStatus() != sqlapi.TxIdle {
		t.Errorf("cancelled: %s, status %c", code, a.TxStatus())
	}
	a.exec("set lock_timeout = 1; begin concurrent; update t set v = 11 where id = 1") // the limit is of the COMMIT
	if code := a.code("commit"); code != "55P03" {
		t.Errorf("lock timeout: %s", code)
	}
	b.exec("rollback")
	b.is("select group_concat(v) from t", "10,20")

	// A statement that is cancelled can be gone back from; it is not repeated.
	a.exec("begin concurrent; update t set v = 11 where id = 1; savepoint s")
	go func() {
		_, _, err := a.simpleQ("with recursive r(n) as (select 1 union all select n + 1 from r) select count(*) from r, t")
		out <- err
	}()
	until(t, "it runs", func() bool { a.smu.Lock(); defer a.smu.Unlock(); return a.active && strings.HasPrefix(a.sql, "with") })
	time.Sleep(5 * time.Millisecond)
	a.Cancel()
	if code := codeOf(t, <-out); code != "57014" {
		t.Errorf("cancelled: %s", code)
	}
	a.exec("rollback to s; commit")
	b.is("select v from t where id = 1", "11")

	a.exec("begin concurrent; update t set v = 12 where id = 1")
	a.fails("select 1 from nowhere", "42P01")
	idle() // nothing to go back to: it gives the connection up
	a.is("commit", "ROLLBACK")
	b.is("select v from t where id = 1", "11")
}

// TestConcurrentModes: who gets a concurrent transaction.
func TestConcurrentModes(t *testing.T) {
	e := newEnv(t, func(c *Config) { c.Concurrent = 1 })
	e.b.private.patience = time.Millisecond
	a := e.client()
	a.exec("create table t(id int primary key, v int); insert into t values(1, 10), (2, 20)")
	on := e.clientAs(sqlapi.Info{Params: map[string]string{"options": "-c default_transaction_concurrent=on"}})
	kind := func(c *client, begin string) string {
		t.Helper()
		c.exec(begin)
		defer c.exec("rollback")
		c.exec("update t set v = v where id = 1")
		return c.kind() + " " + c.exec("show transaction_isolation")
	}
	for begin, want := range map[string]string{"begin": "locked read committed", "begin concurrent": "private serializable", "start transaction concurrent": "private serializable",
		"begin concurrent transaction": "private serializable", "begin concurrent isolation level serializable": "private serializable",
		"begin isolation level serializable": "locked serializable", "set default_transaction_concurrent = on; begin": "private serializable",
		"begin; set transaction isolation level read committed": "locked read committed", "reset default_transaction_concurrent; begin": "locked read committed",
		"begin concurrent; rollback and chain": "private serializable"} {
		if strings.HasPrefix(begin, "begin; set") {
			if got := kind(on, begin); got != want {
				t.Errorf("on, %s: %q, want %q", begin, got, want)
			}
			continue
		}
		if got := kind(a, begin); got != want {
			t.Errorf("%s: %q, want %q", begin, got, want)
		}
		a.exec("reset all")
	}
	for begin, want := range map[string]string{"begin": "private serializable", "start transaction": "private serializable", "begin isolation level read committed": "locked read committed",
		"begin isolation level repeatable read": "locked repeatable read", "set session characteristics as transaction isolation level serializable; begin": "locked serializable",
		"set default_transaction_concurrent = off; begin": "locked read committed"} {
		if got := kind(on, begin); got != want {
			t.Errorf("on, %s: %q, want %q", begin, got, want)
		}
		on.exec("reset all")
	}
	on.exec("begin read only")
	on.is("show transaction_isolation", "read committed")
	on.exec("rollback; begin concurrent read only; select * from t")
	if on.tx.rec != nil || on.tx.locked || on.tx.c == nil {
		t.Error("a read-only transaction has one snapshot and nothing else")
	}
	on.fails("update t set v = 1", "25006")
	on.exec("rollback")

	// The server's default, which a session may change.
	l := e.b.Limits()
	l.Concurrent = true
	e.b.SetLimits(l)
	a.is("show default_transaction_concurrent", "on")
	if got := kind(a, "begin"); got != "private serializable" {
		t.Errorf("by default: %q", got)
	}
	a.is("set default_transaction_concurrent = off; show default_transaction_concurrent", "off")
	a.exec("reset all")
	a.exec("begin; select 1 from t")
	if s := e.b.Transactions(); len(s) != 1 || s[0].Kind != "CONCURRENT" || s[0].Writer {
		t.Errorf("%+v", s)
	}
	if l := e.b.Locks(); len(l) != 1 || l[0].Kind != "SNAPSHOT" {
		t.Errorf("%+v", l)
	}

	// No private connection is left: the write lock keeps the promise.
	if got := kind(on, "begin concurrent"); got != "locked serializable" {
		t.Errorf("without a connection: %q", got)
	}
	a.exec("rollback")
	if e.b.Stats().ConcurrentBusy != 1 {
		t.Errorf("%+v", e.b.Stats())
	}

	// Nor do sessions with temporary tables have one, nor a standby.
	on.exec("create temp table mine(a int)")
	if got := kind(on, "begin concurrent"); got != "locked serializable" {
		t.Errorf("with a temporary table: %q", got)
	}
	e.db.mode.Store(uint32(base.ModeStandby))
	a.exec("begin")
	a.is("show transaction_isolation", "read committed")
	a.exec("rollback; begin concurrent; select v from t")
	if a.kind() != "" {
		t.Errorf("on a standby: %q", a.kind())
	}
	a.exec("rollback")
	e.db.mode.Store(uint32(base.ModePrimary))
}

// TestConcurrentOnePTX: a concurrent transaction publishes nothing before its
// COMMIT, and one PTX then, so that a power cut or a takeover finds all of it or
// nothing (G6, G9). Idle, it is no holder of the lock that has to be ended.
func TestConcurrentOnePTX(t *testing.T) {
	e := newEnv(t)
	a := e.client()
	a.exec("create table t(id int primary key, v int); create table u(id int primary key)")
	idle := func() dueKind { a.cmu.Lock(); defer a.cmu.Unlock(); return a.due.kind }
	for _, end := range []string{"commit", "lock table t; commit", "rollback"} {
		a.exec("delete from t; delete from u")
		a.exec("begin concurrent; savepoint s")
		before := e.db.NextLSN()
		a.exec("insert into t values(1, 1), (2, 2)")
		a.exec("insert into u values(1)")
		a.exec("update t set v = v + 1")
		if n := e.db.NextLSN() - before; n != 0 || idle() != dueNothing || e.db.store.Owned() {
			t.Errorf("before %s: %d PTXs, deadline %d, write lock %v", end, n, idle(), e.db.store.Owned())
		}
		if strings.HasPrefix(end, "lock") {
			a.exec("lock table t")
			if idle() != dueInTx || !e.db.store.Owned() {
				t.Errorf("with the lock: deadline %d, write lock %v", idle(), e.db.store.Owned())
			}
			end = "commit"
		}
		a.exec(end)
		want, rows := base.LSN(1), "2"
		if end == "rollback" {
			want, rows = 0, "0"
		}
		if n := e.db.NextLSN() - before; n != want {
			t.Errorf("%s: %d PTXs, want %d", end, n, want)
		}
		a.is("select count(*) from t", rows)
	}
}

// TestConcurrentLimits: long transactions take the lock, large ones go beside
// the page cache.
func TestConcurrentLimits(t *testing.T) {
	e := newEnv(t)
	a, b := e.client(), e.client()
	a.exec("create table t(id int primary key, v text); insert into t values(1, '')")
	a.exec("begin concurrent; select count(*) from t")
	if a.tx.rec.took == 0 { // others of a common commit would wait for it
		t.Error("the time of a query does not count")
	}
	a.exec("rollback; begin concurrent")
	for range maxSteps {
		a.exec("update t set v = v || 'x'")
	}
	if a.kind() != "private" {
		t.Errorf("%q", a.kind())
	}
	a.exec("update t set v = v || 'x'")
	if a.kind() != "locked" {
		t.Errorf("%q", a.kind())
	}
	a.is("commit; select length(v) from t", fmt.Sprint(maxSteps+1))

	big := strings.Repeat("y", maxRecorded)
	a.exec("begin concurrent")
	if _, err := a.ext("insert into t values(2, $1)", big); err != nil {
		t.Fatal(err)
	}
	a.exec("insert into t values(3, 'z')")
	if a.kind() != "locked" {
		t.Errorf("large parameters: %q", a.kind())
	}
	a.exec("commit")

	rows := "with recursive g(n) as (select 10 union all select n + 1 from g where n < %d) insert into t select n, printf('%%.500c', 'x') from g"
	a.exec("begin concurrent; " + fmt.Sprintf(rows, 20000)) // 10 MB
	if a.kind() != "private" || a.tx.rec.pages == 0 {
		t.Errorf("%q, %d pages", a.kind(), a.tx.rec.pages)
	}
	a.is("select count(*) from t where id >= 10", "19991")
	b.is("select count(*) from t where id >= 10", "0")
	a.exec("savepoint s; delete from t where id >= 10; rollback to s")
	a.exec("commit")
	b.is("select count(*), sum(length(v)) from t where id >= 10", "19991|9995500")
	b.exec("begin concurrent; update t set v = v || 'x' where id >= 10; rollback")
	a.is("select count(*), sum(length(v)) from t where id >= 10", "19991|9995500")
	if st := e.db.store.Stats(); st.SpillBytes != 0 {
		t.Errorf("%d bytes are left in the spill file", st.SpillBytes)
	}
	a.is("pragma integrity_check", "ok")
}

// TestConcurrentPortals: of a query that was not read to its end, what the
// client has not seen does not count.
func TestConcurrentPortals(t *testing.T) {
	e := newEnv(t)
	a, b := e.client(), e.client()
	a.exec("create table t(id int primary key, v int); insert into t values(1, 10), (2, 20), (3, 30)")
	ctx := context.Background()
	stop := errors.New("enough")
	for _, x := range []struct {
		read  int
		other string
		code  string
	}{{1, "update t set v = 31 where id = 3", ""}, {1, "update t set v = 11 where id = 1", "40001"}, {3, "insert into t values(4, 4)", "40001"}} {
		a.exec("begin concurrent")
		a.exec("savepoint s")
		st, err := a.Prepare(ctx, "select v from t order by id", nil)
		if err != nil {
			t.Fatal(err)
		}
		po, err := st.Bind(nil)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		_, _, err = po.Run(ctx, 0, func(sqlapi.Row) error {
			if n++; n == x.read && x.read < 3 {
				return &sqlapi.Error{Code: "57014", Message: stop.Error()}
			}
			return nil
		})
		po.Close()
		if x.read < 3 {
			if err == nil {
				t.Fatal("not stopped")
			}
			a.exec("rollback to s")
		}
		b.exec(x.other)
		a.exec("update t set v = 5 where id = 2")
		_, _, err = a.simpleQ("commit")
		if code := ""; err != nil || x.code != "" {
			if err != nil {
				code = codeOf(t, err)
			}
			if code != x.code {
				t.Errorf("after %d rows, %s: %v, want %q", x.read, x.other, err, x.code)
			}
		}
	}
}

// TestConcurrentNeverCommits: what is on a private connection cannot get out.
func TestConcurrentNeverCommits(t *testing.T) {
	e := newEnv(t)
	a := e.client()
	a.exec("create table t(id int primary key)")
	a.exec("begin concurrent; insert into t values(1)")
	if err := a.tx.c.run("COMMIT"); err == nil {
		t.Error("a private connection commits")
	}
	a.exec("rollback")
	a.is("select count(*) from t", "0")
}

// TestConcurrentChain: COMMIT AND CHAIN begins another concurrent transaction, also
// where this one had to take the lock.
func TestConcurrentChain(t *testing.T) {
	e := newEnv(t)
	a := e.client()
	a.exec("create table t(id int primary key)")
	a.exec("begin concurrent; select * from t; insert into t values(1) returning id")
	if a.kind() != "locked" {
		t.Errorf("%q", a.kind())
	}
	for _, end := range []string{"commit and chain", "rollback and chain"} {
		a.exec(end)
		a.exec("select * from t")
		if a.kind() != "private" {
			t.Errorf("after %s: %q", end, a.kind())
		}
	}
	a.exec("rollback; begin isolation level serializable; commit and chain; select * from t")
	if a.kind() != "locked" {
		t.Errorf("a chain of others: %q", a.kind())
	}
	a.exec("rollback")
}

// TestConcurrentRights: what is done again is done with the rights of the
// session.
func TestConcurrentRights(t *testing.T) {
	e := newEnv(t)
	a := e.client()
	a.exec("create table t(id int primary key, v int); insert into t values(1, 10); create user u password 'something long'; grant select, update on t to u")
	u := e.clientAs(sqlapi.Info{User: "u"})
	u.exec("begin concurrent; update t set v = 11 where id = 1")
	u.exec("savepoint s")
	u.fails("delete from t", "42501")
	u.exec("rollback to s; commit")
	a.is("select v from t", "11")
	u.exec("begin concurrent; update t set v = 12 where id = 1")
	a.exec("revoke update on t from u")
	u.fails("commit", "40001")
	a.is("select v from t", "11")
}
