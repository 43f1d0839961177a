package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sort"

	"golang.org/x/sys/unix"
)

// OS is the operating system's file system. The zero value is ready to use.
type OS struct{}

var _ FS = OS{}

// Modes of new files and directories: a database is its owner's.
const (
	fileMode = 0o640
	dirMode  = 0o750
)

// ErrLocked means that another process (or another Lock in this one) holds a lock.
var ErrLocked = errors.New("locked by another process")

func (OS) Create(path string, trunc bool) (File, error) {
	flags := os.O_RDWR | os.O_CREATE
	if trunc {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, fileMode)
	if err != nil {
		return nil, err
	}
	return &osFile{f}, nil
}

func (OS) Open(path string) (File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &osFile{f}, nil
}

func (OS) Remove(path string) error              { return os.Remove(path) }
func (OS) Rename(from, to string) error          { return os.Rename(from, to) }
func (OS) MkdirAll(path string) error            { return os.MkdirAll(path, dirMode) }
func (OS) Stat(path string) (fs.FileInfo, error) { return os.Stat(path) }

func (OS) ReadDir(path string) ([]string, error) {
	d, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	sort.Strings(names)
	return names, err
}

func (OS) SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}

func (OS) Lock(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

type osFile struct{ f *os.File }

func (f *osFile) ReadAt(b []byte, off int64) (int, error)  { return f.f.ReadAt(b, off) }
func (f *osFile) WriteAt(b []byte, off int64) (int, error) { return f.f.WriteAt(b, off) }
func (f *osFile) Close() error                             { return f.f.Close() }
func (f *osFile) Truncate(size int64) error                { return f.f.Truncate(size) }

func (f *osFile) Size() (int64, error) {
	st, err := f.f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// Sync is fdatasync: it writes the data and what is needed to read it back
// (the size), and spares the journal commit for time stamps.
func (f *osFile) Sync() error {
	rc, err := f.f.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = rc.Control(func(fd uintptr) {
		for {
			if serr = unix.Fdatasync(int(fd)); serr != unix.EINTR {
				return
			}
		}
	})
	if err == nil && serr != nil {
		err = &fs.PathError{Op: "fdatasync", Path: f.f.Name(), Err: serr}
	}
	return err
}
