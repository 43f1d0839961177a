package pagestore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"datawatch/internal/base"
)

// begin takes the write lock and opens a transaction.
func begin(t testing.TB, s *Store, h *Handle) {
	t.Helper()
	if err := errors.Join(s.LockWrite(context.Background(), h), h.Lock(LockShared), h.Lock(LockReserved)); err != nil {
		t.Fatal(err)
	}
}

// end commits or rolls back and gives the lock up.
func end(t testing.TB, s *Store, h *Handle, commit bool) {
	t.Helper()
	if commit {
		if err := h.Sync(); err != nil {
			t.Fatal(err)
		}
		h.CommitPhaseTwo()
	}
	if err := errors.Join(h.Unlock(LockShared), h.Unlock(LockNone)); err != nil {
		t.Fatal(err)
	}
	s.UnlockWrite(h)
}

// TestLostUpdate: writers that read and add one lose nothing, and readers see a
// counter that only grows, together with its copy on another page (G6).
func TestLostUpdate(t *testing.T) {
	s, l, _ := newStore(t, 1<<20)
	const writers, each = 8, 200
	var stop atomic.Bool
	var wg, rd sync.WaitGroup
	for range 3 {
		rd.Go(func() {
			h := s.NewHandle(true)
			a, b := make([]byte, 8), make([]byte, 8)
			last := uint64(0)
			for !stop.Load() {
				if err := h.Lock(LockShared); err != nil {
					t.Error(err)
					return
				}
				if size, _ := h.Size(); size > testPS {
					_, err1 := h.ReadAt(a, testPS)
					_, err2 := h.ReadAt(b, 2*testPS)
					x, y := binary.BigEndian.Uint64(a), binary.BigEndian.Uint64(b)
					if err1 != nil || err2 != nil || x != y || x < last {
						t.Errorf("read %d and %d after %d, %v, %v", x, y, last, err1, err2)
					}
					last = x
				}
				if err := h.Unlock(LockNone); err != nil {
					t.Error(err)
				}
			}
		})
	}
	rd.Go(func() {
		for !stop.Load() {
			if _, err := s.Checkpoint(context.Background(), s.Hardened()); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range writers {
		wg.Go(func() {
			h := s.NewHandle(false)
			b := make([]byte, testPS)
			for range each {
				if err := errors.Join(s.LockWrite(context.Background(), h), h.Lock(LockShared), h.Lock(LockExclusive)); err != nil {
					t.Error(err)
					return
				}
				if _, err := h.ReadAt(b, testPS); err != nil && !errors.Is(err, ErrShortRead) {
					t.Error(err)
				}
				binary.BigEndian.PutUint64(b, binary.BigEndian.Uint64(b)+1)
				_, err1 := h.WriteAt(b, testPS)
				_, err2 := h.WriteAt(b, 2*testPS)
				err3 := h.Sync()
				h.CommitPhaseTwo()
				if err := errors.Join(err1, err2, err3, h.Unlock(LockNone)); err != nil {
					t.Error(err)
				}
				s.UnlockWrite(h)
				s.SetHardened(h.LastCommit())
			}
		})
	}
	wg.Wait()
	stop.Store(true)
	rd.Wait()
	h := s.NewHandle(true)
	b := make([]byte, 8)
	if _, err := h.ReadAt(b, testPS); err != nil || binary.BigEndian.Uint64(b) != writers*each || l.last != writers*each {
		t.Fatalf("counter %d, LSN %d, want %d, %v", binary.BigEndian.Uint64(b), l.last, writers*each, err)
	}
}

// TestPrivate: a private handle changes a hardened snapshot for itself alone,
// beside the owner of the write lock, and cannot commit (G2).
func TestPrivate(t *testing.T) {
	s, l, _ := newStore(t, 1<<20)
	page := func(n byte) []byte { b := make([]byte, testPS); b[0] = n; return b }
	read := func(h *Handle, at int64) byte {
		b := make([]byte, 1)
		if _, err := h.ReadAt(b, at*testPS); err != nil && !errors.Is(err, ErrShortRead) {
			t.Fatal(err)
		}
		return b[0]
	}
	w, r := s.NewHandle(false), s.NewHandle(true)
	begin(t, s, w)
	if _, err := w.WriteAt(page(1), testPS); err != nil {
		t.Fatal(err)
	}
	end(t, s, w, true)
	s.SetHardened(w.LastCommit())
	begin(t, s, w)
	if _, err := w.WriteAt(page(2), testPS); err != nil {
		t.Fatal(err)
	}
	end(t, s, w, true) // not hardened
	begin(t, s, w)     // the lock is taken

	p, q := s.NewPrivate(), s.NewPrivate()
	for _, h := range []*Handle{p, q} {
		if err := errors.Join(h.Lock(LockShared), h.Lock(LockReserved), h.Lock(LockExclusive)); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(p, 1); got != 1 {
		t.Errorf("it reads %d, which is not hardened", got)
	}
	const many = privatePages + 20 // some are in the spill file
	for i := range int64(many) {
		_, err := p.WriteAt(page(7), (1+i)*testPS)
		_, err2 := q.WriteAt(page(8), (1+i)*testPS)
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Lock(LockShared); err != nil {
		t.Fatal(err)
	}
	for i := range int64(many) {
		if a, b := read(p, 1+i), read(q, 1+i); a != 7 || b != 8 {
			t.Fatalf("page %d: %d and %d", i, a, b)
		}
		if got := read(r, 1+i); got == 7 || got == 8 {
			t.Fatalf("page %d: others read %d", i, got)
		}
	}
	if s.Stats().SpillBytes == 0 {
		t.Error("nothing is in the spill file")
	}
	_, err := w.WriteAt(page(3), testPS)
	if err != nil {
		t.Fatal(err)
	}
	end(t, s, w, true)
	last := l.last
	if err := p.Sync(); err != nil {
		t.Error(err)
	}
	p.CommitPhaseTwo()
	if err := p.Unlock(LockShared); !errors.Is(err, ErrPrivate) {
		t.Errorf("a commit: %v", err)
	}
	if err := q.Unlock(LockNone); err != nil {
		t.Error(err)
	}
	if err := s.LockWrite(context.Background(), p); !errors.Is(err, ErrPrivate) {
		t.Errorf("the write lock: %v", err)
	}
	if got := read(p, 1); got != 1 {
		t.Errorf("afterwards it reads %d", got)
	}
	if err := errors.Join(p.Close(), q.Close(), r.Close()); err != nil {
		t.Error(err)
	}
	if st := s.Stats(); st.SpillBytes != 0 || l.last != last || st.RolledBack != 0 || s.Owned() {
		t.Errorf("%+v, LSN %d after %d", st, l.last, last)
	}
	begin(t, s, w)
	if got := read(w, 1); got != 3 {
		t.Errorf("the newest is %d", got)
	}
	end(t, s, w, false)
}

// TestG2: below the write lock only hardened states are seen.
func TestG2(t *testing.T) {
	s, _, _ := newStore(t, -1)
	w, r := s.NewHandle(false), s.NewHandle(false)
	begin(t, s, w)
	if _, err := w.WriteAt(make([]byte, testPS), 5*testPS); err != nil {
		t.Fatal(err)
	}
	end(t, s, w, true)
	for _, want := range []int64{1, 6} {
		if err := r.Lock(LockShared); err != nil {
			t.Fatal(err)
		}
		if n, _ := r.Size(); n != want*testPS {
			t.Fatalf("reader sees %d bytes, want %d pages", n, want)
		}
		if err := r.Lock(LockReserved); want == 1 && !errors.Is(err, ErrBusySnapshot) || want == 6 && !errors.Is(err, ErrBusy) {
			t.Fatalf("RESERVED without the write lock: %v", err)
		}
		if err := r.Unlock(LockNone); err != nil {
			t.Fatal(err)
		}
		s.SetHardened(1)
	}
	ro := s.NewHandle(true)
	if err := errors.Join(ro.Lock(LockShared), ro.Lock(LockReserved)); !errors.Is(err, ErrReadOnly) {
		t.Fatalf("read-only handle: %v", err)
	}
	if err := s.LockWrite(context.Background(), ro); !errors.Is(err, ErrReadOnly) {
		t.Fatalf("write lock for a read-only handle: %v", err)
	}
	if _, err := ro.WriteAt(make([]byte, testPS), 0); !errors.Is(err, ErrNotOwner) {
		t.Fatalf("write without lock: %v", err)
	}
}

// TestRefusedCommit: when log space is refused, nothing is published and the
// reservation is in order.
func TestRefusedCommit(t *testing.T) {
	s, l, _ := newStore(t, -1)
	w := s.NewHandle(false)
	l.fail = errors.New("no room")
	begin(t, s, w)
	if _, err := w.WriteAt(make([]byte, testPS), testPS); err != nil {
		t.Fatal(err)
	}
	if err := w.Sync(); !errors.Is(err, l.fail) {
		t.Fatalf("Sync: %v", err)
	}
	end(t, s, w, false)
	if s.Newest() != 0 || l.reserved != 0 || w.LastCommit() != 0 {
		t.Fatalf("newest %d, reserved %d, last %d", s.Newest(), l.reserved, w.LastCommit())
	}
	// A caller that skips Sync learns it from Unlock.
	begin(t, s, w)
	if _, err := w.WriteAt(make([]byte, testPS), testPS); err != nil {
		t.Fatal(err)
	}
	w.CommitPhaseTwo()
	if err := w.Unlock(LockNone); !errors.Is(err, l.fail) || s.Newest() != 0 {
		t.Fatalf("Unlock: %v, newest %d", err, s.Newest())
	}
	s.UnlockWrite(w)
}

// TestPartHardenedAtOnce: a part of a large transaction, and the PTX that gives it
// up, may be hardened before the Committer returns; then a checkpoint at that
// moment goes as far, and not one LSN less.
func TestPartHardenedAtOnce(t *testing.T) {
	s, l, fs := newStore(t, -1)
	l.partBytes = 100
	s.Close()
	s = openStore(t, fs, l, 0, -1)
	l.hard = func(lsn base.LSN) {
		s.SetHardened(lsn)
		if done, err := s.Checkpoint(t.Context(), lsn); err != nil || done != lsn {
			t.Errorf("checkpoint at LSN %d, hardened is %d, %v", done, lsn, err)
		}
	}
	h := s.NewHandle(false)
	for _, fail := range []int{0, 3} {
		l.parts = fail
		if err := s.LockWrite(t.Context(), h); err != nil {
			t.Fatal(err)
		}
		for _, level := range []int{LockShared, LockReserved} {
			if err := h.Lock(level); err != nil {
				t.Fatal(err)
			}
		}
		for p := range 8 {
			b := bytes.Repeat([]byte{byte(p + fail + 1)}, testPS)
			if _, err := h.WriteAt(b, int64(p*testPS)); err != nil {
				t.Fatal(err)
			}
		}
		before := l.last
		if err := h.Sync(); err == nil {
			h.CommitPhaseTwo()
		} else if !errors.Is(err, errParts) {
			t.Fatal(err)
		}
		if err := h.Unlock(LockNone); err != nil {
			t.Fatal(err)
		}
		s.UnlockWrite(h)
		if l.last < before+3 || s.Newest() != l.last {
			t.Fatalf("newest LSN %d, the log ends at %d, before %d", s.Newest(), l.last, before)
		}
	}
}

// TestWriteLockQueue: first come first served; one that gives up leaves the
// queue, also when it gets the lock at the same moment.
func TestWriteLockQueue(t *testing.T) {
	s, _, _ := newStore(t, -1)
	first := s.NewHandle(false)
	if err := s.LockWrite(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	const n = 20
	var order []int
	var wg sync.WaitGroup
	cancels := make([]context.CancelFunc, n)
	for i := range n {
		ctx, cancel := context.WithCancel(t.Context())
		cancels[i] = cancel
		h := s.NewHandle(false)
		wg.Go(func() {
			err := s.LockWrite(ctx, h)
			if err == nil {
				order = append(order, i) // under the write lock
				if i%4 == 1 && i+1 < n {
					cancels[i+1]() // just when it is its turn
				}
				s.UnlockWrite(h)
			} else if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		for s.Stats().Waiters != i+1 { // queued
			continue
		}
	}
	for i := 0; i < n; i += 5 {
		cancels[i]()
		for s.Stats().Waiters > n-1-i/5 {
			continue
		}
	}
	s.UnlockWrite(first)
	wg.Wait()
	for i := 1; i < len(order); i++ {
		if order[i] <= order[i-1] {
			t.Fatalf("order %v", order)
		}
	}
	if s.Owned() || len(order) < n/2 {
		t.Fatalf("owned %v after %v", s.Owned(), order)
	}
	for _, c := range cancels {
		c()
	}
	if err := s.LockWrite(t.Context(), first); err != nil {
		t.Fatal(err)
	}
}

func benchStore(b *testing.B) (*Store, *Handle) {
	s, _, _ := newStore(b, 1<<20)
	s.com = nullLog{&memLog{}}
	h := s.NewHandle(false)
	begin(b, s, h)
	for p := range int64(1000) {
		if _, err := h.WriteAt(make([]byte, testPS), p*testPS); err != nil {
			b.Fatal(err)
		}
	}
	end(b, s, h, true)
	s.SetHardened(h.LastCommit())
	return s, h
}

// nullLog keeps nothing.
type nullLog struct{ *memLog }

func (l nullLog) Commit(_ []byte, lsn base.LSN) { l.last = lsn; l.reserved-- }

func BenchmarkPublish(b *testing.B) {
	s, h := benchStore(b)
	buf := make([]byte, testPS)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		begin(b, s, h)
		binary.BigEndian.PutUint64(buf[16:], uint64(i))
		for _, p := range []int64{0, int64(i % 1000)} {
			if _, err := h.WriteAt(buf, p*testPS); err != nil {
				b.Fatal(err)
			}
		}
		end(b, s, h, true)
		s.SetHardened(h.LastCommit())
	}
}

func BenchmarkRead(b *testing.B) {
	s, _ := benchStore(b)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		h := s.NewHandle(true)
		buf := make([]byte, testPS)
		for i := int64(0); pb.Next(); i++ {
			if err := h.Lock(LockShared); err != nil {
				b.Fatal(err)
			}
			for j := range int64(4) {
				if _, err := h.ReadAt(buf, (i*7+j)%1000*testPS); err != nil {
					b.Fatal(err)
				}
			}
			if err := h.Unlock(LockNone); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// TestSeen: the newest change of the pages that the owner of the write lock has
// read; of page 1 only what is not in every commit (G2).
func TestSeen(t *testing.T) {
	s, _, _ := newStore(t, -1)
	w := s.NewHandle(false)
	commit := func(at int64, b byte, p int64) { // one byte of page p
		begin(t, s, w)
		d := make([]byte, testPS)
		if _, err := w.ReadAt(d, (p-1)*testPS); err != nil && !errors.Is(err, ErrShortRead) {
			t.Fatal(err)
		}
		d[at] = b
		if _, err := w.WriteAt(d, (p-1)*testPS); err != nil {
			t.Fatal(err)
		}
		end(t, s, w, true)
	}
	commit(50, 1, 2) // LSN 1
	commit(50, 1, 3) // 2
	s.SetHardened(2) //
	commit(27, 9, 1) // 3: change counter
	commit(50, 2, 3) // 4
	commit(95, 9, 1) // 5: version-valid-for
	begin(t, s, w)
	defer end(t, s, w, false)
	w.ForgetSeen()
	b := make([]byte, testPS)
	for _, x := range []struct{ page, off, n, want int64 }{
		{1, 24, 16, 0}, {1, 0, testPS, 0}, {2, 0, testPS, 1}, {3, 100, 8, 4}, {2, 0, testPS, 4},
	} {
		if _, err := w.ReadAt(b[:x.n], (x.page-1)*testPS+x.off); err != nil {
			t.Fatal(err)
		}
		if got := w.Seen(); got != base.LSN(x.want) {
			t.Errorf("after page %d: %d, want %d", x.page, got, x.want)
		}
	}
	end(t, s, w, false)
	commit(43, 7, 1) // 6: schema cookie
	begin(t, s, w)
	w.ForgetSeen()
	if _, err := w.ReadAt(b, 0); err != nil || w.Seen() != 6 {
		t.Errorf("schema changed: seen %d, want 6; %v", w.Seen(), err)
	}
	r := s.NewHandle(true)
	if _, err := r.ReadAt(b, 2*testPS); err != nil || r.Seen() != 0 {
		t.Errorf("a reader has seen %d; %v", r.Seen(), err)
	}
}

// TestHardenedBeforeNewest: the Committer may have hardened a part before the
// writer has made it the newest state; that is not forgotten.
func TestHardenedBeforeNewest(t *testing.T) {
	s := &Store{}
	s.newest = state{29, 5}
	s.Harden(30)
	if h := s.Hardened(); h != 29 {
		t.Fatalf("hardened up to %d, the newest is 29", h)
	}
	s.mu.Lock()
	s.advance(state{30, 7})
	s.mu.Unlock()
	if h, n := s.Hardened(), s.Pages(); h != 30 || n != 7 {
		t.Fatalf("hardened up to %d with %d pages, want 30 with 7", h, n)
	}
}
