package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/storage/redo"
	"datawatch/internal/storage/rlog"
)

// gatherTurns bounds how often gather looks again.
const gatherTurns = 8

// stage is how far a package has come.
type stage uint8

const (
	stageShip    stage = iota // realtime archives
	stageLog                  // online log
	stageTimely               // timely archives
	stageArch                 // local archive
	stageRelease              // nobody can have taken over
	stageDone
)

// pending is the package under way; in status Suspend it is kept.
type pending struct {
	seg    *segment
	pkg    *redo.Package
	stage  stage
	failed bool
}

// flusher makes packages of what waits in the redo buffer, one after the other.
func (e *Engine) flusher() {
	defer e.wg.Done()
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-e.kickF:
		}
		for e.flushOne() {
		}
	}
}

// flushOne takes one package through its stages and reports whether to go on.
func (e *Engine) flushOne() bool {
	e.mu.Lock()
	ok, ship := e.running && e.halted == nil, e.shipper
	e.busy = ok
	lineageID := e.lineage.Last().ID
	prev := e.flush
	e.mu.Unlock()
	if !ok || e.ctx.Err() != nil {
		return false
	}
	defer e.setBusy(false)
	p := e.pending
	if p == nil {
		e.gather()
		seg := e.buf.take()
		if seg == nil {
			return false
		}
		if seg.open != nil {
			lineageID = seg.open.ID
		}
		pkg, err := redo.NewPackage(redo.Header{NNodes: 1, PmntMagic: e.pmnt, DBMagic: e.magic, SrcDBMagic: e.magic,
			GSEQ: prev.Seq + 1, LSEQ: e.log.NextLSEQ(), PrevLSN: prev.LSN, MinLSN: seg.min, MaxLSN: seg.max,
			OpenID: lineageID, TimeNs: e.cfg.Clock.Now().UnixNano(), NPTX: seg.n}, seg.raw, e.cfg.Compress)
		if err != nil { // Reserve keeps packages small enough
			e.halt(fmt.Errorf("make package %d: %w", prev.Seq+1, err))
			return false
		}
		p = &pending{seg: seg, pkg: pkg}
		e.pending = p
		e.mu.Lock()
		e.cur, e.flush = pkg.GSEQ, pkg.Pos()
		e.buf.made(pkg)
		e.mu.Unlock()
	}
	if p.failed && p.stage == stageLog { // interrupted: the archives that are Valid now must have it
		p.stage = stageShip
	}
	p.failed = false
	if err := e.advance(p, ship); err != nil {
		p.failed = true
		if e.ctx.Err() == nil && !errors.Is(err, ErrSuspended) {
			e.halt(err)
		}
		return false
	}
	e.pending = nil
	return true
}

// gather lets sessions that can run commit first, as long as that makes the next
// package larger: a package costs a round trip, a sync and several wake-ups,
// whatever it holds. With nobody to run it costs nothing.
func (e *Engine) gather() {
	for n, i := e.buf.waiting(), 0; i < gatherTurns && n > 0; i++ {
		runtime.Gosched()
		m := e.buf.waiting()
		if m == n {
			return
		}
		n = m
	}
}

func (e *Engine) setBusy(b bool) {
	e.mu.Lock()
	e.busy = b
	if e.status == base.StatusSuspend { // somebody may be in Quiesce
		close(e.changed)
		e.changed = make(chan struct{})
	}
	e.mu.Unlock()
}

// advance takes p from its stage to the end. ErrSuspended: a required send
// failed; other errors halt.
func (e *Engine) advance(p *pending, ship Shipper) error {
	for begun := e.cfg.Clock.Now(); p.stage < stageDone; p.stage++ {
		if err := e.pass(p, ship); err != nil {
			return err
		}
		begun = e.times.passed(p.stage, begun, e.cfg.Clock.Now())
	}
	pos := p.pkg.Pos()
	opens := 0
	if p.seg.open != nil {
		opens = 1
	}
	e.setHardened(p.pkg, e.chainAfter(p.pkg, p.seg.chain), opens)
	e.buf.landed()
	ship.Hardened(pos)
	e.wantCheckpoint()
	return nil
}

// pass takes p through its stage.
func (e *Engine) pass(p *pending, ship Shipper) error {
	switch p.stage {
	case stageShip:
		if err := ship.Ship(e.ctx, p.pkg); err != nil {
			return e.sendFailed("realtime archive", p.pkg, err)
		}
	case stageLog:
		e.buf.shipped()
		if err := e.retryFull(func() error { return e.appendLog(p.pkg) }); err != nil {
			return fmt.Errorf("write online log: %w", err)
		}
		e.mu.Lock()
		e.file = p.pkg.Pos()
		if p.seg.open != nil {
			e.logged = base.Lineage{*p.seg.open}
		}
		e.mu.Unlock()
	case stageTimely:
		if err := ship.ShipTimely(e.ctx, p.pkg); err != nil {
			return e.sendFailed("timely archive", p.pkg, err)
		}
	case stageArch:
		if e.arch == nil {
			return nil
		}
		if err := e.retryFull(func() error { return e.arch.Append(p.pkg, false) }); err != nil {
			return fmt.Errorf("write local archive: %w", err)
		}
	case stageRelease:
		until, err := ship.Release(e.ctx, p.pkg)
		if err != nil {
			return e.sendFailed("lease", p.pkg, err)
		}
		e.until.Store(&until)
	}
	return nil
}

func (e *Engine) sendFailed(what string, pkg *redo.Package, err error) error {
	if e.ctx.Err() != nil {
		return e.ctx.Err()
	}
	reason := fmt.Sprintf("%s of package %d failed: %v", what, pkg.GSEQ, err)
	e.suspend(reason, causeSend)
	return fmt.Errorf("%w: %s", ErrSuspended, reason)
}

// chainAfter is the large transaction that is open after a package which follows
// the hardened ones.
func (e *Engine) chainAfter(p *redo.Package, first base.LSN) chain {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.chain.after(p, first)
}

// setHardened moves what readers see, the end of package p, and the lineage with
// it: the next opens of the logged open records. Of a large transaction open there, c, the changes are no versions yet, so
// readers see the state before it (G6).
func (e *Engine) setHardened(p *redo.Package, c chain, opens int) {
	pos := p.Pos()
	e.mu.Lock()
	more := e.store.Harden(pos.LSN)
	e.hard, e.hardLSEQ = pos, p.LSEQ
	if c != e.chain {
		e.chain = c
		e.holdArchive()
	}
	for _, r := range e.logged[:opens] {
		e.lineage = e.lineage.Append(r)
	}
	e.logged = e.logged[opens:]
	e.mu.Unlock()
	e.hardened.Store(uint64(pos.LSN))
	e.hardAt.Store(e.cfg.Clock.Now().UnixNano())
	if opens > 0 {
		e.notify()
	}
	if more { // after a large transaction: the checkpointer has time for it
		kick(e.kickC)
	}
}

// appendLog writes a package to the online log; when that is full it moves the checkpoint first.
func (e *Engine) appendLog(pkgs ...*redo.Package) error {
	err := e.log.Append(pkgs...)
	if !errors.Is(err, rlog.ErrFull) {
		return err
	}
	if err := e.Checkpoint(e.ctx); err != nil {
		return fmt.Errorf("online log is full: %w", err)
	}
	return e.log.Append(pkgs...)
}

// isFull reports whether an error says that a disk or a quota is full.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// retryFull repeats fn for as long as the disk is full, with the database
// suspended meanwhile (manual 2.2.11.1).
func (e *Engine) retryFull(fn func() error) error {
	for waited := false; ; waited = true {
		err := fn()
		if err == nil || !isFull(err) {
			if err == nil && waited {
				e.spaceBack()
			}
			return err
		}
		e.suspend(fmt.Sprintf("disk is full: %v", err), causeDiskFull)
		t := e.cfg.Clock.NewTimer(e.cfg.RetryInterval)
		select {
		case <-e.ctx.Done():
			t.Stop()
			return e.ctx.Err()
		case <-t.C:
		case <-e.resume:
			t.Stop()
		}
	}
}

func (e *Engine) spaceBack() {
	e.setStatus(func() {
		if e.status == base.StatusSuspend && e.cause == causeDiskFull {
			e.status, e.cause, e.reason, e.running = base.StatusOpen, causeNone, "", true
		}
	})
}

// halt stops everything because a disk failed: nothing more is acknowledged.
func (e *Engine) halt(err error) {
	e.mu.Lock()
	first := e.halted == nil
	if first {
		e.halted = fmt.Errorf("%w: %w", ErrHalted, err)
	}
	err = e.halted
	e.running = false
	e.mu.Unlock()
	if !first {
		return
	}
	e.cfg.Log.Error("database halts", "err", err)
	e.buf.refuse(err)
	e.stop()
	if e.cfg.OnHalt != nil {
		go e.cfg.OnHalt(err)
	}
}

// stopErr says why e.ctx is done.
func (e *Engine) stopErr() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.halted != nil {
		return e.halted
	}
	return ErrClosed
}

// wantCheckpoint wakes the checkpointer when memory or the log fills.
func (e *Engine) wantCheckpoint() {
	if e.checkpointDue() {
		kick(e.kickC)
	}
}

func (e *Engine) checkpointDue() bool {
	free, total := e.log.Space()
	return free < total/2 || int64(e.store.Dirty())*int64(e.store.PageSize()) > e.cfg.DirtyBytes
}

// expiryInterval is how often archive files older than ARCH_RESERVE_TIME are
// looked for (manual 5.3).
const expiryInterval = 5 * time.Minute

// deleteExpired deletes what the archive need not keep any longer. Also while
// nothing is written: a new file does the same.
func (e *Engine) deleteExpired() {
	if e.arch == nil {
		return
	}
	switch n, err := e.arch.DeleteExpired(); {
	case err != nil && e.ctx.Err() == nil:
		e.cfg.Log.Warn("archive files older than ARCH_RESERVE_TIME are not deleted", "err", err)
	case n > 0:
		e.cfg.Log.Info("archive files older than ARCH_RESERVE_TIME deleted", "files", n)
	}
}

func (e *Engine) checkpointer() {
	defer e.wg.Done()
	t := e.cfg.Clock.NewTicker(e.cfg.CheckpointInterval)
	defer t.Stop()
	expiry := e.cfg.Clock.NewTicker(expiryInterval)
	defer expiry.Stop()
	for {
		kicked := false
		select {
		case <-e.ctx.Done():
			return
		case <-expiry.C:
			e.deleteExpired()
			continue
		case <-t.C:
		case <-e.kickC:
			kicked = true
		}
		e.tidy(kicked)
	}
}

// tidy settles versions and makes a checkpoint. A kick is no more than a hint:
// while a checkpoint runs its reason is still there, so that those who look kick
// again, and writing what has changed since, soon after it, would be for nothing:
// a page that changes all the time would be written once more.
func (e *Engine) tidy(kicked bool) {
	for e.store.Settle() {
	}
	if kicked && !e.checkpointDue() {
		return
	}
	switch err := e.Checkpoint(e.ctx); {
	case err == nil || e.ctx.Err() != nil:
	case isFull(err):
		e.cfg.Log.Warn("checkpoint: disk is full, will try again", "err", err)
	default:
		e.halt(err)
	}
}

// Checkpoint writes all hardened changes to the data file and frees the online
// log up to there: after the archive is synced, which recovery brings forward
// from that log, and the lineage saved, whose open records the log holds. Of a
// large transaction under way the data file has nothing: the log's header then
// says where in the archive it begins (G9).
func (e *Engine) Checkpoint(ctx context.Context) error {
	e.cmu.Lock()
	defer e.cmu.Unlock()
	e.mu.Lock()
	pos, lseq, open := e.hard, e.hardLSEQ, e.chain
	c := e.controlLocked()
	stale := len(e.ctl.Lineage) != len(c.Lineage) || e.ctl.Lineage.Last().ID != c.Lineage.Last().ID
	rejoin := c.Rejoin
	if rejoin != nil && rejoin.Graft == nil && rejoin.Whole.LSN <= pos.LSN { // all pages are of one LSN
		stale, rejoin = true, nil
	}
	e.mu.Unlock()
	upTo := pos.LSN
	if open.first != 0 && (e.arch == nil || !e.arch.Has(open.seq)) {
		// Only the log has the large transaction: it stays there from its beginning on.
		upTo, lseq, open = open.prev.LSN, open.lseq-1, chain{}
	}
	if upTo <= e.log.Info().CkptLSN {
		return nil
	}
	done, err := e.store.Checkpoint(ctx, pos.LSN)
	if err != nil {
		return err
	}
	if done < pos.LSN {
		return fmt.Errorf("checkpoint reached LSN %d, not %d", done, pos.LSN)
	}
	if e.arch != nil {
		if err := e.arch.Sync(); err != nil {
			return fmt.Errorf("checkpoint: sync archive: %w", err)
		}
	}
	if stale {
		if err := e.saveControl(func(k *ctlControl) { k.Lineage, k.Position, k.Rejoin = c.Lineage, c.Position, rejoin }); err != nil {
			return fmt.Errorf("checkpoint: %w", err)
		}
	}
	if err := e.log.SetCheckpoint(upTo, lseq, open.seq); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	e.mu.Lock()
	e.ckptChain = open.seq
	e.holdArchive()
	e.ckptAt = e.cfg.Clock.Now()
	e.mu.Unlock()
	return nil
}

// LastCheckpoint tells when the last checkpoint of this process ended; zero when
// there was none.
func (e *Engine) LastCheckpoint() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ckptAt
}
