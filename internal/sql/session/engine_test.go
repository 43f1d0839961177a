package session

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"datawatch/internal/base"
	"datawatch/internal/sql/sqlapi"
	"datawatch/internal/storage/engine"
	"datawatch/internal/vfs"
)

func engineConfig(dir string) engine.Config {
	return engine.Config{FS: vfs.OS{}, Dir: dir, CtlPath: filepath.Join(dir, "dm.ctl"), InstName: "TEST",
		LogPaths: []string{filepath.Join(dir, "log01.log"), filepath.Join(dir, "log02.log")}}
}

func createEngine(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	c := engineConfig(dir)
	err := engine.Create(engine.CreateConfig{FS: c.FS, Dir: dir, CtlPath: c.CtlPath, LogPaths: c.LogPaths, LogSize: 32 << 20,
		DBName: "TEST", PageSize: 4096, Mode: base.ModeNormal})
	if err != nil {
		tb.Fatal(err)
	}
	return dir
}

func openEngine(tb testing.TB, dir string) *engine.Engine {
	tb.Helper()
	e, err := engine.Open(context.Background(), engineConfig(dir))
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

// TestEngine: sessions over the real storage engine, with a stop in the middle
// of the work: what was acknowledged is there afterwards.
func TestEngine(t *testing.T) {
	ctx := t.Context()
	dir := createEngine(t)
	eng := openEngine(t, dir)
	if err := eng.OpenDatabase(ctx); err != nil {
		t.Fatal(err)
	}
	if err := InitSchema(ctx, FromEngine(eng), "SYSDBA", "SYSDBA"); err != nil {
		t.Fatal(err)
	}
	b := New(Config{DB: FromEngine(eng)})
	eng.OnChange(b.StatusChanged)
	env := &env{tb: t, b: b}
	env.client().exec("create table t(id integer primary key, w int, i int); create index ti on t(w,i)")
	acked := make([]int, 8)
	var wg sync.WaitGroup
	var done atomic.Int64
	for w := range acked {
		c := env.client()
		wg.Go(func() {
			for i := 1; ; i++ {
				if _, err := c.ext("insert into t(w,i) values($1,$2)", w, i); err != nil {
					return
				}
				acked[w] = i
				done.Add(1)
			}
		})
	}
	until(t, "100 rows are acknowledged", func() bool { return done.Load() >= 100 })
	eng.Abort()
	wg.Wait()

	eng = openEngine(t, dir)
	defer eng.Close(context.Background())
	b = New(Config{DB: FromEngine(eng)})
	env.b = b
	eng.OnChange(b.StatusChanged)
	if l, err := b.login(sqlapi.LoginInfo{User: "SYSDBA", Local: true}); err != nil || l.role == nil || !l.role.isDefault {
		t.Error("no verifier in status Mount")
	}
	c := env.client()
	c.fails("select * from t", "57P03")
	if err := eng.OpenDatabase(ctx); err != nil {
		t.Fatal(err)
	}
	total := 0
	for w, n := range acked {
		total += n
		var got int
		rows := c.exec(fmt.Sprintf("select count(*) from t where w=%d and i<=%d", w, n))
		fmt.Sscan(rows, &got)
		if got != n {
			t.Errorf("writer %d: %d of %d acknowledged rows", w, got, n)
		}
	}
	if total == 0 {
		t.Error("nothing was acknowledged")
	}
	c.is("pragma integrity_check", "ok")

	w := env.client()
	w.exec("begin; insert into t values(1000000,1,1)")
	if err := eng.MountDatabase(ctx); err != nil {
		t.Fatal(err)
	}
	until(t, "the open transaction is rolled back", func() bool { return w.describe().State == "idle in transaction (aborted)" })
	w.exec("rollback")
	w.fails("select 1 from t", "57P03")
	if err := eng.OpenDatabase(ctx); err != nil {
		t.Fatal(err)
	}
	w.is("select count(*) from t where id=1000000", "0")
	w.exec("insert into t values(1000000,1,1)")
	if err := b.Close(ctx, "test ends"); err != nil {
		t.Fatal(err)
	}
}
