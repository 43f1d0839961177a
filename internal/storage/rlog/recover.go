package rlog

import (
	"errors"
	"fmt"
	"io"

	"datawatch/internal/base"
	"datawatch/internal/storage/redo"
)

// Recover reads the log from the checkpoint and calls fn for every package that
// holds an LSN above CKPT_LSN, in order, each one already synced. Packages may
// be kept by fn. It ends at the first place where no package continues the log:
// a write that a power failure cut off is normal. It fails, naming file and
// offset, with ErrDamaged when redo is missing that had been on disk, with
// redo.ErrVersion, or with fn's error. After it the log takes Append.
func (l *Log) Recover(fn func(*redo.Package) error) error {
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	l.mu.Lock()
	ready, end := l.ready, l.ckpt
	l.mu.Unlock()
	if ready || l.files == nil {
		return fmt.Errorf("recover: %w", ErrState)
	}
	// The checkpoint may have been found in the system's cache only: the log before
	// it must not be written over before it is on disk (G4, G9).
	if err := l.twin.Rewrite(l.hfile); err != nil {
		return fmt.Errorf("write header of online log %s: %w", l.paths[0], err)
	}
	if err := l.hfile.Sync(); err != nil {
		return fmt.Errorf("sync header of online log %s: %w", l.paths[0], err)
	}
	// After a killed process the newest packages may be in the system's cache only.
	// That does not save those whose sync has failed: see rewrite.
	for i, f := range l.files {
		if err := f.Sync(); err != nil {
			return fmt.Errorf("sync online log %s: %w", l.paths[i], err)
		}
	}
	r := &stripReader{l: l, limit: l.ckpt.at + l.total}
	var marks []mark
	last, batch := l.ckpt.at, l.ckpt // batch: where the last one begins
	gseq := l.static.fileGSEQ
	for {
		p, size, why, err := l.next(r, end)
		if err != nil {
			return err
		}
		if why != nil {
			if err := l.checkEnd(r, end, why); err != nil {
				return err
			}
			break
		}
		if end.at-last >= l.gap {
			marks, last = append(marks, end), end.at
		}
		if p.BatchSeq == p.LSEQ {
			batch = end
		}
		if p.MaxLSN > l.static.ckptLSN {
			if err := fn(p); err != nil {
				return fmt.Errorf("recover %s (LSEQ %d): %w", l.where(end.at), p.LSEQ, err)
			}
		}
		end = mark{at: end.at + size, next: p.LSEQ + 1, prevLSN: p.MaxLSN, prevSum: p.Checksum}
		gseq = p.GSEQ
	}
	if err := l.rewrite(r, batch.at, end.at); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.marks, l.end, l.gseq, l.ready = marks, end, gseq, true
	return nil
}

// rewrite writes the last batch once more. When its sync has failed, the process
// ended, and it was found in the system's cache only, which calls it written
// although it may not be on disk: no later sync would save it, and a power failure
// would take what has been recovered, and what was written behind it (G1).
func (l *Log) rewrite(r *stripReader, from, end int64) error {
	if from == end {
		return nil
	}
	b, err := r.peek(from, end-from)
	if err != nil {
		return err
	}
	return l.write(from, b)
}

// next reads the package at m. why says why there is none that continues the log.
func (l *Log) next(r *stripReader, m mark) (p *redo.Package, size int64, why, err error) {
	b, err := r.peek(m.at, redo.HeaderSize)
	if err != nil {
		return nil, 0, nil, err
	}
	if b == nil {
		return nil, 0, errors.New("the circle is full"), nil
	}
	h, why := redo.DecodeHeader(b)
	if errors.Is(why, redo.ErrVersion) {
		return nil, 0, nil, fmt.Errorf("online log %s: %w", l.where(m.at), why)
	}
	if why != nil {
		return nil, 0, why, nil
	}
	if why := l.belongs(&h, m); why != nil {
		return nil, 0, why, nil
	}
	n := int64(redo.HeaderSize) + int64(h.DataLen)
	if b, err = r.peek(m.at, n); err != nil {
		return nil, 0, nil, err
	}
	if b == nil {
		return nil, 0, fmt.Errorf("LSEQ %d has %d bytes, more than the circle", h.LSEQ, n), nil
	}
	if p, why = redo.Decode(b); why != nil {
		return nil, 0, why, nil
	}
	return p, roundUp(n, sectorSize), nil, nil
}

// belongs says why a whole header does not continue the log at m.
func (l *Log) belongs(h *redo.Header, m mark) error {
	switch {
	case h.LogID != l.static.logID || h.DBMagic != l.static.db || h.PmntMagic != l.static.pmnt:
		return errors.New("the package there is of another log")
	case h.LSEQ != m.next:
		return fmt.Errorf("the package there has LSEQ %d", h.LSEQ)
	case h.PrevSum != m.prevSum || h.PrevLSN != m.prevLSN:
		return fmt.Errorf("the package there follows another than LSEQ %d", m.next-1)
	}
	return nil
}

// checkEnd decides whether the place where reading ended is the end of what was
// ever written whole, or damage.
func (l *Log) checkEnd(r *stripReader, end mark, why error) error {
	if end.next <= l.static.fileLSEQ {
		return l.damaged(end, why, l.static.fileLSEQ, "the log header says")
	}
	for at := end.at; at < min(end.at+scanWindow, r.limit); at += sectorSize {
		b, err := r.peek(at, redo.HeaderSize)
		if err != nil {
			return err
		}
		if !redo.IsPackage(b) {
			continue
		}
		h, err := redo.DecodeHeader(b)
		if err != nil || h.LogID != l.static.logID || h.DBMagic != l.static.db || h.BatchSeq <= end.next || h.LSEQ < h.BatchSeq {
			continue
		}
		if b, err = r.peek(at, int64(redo.HeaderSize)+int64(h.DataLen)); err != nil {
			return err
		}
		if _, err := redo.Decode(b); err == nil {
			return l.damaged(end, why, h.BatchSeq-1, "the package in "+l.where(at)+" shows")
		}
	}
	return nil
}

func (l *Log) damaged(end mark, why error, known base.Seq, source string) error {
	return fmt.Errorf("%w: %s: no package with LSEQ %d: %w; %s that redo up to LSEQ %d was on disk",
		ErrDamaged, l.where(end.at), end.next, why, source, known)
}

// readChunk is how much of the log is read at a time.
const readChunk = 1 << 20

// stripReader reads the strip forward in chunks. What it returns stays valid:
// chunks are not reused.
type stripReader struct {
	l     *Log
	limit int64 // nothing is read from here on
	at    int64 // position of chunk
	chunk []byte
}

// peek returns n bytes at a position, nil when they reach beyond the limit.
func (r *stripReader) peek(at, n int64) ([]byte, error) {
	if at+n > r.limit {
		return nil, nil
	}
	if at < r.at || at+n > r.at+int64(len(r.chunk)) {
		r.at, r.chunk = at, make([]byte, min(max(n, readChunk), r.limit-at))
		err := r.l.each(at, r.chunk, func(file int, off int64, piece []byte) error {
			if n, err := r.l.files[file].ReadAt(piece, off); n < len(piece) {
				if err == nil || errors.Is(err, io.EOF) {
					err = io.ErrUnexpectedEOF
				}
				return fmt.Errorf("read online log %s, offset %d: %w", r.l.paths[file], off, err)
			}
			return nil
		})
		if err != nil {
			r.chunk = nil
			return nil, err
		}
	}
	return r.chunk[at-r.at : at-r.at+n : at-r.at+n], nil
}
