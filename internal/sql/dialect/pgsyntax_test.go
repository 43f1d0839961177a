package dialect

import "testing"

func TestPGSyntax(t *testing.T) {
	for _, x := range []struct{ in, want string }{
		{"select a !~ '^x', ~b", "select a  NOT REGEXP  '^x', ~b"},
		{"select a ~* 'x' collate pg_catalog.default", "select a  REGEXP '(?i)' ||  'x' "},
		{"select c.a operator(pg_catalog.~) 'x'", "select c.a REGEXP '(?i)' || 'x'"},
		{"select a ~~ 'x%'", "select a  LIKE  'x%'"},
		{"select a = any(array[1,2])", "select a IN (1,2)"},
		{"select a <> all (select b from c)", "select a NOT IN  (select b from c)"},
		{"select a = any ($1)", "select a IN (SELECT value FROM json_each(dw_json($1)))"},
		{"select array(select 1)", "select (WITH dw_a(x) AS (select 1) SELECT dw_array_agg(x) FROM dw_a)"},
		{"select (select 1) in (a, b), f(c) from (select 1) s where (select 2) in (a, b)", "select (select 1) in (a, b), f(c) from (select 1) s where (select 2) in (a, b)"},
		{"select a[b.c - 1] & 1, (f(x))[g(1)[2]]", "select dw_element(a, b.c - 1) & 1, dw_element((f(x)), dw_element(g(1), 2))"},
		{"select r.k from (select (information_schema._pg_expandarray(i.k)).n as k, information_schema._pg_expandarray(i.k) as keys, 1 as a from i where true) r where a = (r.keys).x",
			"select r.k from (select (dw_x.key + 1) as k, dw_x.value as keys, 1 as a from i  JOIN json_each('[' || replace(trim(i.k, '{}'), ' ', ',') || ']') dw_x where true) r where a = r.keys"},
		{"select 1 from (select information_schema._pg_expandarray(i.k) as keys from i) s where (s.keys).x = 1", "select 1 from (select dw_x.value as keys from i JOIN json_each('[' || replace(trim(i.k, '{}'), ' ', ',') || ']') dw_x ) s where s.keys = 1"},
		{"select substring(f(a) from 2 for 3), substr((select b from c), 1)", "select dw_substring(f(a) , 2 , 3), substr((select b from c), 1)"},
		{"select 1 as default, 2 as Order from t order by 1", `select 1 as "default", 2 as "order" from t order by 1`},
		{"select x.a[1], array[1,2]", "select dw_element(x.a, 1), dw_array(1,2)"},
		{"select top 3 a from t where b in (select top 1 c from d)", "select  a from t where b in (select  c from d LIMIT 1) LIMIT 3"},
		{"select * from information_schema.tables", `select * from "information_schema.tables"`},
		{"select trim(trailing ';' from a)", "select rtrim( a, ';')"},
		{"select 't'::regclass::oid", "select (dw_regclass('t'))"},
		{"create table t(a int) with (fillfactor=100) tablespace x", `create table t(a int CONSTRAINT "dw:type" CHECK ("a" BETWEEN -2147483648 AND 2147483647 AND "a" = "a"|0 OR "a" IS NULL OR dw_check(23,-1,"a")))  `},
		{"create table t(a varchar(3) check(a>'')) ", `create table t(a varchar(3) check(a>'') CONSTRAINT "dw:type" CHECK (length("a") <= 3 OR "a" IS NULL OR dw_check(1043,7,"a"))) `},
		{"create table t(a bigint generated always as identity (start 1), primary key (a))", "create table t(a INTEGER , primary key (a))"},
		{"create table t(a int identity(1,1) primary key)", "create table t(a INTEGER  primary key)"},
	} {
		st, err := Parse(x.in)
		if err != nil || st.SQL != x.want {
			t.Errorf("%q:\n got %q %v\nwant %q", x.in, st.SQL, err, x.want)
		}
	}
	for in, feature := range map[string]string{
		"copy t to '/x'":                                        "COPY with a file of the server (use STDIN, STDOUT or psql's \\copy)",
		"copy t from stdin (force_null (a))":                    "COPY option FORCE_NULL",
		"create table t(a int) partition by range (a)":          "PARTITION",
		"alter table t add constraint x exclude using gist (a)": "ALTER TABLE ... ADD EXCLUDE",
	} {
		st, err := Parse(in)
		if err != nil || st.Kind != Unsupported || st.Name != feature {
			t.Errorf("%q: %+v %v, want %q refused", in, st, err, feature)
		}
	}
	for in, n := range map[string]int{"drop table if exists a, b, c": 3, "truncate table a, x.b cascade": 2} {
		if st, err := Parse(in); err != nil || st.Kind != Batch || len(st.Tables) != n {
			t.Errorf("%q: %+v %v", in, st, err)
		}
	}
	got, ok := WithConstraint(`CREATE TABLE "t"(a int, b text)`, "n", "PRIMARY KEY (a)", []string{"a"})
	if want := `CREATE TABLE "n" (a INTEGER NOT NULL, b text, PRIMARY KEY (a))`; !ok || got != want {
		t.Errorf("WithConstraint: %s, want %s", got, want)
	}
}

func TestCopyOptions(t *testing.T) {
	for in, want := range map[string]CopySpec{
		"copy t from stdin": {In: true, Table: "t", Delimiter: '\t', Null: `\N`},
		"copy s.t(a,b) to stdout with csv header quote as ''''":                                     {Table: "t", Columns: []string{"a", "b"}, CSV: true, Header: true, Delimiter: ',', Quote: '\'', Escape: '\''},
		"copy (select ')' from x) to stdout (format csv, delimiter ';', null 'NULL', header false)": {Query: "select ')' from x", CSV: true, Delimiter: ';', Null: "NULL", Quote: '"', Escape: '"'},
		"copy t from stdin with (freeze on, header match)":                                          {In: true, Table: "t", Delimiter: '\t', Null: `\N`, Header: true, Match: true},
		"copy t from stdin delimiter '|' null ''":                                                   {In: true, Table: "t", Delimiter: '|'},
	} {
		st, err := Parse(in)
		if err != nil || st.Kind != Copy {
			t.Errorf("%q: %+v %v", in, st, err)
			continue
		}
		got := *st.Copy
		if len(got.Columns) != len(want.Columns) {
			t.Errorf("%q: columns %v", in, got.Columns)
		}
		got.Columns, want.Columns = nil, nil
		if !equalSpec(got, want) {
			t.Errorf("%q:\n got %+v\nwant %+v", in, got, want)
		}
	}
	for _, in := range []string{"copy", "copy t", "copy t from", "copy t to stdin", "copy () to stdout", "copy t from stdin (delimiter 'ab')",
		"copy t from stdin (quote 'x')", "copy t from stdin (format xml)", "copy t from stdin (nonsense)", "copy t from stdin (format csv, delimiter '\"')",
		"copy t from stdin (null 'a', null 'b')", "copy t from stdin delimiter"} {
		if st, err := Parse(in); err == nil {
			t.Errorf("%q is accepted: %+v", in, st)
		}
	}
}

func equalSpec(a, b CopySpec) bool {
	return a.In == b.In && a.Table == b.Table && a.Query == b.Query && a.CSV == b.CSV && a.Delimiter == b.Delimiter && a.Null == b.Null &&
		a.Header == b.Header && a.Match == b.Match && a.Quote == b.Quote && a.Escape == b.Escape
}
