package pagestore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"

	"datawatch/internal/base"
	"datawatch/internal/storage/page"
	"datawatch/internal/vfs"
)

// The doublewrite area is a file of its own: a header of dwHeader bytes and the
// pages of the batch that is being written to the data file, each sealed.
//
//	offset size
//	0      4    "DWB1"
//	4      4    page size, bytes
//	8      4    pages n
//	12     4    CRC-32C of the first 24+4n bytes with this field zero
//	16     8    LSN of the checkpoint
//	24     4n   page numbers
//
// It is rewritten, and synced, before each batch; the data file is synced before
// the next. So a page that is torn in the data file is whole here, and as long as
// this area is torn itself, the data file is not.
const (
	dwMagic  = "DWB1"
	dwHeader = 4096
	dwPages  = 512 // pages of a batch
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type doublewrite struct {
	f    vfs.File
	path string
	ps   int
	buf  []byte // only while a checkpoint runs
}

func openDoublewrite(fs vfs.FS, path string, ps int) (*doublewrite, error) {
	f, err := fs.Create(path, false)
	if err != nil {
		return nil, fmt.Errorf("open doublewrite area %s: %w", path, err)
	}
	// A file that was just made must be found after a power failure that tears
	// the first page written under its protection.
	size, err := f.Size()
	if err == nil && size == 0 {
		err = fs.SyncDir(filepath.Dir(path))
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open doublewrite area %s: %w", path, err)
	}
	return &doublewrite{f: f, path: path, ps: ps}, nil
}

func (d *doublewrite) close() error { return d.f.Close() }

// begin returns room for n pages.
func (d *doublewrite) begin(n int) []byte {
	if need := dwHeader + n*d.ps; cap(d.buf) < need {
		d.buf = make([]byte, need)
	} else {
		d.buf = d.buf[:need]
	}
	return d.buf[dwHeader:]
}

// save writes and syncs the batch whose pages were put into begin's buffer.
func (d *doublewrite) save(pages []uint32, lsn base.LSN) error {
	h := d.buf[:dwHeader]
	clear(h)
	copy(h, dwMagic)
	binary.LittleEndian.PutUint32(h[4:], uint32(d.ps))
	binary.LittleEndian.PutUint32(h[8:], uint32(len(pages)))
	binary.LittleEndian.PutUint64(h[16:], uint64(lsn))
	for i, p := range pages {
		binary.LittleEndian.PutUint32(h[24+4*i:], p)
	}
	binary.LittleEndian.PutUint32(h[12:], crc32.Checksum(h[:24+4*len(pages)], castagnoli))
	if _, err := d.f.WriteAt(d.buf, 0); err != nil {
		return fmt.Errorf("write doublewrite area %s: %w", d.path, err)
	}
	if err := d.f.Sync(); err != nil {
		return fmt.Errorf("sync doublewrite area %s: %w", d.path, err)
	}
	return nil
}

// repair restores pages of the data file that are damaged and have a whole copy.
// Those that are as their copy are written once more: when the sync after the
// batch has failed, they are in the system's cache, which calls them written
// although they may not be on disk. Recovery would find nothing to do for them,
// no later sync would save them, and the next checkpoint gives their redo up.
func (d *doublewrite) repair(data vfs.File, dataPath string) error {
	h := make([]byte, dwHeader)
	if _, err := d.f.ReadAt(h, 0); errors.Is(err, io.EOF) {
		return nil // never written
	} else if err != nil {
		return fmt.Errorf("read doublewrite area %s: %w", d.path, err)
	}
	n := int(binary.LittleEndian.Uint32(h[8:]))
	if string(h[:4]) != dwMagic || n > dwPages {
		return nil // torn: the data file was not being written
	}
	sum := binary.LittleEndian.Uint32(h[12:])
	clear(h[12:16])
	if crc32.Checksum(h[:24+4*n], castagnoli) != sum {
		return nil
	}
	if ps := int(binary.LittleEndian.Uint32(h[4:])); ps != d.ps {
		return fmt.Errorf("doublewrite area %s is of a database with page size %d, not %d", d.path, ps, d.ps)
	}
	buf, cp := make([]byte, d.ps), make([]byte, d.ps)
	fixed := false
	for i := range n {
		p := binary.LittleEndian.Uint32(h[24+4*i:])
		if p == 0 {
			continue
		}
		_, bad := readPage(data, dataPath, p, buf)
		if bad != nil && !errors.Is(bad, ErrDamaged) {
			return bad
		}
		if _, err := d.f.ReadAt(cp, dwHeader+int64(i)*int64(d.ps)); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read doublewrite area %s: %w", d.path, err)
		}
		// Zeros are what a torn area never got: no page that is written is without LSN.
		if lsn, err := page.Verify(cp); err != nil || lsn == 0 || bad == nil && !bytes.Equal(buf, cp) {
			continue // reading the page will say that it is damaged; or it was written since, or not yet
		}
		if _, err := data.WriteAt(cp, int64(p-1)*int64(d.ps)); err != nil {
			return fmt.Errorf("repair %s page %d: %w", dataPath, p, err)
		}
		fixed = true
	}
	if !fixed {
		return nil
	}
	if err := data.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", dataPath, err)
	}
	return nil
}
