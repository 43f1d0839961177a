package rlog

import (
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"datawatch/internal/base"
	"datawatch/internal/storage/redo"
	"datawatch/internal/vfs"
)

func crcOf(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// model is what the log promises at a moment.
type model struct {
	acked  []*redo.Package   // Append returned nil, not yet freed for certain
	flight [][]*redo.Package // writes since that did not return nil: any may be there, up to any package
	ckpt   []base.LSN        // checkpoints the header may hold: the one on disk, and one being written
}

// check recovers a file system and compares it with the model.
func (m *model) check(fsys vfs.FS) (*Log, error) {
	l, err := Open(fsys, paths, cfg)
	if err != nil {
		return nil, err
	}
	var got []*redo.Package
	if err := l.Recover(func(p *redo.Package) error { got = append(got, p); return nil }); err != nil {
		return nil, err
	}
	if !slices.Contains(m.ckpt, l.Info().CkptLSN) {
		return nil, fmt.Errorf("checkpoint %d recovered, possible are %v", l.Info().CkptLSN, m.ckpt)
	}
	var want []*redo.Package
	for _, p := range m.acked {
		if p.MaxLSN > l.Info().CkptLSN {
			want = append(want, p)
		}
	}
	if len(got) < len(want) {
		return nil, fmt.Errorf("%d packages recovered, %d were appended", len(got), len(want))
	}
	for i, p := range want {
		if got[i].LSEQ != p.LSEQ || !got[i].SameRedo(p) {
			return nil, fmt.Errorf("package %d recovered where %d was appended", got[i].LSEQ, p.LSEQ)
		}
	}
	extra := got[len(want):]
	if len(extra) > 0 && !slices.ContainsFunc(m.flight, func(f []*redo.Package) bool {
		return len(extra) <= len(f) && slices.EqualFunc(extra, f[:len(extra)], func(a, b *redo.Package) bool { return a.LSEQ == b.LSEQ && a.SameRedo(b) })
	}) {
		return nil, fmt.Errorf("%d packages from LSEQ %d recovered that are no prefix of a write under way", len(extra), extra[0].LSEQ)
	}
	return l, nil
}

// goOn appends to a recovered log, cuts the power again and checks again.
func (m *model) goOn(t *testing.T, l *Log, fsys *vfs.Mem, rnd *rand.Rand) error {
	info := l.Info()
	mk := &maker{lseq: info.NextLSEQ - 1, lsn: info.FileLSN, rnd: rnd}
	next := &model{ckpt: []base.LSN{info.FileLSN}}
	if err := l.SetCheckpoint(info.FileLSN, 0, 0); err != nil {
		return err
	}
	for range 3 {
		batch := []*redo.Package{mk.pkg(t, rnd.IntN(1500)), mk.pkg(t, rnd.IntN(1500))}
		if err := l.Append(batch...); err != nil {
			return err
		}
		next.acked = append(next.acked, batch...)
	}
	_, err := next.check(fsys.CrashClone(rnd))
	return err
}

// TestPowerCut cuts the power before and after every write and sync of a
// workload of appends (some of which fail and are replaced by others, as on a
// change of roles), checkpoints and laps round the circle.
func TestPowerCut(t *testing.T) {
	seeds, clones := uint64(6), 3
	if testing.Short() {
		seeds = 1
	}
	cuts := 0
	for seed := range seeds {
		rnd := rand.New(rand.NewPCG(seed, 11))
		fsys := newFS(t, MinFileSize)
		l, _ := mustCollect(t, fsys)
		mk := newMaker(seed)
		m := &model{ckpt: []base.LSN{0}}
		fsys.SetHook(func(op vfs.Op) error {
			if op.Kind != vfs.OpWrite && op.Kind != vfs.OpSync {
				return nil
			}
			for i := range clones {
				cuts++
				c := fsys.CrashClone(rnd)
				rl, err := m.check(c)
				if err == nil && i == 0 {
					err = m.goOn(t, rl, c, rnd)
				}
				if err != nil {
					t.Fatalf("seed %d, power cut at %v of %s, offset %d, operation %d (after: %v): %v", seed, op.Kind, op.Path, op.Off, op.N, op.After, err)
				}
			}
			return nil
		})
		checkpoint := func(lsn base.LSN) {
			m.ckpt = append(m.ckpt, lsn)
			if err := l.SetCheckpoint(lsn, 0, 0); err != nil {
				t.Fatal(err)
			}
			m.ckpt = []base.LSN{lsn}
			m.acked = slices.DeleteFunc(m.acked, func(p *redo.Package) bool { return p.MaxLSN <= lsn })
		}
		for i := range 60 {
			start := *mk
			var batch []*redo.Package
			for range 1 + rnd.IntN(4) {
				batch = append(batch, mk.pkg(t, rnd.IntN(4000)))
			}
			if free, _ := l.Space(); free < 20000 {
				lsn := l.LastLSN()
				if len(m.acked) > 1 && rnd.IntN(2) == 0 {
					lsn = m.acked[len(m.acked)-2].MaxLSN
				}
				checkpoint(lsn)
			}
			m.flight = append(m.flight, batch)
			if i%7 == 3 { // this write fails, and the next one brings other redo
				remove := fsys.Inject([]vfs.Fault{
					{Kind: vfs.OpWrite, Err: syscall.ENOSPC, Short: rnd.IntN(3000)}, {Kind: vfs.OpSync, Err: syscall.EIO},
				}[rnd.IntN(2)])
				if err := l.Append(batch...); !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EIO) {
					t.Fatalf("Append on a bad disk: %v", err)
				}
				remove()
				*mk = maker{lseq: start.lseq, lsn: start.lsn, rnd: mk.rnd}
				continue
			}
			if err := l.Append(batch...); err != nil {
				t.Fatal(err)
			}
			m.acked, m.flight = append(m.acked, batch...), nil
		}
	}
	t.Logf("%d power cuts", cuts)
}

// A model that demands more than was promised must fail: the check can.
func TestPowerCutCheckCanFail(t *testing.T) {
	fsys := newFS(t, MinFileSize)
	l, _ := mustCollect(t, fsys)
	mk := newMaker(1)
	a, b := mk.pkg(t, 100), mk.pkg(t, 100)
	if err := l.Append(a, b); err != nil {
		t.Fatal(err)
	}
	for name, m := range map[string]*model{
		"lost":     {acked: []*redo.Package{a, b, mk.pkg(t, 1)}, ckpt: []base.LSN{0}},
		"invented": {acked: []*redo.Package{a}, ckpt: []base.LSN{0}},
		"changed":  {acked: []*redo.Package{b, a}, ckpt: []base.LSN{0}},
	} {
		if _, err := m.check(fsys.Clone()); err == nil {
			t.Errorf("a log with a %s package passes", name)
		}
	}
}

// Power cuts while a log is created leave either a log or none that opens.
func TestPowerCutInCreate(t *testing.T) {
	fsys := vfs.NewMem()
	if err := fsys.MkdirAll("/db"); err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(3, 3))
	opened := 0
	fsys.SetHook(func(op vfs.Op) error {
		if op.Kind.Changes() {
			for range 5 {
				l, got, err := collect(t, fsys.CrashClone(rnd))
				if err == nil {
					opened++
					if len(got) != 0 || l.Append(newMaker(1).pkg(t, 60000)) != nil {
						t.Fatal("a half-made log opens and does not work")
					}
				}
			}
		}
		return nil
	})
	if err := create(fsys, paths, MinFileSize, testID, 5); err != nil {
		t.Fatal(err)
	}
	fsys.SetHook(nil)
	if _, _, err := collect(t, fsys.CrashClone(rnd)); err != nil {
		t.Fatal(err)
	}
	if opened == 0 {
		t.Fatal("no cut left a log that opens: the test shows nothing")
	}
}
