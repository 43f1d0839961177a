package session

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"datawatch/internal/sql/sqlapi"
)

// TestErrorsAreHardened: a statement that fails because of what another session
// committed a moment ago is answered when that commit is hardened, not before
// (G2), however it was sent.
func TestErrorsAreHardened(t *testing.T) {
	copyIn := func(c *client) error {
		st, err := c.Prepare(context.Background(), "copy t from stdin", nil)
		if err != nil {
			return err
		}
		p, err := st.Bind(nil)
		if err != nil {
			return err
		}
		sent := false
		_, err = p.(sqlapi.Copier).CopyIn(context.Background(), func(context.Context) ([]sqlapi.Value, error) {
			if sent {
				return nil, io.EOF
			}
			sent = true
			return []sqlapi.Value{val(1), val(1)}, nil
		})
		return errors.Join(err, c.Sync(context.Background(), err != nil))
	}
	q := func(sql string) func(c *client) error {
		return func(c *client) error { _, _, err := c.simpleQ(sql); return err }
	}
	for _, x := range []struct {
		name, hidden, before string
		fail                 func(c *client) error
		code                 string
	}{
		{"autocommit", "insert into t values(1,1)", "", q("insert into t values(1,1)"), "23505"},
		{"extended", "insert into t values(1,1)", "", func(c *client) error { _, err := c.ext("insert into t values($1,1)", 1); return err }, "23505"},
		{"returning", "insert into t values(1,1)", "", q("insert into t values(1,1) returning id"), "23505"},
		{"function", "insert into t values(1,1)", "", q("update t set v = (select split_part('a','b',0) from t where id=1)"), "42000"},
		{"series", "insert into t values(1,1)", "", q("select 1; insert into t values(1,1)"), "23505"},
		{"block", "insert into t values(1,1)", "begin", q("insert into t values(1,1)"), "23505"},
		{"savepoint", "insert into t values(1,1)", "begin; savepoint s", q("insert into t values(1,1)"), "23505"},
		{"own connection", "insert into t values(1,1)", "create temp table mine(a int)", q("insert into t values(1,1)"), "23505"},
		{"foreign key", "delete from p", "", q("insert into c values(1)"), "23503"},
		{"at commit", "delete from p", "begin; insert into d values(1)", q("commit"), "23503"},
		{"no table", "drop table t", "begin; update p set id=id", q("select * from t"), "42P01"},
		{"no table to lock", "drop table t", "begin", q("lock table t"), "42P01"},
		{"constraint", "insert into t values(1,1)", "", q("alter table t add constraint k check (id > 1)"), "23514"},
		{"copy", "insert into t values(1,1)", "", copyIn, "23505"},
	} {
		t.Run(x.name, func(t *testing.T) {
			e := newEnv(t)
			a, b := e.client(), e.client()
			a.exec("create table t(id int primary key, v int); create table p(id int primary key); insert into p values(1)")
			a.exec("create table c(p int references p(id)); create table d(p int references p(id) deferrable initially deferred)")
			locked := strings.Contains(x.before, "insert") || strings.Contains(x.before, "update")
			if x.before != "" && !locked {
				b.exec(x.before)
			}
			e.db.setHold(true)
			done := make(chan error, 1)
			go func() { _, _, err := a.simpleQ(x.hidden); done <- err }()
			until(t, "the commit waits", func() bool { return a.waitingFor() == waitHardened })
			if locked {
				b.exec(x.before)
			}
			failed := make(chan error, 1)
			go func() { failed <- x.fail(b) }()
			until(t, "the error waits", func() bool {
				select {
				case err := <-failed:
					t.Fatalf("answered before what it has seen was hardened: %v", err)
				default:
				}
				return b.waitingFor() == waitRows
			})
			e.db.setHold(false)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if code := codeOf(t, <-failed); code != x.code {
				t.Errorf("SQLSTATE %s, want %s", code, x.code)
			}
			b.exec("rollback")
		})
	}
}

// TestErrorsCancelled: who gives up waiting for the other commit does not learn
// of it; a schema that is not hardened is not described.
func TestErrorsCancelled(t *testing.T) {
	e := newEnv(t)
	a, b := e.client(), e.client()
	a.exec("create table t(id int primary key)")
	hide := func(sql string) chan error {
		e.db.setHold(true)
		done := make(chan error, 1)
		go func() { _, _, err := a.simpleQ(sql); done <- err }()
		until(t, "the commit waits", func() bool { return a.waitingFor() == waitHardened })
		return done
	}
	done := hide("insert into t values(1)")
	failed := make(chan error, 1)
	go func() { _, _, err := b.simpleQ("insert into t values(1)"); failed <- err }()
	until(t, "the error waits", func() bool { return b.waitingFor() == waitRows })
	b.Cancel()
	if err := errOf(t, <-failed); err.Code != "57014" || strings.Contains(err.Error()+err.Detail, "duplicate") {
		t.Errorf("cancelled: %v", err)
	}
	e.db.setHold(false)
	<-done

	done = hide("alter table t add column secret int")
	b.exec("begin; delete from t")
	go func() { _, err := b.Prepare(context.Background(), "select * from t", nil); failed <- err }()
	// Nothing is to be seen of the waiting but that it takes until the hold ends.
	until(t, "the description waits", func() bool { return e.db.waits.Load() == 2 })
	select {
	case err := <-failed:
		t.Errorf("described before the schema is hardened: %v", err)
	default:
	}
	e.db.setHold(false)
	if err := <-failed; err != nil {
		t.Error(err)
	}
	<-done
}

// TestRowsAreHardened: a transaction with the write lock answers at once what
// follows from hardened pages, and waits for the others (G2), also when its
// connection has them in its cache.
func TestRowsAreHardened(t *testing.T) {
	for _, x := range []struct {
		name, hidden, query, want string
		waits                     bool
	}{
		{"another table", "insert into t values(2, 2)", "select v from u", "7", false},
		{"its own change", "insert into t values(2, 2)", "update u set v = v + 1 returning v", "8", false},
		{"another row of the page", "insert into t values(2, 2)", "select v from t where id = 1", "1", true},
		{"the new row", "insert into t values(2, 2)", "select v from t where id = 2", "2", true},
		{"no row any more", "delete from t", "select v from t where id = 1", "", true},
		{"returned", "update t set v = 5", "update t set v = v + 1 returning v", "6", true},
		{"by the index", "update t set v = 5", "select id from t where v = 5", "1", true},
		{"some rows later", "insert into t values(2, 2)", "select v from u union all select v from t", "7 1 2", true},
		{"a new column", "alter table u add column w int default 3", "select w from u", "3", true},
		{"a temporary table", "insert into t values(2, 2)", "select v from temp.mine", "4", false},
	} {
		t.Run(x.name, func(t *testing.T) {
			e := newEnv(t)
			a, b := e.client(), e.client()
			a.exec("create table t(id int primary key, v int); create index t_v on t(v); insert into t values(1, 1)")
			a.exec("create table u(id int primary key, v int); insert into u values(1, 7)")
			if strings.Contains(x.query, "temp.") {
				b.exec("create temp table mine(v int); insert into mine values(4)")
			}
			a.exec("begin; update u set v = 7; select count(*) from t, u; commit") // all is in the writer's cache
			e.db.setHold(true)
			done := make(chan error, 1)
			go func() { _, _, err := a.simpleQ(x.hidden); done <- err }()
			until(t, "the commit waits", func() bool { return a.waitingFor() == waitHardened })
			b.exec("begin; lock table u")
			rows, failed := "", make(chan error, 1)
			go func() {
				var err error
				rows, _, err = b.simpleQ(x.query)
				failed <- err
			}()
			if x.waits {
				until(t, "the rows wait", func() bool {
					select {
					case err := <-failed:
						t.Fatalf("answered %q (%v) before what it has read was hardened", rows, err)
					default:
					}
					return b.waitingFor() == waitRows || e.db.waits.Load() == 2
				})
				e.db.setHold(false)
			}
			select {
			case err := <-failed:
				if err != nil || rows != x.want {
					t.Errorf("%q, %v; want %q", rows, err, x.want)
				}
			case <-time.After(20 * time.Second):
				t.Error("not answered, although everything it has read is hardened")
			}
			e.db.setHold(false)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			b.exec("rollback")
		})
	}
}
