package pagestore

import (
	"context"
	"errors"
	"fmt"
	"math"

	"datawatch/internal/base"
)

// Checkpoint writes every hardened change that the data file lacks: first to the
// doublewrite area, then to its place, in batches. It always goes to the LSN that
// is hardened when it begins (G4), whatever upTo says, and returns that LSN: all
// changes up to it are in the file and synced. When it is already there and
// nothing below upTo is missing, it writes nothing. Before a page is overwritten,
// what pinned snapshots still need of it is put into memory.
//
// An error leaves everything as safe as before; the next call does the work again.
func (s *Store) Checkpoint(ctx context.Context, upTo base.LSN) (base.LSN, error) {
	s.cmu.Lock()
	defer s.cmu.Unlock()
	s.mu.Lock()
	if s.ckpt >= min(upTo, s.hard.lsn) {
		done := s.ckpt
		s.mu.Unlock()
		return done, nil
	}
	h := s.pin(s.hard)
	s.turn = make(chan struct{})
	s.mu.Unlock()
	defer s.release(h)
	defer s.nextTurn(true)
	defer func() { s.dw.buf = nil }()

	if err := s.cutFile(ctx, h.state); err != nil {
		return 0, err
	}
	for from := uint32(1); from != 0; {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		var err error
		if from, err = s.writeBatch(h.state, from); err != nil {
			return 0, fmt.Errorf("checkpoint at LSN %d: %w", h.lsn, err)
		}
		s.nextTurn(false)
	}
	// The file is exactly as long as the database was: recovery takes its size
	// from there until the log says otherwise.
	size, err := s.f.Size()
	if want := int64(h.npages) * int64(s.ps); err == nil && size != want {
		if err = s.f.Truncate(want); err == nil {
			s.clean.truncate(h.npages)
			err = s.f.Sync()
		}
	}
	if err != nil {
		return 0, fmt.Errorf("checkpoint at LSN %d: size of %s: %w", h.lsn, s.path, err)
	}
	s.mu.Lock()
	s.ckpt = h.lsn
	s.mu.Unlock()
	return h.lsn, nil
}

// nextTurn lets those go on that wait for the checkpoint to free memory.
func (s *Store) nextTurn(last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.turn)
	if s.turn = nil; !last {
		s.turn = make(chan struct{})
	}
}

type write struct {
	page uint32
	v    *version
}

// writeBatch writes up to dwPages dirty pages from page from on and returns
// where to go on, 0 at the end.
func (s *Store) writeBatch(h state, from uint32) (next uint32, err error) {
	var batch []write
	s.mu.Lock()
	s.eachDirty(from, func(p uint32, g *seg) bool {
		if len(batch) == dwPages {
			next = p
			return false
		}
		head := g.head[p&(segSize-1)].Load()
		v := s.find(p, h.lsn)
		if v == nil && p <= h.npages {
			// The file had this page, ahead of its redo, until it was cut; redo up
			// to h that changed the page was skipped, so no restart may need it.
			v = keptAbove(head, h.lsn)
		}
		if v == nil || p > h.npages {
			if head == nil || head.lsn <= h.lsn { // truncated away
				s.clearDirty(p, g)
				s.dropSeg(p, g)
			}
			return true
		}
		batch = append(batch, write{p, v})
		return true
	})
	pins := s.pinsBelow(h.lsn)
	s.mu.Unlock()
	if len(batch) == 0 {
		return next, nil
	}
	pages := make([]uint32, len(batch))
	buf := s.dw.begin(len(batch))
	for i, w := range batch {
		if err := s.keepOld(w.page, w.v.lsn, pins); err != nil {
			return 0, err
		}
		pages[i] = w.page
		dst := buf[i*s.ps : (i+1)*s.ps]
		if err := s.fill(dst, w.v); err != nil {
			return 0, err
		}
	}
	if err := s.dw.save(pages, h.lsn); err != nil {
		return 0, err
	}
	for i := 0; i < len(batch); {
		n := 1
		for i+n < len(batch) && pages[i+n] == pages[i]+uint32(n) {
			n++
		}
		if _, err := s.f.WriteAt(buf[i*s.ps:(i+n)*s.ps], int64(pages[i]-1)*int64(s.ps)); err != nil {
			return 0, fmt.Errorf("write %s page %d: %w", s.path, pages[i], err)
		}
		i += n
	}
	if err := s.f.Sync(); err != nil {
		return 0, fmt.Errorf("sync %s: %w", s.path, err)
	}
	for _, w := range batch {
		s.clean.overwrite(w.page, w.v.data, w.v.lsn)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range batch {
		if w.v.kept && s.cuts.Load().covers(w.page, h.lsn, w.v.lsn) != 0 {
			continue // the file is going to be cut below it, and needs it once more then
		}
		g := s.segOf(w.page)
		if h := g.head[w.page&(segSize-1)].Load(); h != nil && h.lsn == w.v.lsn {
			s.clearDirty(w.page, g)
		}
		s.unlink(w.page, w.v.lsn, false)
	}
	return next, nil
}

// keptAbove returns the kept version above lsn in the chain of head, nil when there
// is none. Under mu.
func keptAbove(head *version, lsn base.LSN) (kept *version) {
	for v := head; v != nil && v.lsn > lsn; v = v.prev.Load() {
		if v.kept {
			kept = v
		}
	}
	return kept
}

// fill copies the page of a version. The checkpointer alone unlinks versions
// that the data file lacks and a snapshot may need, so v is still there.
func (s *Store) fill(dst []byte, v *version) error {
	data := v.data
	if v.slot.Load() != 0 {
		var err error
		if data, err = s.load(v, nil); err == nil && data == nil {
			err = fmt.Errorf("version %d left the spill file: %w", v.lsn, ErrDamaged)
		}
		if err != nil {
			return err
		}
	}
	clear(dst[copy(dst, data):])
	return nil
}

// pinsBelow returns the pinned states below lsn, newest first. States pinned
// later are at lsn or above, when lsn is hardened. Under mu.
func (s *Store) pinsBelow(lsn base.LSN) []state {
	var out []state
	for i := s.pinIndex(lsn) - 1; i >= 0; i-- {
		out = append(out, s.pins[i].state)
	}
	return out
}

// keepOld puts into the chain of page p what pins below lsn see of it in the
// data file, which is about to be overwritten. Newest pins first: a state found
// for one then hides from older ones nothing that they need.
func (s *Store) keepOld(p uint32, lsn base.LSN, pins []state) error {
	for _, pin := range pins {
		if pin.lsn >= lsn || pin.npages < p || s.find(p, pin.lsn) != nil {
			continue
		}
		data, have, err := s.image(p, pin.lsn)
		if errors.Is(err, ErrDamaged) {
			continue // that snapshot cannot be served, but the new page can be written
		} else if err != nil {
			return err
		}
		s.putBack(p, pin.lsn, have, data)
	}
	return nil
}

// putBack inserts version have of page p, which snapshot pin sees, where its age
// puts it in the chain.
func (s *Store) putBack(p uint32, pin, have base.LSN, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Zeros of a file that was cut say LSN 0; they are as old as what they replaced.
	for n := s.head(p); n != nil; n = n.prev.Load() {
		if n.lsn <= pin {
			have = max(have, base.LSN(n.end.Load()))
			break
		}
	}
	until := base.LSN(math.MaxUint64)
	v := &version{lsn: have, data: data}
	for _, c := range *s.cuts.Load() {
		if c.lsn > have && c.n < p {
			v.end.Store(uint64(c.lsn))
			until = c.lsn
			break
		}
	}
	g := s.makeSeg(p)
	at := &g.head[p&(segSize-1)]
	if at.Load() == nil {
		g.used++
	}
	for n := at.Load(); n != nil && n.lsn > have; n = at.Load() {
		until = min(until, n.lsn)
		at = &n.prev
	}
	if n := at.Load(); n != nil && n.lsn == have {
		return
	}
	v.prev.Store(at.Load())
	at.Store(v)
	s.counted(v)
	s.settle(dead{p, have, until})
}

// cutFile truncates the data file as far as any truncation up to h did, so that
// pages that came back since read as zeros until they are written.
func (s *Store) cutFile(ctx context.Context, h state) error {
	cuts := *s.cuts.Load()
	n, last := uint32(math.MaxUint32), base.LSN(0)
	for _, c := range cuts {
		if c.lsn <= h.lsn {
			n, last = min(n, c.n), c.lsn
		}
	}
	if last == 0 {
		return nil
	}
	s.mu.Lock()
	pins := s.pinsBelow(last)
	s.mu.Unlock()
	if len(pins) > 0 {
		for p, end := n+1, s.filePages(); p <= end; p++ {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := s.keepOld(p, last, pins); err != nil {
				return fmt.Errorf("checkpoint at LSN %d: %w", h.lsn, err)
			}
		}
	}
	size, err := s.f.Size()
	if want := int64(n) * int64(s.ps); err == nil && size > want {
		if err = s.f.Truncate(want); err == nil {
			err = s.f.Sync()
		}
	}
	if err != nil {
		return fmt.Errorf("checkpoint at LSN %d: truncate %s: %w", h.lsn, s.path, err)
	}
	s.clean.truncate(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	var rest cutList
	for _, c := range *s.cuts.Load() {
		if c.lsn > h.lsn {
			rest = append(rest, c)
		}
	}
	s.cuts.Store(&rest)
	return nil
}
