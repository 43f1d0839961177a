package pagestore

import (
	"fmt"
	"sync"

	"datawatch/internal/base"
	"datawatch/internal/storage/page"
	"datawatch/internal/vfs"
)

// spillSuffix names the spill file beside the data file.
const spillSuffix = ".spl"

// spill is a file for page images that memory has no room for: the pages of a
// large transaction, and versions that old snapshots need. It is made when it is
// first needed, never synced, and means nothing after a restart. Every image in
// it is sealed, so that a disk that returns something else is found out.
type spill struct {
	fs   vfs.FS
	path string
	ps   int

	mu   sync.Mutex
	f    vfs.File
	n    uint32   // slots in the file, numbered from 1
	free []uint32 // of them, those not in use
	max  uint32   // most slots ever in use at once
}

func newSpill(fs vfs.FS, path string, ps int) (*spill, error) {
	sp := &spill{fs: fs, path: path, ps: ps}
	if _, err := fs.Stat(path); err != nil {
		return sp, nil
	}
	if err := fs.Remove(path); err != nil {
		return nil, fmt.Errorf("remove the spill file of the last run: %w", err)
	}
	return sp, nil
}

func (sp *spill) close() error {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.f == nil {
		return nil
	}
	err := sp.f.Close()
	sp.f = nil
	_ = sp.fs.Remove(sp.path) // the next Open does, if this fails
	return err
}

// put stores a sealed page and returns its slot.
func (sp *spill) put(b []byte) (slot uint32, err error) {
	sp.mu.Lock()
	if sp.f == nil {
		if sp.f, err = sp.fs.Create(sp.path, true); err != nil {
			sp.mu.Unlock()
			return 0, fmt.Errorf("create spill file: %w", err)
		}
	}
	if n := len(sp.free); n > 0 {
		slot, sp.free = sp.free[n-1], sp.free[:n-1]
	} else {
		sp.n++
		slot = sp.n
	}
	sp.max = max(sp.max, sp.n-uint32(len(sp.free)))
	sp.mu.Unlock()
	if err = sp.write(slot, b); err != nil {
		sp.release(slot)
		return 0, err
	}
	return slot, nil
}

// write replaces the page in a slot that is in use.
func (sp *spill) write(slot uint32, b []byte) error {
	if _, err := sp.f.WriteAt(b, int64(slot-1)*int64(sp.ps)); err != nil {
		return fmt.Errorf("write spill file %s: %w", sp.path, err)
	}
	return nil
}

// get reads a slot into b and returns the LSN of the seal.
func (sp *spill) get(slot uint32, b []byte) (base.LSN, error) {
	if n, err := sp.f.ReadAt(b, int64(slot-1)*int64(sp.ps)); n < len(b) {
		return 0, fmt.Errorf("read spill file %s: %w", sp.path, err)
	}
	lsn, err := page.Verify(b)
	if err != nil {
		return 0, fmt.Errorf("spill file %s, offset %d: %w: %w", sp.path, int64(slot-1)*int64(sp.ps), ErrDamaged, err)
	}
	return lsn, nil
}

// release frees a slot. When none is in use the file gives its space back.
func (sp *spill) release(slot uint32) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.free = append(sp.free, slot)
	if len(sp.free) == int(sp.n) && sp.f != nil && sp.f.Truncate(0) == nil {
		sp.free, sp.n = nil, 0
	}
}

// inUse returns the number of slots in use now and at most, ever.
func (sp *spill) inUse() (now, most int) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	return int(sp.n) - len(sp.free), int(sp.max)
}

// slotTable maps pages to slots with four bytes a page; 0 is none.
type slotTable struct {
	t []*[segSize]uint32
	n int
}

func (t *slotTable) get(p uint32) uint32 {
	if i := int(p >> segBits); i < len(t.t) && t.t[i] != nil {
		return t.t[i][p&(segSize-1)]
	}
	return 0
}

func (t *slotTable) set(p, slot uint32) {
	i := int(p >> segBits)
	for len(t.t) <= i {
		t.t = append(t.t, nil)
	}
	if t.t[i] == nil {
		if slot == 0 {
			return
		}
		t.t[i] = new([segSize]uint32)
	}
	at := &t.t[i][p&(segSize-1)]
	switch {
	case *at == 0 && slot != 0:
		t.n++
	case *at != 0 && slot == 0:
		t.n--
	}
	*at = slot
}

// each calls fn for every page with a slot, in order.
func (t *slotTable) each(fn func(p, slot uint32)) {
	for i, g := range t.t {
		if g == nil {
			continue
		}
		for j, slot := range g {
			if slot != 0 {
				fn(uint32(i)<<segBits|uint32(j), slot)
			}
		}
	}
}
