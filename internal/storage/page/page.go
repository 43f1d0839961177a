// Package page owns the form of a database page on disk: the trailer that
// Datawatch keeps in the bytes SQLite reserves at the end of every page, and
// the first page of an empty database. FORMAT.md has the byte tables.
//
// It keeps its part of G8 and G9: a page that was torn, rotted or never
// sealed is reported by Verify, never returned as good. Which page belongs
// where, and when it may be written (G4), is the page store's business.
package page

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"datawatch/internal/base"
)

const (
	// TrailerSize is the number of bytes at the end of each page that belong
	// to Datawatch; SQLite is told so by header byte 20 of page 1.
	TrailerSize = 16
	// MinSize and MaxSize bound page sizes, in bytes; sizes are powers of two.
	MinSize = 512
	MaxSize = 65536
	// Format is the trailer format this code writes; a newer one is refused.
	Format = 1
)

// Offsets in the trailer, from its start.
const (
	offLSN    = 0
	offSum    = 8
	offNode   = 12
	offFormat = 14
)

var (
	// ErrChecksum means that a page's checksum does not match its content.
	ErrChecksum = errors.New("page checksum mismatch")
	// ErrFormat means that a page was sealed by a newer program.
	ErrFormat = errors.New("page format is newer than this program")
	// ErrSize means that a buffer is not the size of a page.
	ErrSize = errors.New("not a valid page size")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var zero [MaxSize]byte

// ValidSize reports whether n is a page size: a power of two from MinSize to MaxSize.
func ValidSize(n int) bool { return n >= MinSize && n <= MaxSize && n&(n-1) == 0 }

// checksum covers the whole page except the checksum itself.
func checksum(p []byte) uint32 {
	t := len(p) - TrailerSize
	c := crc32.Update(0, castagnoli, p[:t+offSum])
	return crc32.Update(c, castagnoli, p[t+offNode:])
}

// Seal writes the trailer of p: the LSN of the last change, the node that made
// it, and the checksum. len(p) must be a page size.
func Seal(p []byte, lsn base.LSN, node uint16) {
	t := p[len(p)-TrailerSize:]
	binary.LittleEndian.PutUint64(t[offLSN:], uint64(lsn))
	binary.LittleEndian.PutUint16(t[offNode:], node)
	t[offFormat] = Format
	t[offFormat+1] = 0
	binary.LittleEndian.PutUint32(t[offSum:], checksum(p))
}

// LSN returns the page LSN of the trailer without checking anything else.
func LSN(p []byte) base.LSN {
	return base.LSN(binary.LittleEndian.Uint64(p[len(p)-TrailerSize+offLSN:]))
}

// Node returns the node that changed the page last, without checking anything.
func Node(p []byte) uint16 {
	return binary.LittleEndian.Uint16(p[len(p)-TrailerSize+offNode:])
}

// Verify checks the trailer of a page and returns its LSN. A page of zeros was
// never written and is valid with LSN 0. Errors are ErrSize, ErrFormat or
// ErrChecksum, wrapped; the caller adds file and offset.
func Verify(p []byte) (base.LSN, error) {
	if !ValidSize(len(p)) {
		return 0, fmt.Errorf("%w: %d bytes", ErrSize, len(p))
	}
	t := p[len(p)-TrailerSize:]
	if t[offFormat] == 0 && isZero(p) {
		return 0, nil
	}
	stored, sum := binary.LittleEndian.Uint32(t[offSum:]), checksum(p)
	if stored != sum {
		return 0, fmt.Errorf("%w: stored %08x, computed %08x", ErrChecksum, stored, sum)
	}
	if t[offFormat] != Format {
		if t[offFormat] > Format {
			return 0, fmt.Errorf("%w: format %d, this program knows %d", ErrFormat, t[offFormat], Format)
		}
		return 0, fmt.Errorf("%w: trailer format %d", ErrChecksum, t[offFormat])
	}
	return LSN(p), nil
}

func isZero(p []byte) bool { return bytes.Equal(p, zero[:len(p)]) }

// sqliteVersion is the SQLITE_VERSION_NUMBER put into a new database; SQLite
// replaces it at the first write.
const sqliteVersion = 3046000

// NewDatabase returns page 1, sealed with LSN 0, of a SQLite database without
// tables: TrailerSize bytes reserved per page, schema format 4, UTF-8, rollback
// journal. It panics when pageSize is no page size (see ValidSize).
func NewDatabase(pageSize int) []byte {
	if !ValidSize(pageSize) {
		panic(fmt.Sprintf("page.NewDatabase: %d is not a page size", pageSize))
	}
	p := make([]byte, pageSize)
	be := binary.BigEndian // SQLite's own format is big-endian
	copy(p, "SQLite format 3\x00")
	be.PutUint16(p[16:], uint16(pageSize&0xffff|pageSize>>16)) // 65536 is written as 1
	p[18], p[19] = 1, 1                                        // rollback journal, read and write version
	p[20] = TrailerSize
	p[21], p[22], p[23] = 64, 32, 32
	be.PutUint32(p[24:], 1) // change counter
	be.PutUint32(p[28:], 1) // pages
	be.PutUint32(p[44:], 4) // schema format
	be.PutUint32(p[56:], 1) // UTF-8
	be.PutUint32(p[92:], 1) // change counter that the version number is valid for
	be.PutUint32(p[96:], sqliteVersion)
	p[100] = 0x0d // a table b-tree leaf without cells: sqlite_schema
	be.PutUint16(p[105:], uint16((pageSize-TrailerSize)&0xffff))
	Seal(p, 0, 0)
	return p
}
