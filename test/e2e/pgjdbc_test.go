package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"datawatch/internal/app/dw"
)

// pgJDBC sends what pgJDBC 42.5 was seen to send: its start-up parameters, the
// statements of a new connection, and those of DatabaseMetaData (getTables,
// getColumns, getPrimaryKeys, getIndexInfo, getImportedKeys, getTypeInfo ...),
// each as Parse, Bind, Describe, Execute, Sync. The answers are in
// testdata/pgjdbc.txt; DW_UPDATE=1 writes it.
func pgJDBC(t *testing.T, sys *dw.System) {
	mustExec(t, sys, `create table jparent(id serial primary key, name varchar(30) not null, amount numeric(10,2), ok boolean, at timestamp, d date, data bytea, j json, f float8);
		create table jchild(id int primary key, parent_id int references jparent(id) on delete cascade, n bigint);
		create index jchild_n on jchild(n desc)`)
	cfg, err := pgconn.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=SYSDBA password=SYSDBA dbname=DAMENG sslmode=disable", sys.DBs[0].Port))
	if err != nil {
		t.Fatal(err)
	}
	cfg.RuntimeParams = map[string]string{"client_encoding": "UTF8", "DateStyle": "ISO", "TimeZone": "Etc/UTC", "extra_float_digits": "2"}
	c, err := pgconn.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	for name, want := range map[string]string{"client_encoding": "UTF8", "DateStyle": "ISO, MDY", "TimeZone": "Etc/UTC", "integer_datetimes": "on", "standard_conforming_strings": "on", "default_transaction_read_only": "off"} {
		if got := c.ParameterStatus(name); got != want {
			t.Errorf("parameter %s: %q, want %q", name, got, want)
		}
	}
	b, err := os.ReadFile(filepath.Join("testdata", "pgjdbc.sql"))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, sql := range strings.Split(strings.TrimSuffix(string(b), "\n"), "\n--\n") {
		res := c.ExecParams(t.Context(), sql, nil, nil, nil, nil)
		fmt.Fprintf(&out, "%.100s\n", strings.Join(strings.Fields(sql), " "))
		var cols []string
		for _, f := range res.FieldDescriptions() {
			cols = append(cols, fmt.Sprintf("%s:%d", f.Name, f.DataTypeOID))
		}
		fmt.Fprintf(&out, "  %s\n", strings.Join(cols, " "))
		for n := 0; res.NextRow(); n++ {
			var vals []string
			for _, v := range res.Values() {
				vals = append(vals, string(v))
			}
			// Other tests have tables as well.
			if l := strings.Join(vals, "|"); n < 12 && (len(vals) < 4 || strings.Contains(l, "jparent") || strings.Contains(l, "jchild")) {
				fmt.Fprintf(&out, "  %s\n", l)
			}
		}
		tag, err := res.Close()
		if err != nil {
			t.Errorf("%s\n%v", sql, err)
		}
		word, _, _ := strings.Cut(tag.String(), " ")
		fmt.Fprintf(&out, "  %s\n", word)
	}
	path := filepath.Join("testdata", "pgjdbc.txt")
	if os.Getenv("DW_UPDATE") != "" {
		write(t, path, out.String())
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("the answers differ from %s\n%s", path, firstDifference(out.String(), string(want)))
	}
}
