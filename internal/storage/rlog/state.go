package rlog

import (
	"errors"
	"fmt"

	"datawatch/internal/base"
)

// Space returns how many bytes Append can take before ErrFull, and how many an
// empty log takes. Each package is rounded up to 512 bytes.
func (l *Log) Space() (free, total int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ckpt.at + l.total - l.end.at, l.total
}

// NextLSEQ is the LSEQ that the next package must have.
func (l *Log) NextLSEQ() base.Seq {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end.next
}

// LastLSN is the largest LSN in the log (FILE_LSN), which the next package must
// name as its PrevLSN.
func (l *Log) LastLSN() base.LSN {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end.prevLSN
}

// SetCheckpoint tells that every change up to lsn is in the data files: Recover
// will not yield packages without a higher LSN, and their room becomes free
// once the header is on disk (at most up to the package lseq, when that is not
// 0). A checkpoint before the current one changes nothing; one beyond the end of
// the log is ErrContinuity. Called with the last
// LSN before Close it makes the next Recover yield nothing.
//
// chain, unless 0, says that the redo from package chain (GSEQ) to here is of a
// large transaction that is under way, of which the data files have nothing:
// CheckpointChain tells the next start.
func (l *Log) SetCheckpoint(lsn base.LSN, lseq, chain base.Seq) error {
	l.headerMu.Lock()
	defer l.headerMu.Unlock()
	l.mu.Lock()
	if !l.ready {
		l.mu.Unlock()
		return fmt.Errorf("set checkpoint: %w", ErrState)
	}
	if lsn > l.end.prevLSN { // Recover would skip packages that are appended later
		end := l.end.prevLSN
		l.mu.Unlock()
		return fmt.Errorf("%w: checkpoint at LSN %d, the log ends at %d", ErrContinuity, lsn, end)
	}
	covers := func(m mark) bool { return m.prevLSN <= lsn && (lseq == 0 || m.next <= lseq+1) }
	to, drop := l.ckpt, 0
	for drop < len(l.marks) && covers(l.marks[drop]) {
		to = l.marks[drop]
		drop++
	}
	if covers(l.end) {
		to = l.end
	}
	if lsn < l.ckptLSN {
		l.mu.Unlock()
		return nil
	}
	h := l.static
	h.ckptLSN, h.ckptChain = lsn, chain
	file, off := l.place(to.at)
	h.ckptFile, h.ckptOffset = uint32(file), off
	h.ckptLSEQ, h.ckptPrevLSN, h.ckptPrevSum = to.next, to.prevLSN, to.prevSum
	h.fileLSN, h.fileLSEQ, h.fileGSEQ = l.end.prevLSN, l.end.next-1, l.gseq
	l.mu.Unlock()

	if err := l.twin.Write(l.hfile, h.marshal()); err != nil {
		return fmt.Errorf("write header of online log %s: %w", l.paths[0], err)
	}
	if err := l.hfile.Sync(); err != nil {
		return fmt.Errorf("sync header of online log %s: %w", l.paths[0], err)
	}
	l.twin.Done()

	l.mu.Lock()
	defer l.mu.Unlock()
	l.ckptLSN, l.ckpt = lsn, to
	l.marks = append(l.marks[:0], l.marks[drop:]...)
	return nil
}

// FileInfo describes one file of the log.
type FileInfo struct {
	Path string
	Size int64 // bytes
}

// Info is what V$RLOG shows of the log (manual 2.2.5, 2.2.10).
type Info struct {
	PmntMagic, DBMagic base.Magic
	CkptLSN            base.LSN // CKPT_LSN
	CkptFile           int      // CKPT_FILE: index of the file where Recover would begin
	CkptOffset         int64    // CKPT_OFFSET, bytes
	FileLSN            base.LSN // FILE_LSN: largest LSN on disk
	FileSeq            base.Seq // FILE_SEQ: GSEQ of the last package on disk, 0 when the log never had one
	NextLSEQ           base.Seq
	CurFile            int   // file and offset where the next package goes
	CurOffset          int64 // bytes
	Free, Total        int64 // bytes, as Space
	Files              []FileInfo
}

// Info returns the state of the log.
func (l *Log) Info() Info {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := Info{
		PmntMagic: l.static.pmnt, DBMagic: l.static.db, CkptLSN: l.ckptLSN, FileLSN: l.end.prevLSN, FileSeq: l.gseq,
		NextLSEQ: l.end.next, Free: l.ckpt.at + l.total - l.end.at, Total: l.total,
	}
	i.CkptFile, i.CkptOffset = l.place(l.ckpt.at)
	i.CurFile, i.CurOffset = l.place(l.end.at)
	for _, p := range l.paths {
		i.Files = append(i.Files, FileInfo{Path: p, Size: l.static.fileSize})
	}
	return i
}

// Written counts what Append has written since Open: packages, their bytes, and the
// PTXs in them.
type Written struct{ Packages, Bytes, PTX int64 }

// Written counts what has been written.
func (l *Log) Written() Written {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.written
}

// CheckpointLSN is CKPT_LSN, without the rest of Info.
func (l *Log) CheckpointLSN() base.LSN {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ckptLSN
}

// CheckpointChain returns what SetCheckpoint was told of a large transaction when
// the header was written that Open found; 0: the checkpoint was in none.
func (l *Log) CheckpointChain() base.Seq { return l.static.ckptChain }

// Close closes the files, after an Append or SetCheckpoint under way. It writes
// nothing.
func (l *Log) Close() error {
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	l.headerMu.Lock()
	defer l.headerMu.Unlock()
	l.mu.Lock()
	l.ready = false
	l.mu.Unlock()
	return l.closeFiles()
}

func (l *Log) closeFiles() error {
	var err error
	for _, f := range l.files {
		err = errors.Join(err, f.Close())
	}
	if l.hfile != nil {
		err = errors.Join(err, l.hfile.Close())
	}
	l.files, l.hfile = nil, nil
	return err
}
