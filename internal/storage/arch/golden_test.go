package arch

import (
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

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

// The bytes of version 1 must never change.
func TestGolden(t *testing.T) {
	fsys, cfg := vfs.NewMem(), config()
	cfg.Clock = &testClock{now: time.Unix(1553049334, 0)}
	a := open(t, fsys, cfg)
	fill(t, a, newMaker(1), 2, 30)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	b := readAll(t, fsys, a.Files()[0].Path)
	dump := hex.Dump(b[:512]) + hex.Dump(b[4096:4608]) + hex.Dump(b[twin.Size:])
	file := filepath.Join("testdata", "archive-v1.hex")
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

// FuzzOpen overwrites part of an archive with anything: it opens with a prefix
// that reads back unchanged, or the damage is reported by Open or Read.
func FuzzOpen(f *testing.F) {
	base, cfg := vfs.NewMem(), config()
	a := open(f, base, cfg)
	all := fill(f, a, newMaker(1), 6, 600)
	if err := a.Close(); err != nil {
		f.Fatal(err)
	}
	path := a.Files()[0].Path
	data := readAll(f, base, path)
	f.Add(uint32(0), make([]byte, 8192))
	f.Add(uint32(twin.Size+10), []byte{1, 2, 3})
	f.Add(uint32(len(data)), []byte("DWPK and then nothing that makes sense"))
	f.Add(uint32(len(data)), data[twin.Size:])
	f.Fuzz(func(t *testing.T, off uint32, b []byte) {
		if int(off) > len(data)+1000 || len(b) > 1<<16 {
			return
		}
		c := base.Clone()
		w, err := c.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.WriteAt(b, int64(off)); err != nil {
			t.Fatal(err)
		}
		known := func(err error) bool {
			return errors.Is(err, ErrDamaged) || errors.Is(err, ErrForeign) || errors.Is(err, ErrVersion) || errors.Is(err, redo.ErrVersion)
		}
		d, err := Open(c, cfg)
		if err != nil {
			if !known(err) {
				t.Fatalf("error of no known kind: %v", err)
			}
			return
		}
		if d.End().Seq == 0 {
			return
		}
		got, err := read(t, d, d.First())
		if err != nil && !known(err) {
			t.Fatalf("error of no known kind: %v", err)
		}
		for i, p := range got {
			if i < len(all) && !p.SameRedo(all[i]) {
				t.Fatalf("package %d was read changed", i)
			}
		}
		if err == nil && len(got) < len(all) {
			t.Fatalf("%d of %d synced packages read without a complaint", len(got), len(all))
		}
	})
}

func BenchmarkAppendSync(b *testing.B) {
	cfg := config()
	cfg.Dir, cfg.FileSize = b.TempDir(), 64<<20
	a, err := Open(vfs.OS{}, cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	p := newMaker(1).pkg(b, 20*236)
	b.SetBytes(int64(p.EncodedLen()))
	b.ReportAllocs()
	for b.Loop() {
		if err := errors.Join(a.Append(p, false), a.Sync()); err != nil {
			b.Fatal(err)
		}
		p.GSEQ++
		p.PrevLSN, p.MinLSN, p.MaxLSN = p.MaxLSN, p.MaxLSN+20, p.MaxLSN+20
	}
}

func BenchmarkRead(b *testing.B) {
	cfg := config()
	cfg.Dir, cfg.FileSize = b.TempDir(), 64<<20
	a, err := Open(vfs.OS{}, cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	m := newMaker(1)
	all := fill(b, a, m, 4000, 4000)
	for b.Loop() {
		n := 0
		if err := a.Read(b.Context(), all[2000].GSEQ, func(*redo.Package) error { n++; return nil }); err != nil || n != 2000 {
			b.Fatal(n, err)
		}
	}
	b.SetBytes(2000 * 4000)
}
