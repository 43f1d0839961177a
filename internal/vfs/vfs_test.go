package vfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func content(t testing.TB, fsys FS, path string) []byte {
	t.Helper()
	f, err := fsys.Open(path)
	must(t, err)
	defer f.Close()
	n, err := f.Size()
	must(t, err)
	b := make([]byte, n)
	if got, err := f.ReadAt(b, 0); got != len(b) {
		t.Fatalf("read %d of %d bytes: %v", got, n, err)
	}
	return b
}

// Both file systems behave alike.
func TestConformance(t *testing.T) {
	for name, env := range map[string]struct {
		fsys FS
		root string
	}{"OS": {OS{}, t.TempDir()}, "Mem": {NewMem(), "/r"}} {
		t.Run(name, func(t *testing.T) {
			fsys, dir := env.fsys, filepath.Join(env.root, "a", "b")
			if _, err := fsys.Create(filepath.Join(dir, "x"), true); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("create in a missing directory: %v", err)
			}
			must(t, fsys.MkdirAll(dir))
			must(t, fsys.MkdirAll(dir))
			p, q := filepath.Join(dir, "x"), filepath.Join(dir, "y")
			for op, err := range map[string]error{
				"open": second(fsys.Open(p)), "stat": second(fsys.Stat(p)), "remove": fsys.Remove(p), "rename": fsys.Rename(p, q), "readdir": second(fsys.ReadDir(p)),
			} {
				if !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s of what is missing: %v", op, err)
				}
			}
			f, err := fsys.Create(p, false)
			must(t, err)
			_, err = f.WriteAt([]byte("hello"), 3)
			must(t, err)
			must(t, f.Sync())
			if got := content(t, fsys, p); !bytes.Equal(got, []byte("\x00\x00\x00hello")) {
				t.Fatalf("content %q", got)
			}
			b := make([]byte, 10)
			if n, err := f.ReadAt(b, 5); n != 3 || err != io.EOF {
				t.Fatalf("read across the end: %d, %v", n, err)
			}
			if n, err := f.ReadAt(b, 50); n != 0 || err != io.EOF {
				t.Fatalf("read beyond the end: %d, %v", n, err)
			}
			must(t, f.Truncate(4))
			must(t, f.Truncate(6))
			if got := content(t, fsys, p); !bytes.Equal(got, []byte("\x00\x00\x00h\x00\x00")) {
				t.Fatalf("after truncation %q", got)
			}
			st, err := fsys.Stat(p)
			if err != nil || st.Size() != 6 || st.IsDir() || st.Name() != "x" {
				t.Fatalf("stat %v, %v", st, err)
			}
			if st, err := fsys.Stat(dir); err != nil || !st.IsDir() {
				t.Fatalf("stat of a directory: %v", err)
			}
			g, err := fsys.Create(q, true)
			must(t, err)
			must(t, fsys.Rename(p, q)) // replaces
			if names, err := fsys.ReadDir(dir); err != nil || !slices.Equal(names, []string{"y"}) {
				t.Fatalf("directory %q, %v", names, err)
			}
			_, err = f.WriteAt([]byte("H"), 3) // an open file follows its rename
			must(t, err)
			if got := content(t, fsys, q); got[3] != 'H' {
				t.Fatalf("content %q", got)
			}
			must(t, fsys.SyncDir(dir))
			must(t, fsys.Remove(q))
			if _, err := f.ReadAt(b[:1], 3); err != nil || b[0] != 'H' {
				t.Fatalf("read of an open file that was removed: %v", err)
			}
			must(t, errors.Join(f.Close(), g.Close()))
			if _, err := f.WriteAt([]byte{1}, 0); !errors.Is(err, fs.ErrClosed) {
				t.Fatalf("write to a closed file: %v", err)
			}
			l, err := fsys.Lock(p)
			must(t, err)
			if _, err := fsys.Lock(p); !errors.Is(err, ErrLocked) {
				t.Fatalf("second lock: %v", err)
			}
			must(t, l.Close())
			l, err = fsys.Lock(p)
			must(t, err)
			must(t, l.Close())
			must(t, fsys.Remove(p))
			must(t, fsys.Remove(dir))
		})
	}
}

func second[T any](_ T, err error) error { return err }

func rnd(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

// What was synced survives every crash; what was not is kept, lost or torn, and
// each of the three happens.
func TestCrashData(t *testing.T) {
	m := NewMem()
	f, err := m.Create("/f", true)
	must(t, err)
	_, err = f.WriteAt(bytes.Repeat([]byte{1}, 2048), 0)
	must(t, err)
	must(t, f.Sync())
	must(t, m.SyncDir("/"))
	_, err = f.WriteAt(bytes.Repeat([]byte{2}, 1024), 512)
	must(t, err)
	seen := map[string]bool{}
	for seed := range uint64(100) {
		b := content(t, m.CrashClone(rnd(seed)), "/f")
		if len(b) != 2048 {
			t.Fatalf("size %d", len(b))
		}
		key := ""
		for i := 0; i < 2048; i += 512 {
			if bytes.Count(b[i:i+512], b[i:i+1]) != 512 {
				t.Fatal("a sector is torn within")
			}
			key += string('0' + b[i])
		}
		seen[key] = true
	}
	for _, want := range []string{"1111", "1221", "1211", "1121"} {
		if !seen[want] {
			t.Errorf("never saw %s", want)
		}
		delete(seen, want)
	}
	if len(seen) > 0 {
		t.Errorf("impossible outcomes %v", seen)
	}
	if got := content(t, m, "/f"); got[600] != 2 {
		t.Error("the original changed")
	}
	if got := content(t, m.Clone(), "/f"); got[600] != 2 {
		t.Error("Clone lost a write")
	}
	a, b := content(t, m.CrashClone(rnd(7)), "/f"), content(t, m.CrashClone(rnd(7)), "/f")
	if !bytes.Equal(a, b) {
		t.Error("the same seed gave two clones")
	}
}

func TestCrashNames(t *testing.T) {
	m := NewMem()
	put := func(name string) {
		f, err := m.Create(name, true)
		must(t, err)
		_, err = f.WriteAt([]byte(name), 0)
		must(t, err)
		must(t, errors.Join(f.Sync(), f.Close()))
	}
	put("/kept")
	put("/old")
	must(t, m.SyncDir("/"))
	put("/new")
	must(t, m.Rename("/old", "/renamed"))
	must(t, m.Remove("/kept"))
	outcomes := map[string]int{}
	for seed := range uint64(200) {
		names, err := m.CrashClone(rnd(seed)).ReadDir("/")
		must(t, err)
		has := func(n string) bool { return slices.Contains(names, n) }
		if has("old") == has("renamed") {
			t.Fatalf("a rename is not atomic: %q", names)
		}
		for _, n := range []string{"new", "old", "renamed", "kept"} {
			if has(n) {
				outcomes[n]++
			}
		}
	}
	for _, n := range []string{"new", "old", "renamed", "kept"} {
		if outcomes[n] == 0 || outcomes[n] == 200 {
			t.Errorf("%s is there in %d of 200 crashes", n, outcomes[n])
		}
	}
	must(t, m.SyncDir("/"))
	for seed := range uint64(20) {
		names, err := m.CrashClone(rnd(seed)).ReadDir("/")
		if err != nil || !slices.Equal(names, []string{"new", "renamed"}) {
			t.Fatalf("after SyncDir: %q, %v", names, err)
		}
	}
}

// A failed sync leaves its writes in doubt even after a sync that succeeds, as
// on Linux; writing them again helps.
func TestFailedSync(t *testing.T) {
	m := NewMem()
	f, err := m.Create("/f", true)
	must(t, err)
	must(t, m.SyncDir("/"))
	_, err = f.WriteAt(bytes.Repeat([]byte{1}, 1024), 0)
	must(t, err)
	remove := m.Inject(Fault{Kind: OpSync, Path: "/f", Err: syscall.EIO})
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	remove()
	must(t, f.Sync())
	lost := 0
	for seed := range uint64(50) {
		if len(content(t, m.CrashClone(rnd(seed)), "/f")) == 0 {
			lost++
		}
	}
	if lost == 0 {
		t.Fatal("a later sync saved what a failed one had dropped")
	}
	_, err = f.WriteAt(bytes.Repeat([]byte{2}, 700), 100)
	must(t, err)
	must(t, f.Sync())
	for seed := range uint64(50) {
		b := content(t, m.CrashClone(rnd(seed)), "/f")
		if len(b) < 800 || bytes.Count(b[100:800], []byte{2}) != 700 {
			t.Fatal("an old dropped write came over a newer synced one")
		}
	}
}

func TestFaultsAndHook(t *testing.T) {
	m := NewMem()
	f, err := m.Create("/dir.log", true)
	must(t, err)
	remove := m.Inject(Fault{Kind: OpWrite, Path: "*.log", Skip: 1, Times: 1, Err: syscall.ENOSPC, Short: 3})
	for i, want := range []error{nil, syscall.ENOSPC, nil} {
		n, err := f.WriteAt([]byte("12345"), int64(i*5))
		if !errors.Is(err, want) || want != nil && n != 3 {
			t.Fatalf("write %d: %d, %v", i, n, err)
		}
	}
	if got := content(t, m, "/dir.log"); string(got) != "12345123\x00\x0012345" {
		t.Fatalf("content %q", got)
	}
	remove()
	var ops []Op
	m.SetHook(func(op Op) error {
		if op.Kind.Changes() {
			ops = append(ops, op)
			_ = m.CrashClone(rnd(1)) // allowed in a hook
		}
		if op.Kind == OpSync {
			m.PowerOff()
		}
		return nil
	})
	before := m.Count()
	_, err = f.WriteAt([]byte("x"), 0)
	must(t, err)
	if err := f.Sync(); !errors.Is(err, ErrPowerOff) {
		t.Fatalf("sync without power: %v", err)
	}
	if len(ops) != 3 || ops[0].After || !ops[1].After || ops[0].N != before+1 || ops[1].N != before+1 || ops[2].Kind != OpSync {
		t.Fatalf("hook saw %+v", ops)
	}
	if _, err := m.Open("/dir.log"); !errors.Is(err, ErrPowerOff) {
		t.Fatalf("open without power: %v", err)
	}
}

func TestRenameDir(t *testing.T) {
	m := NewMem()
	must(t, m.MkdirAll("/a/b"))
	f, err := m.Create("/a/b/f", true)
	must(t, err)
	must(t, errors.Join(f.Sync(), m.SyncDir("/a/b"), m.Rename("/a", "/c")))
	if names, err := m.CrashClone(rnd(1)).ReadDir("/c/b"); err != nil || !slices.Equal(names, []string{"f"}) {
		t.Fatalf("%q, %v", names, err)
	}
	if _, err := m.Stat("/a"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}
