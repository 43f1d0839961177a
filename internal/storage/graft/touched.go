package graft

import (
	"fmt"
	"iter"
	"maps"
	"math"
	"math/bits"
	"slices"

	"datawatch/internal/storage/redo"
)

// Touched is the set of pages that some redo touches, and what else people will
// want to know of that redo. The zero value is empty.
type Touched struct {
	sets map[uint32]*[chunkPages / 64]uint64 // by page / chunkPages
	low  uint32                              // smallest size of the file on the way, plus 1; 0: it never changed

	Packages     int
	Transactions int // commits; a large transaction that ends in this redo counts as one
	Bytes        int64
	First, Last  int64 // commit times, Unix nanoseconds; 0: no transaction
}

const chunkPages = 1 << 15

// Add adds the redo of a package. give is whether it is part of what is given
// up, and counted: the beginning of a large transaction that ends there is not,
// but its pages are touched.
func (t *Touched) Add(p *redo.Package, give bool) error {
	if give {
		t.Packages++
		t.Bytes += int64(p.EncodedLen())
	}
	for x, err := range p.PTXs() {
		if err != nil {
			return err
		}
		data := false
		for r, err := range x.Records() {
			if err != nil {
				return fmt.Errorf("LSN %d: %w", x.LSN, err)
			}
			switch r.Type {
			case redo.RecPhysical:
				data = true
				t.mark(r.Addr.Page)
			case redo.RecResize:
				data = true
				if t.low == 0 || r.NPages < t.low-1 {
					t.low = min(r.NPages, math.MaxUint32-1) + 1
				}
			}
		}
		if give && (x.Kind == redo.KindCommit && data || x.Kind == redo.KindLast) {
			t.Transactions++
			if t.First == 0 {
				t.First = x.TimeNs
			}
			t.Last = x.TimeNs
		}
	}
	return nil
}

func (t *Touched) mark(p uint32) {
	if t.sets == nil {
		t.sets = map[uint32]*[chunkPages / 64]uint64{}
	}
	s := t.sets[p/chunkPages]
	if s == nil {
		s = new([chunkPages / 64]uint64)
		t.sets[p/chunkPages] = s
	}
	s[p%chunkPages/64] |= 1 << (p % 64)
}

// Pages are those that a database of npages pages must give to one that had this
// redo, in order: the pages touched, and all that it may have cut off.
func (t *Touched) Pages(npages uint32) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		end := npages
		if t.low != 0 {
			end = min(end, t.low-1)
		}
		for _, c := range slices.Sorted(maps.Keys(t.sets)) {
			for i, w := range t.sets[c] {
				for ; w != 0; w &= w - 1 {
					p := c*chunkPages + uint32(i)*64 + uint32(bits.TrailingZeros64(w))
					if p > end {
						break
					}
					if !yield(p) {
						return
					}
				}
			}
		}
		for p := uint64(end) + 1; p <= uint64(npages); p++ {
			if !yield(uint32(p)) {
				return
			}
		}
	}
}

// Count is the number of those pages.
func (t *Touched) Count(npages uint32) (n uint32) {
	for range t.Pages(npages) {
		n++
	}
	return n
}
