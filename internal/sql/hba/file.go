package hba

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"
)

// Source reads files; they need not be writable.
type Source struct {
	Read func(path string) ([]byte, error)
	Stat func(path string) (fs.FileInfo, error)
}

// File is a file of rules that may change while the server runs.
type File struct {
	src  Source
	path string
	log  *slog.Logger

	mu    sync.Mutex
	rules *Rules
	size  int64
	mtime time.Time
	found bool
}

// Open reads a file. A missing one stands for no rules, unless must says that
// it has to be there.
func Open(src Source, path string, must bool, log *slog.Logger) (*File, error) {
	f := &File{src: src, path: path, log: log}
	rules, err := f.read()
	if err != nil && (must || !errors.Is(err, fs.ErrNotExist)) {
		return nil, err
	}
	f.rules, f.found = rules, err == nil
	if info, err := src.Stat(path); err == nil {
		f.size, f.mtime = info.Size(), info.ModTime()
	}
	return f, nil
}

func (f *File) read() (*Rules, error) {
	data, err := f.src.Read(f.path)
	if err != nil {
		return nil, fmt.Errorf("address rules: %w", err)
	}
	r, err := Parse(f.path, data)
	if err != nil {
		return nil, fmt.Errorf("address rules: %w", err)
	}
	return r, nil
}

// Rules are those of now: a changed file is read again. One with an error, or
// one that is gone, leaves the rules of before in force, and the log says so
// once.
func (f *File) Rules() *Rules {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := f.src.Stat(f.path)
	switch {
	case err != nil:
		if f.found {
			f.found = false
			f.log.Error("address rules: the file cannot be read; the rules of before stay in force", "file", f.path, "err", err)
		}
		return f.rules
	case f.found && info.Size() == f.size && info.ModTime().Equal(f.mtime):
		return f.rules
	}
	f.found, f.size, f.mtime = true, info.Size(), info.ModTime()
	rules, err := f.read()
	if err != nil {
		f.log.Error("address rules changed and are not accepted; the rules of before stay in force", "err", err)
		return f.rules
	}
	f.log.Info("address rules changed", "file", f.path, "lines", len(rules.rules))
	f.rules = rules
	return rules
}
