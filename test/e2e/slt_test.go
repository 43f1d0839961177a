package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"datawatch/internal/app/dw"
	"datawatch/test/slt"
)

// sqlLogic runs SQLite's sqllogictest: all records on the primary, the queries
// on the standby too. DW_SLT is a directory with the corpus; without it, the
// part of it kept here is run.
func sqlLogic(t *testing.T, sys *dw.System) {
	path := os.Getenv("DW_SLT")
	if path == "" {
		path = filepath.Join("..", "slt", slt.Selection)
	}
	corpus, err := slt.Corpus(path)
	if err != nil {
		t.Fatal(err)
	}
	files, err := slt.Files(corpus)
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	mustExec(t, sys, "CREATE TABLE slt_mark(n INT); INSERT INTO slt_mark VALUES (0)")
	var total slt.Counts
	mark := 0
	start := time.Now()
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			primary, standby := rawConn(t, sys.DBs[0].Port), rawConn(t, sys.DBs[1].Port)
			r := slt.Runner{Primary: slt.Server{PgConn: primary}, Standby: slt.Server{PgConn: standby}, Deviations: slt.Deviations, Errorf: limitErrors(t, 20)}
			r.CaughtUp = func(ctx context.Context) error {
				mark++
				if _, err := primary.Exec(ctx, fmt.Sprintf("UPDATE slt_mark SET n = %d", mark)).ReadAll(); err != nil {
					return err
				}
				return seen(ctx, standby, "SELECT n FROM slt_mark", fmt.Sprint(mark))
			}
			n, err := r.Run(t.Context(), corpus, file)
			if err != nil {
				t.Fatal(err)
			}
			total.Add(n)
			dropAll(t, primary)
		})
	}
	t.Logf("%d files, %d statements, %d queries, %d queries on the standby, %d deviations, %v", total.Files, total.Statements,
		total.Queries, total.Standby, total.Deviations, time.Since(start).Round(100*time.Millisecond))
	if total.Standby < 1000 {
		t.Errorf("only %d queries on the standby", total.Standby)
	}
}

// limitErrors lets a file that fails everywhere end early.
func limitErrors(t *testing.T, n int) func(string, ...any) {
	return func(format string, args ...any) {
		t.Helper()
		t.Errorf(format, args...)
		if n--; n == 0 {
			t.Fatal("too many differences")
		}
	}
}

func rawConn(t *testing.T, port int) *pgconn.PgConn {
	t.Helper()
	c, err := dw.Connect(t.Context(), port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

// seen waits until a query answers with one value.
func seen(ctx context.Context, c *pgconn.PgConn, sql, want string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		res, err := c.Exec(ctx, sql).ReadAll() // a standby may be without the table still
		if err == nil && len(res[0].Rows) == 1 && string(res[0].Rows[0][0]) == want {
			return nil
		}
		pause(ctx, 500*time.Microsecond)
		if ctx.Err() != nil {
			return fmt.Errorf("%s: not %s in time (last error: %v)", sql, want, err)
		}
	}
}

// dropAll removes what a file of tests left, so that the next starts with an
// empty database.
func dropAll(t *testing.T, c *pgconn.PgConn) {
	t.Helper()
	res, err := c.Exec(t.Context(), `SELECT 'DROP ' || upper(type) || ' ' || '"' || replace(name, '"', '""') || '"' FROM sqlite_schema
		WHERE type IN ('view', 'table') AND name NOT LIKE 'sqlite%' AND name <> 'slt_mark' AND name NOT LIKE 'SYS%'
		UNION ALL SELECT 'DROP ' || upper(type) || ' temp."' || replace(name, '"', '""') || '"' FROM sqlite_temp_schema WHERE type IN ('view', 'table')
		ORDER BY 1 DESC`).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	left := make([]string, len(res[0].Rows))
	for i, row := range res[0].Rows {
		left[i] = string(row[0])
	}
	for len(left) > 0 { // a table goes after those that refer to it
		var later []string
		for _, sql := range left {
			if _, err = c.Exec(t.Context(), sql).ReadAll(); err != nil {
				later = append(later, sql)
			}
		}
		if len(later) == len(left) {
			t.Fatalf("%q: %v", left, err)
		}
		left = later
	}
}
