package session

import (
	"context"

	"datawatch/internal/base"
	"datawatch/internal/storage/pagestore"
)

// Engine is the part of the storage engine (package engine) that FromEngine
// adapts.
type Engine interface {
	Mode() base.Mode
	Status() base.Status
	Store() *pagestore.Store
	Hardened() base.LSN
	WaitHardened(ctx context.Context, lsn base.LSN) error
	Flight() <-chan struct{}
}

// FromEngine makes a Database of a storage engine.
func FromEngine(e Engine) Database { return engineDB{e} }

type engineDB struct{ Engine }

// Readable reports whether anything may be read: false while a database that has
// rejoined its group is catching up.
func (d engineDB) Readable() bool { return d.Store().Readable() }

func (d engineDB) NewHandle(readOnly bool) Handle { return d.Store().NewHandle(readOnly) }

func (d engineDB) NewPrivate() Handle { return d.Store().NewPrivate() }

// HardenedAt tells when the hardened LSN last moved, in Unix nanoseconds; 0: not
// known.
func (d engineDB) HardenedAt() int64 {
	if e, ok := d.Engine.(interface{ HardenedAt() int64 }); ok {
		return e.HardenedAt()
	}
	return 0
}

// LeaseOver tells that no commit may be acknowledged any more that was released
// before (G3).
func (d engineDB) LeaseOver() bool {
	e, ok := d.Engine.(interface{ LeaseOver() bool })
	return ok && e.LeaseOver()
}
func (d engineDB) CheckPages(ctx context.Context, progress func(done, total uint32), bad func(page uint32, offset int64, err error)) error {
	return d.Store().CheckPages(ctx, progress, bad)
}
func (d engineDB) LockWrite(ctx context.Context, h Handle) error {
	return d.Store().LockWrite(ctx, h.(*pagestore.Handle))
}
func (d engineDB) UnlockWrite(h Handle) { d.Store().UnlockWrite(h.(*pagestore.Handle)) }
