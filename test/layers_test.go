package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

// The tree keeps the rules of layers.go.
func TestLayers(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	tr, err := readTree(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	if len(tr.imports) < 5 {
		t.Fatalf("only %d packages found below %s", len(tr.imports), root)
	}
	for _, v := range tr.check() {
		t.Error(v)
	}
}

// Each rule finds its violation in a small tree made for it.
func TestLayerRulesCanFail(t *testing.T) {
	for _, c := range []struct {
		name, file, src, want string
	}{
		{"upward", "internal/storage/redo/a.go", `package redo; import _ "datawatch/internal/repl/ship"`, "imports go downward only"},
		{"upward from base", "internal/base/a.go", `package base; import _ "datawatch/internal/wire"`, "imports go downward only"},
		{"no layer", "internal/stuff/a.go", `package stuff`, "belongs to no layer"},
		{"fsm reaches net", "internal/ha/fsm/a.go", `package fsm; import _ "datawatch/internal/wire"`, "watcher decisions are pure"},
		{"fsm imports os", "internal/ha/fsm/a.go", `package fsm; import _ "os"`, "reaches os"},
		{"confirm reaches net", "internal/ha/confirm/a.go", `package confirm; import _ "net/netip"`, "monitor decisions are pure"},
		{"fsm asks for the time", "internal/ha/fsm/a.go", `package fsm; import "time"; var x = time.Now()`, "decisions take the time as an argument"},
		{"fsm is random", "internal/ha/fsm/a.go", `package fsm; import _ "math/rand/v2"`, "decisions are repeatable"},
		{"fsm locks", "internal/ha/fsm/a.go", `package fsm; import _ "sync"`, "one goroutine"},
		{"driver reaches storage", "driver/a.go", `package driver; import _ "datawatch/internal/sql/x"`, "clients must not link the storage engine"},
		{"dwmon reaches storage", "dwmon/a.go", `package dwmon; import _ "datawatch/internal/storage/redo"`, "monitor programs must not link"},
		{"page store and binding", "internal/storage/pagestore/a.go", `package pagestore; import _ "github.com/ncruces/go-sqlite3/vfs"`, "stays free of the SQL engine"},
		{"clock not injected", "internal/repl/ship/a.go", `package ship; import "time"; var x = time.Now`, "time is injected"},
		{"renamed import", "internal/repl/ship/a.go", `package ship; import clk "time"; var x = clk.Since`, "time is injected"},
		{"file not injected", "internal/storage/rlog/a.go", `package rlog; import "os"; var x = os.OpenFile`, "files are injected"},
		{"network not injected", "internal/ha/watcher/a.go", `package watcher; import "net"; var x = net.Dial`, "connections are injected"},
		{"too long", "internal/base/a.go", "package base\n" + strings.Repeat("// line\n", maxLines), "more than 600"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fsys := fstest.MapFS{
				"internal/wire/w.go":  {Data: []byte(`package wire; import _ "net"`)},
				"internal/sql/x/x.go": {Data: []byte(`package x; import _ "datawatch/internal/storage/redo"`)},
			}
			tr, err := readTree(fsys)
			if err != nil {
				t.Fatal(err)
			}
			if v := tr.check(); len(v) != 0 {
				t.Fatalf("violations before: %v", v)
			}
			fsys[c.file] = &fstest.MapFile{Data: []byte(c.src)}
			if tr, err = readTree(fsys); err != nil {
				t.Fatal(err)
			}
			found := false
			for _, v := range tr.check() {
				found = found || strings.Contains(v, c.want) && strings.Contains(v, filepath.Dir(c.file))
			}
			if !found {
				t.Errorf("rule did not fire: %v", tr.check())
			}
		})
	}
}
