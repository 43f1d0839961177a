package pagestore

import (
	"datawatch/internal/base"
	"datawatch/internal/storage/page"
	"datawatch/internal/storage/redo"
)

// A large transaction: pages beyond Options.SpillBytes are in the spill file,
// redo beyond Options.PartBytes goes to the Committer in parts while Sync still
// compares the rest. DESIGN.md says why this is one atomic PTX all the same (G6).

// writeSpilled is WriteAt for a page that memory has no room for.
func (h *Handle) writeSpilled(p uint32, b []byte) error {
	s := h.s
	if h.slots == nil {
		h.slots = new(slotTable)
	}
	buf := s.getBuf()
	defer s.putBuf(buf)
	copy(buf, b)
	page.Seal(buf, 0, s.opt.Node) // the LSN is known only at the end
	if slot := h.slots.get(p); slot != 0 {
		return s.spill.write(slot, buf)
	}
	slot, err := s.spill.put(buf)
	if err != nil {
		return err
	}
	h.slots.set(p, slot)
	h.order = append(h.order, p)
	return nil
}

// spilled reads page p of the transaction from the spill file into a buffer of
// the pool; nil when it is not there.
func (h *Handle) spilled(p uint32) ([]byte, error) {
	if h.slots == nil {
		return nil, nil
	}
	slot := h.slots.get(p)
	if slot == 0 {
		return nil, nil
	}
	b := h.s.getBuf()
	if _, err := h.s.spill.get(slot, b); err != nil {
		h.s.putBuf(b)
		return nil, err
	}
	return b, nil
}

// drop forgets page p of the transaction.
func (h *Handle) drop(p uint32) {
	if d := h.dirty[p]; d != nil {
		h.s.putBuf(d)
		delete(h.dirty, p)
		return
	}
	if h.slots != nil {
		h.s.spill.release(h.slots.get(p))
		h.slots.set(p, 0)
	}
}

// diff adds page p to the PTX being built; it reports whether it changed.
func (h *Handle) diff(p uint32) (bool, error) {
	s := h.s
	var old []byte
	if p <= h.minPages {
		var err error
		if old, _, err = s.image(p, h.snap.lsn); err != nil {
			return false, err
		}
	}
	d := h.dirty[p]
	if d == nil {
		var err error
		if d, err = h.spilled(p); err != nil {
			return false, err
		}
		defer s.putBuf(d)
	}
	return s.builder.Diff(redo.Addr{Tablespace: s.opt.Tablespace, File: s.opt.File, Page: p}, old, d) > 0, nil
}

// part hands what was built so far to the Committer, as a part of a large
// transaction that others ignore until its last one, and begins the next.
func (h *Handle) part() error {
	s := h.s
	if err := h.ctx.Err(); err != nil { // rolled back rather than finished: this may go on for long
		return err
	}
	b := &s.builder
	first := h.parts == 0
	if first {
		b.SetKind(redo.KindFirst)
	} else {
		b.SetKind(redo.KindNext)
	}
	// The state first: what the Committer has may be hardened at any moment.
	s.rename(h.ptxLSN)
	if err := s.com.Part(h.ctx, b.Finish(), h.ptxLSN, first); err != nil {
		s.rename(h.ptxLSN - 1)
		return err
	}
	h.parts++
	h.ptxLSN++
	h.begin(redo.KindLast)
	return nil
}

// rename gives the newest state the LSN of a PTX that changes nothing visible, or
// takes it back. The caller owns the write lock.
func (s *Store) rename(lsn base.LSN) {
	s.mu.Lock()
	s.advance(state{lsn, s.newest.npages})
	s.mu.Unlock()
}

// begin starts the PTX h.ptxLSN.
func (h *Handle) begin(k redo.PTXKind) {
	s := h.s
	prev := h.snap.lsn
	if k == redo.KindLast {
		prev = h.ptxLSN - 1
	}
	s.builder.Begin(redo.PTXHeader{LSN: h.ptxLSN, Kind: k, Node: s.opt.Node,
		PrevNode: s.opt.Node, PrevLSN: prev, TimeNs: s.opt.Now()})
}

// abandon tells the log that the parts it has came to nothing, so that nobody
// keeps them. When the log takes nothing now, the next PTX says the same.
func (h *Handle) abandon() {
	s := h.s
	if h.parts == 0 {
		return
	}
	h.parts = 0
	if s.com.NextLSN() == h.ptxLSN {
		h.begin(redo.KindLast)
		s.builder.SetKind(redo.KindCommit)
		s.rename(h.ptxLSN)
		if !s.com.Abandon(s.builder.Finish(), h.ptxLSN) {
			s.rename(h.ptxLSN - 1)
		}
	}
	// What the handle sees is the newest state, under its newest name.
	s.mu.Lock()
	old := h.snap
	h.snap = s.pin(s.newest)
	s.mu.Unlock()
	s.release(old)
}

// version makes the version of page p that the transaction publishes.
func (h *Handle) version(v *version, p uint32, lsn base.LSN) {
	v.lsn = lsn
	if d := h.dirty[p]; d != nil {
		v.data, v.recycle = d, true
		return
	}
	v.slot.Store(h.slots.get(p))
}
