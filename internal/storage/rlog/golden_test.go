package rlog

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"datawatch/internal/storage/redo"
	"datawatch/internal/storage/twin"
	"datawatch/internal/vfs"
)

var update = flag.Bool("update", false, "rewrite golden files")

func readAll(t testing.TB, fsys vfs.FS, path string) []byte {
	t.Helper()
	f, err := fsys.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// The bytes of version 2 must never change: header copies after a checkpoint
// within a large transaction, and a write of two packages.
func TestGolden(t *testing.T) {
	m := newFS(t, MinFileSize)
	l, _ := mustCollect(t, m)
	mk := newMaker(1)
	if err := l.Append(mk.pkg(t, 20), mk.pkg(t, 400)); err != nil {
		t.Fatal(err)
	}
	if err := l.SetCheckpoint(1, 1, 0x77); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(mk.pkg(t, 20)); err != nil {
		t.Fatal(err)
	}
	b := readAll(t, m, paths[0])
	dump := hex.Dump(b[:512]) + hex.Dump(b[4096:4608]) + hex.Dump(b[twin.Size:twin.Size+4096])
	file := filepath.Join("testdata", "log-v2.hex")
	if *update {
		os.MkdirAll("testdata", 0o755)
		if err := os.WriteFile(file, []byte(dump), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if dump != string(want) {
		t.Errorf("the format changed; a new format needs a new version:\n%s", dump)
	}
}

// TestVersion1: a log of version 1, which knows no large transactions, is read,
// and has the new version from its next checkpoint on.
func TestVersion1(t *testing.T) {
	m := newFS(t, MinFileSize)
	l, _ := mustCollect(t, m)
	mk := newMaker(1)
	p := mk.pkg(t, 20)
	if err := errors.Join(l.Append(p), l.Close()); err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		f, err := m.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		_, payload, err := twin.Read(f, fileKind)
		if err != nil {
			t.Fatal(err)
		}
		clear(payload[88:])
		if err := errors.Join(twin.New(twin.Kind{Magic: fileKind.Magic, Version: 1}).Write(f, payload), f.Sync(), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	l, got := mustCollect(t, m)
	if len(got) != 1 || !got[0].SameRedo(p) || l.CheckpointChain() != 0 {
		t.Fatalf("%d packages, large transaction %d", len(got), l.CheckpointChain())
	}
	if err := errors.Join(l.SetCheckpoint(p.MaxLSN, 0, p.GSEQ), l.Close()); err != nil {
		t.Fatal(err)
	}
	l, got = mustCollect(t, m)
	if len(got) != 0 || l.CheckpointChain() != p.GSEQ {
		t.Fatalf("after a checkpoint: %d packages, large transaction %d", len(got), l.CheckpointChain())
	}
	f, err := m.Open(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, _, err := twin.Read(f, twin.Kind{Magic: fileKind.Magic, Version: 1}); !errors.Is(err, ErrVersion) {
		t.Fatalf("a program of version 1: %v", err)
	}
}

// FuzzRecover overwrites part of a log with anything: it recovers a prefix, or
// says what is damaged.
func FuzzRecover(f *testing.F) {
	base := newFS(f, MinFileSize)
	l, _ := mustCollect(f, base)
	mk := newMaker(1)
	var all []*redo.Package
	for range 8 {
		p, q := mk.pkg(f, 300), mk.pkg(f, 900)
		if err := l.Append(p, q); err != nil {
			f.Fatal(err)
		}
		all = append(all, p, q)
	}
	file0 := readAll(f, base, paths[0])
	f.Add(uint32(twin.Size), []byte{0})
	f.Add(uint32(0), make([]byte, 8192))
	f.Add(uint32(twin.Size+512), file0[twin.Size:twin.Size+512])
	f.Add(uint32(twin.Size+100), bytes.Repeat([]byte{0xff}, 10))
	f.Fuzz(func(t *testing.T, off uint32, b []byte) {
		if int(off)+len(b) > MinFileSize {
			return
		}
		c := base.Clone()
		w, err := c.Open(paths[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.WriteAt(b, int64(off)); err != nil {
			t.Fatal(err)
		}
		_, got, err := collect(t, c)
		if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrForeign) && !errors.Is(err, ErrVersion) && !errors.Is(err, redo.ErrVersion) {
			t.Fatalf("error of no known kind: %v", err)
		}
		for i, p := range got {
			if !p.SameRedo(all[i]) {
				t.Fatalf("package %d was recovered changed", i)
			}
		}
		// All but the last write are acknowledged beyond doubt: lost only with an error.
		if err == nil && len(got) < len(all)-2 {
			t.Fatalf("%d of %d packages recovered without a complaint", len(got), len(all))
		}
	})
}

func benchLog(b *testing.B) (*Log, *maker) {
	dir := b.TempDir()
	files := []string{filepath.Join(dir, "1.log"), filepath.Join(dir, "2.log")}
	if err := Create(vfs.OS{}, files, 32<<20, testID); err != nil {
		b.Fatal(err)
	}
	l, err := Open(vfs.OS{}, files, cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	if err := l.Recover(func(*redo.Package) error { return nil }); err != nil {
		b.Fatal(err)
	}
	return l, newMaker(1)
}

// BenchmarkAppend writes packages of 20 commits with 200 bytes of redo each to
// a real file system, synced.
func BenchmarkAppend(b *testing.B) {
	l, mk := benchLog(b)
	p := mk.pkg(b, 20*236)
	b.SetBytes(int64(p.EncodedLen()))
	b.ReportAllocs()
	for b.Loop() {
		err := l.Append(p)
		if errors.Is(err, ErrFull) {
			if err = l.SetCheckpoint(l.LastLSN(), 0, 0); err == nil {
				err = l.Append(p)
			}
		}
		if err != nil {
			b.Fatal(err)
		}
		p.LSEQ++
		p.PrevLSN, p.MinLSN, p.MaxLSN = p.MaxLSN, p.MaxLSN+20, p.MaxLSN+20
	}
}
