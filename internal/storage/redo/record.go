package redo

import (
	"encoding/binary"
	"fmt"
	"iter"

	"datawatch/internal/base"
	"datawatch/internal/storage/page"
)

// Addr is the address of a page. Pages count from 1.
type Addr struct {
	Tablespace, File uint16
	Page             uint32
}

func (a Addr) String() string { return fmt.Sprintf("(%d,%d,%d)", a.Tablespace, a.File, a.Page) }

// PTXKind says what a PTX does when it is applied.
type PTXKind uint8

const (
	KindCommit  PTXKind = 1 // its changes become visible
	KindPrepare PTXKind = 2 // reserved for two-phase commit; refused
	KindResolve PTXKind = 3 // reserved for two-phase commit; refused

	// A large transaction is a chain of PTXs with successive LSNs, none of
	// another kind between them: one KindFirst, any number of KindNext, and
	// KindLast, which commits them all. A KindFirst or a KindCommit in the place
	// of a KindNext or KindLast says that the chain came to nothing.
	KindFirst PTXKind = 4
	KindNext  PTXKind = 5
	KindLast  PTXKind = 6
)

// Fragment reports whether a PTX of this kind leaves a chain open.
func (k PTXKind) Fragment() bool { return k == KindFirst || k == KindNext }

// Continues reports whether a PTX of this kind needs an open chain before it.
func (k PTXKind) Continues() bool { return k == KindNext || k == KindLast }

// ChainAfter returns the LSN of the first PTX of the chain that is open after a
// PTX of kind k and this LSN, 0 when none is; chain is the one open before.
// ErrCorrupt when k needs one and there is none.
func ChainAfter(chain base.LSN, k PTXKind, lsn base.LSN) (base.LSN, error) {
	switch k {
	case KindFirst:
		return lsn, nil
	case KindNext, KindLast:
		if chain == 0 {
			return 0, corrupt("PTX %d continues a transaction whose beginning is not there", lsn)
		}
		if k == KindNext {
			return chain, nil
		}
	}
	return 0, nil
}

// LogicalOpenRecord is the kind of a logical record whose payload is a
// base.OpenRecord in JSON.
const LogicalOpenRecord uint8 = 1

// PTXHeaderSize is the encoded size of a PTXHeader.
const PTXHeaderSize = 36

// PTXHeader stands before the records of a PTX.
type PTXHeader struct {
	LSN      base.LSN
	Kind     PTXKind
	Node     uint16   // the node that made it
	PrevNode uint16   // with PrevLSN: the PTX that must be applied before
	PrevLSN  base.LSN // 0: none but the order of the log
	TimeNs   int64    // commit time, Unix nanoseconds
	Len      uint32   // bytes of records after the header
}

func (h PTXHeader) marshal(b []byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], uint64(h.LSN))
	le.PutUint64(b[8:], uint64(h.PrevLSN))
	le.PutUint64(b[16:], uint64(h.TimeNs))
	le.PutUint32(b[24:], h.Len)
	le.PutUint16(b[28:], h.Node)
	le.PutUint16(b[30:], h.PrevNode)
	b[32] = byte(h.Kind)
	b[33], b[34], b[35] = 0, 0, 0
}

func (h *PTXHeader) unmarshal(b []byte) error {
	if len(b) < PTXHeaderSize {
		return corrupt("%d bytes where a PTX header of %d should be", len(b), PTXHeaderSize)
	}
	le := binary.LittleEndian
	*h = PTXHeader{
		LSN: base.LSN(le.Uint64(b[0:])), PrevLSN: base.LSN(le.Uint64(b[8:])), TimeNs: int64(le.Uint64(b[16:])),
		Len: le.Uint32(b[24:]), Node: le.Uint16(b[28:]), PrevNode: le.Uint16(b[30:]), Kind: PTXKind(b[32]),
	}
	if h.LSN == 0 {
		return corrupt("PTX with LSN 0")
	}
	if h.Kind != KindCommit && (h.Kind < KindFirst || h.Kind > KindLast) {
		return fmt.Errorf("%w: PTX %d is of kind %d", ErrVersion, h.LSN, h.Kind)
	}
	if b[33]|b[34]|b[35] != 0 {
		return corrupt("PTX %d: reserved bytes are not 0", h.LSN)
	}
	return nil
}

// RecordType is the type of a redo record.
type RecordType uint8

const (
	RecPhysical RecordType = 1 // bytes of a page
	RecResize   RecordType = 2 // a file's size in pages
	RecLogical  RecordType = 3 // anything else, by Kind
)

// Record is one decoded record; its slices point into the PTX.
type Record struct {
	Type    RecordType
	Addr    Addr   // Page is 0 in RecResize
	Ranges  []byte // RecPhysical: encoded ranges, checked
	NPages  uint32 // RecResize
	Kind    uint8  // RecLogical
	Payload []byte // RecLogical
}

// ApplyTo writes the bytes of a physical record into a page. The trailer is not
// touched: seal the page afterwards. On an error the page may be half changed.
func (r Record) ApplyTo(p []byte) error {
	if r.Type != RecPhysical {
		return fmt.Errorf("redo record of type %d is not applied to a page", r.Type)
	}
	limit := len(p) - page.TrailerSize
	pos := 0
	for b := r.Ranges; len(b) > 0; {
		off, data, rest, err := nextRange(b, pos, limit)
		if err != nil {
			return fmt.Errorf("page %s: %w", r.Addr, err)
		}
		copy(p[off:], data)
		pos, b = off+len(data), rest
	}
	return nil
}

// EachRange calls fn for each byte range of a physical record, in order; data
// points into the PTX.
func (r Record) EachRange(fn func(off int, data []byte)) error {
	pos := 0
	for b := r.Ranges; len(b) > 0; {
		off, data, rest, err := nextRange(b, pos, page.MaxSize-page.TrailerSize)
		if err != nil {
			return fmt.Errorf("page %s: %w", r.Addr, err)
		}
		fn(off, data)
		pos, b = off+len(data), rest
	}
	return nil
}

// nextRange decodes one range: the gap after the range before (which ended at
// pos), the length, the bytes.
func nextRange(b []byte, pos, limit int) (off int, data, rest []byte, err error) {
	gap, n := uvarint(b)
	if n <= 0 || gap > uint64(limit) {
		return 0, nil, nil, corrupt("bad range offset")
	}
	b = b[n:]
	size, n := uvarint(b)
	if n <= 0 || size == 0 || size > uint64(len(b)-n) {
		return 0, nil, nil, corrupt("bad range length")
	}
	off = pos + int(gap)
	if off+int(size) > limit {
		return 0, nil, nil, corrupt("range %d+%d is beyond the page", off, size)
	}
	return off, b[n : n+int(size)], b[n+int(size):], nil
}

// uvarint is binary.Uvarint with the one-byte case inlined.
func uvarint(b []byte) (uint64, int) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	return binary.Uvarint(b)
}

// PTX is one decoded physical transaction; Body points into the package.
type PTX struct {
	PTXHeader
	Body []byte
}

// Records decodes the records of the PTX. After an error it stops.
func (p PTX) Records() iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for b := p.Body; len(b) > 0; {
			r, n, err := decodeRecord(b)
			if err != nil {
				yield(Record{}, fmt.Errorf("PTX %d, byte %d: %w", p.LSN, len(p.Body)-len(b), err))
				return
			}
			if !yield(r, nil) {
				return
			}
			b = b[n:]
		}
	}
}

// decodeRecord decodes the record at the start of b and returns its length.
func decodeRecord(b []byte) (Record, int, error) {
	d := reader{b: b}
	r := Record{Type: RecordType(d.byte())}
	switch r.Type {
	case RecPhysical:
		r.Addr = Addr{Tablespace: d.u16(), File: d.u16(), Page: d.u32()}
		r.Ranges = d.bytes()
		if d.ok() && (r.Addr.Page == 0 || len(r.Ranges) == 0) {
			return r, 0, corrupt("physical record for page %s with %d bytes", r.Addr, len(r.Ranges))
		}
		if d.ok() {
			if err := r.EachRange(func(int, []byte) {}); err != nil {
				return r, 0, err
			}
		}
	case RecResize:
		r.Addr = Addr{Tablespace: d.u16(), File: d.u16()}
		r.NPages = d.u32()
	case RecLogical:
		r.Kind = d.byte()
		r.Payload = d.bytes()
	default:
		return r, 0, fmt.Errorf("%w: record of type %d", ErrVersion, r.Type)
	}
	if !d.ok() {
		return r, 0, corrupt("record of type %d is cut off or has a bad number", r.Type)
	}
	return r, d.pos, nil
}

// reader reads varints and remembers the first failure.
type reader struct {
	b   []byte
	pos int
	bad bool
}

func (d *reader) ok() bool { return !d.bad }

func (d *reader) byte() byte {
	if d.bad || d.pos >= len(d.b) {
		d.bad = true
		return 0
	}
	d.pos++
	return d.b[d.pos-1]
}

func (d *reader) num(limit uint64) uint64 {
	if d.bad {
		return 0
	}
	v, n := uvarint(d.b[d.pos:])
	if n <= 0 || v > limit {
		d.bad = true
		return 0
	}
	d.pos += n
	return v
}

func (d *reader) u16() uint16 { return uint16(d.num(1<<16 - 1)) }
func (d *reader) u32() uint32 { return uint32(d.num(1<<32 - 1)) }

func (d *reader) bytes() []byte {
	n := d.num(MaxPTX)
	if d.bad || n > uint64(len(d.b)-d.pos) {
		d.bad = true
		return nil
	}
	d.pos += int(n)
	return d.b[d.pos-int(n) : d.pos : d.pos]
}
