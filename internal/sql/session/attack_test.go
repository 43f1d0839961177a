package session

import (
	"strings"
	"testing"

	"datawatch/internal/sql/sqlapi"
)

// Ways around the rights. Everything here is tried by mallory, who may create
// tables and views, and must not learn a row, nor the number of rows, of secret.
func TestAttacks(t *testing.T) {
	e := newEnv(t)
	admin := e.client()
	admin.exec(`create user mallory in role resource; create table secret(a int, b text); insert into secret values(4711, 'hidden-text'), (4712, 'hidden-text');
		create view vsecret as select a, b from secret; create view vone as select 1 as one from secret; create view vpart as select a from secret where a = 0; create view vname as select name from sqlite_master;
		create table public1(x int); grant all on public1 to mallory; create trigger tsecret after insert on public1 begin insert into public1 select 0 where (select count(*) from secret) < 0; end;
		grant select on vpart to mallory; create index isecret on secret(a); create table parent(id int primary key, x int); analyze`)
	for _, sql := range []string{
		// Names that imitate views and triggers with an owner's rights.
		"with vsecret as (select * from secret) select * from vsecret", "with VPART as (select * from secret) select * from vpart",
		"with vpart(a) as materialized (select a from secret) select * from vpart", `with "vpart" as not materialized (select * from secret) select * from "vpart"`,
		"with [vpart] as (select a from secret) select * from [vpart]", "with 'vpart' as (select a from secret) select * from vpart",
		"with tsecret as (select * from secret) select * from tsecret", "with recursive vpart(a) as (select a from secret union select a from vpart) select * from vpart",
		"with vpart as (select * from secret) select x.a, y.a from vpart x, main.vpart y", "with/**/vpart/**/as/**/(select * from secret) select * from vpart",
		"with vpart -- as\n as (select * from secret) select * from vpart",
		"create temp view vpart as select * from secret; select * from vpart", "create temp view tsecret as select * from secret; select * from tsecret",
		"create temp view q as select count(*) from secret; select * from q", "create temp view q as select 1 from secret; select count(*) from q",
		"create view m1 as select * from secret; select * from m1", "create view m2 as select 1 as one from secret; select count(*) from m2",
		"create view m3 as with vpart as (select * from secret) select * from vpart; select * from m3", "create view tsecret as select * from secret; select * from tsecret",
		"create view m4 as select (select count(*) from secret) as n; select * from m4", "create view m5 as select * from vsecret; select * from m5", "create view m6 as select 1 as one from vone; select count(*) from m6",
		"create temp trigger tsecret after insert on public1 begin insert into public1 select a from secret; end",
		"create table mine(x int); create trigger vpart after insert on mine begin insert into mine select a from secret where new.x < 0; end; insert into mine values(-1)",
		"create table mine(x int); create trigger g after insert on mine begin insert into mine select a from (with vpart as (select a from secret) select * from vpart); end; insert into mine values(-1)",
		"create temp table mine(x int); create temp trigger g after insert on mine begin insert into mine select a from main.secret; end; insert into mine values(-1)",
		// Views and tables without a column of theirs.
		"select count(*) from secret", "select 1 from secret", "select exists (select 1 from secret)", "select rowid from secret", "select count(*) from vone", "select 1 from vsecret", "select max(1) from secret",
		"select (select 1 from secret)", "select 1 where 4711 in (select a from secret)", "select * from public1 where x in secret", "select count(*) from main.secret", "select 1 from vone limit 1",
		"select * from public1 left join secret on true", "select * from public1 natural join secret", "values ((select a from secret))", "select * from (select * from secret) vpart", "select x.* from secret as x",
		// Writing, and what writing tells.
		"insert into public1 select a from secret", "update public1 set x = (select max(a) from secret)", "update public1 set x = secret.a from secret", "delete from public1 where x in (select a from secret)",
		"insert into secret values(1, 'x') on conflict do nothing", "insert into public1 values(1) returning (select max(a) from secret)", "delete from secret", "truncate secret", "update secret set a = 1",
		"replace into secret values(1, 'x')", "copy secret to stdout", "copy (select * from secret) to stdout", "copy secret from stdin", "explain select * from secret", "explain query plan select * from secret",
		"select * from secret for update", "create table x as select * from secret", "create temp table x as select * from secret", "begin; lock table secret; commit",
		// The schema of others.
		"drop table secret", "drop view vpart", "drop index isecret", "drop trigger tsecret", "alter table secret rename to s2", "alter table secret add column c int", "alter table secret drop column b", "alter table secret owner to mallory",
		"alter view vpart owner to mallory", "create index mi on secret(a)", "create unique index mi on secret(a)", "create trigger mt after insert on secret begin select 1; end", "create temp trigger mt after insert on secret begin select 1; end",
		"alter table secret add constraint c check (a > 0)", "alter table secret add primary key (a)", "reindex", "reindex secret", "reindex isecret", "analyze secret", "analyze", "vacuum secret", "vacuum full", "create table if not exists secret(a int); select * from secret",
		"create table child(p int references parent(id))", "create table child(p int, foreign key (p) references parent)", "create table child(p int); alter table child add foreign key (p) references parent(id)",
		// The server's own tables, and SQLite's.
		"select * from sysusers", "select * from main.SysUsers", "select * from sysgrants", "select * from sysowners", "select * from sysmembers", "insert into sysgrants values('secret', '', 16384, 'SELECT', 10, 1)",
		"update sysusers set verifier = ''", "delete from sysmembers", "drop table sysgrants", "alter table sysusers rename to x", "create index x on sysusers(name)", "create table sysgrants(a int)", "create view sysusers as select 1",
		"create trigger x after insert on sysusers begin select 1; end", "create temp trigger x after insert on sysusers begin select 1; end", "create view x as select * from sysusers; select * from x", "with x as (select * from sysusers) select * from x",
		"select * from sqlite_stat4", "select * from sqlite_stat1", "update sqlite_sequence set seq = 0", "delete from sqlite_stat1", "select * from sqlite_sequence", "create temp view x as select * from sqlite_stat4; select * from x",
		"update sqlite_master set sql = ''", "insert into sqlite_schema values('table', 'x', 'x', 2, '')", "delete from sqlite_master",
		"copy sysusers to stdout", "lock table sysusers", "truncate sysusers", "alter table sysusers owner to mallory", "grant select on sysusers to mallory",
		// Doors of SQLite.
		"pragma writable_schema = on", "pragma writable_schema", "pragma schema_version = 1", "pragma foreign_keys = off", "pragma user_version = 7", "pragma trusted_schema = on", "pragma journal_mode = off", "pragma temp_store_directory = '/tmp'",
		"select * from pragma_writable_schema", "pragma key = 'x'", "pragma database_list; pragma hard_heap_limit = 1", "pragma cache_spill = 0", "pragma ignore_check_constraints = on", "pragma recursive_triggers = off",
		"attach database ':memory:' as x", "attach 'file:/etc/passwd?mode=ro' as x", "detach main", "vacuum into '/tmp/x'", "select load_extension('x')", "select readfile('/etc/passwd')", "select writefile('/tmp/x', 'y')", "select fts3_tokenizer('simple')", "select edit('x')",
		"create virtual table x using fts5(a)", "create virtual table temp.x using generate_series", "select * from sqlite_dbpage", "select * from dbstat", "select * from bytecode('select 1')", "select * from tables_used('select 1')", "select * from sqlite_stmt", "select * from fts5vocab",
		"select * from pg_authid", "select * from pg_shadow", "select * from v$sessions", "select * from pg_stat_activity", "select pg_reload_conf()", "select pg_read_file('/etc/passwd')",
		// Identity.
		"set role dba", "set role sysdba", "set session authorization sysdba", "set session authorization default; set role dba", "set local role sysdba", "select set_config('role', 'sysdba', false)", "select set_config('session_authorization', 'SYSDBA', false)",
		"set is_superuser = on", "grant dba to mallory", "grant select on secret to mallory", "grant mallory to dba; grant dba to mallory", "create user x superuser", "alter user mallory superuser", "alter user sysdba password 'mallory-1'", "alter user mallory rename to sysdba",
		"alter user mallory password 'x' valid until 'infinity'", "drop user sysdba", "revoke dba from sysdba", "reassign owned by sysdba to mallory", "create role x in role dba", "create role x admin mallory", "alter role mallory in role dba", "revoke all on secret from public",
	} {
		m := e.user("mallory")
		_, _, err := m.simpleQ("begin")
		if err != nil {
			t.Fatal(err)
		}
		rows, tag, err := "", "", error(nil)
		for _, one := range splitAttack(t, sql) {
			var r string
			if r, tag, err = m.simpleQ(one); err != nil {
				break
			}
			rows += r
		}
		switch {
		case err != nil && strings.Contains(err.Error(), "hidden-text"), strings.Contains(rows, "hidden-text"), strings.Contains(rows, "471"):
			t.Errorf("LEAK: %s: %q %v", sql, rows, err)
		case err == nil:
			t.Errorf("not refused: %s: %q %s", sql, rows, tag)
		default:
			want := "42501"
			for _, x := range [][2]string{{"select * from public1 where x in secret", "42601"}, {"vacuum into", "0A000"}, {"vacuum", "25001"}, {"attach", "0A000"}, {"detach", "0A000"}, {"create virtual", "0A000"},
				{"select * from sqlite_stat", "42501"}, {"select * from sqlite_sequence", "42501"}, {"select * from sqlite_", "42P01"}, {"select * from dbstat", "42P01"}, {"select * from bytecode", "42P01"},
				{"select * from tables_used", "42P01"}, {"select * from fts5vocab", "42P01"}, {"select * from pg_auth", "42P01"}, {"select * from pg_shadow", "42P01"}, {"set is_superuser", "55P02"}, {"alter role mallory in", "0A000"},
				{"select load_extension", "42883"}, {"select readfile", "42883"}, {"select writefile", "42883"}, {"select fts3_tokenizer", "42883"}, {"select edit", "42883"}, {"select pg_re", "42883"}} {
				if strings.HasPrefix(sql, x[0]) {
					want = x[1]
					break
				}
			}
			if got := codeOf(t, err); got != want {
				t.Errorf("%s: %v, want %s", sql, err, want)
			}
		}
		m.Session.Close()
	}
	if got := admin.exec("select count(*) || max(b) from secret"); got != "2hidden-text" {
		t.Errorf("secret is changed: %s", got)
	}
	admin.is("select count(*) from pg_roles where rolsuper and rolcanlogin", "1")
}

// splitAttack cuts a list of statements as a client would.
func splitAttack(t *testing.T, sql string) []string {
	t.Helper()
	parts, err := splitStatements(sql)
	if err != nil {
		return []string{sql}
	}
	return parts
}

// Traps for an administrator: what mallory's views and triggers do happens with
// mallory's rights, whoever uses them.
func TestTrapsForAdministrators(t *testing.T) {
	e := newEnv(t)
	admin := e.client()
	admin.exec("create user mallory in role resource; create table secret(a int); insert into secret values(4711)")
	m := e.user("mallory")
	m.exec(`create table loot(x int); create table bait(x int); create table bait2(x int); create table bait3(x int); create table bait4(x int);
		create trigger b1 after insert on bait begin insert into loot select a from secret; end;
		create trigger b2 after insert on bait2 begin insert into loot select a from (with q as (select a from secret) select * from q); end;
		create trigger b3 after insert on bait3 begin update loot set x = (select max(a) from secret); delete from secret; end;
		create view vbait as select * from secret; create view wbait as with q as (select * from secret) select * from q;
		create view ibait as select 1 as one; create trigger b4 instead of insert on ibait begin insert into loot select a from secret; end;
		create trigger b5 after insert on bait4 begin insert into loot select 1 from secret; end`)
	for _, sql := range []string{
		"insert into bait values(1)", "insert into bait2 values(1)", "insert into bait3 values(1)", "insert into bait4 values(1)", "insert into ibait values(1)",
		"select * from vbait", "select * from wbait", "insert into bait select a from secret", "with q as (select 1) insert into bait2 select * from q",
	} {
		admin.fails(sql, "42501")
	}
	m.is("select count(*) from loot", "0")
	admin.is("select count(*) from secret", "1")
	// Innocent ones work, and with them the owner's rights.
	m.exec("create trigger ok after insert on loot begin insert into bait4 select 5 where 0; end; drop trigger b5")
	admin.exec("insert into loot values(7)")
	m.is("select x from loot", "7")
}

// What owners' rights allow: the user has nothing but the view, or the right to
// insert into the table with the trigger.
func TestOwnersRights(t *testing.T) {
	e := newEnv(t)
	admin := e.client()
	admin.exec(`create user o in role resource; create user u`)
	o, u := e.user("o"), e.user("u")
	o.exec(`create table t(a integer primary key, b int); insert into t values(1, 10), (2, 20); create table log(x int);
		create view v as select a from t where b > 10; create view w as with q as (select a, b from t) select a from q; create view n as select a as c from v; create view d as select distinct b from t;
		create view one as select 1 as k from t; create view agg as select count(*) as c, sum(b) as s from t; create view un as select a from t union all select b from t;
		create trigger lg after insert on t begin insert into log select max(a) from t; end;
		create view ins as select a, b from t; create trigger ii instead of insert on ins begin insert into t values(new.a, new.b); end;
		create table child(p int references t(a) on delete cascade on update cascade);
		grant select on v to u; grant select on w to u; grant select on n to u; grant select on d to u; grant select on one to u; grant select on agg to u; grant select on un to u;
		grant insert on t to u; grant insert on ins to u; grant insert, delete on child to u`)
	for sql, want := range map[string]string{
		"select * from v": "2", "select count(*) from v": "1", "select 1 from v": "1", "select * from w": "1 2", "select count(*) from w": "2", "select c from n": "2", "select count(*) from n": "1", "select exists (select 1 from n)": "1",
		"select b from d order by 1": "10 20", "select count(*) from d": "2", "select count(*) from one": "2", "select k from one limit 1": "1", "select c, s from agg": "2|30", "select 1 from agg": "1", "select count(*) from un": "4",
		"select x.a from v x join w y on x.a = y.a": "2", "with z as (select * from v) select * from z": "2", "select (select max(a) from v)": "2", "select * from v where a in (select a from w)": "2",
	} {
		u.is(sql, want)
	}
	u.exec("insert into t values(3, 30)")
	u.exec("insert into ins values(4, 40)")
	o.is("select x from log", "3 4")
	u.exec("insert into child values(3)") // a foreign key looks into t, the user may not
	u.fails("insert into child values(99)", "23503")
	u.exec("delete from child")
	for _, sql := range []string{"select * from t", "select max(x) from log", "insert into t values(9, 9) returning b", "insert into t values(1, 1) on conflict(a) do update set b = excluded.b", "update v set a = 1", "delete from v", "select * from ins", "insert into log values(1)"} {
		if c := u.code(sql); c != "42501" && c != "42809" {
			t.Errorf("%s: %s", sql, c)
		}
	}
	// Cascades are the foreign key's doing.
	admin.exec("grant delete, select on t to u; grant update(a) on t to u")
	o.exec("insert into child values(1), (2)")
	u.exec("delete from t where a = 1; update t set a = 22 where a = 2")
	o.is("select p from child", "22")
	// Rights of the owner that are gone are gone for everyone.
	admin.exec("alter table t owner to sysdba")
	u.fails("select * from v", "42501")
	u.fails("select count(*) from one", "42501")
	admin.exec("grant select on t to o")
	u.is("select count(*) from one", "3")
}

// The same text must not be permitted to one user because it was to another.
func TestSharedStatements(t *testing.T) {
	e := newEnv(t, func(c *Config) { c.Readers = 1 })
	admin := e.client()
	admin.exec("create user a; create user b; create table t(x int); insert into t values(1); grant select, delete on t to a; grant truncate on t to b")
	a, b := e.clientAs(sqlapi.Info{User: "a"}), e.clientAs(sqlapi.Info{User: "B"})
	for range 3 {
		a.is("select x from t", "1")
		b.fails("select x from t", "42501")
		admin.is("select x from t", "1")
		b.exec("begin; truncate t; rollback")
		b.fails("delete from t", "42501")
		b.fails("delete /* TRUNCATE */ from t where x = 1", "42501")
		a.exec("begin; delete from t; rollback")
		a.fails("truncate t", "42501")
		b.exec("begin; /* all of it */ truncate table only t; rollback")
	}
}
