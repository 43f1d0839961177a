package engine

import (
	"context"
	"errors"
	"fmt"

	"datawatch/internal/base"
	"datawatch/internal/storage/ctl"
	"datawatch/internal/storage/graft"
	"datawatch/internal/storage/redo"
)

// wholeLSN is the LSN before which nothing of the database may be read.
func wholeLSN(c *ctl.Control) base.LSN {
	if c.Rejoin == nil {
		return 0
	}
	return c.Rejoin.Whole.LSN
}

// graft completes a rejoin that the control file says was begun, before anything
// else looks at the database (G9).
func (e *Engine) graft(ctx context.Context, c *ctl.Control) (*ctl.Control, error) {
	if c.Rejoin == nil || c.Rejoin.Graft == nil {
		return c, graft.Clean(e.cfg.FS, e.cfg.CtlPath)
	}
	if e.cfg.Arch == nil {
		return nil, fmt.Errorf("control file %s: a rejoin has to be completed, and no local archive is configured", e.cfg.CtlPath)
	}
	r := *c.Rejoin
	e.cfg.Log.Warn("completing the rejoin: pages of the new primary replace those that redo without a future has touched",
		"primary", r.Primary, "fork", r.Fork.String(), "whole", r.Whole.String(), "pages", r.Graft.Count, "surplus", r.Surplus)
	n, err := graft.Install(ctx, graft.Target{FS: e.cfg.FS, CtlPath: e.cfg.CtlPath, DataPath: e.dataPath(c), LogPaths: e.cfg.LogPaths}, c)
	if err != nil {
		return nil, fmt.Errorf("complete the rejoin with %s: %w", r.Primary, err)
	}
	return n, nil
}

// Rejoining says what a database that has rejoined its group still has to replay
// before it can be read; nil: nothing. It must not be changed.
func (e *Engine) Rejoining() *ctl.Rejoin {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r := e.ctl.Rejoin; r != nil && e.hard.LSN < r.Whole.LSN {
		return r
	}
	return nil
}

// sameHistory refuses open records, in a package that follows pos, that the pages
// of a database that rejoins do not know of: what they hold is of one history
// only, whatever the log, which ends before, could go on with (G5).
func (e *Engine) sameHistory(opens []base.OpenRecord, pos base.Position) error {
	r := e.Rejoining()
	if r == nil || pos.LSN >= r.Whole.LSN {
		return nil
	}
	for _, o := range opens {
		known := false
		for _, k := range r.Lineage {
			known = known || k.ID == o.ID && k.TGUID == o.TGUID
		}
		if !known {
			return fmt.Errorf("%w: open record %d (%s) at %v; this database has pages of %s from %v and has to follow its history", ErrLineage, o.ID, o.TGUID, pos, r.Primary, r.Whole)
		}
	}
	return nil
}

// Rejoin is a database in Mount that is about to give redo up. Nothing else can
// change it before Close.
type Rejoin struct {
	e       *Engine
	End     base.Position // of its redo
	Lineage base.Lineage
	lseq    base.Seq
}

// BeginRejoin prepares for giving redo up, in Mount: all of it is in the data file
// and in the local archive. Close ends it.
func (e *Engine) BeginRejoin(ctx context.Context) (_ *Rejoin, err error) {
	e.opMu.Lock()
	e.fmu.Lock() // packages of another database that were accepted before wait
	defer func() {
		if err != nil {
			e.fmu.Unlock()
			e.opMu.Unlock()
			err = fmt.Errorf("rejoin: %w", err)
		}
	}()
	e.mu.Lock()
	st, mode, halted := e.status, e.ctl.Mode, e.halted
	e.mu.Unlock()
	switch r := e.Rejoining(); {
	case halted != nil:
		return nil, halted
	case st != base.StatusMount || mode == base.ModeNormal:
		return nil, fmt.Errorf("mode is %v, status %v: %w", mode, st, ErrStatus)
	case e.arch == nil:
		return nil, fmt.Errorf("no local archive is configured: %w", ErrStatus)
	case r != nil:
		return nil, fmt.Errorf("the database has pages of %s from %v, and redo up to %v only: %w", r.Primary, r.Whole, e.Positions().File, ErrStatus)
	}
	if err := e.awaitReplay(ctx); err != nil {
		return nil, err
	}
	if err := e.Checkpoint(ctx); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if end, ckpt := e.arch.End(), e.log.CheckpointLSN(); end != e.hard || ckpt != e.hard.LSN {
		return nil, fmt.Errorf("the archive ends at %v and the checkpoint is at LSN %d, the database at %v: %w", end, ckpt, e.hard, ErrStatus)
	}
	return &Rejoin{e: e, End: e.hard, Lineage: e.lineage, lseq: e.log.NextLSEQ() - 1}, nil
}

// Control is the control file's content, with the lineage.
func (r *Rejoin) Control() ctl.Control { return r.e.Control() }

// CtlPath is where the control file is.
func (r *Rejoin) CtlPath() string { return r.e.cfg.CtlPath }

// Package returns the package with this GSEQ, of the local archive.
func (r *Rejoin) Package(ctx context.Context, seq base.Seq) (p *redo.Package, err error) {
	err = r.Redo(ctx, seq, func(x *redo.Package) error {
		p = x
		return errEnough
	})
	if errors.Is(err, errEnough) || err == nil && p != nil {
		return p, nil
	}
	if err == nil {
		err = fmt.Errorf("package %d is not there", seq)
	}
	return nil, err
}

var errEnough = errors.New("enough")

// Redo calls fn for the packages from GSEQ from on; fn may keep them.
func (r *Rejoin) Redo(ctx context.Context, from base.Seq, fn func(*redo.Package) error) error {
	return r.e.arch.Read(ctx, from, fn)
}

// Surplus reads the redo after fork, calls copy for each package, and returns the
// pages that it touched. When the fork is within a large transaction, those which
// that had touched before belong to it: as it ended, perhaps, it is given up.
func (r *Rejoin) Surplus(ctx context.Context, fork base.Position, copy func(*redo.Package) error) (*graft.Touched, error) {
	var t graft.Touched
	first := true
	err := r.Redo(ctx, fork.Seq+1, func(p *redo.Package) error {
		if first {
			first = false
			for x, err := range p.PTXs() {
				if err != nil {
					return err
				}
				if x.Kind.Continues() {
					if err := r.before(ctx, fork, &t); err != nil {
						return err
					}
				}
				break
			}
		}
		if err := t.Add(p, true); err != nil {
			return fmt.Errorf("package %d of the archive: %w", p.GSEQ, err)
		}
		return copy(p)
	})
	if err == nil && first {
		err = fmt.Errorf("there is no redo after %v: %w", fork, ErrPosition)
	}
	return &t, err
}

// before adds the parts, up to fork, of the large transaction that is open there.
func (r *Rejoin) before(ctx context.Context, fork base.Position, t *graft.Touched) error {
	for from, step := fork.Seq, base.Seq(1); ; step *= 4 {
		if from -= min(step, from-1); !r.e.arch.Has(from) {
			return fmt.Errorf("the archive does not have the beginning of the large transaction that is open at %v", fork)
		}
		begun := base.Seq(0)
		err := r.Redo(ctx, from, func(p *redo.Package) error {
			if p.GSEQ > fork.Seq {
				return errEnough
			}
			for x, err := range p.PTXs() {
				if err != nil {
					return err
				}
				if x.Kind == redo.KindFirst {
					begun = p.GSEQ
				}
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			return err
		}
		if begun != 0 {
			err := r.Redo(ctx, begun, func(p *redo.Package) error {
				if p.GSEQ > fork.Seq {
					return errEnough
				}
				return t.Add(p, false)
			})
			if err != nil && !errors.Is(err, errEnough) {
				return err
			}
			return nil
		}
		if from <= 1 {
			return fmt.Errorf("no package of the archive begins the large transaction that is open at %v", fork)
		}
	}
}

// Commit binds the database to the rejoin: the graft file and everything it names
// are on disk. From then on the database does nothing any more; the next Open
// completes the rejoin. After an error it does nothing any more either: the next
// Open finds out what the control file says.
func (r *Rejoin) Commit(j ctl.Rejoin) error {
	e := r.e
	j.Graft.LSEQ = r.lseq
	if err := e.saveControlLocking(func(c *ctl.Control) { c.Rejoin = &j }); err != nil {
		err = fmt.Errorf("rejoin: %w", err)
		e.halt(err)
		return err
	}
	e.mu.Lock()
	e.halted = ErrRejoin
	e.mu.Unlock()
	e.buf.refuse(ErrRejoin)
	e.stop()
	return nil
}

// Close lets others change the database again, unless Commit was called.
func (r *Rejoin) Close() {
	r.e.fmu.Unlock()
	r.e.opMu.Unlock()
}
