package pagestore

import (
	"fmt"
	"math"

	"datawatch/internal/base"
	"datawatch/internal/storage/page"
	"datawatch/internal/storage/redo"
)

// parts is a large transaction being replayed: the pages as it leaves them, which
// nobody sees before its last part has been applied (G6).
type parts struct {
	first, last base.LSN
	np, minp    uint32 // size of the file after it, smallest within it
	high        uint32
	mem         map[uint32][]byte
	slots       slotTable
	// kept has the LSN of pages that the data file has in a later state already:
	// what is kept of them is that state.
	kept map[uint32]base.LSN
}

// Resume applies a part of a large transaction although its LSN is not above
// the newest: recovery from a checkpoint within the transaction takes the parts
// before it from the archive.
func (s *Store) Resume(ptx redo.PTX) error {
	s.amu.Lock()
	defer s.amu.Unlock()
	if !ptx.Kind.Fragment() {
		return fmt.Errorf("LSN %d: PTX kind %d is no part of a large transaction under way: %w", ptx.LSN, ptx.Kind, redo.ErrCorrupt)
	}
	s.mu.Lock()
	cur := s.newest
	s.mu.Unlock()
	return s.addPart(ptx, cur)
}

// applyPart applies a part; the last one makes the transaction the newest state.
func (s *Store) applyPart(ptx redo.PTX, cur state) error {
	if err := s.addPart(ptx, cur); err != nil {
		return err
	}
	if ptx.Kind == redo.KindLast {
		s.finishParts(ptx, cur)
		return nil
	}
	s.mu.Lock()
	s.advance(state{ptx.LSN, cur.npages})
	s.mu.Unlock()
	return nil
}

// addPart takes the changes of a part. Under amu.
func (s *Store) addPart(ptx redo.PTX, cur state) error {
	if ptx.Kind == redo.KindFirst {
		s.dropParts()
		s.parts = &parts{first: ptx.LSN, np: cur.npages, minp: cur.npages, mem: map[uint32][]byte{}, kept: map[uint32]base.LSN{}}
	} else if s.parts == nil || s.parts.last+1 != ptx.LSN {
		return fmt.Errorf("apply LSN %d: it continues a transaction whose beginning is not there: %w", ptx.LSN, redo.ErrCorrupt)
	}
	x, size := s.parts, s.filePages() // asking for each page is dear
	for rec, err := range ptx.Records() {
		if err == nil {
			err = s.Known(rec)
		}
		if err == nil && rec.Type == redo.RecPhysical {
			err = s.changePart(x, rec, ptx, size)
		}
		if err != nil {
			return fmt.Errorf("apply LSN %d: %w", ptx.LSN, err)
		}
		if rec.Type == redo.RecResize {
			s.resizeParts(x, rec.NPages)
		}
	}
	x.last = ptx.LSN
	return nil
}

func (s *Store) resizeParts(x *parts, n uint32) {
	if n < x.np {
		for p := range x.mem {
			if p > n {
				s.forget(x, p)
			}
		}
		if x.slots.n > 0 {
			x.slots.each(func(p, _ uint32) {
				if p > n {
					s.forget(x, p)
				}
			})
		}
	}
	x.np, x.minp, x.high = n, min(x.minp, n), min(x.high, n)
}

func (s *Store) forget(x *parts, p uint32) {
	if b, ok := x.mem[p]; ok {
		s.putBuf(b)
		delete(x.mem, p)
	} else if slot := x.slots.get(p); slot != 0 {
		s.spill.release(slot)
		x.slots.set(p, 0)
	}
	delete(x.kept, p)
}

// changePart applies a record to the image of its page, which is made from the
// state before the transaction; size is that of the data file.
func (s *Store) changePart(x *parts, rec redo.Record, ptx redo.PTX, size uint32) error {
	p := rec.Addr.Page
	x.high = max(x.high, p)
	if x.kept[p] != 0 {
		return nil
	}
	if b := x.mem[p]; b != nil {
		return rec.ApplyTo(b)
	}
	slot := x.slots.get(p)
	var b []byte
	if slot != 0 {
		b = s.getBuf()
		if _, err := s.spill.get(slot, b); err != nil {
			return err
		}
	} else {
		// Without the right to change a version in place: it may become visible.
		w, err := s.base(p, p > x.minp, size, ptx.LSN, math.MaxUint64, math.MaxUint64)
		if err != nil {
			return err
		}
		if b = w.data; w.keep != 0 {
			if p > x.minp || w.cut { // see finishParts
				x.kept[p] = w.keep
				x.mem[p] = append([]byte(nil), b...)
			}
			return nil
		}
	}
	if err := rec.ApplyTo(b); err != nil {
		return err
	}
	if slot == 0 && len(x.mem) < s.memPages {
		x.mem[p] = b
		return nil
	}
	page.Seal(b, 0, ptx.Node) // the LSN is that of the last part
	if slot != 0 {
		defer s.putBuf(b)
		return s.spill.write(slot, b)
	}
	slot, err := s.spill.put(b)
	if err != nil { // no room on disk: then in memory
		x.mem[p] = b
		return nil
	}
	x.slots.set(p, slot)
	s.putBuf(b)
	return nil
}

// finishParts makes the pages of the transaction the newest state. Versions are
// installed before that state moves to them, in turns with readers.
func (s *Store) finishParts(ptx redo.PTX, cur state) {
	x := s.parts
	s.parts = nil
	for p, b := range x.mem {
		if x.kept[p] == 0 {
			page.Seal(b, ptx.LSN, ptx.Node)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if x.minp < cur.npages {
		s.cut(x.minp, ptx.LSN)
	}
	n := 0
	turn := func() {
		const chunk = 256 // pages installed without letting readers in
		if n++; n%chunk == 0 {
			s.mu.Unlock()
			s.mu.Lock()
		}
	}
	for p, b := range x.mem {
		turn()
		if keep := x.kept[p]; keep == 0 {
			s.install(p, &version{lsn: ptx.LSN, data: b, recycle: true})
		} else {
			// Since its part was applied a checkpoint may have cut the file.
			s.installKept(p, applied{data: b, keep: keep, cut: true})
		}
	}
	x.slots.each(func(p, slot uint32) {
		turn()
		v := &version{lsn: ptx.LSN}
		v.slot.Store(slot)
		s.install(p, v)
	})
	s.advance(state{ptx.LSN, max(x.np, x.high)})
}

// dropParts forgets a large transaction that came to nothing. Under amu.
func (s *Store) dropParts() {
	if s.parts == nil {
		return
	}
	for _, b := range s.parts.mem {
		s.putBuf(b)
	}
	s.parts.slots.each(func(_, slot uint32) { s.spill.release(slot) })
	s.parts = nil
}
