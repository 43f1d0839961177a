package backup

import (
	"errors"
	"strings"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/clock"
	"datawatch/internal/storage/arch"
	"datawatch/internal/storage/redo"
	"datawatch/internal/vfs"
)

func slurp(fsys vfs.FS, path string) ([]byte, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	b := make([]byte, size)
	if err == nil {
		_, err = f.ReadAt(b, 0)
	}
	return b, errors.Join(err, f.Close())
}

// TestRecoverWithArchiveOfAnother: the archive of a standby, which wrote what the
// primary produced, brings a set of the primary forward as its own would. It is
// read only: that database may be running. What does not go on, or might in two
// ways, is said.
func TestRecoverWithArchiveOfAnother(t *testing.T) {
	fsys, e, m := primary(t, true)
	for i := range uint32(20) {
		put(t, e, i+5, uint64(i)+500)
	}
	var pkgs []*redo.Package
	if err := e.Archive().Read(t.Context(), e.Archive().First(), func(p *redo.Package) error { pkgs = append(pkgs, p); return nil }); err != nil {
		t.Fatal(err)
	}
	end := e.Positions().File
	pmnt := e.Control().PmntMagic
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	write := func(dir, name string, magic base.Magic, pkgs []*redo.Package) *arch.Archive {
		t.Helper()
		a, err := arch.Open(fsys, arch.Config{Dir: dir, Name: name, FileSize: 1 << 20, PmntMagic: pmnt, DBMagic: magic})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range pkgs {
			if err := a.Append(p, name == "S"); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.Sync(); err != nil {
			t.Fatal(err)
		}
		return a
	}
	var after []*redo.Package
	for _, p := range pkgs {
		if p.GSEQ > m.Position.Seq+3 {
			after = append(after, p)
		}
	}
	write("/s/arch", "S", 0x777, pkgs) // not closed: it is being written
	names, err := fsys.ReadDir("/s/arch")
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	file := "/s/arch/" + names[0]
	f, err := fsys.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	size, _ := f.Size()
	if _, err := f.WriteAt([]byte("half of a package"), size); err != nil {
		t.Fatal(err)
	}
	before, err := slurp(fsys, file)
	if err != nil {
		t.Fatal(err)
	}
	write("/two", "ONE", 0x777, pkgs)
	write("/two", "OTHER", 0x888, pkgs)
	write("/gap", "S", 0x777, after)
	write("/old", "S", 0x777, pkgs[:2])
	if err := fsys.MkdirAll("/none"); err != nil {
		t.Fatal(err)
	}

	tg := target("/b")
	if _, err := Restore(t.Context(), fsys, "/set", tg, time.Now(), nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		dir, say string
		is       error
		pos      base.Position
	}{
		{"/none", "it holds no archive file", arch.ErrGone, base.Position{}},
		{"/gap", "it lacks packages between " + m.Position.String() + " and its end " + end.String(), arch.ErrGone, m.Position},
		{"/two", "archives of several databases go on from " + m.Position.String() + ", DB_MAGIC 0x777 and 0x888", nil, m.Position},
		{"/old", "", nil, m.Position},
		{"/s/arch", "", nil, end},
		{"/s/arch", "", nil, end},
	} {
		was, pos, err := RecoverWithArchive(t.Context(), fsys, c.dir, tg, clock.Real{})
		switch {
		case c.say == "" && (err != nil || pos != c.pos):
			t.Errorf("%s: from %v to %v: %v", c.dir, was, pos, err)
		case c.say != "" && (err == nil || !strings.Contains(err.Error(), c.say) || c.is != nil && !errors.Is(err, c.is)):
			t.Errorf("%s: %v, want %q", c.dir, err, c.say)
		}
	}
	if now, err := slurp(fsys, file); err != nil || string(now) != string(before) {
		t.Errorf("the archive was changed: %d bytes, now %d: %v", len(before), len(now), err)
	}
	if _, err := UpdateMagic(t.Context(), fsys, tg); err != nil {
		t.Fatal(err)
	}
	b := open(t, fsys, "/b", false, false)
	if b.Positions().File != end || get(t, b, 24) != 519 || get(t, b, 2) != 100 {
		t.Errorf("at %v, values %d, %d", b.Positions().File, get(t, b, 24), get(t, b, 2))
	}
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}
