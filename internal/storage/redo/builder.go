package redo

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"datawatch/internal/storage/page"
)

var zeroPage [page.MaxSize]byte

const (
	// mergeGap: two changed ranges with fewer equal bytes than this between
	// them are logged as one; a range of its own costs at least two bytes and
	// a step of the decoder.
	mergeGap = 8
	// equalBlock is the step in which equal stretches are skipped.
	equalBlock = 256
)

// Builder encodes one PTX at a time and keeps its buffer for the next. The
// zero value is ready. Not safe for concurrent use.
type Builder struct {
	buf []byte
	hdr PTXHeader
}

// Begin starts a PTX and forgets the one before. h.Len is ignored.
func (b *Builder) Begin(h PTXHeader) {
	b.hdr = h
	var room [PTXHeaderSize]byte
	b.buf = append(b.buf[:0], room[:]...)
}

// SetKind changes the kind given to Begin.
func (b *Builder) SetKind(k PTXKind) { b.hdr.Kind = k }

// Len returns the encoded size of the PTX so far, in bytes.
func (b *Builder) Len() int { return len(b.buf) }

// Diff adds a physical record of the bytes in which new differs from old and
// returns how many bytes it added, 0 when the pages are equal. Both are whole
// pages of one size; old nil stands for a page of zeros. The trailer is
// neither compared nor logged.
func (b *Builder) Diff(a Addr, old, new []byte) int {
	if old == nil {
		old = zeroPage[:len(new)]
	}
	limit := len(new) - page.TrailerSize
	old, new = old[:limit], new[:limit]
	i := nextDiff(old, new, 0)
	if i == limit {
		return 0
	}
	start := len(b.buf)
	buf := append(b.buf, byte(RecPhysical))
	buf = binary.AppendUvarint(buf, uint64(a.Tablespace))
	buf = binary.AppendUvarint(buf, uint64(a.File))
	buf = binary.AppendUvarint(buf, uint64(a.Page))
	lenAt := len(buf)
	buf = append(buf, 0) // the length, when it needs one byte
	pos := 0
	for i < limit {
		end, next := rangeEnd(old, new, i)
		buf = binary.AppendUvarint(buf, uint64(i-pos))
		buf = binary.AppendUvarint(buf, uint64(end-i))
		buf = append(buf, new[i:end]...)
		pos, i = end, next
	}
	b.buf = putLen(buf, lenAt)
	return len(b.buf) - start
}

// putLen writes the length of what follows the byte at lenAt into that byte,
// making room when the length takes more.
func putLen(buf []byte, lenAt int) []byte {
	n := len(buf) - lenAt - 1
	if n < 0x80 {
		buf[lenAt] = byte(n)
		return buf
	}
	var tmp [binary.MaxVarintLen64]byte
	w := binary.PutUvarint(tmp[:], uint64(n))
	buf = append(buf, tmp[:w-1]...)
	copy(buf[lenAt+w:], buf[lenAt+1:lenAt+1+n])
	copy(buf[lenAt:], tmp[:w])
	return buf
}

// nextDiff returns the first i >= from with a[i] != b[i], len(a) when there is none.
func nextDiff(a, b []byte, from int) int {
	i := from
	b = b[:len(a)]
	for i+equalBlock <= len(a) && bytes.Equal(a[i:i+equalBlock], b[i:i+equalBlock]) {
		i += equalBlock
	}
	for ; i+8 <= len(a); i += 8 {
		if x := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:]); x != 0 {
			return i + bits.TrailingZeros64(x)/8
		}
	}
	for ; i < len(a); i++ {
		if a[i] != b[i] {
			return i
		}
	}
	return len(a)
}

// rangeEnd returns where the changed range that starts at from ends (after its
// last changed byte) and where the next one starts: at least mergeGap equal
// bytes lie between.
func rangeEnd(a, b []byte, from int) (end, next int) {
	b = b[:len(a)]
	end = from + 1
	i := from + 1
	for ; i+8 <= len(a); i += 8 {
		x := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:])
		if x == 0 {
			if i+8-end >= mergeGap {
				return end, nextDiff(a, b, i+8)
			}
			continue
		}
		if first := i + bits.TrailingZeros64(x)/8; first-end >= mergeGap {
			return end, first
		}
		// Gaps inside the word are below 8 bytes and merge.
		end = i + 8 - bits.LeadingZeros64(x)/8
	}
	for ; i < len(a); i++ {
		if a[i] != b[i] {
			if i-end >= mergeGap {
				return end, i
			}
			end = i + 1
		}
	}
	return end, len(a)
}

// Resize adds the size of a file, in pages, after this PTX.
func (b *Builder) Resize(tablespace, file uint16, npages uint32) {
	b.buf = append(b.buf, byte(RecResize))
	b.buf = binary.AppendUvarint(b.buf, uint64(tablespace))
	b.buf = binary.AppendUvarint(b.buf, uint64(file))
	b.buf = binary.AppendUvarint(b.buf, uint64(npages))
}

// Logical adds a logical record.
func (b *Builder) Logical(kind uint8, payload []byte) {
	b.buf = append(b.buf, byte(RecLogical), kind)
	b.buf = binary.AppendUvarint(b.buf, uint64(len(payload)))
	b.buf = append(b.buf, payload...)
}

// Finish returns the encoded PTX, valid until the next Begin. A PTX above
// MaxPTX bytes cannot be put into a package; ask Len before.
func (b *Builder) Finish() []byte {
	b.hdr.Len = uint32(len(b.buf) - PTXHeaderSize)
	b.hdr.marshal(b.buf)
	return b.buf
}
