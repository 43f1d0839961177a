package engine

import (
	"context"
	"errors"
	"fmt"

	"datawatch/internal/base"
	"datawatch/internal/storage/pagestore"
	"datawatch/internal/storage/redo"
	"datawatch/internal/storage/rlog"
)

// AppendForeign is LogForeign that waits until the packages are replayed.
func (e *Engine) AppendForeign(ctx context.Context, pkgs []*redo.Package) error {
	wait, err := e.LogForeign(ctx, pkgs)
	if err != nil {
		return err
	}
	return wait()
}

// LogForeign takes packages of the primary on a database in Standby mode,
// Open, Mount or Suspend (what was accepted before is logged all the same). It returns
// when they are in the online log (one sync for all). The local archive and
// replay follow while the next packages may be logged already: wait returns when they are done, or
// with what went wrong. Readers see each package as a whole (G6).
//
// Before anything changes it checks that the packages continue the database:
// magic, GSEQ and LSN, lineage (G5), and that all their records are known.
// ErrPosition, ErrLineage, ErrForeign and damage change nothing. A full disk is
// waited out, until the engine stops. After any other error the engine halts.
func (e *Engine) LogForeign(ctx context.Context, pkgs []*redo.Package) (wait func() error, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	e.fmu.Lock()
	defer e.fmu.Unlock()
	e.mu.Lock()
	st, mode, halted, end := e.status, e.ctl.Mode, e.halted, e.foreignEndLocked()
	e.mu.Unlock()
	switch {
	case halted != nil:
		return nil, halted
	case e.ctx.Err() != nil || st == base.StatusShutdown:
		return nil, ErrClosed
	case mode != base.ModeStandby || st != base.StatusOpen && st != base.StatusMount && st != base.StatusSuspend:
		return nil, fmt.Errorf("append packages of another database: mode is %v, status %v: %w", mode, st, ErrStatus)
	}
	if len(pkgs) == 0 {
		return func() error { return e.awaitReplay(context.Background()) }, nil
	}
	batch := e.store.NewBatch()
	checked := make([]foreign, len(pkgs))
	for i, p := range pkgs {
		if checked[i], err = e.checkForeign(batch, p, end); err != nil {
			return nil, fmt.Errorf("package %d (LSN %d to %d): %w", p.GSEQ, p.MinLSN, p.MaxLSN, err)
		}
		end = checked[i].end
	}
	lseq := e.log.NextLSEQ()
	stored := make([]*redo.Package, len(pkgs))
	for i, p := range pkgs {
		stored[i] = p.WithStore(e.magic, lseq+base.Seq(i))
	}
	for rest := stored; len(rest) > 0; {
		n := e.fits(rest)
		if err := e.retryFull(func() error { return e.logForeign(rest[:n]) }); err != nil {
			return nil, e.foreignFailed(fmt.Errorf("write online log: %w", err))
		}
		wait = e.replay(batch, rest[:n], checked[:n])
		rest, checked = rest[n:], checked[n:]
	}
	return wait, nil
}

// foreignEnd is where packages of another database have to continue this one.
type foreignEnd struct {
	pos    base.Position
	openID uint64   // open record in force
	chain  base.LSN // first part of the large transaction open there, 0: none
}

// foreignEndLocked is the end of what is logged. Under mu.
func (e *Engine) foreignEndLocked() foreignEnd {
	if r := e.replaying; r != nil {
		return r.end
	}
	return foreignEnd{e.hard, e.lineage.Last().ID, e.chain.first}
}

// logForeign writes packages to the online log. When that is full, what is being
// replayed has to be done before a checkpoint can free its part of the log.
func (e *Engine) logForeign(pkgs []*redo.Package) error {
	err := e.log.Append(pkgs...)
	if !errors.Is(err, rlog.ErrFull) {
		return err
	}
	if err := e.awaitReplay(context.Background()); err != nil {
		return err
	}
	return e.appendLog(pkgs...)
}

// replaying are packages in the online log that are being archived and replayed.
type replaying struct {
	end  foreignEnd
	done chan struct{}
	err  error // once done is closed
}

// wait returns when the packages are archived and replayed.
func (r *replaying) wait(ctx context.Context) error {
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// replay begins to archive and replay packages that are in the online log, after
// those before them. Under fmu.
func (e *Engine) replay(b *pagestore.Batch, pkgs []*redo.Package, checked []foreign) (wait func() error) {
	r := &replaying{end: checked[len(checked)-1].end, done: make(chan struct{})}
	e.mu.Lock()
	before := e.replaying
	e.replaying = r
	e.cur, e.flush, e.file = r.end.pos.Seq, r.end.pos, r.end.pos
	for _, f := range checked {
		e.logged = append(e.logged[:len(e.logged):len(e.logged)], f.opens...)
	}
	e.mu.Unlock()
	e.wg.Go(func() {
		defer close(r.done)
		if before != nil {
			if r.err = before.wait(context.Background()); r.err != nil {
				return // nothing may follow what is not replayed
			}
		}
		if err := e.finishForeign(b, pkgs, checked); err != nil {
			r.err = e.foreignFailed(err)
			return
		}
		e.mu.Lock()
		if e.replaying == r {
			e.replaying = nil
		}
		e.mu.Unlock()
		e.wantCheckpoint()
	})
	return func() error { return r.wait(context.Background()) }
}

// awaitReplay waits until all that was logged is archived and replayed.
func (e *Engine) awaitReplay(ctx context.Context) error {
	e.mu.Lock()
	r := e.replaying
	e.mu.Unlock()
	if r == nil {
		return nil
	}
	return r.wait(ctx)
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
	end   foreignEnd
}

// checkForeign checks a package that has to continue at and adds its PTXs to the batch.
func (e *Engine) checkForeign(b *pagestore.Batch, p *redo.Package, at foreignEnd) (foreign, error) {
	f := foreign{end: foreignEnd{p.Pos(), at.openID, at.chain}}
	pos := at.pos
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
		if f.end.chain, err = redo.ChainAfter(f.end.chain, t.Kind, t.LSN); err != nil {
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
		if r.ID != f.end.openID+1 {
			return f, fmt.Errorf("%w: open record %d after %d", ErrLineage, r.ID, f.end.openID)
		}
		if i == 0 && (len(r.Apply) != 1 || r.Apply[0] != pos) {
			return f, fmt.Errorf("%w: open record %d was written at %v, this database is at %v", ErrLineage, r.ID, r.Apply, pos)
		}
		f.end.openID = r.ID
	}
	if p.OpenID != f.end.openID {
		return f, fmt.Errorf("%w: made under open record %d, here %d", ErrLineage, p.OpenID, f.end.openID)
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
	e.mu.Lock()
	open := e.chain
	e.mu.Unlock()
	ptxs, opens := 0, 0
	for i, p := range pkgs {
		f := checked[i]
		ptxs, opens = ptxs+f.ptxs, opens+len(f.opens)
		open = open.after(p, f.end.chain)
	}
	// Replay changes nothing that anybody sees or that is written to the data file
	// before both are done (setHardened), so they need not wait for one another.
	archived := make(chan error, 1)
	go func() { archived <- e.archiveForeign(pkgs) }()
	last := pkgs[len(pkgs)-1]
	err := e.store.ApplyBatch(b, ptxs)
	if err != nil {
		err = fmt.Errorf("replay packages %d to %d: %w", pkgs[0].GSEQ, last.GSEQ, err)
	}
	if aerr := <-archived; err == nil && aerr != nil {
		err = fmt.Errorf("write local archive: %w", aerr)
	}
	if err != nil {
		return err
	}
	buf := &e.buf
	buf.mu.Lock()
	buf.last = last.MaxLSN
	buf.mu.Unlock()
	e.setHardened(last, open, opens)
	buf.mu.Lock()
	buf.moveLocked()
	buf.mu.Unlock()
	return nil
}

// archiveForeign writes packages to the local archive; a full disk is waited out.
func (e *Engine) archiveForeign(pkgs []*redo.Package) error {
	if e.arch == nil {
		return nil
	}
	return e.retryFull(func() error {
		n, err := e.arch.AppendAll(pkgs, true)
		pkgs = pkgs[n:]
		return e.noteArchive(err)
	})
}
