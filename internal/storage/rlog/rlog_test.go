package rlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"

	"datawatch/internal/base"
	"datawatch/internal/storage/redo"
	"datawatch/internal/storage/twin"
	"datawatch/internal/vfs"
)

const (
	pmnt base.Magic = 0x567891
	db   base.Magic = 0x123456
)

var (
	paths  = []string{"/db/DAMENG01.log", "/db/DAMENG02.log"}
	testID = ID{PmntMagic: pmnt, DBMagic: db}
	cfg    = Config{PmntMagic: pmnt, DBMagic: db}
)

// maker makes packages that continue each other.
type maker struct {
	lseq base.Seq
	lsn  base.LSN
	rnd  *rand.Rand
}

// pkg makes the next package with about size bytes of redo.
func (m *maker) pkg(t testing.TB, size int) *redo.Package {
	t.Helper()
	payload := make([]byte, size)
	for i := range payload {
		payload[i] = byte(m.rnd.Uint32())
	}
	m.lsn++
	var b redo.Builder
	b.Begin(redo.PTXHeader{LSN: m.lsn, Kind: redo.KindCommit})
	b.Logical(200, payload)
	m.lseq++
	p, err := redo.NewPackage(redo.Header{PmntMagic: pmnt, DBMagic: db, SrcDBMagic: db, GSEQ: m.lseq + 100, LSEQ: m.lseq,
		PrevLSN: m.lsn - 1, MinLSN: m.lsn, MaxLSN: m.lsn, NPTX: 1, OpenID: m.rnd.Uint64()}, append([]byte(nil), b.Finish()...), false)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newMaker(seed uint64) *maker { return &maker{rnd: rand.New(rand.NewPCG(seed, 7))} }

func newFS(t testing.TB, size int64) *vfs.Mem {
	t.Helper()
	m := vfs.NewMem()
	if err := m.MkdirAll("/db"); err != nil {
		t.Fatal(err)
	}
	if err := create(m, paths, size, testID, 0xabcdef); err != nil {
		t.Fatal(err)
	}
	return m
}

func collect(t testing.TB, fsys vfs.FS) (*Log, []*redo.Package, error) {
	t.Helper()
	l, err := Open(fsys, paths, cfg)
	if err != nil {
		return nil, nil, err
	}
	var got []*redo.Package
	err = l.Recover(func(p *redo.Package) error { got = append(got, p); return nil })
	return l, got, err
}

func mustCollect(t testing.TB, fsys vfs.FS) (*Log, []*redo.Package) {
	t.Helper()
	l, got, err := collect(t, fsys)
	if err != nil {
		t.Fatal(err)
	}
	return l, got
}

func same(t testing.TB, got, want []*redo.Package) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("recovered %d packages, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i].LSEQ != want[i].LSEQ || !got[i].SameRedo(want[i]) {
			t.Fatalf("package %d recovered with LSEQ %d, want %d", i, got[i].LSEQ, want[i].LSEQ)
		}
	}
}

func TestAppendRecover(t *testing.T) {
	m := newFS(t, 1<<20)
	l, got := mustCollect(t, m)
	if len(got) != 0 || l.NextLSEQ() != 1 {
		t.Fatalf("a new log has %d packages, next LSEQ %d", len(got), l.NextLSEQ())
	}
	mk := newMaker(1)
	var all []*redo.Package
	for i := range 50 {
		batch := []*redo.Package{mk.pkg(t, 10)}
		for range i % 4 {
			batch = append(batch, mk.pkg(t, 2000))
		}
		before := m.Count()
		if err := l.Append(batch...); err != nil {
			t.Fatal(err)
		}
		if n := m.Count() - before; n != 2 {
			t.Fatalf("Append of %d packages took %d operations, want one write and one sync", len(batch), n)
		}
		all = append(all, batch...)
	}
	if info := l.Info(); info.FileLSN != mk.lsn || info.FileSeq != mk.lseq+100 || info.NextLSEQ != mk.lseq+1 {
		t.Fatalf("Info %+v", info)
	}
	_, got = mustCollect(t, m)
	same(t, got, all)

	mid := all[20]
	if err := l.SetCheckpoint(mid.MaxLSN, mid.LSEQ, 0); err != nil {
		t.Fatal(err)
	}
	if err := l.SetCheckpoint(1, 0, 0); err != nil { // older: changes nothing
		t.Fatal(err)
	}
	_, got = mustCollect(t, m)
	same(t, got, all[21:])
	if err := l.SetCheckpoint(mk.lsn, 0, 0); err != nil {
		t.Fatal(err)
	}
	if free, total := l.Space(); free != total {
		t.Fatalf("%d of %d bytes free after a full checkpoint", free, total)
	}
	l2, got := mustCollect(t, m)
	same(t, got, nil)
	if l2.NextLSEQ() != mk.lseq+1 || l2.LastLSN() != mk.lsn || l2.Info().FileSeq != mk.lseq+100 {
		t.Fatalf("reopened after a full checkpoint: %+v", l2.Info())
	}
	if err := errors.Join(l.Close(), l2.Close()); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(mk.pkg(t, 1)); !errors.Is(err, ErrState) {
		t.Fatalf("Append after Close: %v", err)
	}
}

func TestFullAndTooLarge(t *testing.T) {
	m := newFS(t, MinFileSize)
	l, _ := mustCollect(t, m)
	mk := newMaker(2)
	_, total := l.Space()
	if err := l.Append(mk.pkg(t, int(total))); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("larger than the log: %v", err)
	}
	mk = newMaker(2)
	var kept []*redo.Package
	for laps := 0; laps < 5; {
		p := mk.pkg(t, 5000)
		err := l.Append(p)
		if errors.Is(err, ErrFull) {
			laps++
			if free, _ := l.Space(); free >= 6000 {
				t.Fatalf("ErrFull with %d bytes free", free)
			}
			half := kept[len(kept)/2]
			if err := l.SetCheckpoint(half.MaxLSN, half.LSEQ, 0); err != nil {
				t.Fatal(err)
			}
			kept = kept[len(kept)/2+1:]
			err = l.Append(p)
		}
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, p)
	}
	_, got := mustCollect(t, m)
	same(t, got, kept)
}

// Packages larger than a file, and a circle filled to the last byte.
func TestLargePackages(t *testing.T) {
	m := newFS(t, MinFileSize)
	l, _ := mustCollect(t, m)
	_, total := l.Space()
	mk := newMaker(2)
	small, huge := mk.pkg(t, 100), mk.pkg(t, int(total)/3*2)
	if err := l.Append(small, huge); err != nil {
		t.Fatal(err)
	}
	free, _ := l.Space()
	overhead := mk.pkg(t, 0).EncodedLen() + 3 // and the longer length of the payload
	mk.lseq, mk.lsn = mk.lseq-1, mk.lsn-1
	last := mk.pkg(t, int(free)-overhead)
	if err := l.Append(last); err != nil {
		t.Fatal(err)
	}
	if free, _ := l.Space(); free != 0 {
		t.Fatalf("%d bytes free, the test wants none", free)
	}
	if err := l.Append(mk.pkg(t, 0)); !errors.Is(err, ErrFull) {
		t.Fatalf("Append to a full circle: %v", err)
	}
	_, got := mustCollect(t, m)
	same(t, got, []*redo.Package{small, huge, last})
	if err := l.SetCheckpoint(last.MaxLSN+1, 0, 0); !errors.Is(err, ErrContinuity) {
		t.Fatalf("checkpoint beyond the end: %v", err)
	}
	if err := l.SetCheckpoint(huge.MaxLSN, 0, 0); err != nil {
		t.Fatal(err)
	}
	_, got = mustCollect(t, m)
	same(t, got, []*redo.Package{last})
}

func TestAppendRefusesWhatDoesNotContinue(t *testing.T) {
	l, _ := mustCollect(t, newFS(t, MinFileSize))
	mk := newMaker(3)
	if err := l.Append(mk.pkg(t, 10)); err != nil {
		t.Fatal(err)
	}
	p := mk.pkg(t, 10)
	for name, change := range map[string]func(*redo.Package){
		"LSEQ": func(p *redo.Package) { p.LSEQ++ }, "PrevLSN": func(p *redo.Package) { p.PrevLSN-- },
		"DBMagic": func(p *redo.Package) { p.DBMagic++ }, "PmntMagic": func(p *redo.Package) { p.PmntMagic++ },
	} {
		q := *p
		change(&q)
		if err := l.Append(&q); !errors.Is(err, ErrContinuity) {
			t.Errorf("wrong %s: %v", name, err)
		}
	}
	if err := l.Append(p); err != nil {
		t.Fatal(err)
	}
}

func TestFailedAppendCanBeRepeated(t *testing.T) {
	for _, fault := range []vfs.Fault{
		{Kind: vfs.OpWrite, Err: syscall.ENOSPC}, {Kind: vfs.OpWrite, Err: syscall.EIO, Short: 1000}, {Kind: vfs.OpSync, Err: syscall.EIO},
	} {
		t.Run(fmt.Sprintf("%v %v short %d", fault.Kind, fault.Err, fault.Short), func(t *testing.T) {
			m := newFS(t, MinFileSize)
			l, _ := mustCollect(t, m)
			mk := newMaker(4)
			a, b := mk.pkg(t, 100), mk.pkg(t, 3000)
			if err := l.Append(a); err != nil {
				t.Fatal(err)
			}
			remove := m.Inject(fault)
			err := l.Append(b)
			if !errors.Is(err, fault.Err) || !strings.Contains(err.Error(), paths[0]) {
				t.Fatalf("error %v, want %v naming %s", err, fault.Err, paths[0])
			}
			remove()
			if l.NextLSEQ() != b.LSEQ {
				t.Fatalf("next LSEQ %d after the failure", l.NextLSEQ())
			}
			if err := l.Append(b); err != nil {
				t.Fatal(err)
			}
			for seed := range uint64(20) {
				_, got := mustCollect(t, m.CrashClone(rand.New(rand.NewPCG(seed, 0))))
				same(t, got, []*redo.Package{a, b})
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	other := []string{"/db/o1.log", "/db/o2.log"}
	tests := []struct {
		name  string
		spoil func(t *testing.T, m *vfs.Mem) (open []string, cfg Config)
		want  error
		text  string
	}{
		{"missing file", func(t *testing.T, m *vfs.Mem) ([]string, Config) { return []string{paths[0], "/db/none"}, cfg }, fs.ErrNotExist, "/db/none"},
		{"files swapped", func(t *testing.T, m *vfs.Mem) ([]string, Config) { return []string{paths[1], paths[0]}, cfg }, ErrForeign, "named as file 0"},
		{"too few files", func(t *testing.T, m *vfs.Mem) ([]string, Config) { return paths[:1], cfg }, ErrForeign, "of 1"},
		{"another database", func(t *testing.T, m *vfs.Mem) ([]string, Config) { return paths, Config{DBMagic: 9} }, ErrForeign, "DB_MAGIC is 0x123456"},
		{"another group", func(t *testing.T, m *vfs.Mem) ([]string, Config) { return paths, Config{PmntMagic: 9} }, ErrForeign, "PMNT_MAGIC is 0x567891"},
		{"file of another log", func(t *testing.T, m *vfs.Mem) ([]string, Config) {
			if err := create(m, other, MinFileSize, testID, 1); err != nil {
				t.Fatal(err)
			}
			return []string{paths[0], other[1]}, cfg
		}, ErrForeign, other[1]},
		{"newer version", func(t *testing.T, m *vfs.Mem) ([]string, Config) {
			k := fileKind
			k.Version++
			f, _ := m.Open(paths[1])
			if err := twin.New(k).Write(f, nil); err != nil {
				t.Fatal(err)
			}
			return paths, cfg
		}, ErrVersion, paths[1] + ": file format is newer than this program: version 3"},
		{"not a log", func(t *testing.T, m *vfs.Mem) ([]string, Config) {
			f, _ := m.Open(paths[0])
			f.WriteAt([]byte("hello, I am a text file"), 0)
			f.WriteAt([]byte("hello, I am a text file"), 4096)
			return paths, cfg
		}, ErrForeign, paths[0]},
		{"both headers damaged", func(t *testing.T, m *vfs.Mem) ([]string, Config) {
			f, _ := m.Open(paths[0])
			f.WriteAt([]byte{1, 2, 3}, 100)
			f.WriteAt([]byte{1, 2, 3}, 4196)
			return paths, cfg
		}, ErrDamaged, paths[0]},
		{"cut short", func(t *testing.T, m *vfs.Mem) ([]string, Config) {
			f, _ := m.Open(paths[1])
			f.Truncate(20000)
			return paths, cfg
		}, ErrDamaged, "20000 bytes of 65536"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newFS(t, MinFileSize)
			open, cfg := tt.spoil(t, m)
			_, err := Open(m, open, cfg)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("error %v, want %v with %q", err, tt.want, tt.text)
			}
		})
	}
	if err := Create(newFS(t, MinFileSize), paths, MinFileSize, testID); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create over an existing log: %v", err)
	}
	for _, size := range []int64{0, MinFileSize - 1, MaxFileSize + blockSize} {
		if err := Create(vfs.NewMem(), paths, size, testID); err == nil {
			t.Errorf("Create accepts %d bytes", size)
		}
	}
}

// One whole copy of the header is enough.
func TestOneHeaderCopyDamaged(t *testing.T) {
	for _, off := range []int64{50, 4096 + 50} {
		m := newFS(t, MinFileSize)
		l, _ := mustCollect(t, m)
		mk := newMaker(5)
		p := mk.pkg(t, 100)
		if err := l.Append(p); err != nil {
			t.Fatal(err)
		}
		f, _ := m.Open(paths[0])
		f.WriteAt([]byte{0xff}, off)
		_, got := mustCollect(t, m)
		same(t, got, []*redo.Package{p})
	}
}

// Damage among packages that were appended is told from a torn end, both where
// the header knows of them and where only later packages prove it.
func TestDamageIsReported(t *testing.T) {
	for _, known := range []bool{true, false} {
		t.Run(fmt.Sprintf("header knows %v", known), func(t *testing.T) {
			m := newFS(t, MinFileSize)
			l, _ := mustCollect(t, m)
			mk := newMaker(6)
			var places []int64
			for range 10 {
				places = append(places, l.Info().CurOffset)
				if err := l.Append(mk.pkg(t, 700), mk.pkg(t, 100)); err != nil {
					t.Fatal(err)
				}
			}
			if known {
				if err := l.SetCheckpoint(1, 1, 0); err != nil {
					t.Fatal(err)
				}
			}
			for i, off := range places[1:] {
				c := m.Clone()
				f, _ := c.Open(paths[0])
				f.WriteAt([]byte{0xAA}, off+200)
				_, _, err := collect(t, c)
				last := i == len(places)-2 && !known
				if last { // cannot be told from a write that was cut off
					if err != nil {
						t.Fatalf("damage in the last write: %v", err)
					}
					continue
				}
				if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), fmt.Sprintf("%s, offset %d", paths[0], off)) {
					t.Fatalf("damage at %d: %v", off, err)
				}
			}
		})
	}
}

// A package that is newer than this program stops recovery, whole as it is.
func TestRecoverRefusesNewerPackage(t *testing.T) {
	m := newFS(t, MinFileSize)
	l, _ := mustCollect(t, m)
	mk := newMaker(7)
	b := mk.pkg(t, 10).Encode(nil)
	binary.LittleEndian.PutUint16(b[4:], 2)
	binary.LittleEndian.PutUint32(b[124:], crcOf(b[:116]))
	if err := l.write(0, pad(b, sectorSize)); err != nil {
		t.Fatal(err)
	}
	_, _, err := collect(t, m)
	if !errors.Is(err, redo.ErrVersion) || !strings.Contains(err.Error(), "DAMENG01.log, offset 8192") {
		t.Fatalf("newer package: %v", err)
	}
}

func TestRecoverPassesErrorsOn(t *testing.T) {
	m := newFS(t, MinFileSize)
	l, _ := mustCollect(t, m)
	if err := l.Append(newMaker(8).pkg(t, 10)); err != nil {
		t.Fatal(err)
	}
	l2, err := Open(m, paths, cfg)
	if err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	if err := l2.Recover(func(*redo.Package) error { return boom }); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if err := l2.Append(newMaker(8).pkg(t, 10)); !errors.Is(err, ErrState) {
		t.Fatalf("Append after a failed Recover: %v", err)
	}
	if err := l2.SetCheckpoint(1, 0, 0); !errors.Is(err, ErrState) {
		t.Fatalf("SetCheckpoint after a failed Recover: %v", err)
	}
	remove := m.Inject(vfs.Fault{Kind: vfs.OpRead, Path: paths[0], Err: syscall.EIO})
	defer remove()
	if err := l2.Recover(func(*redo.Package) error { return nil }); !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), paths[0]) {
		t.Fatalf("unreadable file: %v", err)
	}
}

// Append and SetCheckpoint run together, as flusher and checkpointer do.
func TestConcurrentCheckpoint(t *testing.T) {
	m := newFS(t, MinFileSize)
	l, _ := mustCollect(t, m)
	full := make(chan struct{}, 1)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			select {
			case <-full:
			case <-done:
				return
			}
			if err := l.SetCheckpoint(l.LastLSN(), 0, 0); err != nil {
				t.Error(err)
			}
			_ = l.Info()
		}
	}()
	mk := newMaker(9)
	for range 300 {
		p := mk.pkg(t, 3000)
		for {
			err := l.Append(p)
			if err == nil {
				break
			}
			if !errors.Is(err, ErrFull) {
				t.Fatal(err)
			}
			select {
			case full <- struct{}{}:
			default:
			}
		}
	}
	close(done)
	wg.Wait()
	l2, _ := mustCollect(t, m)
	if l2.NextLSEQ() != mk.lseq+1 {
		t.Fatalf("recovered up to %d of %d", l2.NextLSEQ()-1, mk.lseq)
	}
}
