package pagestore

import (
	"context"
	"fmt"
	"slices"

	"datawatch/internal/base"
)

// LockWrite takes the write lock of the database for h, first come first
// served, waiting until ctx is done (whose error it then returns). While h has
// it, h.Lock(LockShared) pins the newest state, hardened or not.
func (s *Store) LockWrite(ctx context.Context, h *Handle) error {
	if h.readOnly {
		return ErrReadOnly
	}
	if h.private {
		return ErrPrivate
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.lmu.Lock()
	switch {
	case s.closed:
		s.lmu.Unlock()
		return ErrClosed
	case s.owner.Load() == h:
		s.lmu.Unlock()
		return fmt.Errorf("write lock already held: %w", ErrBusy)
	case s.owner.Load() == nil:
		s.owner.Store(h)
		s.lmu.Unlock()
		return nil
	}
	if h.grant == nil {
		h.grant = make(chan error, 1)
	}
	s.queue = append(s.queue, h)
	s.lmu.Unlock()
	select {
	case err := <-h.grant:
		return err
	case <-ctx.Done():
	}
	s.lmu.Lock()
	defer s.lmu.Unlock()
	if i := slices.Index(s.queue, h); i >= 0 {
		s.queue = slices.Delete(s.queue, i, i+1)
		return ctx.Err()
	}
	// Granted (or closed) at the same moment: pass it on.
	if err := <-h.grant; err != nil {
		return err
	}
	s.handOn()
	return ctx.Err()
}

// UnlockWrite gives the write lock to the next in the queue. A transaction that
// is still open on h is rolled back. A handle that still pins a snapshot above
// the hardened LSN cannot read until it takes a new one (G2).
func (s *Store) UnlockWrite(h *Handle) {
	if s.owner.Load() != h {
		return
	}
	if h.level >= LockReserved {
		h.discard()
		h.level = LockShared
	}
	if h.snap != nil {
		s.mu.Lock()
		h.expired = h.snap.lsn > s.hard.lsn
		s.mu.Unlock()
	}
	s.lmu.Lock()
	s.handOn()
	s.lmu.Unlock()
}

// handOn passes the lock to the first waiter. Under lmu.
func (s *Store) handOn() {
	if len(s.queue) == 0 {
		s.owner.Store(nil)
		return
	}
	h := s.queue[0]
	s.queue = slices.Delete(s.queue, 0, 1)
	s.owner.Store(h)
	h.grant <- nil
}

// Owned reports whether some handle owns the write lock.
func (s *Store) Owned() bool { return s.owner.Load() != nil }

// Snap is a pinned hardened snapshot, for backups. Not safe for concurrent use.
type Snap struct {
	s  *Store
	sn *snap
}

// Snapshot pins the newest hardened state, which is the end of a whole package.
func (s *Store) Snapshot() *Snap { return &Snap{s, s.pinHard()} }

// Readable reports whether redo has come to Options.Whole.
func (s *Store) Readable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hard.lsn >= s.opt.Whole
}

// LSN of the snapshot.
func (p *Snap) LSN() base.LSN { return p.sn.lsn }

// Pages of the snapshot.
func (p *Snap) Pages() uint32 { return p.sn.npages }

// ReadPage copies page n, from 1, sealed as in a data file, into buf of page size.
func (p *Snap) ReadPage(n uint32, buf []byte) error {
	if n == 0 || n > p.sn.npages || len(buf) != p.s.ps {
		return fmt.Errorf("page %d of %d, buffer %d: %w", n, p.sn.npages, len(buf), ErrShortRead)
	}
	data, _, err := p.s.image(n, p.sn.lsn)
	if err != nil {
		return err
	}
	clear(buf[copy(buf, data):])
	return nil
}

// Close releases the snapshot. It may be called twice.
func (p *Snap) Close() {
	if p.sn != nil {
		p.s.release(p.sn)
		p.sn = nil
	}
}
