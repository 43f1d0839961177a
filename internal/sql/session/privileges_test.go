package session

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"datawatch/internal/sql/sqlapi"
)

// yes and 42501: what each statement answers to a user who has exactly one
// privilege on the table (or none, or owns it, or administers).
func TestPrivilegeTable(t *testing.T) {
	roles := []string{"none", "select", "select(a)", "insert", "insert(a)", "update", "update(a)", "delete", "truncate", "references", "all", "owner", "member", "public", "dba"}
	statements := []struct{ sql, may string }{
		{"select * from t", "select all owner member public dba"},
		{"select a from t", "select select(a) all owner member public dba"},
		{"select b from t where a = 1", "select all owner member public dba"},
		{"select count(*) from t", "select select(a) all owner member public dba"},
		{"select 1 where exists (select 1 from t)", "select select(a) all owner member public dba"},
		{"select (select max(b) from t)", "select all owner member public dba"},
		{"select a from t for update", "select select(a) all owner member public dba"},
		{"with x as (select a from t) select * from x", "select select(a) all owner member public dba"},
		{"explain select a from t", "select select(a) all owner member public dba"},
		{"copy t to stdout", "select all owner member public dba"},
		{"copy t(a) to stdout", "select select(a) all owner member public dba"},
		{"insert into t(a) values (7)", "insert insert(a) all owner member dba"},
		{"insert into t values (7, 7)", "insert all owner member dba"},
		{"insert into t(a, b) values (7, 7)", "insert all owner member dba"},
		{"insert into t(a) select 8", "insert insert(a) all owner member dba"},
		{"insert into t(a) values (7) returning a", "all owner member dba"},
		{"insert or replace into t(a) values (7)", "all owner member dba"},
		{"replace into t(a) values (7)", "all owner member dba"},
		{"update t set a = 1", "update update(a) all owner member dba"},
		{"update t set b = 1", "update all owner member dba"},
		{"update t set a = a + 1", "all owner member dba"},
		{"update t set a = 1 where b = 2", "all owner member dba"},
		{"delete from t", "delete all owner member dba"},
		{"delete from t where a = 1", "all owner member dba"},
		{"truncate t", "truncate all owner member dba"},
		{"truncate t, t", "truncate all owner member dba"},
		{"create index i on t(a)", "owner member dba"},
		{"drop table t", "owner member dba"},
		{"alter table t add column c int", "owner member dba"},
		{"alter table t rename to t2", "owner member dba"},
		{"alter table t rename column a to aa", "owner member dba"},
		{"alter table t drop column b", "owner member dba"},
		{"alter table t add unique (a)", "owner member dba"},
		{"alter table t owner to tester", "owner member dba"},
		{"create trigger g after insert on t begin select 1; end", "owner member dba"},
		{"create temp trigger g after insert on t begin select 1; end", "owner member dba"},
		{"drop index ti", "owner member dba"},
		{"drop trigger tg", "owner member dba"},
		{"analyze t", "owner member dba"},
		{"vacuum t", "owner member dba"},
		{"grant select on t to tester", "owner member dba"},
		{"revoke select on t from tester", "owner member dba"},
		{"begin; lock table t; rollback", "insert update delete truncate insert(a) update(a) all owner member dba"},
		{"create table child(x int references t(a))", "references all owner member dba"},
		{"alter table mine add column y int references t(a)", "references all owner member dba"},
		{"create view v1 as select * from t", strings.Join(roles, " ")}, // reading it is another matter
		{"create table copy1 as select a from t", "select select(a) all owner member public dba"},
		{"create temp table copy2 as select a from t", "select select(a) all owner member public dba"},
	}
	e := newEnv(t)
	admin := e.client()
	admin.exec("create user tester; create user maker in role resource; create role team in role resource; create table mine(x int); alter table mine owner to tester; grant resource to tester")
	maker := e.user("maker")
	maker.exec("create table t(a integer primary key, b int); create index ti on t(a); create trigger tg after insert on t begin select 1; end; insert into t values(1, 2)")
	for _, r := range roles {
		switch {
		case r == "none":
		case r == "owner":
			admin.exec("alter table t owner to tester")
		case r == "member":
			admin.exec("alter table t owner to team; grant team to tester")
		case r == "public":
			admin.exec("grant select on t to public")
		case r == "dba":
			admin.exec("grant dba to tester")
		default:
			admin.exec("grant " + r + " on t to tester")
		}
		for _, s := range statements {
			want := "42501"
			for _, m := range strings.Fields(s.may) {
				if m == r {
					want = "ok"
				}
			}
			u := e.user("tester")
			got := outcome(t, u, s.sql)
			u.Session.Close()
			if got != want {
				t.Errorf("with %s: %s: %s, want %s", r, s.sql, got, want)
			}
		}
		admin.exec("revoke all on t from tester, public; revoke select(a), insert(a), update(a) on t from tester; revoke team, dba from tester; alter table t owner to maker")
	}
}

// outcome runs statements in a transaction that is rolled back.
func outcome(t *testing.T, c *client, sql string) string {
	t.Helper()
	var err error
	switch {
	case strings.HasPrefix(sql, "vacuum"), strings.HasPrefix(sql, "begin"):
		_, _, err = c.simpleQ(sql)
		if c.TxStatus() != 'I' {
			c.exec("rollback")
		}
	default:
		c.exec("begin")
		_, _, err = c.simpleQ(sql)
		c.exec("rollback")
	}
	if err == nil {
		return "ok"
	}
	if code := codeOf(t, err); code != "42501" {
		return fmt.Sprint(err)
	}
	return "42501"
}

// What needs the role DBA, or VTI, or nothing.
func TestAdministrationTable(t *testing.T) {
	e := newEnv(t)
	admin := e.client()
	admin.exec("create user plain; create user watch in role vti; create user boss superuser")
	for _, x := range []struct{ sql, may string }{
		{"select count(*) from v$instance", "plain watch boss"},
		{"select count(*) from v$version", "plain watch boss"},
		{"select count(*) from v$sessions", "watch boss"},
		{"select count(*) from v$parameter", "watch boss"},
		{"select count(*) from pg_stat_activity", "watch boss"},
		{"select count(*) from pg_roles", "plain watch boss"},
		{"select count(*) from pg_class", "plain watch boss"},
		{"select name from sqlite_master limit 0", "plain watch boss"},
		{"select * from json_each('[1]')", "plain watch boss"},
		{"alter database suspend", "boss"}, {"checkpoint", "boss"}, {"CALL SP_SET_OGUID(1)", "boss"}, {"backup database backupset 'x'", "boss"},
		{"SP_SET_PARA_VALUE(1, 'PORT_NUM', 1)", "boss"}, {"select SF_GET_PARA_STRING_VALUE(1, 'PORT_NUM')", "plain watch boss"},
		{"SP_SET_ARCH_STATUS('X', 0)", "boss"},
		{"create user other", "boss"}, {"create role other2", "boss"}, {"alter user plain nologin", "boss"}, {"alter user watch password 'abc'", "watch boss"},
		{"drop user nobody", "boss"}, {"grant vti to plain", "boss"}, {"revoke vti from watch", "boss"}, {"grant create on schema public to plain", "boss"},
		{"reassign owned by plain to boss", "boss"}, {"analyze", "boss"}, {"vacuum full", "boss"}, {"pragma user_version = 4", "boss"}, {"pragma user_version", "plain watch boss"},
		{"pragma optimize", "boss"}, {"reindex", "boss"},
		{"set role boss", "boss"}, {"set session authorization sysdba", "boss"}, {"set role none", "plain watch boss"},
		{"create temp table x(a int)", "plain watch boss"}, {"create table x(a int)", "boss"}, {"create view x as select 1", "boss"},
	} {
		for _, name := range []string{"plain", "watch", "boss"} {
			want := "42501"
			if strings.Contains(" "+x.may+" ", " "+name+" ") {
				want = "ok"
			}
			u := e.user(name)
			_, _, err := u.simpleQ("begin; " + x.sql + "; rollback")
			if err != nil && codeOf(t, err) == "25001" { // not in a transaction block
				u.exec("rollback")
				_, _, err = u.simpleQ(x.sql)
			}
			if err != nil && codeOf(t, err) == "42704" && strings.HasPrefix(x.sql, "drop user nobody") {
				err = nil
			}
			got := "ok"
			if err != nil {
				got = codeOf(t, err)
			}
			if got != want {
				t.Errorf("%s: %s: %s (%v), want %s", name, x.sql, got, err, want)
			}
			u.Session.Close()
		}
	}
}

// A statement that was prepared, or is in every cache, before a change of
// rights obeys the change.
func TestRevokeTakesEffectAtOnce(t *testing.T) {
	e := newEnv(t)
	admin := e.client()
	admin.exec("create user u; create role r; create table t(a int); insert into t values(1); create view v as select a from t; grant select on v to u")
	u := e.user("u")
	ctx := context.Background()
	st, err := u.Prepare(ctx, "select a from v", nil)
	if err != nil {
		t.Fatal(err)
	}
	admin.exec("grant insert on t to u")
	run := func() error {
		p, err := st.Bind(nil)
		if err != nil {
			return err
		}
		defer p.Close()
		_, _, err = p.Run(ctx, 0, func(sqlapi.Row) error { return nil })
		u.Sync(ctx, err != nil)
		return err
	}
	for i := range 30 { // every pooled connection has it
		if err := run(); err != nil {
			t.Fatalf("run %d: %v", i, err)
		}
	}
	u.exec("insert into t values(2)")
	for _, x := range []struct{ off, on string }{
		{"revoke select on v from u", "grant select on v to u"},
		{"alter table t owner to u; alter table v owner to r", "alter table v owner to sysdba; alter table t owner to sysdba"},
		{"drop view v", "create view v as select a from t; grant select on v to u"},
		{"drop view v; create view v as select a from t", "grant select on v to u"},
	} {
		admin.exec(x.off)
		err := run()
		if err == nil {
			t.Errorf("after %s: the statement still runs", x.off)
		} else if c := codeOf(t, err); c != "42501" && c != "42P01" {
			t.Errorf("after %s: %v", x.off, err)
		}
		admin.exec(x.on)
		if err := run(); err != nil {
			t.Errorf("after %s: %v", x.on, err)
		}
	}
	admin.exec("revoke insert on t from u")
	u.fails("insert into t values(2)", "42501")

	// Roles: membership, SET ROLE, the user itself.
	admin.exec("grant select on t to r; grant r to u")
	u.is("select count(*) from t", "2")
	u.exec("set role r")
	u.is("select current_user || session_user", "ru")
	admin.exec("revoke r from u")
	u.fails("select count(*) from t", "42501")
	u.fails("select 1 from v", "42501")
	u.exec("reset role")
	u.is("select count(*) from v", "2")
	admin.exec("drop user u")
	until(t, "the session of a dropped user ends", func() bool { return u.term.Load() != nil })
	admin.exec("create user u")
	if err := run(); err == nil || codeOf(t, err) != "57P01" {
		t.Errorf("a user of the same name: %v", err)
	}
}

// In the transaction that changes rights, the changes count at once; undone,
// they never were.
func TestRightsInTransactions(t *testing.T) {
	e := newEnv(t)
	admin := e.client()
	admin.exec("create user u in role resource; create user w")
	u, w := e.user("u"), e.user("w")
	u.exec("begin; create table t(a int); insert into t values(1); grant select on t to w; create view v as select a from t")
	u.is("select a from v", "1")
	u.exec("savepoint s; alter table t rename to tt; grant insert on tt to w; rollback to s")
	u.is("select a from t", "1")
	u.exec("commit")
	w.is("select a from t", "1")
	w.fails("insert into t values(2)", "42501")
	u.exec("begin; revoke select on t from w; drop table t; rollback")
	w.is("select a from t", "1")
	u.exec("begin; grant insert on t to w; rollback")
	w.fails("insert into t values(2)", "42501")
	admin.exec("begin; revoke resource from u; alter user u nologin; rollback")
	u.exec("create table t2(a int)")
	w.fails("select * from t2", "42501")
	u.exec("drop table t2")
	// A table of the same name is another table.
	u.exec("create table t2(a int); grant all on t2 to w; drop table t2; create table t2(a int)")
	w.fails("select * from t2", "42501")
	// IF NOT EXISTS changes nothing.
	admin.exec("create table own(a int)")
	u.exec("create table if not exists own(a int)")
	u.fails("select * from own", "42501")
	// Renamed tables and columns keep their privileges; dropped columns lose them.
	u.exec("create table c(a int, b int, k int); grant select(a, b), update on c to w; alter table c rename to d; alter table d rename column a to x")
	w.is("select count(x) from d", "0")
	w.exec("update d set k = 1")
	w.fails("select k from d", "42501")
	u.exec("alter table d drop column b; alter table d add column b int")
	w.fails("select b from d", "42501")
	// SET LOCAL ROLE ends with the transaction, and so does a rolled back SET ROLE.
	admin.exec("create role r; grant r to u")
	u.exec("begin; set local role r")
	u.is("select current_user", "r")
	u.exec("commit")
	u.is("select current_user", "u")
	u.exec("begin; set role r; rollback")
	u.is("select current_user", "u")
	u.exec("set role r; begin; reset role; rollback")
	u.is("select current_user", "r")
}

// Sequences: USAGE and UPDATE, or the right to fill the column they belong to.
func TestSequencePrivileges(t *testing.T) {
	e := newEnv(t)
	admin := e.client()
	admin.exec("create user o in role resource; create user u")
	o, u := e.user("o"), e.user("u")
	o.exec("create sequence q; create table t(id serial, x int); create table d(x bigint default nextval('q'), y int); create view v as select nextval('q') as n; grant select on v to u; grant insert on d to u")
	for _, sql := range []string{"select nextval('q')", "select setval('q', 50)", "alter sequence q restart", "drop sequence q", "create sequence mine", "select nextval('t_id_seq')", "grant usage on sequence q to u",
		"with v as (select nextval('q') as n) select * from v", "create temp view v as select nextval('q'); select * from v"} {
		u.fails(sql, "42501")
	}
	u.exec("insert into d(y) values(1)") // the default is the table's business
	u.is("select n from v", "2")         // and the view its owner's
	o.exec("grant usage on sequence q to u; grant insert on t to u")
	u.is("select nextval('q')", "3")
	u.is("select currval('q')", "3")
	u.is("select nextval('t_id_seq')", "1")
	u.fails("select setval('q', 50)", "42501")
	o.exec("revoke all on all sequences in schema public from u; drop table d; alter sequence q rename to q2; grant update on sequence q2 to u")
	u.is("select setval('q2', 50)", "50")
	o.exec("drop sequence if exists nosuch")
	// Somebody else's default is no way to a sequence.
	admin.exec("create user m in role resource; create sequence s3")
	m := e.user("m")
	m.exec("create table way(a int default nextval('s3'), b int)")
	m.fails("insert into way(b) values(1)", "42501")
	m.exec("create temp table way2(a int default nextval('s3'), b int)")
	m.fails("insert into way2(b) values(1)", "42501")
	admin.is("select pg_get_userbyid(relowner) from pg_class where relname = 'q2'", "o")
	admin.fails("drop user o", "2BP01")
}
