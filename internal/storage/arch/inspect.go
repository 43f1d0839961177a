package arch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/storage/redo"
	"datawatch/internal/storage/twin"
	"datawatch/internal/vfs"
)

// FileHeader is what the header of an archive file says, for tools. Of a file
// that is written to, more packages may follow than it knows.
type FileHeader struct {
	PmntMagic base.Magic `json:"pmnt_magic"`
	DBMagic   base.Magic `json:"db_magic"`     // who wrote the file
	SrcMagic  base.Magic `json:"src_db_magic"` // who produced the redo
	Node      int        `json:"node"`
	Standby   bool       `json:"standby"`
	Closed    bool       `json:"closed"`
	Created   time.Time  `json:"created"`
	ClosedAt  time.Time  `json:"closed_at,omitzero"`
	First     base.Seq   `json:"first"`
	FirstLSN  base.LSN   `json:"first_lsn"`
	PrevLSN   base.LSN   `json:"prev_lsn"`
	Last      base.Seq   `json:"last"`
	LastLSN   base.LSN   `json:"last_lsn"`
	End       int64      `json:"end"` // offset
}

// IsArchive reports whether a file begins like an archive file.
func IsArchive(f vfs.File) (bool, error) {
	b := make([]byte, len(fileKind.Magic))
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return [8]byte(b) == fileKind.Magic, nil
}

// Writers are the DB_MAGIC of the databases whose files lie in a directory. A file
// of another PMNT_MAGIC is ErrForeign.
func Writers(fsys vfs.FS, dir string, pmnt base.Magic) ([]base.Magic, error) {
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []base.Magic
	for _, n := range names {
		if !namePattern.MatchString(n) {
			continue
		}
		path := filepath.Join(dir, n)
		f, err := fsys.Open(path)
		if err != nil {
			return nil, err
		}
		size, serr := f.Size()
		_, h, err := readHeader(f)
		if err = errors.Join(err, serr, f.Close()); errors.Is(err, ErrDamaged) && size <= twin.Size {
			continue // being made
		}
		if err == nil && h.pmnt != pmnt {
			err = fmt.Errorf("%w: PMNT_MAGIC is %v, the database's is %v", ErrForeign, h.pmnt, pmnt)
		}
		if err != nil {
			return nil, fmt.Errorf("archive file %s: %w", path, err)
		}
		if !slices.Contains(out, h.db) {
			out = append(out, h.db)
		}
	}
	return out, nil
}

// Damage is a part of a file that cannot be read.
type Damage struct {
	From int64  `json:"from"` // offset
	To   int64  `json:"to"`   // offset of the next good package, or the end of the file
	Text string `json:"text"`
}

// Inspect reads one archive file without changing it, and without an Archive
// around it: it may be a running database's, opened for reading only. fn gets
// every package that is whole. After damage it goes on with the next package it
// finds. The error is for a file that has no readable header, or fn's.
func Inspect(f vfs.File, path string, fn func(off int64, p *redo.Package) error) (FileHeader, []Damage, error) {
	_, payload, err := twin.Read(f, fileKind)
	if err != nil {
		return FileHeader{}, nil, fmt.Errorf("archive file %s: %w", path, err)
	}
	var h header
	if err := h.unmarshal(payload); err != nil {
		return FileHeader{}, nil, fmt.Errorf("archive file %s: %w", path, err)
	}
	out := FileHeader{PmntMagic: h.pmnt, DBMagic: h.db, SrcMagic: h.src, Node: int(h.node), Standby: h.flags&flagStandby != 0, Closed: h.isClosed(),
		Created: time.Unix(0, h.created), First: h.first, FirstLSN: h.firstLSN, PrevLSN: h.prevLSN, Last: h.last, LastLSN: h.lastLSN, End: h.end}
	if h.closed != 0 {
		out.ClosedAt = time.Unix(0, h.closed)
	}
	size, err := f.Size()
	if err != nil {
		return out, nil, fmt.Errorf("archive file %s: %w", path, err)
	}
	s := &scanner{f: f, path: path, at: twin.Size, end: size, next: h.first, prev: h.prevLSN, src: h.src, pmnt: h.pmnt}
	if h.isClosed() {
		s.end = min(size, h.end)
	}
	var bad []Damage
	if size < h.end {
		bad = append(bad, Damage{size, h.end, fmt.Sprintf("%s, offset %d: the file ends, its header says it has %d bytes", path, size, h.end)})
	}
	for s.at < s.end {
		off := s.at
		p, err := s.step(true)
		if err == nil {
			if err := fn(off, p); err != nil {
				return out, bad, err
			}
			continue
		}
		if off >= h.end { // behind what is known to be written: a write under way, or cut off
			break
		}
		next, h2, ferr := s.find(off + 1)
		if ferr != nil {
			return out, bad, ferr
		}
		bad = append(bad, Damage{off, next, err.Error()})
		if next >= s.end {
			break
		}
		s.at, s.next, s.anyPrev = next, h2.GSEQ, true
	}
	return out, bad, nil
}

// find looks for the next place, from off on, that starts like a package of this
// file.
func (s *scanner) find(off int64) (int64, redo.Header, error) {
	buf := make([]byte, readChunk)
	for off < s.end {
		n, err := s.f.ReadAt(buf[:min(int64(len(buf)), s.end-off)], off)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, redo.Header{}, fmt.Errorf("read archive file %s, offset %d: %w", s.path, off, err)
		}
		if n < redo.HeaderSize {
			break
		}
		for at := 0; at+redo.HeaderSize <= n; at++ {
			i := bytes.Index(buf[at:n], []byte("DWPK"))
			if i < 0 || at+i+redo.HeaderSize > n {
				break
			}
			at += i
			if h, err := redo.DecodeHeader(buf[at:n]); err == nil && h.GSEQ >= s.next && h.PmntMagic == s.pmnt && h.SrcDBMagic == s.src {
				return off + int64(at), h, nil
			}
		}
		off += int64(n) - redo.HeaderSize + 1
	}
	return s.end, redo.Header{}, nil
}
