package arch

import (
	"errors"
	"fmt"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/storage/twin"
)

// Hold keeps the files with package seq and later ones, whatever SpaceLimit,
// ReserveTime and commands say, until the next call; 0: nothing is held. Recovery
// needs the beginning of a large transaction that is under way. It does not wait.
func (a *Archive) Hold(seq base.Seq) { a.hold.Store(uint64(seq)) }

// free reports whether the oldest file may be deleted.
func (a *Archive) free() bool {
	hold := base.Seq(a.hold.Load())
	return len(a.files) > 1 && (hold == 0 || a.files[0].h.last < hold)
}

// makeRoom deletes the oldest files until size more bytes fit SpaceLimit. The
// file being written stays.
func (a *Archive) makeRoom(size int64) error {
	for a.cfg.SpaceLimit > 0 && a.size+size > a.cfg.SpaceLimit && a.free() {
		if err := a.dropOldest(); err != nil {
			return err
		}
	}
	return nil
}

func (a *Archive) dropOldest() error {
	f := a.files[0]
	if err := a.remove(f.path); err != nil {
		return fmt.Errorf("delete archive file %s: %w", f.path, err)
	}
	a.files = a.files[1:]
	a.size -= f.h.end
	return nil
}

// DeleteExpired deletes the files, oldest first, whose last package is older
// than ReserveTime, and returns how many. To be called every five minutes
// (manual 5.3); making a new file does it too.
func (a *Archive) DeleteExpired() (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.deleteExpired()
}

func (a *Archive) deleteExpired() (int, error) {
	if a.cfg.ReserveTime == 0 {
		return 0, nil
	}
	return a.deleteWhile(a.beforeTime(a.cfg.Clock.Now().Add(-a.cfg.ReserveTime)))
}

func (a *Archive) beforeTime(t time.Time) func(*header) bool {
	ns := t.UnixNano()
	return func(h *header) bool { return h.isClosed() && max(h.closed, h.lastTime) < ns }
}

func (a *Archive) deleteWhile(old func(*header) bool) (n int, err error) {
	if a.closed {
		return 0, ErrClosed
	}
	for a.free() && old(&a.files[0].h) {
		if err := a.dropOldest(); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// DeleteBeforeTime deletes the files, oldest first, that were closed before t
// and returns how many (SF_ARCHIVELOG_DELETE_BEFORE_TIME). The newest file stays.
func (a *Archive) DeleteBeforeTime(t time.Time) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.deleteWhile(a.beforeTime(t))
}

// DeleteBeforeLSN deletes the files, oldest first, that hold only LSNs below
// lsn and returns how many (SF_ARCHIVELOG_DELETE_BEFORE_LSN). The newest file
// stays.
func (a *Archive) DeleteBeforeLSN(lsn base.LSN) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.deleteWhile(func(h *header) bool { return h.isClosed() && h.lastLSN < lsn })
}

// TruncateAfter removes the packages behind pos, which must be the position of
// a package in the archive (ErrGone), or zero for all of them. It is for
// recovery, when the archive got further than the online log. A power failure
// within leaves a shorter archive, never one with a hole.
func (a *Archive) TruncateAfter(pos base.Position) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return ErrClosed
	}
	if pos == a.end {
		return nil
	}
	if pos.Seq > a.end.Seq {
		return fmt.Errorf("truncate archive after %v: %w: it ends at %v", pos, ErrGone, a.end)
	}
	if err := a.flush(); err != nil {
		return err
	}
	// Everything that may fail for a wrong position comes before the first change.
	keep := len(a.files)
	for keep > 0 && a.files[keep-1].h.first > pos.Seq {
		keep--
	}
	if keep == 0 && pos != (base.Position{}) {
		return fmt.Errorf("truncate archive after %v: %w", pos, ErrGone)
	}
	var cut header
	var err error
	if keep > 0 {
		if cut, err = a.headerAt(a.files[keep-1], pos); err != nil {
			return fmt.Errorf("truncate archive after %v: %w", pos, err)
		}
	}
	if a.cur != nil {
		err := a.cur.Close()
		a.cur, a.twin = nil, nil
		if err != nil {
			return fmt.Errorf("truncate archive: %w", err)
		}
	}
	for len(a.files) > keep {
		f := a.files[len(a.files)-1]
		if err := a.remove(f.path); err != nil {
			return fmt.Errorf("delete archive file %s: %w", f.path, err)
		}
		a.files = a.files[:len(a.files)-1]
		a.size -= f.h.end
		if n := len(a.files); n > 0 {
			a.end = base.Position{Seq: a.files[n-1].h.last, LSN: a.files[n-1].h.lastLSN}
		}
	}
	a.end, a.unsync = pos, false
	if keep == 0 {
		return nil
	}
	return a.cutFile(a.files[keep-1], cut)
}

// headerAt is what the header of f is when its last package is that at pos.
func (a *Archive) headerAt(f *file, pos base.Position) (header, error) {
	h := f.h
	if pos.Seq > h.last {
		return h, ErrGone
	}
	r, err := a.fs.Open(f.path)
	if err != nil {
		return h, err
	}
	defer r.Close()
	s := &scanner{f: r, path: f.path, at: twin.Size, end: h.end, next: h.first, prev: h.prevLSN, src: h.src, pmnt: h.pmnt}
	h.flags &^= flagClosed
	h.closed = 0
	for {
		off := s.at
		p, err := s.step(false)
		if err != nil {
			return h, err
		}
		if p == nil {
			return h, ErrGone
		}
		h.add(&p.Header, off, s.at)
		if p.GSEQ == pos.Seq {
			if p.MaxLSN != pos.LSN {
				return h, fmt.Errorf("%w: package %d ends at LSN %d", ErrContinuity, p.GSEQ, p.MaxLSN)
			}
			return h, nil
		}
	}
}

// cutFile makes f end as h says and the file that is written to.
func (a *Archive) cutFile(f *file, h header) error {
	w, err := a.fs.Open(f.path)
	if err != nil {
		return fmt.Errorf("truncate archive file: %w", err)
	}
	t, _, err := readHeader(w)
	if err != nil {
		return fmt.Errorf("truncate archive file %s: %w", f.path, errors.Join(err, w.Close()))
	}
	a.size += h.end - f.h.end
	f.h, f.index = h, nil
	a.cur, a.twin, a.written, a.synced, a.torn = w, t, h.end, h, true
	// The header first: it must not vouch for what the next step removes.
	if err := a.writeHeader(h); err != nil {
		return err
	}
	if err := w.Truncate(h.end); err != nil {
		return fmt.Errorf("truncate archive file %s: %w", f.path, err)
	}
	a.torn = false
	if err := w.Sync(); err != nil {
		return fmt.Errorf("sync archive file %s: %w", f.path, err)
	}
	return nil
}

// FileInfo is a row of V$ARCH_FILE (manual 10.1).
type FileInfo struct {
	Path                        string
	PmntMagic, DBMagic, SrcDB   base.Magic // DBMagic wrote the file, SrcDB produced the redo
	Node                        uint16     // DSC_SEQNO
	Standby                     bool
	Active                      bool  // being written
	Len                         int64 // bytes the file may have
	Free                        int64 // offset of the next write
	FirstLSN, LastLSN, PrevLSN  base.LSN
	FirstSeq, LastSeq           base.Seq
	LastPkgOffset               int64
	Created, Closed, LastRecord time.Time // Closed is zero while the file is open
}

// Files lists the archive's files, oldest first.
func (a *Archive) Files() []FileInfo {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]FileInfo, 0, len(a.files))
	for _, f := range a.files {
		h := &f.h
		i := FileInfo{
			Path: f.path, PmntMagic: h.pmnt, DBMagic: h.db, SrcDB: h.src, Node: h.node, Standby: h.flags&flagStandby != 0,
			Active: !h.isClosed(), Len: max(h.end, a.cfg.FileSize), Free: h.end, FirstLSN: h.firstLSN, LastLSN: h.lastLSN, PrevLSN: h.prevLSN,
			FirstSeq: h.first, LastSeq: h.last, LastPkgOffset: h.lastOff, Created: time.Unix(0, h.created), LastRecord: time.Unix(0, h.lastTime),
		}
		if h.isClosed() {
			i.Closed, i.Len = time.Unix(0, h.closed), h.end
		}
		out = append(out, i)
	}
	return out
}
