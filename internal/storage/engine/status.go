package engine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/storage/ctl"
	"datawatch/internal/storage/pagestore"
	"datawatch/internal/storage/redo"
)

type ctlControl = ctl.Control

// Mode returns the database mode.
func (e *Engine) Mode() base.Mode {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ctl.Mode
}

// Status returns the database status.
func (e *Engine) Status() base.Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.status
}

// SuspendReason says why and since when the database is in status Suspend.
func (e *Engine) SuspendReason() (string, time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.reason, e.reasonAt
}

// OnChange registers fn, called after every change of status, mode, OGUID or
// lineage, on the goroutine that made it and without locks. It must not block.
func (e *Engine) OnChange(fn func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.callbacks = append(e.callbacks, fn)
}

// setStatus changes status fields under the lock, lets Reserve know, and notifies.
func (e *Engine) setStatus(change func()) {
	e.mu.Lock()
	before := e.status
	change()
	after, mode := e.status, e.ctl.Mode
	close(e.changed)
	e.changed = make(chan struct{})
	switch {
	case e.halted != nil || after == before:
	case after == base.StatusShutdown:
		e.buf.refuse(ErrClosed)
	case (after == base.StatusOpen || after == base.StatusSuspend) && mode == base.ModeStandby:
		e.buf.refuse(ErrReadOnly)
	case after == base.StatusOpen || after == base.StatusSuspend:
		e.buf.refuse(nil)
	default:
		e.buf.refuse(ErrNotOpen)
	}
	e.mu.Unlock()
	if after != before {
		e.cfg.Log.Info("database status", "from", before.String(), "to", after.String(), "mode", mode.String())
	}
	e.notify()
}

func (e *Engine) notify() {
	e.mu.Lock()
	cbs := e.callbacks[:len(e.callbacks):len(e.callbacks)]
	e.mu.Unlock()
	for _, fn := range cbs {
		fn()
	}
}

// Suspend stops the flushing of redo (manual 2.2.4): commits wait, reads go on.
// A package under way still arrives, or fails; Quiesce waits for that. In
// statuses other than Open it does nothing.
func (e *Engine) Suspend(reason string) { e.suspend(reason, causeAsked) }

func (e *Engine) suspend(reason string, cause suspendCause) {
	again := false
	e.setStatus(func() {
		e.suspends++
		// A full disk says so each time it is tried.
		again = e.status == base.StatusSuspend && e.reason == reason
		if e.status == base.StatusOpen || e.status == base.StatusAfterRedo || e.status == base.StatusSuspend {
			// A stronger reason stays: only space makes a full disk go away by itself.
			if e.status != base.StatusSuspend || cause != causeDiskFull {
				e.cause = cause
			}
			if !again {
				e.reason, e.reasonAt = reason, e.cfg.Clock.Now()
			}
			e.status = base.StatusSuspend
			e.running = false
		}
	})
	if !again {
		e.cfg.Log.Warn("database suspended", "reason", reason)
	}
}

// Quiesce waits, in status Suspend, until no package is under way.
func (e *Engine) Quiesce(ctx context.Context) error {
	for {
		e.mu.Lock()
		ch, idle := e.changed, !e.busy
		e.mu.Unlock()
		if idle {
			return nil
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return ctx.Err()
		case <-e.ctx.Done():
			return e.stopErr()
		}
	}
}

// SetMode changes the mode, in status Mount only (manual 2.2.3).
func (e *Engine) SetMode(ctx context.Context, m base.Mode) error {
	if r := e.Rejoining(); r != nil && m != base.ModeStandby {
		return fmt.Errorf("set mode %v: the database rejoined its group and has to replay up to %v of %s first, it is at %v: %w", m, r.Whole, r.Primary, e.Positions().File, ErrStatus)
	}
	e.opMu.Lock()
	defer e.opMu.Unlock()
	what := fmt.Sprintf("set mode %v", m)
	if err := e.mustMount(what); err != nil {
		return err
	}
	e.fmu.Lock() // packages of another database are replayed before its mode changes, and an open record follows
	defer e.fmu.Unlock()
	if err := e.awaitReplay(ctx); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return e.inMount(what, func(c *ctl.Control) { c.Mode = m })
}

// SetOGUID changes the group, in status Mount only.
func (e *Engine) SetOGUID(oguid uint32) error {
	e.opMu.Lock()
	defer e.opMu.Unlock()
	return e.inMount("set OGUID", func(c *ctl.Control) { c.OGUID = oguid })
}

func (e *Engine) mustMount(what string) error {
	if st := e.Status(); st != base.StatusMount {
		return fmt.Errorf("%s: status is %v, not Mount: %w", what, st, ErrStatus)
	}
	return nil
}

// inMount changes the control file in Mount. Under opMu.
func (e *Engine) inMount(what string, change func(*ctl.Control)) error {
	if err := e.mustMount(what); err != nil {
		return err
	}
	if err := e.saveControlLocking(change); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	e.setStatus(func() {})
	return nil
}

func (e *Engine) saveControlLocking(change func(*ctl.Control)) error {
	e.cmu.Lock()
	defer e.cmu.Unlock()
	return e.saveControl(change)
}

// saveControl changes and saves the control file. Under cmu.
func (e *Engine) saveControl(change func(*ctl.Control)) error {
	e.mu.Lock()
	c := e.ctl.Clone()
	e.mu.Unlock()
	change(&c)
	if err := c.Save(e.cfg.FS, e.cfg.CtlPath); err != nil {
		return fmt.Errorf("save control file %s: %w", e.cfg.CtlPath, err)
	}
	e.mu.Lock()
	e.ctl = c
	e.mu.Unlock()
	return nil
}

// OpenDatabase opens from Mount or Suspend (manual 2.2.4).
//
// From Mount, Primary and Normal first append an open record, the first redo of
// the reign, and return when it is hardened; Standby writes nothing. From
// Suspend the package under way is sent again to the archives that are Valid
// now, and flushing goes on. When a send fails the database is in status Suspend
// and the error, ErrSuspended, says why; OpenDatabase can be called again.
func (e *Engine) OpenDatabase(ctx context.Context) error {
	e.opMu.Lock()
	defer e.opMu.Unlock()
	e.mu.Lock()
	st, mode := e.status, e.ctl.Mode
	halted := e.halted
	e.mu.Unlock()
	if halted != nil {
		return halted
	}
	switch {
	case st == base.StatusOpen:
		return nil
	case st != base.StatusMount && st != base.StatusSuspend:
		return fmt.Errorf("open database: status is %v: %w", st, ErrStatus)
	case mode == base.ModeStandby:
		e.setStatus(func() { e.status, e.cause, e.reason = base.StatusOpen, causeNone, "" })
		return nil
	}
	if st == base.StatusMount {
		if err := e.appendOpenRecord(); err != nil {
			return fmt.Errorf("open database: %w", err)
		}
	}
	e.mu.Lock()
	gen := e.suspends
	e.mu.Unlock()
	e.setStatus(func() {
		e.running = true
		if e.status == base.StatusMount {
			e.status = base.StatusAfterRedo
		}
	})
	kick(e.kickF)
	kick(e.resume)
	if err := e.settled(ctx, gen); err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	opened := false
	e.setStatus(func() {
		if opened = e.suspends == gen; opened {
			e.status, e.cause, e.reason = base.StatusOpen, causeNone, ""
		}
	})
	if !opened {
		reason, _ := e.SuspendReason()
		return fmt.Errorf("open database: %w: %s", ErrSuspended, reason)
	}
	kick(e.kickF)
	return nil
}

// settled waits until everything that waits now is hardened, or the database is
// suspended (again).
func (e *Engine) settled(ctx context.Context, gen int) error {
	e.buf.mu.Lock()
	upTo := e.buf.last
	if f := e.buf.flying; f != nil { // from Suspend: the kept package, no more
		upTo = f.max
	} else if len(e.buf.segs) > 0 {
		upTo = e.buf.segs[0].max
	}
	e.buf.mu.Unlock()
	return e.waitOr(ctx, upTo, gen)
}

// waitOr waits for lsn to be hardened, or for a suspension after gen.
func (e *Engine) waitOr(ctx context.Context, lsn base.LSN, gen int) error {
	for e.Hardened() < lsn {
		done := e.buf.waitFor(lsn)
		e.mu.Lock()
		ch, now, reason := e.changed, e.suspends, e.reason
		e.mu.Unlock()
		if now != gen {
			return fmt.Errorf("%w: %s", ErrSuspended, reason)
		}
		if e.Hardened() >= lsn {
			return nil
		}
		select {
		case <-done:
		case <-ch:
		case <-ctx.Done():
			return ctx.Err()
		case <-e.ctx.Done():
			return e.stopErr()
		}
	}
	return nil
}

// appendOpenRecord puts the open record into the redo buffer, as a package of its own.
func (e *Engine) appendOpenRecord() error {
	var g [16]byte
	_, _ = rand.Read(g[:]) // never fails
	e.mu.Lock()
	last := e.lineage.Last()
	src := last.DBMagic
	if src == 0 {
		src = e.ctl.DBMagic
	}
	r := base.OpenRecord{ID: last.ID + 1, TGUID: hex.EncodeToString(g[:]), OpenTime: e.cfg.Clock.Now(), SysMode: e.ctl.Mode,
		SrcDBMagic: src, DBMagic: e.ctl.DBMagic, CurInst: e.cfg.InstName, Apply: []base.Position{e.hard}}
	e.mu.Unlock()
	payload, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("open record: %w", err)
	}
	b := &e.buf
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last != e.store.Newest() || len(b.segs) > 0 || b.flying != nil {
		return fmt.Errorf("open record: redo is still waiting: %w", ErrStatus)
	}
	var pb redo.Builder
	h := redo.PTXHeader{LSN: b.last + 1, Kind: redo.KindCommit, PrevLSN: b.last, TimeNs: r.OpenTime.UnixNano()}
	pb.Begin(h)
	pb.Logical(redo.LogicalOpenRecord, payload)
	raw := pb.Finish()
	if err := e.store.Apply(redo.PTX{PTXHeader: h}); err != nil {
		return fmt.Errorf("open record: %w", err)
	}
	b.chain = 0
	b.add(raw, h.LSN, &r, true)
	return nil
}

// MountDatabase goes from Open to Mount: new commits are refused, what was
// committed is hardened first. Transactions that are still open fail at their
// commit; OnChange tells their sessions to roll back.
func (e *Engine) MountDatabase(ctx context.Context) error {
	e.opMu.Lock()
	defer e.opMu.Unlock()
	switch st := e.Status(); st {
	case base.StatusMount:
		return nil
	case base.StatusOpen:
	default:
		return fmt.Errorf("mount database: status is %v: %w", st, ErrStatus)
	}
	e.mu.Lock()
	gen := e.suspends
	e.buf.refuse(ErrNotOpen)
	e.mu.Unlock()
	if err := e.drain(ctx); err != nil {
		e.notMounted()
		return fmt.Errorf("mount database: %w", err)
	}
	e.fmu.Lock() // packages of another database are replayed first
	defer e.fmu.Unlock()
	if err := e.awaitReplay(ctx); err != nil {
		e.notMounted()
		return fmt.Errorf("mount database: %w", err)
	}
	e.setStatus(func() {
		// Suspended meanwhile, perhaps Open again since: commits have been let in.
		if e.status == base.StatusOpen && e.suspends == gen {
			e.status, e.running = base.StatusMount, false
		}
	})
	if st := e.Status(); st != base.StatusMount {
		return fmt.Errorf("mount database: it was suspended meanwhile and is %v: %w", st, ErrSuspended)
	}
	return nil
}

// notMounted lets commits in again, or says once more why not.
func (e *Engine) notMounted() {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.halted != nil:
	case e.ctl.Mode == base.ModeStandby:
		e.buf.refuse(ErrReadOnly)
	default:
		e.buf.refuse(nil)
	}
}

// drain waits until no commit is between Sync and its publication and all
// published ones are hardened. Reserve must be refused already. It fails when the
// database is, or gets, suspended.
func (e *Engine) drain(ctx context.Context) error {
	e.mu.Lock()
	gen, st, reason := e.suspends, e.status, e.reason
	e.mu.Unlock()
	if st == base.StatusSuspend {
		return fmt.Errorf("%w: %s", ErrSuspended, reason)
	}
	b := &e.buf
	b.mu.Lock()
	for b.reserved > 0 {
		ch := b.waitLocked()
		b.mu.Unlock()
		select {
		case <-ch:
		case <-ctx.Done():
			return ctx.Err()
		case <-e.ctx.Done():
			return e.stopErr()
		}
		b.mu.Lock()
	}
	last := b.last
	b.mu.Unlock()
	if e.Hardened() >= last {
		return nil
	}
	return e.waitOr(ctx, last, gen)
}

var _ pagestore.Committer = (*Engine)(nil)
