package session

import (
	"context"
	"strconv"
	"strings"

	"testing"
	"testing/synctest"
	"time"

	"datawatch/internal/sql/sqlapi"
)

// inBubble runs a test under virtual time.
func inBubble(t *testing.T, opts func(*Config), f func(t *testing.T, e *env)) {
	synctest.Test(t, func(t *testing.T) {
		if opts == nil {
			opts = func(*Config) {}
		}
		f(t, newEnv(t, opts))
	})
}

func (c *client) ended(t *testing.T, code string) {
	t.Helper()
	select {
	case <-c.Done():
	default:
		t.Fatalf("the session goes on; it should have ended with %s", code)
	}
	_, _, err := c.simpleQ("select 1")
	if e := errOf(t, err); e.Code != code || e.Severity != "FATAL" {
		t.Fatalf("%+v, want FATAL %s", e, code)
	}
}

func (c *client) alive(t *testing.T) {
	t.Helper()
	select {
	case <-c.Done():
		t.Fatal("the session has ended")
	default:
	}
}

func TestStatementTimeout(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, e *env) {
		a := e.client()
		e.b.SetLimits(Limits{Statement: time.Minute})
		start := time.Now()
		a.fails("select pg_sleep(100)", "57014")
		if d := time.Since(start); d != 2*time.Minute && d != time.Minute {
			t.Errorf("interrupted after %v", d)
		}
		a.is("select 1", "1")
		a.is("show statement_timeout", "1min")
		a.exec("set statement_timeout='2s'")
		start = time.Now()
		if _, _, err := a.simpleQ("select pg_sleep(100)"); codeOf(t, err) != "57014" || time.Since(start) != 2*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		// The timer that was left running by quick statements must not stop a
		// later one before its time.
		for range 10 {
			a.exec("select pg_sleep(1.5)")
		}
		a.exec("set statement_timeout=0; select pg_sleep(300)") // PostgreSQL's 0: without limit
		a.exec("reset statement_timeout")
		a.fails("select pg_sleep(61)", "57014")
		// A connection option counts from the first statement on.
		b := e.clientAs(sqlapi.Info{User: "SYSDBA", Params: map[string]string{"options": "-c statement_timeout=3s"}})
		b.fails("select pg_sleep(4)", "57014")
		// A series: each statement has its own time.
		b.exec("select pg_sleep(2); select pg_sleep(2)")
	})
}

func TestIdleLimits(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, e *env) {
		e.b.SetLimits(Limits{Idle: time.Minute, IdleInTx: 10 * time.Second, IdleInWrite: 5 * time.Second, Lock: time.Hour})
		quiet, busy, tx, writer := e.client(), e.client(), e.client(), e.client()
		busy.exec("create table t(v int)")
		tx.exec("begin; select * from t")
		for range 5 {
			time.Sleep(9 * time.Second)
			busy.exec("select 1")
			tx.exec("select 1")
			quiet.alive(t)
		}
		time.Sleep(11 * time.Second)
		tx.ended(t, "25P03")
		writer.alive(t)
		time.Sleep(5 * time.Second)
		quiet.ended(t, "57P05") // it never said anything
		busy.alive(t)
		time.Sleep(time.Minute)
		busy.ended(t, "57P05")

		// A statement that takes long is not idle.
		long := e.client()
		long.exec("select pg_sleep(600)")
		long.exec("begin; select pg_sleep(600)")
		long.exec("rollback")
		long.alive(t)

		// Without a limit of its own a holder of the write lock has one.
		e.b.SetLimits(Limits{IdleInWrite: 5 * time.Second})
		time.Sleep(time.Hour)
		long.alive(t)
		long.exec("begin; select 1")
		time.Sleep(time.Hour)
		long.alive(t)
		long.exec("insert into t values(1)")
		time.Sleep(6 * time.Second)
		long.ended(t, "25P03")

		// A limit that is set while sessions are idle counts for them.
		late := e.client()
		own := e.client()
		own.exec("set idle_session_timeout='1h'")
		e.b.SetLimits(Limits{Idle: time.Second})
		time.Sleep(2 * time.Second)
		late.ended(t, "57P05")
		own.alive(t)
		own.is("show idle_session_timeout", "60min")
		time.Sleep(time.Hour + time.Second)
		own.ended(t, "57P05")
		if n := e.b.Stats().TimedOut; n != 7 { // and writer, which stayed idle
			t.Errorf("%d sessions counted as timed out, want 7", n)
		}
	})
}

func TestLockTimeout(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, e *env) {
		e.b.SetLimits(Limits{Lock: 7 * time.Second})
		a, b := e.client(), e.client()
		a.exec("create table t(v int)")
		a.exec("begin; insert into t values(1)")
		for _, x := range []struct {
			set  string
			want time.Duration
		}{{"reset lock_timeout", 7 * time.Second}, {"set lock_timeout='2s'", 2 * time.Second}} {
			b.exec(x.set)
			start := time.Now()
			if _, _, err := b.simpleQ("insert into t values(2)"); codeOf(t, err) != "55P03" || time.Since(start) != x.want {
				t.Errorf("%s: %v after %v", x.set, err, time.Since(start))
			}
		}
		b.exec("set lock_timeout=0")
		done := make(chan error, 1)
		go func() { _, _, err := b.simpleQ("insert into t values(2)"); done <- err }()
		time.Sleep(time.Hour)
		if l := e.b.Locks(); len(l) != 2 || l[0].Session != a.ID() || l[0].Blocked || !l[1].Blocked || l[1].Blocker != a.ID() {
			t.Errorf("locks: %+v", l)
		}
		c := e.client()
		c.is("select pg_blocking_pids("+utoa(b.ID())+")", "{"+utoa(a.ID())+"}")
		if x := e.b.Transactions(); len(x) != 1 || x[0].Session != a.ID() || !x[0].Writer || x[0].ID == 0 || time.Since(x[0].Start) < time.Hour {
			t.Errorf("transactions: %+v", x)
		}
		a.exec("commit")
		if err := <-done; err != nil {
			t.Error(err)
		}
		if l := e.b.Locks(); len(l) != 0 {
			t.Errorf("locks when all is done: %+v", l)
		}
		c.exec("begin isolation level repeatable read read only; select * from t")
		if l := e.b.Locks(); len(l) != 1 || l[0].Kind != "SNAPSHOT" {
			t.Errorf("a pinned snapshot: %+v", l)
		}
		c.exec("commit")
		if len(e.b.Locks())+len(e.b.Transactions()) != 0 {
			t.Error("something is left")
		}
	})
}

// TestReservedSessions: beyond MAX_SESSIONS only administrators come in.
func TestReservedSessions(t *testing.T) {
	e := newEnv(t, func(c *Config) { c.MaxSessions, c.Reserved = 3, 2 })
	maker := e.client()
	maker.exec("create user u")
	maker.Session.Close()
	open := func(user string) (*Session, string) {
		s, err := e.b.NewSession(context.Background(), sqlapi.Info{User: user}, nil)
		if err != nil {
			return nil, errOf(t, err).Code + " " + errOf(t, err).Message
		}
		t.Cleanup(s.Close)
		return s.(*Session), ""
	}
	var first *Session
	for i := range 3 {
		s, err := open("U")
		if err != "" {
			t.Fatalf("session %d: %s", i, err)
		}
		first = s
	}
	if _, err := open("U"); !strings.HasPrefix(err, "53300") || !strings.Contains(err, "reserved") {
		t.Errorf("beyond MAX_SESSIONS: %q", err)
	}
	for range 2 {
		if _, err := open("sysdba"); err != "" {
			t.Errorf("an administrator: %s", err)
		}
	}
	if _, err := open("SYSDBA"); !strings.HasPrefix(err, "53300 sorry") {
		t.Errorf("all are taken: %q", err)
	}
	first.Close()
	if _, err := open("U"); !strings.Contains(err, "reserved") {
		t.Errorf("administrators have the rest: %q", err)
	}
	if st := e.b.Stats(); st.Sessions != 4 || st.Refused != 3 || st.Opened != 6 { // one made the user
		t.Errorf("%+v", st)
	}
}

func TestControlSessions(t *testing.T) {
	e := newEnv(t)
	a, b := e.client(), e.client()
	sleep := func(s *client) chan error {
		done := make(chan error, 1)
		go func() { _, _, err := s.simpleQ("select pg_sleep(100)"); done <- err }()
		until(t, "it sleeps", func() bool { return s.describe().State == "active" })
		return done
	}
	for _, q := range []string{"select pg_cancel_backend(%)", "call SP_CANCEL_SESSION_OPERATION(%)"} {
		done := sleep(b)
		a.exec(strings.ReplaceAll(q, "%", utoa(b.ID())))
		if err := <-done; codeOf(t, err) != "57014" {
			t.Errorf("%s: %v", q, err)
		}
		b.is("select 1", "1")
	}
	if got := a.exec("select pg_terminate_backend(999999)"); got != "0" {
		t.Errorf("no such session: %s", got)
	}
	a.fails("SP_CLOSE_SESSION(999999)", "42704")
	b.exec("create table t(v int)")
	b.exec("begin; insert into t values(1)")
	a.is("select pg_terminate_backend("+utoa(b.ID())+")", "1")
	<-b.Done()
	b.ended(t, "57P01")
	a.is("select count(*) from t", "0")
	c := e.client()
	done := sleep(c)
	a.exec("SP_CLOSE_SESSION(" + utoa(c.ID()) + ")")
	if err := <-done; codeOf(t, err) != "57P01" {
		t.Errorf("SP_CLOSE_SESSION: %v", err)
	}
	// Another user's session is an administrator's business.
	a.exec("create user u")
	u, v := e.clientAs(sqlapi.Info{User: "U"}), e.clientAs(sqlapi.Info{User: "U"})
	u.fails("select pg_terminate_backend("+utoa(a.ID())+")", "42501")
	u.fails("SP_CLOSE_SESSION("+utoa(a.ID())+")", "42501")
	a.alive(t)
	u.exec("select pg_terminate_backend(" + utoa(v.ID()) + ")")
	<-v.Done()
}

func utoa(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

// TestLimitsCost: what a session without limits pays for them is no timer and
// no allocation.
func TestLimitsCost(t *testing.T) {
	e := newEnv(t)
	c := e.client()
	st, err := c.Prepare(t.Context(), "select $1", nil)
	if err != nil {
		t.Fatal(err)
	}
	run := func() {
		po, _ := st.Bind([]sqlapi.Value{val(1)})
		c.Final()
		if _, _, err := po.Run(t.Context(), 0, func(sqlapi.Row) error { return nil }); err != nil {
			t.Fatal(err)
		}
		po.Close()
		c.Sync(t.Context(), false)
	}
	without := testing.AllocsPerRun(100, run)
	if c.due.timer != nil {
		t.Error("a timer without a limit")
	}
	e.b.SetLimits(Limits{Statement: time.Hour, Idle: time.Hour})
	run()
	timer := c.due.timer
	with := testing.AllocsPerRun(100, run)
	if with > without || c.due.timer != timer {
		t.Errorf("%v allocations with limits, %v without; same timer: %v", with, without, c.due.timer == timer)
	}
}
