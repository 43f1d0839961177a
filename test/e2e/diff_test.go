package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"datawatch/internal/app/dw"
	"datawatch/test/sqldiff"
)

// sqlDifferential runs generated statements on plain SQLite and on the server,
// and compares every answer, and at the end all tables, on the standby too.
// DW_DIFF_SECONDS is how long (2), DW_SEED the first seed (1); a difference is
// printed with the few statements that show it.
func sqlDifferential(t *testing.T, sys *dw.System) {
	ref := &sqldiff.Reference{}
	defer ref.Close()
	ctx := t.Context()
	server := func(port int) *sqldiff.Server {
		s := &sqldiff.Server{PgConn: rawConn(t, port)}
		s.Empty = func(context.Context) error {
			dropAll(t, s.PgConn)
			return nil
		}
		return s
	}
	db, standby := server(sys.DBs[0].Port), server(sys.DBs[1].Port)
	if _, err := db.Exec(ctx, "CREATE TABLE IF NOT EXISTS slt_mark(n INT); DELETE FROM slt_mark; INSERT INTO slt_mark VALUES (0)").ReadAll(); err != nil {
		t.Fatal(err)
	}
	const length = 150
	end := time.Now().Add(time.Duration(envInt("DW_DIFF_SECONDS", 2)) * time.Second)
	seed, done, failed := uint64(envInt("DW_SEED", 1)), 0, 0
	for ; time.Now().Before(end) && failed < 3; seed++ {
		stmts := sqldiff.Generate(seed, length)
		// Executed once, or twice and with the same outcome: it is the same to a client alone.
		concurrent := map[uint64]string{0: "off", 1: "on"}[seed%2]
		if _, err := db.Exec(ctx, "ROLLBACK; SET default_transaction_concurrent = "+concurrent).ReadAll(); err != nil {
			t.Fatal(err)
		}
		d, err := sqldiff.Compare(ctx, ref, db, stmts)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if d != nil {
			if d, err = sqldiff.Shrink(ctx, ref, db, d, 300); err != nil {
				t.Error(err)
			}
			t.Errorf("seed %d: %v", seed, d)
			failed++
			continue
		}
		done += len(stmts)
		sameTables(t, seed, ref, db, standby)
	}
	t.Logf("%d statements, the next seed is %d", done, seed)
	if done < length {
		t.Error("nothing was compared")
	}
}

// sameTables compares what all tables have in the end.
func sameTables(t *testing.T, seed uint64, ref *sqldiff.Reference, db, standby *sqldiff.Server) {
	t.Helper()
	ctx := t.Context()
	if _, err := db.Exec(ctx, fmt.Sprintf("UPDATE slt_mark SET n = %d", seed)).ReadAll(); err != nil {
		t.Fatal(err)
	}
	if err := seen(ctx, standby.PgConn, "SELECT n FROM slt_mark", fmt.Sprint(seed)); err != nil {
		t.Fatal(err)
	}
	tables, err := ref.Run(ctx, sqldiff.Stmt{SQL: []string{`SELECT 'main."' || name || '"' FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite%'`}})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range tables.Rows {
		s := sqldiff.Stmt{SQL: []string{"SELECT * FROM " + r[0].Text}}
		want, err := ref.Run(ctx, s)
		if err != nil {
			t.Fatal(err)
		}
		for where, c := range map[string]*sqldiff.Server{"primary": db, "standby": standby} {
			got, err := c.Run(ctx, s)
			if err != nil {
				t.Fatal(err)
			}
			if !sqldiff.Equal(want, got, false) {
				t.Errorf("seed %d: at the end, %s on the %s: %s, want %s", seed, s.SQL[0], where, got, want)
			}
		}
	}
}
