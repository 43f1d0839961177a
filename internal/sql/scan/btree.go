package scan

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Source is the pages of one snapshot. It is used by several goroutines.
type Source interface {
	// Page returns page no, from 1: its own memory, which does not change, or the
	// beginning of buf, which has room for a page.
	Page(no uint32, buf []byte) ([]byte, error)
}

// errCorrupt means pages that are no b-tree; SQLite finds out how to call it.
var errCorrupt = errors.New("malformed b-tree")

const (
	interiorTable = 5
	leafTable     = 13
	maxDepth      = 20 // SQLite's own limit
	chunkLeaves   = 64
	maxPayload    = 1 << 30
)

// node is a page of a table's b-tree, looked at but not copied.
type node struct {
	data   []byte // without the reserved bytes
	leaf   bool
	cells  int
	first  int // offset of the cell pointers
	right  uint32
	number uint32
}

// readNode reads page no. reserved bytes at its end are cut off.
func readNode(src Source, no uint32, buf []byte, reserved int) (n node, err error) {
	if no < 2 {
		return n, fmt.Errorf("page %d: %w", no, errCorrupt)
	}
	data, err := src.Page(no, buf)
	if err != nil {
		return n, err
	}
	if len(data)-reserved < 480 {
		return n, fmt.Errorf("page %d has %d bytes: %w", no, len(data), errCorrupt)
	}
	n = node{data: data[:len(data)-reserved], number: no, first: 8, cells: int(binary.BigEndian.Uint16(data[3:]))}
	switch data[0] {
	case leafTable:
		n.leaf = true
	case interiorTable:
		n.first, n.right = 12, binary.BigEndian.Uint32(data[8:])
	default:
		return n, fmt.Errorf("page %d is of type %d: %w", no, data[0], errCorrupt)
	}
	if n.first+2*n.cells > len(n.data) {
		return n, fmt.Errorf("page %d with %d cells: %w", no, n.cells, errCorrupt)
	}
	return n, nil
}

// cell returns the bytes from cell i on.
func (n *node) cell(i int) ([]byte, error) {
	at := int(binary.BigEndian.Uint16(n.data[n.first+2*i:]))
	if at < n.first+2*n.cells || at+4 > len(n.data) {
		return nil, fmt.Errorf("page %d, cell %d at %d: %w", n.number, i, at, errCorrupt)
	}
	return n.data[at:], nil
}

// child is the page left of cell i of an interior page; i may be the number of cells.
func (n *node) child(i int) (uint32, error) {
	if i == n.cells {
		return n.right, nil
	}
	c, err := n.cell(i)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint32(c), nil
}

// chunk is a run of leaves: children from to to-1 of an interior page, or with
// to 0 the page itself, a leaf.
type chunk struct {
	page     uint32
	from, to int
}

// walker cuts a tree into chunks, in order.
type walker struct {
	src      Source
	reserved int
	levels   int // of interior pages
	path     []step
	bufs     [][]byte
	root     uint32
	done     bool
}

type step struct {
	n  node
	at int
}

func newWalker(src Source, root uint32, pageSize, reserved int) (*walker, error) {
	w := &walker{src: src, reserved: reserved, root: root}
	for no := root; ; w.levels++ {
		if w.levels > maxDepth {
			return nil, fmt.Errorf("page %d: tree is deeper than %d: %w", root, maxDepth, errCorrupt)
		}
		buf := make([]byte, pageSize)
		n, err := readNode(src, no, buf, reserved)
		if err != nil {
			return nil, err
		}
		if n.leaf {
			return w, nil
		}
		w.bufs, w.path = append(w.bufs, buf), append(w.path, step{n: n})
		if no, err = n.child(0); err != nil {
			return nil, err
		}
	}
}

// next returns the next chunk; ok is false at the end.
func (w *walker) next() (c chunk, ok bool, err error) {
	if w.done {
		return c, false, nil
	}
	if w.levels == 0 {
		w.done = true
		return chunk{page: w.root}, true, nil
	}
	for {
		last := &w.path[len(w.path)-1]
		if left := last.n.cells + 1 - last.at; left > 0 {
			c = chunk{page: last.n.number, from: last.at, to: last.at + min(left, chunkLeaves)}
			last.at = c.to
			return c, true, nil
		}
		if ok, err := w.forward(); err != nil || !ok {
			w.done = true
			return c, false, err
		}
	}
}

// forward goes to the next page of the lowest interior level.
func (w *walker) forward() (bool, error) {
	i := len(w.path) - 2
	for ; i >= 0; i-- {
		if s := &w.path[i]; s.at < s.n.cells {
			s.at++
			break
		}
	}
	if i < 0 {
		return false, nil
	}
	for ; i < len(w.path)-1; i++ {
		no, err := w.path[i].n.child(w.path[i].at)
		if err != nil {
			return false, err
		}
		n, err := readNode(w.src, no, w.bufs[i+1], w.reserved)
		if err != nil {
			return false, err
		}
		if n.leaf {
			return false, fmt.Errorf("page %d: a leaf among interior pages: %w", no, errCorrupt)
		}
		w.path[i+1] = step{n: n}
	}
	return true, nil
}

// varint reads SQLite's variable-length integer: big-endian groups of seven bits,
// the ninth byte whole. n is 0 when b is too short.
func varint(b []byte) (v uint64, n int) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	for i := range min(len(b), 8) {
		v = v<<7 | uint64(b[i]&0x7f)
		if b[i] < 0x80 {
			return v, i + 1
		}
	}
	if len(b) < 9 {
		return 0, 0
	}
	return v<<8 | uint64(b[8]), 9
}

// missing is the type of a field that the record is too short for.
const missing = math.MaxUint64

// record is one row, its fields found but not decoded.
type record struct {
	src      Source
	reserved int
	pageSize int
	columns  []int // fields that are looked for, rising

	rowid int64
	types []uint64 // of columns
	offs  []int
	data  []byte // of the payload, as much as is needed
	size  int    // of the whole payload

	overflow []byte // what does not fit the leaf, gathered here
	most     int    // bytes that may be
	next     uint32 // page of it that comes next
	pages    int
	page     []byte
}

var fixedSize = [12]int{0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0}

// load takes a cell of a leaf.
func (r *record) load(cell []byte) error {
	size, n := varint(cell)
	if n == 0 || size > maxPayload {
		return errCorrupt
	}
	rowid, m := varint(cell[n:])
	if m == 0 {
		return errCorrupt
	}
	r.rowid, r.size, r.next, r.pages = int64(rowid), int(size), 0, 0
	cell = cell[n+m:]
	usable := r.pageSize - r.reserved
	local := r.size
	if local > usable-35 {
		least := (usable-12)*32/255 - 23
		if local = least + (r.size-least)%(usable-4); local > usable-35 {
			local = least
		}
		if local+4 > len(cell) {
			return errCorrupt
		}
		r.next = binary.BigEndian.Uint32(cell[local:])
	}
	if local > len(cell) {
		return errCorrupt
	}
	r.data = cell[:local:local]
	return r.header()
}

// header finds the fields.
func (r *record) header() error {
	hdr, at := varint(r.data)
	if at == 0 || hdr > uint64(r.size) || hdr < uint64(at) {
		return errCorrupt
	}
	if err := r.need(int(hdr)); err != nil {
		return err
	}
	b := r.data[:hdr]
	off, field := int(hdr), 0
	for i, want := range r.columns {
		r.types[i] = missing
		for at < len(b) && field <= want {
			t, n := uint64(b[at]), 1
			if t >= 0x80 {
				if t, n = varint(b[at:]); n == 0 {
					return errCorrupt
				}
			}
			at += n
			size := 0
			if t < 12 {
				size = fixedSize[t]
			} else if t-12 < 2*maxPayload {
				size = int(t-12) / 2
			} else {
				return errCorrupt
			}
			if field == want {
				r.types[i], r.offs[i] = t, off
			}
			off += size
			field++
		}
		if off > r.size {
			return errCorrupt
		}
	}
	return nil
}

// need makes the first n bytes of the payload available in data.
func (r *record) need(n int) error {
	if n <= len(r.data) {
		return nil
	}
	if n > r.size {
		return errCorrupt
	}
	if n > r.most {
		return errMemory // SQLite passes over what it does not need
	}
	if r.pages == 0 {
		r.overflow = append(r.overflow[:0], r.data...)
	}
	usable := r.pageSize - r.reserved
	for len(r.overflow) < n {
		if r.next < 2 || r.pages > maxPayload/512 {
			return errCorrupt
		}
		p, err := r.src.Page(r.next, r.page)
		if err != nil {
			return err
		}
		if len(p) < usable {
			return errCorrupt
		}
		r.pages++
		r.next = binary.BigEndian.Uint32(p)
		r.overflow = append(r.overflow, p[4:4+min(usable-4, r.size-len(r.overflow))]...)
	}
	r.data = r.overflow
	return nil
}

// ErrShort means a row that is older than one of its columns, which has a default
// (Options.Defaults).
var ErrShort = fmt.Errorf("%w: a row without the column", ErrUnsupported)

// value decodes field i of columns into v; its bytes are the record's.
func (r *record) value(i int, v *Value) error {
	t, off := r.types[i], r.offs[i]
	switch {
	case t == missing:
		return ErrShort
	case t >= 12:
		n := int(t-12) / 2
		if off+n > len(r.data) {
			if err := r.need(off + n); err != nil {
				return err
			}
		}
		v.Bytes = r.data[off : off+n : off+n]
		v.Kind = Blob
		if t&1 != 0 {
			v.Kind = Text
		}
		return nil
	}
	if n := off + fixedSize[t]; n > len(r.data) {
		if err := r.need(n); err != nil {
			return err
		}
	}
	b := r.data[off:]
	v.Kind = Int
	switch t {
	case 0:
		v.Kind = Null
	case 1:
		v.n = int64(int8(b[0]))
	case 2:
		v.n = int64(int16(binary.BigEndian.Uint16(b)))
	case 3:
		v.n = int64(int8(b[0]))<<16 | int64(b[1])<<8 | int64(b[2])
	case 4:
		v.n = int64(int32(binary.BigEndian.Uint32(b)))
	case 5:
		v.n = int64(int16(binary.BigEndian.Uint16(b)))<<32 | int64(binary.BigEndian.Uint32(b[2:]))
	case 6:
		v.n = int64(binary.BigEndian.Uint64(b))
	case 7:
		*v = RealValue(math.Float64frombits(binary.BigEndian.Uint64(b)))
	case 8:
		v.n = 0
	case 9:
		v.n = 1
	default:
		return errCorrupt
	}
	return nil
}
