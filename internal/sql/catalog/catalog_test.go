package catalog

import (
	"strings"
	"testing"

	"github.com/ncruces/go-sqlite3"
)

func open(t *testing.T, schema string) *sqlite3.Conn {
	t.Helper()
	db, err := sqlite3.Open(":memory:")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	n := uint64(0)
	if err := Register(db, Host{
		Stamp: func() uint64 { n++; return n }, Internal: func(fn func() error) error { return fn() },
		Database: func() string { return "DB" }, Users: func(*sqlite3.Conn) []string { return []string{"ADMIN", "u"} },
		Hidden: func(t string) bool { return t == "secret" },
	}); err != nil {
		t.Fatal(err)
	}
	if err := db.Exec(schema); err != nil {
		t.Fatal(err)
	}
	return db
}

func query(t *testing.T, db *sqlite3.Conn, sql string) string {
	t.Helper()
	st, _, err := db.Prepare(sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	defer st.Close()
	var rows []string
	for st.Step() {
		var r []string
		for i := range st.ColumnCount() {
			r = append(r, st.ColumnText(i))
		}
		rows = append(rows, strings.Join(r, "|"))
	}
	if err := st.Err(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return strings.Join(rows, "\n")
}

func TestCatalog(t *testing.T) {
	db := open(t, `CREATE TABLE p(id INTEGER PRIMARY KEY, name VARCHAR(30) NOT NULL DEFAULT 'x', CONSTRAINT nm UNIQUE(name), CHECK(id > 0));
		CREATE TABLE c(pid INT REFERENCES p ON DELETE CASCADE, k INT, v NUMERIC(8,2) CONSTRAINT "dw:22003:numeric(8,2)" CHECK(v < 1e6), PRIMARY KEY(pid, k));
		CREATE INDEX c_v ON c(v DESC) WHERE v > 0; CREATE VIEW vv AS SELECT name FROM p; CREATE TEMP TABLE tt(a);
		CREATE TABLE secret(a); CREATE VIEW broken AS SELECT * FROM nosuch; CREATE TRIGGER tg AFTER INSERT ON p BEGIN SELECT 1; END`)
	for _, x := range []struct{ sql, want string }{
		{"select relname, relkind, relpersistence from pg_class order by 1", "broken|v|p\nc|r|p\nc_pkey|i|p\nc_v|i|p\nnm|i|p\np|r|p\np_pkey|i|p\ntt|r|t\nvv|v|p"},
		{"select attname, format_type(atttypid, atttypmod), attnotnull, attidentity from pg_attribute a, pg_class c where c.oid = attrelid and relname = 'p' order by attnum",
			"id|bigint|1|d\nname|character varying(30)|1|"},
		{"select conname, contype, pg_get_constraintdef(oid, 1) from pg_constraint order by 1",
			"c_pid_fkey|f|FOREIGN KEY (pid) REFERENCES p(id) ON DELETE CASCADE\nc_pkey|p|PRIMARY KEY (pid, k)\nnm|u|UNIQUE (name)\np_check|c|CHECK (id > 0)\np_pkey|p|PRIMARY KEY (id)"},
		{"select indexname, indexdef from pg_indexes where tablename = 'c' order by 1",
			"c_pkey|CREATE UNIQUE INDEX c_pkey ON public.c USING btree (pid, k)\nc_v|CREATE INDEX c_v ON public.c USING btree (v DESC) WHERE v > 0"},
		{"select pg_get_userbyid(relowner), dw_regclass(oid), dw_regclass('\"p\"') = oid from pg_class where relname = 'p'", "ADMIN|p|1"},
		{"select count(*) from pg_class c where oid = '0' || 0", "0"},
		{`select column_name, is_nullable, data_type, character_maximum_length from "information_schema.columns" where table_name = 'p'`, "id|NO|bigint|\nname|NO|character varying|30"},
		{`select definition from pg_views where viewname = 'vv'`, " SELECT name FROM p;"},
		{"select tgname from pg_trigger", "tg"},
		{"select rolname, rolsuper from pg_roles", "ADMIN|1\nu|0"},
		{"select array_to_string('{a,\"b,c\",NULL}', ';', '-'), array_length('{1,2}', 1), dw_element('5 6', 2), dw_json('{1,x}')", `a;b,c;-|2|6|[1,"x"]`},
		{"select 'abc' regexp '^A', 'abc' regexp '(?i)^A', null regexp 'a' is null", "0|1|1"},
		{"select adbin from pg_attrdef", "'x'"},
	} {
		if got := query(t, db, x.sql); got != x.want {
			t.Errorf("%s:\n got %s\nwant %s", x.sql, got, x.want)
		}
	}
	if err := db.Exec("DROP TABLE c; DROP VIEW broken; ALTER TABLE p RENAME TO q"); err != nil {
		t.Fatal(err)
	}
	if got := query(t, db, "select count(*) from pg_class where relname in ('c', 'p')"); got != "0" {
		t.Errorf("after a change of the schema: %s", got)
	}
}

// TestTables: every table can be read to its end and looked up by every column.
func TestTables(t *testing.T) {
	db := open(t, "CREATE TABLE p(id INTEGER PRIMARY KEY, v TEXT UNIQUE); CREATE VIEW w AS SELECT 1 AS x")
	for _, x := range tables {
		query(t, db, `SELECT * FROM "`+x.name+`"`)
		for _, c := range strings.Split(x.columns, ",") {
			col := strings.Fields(strings.TrimSpace(c))[0]
			all := query(t, db, `SELECT count(*) FROM "`+x.name+`" a WHERE `+col+` IS NOT NULL`)
			if got := query(t, db, `SELECT count(*) FROM "`+x.name+`" a WHERE EXISTS (SELECT 1 FROM "`+x.name+`" b WHERE a.`+col+` = b.`+col+")"); got != all {
				t.Errorf("%s.%s: %s rows find themselves, of %s", x.name, col, got, all)
			}
		}
	}
}
