package redo

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"iter"

	"datawatch/internal/base"

	"github.com/klauspost/compress/s2"
)

const (
	// Version is the package format this code writes.
	Version = 1
	// HeaderSize is the encoded size of a Header of that version.
	HeaderSize = 128
	// MaxPTX caps one encoded PTX, MaxRaw the PTXs of one package, in bytes. An
	// encoded package is at most MaxRaw+HeaderSize and so fits a frame of
	// wire.MaxRedo (256 MiB).
	MaxRaw = 255 << 20
	MaxPTX = MaxRaw
	// NodesMax is the largest number of producing nodes a header may name.
	NodesMax = 16
	// compressMin: shorter redo is not worth the attempt.
	compressMin = 128
	// block is how much raw redo is compressed at a time.
	block = 1 << 20
)

// Flags of a package.
const (
	FlagS2 uint16 = 1 << 0 // data is compressed with S2, in blocks

	knownFlags = FlagS2
)

var pkgMagic = [4]byte{'D', 'W', 'P', 'K'}

// Header describes a package. All of it is under the checksum.
type Header struct {
	Version   uint16
	Flags     uint16
	HeaderLen uint16
	Node      uint16 // producing node (DSC_SEQNO)
	NNodes    uint16 // nodes of the producing database, at least 1

	PmntMagic  base.Magic
	DBMagic    base.Magic // of the database that stores the package
	SrcDBMagic base.Magic // of the database that produced the redo

	GSEQ, LSEQ base.Seq
	PrevLSN    base.LSN // MaxLSN of the package before (by GSEQ)
	MinLSN     base.LSN
	MaxLSN     base.LSN
	DepNode    uint16   // with DepLSN: what another node must have applied before
	DepLSN     base.LSN // 0: nothing
	OpenID     uint64   // ID of the producer's last open record (G5)
	TimeNs     int64    // when the package was made, Unix nanoseconds
	NPTX       uint32
	RawLen     uint32 // bytes of PTXs
	DataLen    uint32 // bytes stored: RawLen, or less when compressed

	// LogMark belongs to the online log that stores the package; zero elsewhere.
	LogMark

	Checksum uint32 // as decoded; Encode computes its own
}

// LogMark ties a package to its place in one online log, so that what an
// earlier lap, a failed write or another log left there is never taken for it.
type LogMark struct {
	PrevSum  uint32   // checksum of the package before it in the log
	LogID    uint32   // random, per log
	BatchSeq base.Seq // LSEQ of the first package of the same write
}

// Pos returns the position of the end of the package.
func (h *Header) Pos() base.Position { return base.Position{Seq: h.GSEQ, LSN: h.MaxLSN} }

// Package is a header and its data. Packages are not changed once made; Data
// may be shared.
type Package struct {
	Header
	Data []byte // as stored, perhaps compressed
}

// NewPackage makes a package of encoded PTXs, one after the other in raw, which
// it keeps (unless it compresses). It fills Version, HeaderLen, Flags, RawLen
// and DataLen, and NNodes when that is 0; the rest of h is the caller's. It
// compresses only where that saves something. ErrTooLarge above MaxRaw.
func NewPackage(h Header, raw []byte, compress bool) (*Package, error) {
	if len(raw) > MaxRaw {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(raw), MaxRaw)
	}
	h.Version, h.HeaderLen, h.Flags = Version, HeaderSize, 0
	h.RawLen = uint32(len(raw))
	h.NNodes = max(h.NNodes, 1)
	data := raw
	if compress && len(raw) >= compressMin {
		if c := deflate(raw); c != nil {
			h.Flags |= FlagS2
			data = c
		}
	}
	h.DataLen = uint32(len(data))
	if err := h.check(); err != nil {
		return nil, err
	}
	return &Package{Header: h, Data: data}, nil
}

// check is what Encode and Decode both demand of a header.
func (h *Header) check() error {
	switch {
	case h.MinLSN == 0 || h.MaxLSN < h.MinLSN || h.PrevLSN >= h.MinLSN:
		return corrupt("LSNs out of order: previous %d, first %d, last %d", h.PrevLSN, h.MinLSN, h.MaxLSN)
	case h.NNodes == 0 || h.NNodes > NodesMax || h.Node >= h.NNodes || h.DepNode >= h.NNodes:
		return corrupt("node %d (depends on %d) of %d, at most %d", h.Node, h.DepNode, h.NNodes, NodesMax)
	case h.RawLen > MaxRaw || h.DataLen > h.RawLen:
		return corrupt("%d bytes stored for %d of redo, at most %d", h.DataLen, h.RawLen, MaxRaw)
	case h.Flags&FlagS2 == 0 && h.DataLen != h.RawLen:
		return corrupt("%d bytes stored for %d of redo that is not compressed", h.DataLen, h.RawLen)
	case h.NPTX == 0 || uint64(h.NPTX)*PTXHeaderSize > uint64(h.RawLen):
		return corrupt("%d PTX in %d bytes", h.NPTX, h.RawLen)
	}
	return nil
}

// deflate compresses raw block by block, each preceded by its compressed
// length; nil when nothing is saved.
func deflate(raw []byte) []byte {
	out := make([]byte, 0, len(raw)/2+64)
	for rest := raw; len(rest) > 0; {
		n := min(len(rest), block)
		at := len(out)
		need := at + 4 + s2.MaxEncodedLen(n)
		if cap(out) < need {
			grown := make([]byte, at, need+need/2)
			copy(grown, out)
			out = grown
		}
		c := s2.Encode(out[at+4:need], rest[:n])
		out = out[:at+4+len(c)]
		binary.LittleEndian.PutUint32(out[at:], uint32(len(c)))
		if len(out) >= len(raw) {
			return nil
		}
		rest = rest[n:]
	}
	return out
}

// Raw returns the PTXs of the package: Data itself, or decompressed into new
// memory, which grows only as blocks prove right.
func (p *Package) Raw() ([]byte, error) {
	if p.Flags&FlagS2 == 0 {
		return p.Data, nil
	}
	var out []byte
	for rest := p.Data; len(rest) > 0; {
		if len(rest) < 4 {
			return nil, corrupt("package %d: compressed block header is cut off", p.GSEQ)
		}
		n := binary.LittleEndian.Uint32(rest)
		rest = rest[4:]
		if uint64(n) > uint64(len(rest)) {
			return nil, corrupt("package %d: compressed block of %d bytes, %d are there", p.GSEQ, n, len(rest))
		}
		want := min(int(p.RawLen)-len(out), block)
		if size, err := s2.DecodedLen(rest[:n]); err != nil || size != want || size == 0 {
			return nil, corrupt("package %d: compressed block of %d bytes of redo where %d should be", p.GSEQ, size, want)
		}
		if cap(out)-len(out) < want {
			grown := make([]byte, len(out), min(int(p.RawLen), 2*len(out)+want))
			copy(grown, out)
			out = grown
		}
		d, err := s2.Decode(out[len(out):len(out)+want], rest[:n])
		if err != nil || len(d) != want {
			return nil, corrupt("package %d: decompressing: %v", p.GSEQ, err)
		}
		out = out[:len(out)+want]
		rest = rest[n:]
	}
	if len(out) != int(p.RawLen) {
		return nil, corrupt("package %d: %d bytes of redo, header says %d", p.GSEQ, len(out), p.RawLen)
	}
	return out, nil
}

// PTXs decodes the transactions of the package and checks them against the
// header. After an error it stops.
func (p *Package) PTXs() iter.Seq2[PTX, error] {
	return func(yield func(PTX, error) bool) {
		raw, err := p.Raw()
		if err != nil {
			yield(PTX{}, err)
			return
		}
		last, n := base.LSN(0), uint32(0)
		for b := raw; len(b) > 0; {
			var t PTX
			err := t.unmarshal(b)
			switch {
			case err != nil:
			case uint64(t.Len) > uint64(len(b)-PTXHeaderSize):
				err = corrupt("PTX %d has %d bytes, %d are there", t.LSN, t.Len, len(b)-PTXHeaderSize)
			case n == 0 && t.LSN != p.MinLSN, t.LSN <= last, t.LSN > p.MaxLSN:
				err = corrupt("PTX %d after %d in a package of %d to %d", t.LSN, last, p.MinLSN, p.MaxLSN)
			}
			if err != nil {
				yield(PTX{}, fmt.Errorf("package %d, byte %d: %w", p.GSEQ, len(raw)-len(b), err))
				return
			}
			end := PTXHeaderSize + int(t.Len)
			t.Body = b[PTXHeaderSize:end:end]
			if !yield(t, nil) {
				return
			}
			last, b = t.LSN, b[end:]
			n++
		}
		if n != p.NPTX || last != p.MaxLSN {
			yield(PTX{}, corrupt("package %d: %d PTX up to LSN %d, header says %d up to %d", p.GSEQ, n, last, p.NPTX, p.MaxLSN))
		}
	}
}

// EncodedLen is the number of bytes Encode appends.
func (p *Package) EncodedLen() int { return HeaderSize + len(p.Data) }

// Offsets of the two checksums in the header.
const (
	offSum       = 116
	offLogID     = 120
	offHeaderSum = 124
)

// Encode appends the package to dst. The package is not changed, so it may be
// encoded by several goroutines at once.
func (p *Package) Encode(dst []byte) []byte {
	dst, _ = p.EncodeLog(dst, LogMark{})
	return dst
}

// EncodeLog is Encode with the mark of an online log; it also returns the
// checksum, which is the PrevSum of the package after it.
func (p *Package) EncodeLog(dst []byte, m LogMark) ([]byte, uint32) {
	at := len(dst)
	var room [HeaderSize]byte
	dst = append(dst, room[:]...)
	dst = append(dst, p.Data...)
	b := dst[at:]
	p.Header.marshal(b, m)
	le := binary.LittleEndian
	le.PutUint32(b[offHeaderSum:], headerSum(b))
	sum := checksum(b)
	le.PutUint32(b[offSum:], sum)
	return dst, sum
}

func headerSum(b []byte) uint32 { return crc32.Checksum(b[:offSum], castagnoli) }

// checksum covers header and data but for the checksum itself.
func checksum(b []byte) uint32 {
	c := crc32.Update(0, castagnoli, b[:offSum])
	return crc32.Update(c, castagnoli, b[offSum+4:])
}

func (h *Header) marshal(b []byte, m LogMark) {
	le := binary.LittleEndian
	copy(b, pkgMagic[:])
	le.PutUint16(b[4:], Version)
	le.PutUint16(b[6:], HeaderSize)
	le.PutUint16(b[8:], h.Flags)
	le.PutUint16(b[10:], h.Node)
	le.PutUint16(b[12:], h.NNodes)
	le.PutUint16(b[14:], h.DepNode)
	le.PutUint32(b[16:], uint32(h.PmntMagic))
	le.PutUint32(b[20:], uint32(h.DBMagic))
	le.PutUint32(b[24:], uint32(h.SrcDBMagic))
	le.PutUint32(b[28:], h.NPTX)
	le.PutUint64(b[32:], uint64(h.GSEQ))
	le.PutUint64(b[40:], uint64(h.LSEQ))
	le.PutUint64(b[48:], uint64(h.PrevLSN))
	le.PutUint64(b[56:], uint64(h.MinLSN))
	le.PutUint64(b[64:], uint64(h.MaxLSN))
	le.PutUint64(b[72:], uint64(h.DepLSN))
	le.PutUint64(b[80:], h.OpenID)
	le.PutUint64(b[88:], uint64(h.TimeNs))
	le.PutUint64(b[96:], uint64(m.BatchSeq))
	le.PutUint32(b[104:], m.PrevSum)
	le.PutUint32(b[108:], h.RawLen)
	le.PutUint32(b[112:], h.DataLen)
	le.PutUint32(b[offSum:], 0)
	le.PutUint32(b[offLogID:], m.LogID)
	le.PutUint32(b[offHeaderSum:], 0)
}

// Magic is the number that every package begins with.
func Magic() uint32 { return binary.LittleEndian.Uint32(pkgMagic[:]) }

// IsPackage reports whether b starts like a package; it may still be damaged.
func IsPackage(b []byte) bool { return len(b) >= 4 && [4]byte(b[:4]) == pkgMagic }

// DecodeHeader decodes and checks the header at the start of b. The header has a
// checksum of its own, so DataLen can be believed; the data is not looked at.
func DecodeHeader(b []byte) (Header, error) {
	if !IsPackage(b) {
		if len(b) < 4 {
			return Header{}, ErrShort
		}
		return Header{}, corrupt("not a package")
	}
	if len(b) < HeaderSize {
		return Header{}, ErrShort
	}
	le := binary.LittleEndian
	if got, want := le.Uint32(b[offHeaderSum:]), headerSum(b); got != want {
		return Header{}, corrupt("package header checksum %08x, computed %08x", got, want)
	}
	h := Header{
		Version: le.Uint16(b[4:]), HeaderLen: le.Uint16(b[6:]), Flags: le.Uint16(b[8:]),
		Node: le.Uint16(b[10:]), NNodes: le.Uint16(b[12:]), DepNode: le.Uint16(b[14:]),
		PmntMagic: base.Magic(le.Uint32(b[16:])), DBMagic: base.Magic(le.Uint32(b[20:])), SrcDBMagic: base.Magic(le.Uint32(b[24:])),
		NPTX: le.Uint32(b[28:]), GSEQ: base.Seq(le.Uint64(b[32:])), LSEQ: base.Seq(le.Uint64(b[40:])),
		PrevLSN: base.LSN(le.Uint64(b[48:])), MinLSN: base.LSN(le.Uint64(b[56:])), MaxLSN: base.LSN(le.Uint64(b[64:])),
		DepLSN: base.LSN(le.Uint64(b[72:])), OpenID: le.Uint64(b[80:]), TimeNs: int64(le.Uint64(b[88:])),
		LogMark: LogMark{BatchSeq: base.Seq(le.Uint64(b[96:])), PrevSum: le.Uint32(b[104:]), LogID: le.Uint32(b[offLogID:])},
		RawLen:  le.Uint32(b[108:]), DataLen: le.Uint32(b[112:]), Checksum: le.Uint32(b[offSum:]),
	}
	switch {
	case h.Version > Version:
		return Header{}, fmt.Errorf("%w: version %d, this program knows %d", ErrVersion, h.Version, Version)
	case h.Flags&^knownFlags != 0:
		return Header{}, fmt.Errorf("%w: unknown flags %#x", ErrVersion, h.Flags&^knownFlags)
	case h.Version != Version || h.HeaderLen != HeaderSize:
		return Header{}, corrupt("package version %d with a header of %d bytes", h.Version, h.HeaderLen)
	}
	return h, h.check()
}

// Decode decodes the package at the start of b, which may be longer (see
// EncodedLen), and verifies the checksum. Data points into b.
func Decode(b []byte) (*Package, error) {
	h, err := DecodeHeader(b)
	if err != nil {
		return nil, err
	}
	end := HeaderSize + int(h.DataLen)
	if len(b) < end {
		return nil, fmt.Errorf("package %d: %w: %d bytes of %d", h.GSEQ, ErrShort, len(b), end)
	}
	if sum := checksum(b[:end]); sum != h.Checksum {
		return nil, corrupt("package %d: checksum %08x, computed %08x", h.GSEQ, h.Checksum, sum)
	}
	return &Package{Header: h, Data: b[HeaderSize:end:end]}, nil
}

// WithStore returns the same redo as stored by another database: DBMagic and
// LSEQ are local to it, LogMark is reset. Data is shared.
func (p *Package) WithStore(db base.Magic, lseq base.Seq) *Package {
	q := *p
	q.DBMagic, q.LSEQ = db, lseq
	q.LogMark, q.Checksum = LogMark{}, 0
	return &q
}

// SameRedo reports whether p and q are the same package of the same lineage,
// wherever they are stored.
func (p *Package) SameRedo(q *Package) bool {
	if p.GSEQ != q.GSEQ || p.PrevLSN != q.PrevLSN || p.MinLSN != q.MinLSN || p.MaxLSN != q.MaxLSN ||
		p.OpenID != q.OpenID || p.SrcDBMagic != q.SrcDBMagic || p.NPTX != q.NPTX || p.RawLen != q.RawLen {
		return false
	}
	if p.Flags == q.Flags {
		return bytes.Equal(p.Data, q.Data)
	}
	a, errA := p.Raw()
	b, errB := q.Raw()
	return errA == nil && errB == nil && bytes.Equal(a, b)
}
