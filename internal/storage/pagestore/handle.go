package pagestore

import (
	"bytes"
	"context"
	"fmt"

	"datawatch/internal/base"
	"datawatch/internal/storage/page"
	"datawatch/internal/storage/redo"
)

// Handle is the file of one SQLite connection. Like the connection it is used by
// one goroutine at a time.
type Handle struct {
	s        *Store
	readOnly bool
	private  bool // see NewPrivate
	level    int
	snap     *snap // pinned from LockShared up
	expired  bool  // snap lost its right to be read: see UnlockWrite
	grant    chan error
	ctx      context.Context

	// The transaction being written, from LockReserved up.
	dirty    map[uint32][]byte
	slots    *slotTable // pages that are in the spill file instead; nil: none
	order    []uint32   // keys of both, in order of the first write
	npages   uint32
	minPages uint32 // smallest size since the beginning
	ptx      []byte // made by Sync; nil: nothing changed
	ptxLSN   base.LSN
	parts    int  // of a large transaction that the log has, not counting ptx
	prepared bool // ptx is of the current state
	reserved bool
	commit   bool // CommitPhaseTwo was seen

	last base.LSN
	seen base.LSN // see Seen
}

// NewHandle makes a handle. Writing through a read-only one is ErrReadOnly.
func (s *Store) NewHandle(readOnly bool) *Handle {
	return &Handle{s: s, readOnly: readOnly, dirty: map[uint32][]byte{}, ctx: context.Background()}
}

// privatePages of a private transaction are in memory, the others in the spill file.
const privatePages = 256

// NewPrivate makes a handle whose transactions change a hardened snapshot, for
// themselves alone: they need no write lock, read nothing that is not hardened
// (G2), and can only be rolled back.
func (s *Store) NewPrivate() *Handle {
	h := s.NewHandle(false)
	h.private = true
	return h
}

// room is how many pages of a transaction the handle may have in memory.
func (h *Handle) room() int {
	if h.private {
		return min(privatePages, h.s.memPages)
	}
	return h.s.memPages
}

// SetContext sets the context under which Sync waits for log space; nil means Background.
func (h *Handle) SetContext(ctx context.Context) {
	if ctx == nil {
		ctx = context.Background()
	}
	h.ctx = ctx
}

// Lock raises the lock to level. LockShared pins a snapshot: the newest state
// for the owner of the write lock, the newest hardened one for anybody else
// (G2). LockReserved and above need the write lock (ErrBusy without it) and the
// newest state (ErrBusySnapshot), but for a private handle; they never wait.
func (h *Handle) Lock(level int) error {
	if h.level >= level {
		return nil
	}
	s := h.s
	own := s.owner.Load() == h
	if h.level == LockNone {
		s.mu.Lock()
		if s.hard.lsn < s.opt.Whole {
			s.mu.Unlock()
			return ErrNotWhole
		}
		if own {
			h.snap = s.pin(s.newest)
		} else {
			h.snap = s.pin(s.hard)
		}
		s.mu.Unlock()
		h.level, h.expired = LockShared, false
	}
	if level <= LockShared {
		return nil
	}
	if h.readOnly {
		return ErrReadOnly
	}
	if h.level < LockReserved {
		s.mu.Lock()
		stale := h.snap.lsn != s.newest.lsn
		s.mu.Unlock()
		switch {
		case h.private:
		case stale:
			return ErrBusySnapshot
		case !own:
			return ErrBusy
		}
		h.npages, h.minPages = h.snap.npages, h.snap.npages
		h.last = 0
	}
	h.level = level
	return nil
}

// Unlock lowers the lock to level. From LockReserved it ends the transaction:
// published when CommitPhaseTwo was seen, rolled back otherwise. An error means
// that a commit could not be published and was rolled back; that happens only to
// callers that skip Sync, and to private handles, which cannot commit.
func (h *Handle) Unlock(level int) error {
	if h.level <= level {
		return nil
	}
	var err error
	if h.level >= LockReserved && level < LockReserved {
		if h.commit && h.private {
			err = ErrPrivate
			h.discard()
		} else if h.commit {
			err = h.publish()
		} else {
			h.discard()
		}
		h.level = LockShared
	}
	if level == LockNone && h.snap != nil {
		h.s.release(h.snap)
		h.snap = nil
	}
	h.level = level
	return err
}

// CheckReserved reports whether another handle may be writing.
func (h *Handle) CheckReserved() bool {
	o := h.s.owner.Load()
	return o != nil && o != h
}

// ReadAt reads within one page. Beyond the end the rest of b is zeroed and the
// error is ErrShortRead.
func (h *Handle) ReadAt(b []byte, off int64) (int, error) {
	s := h.s
	if off < 0 || off%int64(s.ps)+int64(len(b)) > int64(s.ps) {
		return 0, fmt.Errorf("read of %d bytes at offset %d crosses a page", len(b), off)
	}
	if h.expired {
		return 0, fmt.Errorf("read after the write lock was given up: %w", ErrNotOwner)
	}
	sn := h.snap
	if sn == nil { // SQLite reads the header once before it locks
		if !s.Readable() {
			return 0, ErrNotWhole
		}
		sn = s.pinHard()
		defer s.release(sn)
	}
	at := off / int64(s.ps)
	np := sn.npages
	if h.level >= LockReserved {
		np = h.npages
	}
	if at >= int64(np) {
		clear(b)
		return 0, ErrShortRead
	}
	p, o := uint32(at)+1, int(off%int64(s.ps))
	var data []byte
	if h.level >= LockReserved {
		if d := h.dirty[p]; d != nil {
			return copy(b, d[o:]), nil
		}
		if d, err := h.spilled(p); err != nil {
			return 0, err
		} else if d != nil {
			copy(b, d[o:])
			s.putBuf(d)
			return len(b), nil
		}
	}
	if h.level < LockReserved || p <= h.minPages { // else: new since a truncation, zeros
		var have base.LSN
		var err error
		if data, have, err = s.image(p, sn.lsn); err != nil {
			return 0, err
		}
		if have > h.seen && h == s.owner.Load() && (p != 1 || h.tells(o, len(b), data)) {
			h.seen = have
		}
	}
	if data == nil {
		clear(b)
	} else {
		copy(b, data[o:])
	}
	return len(b), nil
}

// Seen returns the newest LSN that changed a page which the handle has read
// since ForgetSeen while it had the write lock: when that is hardened, so is
// everything that follows from what was read (G2). Changes of page 1 count only
// where they are not in the fields of the file header that every commit changes.
func (h *Handle) Seen() base.LSN { return h.seen }

// ForgetSeen begins anew. The caller's cache must hold no page that is not
// hardened: what is read from there is not seen here.
func (h *Handle) ForgetSeen() { h.seen = 0 }

// tells reports whether the n bytes from offset o on of page 1, data, differ from
// the hardened ones in more than what says only that there was a commit: change
// counter, size and free list (24 to 39) and version-valid-for (92 to 99).
func (h *Handle) tells(o, n int, data []byte) bool {
	s := h.s
	sn := s.pinHard()
	defer s.release(sn)
	old, _, err := s.image(1, sn.lsn)
	if err != nil || len(old) != len(data) {
		return true
	}
	for _, r := range [...][2]int{{0, 24}, {40, 92}, {100, s.ps - page.TrailerSize}} {
		from, to := max(r[0], o), min(r[1], o+n)
		if from < to && !bytes.Equal(old[from:to], data[from:to]) {
			return true
		}
	}
	return false
}

// WriteAt writes one whole page of the transaction, privately.
func (h *Handle) WriteAt(b []byte, off int64) (int, error) {
	s := h.s
	if h.level < LockReserved {
		return 0, fmt.Errorf("write at offset %d: %w", off, ErrNotOwner)
	}
	if len(b) != s.ps || off < 0 || off%int64(s.ps) != 0 || off/int64(s.ps) >= 1<<32-2 {
		return 0, fmt.Errorf("write of %d bytes at offset %d is not one page", len(b), off)
	}
	h.prepared = false
	p := uint32(off/int64(s.ps)) + 1
	d := h.dirty[p]
	if d == nil {
		if len(h.dirty) >= h.room() || h.slots != nil && h.slots.get(p) != 0 {
			if err := h.writeSpilled(p, b); err != nil {
				return 0, err
			}
			h.npages = max(h.npages, p)
			return len(b), nil
		}
		d = s.getBuf()
		h.dirty[p] = d
		h.order = append(h.order, p)
	}
	copy(d, b)
	h.npages = max(h.npages, p)
	return len(b), nil
}

// Truncate sets the size of the transaction's database, in bytes.
func (h *Handle) Truncate(size int64) error {
	s := h.s
	if h.level < LockReserved {
		return fmt.Errorf("truncate: %w", ErrNotOwner)
	}
	if size < 0 || size%int64(s.ps) != 0 || size/int64(s.ps) >= 1<<32-1 {
		return fmt.Errorf("truncate to %d bytes: not whole pages", size)
	}
	h.prepared = false
	n := uint32(size / int64(s.ps))
	if n < h.npages {
		keep := h.order[:0]
		for _, p := range h.order {
			if p <= n {
				keep = append(keep, p)
				continue
			}
			h.drop(p)
		}
		h.order = keep
	}
	h.npages = n
	h.minPages = min(h.minPages, n)
	return nil
}

// Size returns the size of what the handle sees, in bytes.
func (h *Handle) Size() (int64, error) {
	np := uint32(0)
	switch {
	case h.level >= LockReserved:
		np = h.npages
	case h.snap != nil:
		np = h.snap.npages
	default:
		np = h.s.Pages()
	}
	return int64(np) * int64(h.s.ps), nil
}

// Sync does everything of a commit that can fail: it compares the pages with
// their last versions, encodes the PTX and reserves log space for it
// (Committer.Reserve, whose errors it returns). Call it after the last WriteAt.
// Of a private transaction there is nothing to prepare.
func (h *Handle) Sync() error {
	if h.private {
		return nil // SQLite syncs after a rollback too
	}
	if h.level < LockReserved || h.prepared {
		return nil
	}
	s := h.s
	if len(h.order) == 0 && h.npages == h.snap.npages && h.minPages == h.npages {
		h.ptx, h.prepared = nil, true
		return nil
	}
	if h.reserved {
		h.cancel()
	}
	if s.com == nil {
		return ErrReadOnly
	}
	h.parts = 0 // of an earlier Sync: the first part, or a single PTX, takes their place
	h.ptxLSN = s.com.NextLSN()
	if h.ptxLSN <= h.snap.lsn {
		return fmt.Errorf("next LSN %d is not above the newest, %d", h.ptxLSN, h.snap.lsn)
	}
	b := &s.builder
	h.begin(redo.KindCommit)
	size := h.snap.npages
	changed := false
	if h.minPages < size {
		b.Resize(s.opt.Tablespace, s.opt.File, h.minPages)
		size, changed = h.minPages, true
	}
	for _, p := range h.order {
		differs, err := h.diff(p)
		if err != nil {
			return fmt.Errorf("prepare commit: %w", err)
		}
		changed = changed || differs
		if b.Len() >= s.opt.PartBytes {
			if err := h.part(); err != nil {
				return err
			}
		}
	}
	if h.npages != size {
		b.Resize(s.opt.Tablespace, s.opt.File, h.npages)
		changed = true
	}
	if !changed {
		h.ptx, h.prepared = nil, true
		return nil
	}
	h.ptx = b.Finish()
	if err := s.com.Reserve(h.ctx, h.ptxLSN, len(h.ptx)); err != nil {
		return err
	}
	h.reserved, h.prepared = true, true
	return nil
}

// CommitPhaseTwo marks the transaction as committed; Unlock publishes it.
func (h *Handle) CommitPhaseTwo() {
	if h.level >= LockReserved {
		h.commit = true
	}
}

// LastCommit returns the LSN of the PTX that the last write transaction of this
// handle published, 0 when it published none. It is what the session waits for.
func (h *Handle) LastCommit() base.LSN { return h.last }

// Close rolls back, releases every lock and the write lock.
func (h *Handle) Close() error {
	h.commit = false
	err := h.Unlock(LockNone)
	h.s.UnlockWrite(h)
	return err
}

func (h *Handle) cancel() {
	h.s.com.Cancel()
	h.reserved = false
}

// discard drops the transaction.
func (h *Handle) discard() {
	for _, p := range h.order {
		if d := h.dirty[p]; d != nil {
			h.s.putBuf(d)
		} else {
			h.drop(p)
		}
	}
	if h.reserved {
		h.cancel()
	}
	h.abandon()
	h.reset()
	if !h.private {
		h.s.rolledBack.Add(1)
	}
}

func (h *Handle) reset() {
	if len(h.order) > 1024 { // a huge map would stay huge
		h.dirty, h.order = map[uint32][]byte{}, nil
	} else {
		clear(h.dirty)
		h.order = h.order[:0]
	}
	h.slots = nil
	h.ptx, h.parts, h.prepared, h.commit, h.reserved = nil, 0, false, false, false
}

// publish makes the transaction the newest state and hands its PTX to the
// Committer. The caller owns the write lock, so nothing else changes the newest
// state. Versions are installed before the newest state moves to them; nobody
// can pin an LSN in between.
func (h *Handle) publish() error {
	s := h.s
	if err := h.Sync(); err != nil {
		h.discard()
		return fmt.Errorf("commit without sync: %w", err)
	}
	if h.ptx == nil {
		h.discard()
		s.rolledBack.Add(-1)
		return nil
	}
	const chunk = 256 // pages installed without letting readers in
	lsn := h.ptxLSN
	for _, p := range h.order {
		if d := h.dirty[p]; d != nil { // a spilled one is sealed when it is read
			page.Seal(d, lsn, s.opt.Node)
		}
	}
	vs := make([]version, min(len(h.order), 16))
	s.mu.Lock()
	if h.minPages < h.snap.npages {
		s.cut(h.minPages, lsn)
	}
	for i, p := range h.order {
		if i%chunk == chunk-1 {
			s.mu.Unlock()
			s.mu.Lock()
		}
		if len(vs) == 0 {
			vs = make([]version, min(len(h.order)-i, 16))
		}
		v := &vs[0]
		vs = vs[1:]
		h.version(v, p, lsn)
		s.install(p, v)
	}
	s.advance(state{lsn, h.npages})
	old := h.snap
	h.snap = s.pin(s.newest) // the writer reads what it wrote
	over := s.nMem > s.maxMem
	s.mu.Unlock()
	s.release(old)
	s.com.Commit(h.ptx, lsn)
	h.last = lsn
	h.reset()
	s.published.Add(1)
	if over {
		s.relieve()
	}
	return nil
}
