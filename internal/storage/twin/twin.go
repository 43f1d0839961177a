// Package twin owns the header block that log and archive files share: two
// copies of 512 bytes in separate 4 KiB blocks, written in turn, each with
// generation and checksum, so that a header torn by a power failure leaves the
// one before (G9). FORMAT.md has the byte table. What the payload means is the
// owner's.
package twin

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"datawatch/internal/vfs"
)

const (
	// Size is the room at the start of a file that the header takes.
	Size = 8192
	// MaxPayload is how many bytes an owner may store.
	MaxPayload = copySize - payloadAt - 4

	copySize  = 512
	copyEvery = 4096
	payloadAt = 24
)

var (
	// ErrForeign means that the file is not of the kind expected.
	ErrForeign = errors.New("not a file of this kind")
	// ErrDamaged means that no copy of the header is whole.
	ErrDamaged = errors.New("file header is damaged")
	// ErrVersion means that the file was written by a newer program.
	ErrVersion = errors.New("file format is newer than this program")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Kind tells header blocks of one kind of file from all others.
type Kind struct {
	Magic   [8]byte
	Version uint16
}

// Header reads and writes the header of one file. Not safe for concurrent use.
type Header struct {
	kind Kind
	gen  uint64         // of the newest copy known to be on disk
	read [copySize]byte // the copy that Read found
}

// New returns a header for a new file: the first Write makes both copies.
func New(k Kind) *Header { return &Header{kind: k} }

// Write writes payload as the next generation into the older copy. It counts
// only once the caller has synced the file and called Done; until then the
// next Write takes the same place, so the copy that is known to be good is
// never touched. The first Write of a new file writes both copies.
func (h *Header) Write(f vfs.File, payload []byte) error {
	if len(payload) > MaxPayload {
		return fmt.Errorf("header payload of %d bytes, at most %d", len(payload), MaxPayload)
	}
	if h.gen == 0 { // a new file: generations 1 and 2
		var room [Size]byte
		encode(room[:], h.kind, 1, payload)
		encode(room[copyEvery:], h.kind, 2, payload)
		_, err := f.WriteAt(room[:], 0)
		return err
	}
	var b [copySize]byte
	encode(b[:], h.kind, h.gen+1, payload)
	_, err := f.WriteAt(b[:], at(h.gen+1))
	return err
}

// Rewrite writes the copy that Read found where it is once more, before any Write;
// the caller syncs the file. When the sync after its Write has failed, the copy may
// be in the system's cache only, which calls it written although it may not be on
// disk. It is written byte by byte as it was, its version too: where it is on disk
// already, a power failure that tears the write changes nothing.
func (h *Header) Rewrite(f vfs.File) error {
	_, err := f.WriteAt(h.read[:], at(h.gen))
	return err
}

// Done tells that what Write wrote has been synced.
func (h *Header) Done() {
	if h.gen == 0 {
		h.gen = 2
		return
	}
	h.gen++
}

func at(gen uint64) int64 {
	if gen%2 == 1 {
		return 0
	}
	return copyEvery
}

func encode(b []byte, k Kind, gen uint64, payload []byte) {
	le := binary.LittleEndian
	copy(b, k.Magic[:])
	le.PutUint16(b[8:], k.Version)
	le.PutUint16(b[10:], uint16(len(payload)))
	le.PutUint64(b[16:], gen)
	copy(b[payloadAt:], payload)
	le.PutUint32(b[copySize-4:], crc32.Checksum(b[:copySize-4], castagnoli))
}

// Read returns the newest whole copy's payload. Errors are ErrForeign,
// ErrDamaged and ErrVersion, or the file's; the caller adds the path.
func Read(f vfs.File, k Kind) (*Header, []byte, error) {
	var room [copyEvery + copySize]byte
	n, err := f.ReadAt(room[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	if n < copySize {
		return nil, nil, fmt.Errorf("%w: %d bytes", ErrDamaged, n)
	}
	le := binary.LittleEndian
	h, seen := &Header{kind: k}, false
	var payload []byte
	for _, off := range []int{0, copyEvery} {
		b := room[off : off+copySize]
		if n < off+copySize {
			continue
		}
		seen = seen || [8]byte(b[:8]) == k.Magic
		if le.Uint32(b[copySize-4:]) != crc32.Checksum(b[:copySize-4], castagnoli) || [8]byte(b[:8]) != k.Magic {
			continue
		}
		if v := le.Uint16(b[8:]); v > k.Version {
			return nil, nil, fmt.Errorf("%w: version %d, this program knows %d", ErrVersion, v, k.Version)
		}
		size, gen := int(le.Uint16(b[10:])), le.Uint64(b[16:])
		if size > MaxPayload || gen <= h.gen || at(gen) != int64(off) {
			continue
		}
		h.gen, payload, h.read = gen, b[payloadAt:payloadAt+size], [copySize]byte(b)
	}
	switch {
	case h.gen > 0:
		return h, payload, nil
	case seen:
		return nil, nil, fmt.Errorf("%w: neither copy (offsets 0 and %d) has a right checksum", ErrDamaged, copyEvery)
	case allZero(room[:n]):
		return nil, nil, fmt.Errorf("%w: it is empty", ErrDamaged)
	}
	return nil, nil, fmt.Errorf("%w: it starts with % x", ErrForeign, room[:8])
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
