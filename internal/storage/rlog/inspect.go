package rlog

import (
	"errors"
	"fmt"
	"io"

	"datawatch/internal/base"
	"datawatch/internal/storage/redo"
	"datawatch/internal/storage/twin"
	"datawatch/internal/vfs"
)

// FileHeader is what the header of a log file says, for tools. From Checkpoint
// on only that of file 0 is kept up to date.
type FileHeader struct {
	Index      int        `json:"index"`
	Files      int        `json:"files"`
	LogID      uint32     `json:"log_id"`
	Size       int64      `json:"size"` // bytes
	PmntMagic  base.Magic `json:"pmnt_magic"`
	DBMagic    base.Magic `json:"db_magic"`
	CkptLSN    base.LSN   `json:"ckpt_lsn"`
	CkptFile   int        `json:"ckpt_file"`
	CkptOffset int64      `json:"ckpt_offset"`
	CkptLSEQ   base.Seq   `json:"ckpt_lseq"`  // of the package there
	CkptChain  base.Seq   `json:"ckpt_chain"` // GSEQ where the large transaction begins that it is in, 0 none
	FileLSN    base.LSN   `json:"file_lsn"`
	FileLSEQ   base.Seq   `json:"file_lseq"`
	FileGSEQ   base.Seq   `json:"file_gseq"`
}

// ReadFileHeader reads the header of one file.
func ReadFileHeader(f vfs.File) (FileHeader, error) {
	_, h, err := readHeader(f)
	if err != nil {
		return FileHeader{}, err
	}
	return FileHeader{Index: int(h.index), Files: int(h.nfiles), LogID: h.logID, Size: h.fileSize, PmntMagic: h.pmnt, DBMagic: h.db, CkptLSN: h.ckptLSN,
		CkptFile: int(h.ckptFile), CkptOffset: h.ckptOffset, CkptLSEQ: h.ckptLSEQ, CkptChain: h.ckptChain, FileLSN: h.fileLSN, FileLSEQ: h.fileLSEQ, FileGSEQ: h.fileGSEQ}, nil
}

// Place is where a package is.
type Place struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"`
}

func (l *Log) placeOf(at int64) Place {
	f, off := l.place(at)
	return Place{l.paths[f], off}
}

// Walk calls fn for every package from the checkpoint on, as Recover would,
// without changing anything; the files may be a running database's and opened
// for reading only. It returns where the log ends and why no package continues
// it there. The error is ErrDamaged when redo is missing that had been on disk,
// or fn's. It needs Open, and instead of Recover.
func (l *Log) Walk(fn func(Place, *redo.Package) error) (end Place, why, err error) {
	r := &stripReader{l: l, limit: l.ckpt.at + l.total}
	m := l.ckpt
	for {
		p, size, why, err := l.next(r, m)
		if err != nil {
			return l.placeOf(m.at), nil, err
		}
		if why != nil {
			return l.placeOf(m.at), why, l.checkEnd(r, m, why)
		}
		if err := fn(l.placeOf(m.at), p); err != nil {
			return l.placeOf(m.at), nil, err
		}
		m = mark{at: m.at + size, next: p.LSEQ + 1, prevLSN: p.MaxLSN, prevSum: p.Checksum}
	}
}

// Scan looks at every place of one file where a package may begin, whatever log
// and lap it is of, and calls fn with the header of each; whole says that its
// data is in the file and right, bad why not. A package that goes on in the next
// file is neither.
func Scan(f vfs.File, path string, fn func(off int64, h redo.Header, whole bool, bad error) error) error {
	size, err := f.Size()
	if err != nil {
		return fmt.Errorf("online log %s: %w", path, err)
	}
	buf := make([]byte, readChunk)
	for off := int64(twin.Size); off < size; {
		n, err := f.ReadAt(buf[:min(int64(len(buf)), size-off)], off)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read online log %s, offset %d: %w", path, off, err)
		}
		if n < redo.HeaderSize {
			return nil
		}
		step := int64(n) / sectorSize * sectorSize
		for at := int64(0); at+redo.HeaderSize <= int64(n); at += sectorSize {
			if !redo.IsPackage(buf[at:n]) {
				continue
			}
			h, err := redo.DecodeHeader(buf[at:n])
			if err != nil {
				if err := fn(off+at, h, false, err); err != nil {
					return err
				}
				continue
			}
			whole, bad := true, error(nil)
			switch length := int64(redo.HeaderSize) + int64(h.DataLen); {
			case off+at+length > size:
				whole = false
			default:
				b := make([]byte, length)
				if _, err := f.ReadAt(b, off+at); err != nil && !errors.Is(err, io.EOF) {
					return fmt.Errorf("read online log %s, offset %d: %w", path, off+at, err)
				}
				_, bad = redo.Decode(b)
				whole = bad == nil
			}
			if err := fn(off+at, h, whole, bad); err != nil {
				return err
			}
		}
		off += max(step, sectorSize)
	}
	return nil
}
