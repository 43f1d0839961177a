package session

import (
	"strings"
	"testing"
)

func TestBasics(t *testing.T) {
	e := newEnv(t)
	c := e.client()
	for _, x := range []struct{ sql, want string }{
		{"create table t(id integer primary key, a int, b varchar(20))", "CREATE TABLE"},
		{"insert into t values(1,10,'x'),(2,20,'y')", "INSERT 0 2"},
		{"select * from t order by id", "1|10|x 2|20|y"},
		{"update t set a=a+1", "UPDATE 2"},
		{"update t set a=a+1 where id=1 returning a, b", "12|x"},
		{"delete from t where id=2", "DELETE 1"},
		{"select count(*) from t", "1"},
		{"select id from T where ID=1", "1"},
		{"insert into t(id,a) values(5,1) on conflict(id) do nothing", "INSERT 0 1"},
		{"select 1 from dual", "1"},
		{"select 'a'::text || 1::int", "a1"},
		{"select a::bool::text from t where id=1", "1"},
		{"select current_user, current_database(), current_schema()", "SYSDBA|DAMENG|public"},
		{"select pg_catalog.pg_is_in_recovery()", "0"},
		{"select count(*) from public.t", "2"},
		{"select e'a\\tb', $$it's$$", "a\tb|it's"},
		{"truncate table t", "TRUNCATE TABLE"},
		{"select count(*) from t", "0"},
		{"show transaction_isolation", "read committed"},
		{"show transaction_read_only", "off"},
		{"show server_version", serverVersion},
		{"select name from v$instance", "NULL"},
		{"vacuum", "VACUUM"}, {"vacuum analyze t", "VACUUM"}, {"vacuum full", "VACUUM"}, {"analyze", "ANALYZE"},
		{"explain select * from t", "2|0|0|SCAN t"},
		{"drop table t", "DROP TABLE"},
	} {
		if got := c.exec(x.sql); got != x.want && !strings.HasPrefix(x.sql, "select name") && !strings.HasPrefix(x.sql, "explain") {
			t.Errorf("%s: %q, want %q", x.sql, got, x.want)
		}
	}
}

func TestParameters(t *testing.T) {
	e := newEnv(t)
	c := e.client()
	c.exec("create table p(a int, b text, c real, d blob)")
	if _, err := c.ext("insert into p values($4,$2,$3,$1)", []byte{1, 2}, "two", 3.5, 4); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		sql  string
		args []any
		want string
	}{
		{"select a,b,c,hex(d) from p where a=$1", []any{4}, "4|two|3.5|0102"},
		{"select $2||$1||$2", []any{"a", "b"}, "bab"},
		{"select a from p where a=$1", []any{"4"}, "4"},
		{"select ? + ?", []any{1, 2}, "3"},
		{"select $1 is null", []any{nil}, "1"},
		{"select b from p limit $1 offset $2", []any{1, 0}, "two"},
	} {
		got, err := c.ext(x.sql, x.args...)
		if err != nil || got != x.want {
			t.Errorf("%s: %q %v, want %q", x.sql, got, err, x.want)
		}
	}
	if _, err := c.ext("select :x", 1); err == nil || codeOf(t, err) != "42601" {
		t.Errorf("named parameter: %v", err)
	}
	if _, err := c.ext("select $2", 1); err == nil || codeOf(t, err) != "42P02" {
		t.Errorf("missing parameter: %v", err)
	}
}

func TestErrors(t *testing.T) {
	e := newEnv(t)
	c := e.client()
	c.exec("create table t(id integer primary key, u int unique, n int not null, k int check(k<10))")
	c.exec("create table f(t int references t(id)); insert into t values(1,1,1,1)")
	c.exec("create view v as select id from t")
	for _, x := range []struct{ sql, code string }{
		{"insert into t values(1,2,1,1)", "23505"},
		{"insert into t values(2,1,1,1)", "23505"},
		{"insert into t values(2,2,null,1)", "23502"},
		{"insert into t values(2,2,1,11)", "23514"},
		{"insert into f values(9)", "23503"},
		{"select * from nosuch", "42P01"}, {"select x from t", "42703"}, {"insert into t(zz) values(1)", "42703"}, {`create table "t 2"(a int); insert into "t 2"(zz) values(1)`, "42703"},
		{"selec 1", "42601"}, {"select 1 +", "42601"}, {"select 'a", "42601"}, {`select "nocol"`, "42703"},
		{"create table t(a int)", "42P07"}, {"create view v as select 1", "42P07"},
		{"drop table nosuch", "42P01"}, {"drop index nosuch", "42704"},
		{"select nofn(1)", "42883"}, {"select abs(1,2)", "42883"},
		{"insert into t values(1)", "42601"},
		{"select id from t a, t b", "42702"},
		{"select sum(count(*)) from t", "42803"},
		{"update v set id=1", "42809"},
		{"attach 'x' as y", "0A000"}, {"detach y", "0A000"}, {"vacuum into 'x'", "0A000"},
		{"pragma journal_mode=wal", "42501"}, {"pragma writable_schema=1", "42501"},
		{"select load_extension('x')", "42883"},
		{"select * from SYSUSERS", "42501"}, {"delete from sysusers", "42501"}, {"drop table sysusers", "42501"},
		{`select verifier from "SYSUSERS" u`, "42501"}, {"create index i on sysusers(name)", "42501"},
		{"create trigger g after update on sysusers begin select 1; end", "42501"},
		{"alter table sysusers rename to x", "42501"},
		{"update sqlite_master set sql='x'", "42501"},
		{"begin; commit prepared 'x'", "0A000"},
		{"create virtual table x using fts5(a)", "0A000"},
		{"select 1::bool where 'maybe'::bool", "22P02"},
		{"set nothing = 1", "42704"}, {"show nothing", "42704"}, {"set client_encoding = 'LATIN1'", "22023"},
		{"set server_version = '1'", "55P02"},
		{"savepoint x", "25P01"}, {"lock table t", "25P01"},
		{"call sp_nothing()", "42883"}, {"call sp_set_oguid('x')", "22023"}, {"call sp_set_oguid(1,2)", "42883"},
		{"deallocate x", "26000"},
	} {
		if got := c.code(x.sql); got != x.code {
			_, _, err := c.simpleQ(x.sql)
			t.Errorf("%s: %s, want %s (%v)", x.sql, got, x.code, err)
		}
		c.exec("rollback")
	}
	_, _, err := c.simpleQ("select 1,\n  frob(id) fro t")
	if e := errOf(t, err); e.Position == 0 {
		t.Errorf("no position: %+v", e)
	}
	_, _, err = c.simpleQ("select 1::int, nosuch from t")
	if e := errOf(t, err); e.Position != 16 {
		t.Errorf("position after a rewritten cast: %+v", e)
	}
}

func TestDialectAdmin(t *testing.T) {
	e := newEnv(t)
	c := e.client()
	for _, x := range []struct{ sql, call, want string }{
		{"ALTER DATABASE SUSPEND", "alter SUSPEND", "ALTER DATABASE"},
		{"alter database open force;", "alter OPEN FORCE", "ALTER DATABASE"},
		{"ALTER DATABASE MOUNT", "alter MOUNT", "ALTER DATABASE"},
		{"ALTER DATABASE PRIMARY", "alter PRIMARY", "ALTER DATABASE"},
		{"ALTER DATABASE ADD ARCHIVELOG 'DEST=A, TYPE=REALTIME'", "archivelog DEST=A, TYPE=REALTIME", "ALTER DATABASE"},
		{"SP_SET_OGUID(451)", "oguid 451", "CALL"},
		{"CALL SP_SET_OGUID(451)", "oguid 451", "CALL"},
		{"SELECT SP_SET_OGUID(451)", "oguid 451", "0"},
		{"SP_SET_PARA_VALUE(1, 'ALTER_MODE_STATUS', 0)", "para 1 ALTER_MODE_STATUS=0", "CALL"},
		{"SP_SET_ARCH_STATUS('EP1', 1)", "arch EP1 1", "CALL"},
		{"SP_SET_ALL_ARCH_STATUS(0)", "arch  0", "CALL"},
		{"SELECT SF_GET_PARA_VALUE(2,'PORT_NUM') FROM DUAL", "", "5236"},
		{"CHECKPOINT", "checkpoint", "CHECKPOINT"}, {"SELECT CHECKPOINT(100)", "checkpoint", "0"},
		{"BACKUP DATABASE FULL TO B1 BACKUPSET '/b/1' WITHOUT LOG", "backup {Full:true Name:B1 Dir:/b/1 WithoutLog:true}", "BACKUP DATABASE"},
		{"BACKUP DATABASE BACKUPSET '/b'", "backup {Full:false Name: Dir:/b WithoutLog:false}", "BACKUP DATABASE"},
	} {
		got := c.exec(x.sql)
		if got != x.want {
			t.Errorf("%s: %q, want %q", x.sql, got, x.want)
		}
		if x.call != "" && e.admin.last() != x.call {
			t.Errorf("%s: called %q, want %q", x.sql, e.admin.last(), x.call)
		}
	}
	if _, err := c.ext("CALL SP_SET_OGUID($1)", 77); err != nil || e.admin.last() != "oguid 77" {
		t.Errorf("parameter in a call: %v %q", err, e.admin.last())
	}
}
