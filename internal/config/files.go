package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"datawatch/internal/vfs"
)

// ReadFunc reads a whole file; a missing one is fs.ErrNotExist.
type ReadFunc func(path string) ([]byte, error)

// ReadOS reads a file of the operating system, at most MaxFileSize bytes and
// one more, so that the parser can refuse what is too large.
func ReadOS(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, MaxFileSize+1))
}

// ReadFrom reads through a vfs.FS, with the same limit.
func ReadFrom(fsys vfs.FS) ReadFunc {
	return func(path string) ([]byte, error) {
		f, err := fsys.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		size, err := f.Size()
		if err != nil {
			return nil, err
		}
		b := make([]byte, min(size, MaxFileSize+1))
		n, err := f.ReadAt(b, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		return b[:n], nil
	}
}

func load[T any](read ReadFunc, path string, parse func(string, []byte) (*T, error)) (*T, error) {
	b, err := read(path)
	if err != nil {
		return nil, &Error{File: path, Msg: "cannot be read: " + reason(err), Err: err}
	}
	return parse(path, b)
}

// reason is the innermost text of a path error: the path is named already.
func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

// LoadDM reads dm.ini from the operating system.
func LoadDM(path string) (*DM, error) { return load(ReadOS, path, ParseDM) }

// LoadMAL reads dmmal.ini.
func LoadMAL(path string) (*MAL, error) { return load(ReadOS, path, ParseMAL) }

// LoadArch reads dmarch.ini.
func LoadArch(path string) (*Arch, error) { return load(ReadOS, path, ParseArch) }

// LoadWatcher reads dmwatcher.ini alone; see LoadWatcherAll.
func LoadWatcher(path string) (*Watcher, error) { return load(ReadOS, path, ParseWatcher) }

// LoadMonitor reads dmmonitor.ini.
func LoadMonitor(path string) (*Monitor, error) { return load(ReadOS, path, ParseMonitor) }

// LoadTimers reads dmtimer.ini.
func LoadTimers(path string) (*Timers, error) { return load(ReadOS, path, ParseTimers) }

// LoadMPP reads dmmpp.ini.
func LoadMPP(path string) (*MPP, error) { return load(ReadOS, path, ParseMPP) }

// LoadDCR reads dmdcr.ini.
func LoadDCR(path string) (*DCR, error) { return load(ReadOS, path, ParseDCR) }

// LoadSVC reads dm_svc.conf.
func LoadSVC(path string) (*SVC, error) { return load(ReadOS, path, ParseSVC) }

// SaveFile replaces a file's content so that a crash leaves the old or the new
// text, never a mixture: write beside it, sync, rename, sync the directory.
func SaveFile(fsys vfs.FS, path string, data []byte) error {
	tmp := path + ".new"
	f, err := fsys.Create(tmp, true)
	if err != nil {
		return fmt.Errorf("save %s: %w", path, err)
	}
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = fsys.Rename(tmp, path)
	}
	if err != nil {
		_ = fsys.Remove(tmp)
		return fmt.Errorf("save %s: %w", path, err)
	}
	if err := fsys.SyncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("save %s: %w", path, err)
	}
	return nil
}

// SetParam changes one parameter of a configuration file of the given kind
// ("dm.ini"), keeping everything else as it is. The value is checked first.
func SetParam(fsys vfs.FS, path, file, section, name, value string) error {
	p, ok := Lookup(file, name)
	if !ok {
		return &Error{File: path, Section: section, Key: name, Value: value, Msg: "unknown parameter"}
	}
	if e := p.Check(value); e != nil {
		e.File, e.Section = path, section
		return e
	}
	return Edit(fsys, path, func(d *Doc) error { return d.Set(section, p.Name, value) })
}

// Edit rewrites a configuration file with whatever change does to its text.
func Edit(fsys vfs.FS, path string, change func(*Doc) error) error {
	b, err := ReadFrom(fsys)(path)
	if err != nil {
		return fmt.Errorf("change %s: %w", path, err)
	}
	d, err := ParseDoc(path, b)
	if err != nil {
		return err
	}
	if err := change(d); err != nil {
		return err
	}
	return SaveFile(fsys, path, d.Bytes())
}
