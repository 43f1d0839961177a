package engine

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"datawatch/internal/base"
	"datawatch/internal/storage/redo"
)

// redoBuffer holds committed PTXs that wait for the flusher, already cut into
// packages: while one is on its way, the next fills.
type redoBuffer struct {
	mu       sync.Mutex
	segs     []*segment // waiting, oldest first
	flying   *segment   // taken by the flusher
	bytes    int        // of segs and flying
	reserved int        // Reserve without Commit or Cancel yet
	refusal  error      // what Reserve answers; nil: it accepts
	last     base.LSN   // newest assigned
	size     int        // hint for the next segment
	moved    chan struct{}
	freed    chan struct{} // closed when bytes, reserved or refusal change, when somebody waits

	stats LogStats // counters
	waits atomic.Int64

	maxPkg, limit int

	// A large transaction whose last part has not come: LSN and redo so far. Its
	// parts wait for the flusher at partLimit, so that what is committed next does
	// not stand behind more than that; maxChain bounds it where the log must hold
	// it from its beginning on (0: nothing does).
	chain               base.LSN
	chainBytes          int64
	partLimit, maxChain int
}

// segment is the redo of one package.
type segment struct {
	raw      []byte
	n        uint32
	min, max base.LSN
	pkg      *redo.Package    // what the flusher has made of it
	open     *base.OpenRecord // the open record in it
	chain    base.LSN         // first part of the large transaction open after it, 0: none
	done     chan struct{}    // closed when it is hardened; made by the first waiter
	// What Flight gives out, made when asked for.
	logging bool          // it has been shipped
	shipped chan struct{} // closed then
	gone    chan struct{} // closed when it is hardened, before done
}

func (b *redoBuffer) init(cfg Config) {
	b.maxPkg, b.limit = cfg.MaxPackage, cfg.RedoBuffer
}

// setLog fits the limits to the size of the online log. archived says that a
// large transaction need not stay in it: the archive has its beginning.
func (b *redoBuffer) setLog(total int64, archived bool) {
	b.maxPkg = min(b.maxPkg, int(total/4))
	b.partLimit = min(2*b.maxPkg, b.limit)
	if !archived {
		b.maxChain = int(total - total/8 - 4096)
	}
}

func (b *redoBuffer) lastLSN() base.LSN {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last
}

// refuse makes Reserve answer err; nil: it accepts.
func (b *redoBuffer) refuse(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refusal == ErrClosed { // for good
		return
	}
	b.refusal = err
	b.wakeLocked()
}

func (b *redoBuffer) wakeLocked() {
	if b.freed != nil {
		close(b.freed)
		b.freed = nil
	}
}

func (b *redoBuffer) waitLocked() chan struct{} {
	if b.freed == nil {
		b.freed = make(chan struct{})
	}
	return b.freed
}

// Reserve implements pagestore.Committer. It waits while the redo buffer is
// full, which it stays in status Suspend.
func (e *Engine) Reserve(ctx context.Context, lsn base.LSN, bytes int) error {
	b := &e.buf
	b.mu.Lock()
	defer b.mu.Unlock()
	return e.room(ctx, lsn, bytes, b.limit, &b.stats.Alloc)
}

// room waits until bytes more fit the buffer below limit, and reserves them; it
// counts that it has to wait. Under buf.mu.
func (e *Engine) room(ctx context.Context, lsn base.LSN, bytes, limit int, waits *int64) error {
	b := &e.buf
	for first := true; ; first = false {
		if b.refusal != nil {
			return b.refusal
		}
		if b.last+1 != lsn { // mounted and opened since the writer asked for its LSN
			return fmt.Errorf("commit at LSN %d, the log is at %d: %w", lsn, b.last, ErrNotOpen)
		}
		if b.bytes == 0 || b.bytes+bytes <= limit {
			b.reserved++
			return nil
		}
		if first {
			*waits++
		}
		ch := b.waitLocked()
		b.mu.Unlock()
		var err error
		select {
		case <-ch:
		case <-ctx.Done():
			err = ctx.Err()
		case <-e.ctx.Done():
			err = e.stopErr()
		}
		b.mu.Lock()
		if err != nil {
			return err
		}
	}
}

// Part implements pagestore.Committer. Without an archive the log must hold the
// whole transaction, as recovery begins before its first part: one that would
// not fit is refused before it fills the log.
func (e *Engine) Part(ctx context.Context, ptx []byte, lsn base.LSN, first bool) error {
	b := &e.buf
	b.mu.Lock()
	defer b.mu.Unlock()
	size := int64(len(ptx))
	if !first {
		size += b.chainBytes
	}
	if b.maxChain > 0 && size+int64(b.maxPkg) > int64(b.maxChain) {
		return fmt.Errorf("%w: more than %d bytes of redo (with a local archive there is no limit)", ErrTooLarge, size)
	}
	if err := e.room(ctx, lsn, len(ptx), b.partLimit, &b.stats.Parts); err != nil {
		return err
	}
	b.reserved--
	if first {
		b.chain = lsn
	}
	b.chainBytes = size
	b.add(ptx, lsn, nil, first)
	b.wakeLocked()
	kick(e.kickF)
	return nil
}

// Abandon implements pagestore.Committer.
func (e *Engine) Abandon(ptx []byte, lsn base.LSN) bool {
	b := &e.buf
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refusal != nil || b.last+1 != lsn {
		return false
	}
	b.chain = 0
	b.add(ptx, lsn, nil, false)
	kick(e.kickF)
	return true
}

// Cancel implements pagestore.Committer.
func (e *Engine) Cancel() {
	b := &e.buf
	b.mu.Lock()
	b.reserved--
	b.wakeLocked()
	b.mu.Unlock()
}

// NextLSN implements pagestore.Committer.
func (e *Engine) NextLSN() base.LSN { return e.buf.lastLSN() + 1 }

// Commit implements pagestore.Committer.
func (e *Engine) Commit(ptx []byte, lsn base.LSN) {
	b := &e.buf
	b.mu.Lock()
	b.reserved--
	b.chain = 0
	b.add(ptx, lsn, nil, false)
	b.wakeLocked()
	b.mu.Unlock()
	kick(e.kickF)
}

// add appends a PTX, if begin is true at the beginning of a package. Under mu.
func (b *redoBuffer) add(ptx []byte, lsn base.LSN, open *base.OpenRecord, begin bool) {
	var s *segment
	if n := len(b.segs); n > 0 && len(b.segs[n-1].raw)+len(ptx) <= b.maxPkg && open == nil && b.segs[n-1].open == nil && !begin {
		s = b.segs[n-1]
	} else {
		s = &segment{min: lsn, open: open, raw: make([]byte, 0, max(len(ptx), min(b.size, b.maxPkg)))}
		b.segs = append(b.segs, s)
	}
	s.raw = append(s.raw, ptx...)
	s.n++
	b.stats.Requests++
	s.max, s.chain = lsn, b.chain
	b.last = lsn
	b.bytes += len(ptx)
}

// waiting counts the PTXs of the package to come.
func (b *redoBuffer) waiting() uint32 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.segs) == 0 {
		return 0
	}
	return b.segs[0].n
}

// take gives the oldest segment to the flusher.
func (b *redoBuffer) take() *segment {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.segs) == 0 {
		return nil
	}
	s := b.segs[0]
	n := copy(b.segs, b.segs[1:])
	b.segs[n] = nil
	b.segs = b.segs[:n]
	b.flying = s
	b.stats.Taken++
	b.size = len(s.raw) + len(s.raw)/4
	return s
}

// landed says that the flying segment is hardened.
func (b *redoBuffer) landed() {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.flying
	b.flying = nil
	b.bytes -= len(s.raw)
	if s.gone != nil { // first: its commit is the next package
		close(s.gone)
	}
	if s.done != nil {
		close(s.done)
	}
	b.moveLocked()
	b.wakeLocked()
}

func (b *redoBuffer) moveLocked() {
	if b.moved != nil {
		close(b.moved)
		b.moved = nil
	}
}

// waitFor returns a channel that is closed when lsn is hardened, or when it is
// worth looking again.
func (b *redoBuffer) waitFor(lsn base.LSN) chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	find := func(s *segment) bool { return s != nil && s.min <= lsn && lsn <= s.max }
	s := b.flying
	if !find(s) {
		s = nil
		for _, w := range b.segs {
			if find(w) {
				s = w
			}
		}
	}
	if s != nil {
		if s.done == nil {
			s.done = make(chan struct{})
		}
		return s.done
	}
	if b.moved == nil {
		b.moved = make(chan struct{})
	}
	return b.moved
}

// shipped says that the flying segment has been shipped and is being logged.
func (b *redoBuffer) shipped() {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.flying
	s.logging = true
	if s.shipped != nil {
		close(s.shipped)
		s.shipped = nil
	}
}

// Flight returns a channel that is closed when a commit can be of use to the
// next package, nil when none is under way: when the one under way has been
// shipped, so that the next is there when that is in the log, or, after that,
// when it is hardened.
func (e *Engine) Flight() <-chan struct{} {
	b := &e.buf
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.flying
	switch {
	case s == nil:
		return nil
	case !s.logging:
		if s.shipped == nil {
			s.shipped = make(chan struct{})
		}
		return s.shipped
	}
	if s.gone == nil {
		s.gone = make(chan struct{})
	}
	return s.gone
}

// WaitHardened waits until lsn is hardened: the moment at which a commit may be
// acknowledged (G1). In status Suspend it waits on. Errors: ctx's, ErrClosed,
// ErrHalted; the outcome of the commit is then unknown.
func (e *Engine) WaitHardened(ctx context.Context, lsn base.LSN) error {
	for first := true; e.Hardened() < lsn; first = false {
		ch := e.buf.waitFor(lsn)
		if e.Hardened() >= lsn {
			return nil
		}
		if first {
			e.buf.waits.Add(1)
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return ctx.Err()
		case <-e.ctx.Done():
			if e.Hardened() >= lsn {
				return nil
			}
			return e.stopErr()
		}
	}
	return nil
}

func kick(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
