// Package sqlitevfs lets SQLite (github.com/ncruces/go-sqlite3) run on a page
// store. It is the only place where the SQL engine's binding and the store
// meet: the store knows nothing of SQLite's virtual file system, and nothing
// above knows how pages are read.
//
// Temporary files of SQLite (sorters of large indexes, TEMP tables, VACUUM) are
// in memory up to a limit and beyond that in a file without a name.
//
// What SQLite believes: one main database file with a rollback journal that
// is truncated at each commit; no WAL, no super-journal. What happens: Lock(SHARED) pins a snapshot, writes go
// to the handle's private pages, FCNTL_SYNC does everything that can fail,
// FCNTL_COMMIT_PHASETWO marks the commit and the Unlock after it publishes.
// SQLITE_IOCAP_BATCH_ATOMIC is never offered: with it SQLite leaves page 1's
// change counter alone and other connections keep stale caches (lost updates).
//
// It keeps the SQLite side of G2 and G6 (one snapshot per transaction, all of a
// commit or nothing); locks, versions and redo are the store's.
package sqlitevfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"
)

// Handle is what one connection needs of the store: the methods of a page
// store's handle. Levels are SQLite's: 0 none, 1 shared, 2 reserved, 3
// pending, 4 exclusive.
type Handle interface {
	Lock(level int) error
	Unlock(level int) error
	CheckReserved() bool
	ReadAt(b []byte, off int64) (int, error)
	WriteAt(b []byte, off int64) (int, error)
	Truncate(size int64) error
	Size() (int64, error)
	Sync() error
	CommitPhaseTwo()
	Close() error
}

var (
	pending sync.Map // name in Open -> *file, from Open until SQLite opens it
	counter atomic.Uint64
)

// Open opens a SQLite connection on h, which it owns from then on: closing the
// connection closes the handle, and so does a failed Open. maxMemory bounds the
// memory of the connection in bytes (0: the binding's default of 256 MB); it
// is address space, taken only when used.
func (s *System) Open(ctx context.Context, h Handle, readOnly bool, maxMemory int64) (*sqlite3.Conn, *File, error) {
	name := "dw" + strconv.FormatUint(counter.Add(1), 10)
	f := &File{h: h, readOnly: readOnly}
	pending.Store(name, f)
	defer pending.Delete(name)
	if maxMemory > 0 {
		ctx = sqlite3.WithMaxMemory(ctx, maxMemory)
	}
	c, err := sqlite3.OpenContext(ctx, "file:/"+name+"?vfs="+s.name)
	if err != nil {
		h.Close()
		return nil, nil, fmt.Errorf("open SQL connection: %w", err)
	}
	return c, f, nil
}

// fileSystem is a System as SQLite sees it.
type fileSystem struct{ *System }

// Open hands out the handle waiting under the name for a main database, and
// a temporary file for everything else. That includes the rollback journal: it
// serves a statement, savepoint or transaction that is undone while the
// connection lives, and never has to survive it, as the page store publishes
// whole transactions only.
func (s fileSystem) Open(name string, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	if flags&vfs.OPEN_MAIN_DB == 0 {
		if flags&(vfs.OPEN_SUPER_JOURNAL|vfs.OPEN_WAL) != 0 {
			return nil, flags, sqlite3.CANTOPEN
		}
		return &tempFile{s: s.System}, flags, nil
	}
	if len(name) > 0 && name[0] == '/' {
		name = name[1:]
	}
	v, ok := pending.LoadAndDelete(name)
	if !ok {
		return nil, flags, sqlite3.CANTOPEN
	}
	f := v.(*File)
	if f.readOnly {
		flags = flags&^(vfs.OPEN_READWRITE|vfs.OPEN_CREATE) | vfs.OPEN_READONLY
	}
	return f, flags, nil
}

func (fileSystem) Delete(string, bool) error                   { return sqlite3.IOERR_DELETE_NOENT }
func (fileSystem) Access(string, vfs.AccessFlag) (bool, error) { return false, nil }
func (fileSystem) FullPathname(name string) (string, error)    { return name, nil }

// File is the main database file of one connection.
type File struct {
	h        Handle
	readOnly bool
	written  int // pages written since Written was last called
	err      error
}

// Written returns how many page writes happened since the last call: what the
// page cache and journal of the connection have been through, roughly.
func (f *File) Written() int { n := f.written; f.written = 0; return n }

// Err returns, and forgets, the store's own error behind the last failed call.
// SQLite reports only a number.
func (f *File) Err() error { err := f.err; f.err = nil; return err }

func (f *File) fail(err error, code sqlite3.ExtendedErrorCode) error {
	if err == nil {
		return nil
	}
	switch {
	case errors.Is(err, ErrBusySnapshot):
		return sqlite3.BUSY_SNAPSHOT
	case errors.Is(err, ErrBusy), errors.Is(err, ErrNotOwner):
		return sqlite3.BUSY
	case errors.Is(err, ErrReadOnly):
		return sqlite3.READONLY
	}
	f.err = err
	return vfs.SystemError(err, code)
}

func (f *File) ReadAt(b []byte, off int64) (int, error) {
	n, err := f.h.ReadAt(b, off)
	if n == len(b) {
		return n, nil
	}
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, ErrShortRead) {
		return n, io.EOF
	}
	return n, f.fail(err, sqlite3.IOERR_READ)
}

func (f *File) WriteAt(b []byte, off int64) (int, error) {
	f.written++
	n, err := f.h.WriteAt(b, off)
	return n, f.fail(err, sqlite3.IOERR_WRITE)
}

func (f *File) Truncate(n int64) error { return f.fail(f.h.Truncate(n), sqlite3.IOERR_TRUNCATE) }
func (f *File) Size() (int64, error) {
	n, err := f.h.Size()
	return n, f.fail(err, sqlite3.IOERR_FSTAT)
}
func (f *File) Lock(l vfs.LockLevel) error { return f.fail(f.h.Lock(int(l)), sqlite3.IOERR_LOCK) }
func (f *File) Unlock(l vfs.LockLevel) error {
	return f.fail(f.h.Unlock(int(l)), sqlite3.IOERR_UNLOCK)
}
func (f *File) CheckReservedLock() (bool, error) { return f.h.CheckReserved(), nil }
func (f *File) SectorSize() int                  { return 0 }

// Sync is called besides FCNTL_SYNC, which has already done the work.
func (f *File) Sync(vfs.SyncFlag) error { return nil }

// SyncSuper is FCNTL_SYNC: the last call of a commit that may fail.
func (f *File) SyncSuper(string) error { return f.fail(f.h.Sync(), sqlite3.IOERR_FSYNC) }

// CommitPhaseTwo is FCNTL_COMMIT_PHASETWO: the commit is decided.
func (f *File) CommitPhaseTwo() error { f.h.CommitPhaseTwo(); return nil }

func (f *File) Close() error { return f.h.Close() }

// DeviceCharacteristics: appends are safe, writes do not touch their
// neighbours, and parts of a page can be read. UNDELETABLE_WHEN_OPEN makes SQLite
// keep the journal open from transaction to transaction. Not BATCH_ATOMIC.
func (f *File) DeviceCharacteristics() vfs.DeviceCharacteristic {
	return vfs.IOCAP_UNDELETABLE_WHEN_OPEN | vfs.IOCAP_SAFE_APPEND | vfs.IOCAP_SEQUENTIAL | vfs.IOCAP_POWERSAFE_OVERWRITE | vfs.IOCAP_SUBPAGE_READ
}

var (
	_ vfs.FileCommitPhaseTwo = &File{}
	_ vfs.FileSync           = &File{}
)
