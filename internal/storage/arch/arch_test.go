package arch

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/clock"
	"datawatch/internal/storage/redo"
	"datawatch/internal/storage/twin"
	"datawatch/internal/vfs"
)

const (
	pmnt  base.Magic = 0xabcdef
	self  base.Magic = 0x567891
	other base.Magic = 0x123456
	dir              = "/arch"
)

// testClock stands still until moved.
type testClock struct {
	clock.Real
	now time.Time
}

func (c *testClock) Now() time.Time { return c.now }

func config() Config {
	return Config{Dir: dir, Name: "ARCHIVE_LOCAL1", FileSize: twin.Size + 8000, PmntMagic: pmnt, DBMagic: self,
		Clock: &testClock{now: time.Date(2019, 3, 20, 10, 35, 34, 0, time.Local)}}
}

type maker struct {
	pos  base.Position
	src  base.Magic
	rnd  *rand.Rand
	time int64
}

func newMaker(seed uint64) *maker { return &maker{src: self, rnd: rand.New(rand.NewPCG(seed, 5))} }

func (m *maker) pkg(t testing.TB, size int) *redo.Package {
	t.Helper()
	payload := make([]byte, size)
	for i := range payload {
		payload[i] = byte(m.rnd.Uint32())
	}
	var b redo.Builder
	b.Begin(redo.PTXHeader{LSN: m.pos.LSN + 1, Kind: redo.KindCommit})
	b.Logical(200, payload)
	m.time++
	p, err := redo.NewPackage(redo.Header{PmntMagic: pmnt, DBMagic: self, SrcDBMagic: m.src, GSEQ: m.pos.Seq + 1, LSEQ: m.pos.Seq + 9, PrevLSN: m.pos.LSN,
		MinLSN: m.pos.LSN + 1, MaxLSN: m.pos.LSN + 1, NPTX: 1, OpenID: m.rnd.Uint64(), TimeNs: m.time}, append([]byte(nil), b.Finish()...), false)
	if err != nil {
		t.Fatal(err)
	}
	m.pos = p.Pos()
	return p
}

func open(t testing.TB, fsys vfs.FS, cfg Config) *Archive {
	t.Helper()
	a, err := Open(fsys, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func fill(t testing.TB, a *Archive, m *maker, n, size int) []*redo.Package {
	t.Helper()
	var out []*redo.Package
	for range n {
		p := m.pkg(t, size)
		if err := a.Append(p, m.src != self); err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

func read(t testing.TB, a *Archive, from base.Seq) (got []*redo.Package, err error) {
	err = a.Read(t.Context(), from, func(p *redo.Package) error { got = append(got, p); return nil })
	return got, err
}

func same(got, want []*redo.Package) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d packages, want %d", len(got), len(want))
	}
	for i := range got {
		if !got[i].SameRedo(want[i]) {
			return fmt.Errorf("package %d where %d should be", got[i].GSEQ, want[i].GSEQ)
		}
	}
	return nil
}

func mustSame(t testing.TB, a *Archive, from base.Seq, want []*redo.Package) {
	t.Helper()
	got, err := read(t, a, from)
	if err == nil {
		err = same(got, want)
	}
	if err != nil {
		t.Fatalf("from %d: %v", from, err)
	}
}

func TestAppendReadReopen(t *testing.T) {
	for _, buf := range []int{0, 3000, 1 << 20} {
		t.Run(fmt.Sprintf("buffer %d", buf), func(t *testing.T) {
			fsys, cfg := vfs.NewMem(), config()
			cfg.FlushBuf = buf
			a := open(t, fsys, cfg)
			if a.End() != (base.Position{}) || !a.Has(1) || a.First() != 0 {
				t.Fatalf("empty archive: end %v, has 1 %v", a.End(), a.Has(1))
			}
			m := newMaker(1)
			m.pos = base.Position{Seq: 40, LSN: 400} // an archive may begin anywhere
			all := fill(t, a, m, 60, 700)
			all = append(all, fill(t, a, m, 3, 30000)...) // larger than a file
			all = append(all, fill(t, a, m, 20, 10)...)
			for range 2 {
				for i := range all {
					mustSame(t, a, all[i].GSEQ, all[i:])
				}
				if a.End() != m.pos || a.First() != 41 || !a.Has(41) || a.Has(40) || !a.Has(m.pos.Seq+1) {
					t.Fatalf("end %v, first %d", a.End(), a.First())
				}
				if _, err := read(t, a, 40); !errors.Is(err, ErrGone) {
					t.Fatalf("read before the beginning: %v", err)
				}
				mustSame(t, a, m.pos.Seq+1, nil)
				files := len(a.Files())
				if err := a.Close(); err != nil {
					t.Fatal(err)
				}
				if err := a.Append(all[0], false); !errors.Is(err, ErrClosed) {
					t.Fatalf("Append after Close: %v", err)
				}
				a = open(t, fsys, cfg)
				if len(a.Files()) != files {
					t.Fatalf("%d files after reopening, %d before", len(a.Files()), files)
				}
			}
			more := fill(t, a, m, 5, 10)
			mustSame(t, a, more[0].GSEQ, more)
			stop := errors.New("stop")
			if err := a.Read(t.Context(), 41, func(*redo.Package) error { return stop }); !errors.Is(err, stop) {
				t.Fatalf("Read hides its callback's error: %v", err)
			}
			if err := a.Read(cancelled(t), 41, func(*redo.Package) error { return nil }); err == nil {
				t.Fatal("Read does not obey its context")
			}
		})
	}
}

// Names are exactly those of manual 2.2.11.3; a file made in the same second
// takes the next one.
func TestFileNames(t *testing.T) {
	fsys, cfg := vfs.NewMem(), config()
	clk := cfg.Clock.(*testClock)
	a := open(t, fsys, cfg)
	m := newMaker(1)
	fill(t, a, m, 1, 10)
	m.src = other // a change of roles
	fill(t, a, m, 1, 10)
	clk.now = clk.now.Add(time.Hour)
	fill(t, a, m, 1, 9000)
	m.src = self
	fill(t, a, m, 1, 10)
	m.src = other
	fill(t, a, m, 1, 9000)
	names, err := fsys.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"ARCHIVE_LOCAL1_0x567891[0]_2019-03-20_10-35-34.log", "ARCHIVE_LOCAL1_0x567891[0]_2019-03-20_11-35-34.log",
		"STANDBY_ARCHIVE_0x123456[0]_2019-03-20_10-35-34.log", "STANDBY_ARCHIVE_0x123456[0]_2019-03-20_11-35-34.log", "STANDBY_ARCHIVE_0x123456[0]_2019-03-20_11-35-35.log",
	}
	if !slices.Equal(names, want) {
		t.Fatalf("files %q\nwant  %q", names, want)
	}
	f := a.Files()[1]
	if f.SrcDB != other || f.DBMagic != self || f.PmntMagic != pmnt || !f.Standby || f.Active || f.FirstSeq != 2 || f.LastSeq != 2 || f.PrevLSN != 1 || f.Closed.IsZero() {
		t.Errorf("second file: %+v", f)
	}
	for _, bad := range []string{"", StandbyName, "a/b"} {
		cfg.Name = bad
		if _, err := Open(fsys, cfg); err == nil {
			t.Errorf("name %q is accepted", bad)
		}
	}
}

func TestAppendRefuses(t *testing.T) {
	a := open(t, vfs.NewMem(), config())
	m := newMaker(1)
	fill(t, a, m, 2, 10)
	p := m.pkg(t, 10)
	for name, tt := range map[string]struct {
		change func(*redo.Package)
		want   error
	}{
		"a gap":         {func(p *redo.Package) { p.GSEQ++ }, ErrContinuity},
		"a repetition":  {func(p *redo.Package) { p.GSEQ-- }, ErrContinuity},
		"another LSN":   {func(p *redo.Package) { p.PrevLSN-- }, ErrContinuity},
		"another group": {func(p *redo.Package) { p.PmntMagic++ }, ErrForeign},
	} {
		q := *p
		tt.change(&q)
		if err := a.Append(&q, false); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := a.Append(p, false); err != nil {
		t.Fatal(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	type env struct {
		fsys  *vfs.Mem
		files []FileInfo
	}
	write := func(e env, i int, off int64, b ...byte) {
		f, _ := e.fsys.Open(e.files[i].Path)
		f.WriteAt(b, off)
	}
	tests := []struct {
		name  string
		spoil func(e env, cfg *Config)
		want  error
		file  int
		text  string
	}{
		{"foreign magic", func(e env, cfg *Config) { cfg.PmntMagic = 0x99 }, ErrForeign, 0, "PMNT_MAGIC is 0xabcdef, the database's is 0x99"},
		{"newer version", func(e env, cfg *Config) {
			f, _ := e.fsys.Open(e.files[1].Path)
			k := fileKind
			k.Version = 2
			twin.New(k).Write(f, nil)
		}, ErrVersion, 1, "version 2"},
		{"not an archive file", func(e env, cfg *Config) { write(e, 0, 0, 'x'); write(e, 0, 4096, 'y') }, ErrForeign, 0, ""},
		{"header damaged", func(e env, cfg *Config) { write(e, 0, 60, 0xff); write(e, 0, 4096+60, 0xff) }, ErrDamaged, 0, ""},
		{"cut short", func(e env, cfg *Config) {
			f, _ := e.fsys.Open(e.files[0].Path)
			f.Truncate(9000)
		}, ErrDamaged, 0, "9000 bytes"},
		{"the same file twice", func(e env, cfg *Config) {
			e.fsys.Rename(e.files[1].Path, dir+"/x_0x1[0]_2020-01-01_00-00-00.log")
			a, _ := e.fsys.Open(e.files[0].Path)
			b, _ := e.fsys.Create(e.files[1].Path, true)
			buf := make([]byte, 20000)
			n, _ := a.ReadAt(buf, 0)
			b.WriteAt(buf[:n], 0)
		}, ErrDamaged, 1, "also in"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fsys, cfg := vfs.NewMem(), config()
			a := open(t, fsys, cfg)
			fill(t, a, newMaker(1), 30, 700)
			e := env{fsys, a.Files()}
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
			tt.spoil(e, &cfg)
			_, err := Open(fsys, cfg)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), e.files[tt.file].Path) || !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("error %v, want %v naming %s and %q", err, tt.want, e.files[tt.file].Path, tt.text)
			}
		})
	}
}

// What other databases and people put into the directory is left alone.
func TestOpenIgnores(t *testing.T) {
	fsys, cfg := vfs.NewMem(), config()
	theirs := cfg
	theirs.DBMagic = other
	a := open(t, fsys, theirs)
	fill(t, a, newMaker(2), 3, 10)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	f, _ := fsys.Create(filepath.Join(dir, "notes.txt"), true)
	f.WriteAt([]byte("do not delete"), 0)
	b := open(t, fsys, cfg)
	if len(b.Files()) != 0 || b.End().Seq != 0 {
		t.Fatalf("files %+v", b.Files())
	}
	cfg.Clock.(*testClock).now = cfg.Clock.Now().Add(time.Minute)
	fill(t, b, newMaker(3), 2, 10)
	if names, _ := fsys.ReadDir(dir); len(names) != 3 {
		t.Fatalf("directory %q", names)
	}
}

// Damage in synced packages is reported with file and offset: near the end by
// Open, elsewhere by Read, and never passed over.
func TestDamage(t *testing.T) {
	fsys, cfg := vfs.NewMem(), config()
	a := open(t, fsys, cfg)
	m := newMaker(1)
	var offs []int64
	var all []*redo.Package
	for range 6 {
		if fs := a.Files(); len(fs) > 0 {
			offs = append(offs, fs[0].Free)
		} else {
			offs = append(offs, twin.Size)
		}
		all = append(all, fill(t, a, m, 1, 500)...)
		if err := a.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	for i, off := range offs {
		c := fsys.Clone()
		path := a.Files()[0].Path
		f, _ := c.Open(path)
		f.WriteAt([]byte{1, 2, 3}, off+300)
		b, err := Open(c, cfg)
		if i == len(offs)-1 { // its sync is not vouched for yet: like a torn end
			if err != nil || b.End() != all[i-1].Pos() {
				t.Fatalf("damage in the last package: end %v, %v", b.End(), err)
			}
			continue
		}
		if err == nil {
			_, err = read(t, b, all[0].GSEQ)
		}
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), fmt.Sprintf("%s, offset %d", path, off)) {
			t.Fatalf("damage in package %d: %v", i+1, err)
		}
	}
}

func TestSpaceLimit(t *testing.T) {
	fsys, cfg := vfs.NewMem(), config()
	cfg.SpaceLimit = 60000
	a := open(t, fsys, cfg)
	m := newMaker(1)
	first := fill(t, a, m, 5, 700)
	for range 100 {
		fill(t, a, m, 1, 700)
		total := int64(0)
		for _, f := range a.Files() {
			total += f.Free
		}
		if total > cfg.SpaceLimit {
			t.Fatalf("%d bytes, limit %d", total, cfg.SpaceLimit)
		}
	}
	if a.Has(first[0].GSEQ) || !a.Has(a.First()) || a.First() < 50 {
		t.Fatalf("archive begins with %d", a.First())
	}
	got, err := read(t, a, a.First())
	if err != nil || got[len(got)-1].Pos() != m.pos {
		t.Fatalf("read: %v", err)
	}
	if _, err := read(t, a, first[0].GSEQ); !errors.Is(err, ErrGone) {
		t.Fatalf("read of what was deleted: %v", err)
	}
}

// TestHold: what is held stays, whatever would delete it, until it is let go.
func TestHold(t *testing.T) {
	fsys, cfg := vfs.NewMem(), config()
	cfg.SpaceLimit, cfg.ReserveTime = 60000, time.Hour
	ck := &testClock{now: time.Unix(1000, 0)}
	cfg.Clock = ck
	a := open(t, fsys, cfg)
	m := newMaker(1)
	fill(t, a, m, 30, 700)
	held := fill(t, a, m, 1, 700)[0].GSEQ
	a.Hold(held)
	fill(t, a, m, 200, 700)
	ck.now = ck.now.Add(24 * time.Hour)
	for what, del := range map[string]func() (int, error){
		"age":  a.DeleteExpired,
		"time": func() (int, error) { return a.DeleteBeforeTime(ck.now) },
		"LSN":  func() (int, error) { return a.DeleteBeforeLSN(m.pos.LSN) },
	} {
		if _, err := del(); err != nil || !a.Has(held) {
			t.Fatalf("deleted by %s: the archive begins with %d, %d was held; %v", what, a.First(), held, err)
		}
	}
	if a.First() < held-20 {
		t.Fatalf("the archive begins with %d, only %d was held", a.First(), held)
	}
	a.Hold(0)
	if _, err := a.DeleteBeforeLSN(m.pos.LSN); err != nil || a.Has(held) {
		t.Fatalf("still there: %d, %v", a.First(), err)
	}
}

func TestReserveTimeAndDeletion(t *testing.T) {
	fsys, cfg := vfs.NewMem(), config()
	cfg.ReserveTime = time.Hour
	clk := cfg.Clock.(*testClock)
	a := open(t, fsys, cfg)
	m := newMaker(1)
	fill(t, a, m, 30, 700) // several files
	n := len(a.Files())
	if k, err := a.DeleteExpired(); k != 0 || err != nil || n < 3 {
		t.Fatalf("%d of %d young files deleted, %v", k, n, err)
	}
	clk.now = clk.now.Add(61 * time.Minute)
	if k, err := a.DeleteExpired(); k != n-1 || err != nil {
		t.Fatalf("%d of %d old files deleted, %v", k, n, err)
	}
	fill(t, a, m, 40, 700)
	files := a.Files()
	if k, err := a.DeleteBeforeLSN(files[2].FirstLSN); k != 2 || err != nil {
		t.Fatalf("%d files deleted before LSN %d, %v", k, files[2].FirstLSN, err)
	}
	if k, err := a.DeleteBeforeTime(clk.now.Add(time.Second)); k != len(files)-3 || err != nil {
		t.Fatalf("%d of %d files deleted before now, %v", k, len(files)-2, err)
	}
	if len(a.Files()) != 1 || a.End() != m.pos {
		t.Fatal("the newest file must stay")
	}
}

func TestTruncateAfter(t *testing.T) {
	for keep := 0; keep <= 30; keep += 3 {
		fsys, cfg := vfs.NewMem(), config()
		a := open(t, fsys, cfg)
		m := newMaker(1)
		all := fill(t, a, m, 30, 700)
		pos := base.Position{}
		if keep > 0 {
			pos = all[keep-1].Pos()
			if err := a.TruncateAfter(base.Position{Seq: pos.Seq, LSN: pos.LSN + 1}); err == nil {
				t.Fatal("a wrong LSN is accepted")
			}
		}
		if err := a.TruncateAfter(pos); err != nil {
			t.Fatal(err)
		}
		if a.End() != pos {
			t.Fatalf("end %v, want %v", a.End(), pos)
		}
		m.pos = pos
		more := fill(t, a, m, 10, 600)
		want := append(slices.Clone(all[:keep]), more...)
		mustSame(t, a, want[0].GSEQ, want)
		if err := a.Sync(); err != nil {
			t.Fatal(err)
		}
		b := open(t, fsys.CrashClone(rand.New(rand.NewPCG(1, 1))), cfg)
		mustSame(t, b, want[0].GSEQ, want)
	}
	a := open(t, vfs.NewMem(), config())
	m := newMaker(1)
	m.pos = base.Position{Seq: 10, LSN: 10}
	fill(t, a, m, 3, 10)
	for _, pos := range []base.Position{{Seq: 5, LSN: 5}, {Seq: 99, LSN: 99}} {
		if err := a.TruncateAfter(pos); !errors.Is(err, ErrGone) {
			t.Errorf("truncate after %v: %v", pos, err)
		}
	}
	if a.End() != m.pos {
		t.Error("a refused truncation changed the archive")
	}
}

func TestDiskFull(t *testing.T) {
	for _, fault := range []vfs.Fault{
		{Kind: vfs.OpWrite, Err: syscall.ENOSPC, Short: 300}, {Kind: vfs.OpCreate, Err: syscall.ENOSPC}, {Kind: vfs.OpSync, Err: syscall.EIO}, {Kind: vfs.OpSyncDir, Err: syscall.EIO},
	} {
		for skip := range 3 {
			fsys, cfg := vfs.NewMem(), config()
			a := open(t, fsys, cfg)
			m := newMaker(1)
			all := fill(t, a, m, 10, 700)
			fault.Skip, fault.Times = skip, 1
			remove := fsys.Inject(fault)
			failed := 0
			for range 40 {
				p := m.pkg(t, 700)
				err := a.Append(p, false)
				if err == nil {
					err = a.Sync()
				} else {
					failed++
					if !errors.Is(err, fault.Err) || !strings.Contains(err.Error(), dir) {
						t.Fatalf("%v: %v", fault.Kind, err)
					}
					if !a.Failing() {
						t.Fatalf("%v: an archive whose last write failed is not failing", fault.Kind)
					}
					if err = a.Append(p, false); err == nil {
						err = a.Sync()
					}
				}
				if err != nil {
					failed++
					if err = a.Sync(); err != nil {
						t.Fatal(err)
					}
				}
				all = append(all, p)
				if a.Failing() {
					t.Fatalf("%v: an archive that was written is failing", fault.Kind)
				}
			}
			remove()
			if failed != 1 {
				t.Fatalf("%v skip %d: %d failures", fault.Kind, skip, failed)
			}
			mustSame(t, a, 1, all)
			b := open(t, fsys.Clone(), cfg)
			mustSame(t, b, 1, all)
		}
	}
}
