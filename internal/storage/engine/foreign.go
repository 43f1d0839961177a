package engine

import (
	"context"
	"fmt"

	"datawatch/internal/base"
	"datawatch/internal/storage/pagestore"
	"datawatch/internal/storage/redo"
)

// AppendForeign takes packages of the primary on a database in Standby mode,
// Open, Mount or Suspend (what was accepted before is logged all the same): online log (one sync for all), local archive, replay; readers
// see each package as a whole (G6).
//
// Before anything changes it checks that the packages continue the database:
// magic, GSEQ and LSN, lineage (G5), and that all their records are known.
// ErrPosition, ErrLineage, ErrForeign and damage change nothing. A full disk is
// waited out, until the engine stops. After any other error the engine halts.
func (e *Engine) AppendForeign(ctx context.Context, pkgs []*redo.Package) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	e.fmu.Lock()
	defer e.fmu.Unlock()
	e.mu.Lock()
	st, mode, pos, lin, halted, chain := e.status, e.ctl.Mode, e.hard, e.lineage, e.halted, e.chain.first
	e.mu.Unlock()
	switch {
	case halted != nil:
		return halted
	case e.ctx.Err() != nil || st == base.StatusShutdown:
		return ErrClosed
	case mode != base.ModeStandby || st != base.StatusOpen && st != base.StatusMount && st != base.StatusSuspend:
		return fmt.Errorf("append packages of another database: mode is %v, status %v: %w", mode, st, ErrStatus)
	}
	if len(pkgs) == 0 {
		return nil
	}
	batch := e.store.NewBatch()
	checked := make([]foreign, len(pkgs))
	for i, p := range pkgs {
		var err error
		if checked[i], err = e.checkForeign(batch, p, pos, lin.Last().ID, chain); err != nil {
			return fmt.Errorf("package %d (LSN %d to %d): %w", p.GSEQ, p.MinLSN, p.MaxLSN, err)
		}
		chain = checked[i].chain
		for _, r := range checked[i].opens {
			lin = lin.Append(r)
		}
		pos = p.Pos()
	}
	lseq := e.log.NextLSEQ()
	stored := make([]*redo.Package, len(pkgs))
	for i, p := range pkgs {
		stored[i] = p.WithStore(e.magic, lseq+base.Seq(i))
	}
	for rest := stored; len(rest) > 0; {
		n := e.fits(rest)
		if err := e.retryFull(func() error { return e.appendLog(rest[:n]...) }); err != nil {
			return e.foreignFailed(fmt.Errorf("write online log: %w", err))
		}
		if err := e.finishForeign(batch, rest[:n], checked[:n]); err != nil {
			return e.foreignFailed(err)
		}
		e.wantCheckpoint()
		rest, checked = rest[n:], checked[n:]
	}
	return nil
}

// fits returns how many of the packages to write together: at least one, and
// not more than a quarter of the log.
func (e *Engine) fits(pkgs []*redo.Package) int {
	_, total := e.log.Space()
	size := int64(0)
	for i, p := range pkgs {
		if size += int64(p.EncodedLen()) + 512; i > 0 && size > total/4 {
			return i
		}
	}
	return len(pkgs)
}

func (e *Engine) foreignFailed(err error) error {
	if e.ctx.Err() != nil {
		return e.stopErr()
	}
	e.halt(err)
	return err
}

// foreign is a checked package of another database.
type foreign struct {
	ptxs  int // in the batch
	opens []base.OpenRecord
	chain base.LSN // first part of the large transaction open after it, 0: none
}

// checkForeign checks a package and adds its PTXs to the batch.
func (e *Engine) checkForeign(b *pagestore.Batch, p *redo.Package, pos base.Position, openID uint64, chain base.LSN) (foreign, error) {
	f := foreign{chain: chain}
	switch {
	case p.PmntMagic != e.pmnt:
		return f, fmt.Errorf("%w: PMNT_MAGIC %v, here %v", ErrForeign, p.PmntMagic, e.pmnt)
	case p.GSEQ != pos.Seq+1 || p.PrevLSN != pos.LSN || p.MinLSN != pos.LSN+1 || p.MaxLSN < p.MinLSN:
		return f, fmt.Errorf("%w: it follows LSN %d, this database ends at %v", ErrPosition, p.PrevLSN, pos)
	}
	if _, total := e.log.Space(); int64(p.EncodedLen())+1024 > total {
		return f, fmt.Errorf("%w: package of %d bytes, online log of %d", ErrTooLarge, p.EncodedLen(), total)
	}
	lsn := pos.LSN
	for t, err := range p.PTXs() {
		if err != nil {
			return f, err
		}
		if lsn++; t.LSN != lsn || t.Kind == redo.KindFirst && t.LSN != p.MinLSN {
			return f, fmt.Errorf("%w: PTX %d of kind %d, want LSN %d", ErrPosition, t.LSN, t.Kind, lsn)
		}
		if f.chain, err = redo.ChainAfter(f.chain, t.Kind, t.LSN); err != nil {
			return f, err
		}
		if err := b.Add(t, f.logical); err != nil {
			return f, err
		}
		f.ptxs++
	}
	if lsn != p.MaxLSN {
		return f, fmt.Errorf("%w: ends at LSN %d, says %d", ErrPosition, lsn, p.MaxLSN)
	}
	if err := e.sameHistory(f.opens, pos); err != nil {
		return f, err
	}
	for i, r := range f.opens {
		if r.ID != openID+1 {
			return f, fmt.Errorf("%w: open record %d after %d", ErrLineage, r.ID, openID)
		}
		if i == 0 && (len(r.Apply) != 1 || r.Apply[0] != pos) {
			return f, fmt.Errorf("%w: open record %d was written at %v, this database is at %v", ErrLineage, r.ID, r.Apply, pos)
		}
		openID = r.ID
	}
	if p.OpenID != openID {
		return f, fmt.Errorf("%w: made under open record %d, here %d", ErrLineage, p.OpenID, openID)
	}
	return f, nil
}

// noteArchive remembers whether the archive's disk was full the last time.
func (e *Engine) noteArchive(err error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.archFull = ""
	if isFull(err) {
		e.archFull = err.Error()
	}
	return err
}

// ArchiveFull tells why a standby waits for space for its local archive; "" when
// it does not.
func (e *Engine) ArchiveFull() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.archFull
}

// logical takes the open record out of a logical record.
func (f *foreign) logical(r redo.Record) error {
	o, err := openRecord(r)
	if err == nil {
		f.opens = append(f.opens, o)
	}
	return err
}

// finishForeign archives and replays packages that are in the online log.
// Readers go from the state before them to that after them.
func (e *Engine) finishForeign(b *pagestore.Batch, pkgs []*redo.Package, checked []foreign) error {
	ptxs := 0
	e.mu.Lock()
	open := e.chain
	e.mu.Unlock()
	for i, p := range pkgs {
		f, pos := checked[i], p.Pos()
		ptxs += f.ptxs
		open = open.after(p, f.chain)
		e.mu.Lock()
		e.cur, e.flush, e.file = p.GSEQ, pos, pos
		for _, o := range f.opens {
			e.logged = e.logged.Append(o)
		}
		e.mu.Unlock()
	}
	if e.arch != nil {
		rest := pkgs
		if err := e.retryFull(func() error {
			n, err := e.arch.AppendAll(rest, true)
			rest = rest[n:]
			return e.noteArchive(err)
		}); err != nil {
			return fmt.Errorf("write local archive: %w", err)
		}
	}
	last := pkgs[len(pkgs)-1]
	if err := e.store.ApplyBatch(b, ptxs); err != nil {
		return fmt.Errorf("replay packages %d to %d: %w", pkgs[0].GSEQ, last.GSEQ, err)
	}
	buf := &e.buf
	buf.mu.Lock()
	buf.last = last.MaxLSN
	buf.mu.Unlock()
	e.setHardened(last, open)
	buf.mu.Lock()
	buf.moveLocked()
	buf.mu.Unlock()
	return nil
}
