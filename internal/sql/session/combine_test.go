package session

import (
	"fmt"
	"testing"
	"time"

	"datawatch/internal/sql/dialect"
)

// queueUp starts one statement per client behind the write lock that holder
// has, in this order, and returns where their results come.
func queueUp(t *testing.T, e *env, sqls []string) ([]*client, []chan error) {
	var cs []*client
	var out []chan error
	for i, q := range sqls {
		c := e.client()
		ch := make(chan error, 1)
		cs, out = append(cs, c), append(out, ch)
		go func() { _, _, err := c.simpleQ(q); ch <- err }()
		until(t, "statement queued", func() bool {
			e.b.gate.mu.Lock()
			defer e.b.gate.mu.Unlock()
			return len(e.b.gate.waiters) == i+1
		})
	}
	return cs, out
}

// TestCombined: statements queued behind a writer run in one transaction, and
// each client still sees what it would see alone.
func TestCombined(t *testing.T) {
	for name, tc := range map[string]struct {
		sqls   []string
		codes  []string // "": success
		want   string
		lsns   int // transactions published
		cancel int // client to cancel while it waits, from 1
	}{
		"all well":         {[]string{"insert into t values(1)", "insert into t values(2)", "update t set v=v+10"}, []string{"", "", ""}, "11,12", 2, 0}, // the update may be slow
		"one fails":        {[]string{"insert into t values(1)", "insert into t values(1)", "insert into t values(2)"}, []string{"", "23505", ""}, "1,2", 1, 0},
		"half a statement": {[]string{"insert into t values(1)", "insert into t values(5),(6),(1)", "insert into t values(2)"}, []string{"", "23505", ""}, "1,2", 1, 0},
		"one ends the transaction": {[]string{"insert into t values(1)", "insert or rollback into t values(5),(1)", "insert into t values(2)"},
			[]string{"", "23505", ""}, "1,2", 2, 0},
		"the common commit fails": {[]string{"insert into t values(1)", "insert into child values(99)", "insert into t values(2)"},
			[]string{"", "23503", ""}, "1,2", 2, 0},
		"one is cancelled": {[]string{"insert into t values(1)", "insert into t values(2)", "insert into t values(3)"}, []string{"", "57014", ""}, "1,3", 1, 2},
		"a transaction between": {[]string{"insert into t values(1)", "insert into t values(2)", "begin; insert into t values(3); commit", "insert into t values(4)"},
			[]string{"", "", "", ""}, "1,2,3,4", 3, 0},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			e.b.maxTime = time.Hour
			a := e.client()
			a.exec("create table t(v int primary key)")
			a.exec("create table child(v int references t(v) deferrable initially deferred)")
			a.exec("begin; insert into t values(1000); delete from t where v=1000; insert into t values(1001); delete from t")
			cs, out := queueUp(t, e, tc.sqls)
			if tc.cancel > 0 {
				cs[tc.cancel-1].Cancel()
				if code := codeOf(t, <-out[tc.cancel-1]); code != tc.codes[tc.cancel-1] {
					t.Errorf("cancelled: %s", code)
				}
				out[tc.cancel-1] = nil
			}
			a.exec("rollback")
			before := e.db.NextLSN()
			for i, ch := range out {
				if ch == nil {
					continue
				}
				err := <-ch
				switch {
				case tc.codes[i] == "" && err != nil:
					t.Errorf("%s: %v", tc.sqls[i], err)
				case tc.codes[i] != "":
					if code := codeOf(t, err); code != tc.codes[i] {
						t.Errorf("%s: %s, want %s", tc.sqls[i], code, tc.codes[i])
					}
				}
			}
			a.is("select group_concat(v) from (select v from t order by v)", tc.want)
			if n := int(e.db.NextLSN() - before); tc.lsns > 0 && n > tc.lsns {
				t.Errorf("%d transactions published, want at most %d", n, tc.lsns)
			}
		})
	}
}

// TestCombinedHardening: nobody of a common transaction is told before it is
// hardened, and nobody else sees it (G1, G2).
func TestCombinedHardening(t *testing.T) {
	e := newEnv(t)
	a, r := e.client(), e.client()
	a.exec("create table t(v int)")
	a.exec("begin; insert into t values(0)")
	var sqls []string
	for i := range 10 {
		sqls = append(sqls, fmt.Sprintf("insert into t values(%d) returning v", i))
	}
	cs, out := queueUp(t, e, sqls)
	e.db.setHold(true)
	a.exec("rollback")
	for _, c := range cs {
		until(t, "it waits for hardening", func() bool { return c.waitingFor() == waitHardened })
	}
	for i, ch := range out {
		select {
		case err := <-ch:
			t.Fatalf("statement %d answered before it was hardened: %v", i, err)
		default:
		}
	}
	r.is("select count(*) from t", "0")
	e.db.setHold(false)
	for _, ch := range out {
		if err := <-ch; err != nil {
			t.Error(err)
		}
	}
	r.is("select count(*), sum(v) from t", "10|45")
}

// TestCombinedInFlight: while a package is on its way, statements run as they
// come, in one transaction that is committed when that can be of use.
func TestCombinedInFlight(t *testing.T) {
	e := newEnv(t)
	e.b.maxTime = time.Hour
	a := e.client()
	a.exec("create table t(v int primary key)")
	e.db.flight = make(chan struct{})
	before := e.db.NextLSN()
	var out []chan error
	for i := range 5 {
		c, ch := e.client(), make(chan error, 1)
		out = append(out, ch)
		sql := fmt.Sprintf("insert into t values(%d)", i)
		p, err := e.b.parsed.parse(sql) // the one that the client will use
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _, err := c.simpleQ(sql); ch <- err }()
		until(t, "it has been run", func() bool { return p.took.Load() > 0 })
	}
	if n := e.db.NextLSN() - before; n != 0 {
		t.Errorf("%d transactions published before the package landed", n)
	}
	close(e.db.flight)
	for _, ch := range out {
		if err := <-ch; err != nil {
			t.Error(err)
		}
	}
	if n := e.db.NextLSN() - before; n != 1 {
		t.Errorf("%d transactions published, want 1", n)
	}
	a.is("select count(*) from t", "5")

	// A transaction that wants the lock ends the wait.
	e.db.flight = make(chan struct{})
	c, ch := e.client(), make(chan error, 1)
	go func() { _, _, err := c.simpleQ("insert into t values(7)"); ch <- err }()
	until(t, "it waits for company", func() bool {
		e.b.gate.mu.Lock()
		defer e.b.gate.mu.Unlock()
		return e.b.gate.awaited
	})
	a.exec("begin; insert into t values(8)")
	if err := <-ch; err != nil {
		t.Error(err)
	}
	a.exec("commit")
	a.is("select count(*) from t", "7")
}

// TestCombinedDeferred: a statement that violates a deferred foreign key fails at
// its own commit, also where another one of the common transaction would mend it.
func TestCombinedDeferred(t *testing.T) {
	e := newEnv(t)
	e.b.maxTime = time.Hour
	a := e.client()
	a.exec("create table p(id int primary key); create table d(p int references p(id) deferrable initially deferred)")
	e.db.flight = make(chan struct{})
	awaited := func() bool {
		e.b.gate.mu.Lock()
		defer e.b.gate.mu.Unlock()
		return e.b.gate.awaited
	}
	var out []chan error
	for _, sql := range []string{"insert into d values(2)", "insert into p values(2)"} {
		c, ch := e.client(), make(chan error, 1)
		out = append(out, ch)
		p, err := e.b.parsed.parse(sql)
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _, err := c.simpleQ(sql); ch <- err }()
		until(t, "it has been run", func() bool { return p.took.Load() > 0 && (awaited() || len(ch) > 0) })
	}
	close(e.db.flight)
	if err := <-out[0]; err == nil || codeOf(t, err) != "23503" {
		t.Errorf("a row without its parent: %v, want 23503", err)
	}
	if err := <-out[1]; err != nil {
		t.Error(err)
	}
	a.is("select (select count(*) from d) || ' ' || (select count(*) from p)", "0 1")
}

// TestQuick: only statements that take little time join the transaction of
// others.
func TestQuick(t *testing.T) {
	p, err := newCache(8).parse("insert into t values($1)")
	if err != nil {
		t.Fatal(err)
	}
	if !p.quick() {
		t.Error("an insert of values is not taken for quick")
	}
	p.took.Store(int64(2 * quickTime))
	if p.quick() {
		t.Error("it was slow the last time")
	}
	for _, q := range []string{"insert into t select 1", "update t set v=1", "delete from t"} {
		if p, err := newCache(8).parse(q); err != nil || p.Kind != dialect.SQL || p.quick() {
			t.Errorf("%s: quick before it ever ran (%v)", q, err)
		} else if p.took.Store(1); !p.quick() {
			t.Errorf("%s: not quick although it was", q)
		}
	}
}
