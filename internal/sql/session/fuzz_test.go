package session

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"datawatch/internal/sql/sqlapi"
)

// FuzzSQL runs any text as a simple query through dialect, session and SQLite.
// It must not panic, every error has a SQLSTATE, and the session works
// afterwards.
func FuzzSQL(f *testing.F) {
	for _, s := range []string{
		"select * from t where a = $1", "insert into t values (1, 'x') returning *; select 1; rollback", "begin; savepoint a; insert into t values (7, 'y'); rollback to a; commit",
		"create table x(a serial primary key, b numeric(5,2) not null default 1, check (b > 0)); drop table x", "alter table t add column z varchar(3) default 'a'",
		"select a::int, b || 'x', array[1,2], now() from t order by 1 limit 2", "with recursive r(i) as (select 1 union all select i+1 from r where i < 5) select * from r",
		"create view v as select * from t; select * from v; drop view v", "create temp table q(a int); insert into q values(1); select * from q", "explain select 1", "set timezone = 'UTC'; show all",
		"select /* a ' comment */ 'it''s', \"a\", $$x$$, e'\\n' -- end", "copy t from stdin", "grant select on t to nobody", "create user u identified by 'Password_1'", "select top 2 * from t; vacuum",
		"update t set b = (select max(b) from t) where a in (select a from t)", "delete from t where exists (select 1)", "declare c cursor for select 1", "select * from generate_series(1, 3) g", "select a[1], t.*, (select 2) from t group by 1 having count(*) > 0",
		"create sequence s; select nextval('s')", "prepare p as select 1", "lock table t; select 1 for update", "select ~1, !a, a ~ 'x', a !~* 'y' from t", "truncate t, t", "alter database mount", "select '\x00', x'00ff', 1e400, 0x7fffffffffffffff",
		"create trigger tr after insert on t begin delete from t; end; insert into t values (9, 'z')", "backup database", "sp_set_para_value(1, 'X', 1)", "select pg_catalog.version(), information_schema.tables.* from information_schema.tables",
	} {
		f.Add(s)
	}
	e := newEnv(f, func(c *Config) { c.LockTimeout = time.Second })
	setup := e.client()
	setup.exec("create table t(a int primary key, b text)")
	setup.Close()
	f.Fuzz(func(t *testing.T, sql string) {
		if len(sql) > 4000 || strings.Contains(strings.ToLower(sql), "sleep") {
			t.Skip()
		}
		c := &client{tb: t, params: map[string]string{}}
		s, err := e.b.NewSession(context.Background(), sqlapi.Info{User: "SYSDBA"}, c)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		c.Session = s.(*Session)
		timer := time.AfterFunc(300*time.Millisecond, c.Cancel) // queries without end
		_, _, err = c.simpleQ(sql)
		timer.Stop()
		check := func(err error) {
			var se *sqlapi.Error
			if err != nil && (!errors.As(err, &se) || len(se.Code) != 5 || se.Code == "XX000") {
				t.Fatalf("%q: error without a state: %v", sql, err)
			}
		}
		check(err)
		_, err = c.ext(sql)
		check(err)
		if _, _, err := c.simpleQ("rollback"); err != nil {
			check(err)
			_, _, err = c.simpleQ("rollback") // told first that the transaction had ended
			check(err)
		}
		if rows, _, err := c.simpleQ("select 1"); err != nil || rows != "1" {
			t.Fatalf("after %q: %q %v", sql, rows, err)
		}
	})
}
