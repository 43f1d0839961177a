package pagestore

import (
	"bytes"
	"context"
	"math/rand/v2"
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

// TestKeptWhileWriting: a standby that rejoined by pages replays redo that the data
// file is ahead of, while a checkpoint runs that began before. What it keeps of a page
// is written for that checkpoint, whatever was made of it since, and once more when
// the file is cut below it later (G9).
func TestKeptWhileWriting(t *testing.T) {
	l := &memLog{ptx: map[base.LSN][]byte{}}
	ptx := func(lsn base.LSN, cut bool) { // page 2 gets the byte LSN at offset LSN
		var b redo.Builder
		b.Begin(redo.PTXHeader{LSN: lsn, Kind: redo.KindCommit})
		if cut {
			b.Resize(0, 0, 1)
		}
		old := make([]byte, testPS)
		new := bytes.Clone(old)
		new[lsn] = byte(lsn)
		b.Diff(redo.Addr{Page: 2}, old, new)
		b.Resize(0, 0, 2)
		l.ptx[lsn] = bytes.Clone(b.Finish())
	}
	ctx := context.Background()
	replay := func(s *Store, from, to base.LSN) {
		for lsn := from; lsn <= to; lsn++ {
			if err := s.Apply(l.decode(t, lsn)); err != nil {
				t.Fatal(err)
			}
		}
	}
	write := func(s *Store, at base.LSN) {
		s.SetHardened(at)
		if _, err := s.Checkpoint(ctx, at); err != nil {
			t.Fatal(err)
		}
	}
	page2 := func(s *Store) string {
		sn, b := s.Snapshot(), make([]byte, testPS)
		defer sn.Close()
		if err := sn.ReadPage(2, b); err != nil {
			t.Fatal(err)
		}
		return body(b)[:8]
	}
	type history struct{ cut, ahead, last base.LSN }
	for _, x := range []history{{4, 3, 5}, {4, 5, 5}, {4, 5, 6}, {0, 3, 5}, {0, 5, 6}, {5, 3, 6}} {
		// The file is cut at LSN 2 and at cut; it is at LSN ahead when redo is replayed
		// from LSN 2 to last.
		for lsn := base.LSN(1); lsn <= x.last; lsn++ {
			ptx(lsn, lsn == 2 || lsn == x.cut)
		}
		fs := vfs.NewMem()
		newFile(t, fs, "/db")
		s := openStore(t, fs, l, 0, 0)
		replay(s, 1, x.ahead)
		write(s, x.ahead)
		replay(s, x.ahead+1, x.last)
		s.SetHardened(x.last)
		want := page2(s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openStore(t, fs, l, 1, 0)
		replay(s, 2, 2)
		done := false
		fs.SetHook(func(op vfs.Op) error {
			if op.Kind == vfs.OpTruncate && !op.After && !done {
				done = true
				replay(s, 3, x.last)
			}
			return nil
		})
		write(s, 2)
		fs.SetHook(nil)
		if !done {
			t.Fatal("the test is not what it says")
		}
		again := openStore(t, fs.CrashClone(rand.New(rand.NewPCG(1, 2))), l, 2, 0)
		replay(again, 3, x.last)
		again.SetHardened(x.last)
		if got := page2(again); got != want {
			t.Errorf("%+v: after a crash page 2 is %q, want %q", x, got, want)
		}
		write(s, x.last)
		if got := page2(s); got != want {
			t.Errorf("%+v: page 2 is %q, want %q", x, got, want)
		}
		if st := s.Stats(); st.Versions != 0 || st.Dirty != 0 {
			t.Errorf("%+v: left over: %+v", x, st)
		}
	}
}
