package session

import (
	"runtime"
	"strings"
	"testing"

	"datawatch/internal/sql/sqlapi"
)

// TestIdleSessions: an idle session holds no connection and little memory.
func TestIdleSessions(t *testing.T) {
	e := newEnv(t)
	e.client().exec("create table t(v int); insert into t values(1)")
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	const n = 1000
	before := heap()
	for range n {
		c := e.client()
		c.exec("set application_name='x'; select * from t; insert into t values(2)")
	}
	each := (heap() - before) / n
	if each > 64<<10 {
		t.Errorf("%d bytes a session", each)
	}
	if open := len(e.b.readers.idle) + e.b.readers.inUse; open > e.b.readers.size {
		t.Errorf("%d reader connections for idle sessions", open)
	}
	if l := e.b.Sessions(); len(l) != n+1 || l[5].Statements != 3 || l[5].State != "idle" {
		t.Errorf("%d sessions, %+v", len(l), l[5])
	}
}

func TestTypes(t *testing.T) {
	e := newEnv(t)
	c := e.client()
	c.exec(`create table t(a smallint, b int, c bigint, d integer, e numeric(10,2), f real, g double precision, h bool,
		i text, j varchar(20), k char(3), l bytea, m date, n time, o timestamp, p json, q timestamptz, r uuid)`)
	oids := func(cols []sqlapi.Column) []uint32 {
		var out []uint32
		for _, c := range cols {
			out = append(out, c.OID)
		}
		return out
	}
	equal := func(what string, got []uint32, want ...uint32) {
		t.Helper()
		if len(got) != len(want) {
			t.Errorf("%s: %v, want %v", what, got, want)
			return
		}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("%s: %v, want %v", what, got, want)
				return
			}
		}
	}
	prepare := func(sql string, o ...uint32) sqlapi.Stmt {
		t.Helper()
		st, err := c.Prepare(t.Context(), sql, o)
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		return st
	}
	equal("select *", oids(prepare("select * from t").Columns()), 21, 23, 20, 20, 1700, 700, 701, 16, 25, 1043, 1042, 17, 1082, 1083, 1114, 114, 1184, 2950)
	if cols := prepare("select e, j from t").Columns(); cols[0].TypeMod != 10<<16|2+4 || cols[1].TypeMod != 24 {
		t.Errorf("modifiers: %+v", cols)
	}
	equal("expressions", oids(prepare("select count(*), sum(b), max(j), b+1, 'x', now(), pg_is_in_recovery(), b=1, $1 from t").Columns()), 20, 20, 1043, 20, 25, 1114, 16, 16, 25)
	equal("returning", oids(prepare("insert into t(b,h) values(1,true) returning b, h, b*2 as x").Columns()), 23, 16, 20)
	equal("parameters", prepare("insert into t(b,h,o) values($1,$2,$3)").ParamOIDs(), 23, 16, 1114)
	equal("positional", prepare("insert into t values($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18)").ParamOIDs(), 21, 23, 20, 20, 1700, 700, 701, 16, 25, 1043, 1042, 17, 1082, 1083, 1114, 114, 1184, 2950)
	equal("compared", prepare("select 1 from t where c=$2 and $1<g and a in ($3,$4) limit $5").ParamOIDs(), 701, 20, 21, 21, 20)
	c.exec("create table under(b bigint, u text); create view v as select u || 'x' as b, b as u, b > 1 as p from under")
	equal("names of a view are not those of its table", oids(prepare("select b, max(b), u, v.b, p from v").Columns()), 25, 25, 20, 25, 25)
	equal("nor those of a subquery", oids(prepare("select x.b, x.u from (select lower(u) as b, b as u from under where b > 1) x").Columns()), 25, 20)
	c.exec("create table parent(id int primary key, c bigint); create table child(c smallint references parent(id))")
	equal("nor those of a table that refers to it", oids(prepare("delete from parent returning abs(c), c").Columns()), 20, 20)
	c.exec("create table flags(b boolean)")
	for q, want := range map[string]uint32{
		"select abs(q.b), (select count(*) from flags where b) from under as q": 20, "select abs(q.b) from flags f, under q": 20, "select max(f.b) from flags f join under q on true": 16,
		"select abs(b) from under where exists (select 1 from flags where b)": 25, "select abs(under.b) from under, flags": 20,
		"select max(x.b) from (select u as b from under where b > 1) x": 25, "select max(b) from under": 20, "update under set b = 1 returning abs(under.b)": 20,
	} {
		equal(q, oids(prepare(q).Columns())[:1], want)
	}
	equal("qualified", prepare("select 1 from flags f join under q on q.b = $1 and $2 = f.b where f.b = $3").ParamOIDs(), 20, 16, 16)
	equal("with a parameter", oids(prepare("select $1 + $2, $1 + b, q.b * $3 from under q", 701, 23, 20).Columns()), 701, 701, 20)
	c.exec("create view words as select 'x' as b; insert into flags values(true)")
	c.is("select count(*) from flags f join words w on true where '10' <= w.b and w.b = 'x' and f.b = 't'", "1") // only 't' is a boolean
	equal("given", prepare("select $1, $2::date", 23).ParamOIDs(), 23, 1082)
	for sql, want := range map[string]string{
		"select 1, count(*), upper('a'), b as x, t.c from t": "?column?,count,upper,x,c",
		"show timezone": "timezone", "select 'a'::text, version()": "text,version",
	} {
		var names []string
		for _, c := range prepare(sql).Columns() {
			names = append(names, c.Name)
		}
		if got := strings.Join(names, ","); got != want {
			t.Errorf("%s: columns %s, want %s", sql, got, want)
		}
	}
	// A simple query learns the type of an expression from its first row.
	c.Split("select (select 5), (select 2.5)")
	po, _ := prepare("select (select 5), (select 2.5)").Bind(nil)
	equal("first row", oids(po.Columns()), 20, 701)
	po.Close()
	c.Sync(t.Context(), false)
	// A table that changes under prepared statements, on every connection.
	c.exec("create table g(a int); insert into g values(1)")
	st := prepare("select * from g")
	po, _ = st.Bind(nil)
	po.Run(t.Context(), 0, func(sqlapi.Row) error { return nil })
	c.exec("alter table g add column z text")
	po, _ = st.Bind(nil)
	if _, _, err := po.Run(t.Context(), 0, func(sqlapi.Row) error { return nil }); err == nil || codeOf(t, err) != "0A000" {
		t.Errorf("changed table: %v", err)
	}
	c.Sync(t.Context(), true)
	equal("after a change", oids(prepare("select * from g").Columns()), 23, 25)
	c.is("select * from g", "1|NULL")
	c.exec("begin; drop table g; create table g(a text); insert into g values('x')")
	c.is("select * from g", "x")
	equal("in the transaction", oids(prepare("select * from g").Columns()), 25)
	c.exec("rollback")
	equal("rolled back", oids(prepare("select * from g").Columns()), 23, 25)
	c.is("select * from g", "1|NULL")
	c.exec("drop table g; create table g(a text, z int); insert into g values('y',2)")
	equal("made anew", oids(prepare("select * from g").Columns()), 25, 23)
	c.is("select * from g", "y|2")
	c.is("insert into g values('z',3) returning *", "z|3")
	c.exec("alter table g drop column z")
	c.is("insert into g values('z') returning *", "z")
}

func TestVariables(t *testing.T) {
	e := newEnv(t)
	c := e.clientAs(sqlapi.Info{User: "sysdba", App: "psql", Params: map[string]string{"user": "sysdba", "DateStyle": "ISO", "options": "-c statement_timeout=5s"}})
	for _, x := range []struct{ sql, want string }{
		{"show application_name", "psql"}, {"show statement_timeout", "5s"}, {"select current_user", "SYSDBA"},
		{"begin; set statement_timeout=100; rollback; show statement_timeout", "5s"},
		{"begin; set local lock_timeout='2min'; show lock_timeout", "2min"}, {"commit; show lock_timeout", "10s"},
		{"set application_name to 'x'; show application_name", "x"}, {"reset application_name; show application_name", "psql"},
		{"select set_config('my.var','1',false)", "1"}, {"select current_setting('my.var')", "1"},
		{"select current_setting('no.var', true) is null", "1"},
		{"set time zone 'Europe/Berlin'; show timezone", "Europe/Berlin"},
		{"set session characteristics as transaction isolation level serializable; show default_transaction_isolation", "serializable"},
		{"begin; show transaction_isolation", "serializable"}, {"commit", "COMMIT"},
		{"discard all", "DISCARD ALL"}, {"show transaction_isolation", "read committed"},
		{"set default_transaction_read_only=on; show transaction_read_only", "on"},
		{"show port_num", "5236"},
	} {
		c.is(x.sql, x.want)
	}
	c.fails("create table t(a int)", "25006")
	if c.params["application_name"] != "psql" || c.params["TimeZone"] != "UTC" {
		t.Errorf("reported: %v", c.params)
	}
	for _, p := range reported {
		if v := c.Parameters()[p]; v == "" && p != "application_name" {
			t.Errorf("%s has no value", p)
		}
	}
	if _, err := e.b.NewSession(t.Context(), sqlapi.Info{Params: map[string]string{"nosuch": "1"}}, nil); err == nil {
		t.Error("an unknown startup parameter is accepted")
	}
}
