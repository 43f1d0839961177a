// Package pagestore keeps the pages of one data file in several versions, so
// that readers work on snapshots while one writer changes pages, and so that
// nothing reaches the data file before its redo is safe. It is what the SQL
// engine's file system adapter talks to (architecture section 3). DESIGN.md
// says how it works and why; docs/lock-order.md lists its locks.
//
// It keeps
//   - G2: only the owner of the write lock works on pages above the hardened
//     LSN; every other handle pins the newest hardened snapshot;
//   - G4: the checkpointer writes versions at or below the hardened LSN only,
//     through a doublewrite area;
//   - G6: a snapshot shows whole transactions;
//   - its part of G9: a torn page is repaired from the doublewrite area, any
//     other damage is an error that names file and page.
//
// It knows nothing of logs: what makes a commit safe, and when, is the
// Committer's business (package engine), which tells it by SetHardened.
package pagestore

import (
	"context"
	"errors"
	"fmt"
	"io"

	"datawatch/internal/base"
)

// Lock levels of SQLite, as Handle.Lock and Unlock take them.
const (
	LockNone = iota
	LockShared
	LockReserved
	LockPending
	LockExclusive
)

var (
	// ErrBusy means that another handle, or none, owns the write lock.
	ErrBusy = errors.New("write lock not held")
	// ErrBusySnapshot means that the snapshot is not the newest, so that no
	// write can be based on it: roll back and begin again.
	ErrBusySnapshot = errors.New("snapshot is not the newest")
	// ErrReadOnly means a write through a read-only handle.
	ErrReadOnly = errors.New("database is read only")
	// ErrNotOwner means a page operation without the lock that it needs.
	ErrNotOwner = errors.New("operation without the lock it needs")
	// ErrPrivate means a commit, or the write lock, for a private handle.
	ErrPrivate = errors.New("a private transaction cannot be committed")
	// ErrShortRead means a read beyond the end; the buffer's rest is zeroed. It is also io.EOF.
	ErrShortRead = fmt.Errorf("read beyond the end of the database: %w", io.EOF)
	// ErrDamaged means a page whose checksum is wrong; the text names file and page.
	ErrDamaged = errors.New("damaged page")
	// ErrNotWhole means a read before Options.Whole.
	ErrNotWhole = errors.New("the database is catching up after it rejoined its group and cannot be read yet")
	// ErrClosed means that the store was closed.
	ErrClosed = errors.New("page store is closed")
)

// Committer makes published transactions safe. Package engine implements it.
type Committer interface {
	// Reserve is called in Handle.Sync, when it is not too late to fail, with
	// the LSN and the encoded size of the PTX in bytes. It may block for log
	// buffer space. A nil return is followed by exactly one Commit or Cancel.
	Reserve(ctx context.Context, lsn base.LSN, bytes int) error
	// Cancel gives a reservation back: the transaction was rolled back.
	Cancel()
	// NextLSN returns the LSN of the next PTX. It is called by the owner of the
	// write lock and stays the same until Commit.
	NextLSN() base.LSN
	// Commit takes over an encoded PTX, in LSN order, under the write lock. It
	// must not block or fail; ptx is valid only during the call.
	Commit(ptx []byte, lsn base.LSN)
	// Part takes over a part of a large transaction, not the last, in LSN order,
	// under the write lock; ptx is valid only during the call. It may block for
	// log buffer space and fail; then the LSN is not used.
	Part(ctx context.Context, ptx []byte, lsn base.LSN, first bool) error
	// Abandon takes over an empty PTX which says that the parts before it came
	// to nothing. It does not block and may refuse.
	Abandon(ptx []byte, lsn base.LSN) bool
}
