package session

import (
	"fmt"
	"strings"
	"testing"
)

// TestAssign: what a value becomes in a column of a declared type, written as
// literal, expression, parameter and SELECT; errors as PostgreSQL 15 gives them.
func TestAssign(t *testing.T) {
	for _, x := range []struct{ typ, literal, want string }{ // want: the value, or a SQLSTATE after !
		{"boolean", "'t'", "1"}, {"boolean", "'true'", "1"}, {"boolean", "'f'", "0"}, {"boolean", "'yes'", "1"}, {"boolean", "'on'", "1"},
		{"boolean", "'OFF'", "0"}, {"boolean", "' n '", "0"}, {"boolean", "'1'", "1"}, {"boolean", "true", "1"}, {"boolean", "'o'", "!22P02"},
		{"boolean", "'maybe'", "!22P02"}, {"boolean", "2", "!42804"}, {"boolean", "coalesce(null, 't')", "1"}, {"boolean", "1 = 1", "1"},
		{"int", "'12'", "12"}, {"int", "'abc'", "!22P02"}, {"int", "''", "!22P02"}, {"int", "'2147483648'", "!22003"}, {"int", "2147483648", "!22003"},
		{"int", "1.5", "2"}, {"int", "-2.5", "-3"}, {"int", "1.4e0 + 0", "1"}, {"int", "lower('ABC')", "!22P02"}, {"int", "null", "NULL"},
		{"smallint", "-32769", "!22003"}, {"bigint", "9223372036854775807", "9223372036854775807"}, {"bigint", "'9223372036854775808'", "!22003"},
		{"numeric", "'1.50'", "1.5"}, {"numeric", "'x'", "!22P02"}, {"numeric(5,2)", "1.005", "1.01"}, {"numeric(5,2)", "'-999.994'", "-999.99"},
		{"numeric(5,2)", "999.995", "!22003"}, {"numeric(5,2)", "1000", "!22003"}, {"decimal(3)", "1.5", "2"}, {"numeric(5,2)", "10 / 3.0", "3.33"},
		{"real", "'1e3'", "1000.0"}, {"float", "'x'", "!22P02"}, {"float", "3", "3.0"},
		{"varchar(3)", "'abc'", "abc"}, {"varchar(3)", "'abc  '", "abc"}, {"varchar(3)", "'abcd'", "!22001"}, {"varchar(3)", "'äöü'", "äöü"},
		{"varchar(3)", "lower('ABCD')", "!22001"}, {"char(2)", "'x'", "x"}, {"text", "'anything'", "anything"},
		{"date", "'2024-2-9'", "2024-02-09"}, {"date", "'2024-02-30'", "!22007"}, {"date", "'x'", "!22007"}, {"date", "1", "!42804"},
		{"date", "timestamp '2024-02-09 12:00:00'", "2024-02-09"}, {"date", "date('2024-02-09')", "2024-02-09"},
		{"time", "'1:02:03.50'", "01:02:03.5"}, {"time", "'25:00'", "!22007"},
		{"timestamp", "'2024-02-09T1:02:03Z'", "2024-02-09 01:02:03"}, {"timestamp", "'2024-02-09'", "2024-02-09 00:00:00"},
		{"timestamp", "'2024-02-09 23:59:58.123456+00:00:00'", "2024-02-09 23:59:58.123456"},
		{"timestamp", "date('2024-02-09')", "2024-02-09 00:00:00"}, {"timestamp", "'soon'", "!22007"},
		{"timestamptz", "'2024-02-09 00:30:00+01'", "2024-02-08 23:30:00"},
		{"uuid", "'A0EEBC999C0B4EF8BB6D6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}, {"uuid", "'a'", "!22P02"},
		{"json", "'{\"a\": 1}'", `{"a": 1}`}, {"jsonb", "'{a}'", "!22P02"}, {"json", "lower('{X}')", "!22P02"}, {"bytea", `'\x6162'`, "ab"},
	} {
		e := newEnv(t)
		c := e.client()
		c.exec("create table t(id int primary key, v " + x.typ + ")")
		c.exec("insert into t values(1, null)")
		for i, sql := range []string{"insert into t values(2, " + x.literal + ")", "insert into t(v, id) values(" + x.literal + ", 2)",
			"update t set v = " + x.literal + " where id = 1", "insert into t select 2, " + x.literal,
			"insert into t values(1, null) on conflict (id) do update set v = " + x.literal} {
			got, _, err := c.simpleQ(sql + " returning v")
			if err != nil {
				got = "!" + codeOf(t, err)
			}
			if got != x.want {
				t.Errorf("%s: %s: %s, want %s (%v)", x.typ, sql, got, x.want, err)
			}
			c.exec("delete from t where id = 2; update t set v = null")
			if i > 0 && t.Failed() {
				break
			}
		}
	}
}

// TestCompared: a literal is found again whatever its notation.
func TestCompared(t *testing.T) {
	c := newEnv(t).client()
	c.exec("create table t(id int primary key, b boolean, d date, ts timestamp, u uuid, y bytea, n numeric(5,2), v varchar(2))")
	c.exec(`insert into t values(1, 't', '2024-2-9', '2024-2-9', 'A0EEBC999C0B4EF8BB6D6BB9BD380A11', '\x00ff', 1.5, 'ab')`)
	for _, where := range []string{"b = 'yes'", "b in ('t', 'off')", "'true' = b", "not b = 'f'", "t.b <> 'f'", "d = '2024-2-09'", "d between '2024-1-1' and '2024-2-9'",
		"d >= '2024-02-09T00:00'", "ts = '2024-02-09'", "ts < '2024-02-09 00:00:01'", "u = 'a0eebc99-9c0b4ef8-bb6d6bb9bd380a11'", `y = '\x00FF'`,
		"n = '1.50'", "v = 'ab'", "v <> 'abc'", "id = '1'", "(b, d) = (true, date '2024-02-09')"} {
		if got := c.exec("select id from t where " + where); got != "1" {
			t.Errorf("%s: %q", where, got)
		}
		c.is("delete from t where id = 2 and "+where, "DELETE 0")
	}
	c.fails("select * from t where b = 'maybe'", "22P02")
	c.fails("select * from t where d > 'soon'", "22007")
	_, _, err := c.simpleQ("select 1, 'é' from t where d > 'soon'")
	if e := errOf(t, err); e.Position != 32 {
		t.Errorf("position %d", e.Position)
	}
	c.is("select 'x' as b from t where t.b = 't' and b = 'y'", "x")
	c.is("select b from (select 'maybe' as b) s where b = 'maybe'", "maybe") // not the table's column
}

// TestParametersFit: parameters are brought to length and scale; what they are
// compared with is not.
func TestParametersFit(t *testing.T) {
	c := newEnv(t).client()
	c.exec("create table t(id int primary key, n numeric(5,2), v varchar(3))")
	if _, err := c.ext("insert into t values($1, $2, $3)", 1, 1.005, "abc  "); err != nil {
		t.Fatal(err)
	}
	c.is("select n, v from t", "1.01|abc")
	for _, x := range []struct {
		sql  string
		v    any
		code string
	}{
		{"update t set n = $1", 999.995, "22003"}, {"update t set v = $1", "abcd", "22001"}, {"insert into t(id, v) values(2, $1)", "abcd", "22001"},
	} {
		_, err := c.ext(x.sql, x.v)
		if err == nil || codeOf(t, err) != x.code {
			t.Errorf("%s: %v", x.sql, err)
		}
	}
	if got, err := c.ext("select id from t where v < $1 and n < $2", "abcd", 1.014); got != "1" || err != nil {
		t.Errorf("%s %v", got, err)
	}
	if got, err := c.ext("update t set v = $1 where id = $2 returning v", "zz ", 1); got != "zz " || err != nil {
		t.Errorf("%q %v", got, err)
	}
}

// TestDefaults of columns are checked when the table is made.
func TestDefaults(t *testing.T) {
	c := newEnv(t).client()
	c.exec(`create table t(id int primary key, b boolean default 'yes', d date default '2024-2-9', n numeric(5,2) default 1.005, v varchar(5) default 'x'::character varying,
		j json default '{}'::jsonb, ts timestamp default now(), d2 date default current_timestamp, u text default current_user, i int default -1, e int not null default (1 + 1),
		t2 timestamp not null default current_timestamp check (t2 > '2000-01-01'))`)
	c.is("insert into t(id) values(1) returning b, d, n, v, j, length(d2), u, i, e", "1|2024-02-09|1.01|x|{}|10|SYSDBA|-1|2")
	c.is("insert into t values(2, default, default, default, default, default, default, default, default, default, default, default) returning b, i, length(d2)", "1|-1|10")
	c.is("update t set b = default, i = default where id = 2 returning b, i", "1|-1")
	c.exec("alter table t add column f boolean default 'off'")
	c.is("select f from t where id = 1", "0")
	for sql, code := range map[string]string{"create table x(b boolean default 'maybe')": "22P02", "create table x(d date default 'soon')": "22007",
		"alter table t add column g int default 'x'": "22P02", "create table x(v varchar(2) default 'abc')": "22001"} {
		c.fails(sql, code)
	}
	c.exec("create table s(id serial primary key, v int); insert into s values(default, 5)")
	c.is("select id from s", "1")
}

// TestViewParameters: a parameter compared with a view's column has its type.
func TestViewParameters(t *testing.T) {
	c := newEnv(t).client()
	c.exec("create table t(id int primary key, d date, n int); create view v as select id as k, d, n + 0 as m from t")
	for sql, want := range map[string]uint32{"select k from v where k < $1": 23, "select k from v where v.d < $1": 1082, "select k from v x where x.k = $1": 23} {
		st, err := c.Prepare(t.Context(), sql, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := st.ParamOIDs(); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %v, want %d", sql, got, want)
		}
		st.Close()
	}
}

// TestColumnOrigins: clients learn which column of which table a result column
// is, by the numbers of pg_class and pg_attribute.
func TestColumnOrigins(t *testing.T) {
	c := newEnv(t).client()
	c.exec("create table other(x int); create table t(id int primary key, g int generated always as (id + 1), v text); create view w as select v from t; create temp table tt(a int)")
	for sql, want := range map[string]string{
		"select v as renamed, id + 1, x.id, g from t x": "t.v 0 t.id t.g", "select v from w": "t.v", "select a from tt": "0",
		"insert into t(id, v) values(1, 'a') returning id": "t.id", "select relname from pg_class": "0"} {
		st, err := c.Prepare(t.Context(), sql, nil)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, col := range st.Columns() {
			if col.Table == 0 && col.Number == 0 {
				got = append(got, "0")
				continue
			}
			got = append(got, c.exec(fmt.Sprintf("select c.relname || '.' || a.attname from pg_class c join pg_attribute a on a.attrelid = c.oid where c.oid = %d and a.attnum = %d", col.Table, col.Number)))
		}
		if g := strings.Join(got, " "); g != want {
			t.Errorf("%s: %q, want %q", sql, g, want)
		}
		st.Close()
	}
}

// TestDistinctOn: what DISTINCT ON is made of is not seen by clients.
func TestDistinctOn(t *testing.T) {
	c := newEnv(t).client()
	c.exec("create table t(id int primary key, g int, d date); insert into t values(1, 1, '2024-01-02'), (2, 1, '2024-01-01'), (3, 2, null)")
	st, err := c.Prepare(t.Context(), "select distinct on (g) t.*, id * 2 from t where id < $1 order by g, d limit $2", nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, col := range st.Columns() {
		names = append(names, fmt.Sprint(col.Name, " ", col.OID))
	}
	if got := strings.Join(names, ","); got != "id 23,g 23,d 1082,?column? 20" {
		t.Errorf("columns %s", got)
	}
	if got, err := c.ext("select distinct on (g) t.*, id * 2 from t where id < $1 order by g, d limit $2", 3, 5); got != "2|1|2024-01-01|4" || err != nil {
		t.Errorf("%q %v", got, err)
	}
	c.fails("select distinct on (g) id from t union select 1", "0A000")
	c.fails("select distinct on (zzz) id from t", "42703")
	c.fails("select distinct on (g id from t", "42601")
	c.fails("create view v as select distinct on (g) id from t", "0A000")
	c.exec("begin; declare k cursor for select distinct on (g) id from t order by g, id desc")
	c.is("fetch all in k", "2 3")
	c.exec("rollback; prepare p as select distinct on (g) id from t order by g, id desc")
	c.is("execute p", "2 3")
}
