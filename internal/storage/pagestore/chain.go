package pagestore

import (
	"math/bits"
	"sync/atomic"

	"datawatch/internal/base"
)

const (
	segBits = 10
	segSize = 1 << segBits
)

// version is one state of a page. lsn and data never change once the
// version is in a chain; data nil is a page of zeros, or one in the spill file
// (slot). Data is sealed with lsn.
type version struct {
	lsn  base.LSN
	prev atomic.Pointer[version] // next older
	// end is the LSN that replaced this version where no newer version in the
	// chain says so: the page was truncated away, or the newer version was
	// dropped because the data file has it. 0: none.
	end  atomic.Uint64
	data []byte
	// recycle (under Store.mu) says that data may go back to the pool when the
	// version is unlinked because no snapshot can reach it.
	recycle bool
	// kept: the data file has this version already, ahead of the redo being
	// applied, and is going to be cut below its page. Never changed.
	kept bool
	// slot, unless 0, is where the spill file has the page; slotGone from when
	// the version is unlinked: who has read the slot until then looks again.
	slot atomic.Uint32
}

const slotGone = 1<<32 - 1

// seg holds the newest versions of segSize pages.
type seg struct {
	head  [segSize]atomic.Pointer[version]
	dirty [segSize / 64]uint64 // under Store.mu: pages with versions the data file lacks
	used  int                  // under Store.mu: heads that are not nil
	nd    int                  // under Store.mu: dirty bits set
}

type table []atomic.Pointer[seg]

// segOf returns the segment of page p or nil. Lock-free. A reader that holds an
// outdated table or segment sees a page without versions, goes to the data file
// and, finding a page that is too new there, looks again.
func (s *Store) segOf(p uint32) *seg {
	t := *s.root.Load()
	if i := int(p >> segBits); i < len(t) {
		return t[i].Load()
	}
	return nil
}

func (s *Store) head(p uint32) *version {
	g := s.segOf(p)
	if g == nil {
		return nil
	}
	return g.head[p&(segSize-1)].Load()
}

// find returns the version of page p that snapshot lsn sees, nil when the chain
// has none. Lock-free.
func (s *Store) find(p uint32, lsn base.LSN) *version {
	for v := s.head(p); v != nil; v = v.prev.Load() {
		if v.lsn <= lsn {
			if e := base.LSN(v.end.Load()); e != 0 && e <= lsn {
				return nil
			}
			return v
		}
	}
	return nil
}

// makeSeg returns the segment of page p, making it. Under mu.
func (s *Store) makeSeg(p uint32) *seg {
	i := int(p >> segBits)
	t := *s.root.Load()
	if i >= len(t) {
		nt := make(table, max(i+1, 2*len(t)))
		for j := range t {
			nt[j].Store(t[j].Load())
		}
		s.root.Store(&nt)
		t = nt
	}
	g := t[i].Load()
	if g == nil {
		g = new(seg)
		t[i].Store(g)
	}
	return g
}

// dropSeg frees an empty segment. Under mu.
func (s *Store) dropSeg(p uint32, g *seg) {
	if g.used == 0 && g.nd == 0 {
		(*s.root.Load())[p>>segBits].Store(nil)
	}
}

// install puts a new version on top of the chain of p and marks p dirty. Under mu.
func (s *Store) install(p uint32, v *version) {
	g := s.makeSeg(p)
	i := p & (segSize - 1)
	h := g.head[i].Load()
	if h == nil {
		g.used++
	} else if h.end.Load() == 0 {
		s.dead = append(s.dead, dead{p, h.lsn, v.lsn})
	}
	v.prev.Store(h)
	g.head[i].Store(v)
	s.setDirty(g, i)
	s.counted(v)
}

// counted counts a version that came into a chain. Under mu.
func (s *Store) counted(v *version) {
	s.nVersions++
	if v.data != nil {
		s.nMem++
	}
}

// uncounted undoes counted when the version leaves, and frees its slot. Under mu.
func (s *Store) uncounted(v *version) {
	s.nVersions--
	if v.data != nil {
		s.nMem--
	}
	if slot := v.slot.Load(); slot != 0 {
		v.slot.Store(slotGone) // before another page can get the slot
		s.spill.release(slot)
	}
}

func (s *Store) setDirty(g *seg, i uint32) {
	if w, b := &g.dirty[i/64], uint64(1)<<(i%64); *w&b == 0 {
		*w |= b
		g.nd++
		s.nDirty++
	}
}

func (s *Store) clearDirty(p uint32, g *seg) {
	i := p & (segSize - 1)
	if w, b := &g.dirty[i/64], uint64(1)<<(i%64); *w&b != 0 {
		*w &^= b
		g.nd--
		s.nDirty--
	}
}

// dead says that the version lsn of a page was replaced at until. When until is
// hardened, the version is needed only by snapshots pinned in between.
type dead struct {
	page       uint32
	lsn, until base.LSN
}

// settle frees a replaced version, or hands it to the snapshot that needs it. Under mu.
func (s *Store) settle(d dead) {
	if sn := s.pinBelow(d.until); sn != nil && sn.lsn >= d.lsn {
		sn.dead = append(sn.dead, d)
		return
	}
	s.unlink(d.page, d.lsn, true)
}

// unlink takes version lsn of page p out of its chain, if it is there. Under mu.
//
// reuse says that no snapshot can see the version: then no reader has its data
// in hand and none can get it (a reader takes the data only of the version its
// pinned snapshot sees), so the buffer may be reused. The version itself is
// never reused: readers on their way to an older one may stand on it.
func (s *Store) unlink(p uint32, lsn base.LSN, reuse bool) {
	g := s.segOf(p)
	if g == nil {
		return
	}
	at := &g.head[p&(segSize-1)]
	isHead := true
	v := at.Load()
	for v != nil && v.lsn > lsn {
		at, isHead = &v.prev, false
		v = at.Load()
	}
	if v == nil || v.lsn != lsn {
		return
	}
	older := v.prev.Load()
	if older != nil && (older.end.Load() == 0 || base.LSN(older.end.Load()) > v.lsn) {
		older.end.Store(uint64(v.lsn)) // before v disappears
	}
	at.Store(older)
	s.uncounted(v)
	if reuse && v.recycle {
		s.putBuf(v.data)
	}
	if isHead && older == nil {
		g.used--
		s.dropSeg(p, g)
	}
}

// cut ends every version of the pages beyond n at lsn: the file was truncated. Under mu.
func (s *Store) cut(n uint32, lsn base.LSN) {
	t := *s.root.Load()
	for i := int((n + 1) >> segBits); i < len(t); i++ {
		g := t[i].Load()
		if g == nil || g.used == 0 {
			continue
		}
		for j := range g.head {
			p := uint32(i)<<segBits | uint32(j)
			if p <= n {
				continue
			}
			// A head above lsn is a state kept by replay (Apply): the page came back.
			if h := g.head[j].Load(); h != nil && h.lsn < lsn && h.end.Load() == 0 {
				h.end.Store(uint64(lsn))
				s.dead = append(s.dead, dead{p, h.lsn, lsn})
			}
		}
	}
	old := *s.cuts.Load()
	nc := append(old[:len(old):len(old)], cut{lsn, n})
	s.cuts.Store(&nc)
}

// cut says that at lsn the file was truncated to n pages: what the data file
// still has of pages beyond n, and is older, reads as zeros from then on.
type cut struct {
	lsn base.LSN
	n   uint32
}

type cutList []cut

// covers returns the newest cut in (have, lsn] that reaches page p, 0 for none.
func (c cutList) covers(p uint32, have, lsn base.LSN) base.LSN {
	for i := len(c) - 1; i >= 0; i-- {
		if c[i].lsn <= lsn && c[i].lsn > have && c[i].n < p {
			return c[i].lsn
		}
	}
	return 0
}

// eachDirty calls fn for every dirty page from page on, until it returns false. Under mu.
func (s *Store) eachDirty(from uint32, fn func(p uint32, g *seg) bool) {
	t := *s.root.Load()
	for i := int(from >> segBits); i < len(t); i++ {
		g := t[i].Load()
		if g == nil || g.nd == 0 {
			continue
		}
		for w := range g.dirty {
			for m := g.dirty[w]; m != 0; m &= m - 1 {
				p := uint32(i)<<segBits | uint32(w*64+bits.TrailingZeros64(m))
				if p >= from && !fn(p, g) {
					return
				}
			}
		}
	}
}

// eachVersion calls fn for every version of the pages from page from on, until
// it returns false; it reports whether it came to the end. Under mu.
func (s *Store) eachVersion(from uint32, fn func(p uint32, v *version) bool) bool {
	t := *s.root.Load()
	for i := int(from >> segBits); i < len(t); i++ {
		g := t[i].Load()
		if g == nil || g.used == 0 {
			continue
		}
		for j := range g.head {
			p := uint32(i)<<segBits | uint32(j)
			if p < from {
				continue
			}
			for v := g.head[j].Load(); v != nil; v = v.prev.Load() {
				if !fn(p, v) {
					return false
				}
			}
		}
	}
	return true
}

// swap puts a version that is in the spill file into the place of v, unless v
// has left its chain. Readers that stand on v keep what it has. Under mu.
func (s *Store) swap(p uint32, v *version, slot uint32) bool {
	g := s.segOf(p)
	if g == nil {
		return false
	}
	at := &g.head[p&(segSize-1)]
	for n := at.Load(); n != v; n = at.Load() {
		if n == nil {
			return false
		}
		at = &n.prev
	}
	nv := &version{lsn: v.lsn, kept: v.kept}
	nv.prev.Store(v.prev.Load())
	nv.end.Store(v.end.Load())
	nv.slot.Store(slot)
	at.Store(nv)
	s.nMem--
	return true
}
