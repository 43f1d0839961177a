package pagestore

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"datawatch/internal/base"
	"datawatch/internal/storage/page"
	"datawatch/internal/storage/redo"
)

// Batch is redo that was decoded and checked and waits for ApplyBatch. It is
// filled before anything changes, so that redo which does not belong here is
// refused as a whole (G5), and so that it is decoded once.
type Batch struct {
	s    *Store
	ptxs []batchPTX
	recs []batchRec
	done int // PTXs applied
}

// batchPTX is a PTX of a batch; its physical records are recs[from:to].
type batchPTX struct {
	redo.PTX
	from, to int
	size     uint32   // of the file as the PTX says; 0: it says nothing
	high     uint32   // highest page changed
	at       base.LSN // that its pages get: its own, or that of the last part of its transaction
	single   bool     // it names sizes in an unusual way: not to be taken together with others
}

// batchRec is a physical record.
type batchRec struct {
	page   uint32
	ptx    int32 // index in ptxs
	next   int32 // within a run: the index of the page's next record, 0: none
	ranges []byte
}

// NewBatch returns an empty batch.
func (s *Store) NewBatch() *Batch { return &Batch{s: s} }

// Len returns the number of PTXs added.
func (b *Batch) Len() int { return len(b.ptxs) }

// Add adds the next PTX, whose bytes must not change until it is applied, and
// calls logical for its logical records. What ApplyBatch would refuse whatever
// the pages hold is an error; then the batch is of no use any more.
func (b *Batch) Add(t redo.PTX, logical func(redo.Record) error) error {
	x := batchPTX{PTX: t, from: len(b.recs), at: t.LSN}
	sizes := 0
	for rec, err := range t.Records() {
		if err == nil {
			err = b.s.Known(rec)
		}
		if err != nil {
			return fmt.Errorf("LSN %d: %w", t.LSN, err)
		}
		switch rec.Type {
		case redo.RecLogical:
			if err := logical(rec); err != nil {
				return fmt.Errorf("LSN %d: %w", t.LSN, err)
			}
		case redo.RecResize:
			sizes++
			x.size = rec.NPages
			x.single = x.single || sizes > 1 || x.high > rec.NPages || rec.NPages == 0
		case redo.RecPhysical:
			x.high = max(x.high, rec.Addr.Page)
			if !x.single {
				b.recs = append(b.recs, batchRec{page: rec.Addr.Page, ptx: int32(len(b.ptxs)), ranges: rec.Ranges})
			}
		}
	}
	x.to = len(b.recs)
	b.ptxs = append(b.ptxs, x)
	return nil
}

// batchPage is a page that a run changes.
type batchPage struct {
	page        uint32
	beyond      bool  // it was beyond the end of the file when the run came to it
	first, last int32 // indexes of records
	applied
	lsn  base.LSN // of its last change, 0: none
	node uint16
}

// run is the state of one step of ApplyBatch; its memory is kept for the next.
type run struct {
	at    map[uint32]int32 // index in pages
	pages []batchPage
}

// ApplyBatch applies the next n PTXs of a batch, which must end with a package,
// as Apply does one by one, but with one version for each page that they change:
// that of its last change. So SetHardened may name the end only. Options.Replayers
// goroutines share the pages. After an error the store must be closed.
func (s *Store) ApplyBatch(b *Batch, n int) error {
	todo := b.ptxs[b.done : b.done+n]
	b.done += n
	for len(todo) > 0 {
		k, err := s.applyRun(b, todo)
		if err == nil && k == 0 {
			k, err = 1, s.Apply(todo[0].PTX)
		}
		if err != nil {
			return err
		}
		todo = todo[k:]
	}
	return nil
}

// applyRun applies as many PTXs as can be taken together and returns their number.
func (s *Store) applyRun(b *Batch, todo []batchPTX) (n int, err error) {
	s.amu.Lock()
	defer s.amu.Unlock()
	s.mu.Lock()
	cur, hard, top := s.newest, s.hard.lsn, s.topPin()
	// What a run changes is in memory until it ends: as much as there is room for,
	// since a page that changes often then costs once, but not nothing.
	limit := max(s.maxMem-s.nMem, s.maxMem/8, 16)
	s.mu.Unlock()
	for n < len(todo) && todo[n].LSN <= cur.lsn { // the store has it
		n++
	}
	if n > 0 {
		return n, nil
	}
	r := &s.run
	n, np := r.collect(b, todo, cur.npages, limit)
	if n == 0 {
		return 0, nil
	}
	defer r.reset()
	s.dropParts() // of a transaction that came to nothing
	if err := s.eachPage(r, b, hard, top); err != nil {
		return 0, err
	}
	last := todo[n-1].LSN
	s.mu.Lock()
	s.installRun(r)
	s.advance(state{last, np})
	s.mu.Unlock()
	return n, s.relieved(nil)
}

// together returns how many of the first PTXs become visible together: one, or
// all parts of a large transaction, whose pages get the LSN of the last of them. 0:
// they have to be applied one by one, because parts are missing, the file becomes
// shorter, or more than limit pages may be changed at once, which could need more memory
// than there is. np is the size of the file before them, and after them.
func together(todo []batchPTX, np uint32, limit int) (int, uint32) {
	pages := 0
	for n := range todo {
		t := &todo[n]
		switch {
		case t.single || t.size != 0 && t.size < np,
			n == 0 && t.Kind != redo.KindCommit && t.Kind != redo.KindFirst,
			n > 0 && (t.Kind != redo.KindNext && t.Kind != redo.KindLast || t.LSN != todo[n-1].LSN+1):
			return 0, np
		}
		if pages += t.to - t.from; n > 0 && pages > limit {
			return 0, np
		}
		// During crash recovery the file may already be as short as a later PTX
		// makes it; a published PTX that grows the file says so itself.
		if t.size != 0 {
			np = t.size
		}
		np = max(np, t.high)
		if t.Kind == redo.KindCommit || t.Kind == redo.KindLast {
			for i := range n {
				todo[i].at = t.LSN
			}
			return n + 1, np
		}
	}
	return 0, np
}

// collect groups the records of the longest run by page. np is the size of the
// file before it, and after it.
func (r *run) collect(b *Batch, todo []batchPTX, np uint32, limit int) (int, uint32) {
	if r.at == nil {
		r.at = map[uint32]int32{}
	}
	done := 0
	for done < len(todo) && len(r.pages) < limit {
		n, after := together(todo[done:], np, limit-len(r.pages))
		if n == 0 {
			break
		}
		for i := todo[done].from; i < todo[done+n-1].to; i++ {
			p := b.recs[i].page
			if k, ok := r.at[p]; ok {
				b.recs[r.pages[k].last].next = int32(i)
				r.pages[k].last = int32(i)
				continue
			}
			r.at[p] = int32(len(r.pages))
			r.pages = append(r.pages, batchPage{page: p, beyond: p > np, first: int32(i), last: int32(i)})
		}
		done, np = done+n, after
	}
	return done, np
}

func (r *run) reset() {
	clear(r.at)
	clear(r.pages)
	r.pages = r.pages[:0]
}

// pagesPerTurn is how many pages a replayer takes at a time; a run with fewer is
// not worth a second one.
const pagesPerTurn = 8

// eachPage makes the new images of the pages of a run, shared among replayers.
func (s *Store) eachPage(r *run, b *Batch, hard, top base.LSN) error {
	size, turn := s.filePages(), s.perTurn
	if s.opt.Replayers < 2 || len(r.pages) <= turn {
		for i := range r.pages {
			if err := s.makePage(&r.pages[i], b, size, hard, top); err != nil {
				return err
			}
		}
		return nil
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, min(s.opt.Replayers, (len(r.pages)+turn-1)/turn))
	for w := range errs {
		wg.Go(func() {
			for errs[w] == nil {
				to := int(next.Add(int64(turn)))
				from := to - turn
				if from >= len(r.pages) {
					return
				}
				for i := from; i < min(to, len(r.pages)) && errs[w] == nil; i++ {
					errs[w] = s.makePage(&r.pages[i], b, size, hard, top)
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// makePage applies the records of a run to one page. A page that the data file has
// in a later state than a record makes is left as it is by that record.
func (s *Store) makePage(w *batchPage, b *Batch, size uint32, hard, top base.LSN) error {
	own := false // data is private, or may be changed in place
	for i := w.first; ; i = b.recs[i].next {
		rec, t := &b.recs[i], &b.ptxs[b.recs[i].ptx]
		if w.data == nil {
			var err error
			if w.applied, err = s.base(w.page, w.beyond, size, t.at, hard, top); err != nil {
				return fmt.Errorf("apply LSN %d: %w", t.LSN, err)
			}
			own = w.keep == 0
		}
		if w.keep < t.at {
			if !own {
				data := s.getBuf()
				clear(data[copy(data, w.data):])
				w.data, own = data, true
			}
			if err := (redo.Record{Type: redo.RecPhysical, Addr: redo.Addr{Tablespace: s.opt.Tablespace, File: s.opt.File, Page: w.page}, Ranges: rec.ranges}).ApplyTo(w.data); err != nil {
				return fmt.Errorf("apply LSN %d to page %d: %w", t.LSN, w.page, err)
			}
			w.lsn, w.node = t.at, t.Node
		}
		if rec.next == 0 {
			break
		}
	}
	if w.lsn != 0 {
		page.Seal(w.data, w.lsn, w.node)
	}
	return nil
}

// installRun makes the pages of a run the newest, in turns with readers: nobody
// sees them before the state moves. Under mu.
func (s *Store) installRun(r *run) {
	for i := range r.pages {
		if i%256 == 255 {
			s.mu.Unlock()
			s.mu.Lock()
		}
		switch w := &r.pages[i]; {
		case w.lsn == 0:
			s.installKept(w.page, w.applied)
		case w.over != nil:
			s.replace(w.page, w.over, &version{lsn: w.lsn, data: w.data, recycle: true})
		default:
			s.install(w.page, &version{lsn: w.lsn, data: w.data, recycle: true})
		}
	}
}
