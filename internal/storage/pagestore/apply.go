package pagestore

import (
	"fmt"
	"math"

	"datawatch/internal/base"
	"datawatch/internal/storage/page"
	"datawatch/internal/storage/redo"
)

// applied is a page that an Apply is changing.
type applied struct {
	data []byte
	over *version // unhardened version whose buffer data is
	keep base.LSN // not changed: the data file has this newer state
	cut  bool     // it was going to be cut below the page, when keep was found there
}

// Apply applies a PTX of the log, in LSN order: crash recovery, standby and the
// open record. It becomes visible with SetHardened. A PTX at or below the newest
// LSN and a record that a page already has are skipped, so that redo may be
// applied twice. After an error the store must be closed.
//
// Records are checked against the address of this file; unknown logical kinds
// and PTX kinds are refused. No handle may write meanwhile.
func (s *Store) Apply(ptx redo.PTX) error {
	s.amu.Lock()
	defer s.amu.Unlock()
	defer clear(s.work)
	s.mu.Lock()
	cur, hard, top := s.newest, s.hard.lsn, s.topPin()
	s.mu.Unlock()
	if ptx.LSN <= cur.lsn {
		return nil
	}
	switch ptx.Kind {
	case redo.KindCommit:
		s.dropParts() // of a transaction that came to nothing
	case redo.KindFirst, redo.KindNext, redo.KindLast:
		return s.relieved(s.applyPart(ptx, cur))
	default:
		return fmt.Errorf("apply LSN %d: PTX kind %d is not known here", ptx.LSN, ptx.Kind)
	}
	np, minp := cur.npages, cur.npages
	high := uint32(0)
	for rec, err := range ptx.Records() {
		if err != nil {
			return fmt.Errorf("apply LSN %d: %w", ptx.LSN, err)
		}
		if err := s.Known(rec); err != nil {
			return fmt.Errorf("apply LSN %d: %w", ptx.LSN, err)
		}
		if rec.Type == redo.RecLogical {
			continue
		}
		if rec.Type == redo.RecResize {
			np, minp = rec.NPages, min(minp, rec.NPages)
			for p := range s.work {
				if p > np {
					delete(s.work, p)
				}
			}
			high = min(high, np)
			continue
		}
		p := rec.Addr.Page
		high = max(high, p)
		w, ok := s.work[p]
		if !ok {
			if w, err = s.base(p, p > minp, 0, ptx.LSN, hard, top); err != nil {
				return fmt.Errorf("apply LSN %d: %w", ptx.LSN, err)
			}
			s.work[p] = w
		}
		if w.keep != 0 {
			continue
		}
		if err := rec.ApplyTo(w.data); err != nil {
			return fmt.Errorf("apply LSN %d to page %d: %w", ptx.LSN, p, err)
		}
	}
	// During crash recovery the file may already be as short as a later PTX of the
	// log makes it; a published PTX that grows the file says so itself.
	np = max(np, high)
	for _, w := range s.work {
		if w.keep == 0 {
			page.Seal(w.data, ptx.LSN, ptx.Node)
		}
	}
	s.mu.Lock()
	if minp < cur.npages {
		s.cut(minp, ptx.LSN)
	}
	for p, w := range s.work {
		switch {
		case w.keep != 0:
			s.installKept(p, w)
		case w.over != nil:
			s.replace(p, w.over, &version{lsn: ptx.LSN, data: w.data, recycle: true})
		default:
			s.install(p, &version{lsn: ptx.LSN, data: w.data, recycle: true})
		}
	}
	s.advance(state{ptx.LSN, np})
	s.mu.Unlock()
	return s.relieved(nil)
}

// installKept is for a page that the file has in a state which a later PTX of the
// log makes. When the file is going to be cut below it for an earlier one, or was
// since it was read, that state is kept. Under mu.
func (s *Store) installKept(p uint32, w applied) {
	if h := s.head(p); h != nil && h.lsn >= w.keep {
		return
	}
	if w.cut || s.cuts.Load().covers(p, 0, w.keep) != 0 {
		s.install(p, &version{lsn: w.keep, data: w.data, kept: true})
	}
}

// topPin is the newest pinned LSN. Under mu.
func (s *Store) topPin() base.LSN {
	if n := len(s.pins); n > 0 {
		return s.pins[n-1].lsn
	}
	return 0
}

// relieved relieves memory, if it must be, after an Apply without error. When most
// of it is pages that the data file lacks, and a checkpoint is writing them, it waits
// for that: the spill file would cost a write and a read more for each.
func (s *Store) relieved(err error) error {
	if err != nil {
		return err
	}
	for {
		s.mu.Lock()
		over, turn, dirty := s.nMem > s.maxMem, s.turn, s.nDirty > s.maxMem/2
		s.mu.Unlock()
		switch {
		case !over:
			return nil
		case turn == nil || !dirty:
			s.relieve()
			return nil
		}
		<-turn
	}
}

// Known reports, as an error, a record that Apply would refuse whatever the
// pages hold.
func (s *Store) Known(r redo.Record) error {
	switch r.Type {
	case redo.RecLogical:
		if r.Kind != redo.LogicalOpenRecord {
			return fmt.Errorf("logical record kind %d is not known here", r.Kind)
		}
		return nil
	case redo.RecResize, redo.RecPhysical:
		if r.Addr.Tablespace != s.opt.Tablespace || r.Addr.File != s.opt.File {
			return fmt.Errorf("no file %v here", r.Addr)
		}
		if r.Type == redo.RecResize {
			return nil
		}
		if r.Addr.Page == 0 {
			return fmt.Errorf("page 0 of %s", s.path)
		}
		var beyond error
		err := r.EachRange(func(off int, data []byte) {
			if off+len(data) > s.ps-page.TrailerSize {
				beyond = fmt.Errorf("%w: bytes %d to %d of a page of %d", redo.ErrCorrupt, off, off+len(data), s.ps)
			}
		})
		if err == nil {
			err = beyond
		}
		return err
	}
	return fmt.Errorf("record type %d is not known here", r.Type)
}

// base returns what PTX lsn is to change page p on: a private copy, or the very
// buffer of the newest version when that is not hardened and not pinned (top is
// the newest pin), so that no snapshot can ever see it. beyond says that p is new:
// beyond the end of the database, or cut off within the PTX; the data file has
// size pages, 0: look.
func (s *Store) base(p uint32, beyond bool, size uint32, lsn, hard, top base.LSN) (applied, error) {
	if h := s.head(p); h != nil && h.lsn >= lsn {
		return applied{data: h.data, keep: h.lsn}, nil
	}
	// Before the file is read: a checkpoint cuts it, and then forgets the cut.
	cuts := s.cuts.Load()
	if beyond {
		if size == 0 {
			size = s.filePages()
		}
		if p <= size { // a file ahead of the log being replayed
			if data, have, err := s.filePage(p, nil); err != nil {
				return applied{}, err
			} else if have >= lsn {
				return applied{data: data, keep: have, cut: cuts.covers(p, 0, have) != 0}, nil
			}
		}
		b := s.getBuf()
		clear(b)
		return applied{data: b}, nil
	}
	if h := s.head(p); h != nil && h.end.Load() == 0 && h.lsn > hard && h.lsn > top && h.lsn < lsn && h.recycle {
		return applied{data: h.data, over: h}, nil
	}
	old, have, err := s.image(p, math.MaxUint64)
	if err != nil {
		return applied{}, err
	}
	if have >= lsn {
		return applied{data: old, keep: have, cut: cuts.covers(p, 0, have) != 0}, nil
	}
	b := s.getBuf()
	clear(b[copy(b, old):])
	return applied{data: b}, nil
}

func (s *Store) filePages() uint32 {
	n, err := s.f.Size()
	if err != nil {
		return math.MaxUint32 // the read will say what is wrong
	}
	return uint32((n + int64(s.ps) - 1) / int64(s.ps))
}

// replace puts v in the place of the head old, whose buffer it took over. Under mu.
func (s *Store) replace(p uint32, old, v *version) {
	v.prev.Store(old.prev.Load())
	old.recycle = false
	s.segOf(p).head[p&(segSize-1)].Store(v)
}
