package catalog

import (
	"strings"
	"testing"

	"github.com/ncruces/go-sqlite3"
)

// testAccess: ADMIN owns everything but p, and may do everything; u owns p and
// may read c.
var testAccess = &Access{
	Roles:   []Role{{ID: 10, Name: "ADMIN", Super: true, Inherit: true, Login: true, ConnLimit: -1}, {ID: 11, Name: "u", Inherit: true, Login: true, ConnLimit: 3}},
	Members: []Membership{{Role: 11, Member: 10, Grantor: 10, Admin: true}},
	Grants: []Grant{{Rel: "c", Grantee: 11, Grantor: 10, Priv: "SELECT", Option: true}, {Rel: "c", Grantee: 11, Grantor: 10, Priv: "INSERT"}, {Rel: "c", Grantee: 0, Grantor: 10, Priv: "DELETE"},
		{Rel: "c", Col: "v", Grantee: 11, Grantor: 10, Priv: "UPDATE"}, {Rel: SchemaPublic, Grantee: 11, Grantor: 10, Priv: "CREATE"}},
	Me: 10,
	Owner: func(rel string) int64 {
		if rel == "p" {
			return 11
		}
		return 10
	},
	May: func(role int64, rel, col, priv string, option bool) bool {
		return role == 10 || rel == "p" || rel == "c" && priv == "SELECT" || rel == "c" && col == "v" && priv == "UPDATE" && !option
	},
	Member: func(id, role int64, _ bool) bool { return id == role || id == 10 },
}

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
		Database: func() string { return "DB" }, Access: func() (*Access, error) { return testAccess, nil },
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
		{"select pg_get_userbyid(relowner), dw_regclass(oid), dw_regclass('\"p\"') = oid from pg_class where relname = 'p'", "u|p|1"},
		{"select count(*) from pg_class c where oid = '0' || 0", "0"},
		{`select column_name, is_nullable, data_type, character_maximum_length from "information_schema.columns" where table_name = 'p'`, "id|NO|bigint|\nname|NO|character varying|30"},
		{`select definition from pg_views where viewname = 'vv'`, " SELECT name FROM p;"},
		{"select tgname from pg_trigger", "tg"},
		{"select rolname, rolsuper from pg_roles", "ADMIN|1\nu|0"},
		{"select array_to_string('{a,\"b,c\",NULL}', ';', '-'), array_length('{1,2}', 1), dw_element('5 6', 1), dw_json('{1,x}')", `a;b,c;-|2|6|[1,"x"]`},
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

func TestCatalogOfPrivileges(t *testing.T) {
	db := open(t, "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(k INT, v INT); CREATE TEMP TABLE tt(a)")
	for _, x := range []struct{ sql, want string }{
		{"select relname, relowner, relacl from pg_class where relkind = 'r' order by 1", "c|10|{ADMIN=arwdDx/ADMIN,=d/ADMIN,u=ar*/ADMIN}\np|11|\ntt|10|"},
		{"select attname, attacl from pg_attribute where attacl is not null", "v|{u=w/ADMIN}"},
		{"select nspname, nspacl from pg_namespace where nspacl is not null", "public|{ADMIN=UC/ADMIN,=U/ADMIN,u=C/ADMIN}"},
		{"select rolname, rolsuper, rolcanlogin, rolconnlimit from pg_roles order by oid", "ADMIN|1|1|-1\nu|0|1|3"},
		{"select roleid, member, grantor, admin_option from pg_auth_members", "11|10|10|1"}, {"select usename, usesuper from pg_user", "ADMIN|1\nu|0"},
		{"select has_table_privilege('c', 'SELECT'), has_table_privilege('u', 'c', 'select'), has_table_privilege('u', 'c', 'INSERT, update'), has_table_privilege(11, (select oid from pg_class where relname = 'c'), 'TRUNCATE, SELECT')", "1|1|0|1"},
		{"select has_column_privilege('u', 'c', 'v', 'update'), has_column_privilege('u', 'c', 'k', 'UPDATE'), has_column_privilege('u', 'c', 2, 'UPDATE'), has_column_privilege('u', 'c', 'v', 'UPDATE WITH GRANT OPTION')", "1|0|1|0"},
		{"select has_schema_privilege('u', 'public', 'usage'), has_database_privilege('DB', 'CONNECT'), pg_has_role('u', 'admin', 'MEMBER'), pg_has_role('u', 'USAGE')", "1|1|0|1"},
		{"select has_table_privilege(99999, 'SELECT') is null, has_table_privilege('c', null) is null", "1|1"},
		{"select tablename, tableowner from pg_tables where schemaname = 'public' order by 1", "c|ADMIN\np|u"},
		{"select grantor, grantee, table_name, privilege_type, is_grantable from information_schema.table_privileges where table_name = 'c' and grantor <> grantee order by 2, 4", "ADMIN|PUBLIC|c|DELETE|NO\nADMIN|u|c|INSERT|NO\nADMIN|u|c|SELECT|YES"},
		{"select count(*) from information_schema.role_table_grants where table_name = 'p' and grantee = 'u'", "6"},
		{"select grantee, column_name, privilege_type from information_schema.column_privileges", "u|v|UPDATE"},
		{"select * from information_schema.applicable_roles", "ADMIN|u|YES"}, {"select role_name from information_schema.enabled_roles", "ADMIN\nu"},
	} {
		sql := strings.ReplaceAll(x.sql, "information_schema.", "\"information_schema.")
		for _, n := range []string{"table_privileges", "role_table_grants", "column_privileges", "applicable_roles", "enabled_roles"} {
			sql = strings.ReplaceAll(sql, "information_schema."+n, "information_schema."+n+"\"")
		}
		if got := query(t, db, sql); got != x.want {
			t.Errorf("%s:\n got %s\nwant %s", x.sql, got, x.want)
		}
	}
	for _, sql := range []string{"select has_table_privilege('c', 'FLY')", "select has_table_privilege('nosuch', 'SELECT')", "select has_table_privilege('x', 'c', 'SELECT')", "select has_table_privilege('c')", "select has_column_privilege('c', 'zz', 'SELECT')"} {
		st, _, err := db.Prepare(sql)
		if err != nil {
			t.Fatal(err)
		}
		if st.Step() || st.Err() == nil {
			t.Errorf("%s: no error", sql)
		}
		st.Close()
	}
	// Who may do nothing with a table does not see it in the information schema.
	was := *testAccess
	defer func() { *testAccess = was }()
	testAccess.Me = 12
	testAccess.May = func(_ int64, rel, _, _ string, _ bool) bool { return rel == "p" }
	if got := query(t, db, `select table_name from "information_schema.tables" order by 1`); got != "p\ntt" {
		t.Errorf("tables without any privilege are shown: %s", got)
	}
	if got := query(t, db, `select table_name, column_name from "information_schema.columns" order by 1`); got != "p|id\ntt|a" {
		t.Errorf("columns without any privilege are shown: %s", got)
	}
}
