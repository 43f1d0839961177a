package dialect

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestSplit(t *testing.T) {
	for _, x := range []struct {
		in   string
		want []string
	}{
		{"", nil}, {" ; ;", nil}, {"-- only a comment", nil}, {"/* x */;", nil},
		{"select 1; select 2", []string{"select 1", " select 2"}},
		{"select ';'; select \";\", $$;$$, e'\\';', $x$;$$;$x$", []string{"select ';'", " select \";\", $$;$$, e'\\';', $x$;$$;$x$"}},
		{"-- a;b\nselect 1; /* ; */ select 2;", []string{"-- a;b\nselect 1", " /* ; */ select 2"}},
		{"create trigger t after insert on a begin update b set c=1; select case when 1 then 2 end; end; select 1",
			[]string{"create trigger t after insert on a begin update b set c=1; select case when 1 then 2 end; end", " select 1"}},
		{"begin; end; select 1", []string{"begin", " end", " select 1"}},
	} {
		got, err := Split(x.in)
		if err != nil || !reflect.DeepEqual(got, x.want) {
			t.Errorf("%q: %q %v, want %q", x.in, got, err, x.want)
		}
	}
	for _, in := range []string{"select 'a", `select "a`, "/* x", "select $$a", "select e'a\\'"} {
		var se *SyntaxError
		if _, err := Split(in); !errors.As(err, &se) {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestRewrite(t *testing.T) {
	for _, x := range []struct{ in, want string }{
		{"select 1", "select 1"},
		{"select a::int", "select dw_cast(23,-1,a)"},
		{"select t.a::bigint::text from t", "select CAST(dw_cast(20,-1,t.a) AS TEXT) from t"},
		{"select a::bool::text", "select CAST(dw_cast(16,-1,a) AS TEXT)"},
		{"select (a+b)::float8", "select dw_cast(701,-1,(a+b))"},
		{"select f(a, b)::numeric(10,2)", "select dw_cast(1700,655366,f(a, b))"},
		{"select 'x'::timestamp without time zone, $1::pg_catalog.int4", "select dw_cast(1114,-1,'x'), dw_cast(23,-1,$1)"},
		{"select e'a'::text", "select CAST('a' AS TEXT)"},
		{"select case when a then b end::varchar(3)", "select dw_cast(1043,7,case when a then b end)"},
		{"select cast(a as boolean), cast(b as timestamp)", "select dw_cast(16,-1,a ), dw_cast(1114,-1,b )"},
		{"select 1 from dual", "select 1 "},
		{"select 1 from dual d", "select 1  d"},
		{"select date '2020-01-01'", "select '2020-01-01'"},
		{"select pg_catalog.version(), public.t.a from public.t", "select version(), main.t.a from main.t"},
		{"select current_user, a as current_user", "select current_user(), a as current_user"},
		{"select a ilike 'x'", "select a MATCH 'x'"},
		{"create table t(id serial primary key, d timestamp default now())", "create table t(id INTEGER primary key, d timestamp default (now()) CONSTRAINT \"dw:type\" CHECK (dw_check(1114,-1,\"d\")))"},
		{"truncate table t", "DELETE /* TRUNCATE */ FROM t"}, {"truncate t cascade", "DELETE /* TRUNCATE */ FROM t"},
		{"drop table t cascade", "drop table t "},
		{"create index i on t using btree (a)", "create index i on t  (a)"},
		{"explain select 1", "EXPLAIN QUERY PLAN select 1"},
		{"select * from t where a='for update' for update of t nowait", "select * from t where a='for update' "},
		{"select $tag$it's$tag$", "select 'it''s'"},
		{"reindex", "reindex"}, {"reindex i", "reindex i"}, {"REINDEX index I", "REINDEX I"},
		{"reindex (verbose) table concurrently t", "reindex t"}, {"reindex index public.i", "reindex main.i"},
		{"reindex database", "reindex"}, {"reindex database concurrently d", "reindex"}, {"reindex schema public", "reindex"},
		{"reindex table", "reindex table"}, {"reindex system a b", "reindex system a b"}, {"reindex (verbose", "reindex (verbose"},
		{`select "a::b"`, `select "a::b"`},
	} {
		st, err := Parse(x.in)
		if err != nil || st.SQL != x.want {
			t.Errorf("%q:\n got %q %v\nwant %q", x.in, st.SQL, err, x.want)
		}
	}
}

func TestOffset(t *testing.T) {
	st, err := Parse("select a::int, zz, e'q'")
	if err != nil {
		t.Fatal(err)
	}
	if got := st.Offset(strings.Index(st.SQL, "zz")); got != strings.Index(st.Text, "zz") {
		t.Errorf("%q: offset %d", st.SQL, got)
	}
	for i := range len(st.SQL) + 2 {
		if o := st.Offset(i); o < 0 || o > len(st.Text) {
			t.Errorf("offset of %d is %d", i, o)
		}
	}
}

func TestKinds(t *testing.T) {
	for _, x := range []struct {
		in   string
		kind Kind
		tag  string
		what string
	}{
		{"begin transaction isolation level serializable, read only", Begin, "BEGIN", "{serializable true}"},
		{"start transaction read write", Begin, "START TRANSACTION", "{ false}"},
		{"end", Commit, "COMMIT", ""}, {"commit and chain", Commit, "COMMIT", "chain"},
		{"abort", Rollback, "ROLLBACK", ""}, {"rollback to savepoint x", RollbackTo, "ROLLBACK", "x"},
		{"release x", Release, "RELEASE", "x"},
		{"set local lock_timeout to '5s'", Set, "SET", "lock_timeout=5s local"},
		{"set search_path = a, b", Set, "SET", "search_path=a, b"},
		{"set time zone 'UTC'", Set, "SET", "timezone=UTC"},
		{"set x.y = -1", Set, "SET", "x.y=-1"}, {"set a to default", Set, "SET", "a= default"},
		{"set session characteristics as transaction read only", SetCharacteristics, "SET", "{ true}"},
		{"set transaction isolation level repeatable read", SetTransaction, "SET", "{repeatable read }"},
		{"show transaction isolation level", Show, "SHOW", "transaction_isolation"},
		{"reset all", Reset, "RESET", "ALL"}, {"discard all", Discard, "DISCARD ALL", "ALL"},
		{"lock table a, s.b in exclusive mode nowait", LockTable, "LOCK TABLE", "[a b] nowait"},
		{"vacuum (full, analyze) t", Vacuum, "VACUUM", "t FULL analyze"},
		{"alter database open force", AlterDatabase, "ALTER DATABASE", "OPEN FORCE"},
		{"alter user sysdba identified by \"p\"", Role, "ALTER ROLE", "ALTER USER [sysdba] password=p"},
		{"create user if not exists a with encrypted password 'x' nosuperuser connection limit 3 valid until 'infinity' in role b, c account lock", Role, "CREATE ROLE",
			"CREATE USER [a] exists password=x login=true super=false locked=true connlimit=3 validuntil=infinity in=[b c]"},
		{"create role r nologin noinherit role a admin b", Role, "CREATE ROLE", "CREATE ROLE [r] login=false inherit=false members=[a] admins=[b]"},
		{"alter user u limit failed_login_attemps 3, password_lock_time unlimited, session_per_user unlimited", Role, "ALTER ROLE", "ALTER USER [u] connlimit=-1 failedlimit=3 lockminutes=0"},
		{"alter role r rename to q", Role, "ALTER ROLE", "ALTER ROLE [r] rename=q"}, {"alter role r password null", Role, "ALTER ROLE", "ALTER ROLE [r] nopassword"},
		{"drop user if exists a, \"B c\" restrict", Role, "DROP ROLE", "DROP USER [a B c] exists"},
		{"drop user a cascade", Unsupported, "", "DROP USER ... CASCADE"}, {"create user a createrole", Unsupported, "", "CREATE USER ... CREATEROLE"},
		{"alter role a set work_mem = 1", Unsupported, "", "ALTER ROLE ... SET"},
		{"grant select, update(a, b) on table public.t, u to public, group x with grant option", Grant, "GRANT",
			"GRANT TABLE [{SELECT []} {UPDATE [a b]}] on [t u] to [public x] option"},
		{"revoke grant option for all privileges on all tables in schema public from x cascade", Grant, "REVOKE", "REVOKE TABLE [{ALL []}] on [public] all to [x] optiononly cascade"},
		{"grant create, usage on schema public to a", Grant, "GRANT", "GRANT SCHEMA [{CREATE []} {USAGE []}] on [public] to [a]"},
		{"grant dba, resource to a with admin option", Grant, "GRANT ROLE", "GRANT roles=[dba resource] to [a] option"},
		{"revoke admin option for select from a", Grant, "REVOKE ROLE", "REVOKE roles=[select] to [a] optiononly"},
		{"grant execute on function f to a", Unsupported, "", "GRANT ... ON FUNCTION"}, {"grant usage on all functions in schema public to a", Unsupported, "", "GRANT ... ON ALL FUNCTIONS IN SCHEMA"},
		{"grant usage on all sequences in schema public to a", Grant, "GRANT", "GRANT SEQUENCE [{USAGE []}] on [public] all to [a]"},
		{"grant create table to a", Unsupported, "", "GRANT of the system privilege CREATE TABLE (grant the role RESOURCE or DBA)"},
		{"grant select on t to a granted by b", Unsupported, "", "GRANT ... GRANTED BY"},
		{"reassign owned by a, b to c", Reassign, "REASSIGN OWNED", "c [a b]"},
		{"alter table if exists t owner to a", AlterOwner, "ALTER TABLE", "t=a"}, {"alter view v owner to a", AlterOwner, "ALTER VIEW", "v=a"},
		{"with a as (select 1) insert into t select * from a", SQL, "INSERT", ""},
		{"insert into t values(1)", SQL, "INSERT", ""},
		{"create temp table x(a int)", SQL, "CREATE TABLE", "temp"},
		{"select SP_X(1, 'a', $2) from dual", Call, "SELECT", "SP_X [{0 false false 1} {0 false true a} {2 false false }]"},
		{"alter system set statement_timeout = '2min'", Call, "ALTER SYSTEM", "SP_SET_PARA_VALUE [{0 false false 1} {0 false true STATEMENT_TIMEOUT} {0 false true 120000}]"},
		{"alter system set idle_session_timeout to 90001", Call, "ALTER SYSTEM", "SP_SET_PARA_VALUE [{0 false false 1} {0 false true IDLE_SESSION_TIMEOUT} {0 false false 91}]"},
		{"alter system set 'MAX_SESSIONS'=10 spfile", Call, "ALTER SYSTEM", "SP_SET_PARA_VALUE [{0 false false 2} {0 false true MAX_SESSIONS} {0 false false 10}]"},
		{"alter system set lock_timeout=5 memory", Call, "ALTER SYSTEM", "SP_SET_PARA_VALUE [{0 false false 0} {0 false true LOCK_TIMEOUT} {0 false false 5}]"},
		{"alter system reset idle_in_transaction_session_timeout", Call, "ALTER SYSTEM", "SP_SET_PARA_VALUE [{0 false false 1} {0 false true IDLE_IN_TRAN_TIMEOUT} {0 false true }]"},
		{"select sf_x(1), 2", SQL, "SELECT", ""},
		{"values (1)", SQL, "SELECT", ""},
		{"listen a", Unsupported, "", "LISTEN"},
		{"; ;", Empty, "", ""},
	} {
		st, err := Parse(x.in)
		if err != nil {
			t.Errorf("%q: %v", x.in, err)
			continue
		}
		var w []string
		add := func(s string) {
			if s != "" {
				w = append(w, s)
			}
		}
		switch st.Kind {
		case Begin, SetTransaction, SetCharacteristics:
			ro := ""
			if st.Modes.ReadOnly != nil {
				ro = fmt.Sprint(*st.Modes.ReadOnly)
			}
			add("{" + st.Modes.Isolation + " " + ro + "}")
		case Set:
			add(st.Name + "=" + st.Value)
		case AlterOwner:
			add(st.Name + "=" + st.Value)
		case Role:
			add(st.Verb + " " + showRole(st.Role))
		case Grant:
			add(st.Verb + " " + showGrant(st.Grant))
		default:
			add(st.Name)
			add(st.Verb)
		}
		if st.Tables != nil {
			add(fmt.Sprint(st.Tables))
		}
		if st.Args != nil {
			add(fmt.Sprint(st.Args))
		}
		for s, on := range map[string]bool{"chain": st.Chain, "local": st.Local, "default": st.Default, "analyze": st.Analyze, "temp": st.Temp} {
			if on {
				add(s)
			}
		}
		if st.NoWait {
			add("nowait")
		}
		if st.Kind != x.kind || st.Tag != x.tag || strings.Join(w, " ") != x.what {
			t.Errorf("%q: kind %d tag %q %q, want %d %q %q", x.in, st.Kind, st.Tag, strings.Join(w, " "), x.kind, x.tag, x.what)
		}
	}
	for _, in := range []string{"begin nonsense", "set x", "alter database", "lock table", "backup database", "call", "commit now", "rollback to", "release"} {
		if _, err := Parse(in); err == nil {
			t.Errorf("%q is accepted", in)
		}
	}
}

func TestItems(t *testing.T) {
	resolve := func(_, c string) Type {
		return map[string]Type{"i": {Int8, -1}, "f": {Float8, -1}, "n": {Numeric, -1}}[c]
	}
	for _, x := range []struct{ in, want string }{
		{"select count(*), sum(i), sum(f), avg(i), max(i), 1, 'a', 1.5, null from t", "count:20 sum:20 sum:701 avg:701 max:20 ?column?:23 ?column?:25 ?column?:1700 ?column?:0"},
		{"select i, t.i x, i as y, i+1, i/2, f*2, i||'a', i=1, not i, i is null", ":20 :20 :20 ?column?:20 ?column?:20 ?column?:701 ?column?:25 ?column?:16 ?column?:16 ?column?:16"},
		{"select *, t.*, lower(a)", "* * lower:25"},
		{"select 1::int8, i::text, cast(a as int), true, version()", "int8:20 i:25 a:23 bool:16 version:25"},
		{"select case when a then i else 2 end, coalesce(i,0), (select 1), exists(select 1), row_number() over (order by i)", "case:20 coalesce:20 ?column?:0 exists:16 row_number:20"},
		{"select current_timestamp, now(), current_user", "current_timestamp:1114 now:1114 current_user:19"},
		{"insert into t values(1) returning i, i+1 as z", ":20 :20"},
		{"select -1, 3000000000, x'00', $1", "?column?:23 ?column?:20 ?column?:17 ?column?:0"},
	} {
		st, err := Parse(x.in)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, it := range st.Items() {
			if it.Star {
				got = append(got, "*")
			} else {
				got = append(got, fmt.Sprintf("%s:%d", it.Name, it.Type(resolve).OID))
			}
		}
		if s := strings.Join(got, " "); s != x.want {
			t.Errorf("%s:\n got %s\nwant %s", x.in, s, x.want)
		}
	}
}

func TestParams(t *testing.T) {
	for _, x := range []struct {
		in   string
		n    int
		want string
	}{
		{"select * from t where a=$1 and $2<b and c in ($3,$4) limit $5", 5, "1:a 2:b 3:c 4:c 5:#20"},
		{"select $1::int, $2 between 1 and 2, a between $3 and $4", 4, "1:#23 3:a 4:a"},
		{"insert into t(x,y) values($2,$1),($3,upper($4))", 4, "1:y 2:x 3:x"},
		{"insert into t values($1,2,$2)", 2, "1:t.1 2:t.3"},
		{"update t set a=$1, b=b+$2 where id=$3", 3, "1:a 2:b 3:id"},
		{"select ?, ?", 2, ""}, {"select '$1', \"$2\"", 0, ""},
	} {
		st, err := Parse(x.in)
		if err != nil {
			t.Fatal(err)
		}
		hints, n := st.Params()
		var got []string
		for k := 1; k <= n; k++ {
			h, ok := hints[k]
			switch {
			case !ok:
			case h.Type.OID != 0:
				got = append(got, fmt.Sprintf("%d:#%d", k, h.Type.OID))
			case h.Pos != 0:
				got = append(got, fmt.Sprintf("%d:%s.%d", k, h.Table, h.Pos))
			default:
				got = append(got, fmt.Sprintf("%d:%s", k, h.Column))
			}
		}
		if s := strings.Join(got, " "); s != x.want || n != x.n {
			t.Errorf("%s: %d %q, want %d %q", x.in, n, s, x.n, x.want)
		}
	}
}

func TestTypeOf(t *testing.T) {
	for decl, want := range map[string]Type{
		"INTEGER": {Int8, -1}, "int": {Int4, -1}, "smallint": {Int2, -1}, "varchar(20)": {VarChar, 24}, "Double  Precision": {Float8, -1},
		"NUMERIC(10,2)": {Numeric, 10<<16 | 2 + 4}, "": {0, -1}, "mystery": {0, -1}, "bigint unsigned": {Int8, -1},
		"timestamp(3) with time zone": {TimestampTZ, -1}, "char(0)": {BPChar, -1}, "varchar(99999999999)": {VarChar, -1},
	} {
		if got := TypeOf(decl); got != want {
			t.Errorf("%q: %v, want %v", decl, got, want)
		}
	}
}

// FuzzParse: no panic, and what was not rewritten is not changed.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"select a::int::text from dual", "select cast(a as", "::", "select (a)::", "insert into t values($1", "create trigger",
		"select case when 1 then 2", "select count(", "set", "select e'\\x", "select $$", "with a as (", "explain (", "truncate", "select * for update", "call sp_x(", "select f(a) over", "select 1 as", "drop cascade"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if parts, err := Split(s); err == nil {
			for _, p := range parts {
				Parse(p)
			}
		}
		st, err := Parse(s)
		if err != nil {
			return
		}
		st.Params()
		for _, it := range st.Items() {
			it.Type(func(string, string) Type { return Type{} })
		}
		st.TableNames()
		for i := 0; i <= len(st.SQL); i += 1 + len(st.SQL)/16 {
			if o := st.Offset(i); o < 0 || o > len(st.Text) {
				t.Fatalf("offset %d of %d", o, len(st.Text))
			}
		}
	})
}

func showRole(r *RoleSpec) string {
	w := []string{fmt.Sprint(r.Names)}
	if r.Exists {
		w = append(w, "exists")
	}
	if r.Rename != "" {
		w = append(w, "rename="+r.Rename)
	}
	if r.Password != nil {
		w = append(w, "password="+*r.Password)
	}
	if r.NoPassword {
		w = append(w, "nopassword")
	}
	for _, b := range []struct {
		n string
		v *bool
	}{{"login", r.Login}, {"inherit", r.Inherit}, {"super", r.Super}, {"locked", r.Locked}} {
		if b.v != nil && !(b.n == "login" && *b.v && r.Password == nil) {
			w = append(w, fmt.Sprintf("%s=%v", b.n, *b.v))
		}
	}
	for _, n := range []struct {
		n string
		v *int
	}{{"connlimit", r.ConnLimit}, {"failedlimit", r.FailedLimit}, {"lockminutes", r.LockMinutes}} {
		if n.v != nil {
			w = append(w, fmt.Sprintf("%s=%d", n.n, *n.v))
		}
	}
	if r.ValidUntil != nil {
		w = append(w, "validuntil="+*r.ValidUntil)
	}
	for _, l := range []struct {
		n string
		v []string
	}{{"in", r.In}, {"members", r.Members}, {"admins", r.Admins}} {
		if l.v != nil {
			w = append(w, fmt.Sprintf("%s=%v", l.n, l.v))
		}
	}
	return strings.Join(w, " ")
}

func showGrant(g *GrantSpec) string {
	w := []string{}
	if g.On != "" {
		w = append(w, fmt.Sprintf("%s %v on %v", g.On, g.Privs, g.Objects))
	} else {
		w = append(w, fmt.Sprintf("roles=%v", g.Roles))
	}
	if g.All {
		w = append(w, "all")
	}
	w = append(w, fmt.Sprintf("to %v", g.To))
	for _, b := range []struct {
		n string
		v bool
	}{{"option", g.Option}, {"optiononly", g.OptionOnly}, {"cascade", g.Cascade}} {
		if b.v {
			w = append(w, b.n)
		}
	}
	return strings.Join(w, " ")
}

// What a syntax error says goes to clients and logs: never a password.
func TestRoleErrorsHideTheText(t *testing.T) {
	for _, sql := range []string{
		"alter user a identified by hunter2 'hunter2'", "create user a password = 'hunter2'", "create user a hunter2", "alter user a identified by 12hunter2",
		"create role a password 'x' valid until hunter2", "alter user a password 'x' connection limit hunter2", "alter user a limit hunter2 3",
	} {
		_, err := Parse(sql)
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "syntax error") {
			t.Errorf("%s: %v", sql, err)
		}
	}
}
