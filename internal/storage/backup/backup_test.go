package backup

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/clock"
	"datawatch/internal/storage/arch"
	"datawatch/internal/storage/ctl"
	"datawatch/internal/storage/engine"
	"datawatch/internal/storage/page"
	"datawatch/internal/storage/pagestore"
	"datawatch/internal/storage/redo"
	"datawatch/internal/vfs"
)

const (
	ps   = 512
	size = 64 << 10
)

func target(dir string) Target {
	return Target{Dir: dir, CtlPath: dir + "/dm.ctl", LogPaths: []string{dir + "/1.log", dir + "/2.log"}, LogSize: size}
}

func config(fsys vfs.FS, dir string, archive bool) engine.Config {
	t := target(dir)
	c := engine.Config{FS: fsys, Dir: t.Dir, CtlPath: t.CtlPath, LogPaths: t.LogPaths, InstName: "T", CheckpointInterval: time.Hour}
	if archive {
		c.Arch = &engine.ArchConfig{Dir: dir + "/arch", Name: "A", FileSize: 1 << 20}
	}
	return c
}

func create(t *testing.T, fsys vfs.FS, dir string, mode base.Mode) {
	t.Helper()
	tg := target(dir)
	if err := engine.Create(engine.CreateConfig{FS: fsys, Dir: dir, CtlPath: tg.CtlPath, LogPaths: tg.LogPaths, LogSize: size, DBName: "D", PageSize: ps, Mode: mode}); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, fsys vfs.FS, dir string, archive, openIt bool) *engine.Engine {
	t.Helper()
	e, err := engine.Open(t.Context(), config(fsys, dir, archive))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Abort)
	if openIt {
		if err := e.OpenDatabase(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return e
}

// put commits value into page n.
func put(t *testing.T, e *engine.Engine, n uint32, value uint64) {
	t.Helper()
	s := e.Store()
	h := s.NewHandle(false)
	defer h.Close()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(s.LockWrite(t.Context(), h))
	defer s.UnlockWrite(h)
	check(h.Lock(pagestore.LockShared))
	check(h.Lock(pagestore.LockReserved))
	check(h.Lock(pagestore.LockExclusive))
	for p := s.Pages() + 1; p <= n; p++ { // pages up to it exist
		_, err := h.WriteAt(make([]byte, ps), int64(p-1)*ps)
		check(err)
	}
	b := make([]byte, ps)
	binary.LittleEndian.PutUint64(b, value)
	_, err := h.WriteAt(b, int64(n-1)*ps)
	check(err)
	check(h.Sync())
	h.CommitPhaseTwo()
	check(h.Unlock(pagestore.LockShared))
	check(h.Unlock(pagestore.LockNone))
	check(e.WaitHardened(t.Context(), h.LastCommit()))
}

func get(t *testing.T, e *engine.Engine, n uint32) uint64 {
	t.Helper()
	s := e.Store().Snapshot()
	defer s.Close()
	if n > s.Pages() {
		return 0
	}
	b := make([]byte, ps)
	if err := s.ReadPage(n, b); err != nil {
		t.Fatal(err)
	}
	return binary.LittleEndian.Uint64(b)
}

// primary is a database with ten values, and a set taken after the tenth.
func primary(t *testing.T, archive bool) (*vfs.Mem, *engine.Engine, *Manifest) {
	t.Helper()
	fsys := vfs.NewMem()
	create(t, fsys, "/a", base.ModePrimary)
	e := open(t, fsys, "/a", archive, true)
	for i := range uint32(10) {
		put(t, e, i+2, uint64(i)+100)
	}
	m, err := Online(t.Context(), fsys, e, Options{Dir: "/set", Name: "S", Online: true, Created: time.Unix(1, 0)})
	if err != nil {
		t.Fatal(err)
	}
	return fsys, e, m
}

// A set of a running database restores to exactly the moment of the backup.
func TestOnlineBackupAndRestore(t *testing.T) {
	fsys, e, m := primary(t, false)
	put(t, e, 2, 999) // after the backup
	if m.Position != m.Control.Position || m.Position.LSN == 0 || len(m.Control.Lineage) != 1 {
		t.Fatalf("manifest: %+v", m)
	}
	create(t, fsys, "/b", base.ModeNormal)
	before := open(t, fsys, "/b", false, false)
	if _, err := Restore(t.Context(), fsys, "/set", target("/b"), time.Now(), nil); !errors.Is(err, ErrInUse) {
		t.Fatalf("restore under a running server: %v", err)
	}
	if err := before.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), fsys, "/set", target("/b"), time.Now(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := engine.Open(t.Context(), config(fsys, "/b", false)); !errors.Is(err, ctl.ErrPending) || !strings.Contains(err.Error(), "UPDATE DB_MAGIC") {
		t.Fatalf("opened before UPDATE DB_MAGIC: %v", err)
	}
	if _, err := RecoverFromSet(t.Context(), fsys, "/set", target("/b")); err != nil {
		t.Fatal(err)
	}
	magic, err := UpdateMagic(t.Context(), fsys, target("/b"))
	if err != nil {
		t.Fatal(err)
	}
	b := open(t, fsys, "/b", true, false)
	c := b.Control()
	if c.DBMagic != magic || magic == m.Control.DBMagic || c.PmntMagic != m.Control.PmntMagic || c.Mode != base.ModePrimary || c.Base != m.Position ||
		b.Positions().File != m.Position || len(b.Lineage()) != 1 || b.Lineage()[0].TGUID != m.Control.Lineage[0].TGUID {
		t.Errorf("restored: %+v at %v", c, b.Positions())
	}
	for i := range uint32(10) {
		if got := get(t, b, i+2); got != uint64(i)+100 {
			t.Errorf("page %d holds %d", i+2, got)
		}
	}
	// Its own redo continues at the position.
	if err := b.OpenDatabase(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, b, 3, 7)
	if pos := b.Positions().File; pos.Seq != m.Position.Seq+2 || pos.LSN != m.Position.LSN+2 {
		t.Errorf("after the open record and one commit: %v, restored at %v", pos, m.Position)
	}
	if _, err := RecoverFromSet(t.Context(), fsys, "/set", target("/b")); !errors.Is(err, ErrInUse) {
		t.Errorf("recover of a running database: %v", err)
	}
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := RecoverFromSet(t.Context(), fsys, "/set", target("/b")); !errors.Is(err, ErrState) {
		t.Errorf("recover of a complete database: %v", err)
	}
}

// Archived packages bring a restored database forward, and only those that fit.
func TestRecoverWithArchive(t *testing.T) {
	fsys, e, m := primary(t, true)
	for i := range uint32(20) {
		put(t, e, i+5, uint64(i)+500)
	}
	end := e.Positions().File
	if err := e.Archive().Sync(); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), fsys, "/set", target("/b"), time.Now(), nil); err != nil {
		t.Fatal(err)
	}
	_, pos, err := RecoverWithArchive(t.Context(), fsys, "/a/arch", target("/b"), clock.Real{})
	if err != nil || pos != end {
		t.Fatalf("recovered to %v, want %v: %v", pos, end, err)
	}
	if _, pos, err = RecoverWithArchive(t.Context(), fsys, "/a/arch", target("/b"), clock.Real{}); err != nil || pos != end {
		t.Fatalf("a second time: %v, %v", pos, err)
	}
	if _, err := UpdateMagic(t.Context(), fsys, target("/b")); err != nil {
		t.Fatal(err)
	}
	b := open(t, fsys, "/b", false, false)
	if b.Positions().File != end || get(t, b, 24) != 519 || get(t, b, 2) != 100 {
		t.Errorf("at %v, values %d, %d", b.Positions().File, get(t, b, 24), get(t, b, 2))
	}
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	// The archive of another database.
	create(t, fsys, "/x", base.ModePrimary)
	x := open(t, fsys, "/x", true, true)
	for i := range uint32(30) {
		put(t, x, i+2, 1)
	}
	if err := x.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), fsys, "/set", target("/c"), time.Now(), nil); err != nil {
		t.Fatal(err)
	}
	if _, pos, err := RecoverWithArchive(t.Context(), fsys, "/x/arch", target("/c"), clock.Real{}); !errors.Is(err, arch.ErrForeign) && !errors.Is(err, ErrForeign) {
		t.Errorf("another database's archive was applied to %v: %v", pos, err)
	}
	if _, err := UpdateMagic(t.Context(), fsys, target("/c")); err != nil {
		t.Fatalf("after the refusal: %v", err)
	}
	c := open(t, fsys, "/c", false, false)
	if c.Positions().File != m.Position || get(t, c, 2) != 100 {
		t.Errorf("the refusal changed the database: %v", c.Positions().File)
	}
}

// TestRecoverIntoLarge: an archive that ends in the middle of a large transaction
// brings a database to where that begins, and a longer one from there to its end.
func TestRecoverIntoLarge(t *testing.T) {
	fsys, e, _ := primary(t, true)
	pmnt, magic := e.Control().PmntMagic, e.Control().DBMagic
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	cfg := config(fsys, "/a", true)
	cfg.PartBytes, cfg.MaxPackage = 100, 300
	e, err := engine.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Abort()
	if err := e.OpenDatabase(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, e, 3, 500)
	start := e.Positions().File
	put(t, e, 60, 600) // pages up to it are new: no part
	first := e.Positions().File
	s := e.Store()
	h := s.NewHandle(false)
	if err := errors.Join(s.LockWrite(t.Context(), h), h.Lock(pagestore.LockExclusive)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, ps)
	for p := range int64(20) {
		for i := range 200 {
			b[i] = byte(p) + byte(i)
		}
		if _, err := h.WriteAt(b, (p+2)*ps); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Sync(); err != nil {
		t.Fatal(err)
	}
	h.CommitPhaseTwo()
	if err := h.Unlock(pagestore.LockNone); err != nil {
		t.Fatal(err)
	}
	s.UnlockWrite(h)
	if err := e.WaitHardened(t.Context(), h.LastCommit()); err != nil {
		t.Fatal(err)
	}
	end, want := e.Positions().File, get(t, e, 22)
	var pkgs []*redo.Package
	if err := e.Archive().Read(t.Context(), 1, func(p *redo.Package) error { pkgs = append(pkgs, p); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if end.Seq < first.Seq+5 || first.LSN != start.LSN+1 {
		t.Fatalf("from %v to %v: not a transaction of several packages", first, end)
	}
	for i, seq := range []base.Seq{first.Seq + 1, first.Seq + 3, end.Seq - 1} {
		dir, tg := fmt.Sprintf("/x%d", i), target(fmt.Sprintf("/r%d", i))
		a, err := arch.Open(fsys, arch.Config{Dir: dir, Name: "A", FileSize: 1 << 20, PmntMagic: pmnt, DBMagic: magic})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range pkgs[:seq] {
			if err := a.Append(p, false); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := Restore(t.Context(), fsys, "/set", tg, time.Now(), nil); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			dir string
			pos base.Position
		}{{dir, first}, {dir, first}, {"/a/arch", end}} {
			if _, pos, err := RecoverWithArchive(t.Context(), fsys, c.dir, tg, clock.Real{}); err != nil || pos != c.pos {
				t.Fatalf("archive %s up to package %d: at %v, want %v: %v", c.dir, seq, pos, c.pos, err)
			}
		}
		if _, err := UpdateMagic(t.Context(), fsys, tg); err != nil {
			t.Fatal(err)
		}
		r := open(t, fsys, tg.Dir, false, false)
		if r.Positions().File != end || get(t, r, 22) != want || get(t, r, 60) != 600 {
			t.Fatalf("at %v, page 22 has %x, want %x", r.Positions().File, get(t, r, 22), want)
		}
		r.Abort()
	}
}

// UPDATE DB_MAGIC moves a foreign archive out of the way.
func TestOldArchiveIsSetAside(t *testing.T) {
	fsys, e, _ := primary(t, false)
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	create(t, fsys, "/b", base.ModePrimary)
	old := open(t, fsys, "/b", true, true)
	put(t, old, 2, 1)
	if err := old.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), fsys, "/set", target("/b"), time.Now(), nil); err != nil {
		t.Fatal(err)
	}
	tg := target("/b")
	tg.ArchDir = "/b/arch"
	if _, err := UpdateMagic(t.Context(), fsys, tg); err != nil {
		t.Fatal(err)
	}
	if names, err := fsys.ReadDir("/b/arch.old1"); err != nil || len(names) == 0 {
		t.Errorf("archive of the old database: %v, %v", names, err)
	}
	b := open(t, fsys, "/b", true, true)
	put(t, b, 2, 5)
	if b.Archive().End() != b.Positions().File {
		t.Errorf("archive ends at %v, log at %v", b.Archive().End(), b.Positions().File)
	}
}

// Every byte of a set counts: whichever changes, verification and restore
// refuse it and the target stays as it was.
func TestDamageIsFound(t *testing.T) {
	fsys, e, m := primary(t, false)
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	create(t, fsys, "/b", base.ModeNormal)
	was, err := ctl.Load(fsys, "/b/dm.ctl")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{ManifestName, m.Files[0].Name} {
		path := filepath.Join("/set", name)
		f, err := fsys.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		n, _ := f.Size()
		for off := int64(0); off < n; off += 1 + n/211 {
			var b [1]byte
			if _, err := f.ReadAt(b[:], off); err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt([]byte{b[0] ^ 0x10}, off); err != nil {
				t.Fatal(err)
			}
			_, err := Restore(t.Context(), fsys, "/set", target("/b"), time.Now(), nil)
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrForeign) && !errors.Is(err, ErrVersion) {
				t.Fatalf("%s with byte %d changed: %v", name, off, err)
			}
			if _, err := f.WriteAt(b[:], off); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Truncate(n - 1); err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(t.Context(), fsys, "/set", nil); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s cut by a byte: %v", name, err)
		}
		f.Close()
		// Whole again for the next file: take the backup once more.
		for _, n := range []string{ManifestName, m.Files[0].Name} {
			if err := fsys.Remove(filepath.Join("/set", n)); err != nil {
				t.Fatal(err)
			}
		}
		e := open(t, fsys, "/a", false, false)
		if _, err := Online(t.Context(), fsys, e, Options{Dir: "/set"}); err != nil {
			t.Fatal(err)
		}
		if err := e.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	now, err := ctl.Load(fsys, "/b/dm.ctl")
	if err != nil || now.Generation != was.Generation {
		t.Errorf("the target changed: %v", err)
	}
	if _, err := Verify(t.Context(), fsys, "/set", nil); err != nil {
		t.Errorf("the set as written: %v", err)
	}
}

func TestWriteRefusesAndCleansUp(t *testing.T) {
	fsys, e, _ := primary(t, false)
	if _, err := Online(t.Context(), fsys, e, Options{Dir: "/set"}); !errors.Is(err, ErrExists) {
		t.Errorf("a set was overwritten: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Online(ctx, fsys, e, Options{Dir: "/cut"}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if names, _ := fsys.ReadDir("/cut"); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
	if _, err := Load(fsys, "/cut"); !errors.Is(err, ErrForeign) {
		t.Errorf("empty directory: %v", err)
	}
	bad := make([]byte, ps)
	bad[0] = 1 // not sealed
	_, err := Write(t.Context(), fsys, Source{Control: e.Control(), Files: []FileSource{{Pages: 1, ReadPage: func(_ uint32, b []byte) error { copy(b, bad); return nil }}}}, Options{Dir: "/bad"})
	if !errors.Is(err, page.ErrChecksum) {
		t.Errorf("a damaged page was backed up: %v", err)
	}
	if _, err := parseManifest(bytes.Replace(manifestOf(t, fsys), []byte("DWBACKUP 1"), []byte("DWBACKUP 2"), 1)); !errors.Is(err, ErrVersion) {
		t.Errorf("newer version: %v", err)
	}
}

func manifestOf(t *testing.T, fsys vfs.FS) []byte {
	t.Helper()
	f, err := fsys.Open("/set/" + ManifestName)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n, _ := f.Size()
	b := make([]byte, n)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// The power fails at every change of restore, recovery and UPDATE DB_MAGIC:
// what is then there opens complete or is refused as incomplete, and doing it
// all again completes it (G9).
func TestPowerCuts(t *testing.T) {
	fsys, e, _ := primary(t, true)
	for i := range uint32(20) {
		put(t, e, i+5, uint64(i)+500)
	}
	end := e.Positions().File
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	create(t, fsys, "/b", base.ModeNormal)
	all := func(fsys vfs.FS) error {
		if _, err := Restore(context.Background(), fsys, "/set", target("/b"), time.Unix(2, 0), nil); err != nil {
			return err
		}
		if _, _, err := RecoverWithArchive(context.Background(), fsys, "/a/arch", target("/b"), clock.Real{}); err != nil {
			return err
		}
		_, err := UpdateMagic(context.Background(), fsys, target("/b"))
		return err
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	var clones []*vfs.Mem
	base0 := fsys.Count()
	fsys.SetHook(func(op vfs.Op) error {
		if op.Kind.Changes() && !op.After && fsys.Count() > base0 {
			// Most of the operations zero the logs; some of those will do.
			if !strings.Contains(op.Path, ".log") || rnd.IntN(2) == 0 {
				clones = append(clones, fsys.CrashClone(rnd))
			}
		}
		return nil
	})
	if err := all(fsys); err != nil {
		t.Fatal(err)
	}
	fsys.SetHook(nil)
	if len(clones) < 20 {
		t.Fatalf("only %d cut points", len(clones))
	}
	complete := func(c *vfs.Mem) (bool, error) {
		e, err := engine.Open(t.Context(), config(c, "/b", false))
		if err != nil {
			return false, err
		}
		defer e.Abort()
		if e.Control().PmntMagic == fsysMagic(t, fsys) {
			if e.Positions().File != end || get(t, e, 24) != 519 {
				return false, fmt.Errorf("opened at %v, page 24 holds %d", e.Positions().File, get(t, e, 24))
			}
			return true, nil
		}
		return false, nil // still the database that was there before
	}
	opened := 0
	for i, c := range clones {
		ok, err := complete(c)
		if err != nil && !errors.Is(err, ctl.ErrPending) {
			t.Fatalf("cut %d of %d: %v", i, len(clones), err)
		}
		if ok {
			opened++
			continue
		}
		if err := all(c); err != nil {
			t.Fatalf("cut %d of %d, again: %v", i, len(clones), err)
		}
		if ok, err := complete(c); !ok || err != nil {
			t.Fatalf("cut %d of %d, after doing it again: %v", i, len(clones), err)
		}
	}
	t.Logf("%d cuts, %d of them complete", len(clones), opened)
}

func fsysMagic(t *testing.T, fsys vfs.FS) base.Magic {
	t.Helper()
	c, err := ctl.Load(fsys, "/b/dm.ctl")
	if err != nil {
		t.Fatal(err)
	}
	return c.PmntMagic
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte("DWBACKUP 1 00\n{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := parseManifest(b); err == nil && len(m.Files) == 0 {
			t.Error("a set without files")
		}
	})
}
