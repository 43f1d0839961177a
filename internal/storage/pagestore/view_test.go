package pagestore

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
)

// TestViewCache: a view reads pages that the data file has past a full cache, so
// that a scan leaves what others use in memory, and fills one that has room.
func TestViewCache(t *testing.T) {
	const pages, room = 200, 64
	s, _, _ := newStore(t, room*testPS)
	h := s.NewHandle(false)
	begin(t, s, h)
	b := make([]byte, testPS)
	for p := 2; p <= pages; p++ {
		b[0] = byte(p)
		if _, err := h.WriteAt(b, int64(p-1)*testPS); err != nil {
			t.Fatal(err)
		}
	}
	end(t, s, h, true)
	s.SetHardened(s.Newest())
	if _, err := s.Checkpoint(context.Background(), s.Newest()); err != nil {
		t.Fatal(err)
	}
	scan := func() {
		var wg sync.WaitGroup
		v, err := s.NewHandle(true).View()
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		for range 4 {
			wg.Go(func() {
				buf := make([]byte, testPS)
				for p := uint32(2); p <= pages; p++ {
					if got, err := v.Page(p, buf); err != nil || got[0] != byte(p) {
						t.Errorf("page %d: %v", p, err)
					}
				}
			})
		}
		wg.Wait()
	}
	r := s.NewHandle(true)
	hot := func() (misses uint64) {
		_, _, before := s.clean.stats()
		for p := 3; p < 3+room/2; p++ {
			if _, err := r.ReadAt(b, int64(p-1)*testPS); err != nil || !bytes.Equal(b[:1], []byte{byte(p)}) {
				t.Fatalf("page %d: %v", p, err)
			}
		}
		_, _, after := s.clean.stats()
		return after - before
	}
	hot()
	hot()
	scan()
	scan()
	if n := hot(); n > 0 {
		t.Errorf("a scan has driven %d pages of others out", n)
	}
	if n, _, _ := s.clean.stats(); n < room/2 {
		t.Errorf("%d pages in the cache", n)
	}
}

// TestViewOwner: the owner of the write lock has no view, as its pages may be
// private or not hardened (G2).
func TestViewOwner(t *testing.T) {
	s, _, _ := newStore(t, 1<<20)
	h := s.NewHandle(false)
	begin(t, s, h)
	if _, err := h.View(); !errors.Is(err, ErrBusy) {
		t.Errorf("a view of the writer: %v", err)
	}
	end(t, s, h, false)
	v, err := h.View()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if _, err := v.Page(v.Pages()+1, make([]byte, testPS)); !errors.Is(err, ErrShortRead) {
		t.Errorf("a page beyond the end: %v", err)
	}
}
