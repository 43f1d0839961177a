package engine

import (
	"context"
	"errors"
	"fmt"

	"datawatch/internal/base"
	"datawatch/internal/storage/arch"
	"datawatch/internal/storage/redo"
)

// chain is a large transaction of the log whose last part is not hardened: its
// changes are in no data file, so a recovery needs its redo from the first part
// on. Zero: there is none.
type chain struct {
	first base.LSN      // of its first part, which begins a package
	seq   base.Seq      // GSEQ of that package
	lseq  base.Seq      // and its LSEQ
	prev  base.Position // the end of the package before
}

// after returns the chain open after package p, which ends with the one whose
// first part is at LSN first (0: none) open.
func (c chain) after(p *redo.Package, first base.LSN) chain {
	switch first {
	case c.first:
		return c
	case 0:
		return chain{}
	}
	return chain{first: first, seq: p.GSEQ, lseq: p.LSEQ, prev: base.Position{Seq: p.GSEQ - 1, LSN: p.PrevLSN}}
}

// whole is the position before a large transaction under way, otherwise the
// hardened one: from there on all redo that the data lacks can be replayed
// without what came before. Under mu.
func (e *Engine) whole() base.Position {
	if e.chain.first != 0 {
		return e.chain.prev
	}
	return e.hard
}

// holdArchive keeps the archive from deleting what a recovery would need of it:
// from the beginning of the large transaction that the log's checkpoint is in,
// or of the one under way. Under mu.
func (e *Engine) holdArchive() {
	if e.arch == nil {
		return
	}
	seq := e.ckptChain
	if seq == 0 {
		seq = e.chain.seq
	}
	if seq != e.held {
		e.held = seq
		e.arch.Hold(seq)
	}
}

// resumeChain replays the parts, before the log's checkpoint, of the large
// transaction that it is in: the data file and the log have nothing of them.
func (e *Engine) resumeChain(ctx context.Context, seq base.Seq, ckpt base.LSN) error {
	if e.arch == nil {
		return fmt.Errorf("the checkpoint at LSN %d is within a large transaction that began with package %d, and there is no local archive to read it from", ckpt, seq)
	}
	e.held, e.ckptChain = seq, seq
	e.arch.Hold(seq)
	done := errors.New("done")
	err := e.arch.Read(ctx, seq, func(p *redo.Package) error {
		if p.MinLSN > ckpt {
			return done
		}
		first := e.chain.first
		for t, err := range p.PTXs() {
			if err == nil {
				err = e.store.Resume(t)
			}
			if err == nil {
				first, err = redo.ChainAfter(first, t.Kind, t.LSN)
			}
			if err != nil {
				return fmt.Errorf("package %d of the archive: %w", p.GSEQ, err)
			}
		}
		e.chain = e.chain.after(p, first)
		if p.MaxLSN == ckpt {
			return done
		}
		return nil
	})
	switch {
	case err == nil:
		err = fmt.Errorf("the archive ends at %v: %w", e.arch.End(), arch.ErrGone)
	case errors.Is(err, done):
		return nil
	}
	return fmt.Errorf("read the large transaction that began with package %d, up to LSN %d: %w", seq, ckpt, err)
}
