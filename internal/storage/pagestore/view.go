package pagestore

import (
	"fmt"

	"datawatch/internal/base"
)

// View is a pinned snapshot whose pages many goroutines may read at the same
// time, without copies where memory has them. It keeps G2 and G6 as a handle
// does. Close it before the store.
type View struct {
	s  *Store
	sn *snap
}

// View pins the snapshot that the handle has pinned, or the newest hardened one
// when it has none. The owner of the write lock and a private transaction, whose
// pages are their own or not hardened, get ErrBusy.
func (h *Handle) View() (*View, error) {
	s := h.s
	if h.level >= LockReserved || h.expired || s.owner.Load() == h {
		return nil, ErrBusy
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.hard
	if h.snap != nil {
		st = h.snap.state
	} else if st.lsn < s.opt.Whole {
		return nil, ErrNotWhole
	}
	return &View{s, s.pin(st)}, nil
}

// Close releases the snapshot. What Page returned must not be used any more.
func (v *View) Close() { v.s.release(v.sn) }

// LSN is the snapshot's.
func (v *View) LSN() base.LSN { return v.sn.lsn }

// Pages is the size of the snapshot in pages.
func (v *View) Pages() uint32 { return v.sn.npages }

// PageSize is in bytes.
func (v *View) PageSize() int { return v.s.ps }

// Page returns page no, from 1, with its trailer: memory of the store, which does
// not change before Close, or else the beginning of buf, which has room for a
// page. Pages that the cache of clean pages does not have are read past it while
// it is full: a scan of everything must not drive out what others need.
func (v *View) Page(no uint32, buf []byte) ([]byte, error) {
	if no == 0 || no > v.sn.npages {
		return nil, fmt.Errorf("page %d of %d: %w", no, v.sn.npages, ErrShortRead)
	}
	buf = buf[:v.s.ps]
	data, _, err := v.s.imageIn(no, v.sn.lsn, buf)
	if err != nil {
		return nil, err
	}
	if data == nil {
		clear(buf)
		return buf, nil
	}
	return data, nil
}
