package engine

import (
	"context"
	"fmt"
	"sync"

	"datawatch/internal/base"
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

	maxPkg, limit, maxTx int
}

// segment is the redo of one package.
type segment struct {
	raw      []byte
	n        uint32
	min, max base.LSN
	open     *base.OpenRecord // the open record in it
	done     chan struct{}    // closed when it is hardened; made by the first waiter
}

func (b *redoBuffer) init(cfg Config) {
	b.maxPkg, b.limit = cfg.MaxPackage, cfg.RedoBuffer
}

// setLog fits the limits to the size of the online log.
func (b *redoBuffer) setLog(total int64) {
	b.maxPkg = min(b.maxPkg, int(total/4))
	b.maxTx = int(total - total/8 - 4096)
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
func (e *Engine) Reserve(ctx context.Context, bytes int) error {
	b := &e.buf
	b.mu.Lock()
	defer b.mu.Unlock()
	if bytes > b.maxTx {
		return fmt.Errorf("%w: %d bytes of redo, at most %d", ErrTooLarge, bytes, b.maxTx)
	}
	for {
		if b.refusal != nil {
			return b.refusal
		}
		if b.bytes == 0 || b.bytes+bytes <= b.limit {
			b.reserved++
			return nil
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
	b.add(ptx, lsn, nil)
	b.wakeLocked()
	b.mu.Unlock()
	kick(e.kickF)
}

// add appends a PTX. Under mu.
func (b *redoBuffer) add(ptx []byte, lsn base.LSN, open *base.OpenRecord) {
	var s *segment
	if n := len(b.segs); n > 0 && len(b.segs[n-1].raw)+len(ptx) <= b.maxPkg && open == nil && b.segs[n-1].open == nil {
		s = b.segs[n-1]
	} else {
		s = &segment{min: lsn, open: open, raw: make([]byte, 0, max(len(ptx), min(b.size, b.maxPkg)))}
		b.segs = append(b.segs, s)
	}
	s.raw = append(s.raw, ptx...)
	s.n++
	s.max = lsn
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

// Flight returns a channel that is closed when the package under way has been
// hardened, nil when none is under way.
func (e *Engine) Flight() <-chan struct{} {
	b := &e.buf
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.flying
	if s == nil {
		return nil
	}
	if s.done == nil {
		s.done = make(chan struct{})
	}
	return s.done
}

// WaitHardened waits until lsn is hardened: the moment at which a commit may be
// acknowledged (G1). In status Suspend it waits on. Errors: ctx's, ErrClosed,
// ErrHalted; the outcome of the commit is then unknown.
func (e *Engine) WaitHardened(ctx context.Context, lsn base.LSN) error {
	for e.Hardened() < lsn {
		ch := e.buf.waitFor(lsn)
		if e.Hardened() >= lsn {
			return nil
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
