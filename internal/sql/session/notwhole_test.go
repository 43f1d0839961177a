package session

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"datawatch/internal/base"
	"datawatch/internal/sql/sqlapi"
	"datawatch/internal/storage/ctl"
	"datawatch/internal/vfs"
)

// TestNotWhole: a database that has rejoined its group and is catching up lets
// nobody in and shows nothing (G6); the error is one that clients wait with.
func TestNotWhole(t *testing.T) {
	ctx := t.Context()
	dir := createEngine(t)
	eng := openEngine(t, dir)
	if err := eng.OpenDatabase(ctx); err != nil {
		t.Fatal(err)
	}
	if err := InitSchema(ctx, FromEngine(eng), "SYSDBA", "SYSDBA"); err != nil {
		t.Fatal(err)
	}
	at, lineage := eng.Positions().File, eng.Lineage()
	if err := eng.Close(ctx); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, filepath.Base(engineConfig(dir).CtlPath))
	c, err := ctl.Load(vfs.OS{}, path)
	if err != nil {
		t.Fatal(err)
	}
	c.Mode = base.ModeStandby
	c.Rejoin = &ctl.Rejoin{Fork: at, Whole: base.Position{Seq: at.Seq + 1, LSN: at.LSN + 1}, Lineage: lineage, Primary: "B"}
	if err := c.Save(vfs.OS{}, path); err != nil {
		t.Fatal(err)
	}
	eng = openEngine(t, dir)
	defer func() { _ = eng.Close(context.Background()) }()
	b := New(Config{DB: FromEngine(eng)})
	eng.OnChange(b.StatusChanged)
	if err := eng.OpenDatabase(ctx); err != nil {
		t.Fatal(err)
	}
	_, err = b.Login(sqlapi.LoginInfo{User: "SYSDBA", Local: true})
	var e *sqlapi.Error
	if !errors.As(err, &e) || e.Code != codeNotNow || e.Severity != "FATAL" {
		t.Fatalf("login answers %v", err)
	}
}
