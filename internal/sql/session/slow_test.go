package session

import (
	"strings"
	"sync"
	"testing"
	"time"
)

func TestSlowLog(t *testing.T) {
	var mu sync.Mutex
	var got []SlowStatement
	take := func() []SlowStatement {
		mu.Lock()
		defer mu.Unlock()
		l := got
		got = nil
		return l
	}
	inBubble(t, func(c *Config) {
		c.SlowLog = func(s SlowStatement) { mu.Lock(); got = append(got, s); mu.Unlock() }
	}, func(t *testing.T, e *env) {
		defer e.b.Close(t.Context(), "done")
		c := e.client()
		c.exec("create table t(v text)")
		c.exec("select pg_sleep(10)")
		if l := take(); len(l) != 0 {
			t.Errorf("the log is off: %+v", l)
		}
		e.b.SetLimits(Limits{Slow: time.Second, IdleInWrite: time.Hour})
		for _, d := range []string{"0.9", "0.001", "0.5"} {
			c.exec("select pg_sleep(" + d + ")")
		}
		if l := take(); len(l) != 0 {
			t.Errorf("quick statements: %+v", l)
		}
		if _, err := c.ext("select pg_sleep($1), 'secret', $2", 1.0, "hidden"); err != nil {
			t.Fatal(err)
		}
		l := take()
		if len(l) != 1 || l[0].Took != time.Second || l[0].SQL != "select pg_sleep($1), '?', $2" || l[0].Params != "$1=float $2=text(6)" ||
			l[0].Session != c.ID() || l[0].Tag != "SELECT 1" || l[0].Code != "" {
			t.Fatalf("%+v", l)
		}
		// Waiting for a lock is slow, too; its error is shown.
		w := e.client()
		w.exec("begin; insert into t values('x')")
		c.exec("set lock_timeout='3s'")
		c.fails("insert into t values('y')", "55P03")
		if l := take(); len(l) != 1 || l[0].Took != 3*time.Second || l[0].Code != "55P03" || l[0].SQL != "insert into t values('?')" {
			t.Errorf("%+v", l)
		}
		w.exec("rollback")

		// With values: shortened, and never those of a statement with a password.
		e.b.SetLimits(Limits{Slow: time.Second, SlowParams: true})
		if _, err := c.ext("select pg_sleep(2), $1, $2, $3, 'shown'", strings.Repeat("x", 100), []byte{1, 2}, nil); err != nil {
			t.Fatal(err)
		}
		l = take()
		if len(l) != 1 || l[0].Params != `$1="`+strings.Repeat("x", 64)+`"...(100) $2=blob(2) $3=null` || !strings.Contains(l[0].SQL, "shown") {
			t.Errorf("%+v", l)
		}
		if _, err := c.ext("select pg_sleep(2) where $1 <> '' and 'x' <> (select 'pw' as passwd) or passwd = 'Zq8'", "Zq8"); err == nil {
			t.Error("no such column: expected an error")
		}
		c.exec("create table u(passwd text)")
		if _, err := c.ext("select pg_sleep(2) from (select 1) left join u on passwd = 'Zq8' and passwd = $1", "Zq8"); err != nil {
			t.Fatal(err)
		}
		if l := take(); len(l) != 1 || strings.Contains(l[0].SQL+l[0].Params, "Zq8") {
			t.Errorf("%+v", l)
		}
		if n := e.b.Stats().Slow; n != 4 {
			t.Errorf("%d counted, want 4", n)
		}
		// A view of what runs hides passwords at all times.
		c.exec("select 1 from u where passwd = 'Zq8'")
		if s := c.describe().SQL; strings.Contains(s, "Zq8") {
			t.Errorf("V$SESSIONS shows %q", s)
		}
		e.b.SetLimits(Limits{})
		c.exec("select pg_sleep(10)")
		if l := take(); len(l) != 0 {
			t.Errorf("the log is off again: %+v", l)
		}
	})
}
