package pagestore

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/clock"
	"datawatch/internal/storage/page"
	"datawatch/internal/storage/redo"
	"datawatch/internal/vfs"
)

// DefaultBuffer is the size of the clean-page cache, in bytes, when Options leaves it 0.
const DefaultBuffer = 8 << 20

// Defaults of Options, in bytes.
const (
	DefaultSpill    = 32 << 20
	DefaultVersions = 512 << 20
	DefaultPart     = 1 << 20
)

// poolMax bounds the buffers kept for reuse.
const poolMax = 4096

// Options say how a data file is opened.
type Options struct {
	PageSize    int    // bytes
	BufferBytes int64  // clean-page cache; 0: DefaultBuffer, negative: none
	Tablespace  uint16 // address of the file in redo records
	File        uint16
	Node        uint16 // producing node, for trailers and PTX headers
	// SpillBytes of pages of a writing transaction, and as many of a large one
	// being replayed, are kept in memory, VersionBytes of page versions; what is
	// more goes to the spill file. 0: DefaultSpill, DefaultVersions.
	SpillBytes, VersionBytes int64
	// PartBytes of redo are the most that a transaction has in one piece, but for
	// one page; a larger one is given to the Committer in parts. 0: DefaultPart.
	PartBytes int
	// Whole, unless 0: some pages of the file are ahead of its redo, up to this LSN,
	// and nothing is read before redo has come so far (ErrNotWhole).
	Whole base.LSN
	// Replayers share the pages of a batch of redo (REDOS_PARALLEL_NUM); 0: 1.
	Replayers int
	// LSN is the checkpoint: every change up to it is in the file. The store
	// starts with the snapshot LSN; replay brings it forward.
	LSN base.LSN
	// Committer takes published transactions; nil allows Apply only.
	Committer Committer
	Now       func() int64 // Unix nanoseconds for PTX headers; nil: the system's
}

// Store is a data file with the versions of its pages. Its methods are safe for
// concurrent use, except where they say otherwise.
type Store struct {
	opt  Options
	ps   int
	path string
	f    vfs.File
	dw   *doublewrite
	com  Committer

	spill    *spill
	memPages int // SpillBytes in pages
	maxMem   int // VersionBytes in pages

	root  atomic.Pointer[table]
	cuts  atomic.Pointer[cutList]
	clean *cache

	mu        sync.Mutex // chains' structure, snapshots, dirty bits; never held during I/O
	newest    state
	hard      state
	owed      base.LSN // hardened, see harden
	sizes     []state  // states above hard, newest last
	pins      []*snap  // pinned snapshots by rising LSN
	spare     []*snap
	dead      []dead // by rising until
	nVersions int
	nMem      int // of them in memory
	nDirty    int
	sweep     uint32 // where relieve goes on
	ckpt      base.LSN
	turn      chan struct{} // closed after the next batch of the checkpoint that runs, and at its end; nil: none runs

	pmu  sync.Mutex
	pool [][]byte

	lmu    sync.Mutex // write lock queue
	owner  atomic.Pointer[Handle]
	queue  []*Handle
	closed bool

	builder redo.Builder // of the owner of the write lock

	amu  clock.Mutex // one Apply at a time
	work map[uint32]applied
	run  run
	// perTurn is pagesPerTurn; tests set it.
	perTurn int
	parts   *parts // of a large transaction whose last part has not been applied; nil: none

	cmu clock.Mutex // one checkpoint at a time

	published, rolledBack, diskReads atomic.Int64
}

// state is the database at an LSN.
type state struct {
	lsn    base.LSN
	npages uint32
}

// snap is a pinned state. Everything but state is under Store.mu.
type snap struct {
	state
	refs int
	dead []dead // versions that only this and older snapshots need
}

// Open opens a data file, first repairing pages that a power cut tore with the
// copies in the doublewrite area (path plus ".dwb").
func Open(fs vfs.FS, path string, opt Options) (*Store, error) {
	if !page.ValidSize(opt.PageSize) {
		return nil, fmt.Errorf("open %s: page size %d: %w", path, opt.PageSize, page.ErrSize)
	}
	if opt.BufferBytes == 0 {
		opt.BufferBytes = DefaultBuffer
	}
	if opt.Now == nil {
		opt.Now = func() int64 { return time.Now().UnixNano() }
	}
	if opt.SpillBytes == 0 {
		opt.SpillBytes = DefaultSpill
	}
	if opt.VersionBytes == 0 {
		opt.VersionBytes = DefaultVersions
	}
	if opt.PartBytes == 0 {
		opt.PartBytes = DefaultPart
	}
	sp, err := newSpill(fs, path+spillSuffix, opt.PageSize)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	f, err := fs.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open data file %s: %w", path, err)
	}
	s := &Store{opt: opt, ps: opt.PageSize, path: path, f: f, com: opt.Committer,
		spill: sp, memPages: int(opt.SpillBytes) / opt.PageSize, maxMem: int(opt.VersionBytes) / opt.PageSize,
		clean: newCache(max(opt.BufferBytes, 0), opt.PageSize), work: map[uint32]applied{}, perTurn: pagesPerTurn}
	s.root.Store(&table{})
	s.cuts.Store(&cutList{})
	if s.dw, err = openDoublewrite(fs, path+".dwb", s.ps); err == nil {
		err = s.dw.repair(f, path)
	}
	var size int64
	if err == nil {
		size, err = f.Size()
	}
	if err != nil {
		if s.dw != nil {
			s.dw.close()
		}
		f.Close()
		return nil, fmt.Errorf("open data file %s: %w", path, err)
	}
	s.newest = state{opt.LSN, uint32(size / int64(s.ps))}
	s.hard, s.ckpt = s.newest, opt.LSN
	return s, nil
}

// SetCommitter sets the Committer; before the first Handle is used.
func (s *Store) SetCommitter(c Committer) { s.com = c }

// Close closes the files. Handles and snapshots must not be used any more;
// waiters for the write lock get ErrClosed.
func (s *Store) Close() error {
	s.lmu.Lock()
	s.closed = true
	for _, h := range s.queue {
		h.grant <- ErrClosed
	}
	s.queue = nil
	s.lmu.Unlock()
	return errors.Join(s.f.Close(), s.dw.close(), s.spill.close())
}

// PageSize returns the size of a page in bytes.
func (s *Store) PageSize() int { return s.ps }

// VersionLimit is how many bytes of page versions are kept in memory.
func (s *Store) VersionLimit() int64 { return int64(s.maxMem) * int64(s.ps) }

// Newest returns the LSN of the newest published or applied PTX.
func (s *Store) Newest() base.LSN {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newest.lsn
}

// Hardened returns the LSN that readers see.
func (s *Store) Hardened() base.LSN {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hard.lsn
}

// Pages returns the size of the hardened database in pages.
func (s *Store) Pages() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hard.npages
}

// SetHardened moves what readers see to lsn, which must be the end of a whole
// package: after Apply, nothing below the newest applied LSN may be named. Lower
// LSNs than the current one are ignored.
func (s *Store) SetHardened(lsn base.LSN) {
	for more := s.Harden(lsn); more; more = s.Settle() {
	}
}

// settleChunk versions are settled without letting readers in.
const settleChunk = 1024

// Harden is SetHardened for callers that others wait for: when it returns true,
// versions are left that nobody needs any more, many of them after a large
// transaction, and Settle is to be called until it returns false.
func (s *Store) Harden(lsn base.LSN) (more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.harden(lsn)
}

// harden is Harden, under mu. The Committer has a part of a large transaction, or
// its end, before it is the newest state here, and may be done with it by then:
// what is hardened beyond is owed until advance.
func (s *Store) harden(lsn base.LSN) (more bool) {
	s.owed = max(s.owed, lsn)
	lsn = min(lsn, s.newest.lsn)
	if lsn <= s.hard.lsn {
		return false
	}
	n := 0
	for n < len(s.sizes) && s.sizes[n].lsn <= lsn {
		s.hard.npages = s.sizes[n].npages
		n++
	}
	s.sizes = slices.Delete(s.sizes, 0, n)
	s.hard.lsn = lsn
	return s.settleSome()
}

// Settle frees some of the versions that Harden left and reports whether there
// are more.
func (s *Store) Settle() (more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settleSome()
}

// settleSome settles up to settleChunk versions replaced at or below the
// hardened LSN. Under mu.
func (s *Store) settleSome() (more bool) {
	n := 0
	for n < len(s.dead) && n < settleChunk && s.dead[n].until <= s.hard.lsn {
		s.settle(s.dead[n])
		n++
	}
	switch {
	case n == len(s.dead) && cap(s.dead) > 1<<16:
		s.dead = nil
	case n == settleChunk && n < len(s.dead): // without moving a long rest
		s.dead = s.dead[n:]
	default:
		s.dead = slices.Delete(s.dead, 0, n)
	}
	return n == settleChunk && len(s.dead) > 0 && s.dead[0].until <= s.hard.lsn
}

// advance makes st the newest state. Under mu.
func (s *Store) advance(st state) {
	if st.npages != s.newest.npages {
		s.sizes = append(s.sizes, st)
	}
	s.newest = st
	if s.owed > s.hard.lsn && s.owed <= st.lsn {
		s.harden(s.owed)
	}
}

// pin pins st, which is the hardened or the newest state. Under mu.
func (s *Store) pin(st state) *snap {
	i := len(s.pins)
	for i > 0 && s.pins[i-1].lsn > st.lsn {
		i--
	}
	if i > 0 && s.pins[i-1].lsn == st.lsn {
		s.pins[i-1].refs++
		return s.pins[i-1]
	}
	var sn *snap
	if n := len(s.spare); n > 0 {
		sn, s.spare = s.spare[n-1], s.spare[:n-1]
	} else {
		sn = new(snap)
	}
	sn.state, sn.refs = st, 1
	s.pins = slices.Insert(s.pins, i, sn)
	return sn
}

// release releases a pin; versions that only it needed go.
func (s *Store) release(sn *snap) {
	const chunk = 1024 // versions settled without letting others in
	s.mu.Lock()
	defer s.mu.Unlock()
	if sn.refs--; sn.refs > 0 {
		return
	}
	i := s.pinIndex(sn.lsn + 1)
	s.pins = slices.Delete(s.pins, i-1, i)
	for i, d := range sn.dead { // nobody else has sn any more
		s.settle(d)
		if i%chunk == chunk-1 {
			s.mu.Unlock()
			s.mu.Lock()
		}
	}
	sn.dead = sn.dead[:0]
	if cap(sn.dead) < 1024 && len(s.spare) < 64 {
		s.spare = append(s.spare, sn)
	}
}

// pinIndex returns the number of pins below lsn. Under mu.
func (s *Store) pinIndex(lsn base.LSN) int {
	i, _ := slices.BinarySearchFunc(s.pins, lsn, func(p *snap, l base.LSN) int {
		if p.lsn < l {
			return -1
		}
		return 1
	})
	return i
}

// pinBelow returns the newest pinned snapshot below lsn. Under mu.
func (s *Store) pinBelow(lsn base.LSN) *snap {
	if i := s.pinIndex(lsn); i > 0 {
		return s.pins[i-1]
	}
	return nil
}

func (s *Store) pinHard() *snap {
	s.mu.Lock()
	sn := s.pin(s.hard)
	s.mu.Unlock()
	return sn
}

// image returns page p as snapshot lsn sees it; nil is a page of zeros. The
// bytes do not change while a snapshot that sees them is pinned. have is the LSN
// of the last change.
func (s *Store) image(p uint32, lsn base.LSN) (data []byte, have base.LSN, err error) {
	return s.imageIn(p, lsn, nil)
}

// imageIn is image. With a buffer, a page that the cache has no room for is read
// into it.
func (s *Store) imageIn(p uint32, lsn base.LSN, buf []byte) (data []byte, have base.LSN, err error) {
	for try := 0; ; try++ {
		if v := s.find(p, lsn); v != nil {
			if v.slot.Load() == 0 {
				return v.data, v.lsn, nil
			}
			if data, err = s.load(v, buf); data != nil || err != nil {
				return data, v.lsn, err
			}
			continue // it has left the chain
		}
		cuts := *s.cuts.Load() // before the file: a cut leaves the list after the file was cut
		data, have, err = s.filePage(p, buf)
		if err == nil && have <= lsn {
			if c := cuts.covers(p, have, lsn); c != 0 {
				return nil, c, nil
			}
			return data, have, nil
		}
		// The checkpointer is overwriting the page: what this snapshot needs was
		// put into the chain before. Anything that persists is damage.
		if try >= 8 {
			if err == nil {
				err = fmt.Errorf("%s: page %d: %w: changed at LSN %d, after snapshot %d", s.path, p, ErrDamaged, have, lsn)
			}
			return nil, 0, err
		}
		runtime.Gosched()
	}
}

// load reads a version from the spill file into b, or with nil into memory of its
// own; nil when it has left its chain meanwhile.
func (s *Store) load(v *version, b []byte) ([]byte, error) {
	slot := v.slot.Load()
	if slot == slotGone {
		return nil, nil
	}
	if b == nil {
		b = make([]byte, s.ps)
	}
	lsn, err := s.spill.get(slot, b)
	if v.slot.Load() != slot { // what was read may be another page already
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if lsn != v.lsn {
		page.Seal(b, v.lsn, page.Node(b))
	}
	return b, nil
}

// relieve moves versions from memory to the spill file until they take no more
// than the limit less an eighth, so that neither a slow checkpoint nor an old
// snapshot makes memory grow. What does not fit the disk stays in memory.
func (s *Store) relieve() {
	const batch = 64 // copied without letting others in
	type move struct {
		p    uint32
		v    *version
		slot uint32
	}
	var moves [batch]move
	buf := make([]byte, batch*s.ps)
	for {
		n := 0
		s.mu.Lock()
		if s.nMem <= s.maxMem-s.maxMem/8 {
			s.mu.Unlock()
			return
		}
		wrapped := s.eachVersion(s.sweep, func(p uint32, v *version) bool {
			if n == batch {
				s.sweep = p
				return false
			}
			if v.data != nil {
				copy(buf[n*s.ps:], v.data)
				moves[n] = move{p: p, v: v}
				n++
			}
			return true
		})
		if wrapped {
			if s.sweep == 0 && n == 0 {
				s.mu.Unlock()
				return
			}
			s.sweep = 0
		}
		s.mu.Unlock()
		full := false
		for i := range moves[:n] {
			slot, err := s.spill.put(buf[i*s.ps : (i+1)*s.ps])
			if full = err != nil; full {
				n = i
				break
			}
			moves[i].slot = slot
		}
		s.mu.Lock()
		for _, m := range moves[:n] {
			if !s.swap(m.p, m.v, m.slot) {
				s.spill.release(m.slot)
			}
		}
		s.mu.Unlock()
		if full {
			return
		}
	}
}

// filePage returns page p as it is in the data file, from the cache or the disk.
// With a buffer it is read into that while the cache is full.
func (s *Store) filePage(p uint32, buf []byte) ([]byte, base.LSN, error) {
	data, lsn, gen, full, ok := s.clean.get(p, buf == nil)
	if ok {
		return data, lsn, nil
	}
	past := buf != nil && full
	if !past {
		buf = make([]byte, s.ps)
	}
	lsn, err := readPage(s.f, s.path, p, buf)
	if err != nil {
		return nil, 0, err
	}
	s.diskReads.Add(1)
	if !past {
		s.clean.put(p, buf, lsn, gen)
	}
	return buf, lsn, nil
}

// readPage reads and verifies page p of a data file; pages beyond its end are zeros.
func readPage(f vfs.File, path string, p uint32, buf []byte) (base.LSN, error) {
	n, err := f.ReadAt(buf, int64(p-1)*int64(len(buf)))
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("read %s page %d: %w", path, p, err)
	}
	clear(buf[n:])
	lsn, err := page.Verify(buf)
	if err != nil {
		return 0, fmt.Errorf("%s: page %d (offset %d): %w: %w", path, p, int64(p-1)*int64(len(buf)), ErrDamaged, err)
	}
	return lsn, nil
}

func (s *Store) getBuf() []byte {
	s.pmu.Lock()
	if n := len(s.pool); n > 0 {
		b := s.pool[n-1]
		s.pool = s.pool[:n-1]
		s.pmu.Unlock()
		return b
	}
	s.pmu.Unlock()
	return make([]byte, s.ps)
}

func (s *Store) putBuf(b []byte) {
	s.pmu.Lock()
	if len(s.pool) < poolMax {
		s.pool = append(s.pool, b)
	}
	s.pmu.Unlock()
}

// Stats are the numbers of a store at one moment.
type Stats struct {
	Newest, Hardened, Checkpoint base.LSN
	Oldest                       base.LSN // oldest pinned snapshot; Hardened when there is none
	Pages                        uint32   // of the hardened database
	Snapshots                    int      // distinct pinned LSNs
	Versions                     int      // page versions that the data file lacks or old snapshots need
	VersionBytes                 int64    // of them in memory
	SpillBytes, SpillMax         int64    // used of the spill file, now and at most since the start
	Dirty                        int      // pages that the data file lacks
	CachePages                   int
	CacheHits, CacheMisses       uint64
	Published, RolledBack        int64 // transactions
	DiskReads                    int64 // pages
	Waiters                      int   // for the write lock
}

// Dirty returns the number of pages whose newest state the data file lacks.
func (s *Store) Dirty() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nDirty
}

// Stats returns the current numbers.
func (s *Store) Stats() Stats {
	var st Stats
	s.mu.Lock()
	st.Newest, st.Hardened, st.Checkpoint, st.Oldest = s.newest.lsn, s.hard.lsn, s.ckpt, s.hard.lsn
	if len(s.pins) > 0 {
		st.Oldest = min(st.Oldest, s.pins[0].lsn)
	}
	st.Pages, st.Snapshots = s.hard.npages, len(s.pins)
	st.Versions, st.VersionBytes, st.Dirty = s.nVersions, int64(s.nMem)*int64(s.ps), s.nDirty
	s.mu.Unlock()
	now, most := s.spill.inUse()
	st.SpillBytes, st.SpillMax = int64(now)*int64(s.ps), int64(most)*int64(s.ps)
	st.CachePages, st.CacheHits, st.CacheMisses = s.clean.stats()
	st.Published, st.RolledBack, st.DiskReads = s.published.Load(), s.rolledBack.Load(), s.diskReads.Load()
	s.lmu.Lock()
	st.Waiters = len(s.queue)
	s.lmu.Unlock()
	return st
}
