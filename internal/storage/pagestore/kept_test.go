package pagestore

import (
	"bytes"
	"context"
	"testing"

	"datawatch/internal/base"
	"datawatch/internal/storage/redo"
	"datawatch/internal/vfs"
)

// TestKeptAcrossCheckpoint: the data file is ahead of the redo being replayed, as
// after a crash within a checkpoint; that redo makes the file shorter, and a part of
// a large transaction brings a page back which the file has already. A checkpoint
// before its last part cuts the file: the page is there all the same (G9, G6).
func TestKeptAcrossCheckpoint(t *testing.T) {
	fs := vfs.NewMem()
	newFile(t, fs, "/db")
	l := &memLog{ptx: map[base.LSN][]byte{}}
	ptx := func(lsn base.LSN, k redo.PTXKind, size uint32, pages ...uint32) {
		var b redo.Builder
		b.Begin(redo.PTXHeader{LSN: lsn, Kind: k})
		for _, p := range pages {
			b.Diff(redo.Addr{Page: p}, nil, bytes.Repeat([]byte{byte(lsn)}, testPS))
		}
		if size > 0 {
			b.Resize(0, 0, size)
		}
		l.ptx[lsn] = bytes.Clone(b.Finish())
	}
	ptx(1, redo.KindCommit, 5, 2, 3, 4, 5)
	ptx(2, redo.KindCommit, 2)
	ptx(3, redo.KindFirst, 0, 4)
	ptx(4, redo.KindLast, 5, 5)
	ctx := context.Background()
	replay := func(s *Store, from, to base.LSN) {
		t.Helper()
		for lsn := from; lsn <= to; lsn++ {
			if err := s.Apply(l.decode(t, lsn)); err != nil {
				t.Fatal(err)
			}
		}
		s.SetHardened(to)
		if _, err := s.Checkpoint(ctx, to); err != nil {
			t.Fatal(err)
		}
	}
	read := func(s *Store) (all []string) {
		t.Helper()
		sn, b := s.Snapshot(), make([]byte, testPS)
		defer sn.Close()
		for p := uint32(1); p <= sn.Pages(); p++ {
			if err := sn.ReadPage(p, b); err != nil {
				t.Fatal(err)
			}
			all = append(all, body(b))
		}
		return all
	}
	s := openStore(t, fs, l, 0, 0)
	replay(s, 1, 4)
	want := read(s)
	if len(want) != 5 || want[3][0] != 3 || want[4][0] != 4 {
		t.Fatal("the test is not what it says")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, upTo := range []base.LSN{1, 2, 3} {
		s := openStore(t, fs, l, 1, 0)
		replay(s, 2, upTo)
		replay(s, upTo+1, 4)
		for i, got := range read(s) {
			if got != want[i] {
				t.Errorf("checkpoint at LSN %d: page %d begins with %d, want %d", upTo, i+1, got[0], want[i][0])
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
