package graft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"

	"datawatch/internal/base"
	"datawatch/internal/storage/ctl"
	"datawatch/internal/storage/page"
	"datawatch/internal/vfs"
)

const (
	// Version is the format of graft files this code writes.
	Version = 1
	// Suffix makes the name of the graft file from that of the control file.
	Suffix = ".graft"

	headerSize  = 64
	entryHeader = 8
	chunk       = 1 << 20 // bytes written and read at a time
)

var (
	// ErrDamaged means a graft file that is not what the control file says.
	ErrDamaged = errors.New("graft file is damaged")
	// ErrVersion means one written by a newer program.
	ErrVersion = errors.New("graft file is newer than this program")

	fileMagic  = [8]byte{'D', 'W', 'G', 'R', 'A', 'F', 'T', 0}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// Head says what a graft file holds.
type Head struct {
	PageSize  int
	PmntMagic base.Magic
	Fork      base.Position
	Whole     base.Position
	Pages     uint32 // of the database at Whole
	Count     uint32 // pages in the file
}

func (h Head) marshal() []byte {
	b := make([]byte, headerSize)
	le := binary.LittleEndian
	copy(b, fileMagic[:])
	le.PutUint16(b[8:], Version)
	le.PutUint32(b[12:], uint32(h.PageSize))
	le.PutUint32(b[16:], uint32(h.PmntMagic))
	le.PutUint32(b[20:], h.Pages)
	le.PutUint64(b[24:], uint64(h.Fork.Seq))
	le.PutUint64(b[32:], uint64(h.Fork.LSN))
	le.PutUint64(b[40:], uint64(h.Whole.Seq))
	le.PutUint64(b[48:], uint64(h.Whole.LSN))
	le.PutUint32(b[56:], h.Count)
	le.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	return b
}

func (h *Head) unmarshal(b []byte) error {
	le := binary.LittleEndian
	switch {
	case [8]byte(b[:8]) != fileMagic:
		return fmt.Errorf("%w: it begins with % x", ErrDamaged, b[:8])
	case le.Uint32(b[60:]) != crc32.Checksum(b[:60], castagnoli):
		return fmt.Errorf("%w: wrong checksum of the header", ErrDamaged)
	case le.Uint16(b[8:]) > Version:
		return fmt.Errorf("%w: version %d, this program knows %d", ErrVersion, le.Uint16(b[8:]), Version)
	}
	*h = Head{PageSize: int(le.Uint32(b[12:])), PmntMagic: base.Magic(le.Uint32(b[16:])), Pages: le.Uint32(b[20:]),
		Fork:  base.Position{Seq: base.Seq(le.Uint64(b[24:])), LSN: base.LSN(le.Uint64(b[32:]))},
		Whole: base.Position{Seq: base.Seq(le.Uint64(b[40:])), LSN: base.LSN(le.Uint64(b[48:]))}, Count: le.Uint32(b[56:])}
	if !page.ValidSize(h.PageSize) {
		return fmt.Errorf("%w: page size %d", ErrDamaged, h.PageSize)
	}
	return nil
}

// Writer makes a graft file. Not safe for concurrent use.
type Writer struct {
	fs   vfs.FS
	path string
	f    vfs.File
	h    Head
	buf  []byte
	at   int64
	sum  uint32
	n    uint32
	last uint32
}

// NewWriter begins the file of the database whose control file is at ctlPath; one
// that was left behind is overwritten.
func NewWriter(fsys vfs.FS, ctlPath string, h Head) (*Writer, error) {
	path := ctlPath + Suffix
	f, err := fsys.Create(path, true)
	if err != nil {
		return nil, fmt.Errorf("graft file: %w", err)
	}
	return &Writer{fs: fsys, path: path, f: f, h: h, buf: h.marshal()}, nil
}

// Add adds page n, sealed, in rising order. ErrDamaged: what is to be added is no
// page of the database at Whole.
func (w *Writer) Add(n uint32, data []byte) error {
	lsn, err := page.Verify(data)
	switch {
	case len(data) != w.h.PageSize || n <= w.last || n > w.h.Pages:
		return fmt.Errorf("%w: page %d of %d, %d bytes, after page %d", ErrDamaged, n, w.h.Pages, len(data), w.last)
	case err != nil:
		return fmt.Errorf("%w: page %d: %w", ErrDamaged, n, err)
	case lsn > w.h.Whole.LSN:
		return fmt.Errorf("%w: page %d was changed at LSN %d, after %v", ErrDamaged, n, lsn, w.h.Whole)
	}
	w.buf = binary.LittleEndian.AppendUint32(w.buf, n)
	w.buf = append(w.buf, 0, 0, 0, 0)
	w.buf = append(w.buf, data...)
	w.last = n
	w.n++
	if len(w.buf) >= chunk {
		return w.flush()
	}
	return nil
}

func (w *Writer) flush() error {
	if _, err := w.f.WriteAt(w.buf, w.at); err != nil {
		return fmt.Errorf("write %s: %w", w.path, err)
	}
	w.sum = crc32.Update(w.sum, castagnoli, w.buf)
	w.at += int64(len(w.buf))
	w.buf = w.buf[:0]
	return nil
}

// Finish makes the file durable and returns what the control file has to say of it.
func (w *Writer) Finish() (ctl.Graft, error) {
	if w.n != w.h.Count {
		return ctl.Graft{}, errors.Join(fmt.Errorf("%w: %d pages of %d", ErrDamaged, w.n, w.h.Count), w.Abort())
	}
	err := w.flush()
	if err == nil {
		err = w.f.Sync()
	}
	err = errors.Join(err, w.f.Close())
	w.f = nil
	if err == nil {
		err = w.fs.SyncDir(filepath.Dir(w.path))
	}
	if err != nil {
		return ctl.Graft{}, fmt.Errorf("write %s: %w", w.path, err)
	}
	return ctl.Graft{File: filepath.Base(w.path), Size: w.at, Sum: w.sum, Pages: w.h.Pages, Count: w.n}, nil
}

// Abort removes the file, unless it was finished.
func (w *Writer) Abort() error {
	if w.f == nil {
		return nil
	}
	err := errors.Join(w.f.Close(), w.fs.Remove(w.path))
	w.f = nil
	return err
}

// read verifies the whole file against what the control file says of it, lets
// check look at the header, and then calls fn for each of its pages; data is
// valid during the call.
func read(f vfs.File, want ctl.Graft, check func(Head) error, fn func(n uint32, data []byte) error) (Head, error) {
	var h Head
	size, err := f.Size()
	if err != nil {
		return h, err
	}
	if size != want.Size || size < headerSize {
		return h, fmt.Errorf("%w: it has %d bytes, written were %d", ErrDamaged, size, want.Size)
	}
	b := make([]byte, headerSize)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return h, err
	}
	if err := h.unmarshal(b); err != nil {
		return h, err
	}
	entry := int64(entryHeader + h.PageSize)
	if h.Count != want.Count || h.Pages != want.Pages || size != headerSize+int64(h.Count)*entry {
		return h, fmt.Errorf("%w: %d pages for a database of %d in %d bytes; written were %d for %d", ErrDamaged, h.Count, h.Pages, size, want.Count, want.Pages)
	}
	sum := crc32.New(castagnoli)
	if _, err := io.Copy(sum, io.NewSectionReader(f, 0, size)); err != nil {
		return h, err
	}
	if sum.Sum32() != want.Sum {
		return h, fmt.Errorf("%w: checksum %08x, written was %08x", ErrDamaged, sum.Sum32(), want.Sum)
	}
	if err := check(h); err != nil {
		return h, err
	}
	per := max(chunk/entry, 1)
	buf := make([]byte, per*entry)
	for i := int64(0); i < int64(h.Count); i += per {
		part := buf[:min(per, int64(h.Count)-i)*entry]
		if _, err := f.ReadAt(part, headerSize+i*entry); err != nil && !errors.Is(err, io.EOF) {
			return h, err
		}
		for ; len(part) > 0; part = part[entry:] {
			if err := fn(binary.LittleEndian.Uint32(part), part[entryHeader:entry]); err != nil {
				return h, err
			}
		}
	}
	return h, nil
}
