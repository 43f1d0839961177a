package sqlitevfs

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"

	dwvfs "datawatch/internal/vfs"
)

// Temporary files are kept in memory up to tempFileMemory each, and all files of
// a System together up to tempMemory.
const (
	tempFileMemory = 16 << 20
	tempMemory     = 64 << 20
)

const tempExt = ".sqltmp"

// System is the file system that connections see: the page store's handles, and
// temporary files of its own.
type System struct {
	name string // registered with SQLite
	fs   dwvfs.FS
	dir  string

	fileMemory, memory int64 // limits: of one file, of all

	inMemory, onDisk atomic.Int64
	limit            atomic.Int64 // of onDisk; 0: none
}

// TempLimit is the code of statements that fail because temporary files take all
// the space they may: one that SQLite has no use for here. SQLite carries the
// number only, whatever error comes with it.
const TempLimit = sqlite3.IOERR_VNODE

var errTempLimit = errors.New("temporary files have reached their limit")

// SetLimit bounds what temporary files take on disk together, in bytes; 0: no
// limit.
func (s *System) SetLimit(n int64) { s.limit.Store(n) }

// room reports whether temporary files on disk may grow by n bytes.
func (s *System) room(n int64) error {
	if l := s.limit.Load(); l > 0 && n > 0 && s.onDisk.Load()+n > l {
		return errTempLimit
	}
	return nil
}

// New makes a System whose temporary files, where memory has no room for them,
// go to dir; what an earlier run left there is removed. With fs nil they stay in
// memory. Close ends it, after its connections.
func New(fs dwvfs.FS, dir string) (*System, error) {
	s := &System{name: "datawatch" + strconv.FormatUint(counter.Add(1), 10), fs: fs, dir: dir,
		fileMemory: tempFileMemory, memory: tempMemory}
	if fs != nil {
		if err := fs.MkdirAll(dir); err != nil {
			return nil, fmt.Errorf("directory for temporary files: %w", err)
		}
		names, err := fs.ReadDir(dir)
		if err != nil {
			return nil, fmt.Errorf("directory for temporary files: %w", err)
		}
		for _, n := range names {
			if filepath.Ext(n) == tempExt {
				if err := fs.Remove(filepath.Join(dir, n)); err != nil {
					return nil, fmt.Errorf("remove a temporary file of the last run: %w", err)
				}
			}
		}
	}
	vfs.Register(s.name, fileSystem{s})
	return s, nil
}

// Close makes SQLite forget the System.
func (s *System) Close() { vfs.Unregister(s.name) }

// TempBytes is the size of all temporary files in memory and on disk now.
func (s *System) TempBytes() (inMemory, onDisk int64) { return s.inMemory.Load(), s.onDisk.Load() }

// tempFile is a temporary file of SQLite: gone when it is closed.
type tempFile struct {
	s    *System
	mem  []byte
	f    dwvfs.File // from the moment on that it does not fit memory
	path string     // to be removed at the end; "": it has no name any more
	size int64
}

func (t *tempFile) ReadAt(b []byte, off int64) (int, error) {
	if t.f != nil {
		n, err := t.f.ReadAt(b, off)
		if n < len(b) && (err == nil || err == io.EOF) {
			return n, io.EOF
		}
		return n, tempError(err, sqlite3.IOERR_READ)
	}
	n := 0
	if off < int64(len(t.mem)) {
		n = copy(b, t.mem[off:])
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (t *tempFile) WriteAt(b []byte, off int64) (int, error) {
	end := off + int64(len(b))
	if more := end - t.size; t.f == nil && more > 0 && t.s.fs != nil && (end > t.s.fileMemory || t.s.inMemory.Load()+more > t.s.memory) {
		if err := t.spill(); err != nil {
			return 0, tempError(err, sqlite3.IOERR_WRITE)
		}
	}
	if t.f != nil {
		if err := t.s.room(end - t.size); err != nil {
			return 0, tempError(err, sqlite3.IOERR_WRITE)
		}
		if n, err := t.f.WriteAt(b, off); err != nil {
			return n, tempError(err, sqlite3.IOERR_WRITE)
		}
	} else {
		if int(end) > len(t.mem) {
			t.mem = append(t.mem, make([]byte, int(end)-len(t.mem))...)
		}
		copy(t.mem[off:], b)
	}
	t.resized(max(t.size, end))
	return len(b), nil
}

func (t *tempFile) resized(n int64) {
	if t.f != nil {
		t.s.onDisk.Add(n - t.size)
	} else {
		t.s.inMemory.Add(n - t.size)
	}
	t.size = n
}

// spill moves the file to disk.
func (t *tempFile) spill() error {
	if err := t.s.room(t.size); err != nil {
		return err
	}
	path := filepath.Join(t.s.dir, strconv.FormatUint(counter.Add(1), 10)+tempExt)
	f, err := t.s.fs.Create(path, true)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(t.mem, 0); err != nil {
		return errors.Join(err, f.Close(), t.s.fs.Remove(path))
	}
	size := t.size
	t.resized(0)
	t.f, t.path, t.mem = f, path, nil
	t.resized(size)
	if t.s.fs.Remove(path) == nil { // an open file keeps its content without a name
		t.path = ""
	}
	return nil
}

func (t *tempFile) Truncate(n int64) error {
	n = min(n, t.size)
	if n == 0 && t.f != nil { // a journal after its transaction: the next one is small again
		return t.Close()
	}
	if t.f != nil {
		if err := t.f.Truncate(n); err != nil {
			return tempError(err, sqlite3.IOERR_TRUNCATE)
		}
	} else {
		t.mem = t.mem[:n]
	}
	t.resized(n)
	return nil
}

func (t *tempFile) Size() (int64, error) { return t.size, nil }

func (t *tempFile) Close() error {
	t.resized(0)
	t.mem = nil
	if t.f == nil {
		return nil
	}
	err := t.f.Close()
	if t.path != "" {
		_ = t.s.fs.Remove(t.path) // New does, at the next start, if this fails
	}
	t.f, t.path = nil, ""
	return tempError(err, sqlite3.IOERR_CLOSE)
}

func tempError(err error, code sqlite3.ExtendedErrorCode) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errTempLimit):
		return TempLimit
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return sqlite3.FULL
	}
	return vfs.SystemError(fmt.Errorf("temporary file: %w", err), code)
}

func (t *tempFile) Lock(vfs.LockLevel) error         { return nil }
func (t *tempFile) Unlock(vfs.LockLevel) error       { return nil }
func (t *tempFile) CheckReservedLock() (bool, error) { return false, nil }
func (t *tempFile) SectorSize() int                  { return 0 }
func (t *tempFile) Sync(vfs.SyncFlag) error          { return nil }
func (t *tempFile) DeviceCharacteristics() vfs.DeviceCharacteristic {
	return vfs.IOCAP_SAFE_APPEND | vfs.IOCAP_SEQUENTIAL | vfs.IOCAP_POWERSAFE_OVERWRITE | vfs.IOCAP_SUBPAGE_READ
}

var _ vfs.File = &tempFile{}
