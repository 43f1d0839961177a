package monitor

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"datawatch/internal/ha/confirm"
	"datawatch/internal/vfs"
)

// store keeps the record of each group in one file, replaced atomically: new
// content goes to a second name, is synced, renamed over the first, and the
// directory is synced. A lock keeps a second confirm monitor away from it.
type store struct {
	fs   vfs.FS
	dir  string
	lock io.Closer
}

func recordName(group string) string {
	clean := strings.Map(func(r rune) rune {
		if r == '/' || r == '\\' || r == 0 {
			return '_'
		}
		return r
	}, group)
	return "dmmonitor_" + clean + ".ctl"
}

func openStore(fsys vfs.FS, dir string) (*store, error) {
	if err := fsys.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("making the directory of the decision record: %w", err)
	}
	l, err := fsys.Lock(filepath.Join(dir, "dmmonitor.lock"))
	if err != nil {
		return nil, fmt.Errorf("another confirm monitor uses %s: %w", dir, err)
	}
	return &store{fsys, dir, l}, nil
}

func (s *store) close() { s.lock.Close() }

// load returns the record of a group, an empty one when there is no file. A
// damaged file is an error: without it an old primary could be let go on.
func (s *store) load(group string, oguid uint32) (confirm.Record, error) {
	path := filepath.Join(s.dir, recordName(group))
	f, err := s.fs.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return confirm.Record{}, nil
	}
	if err != nil {
		return confirm.Record{}, fmt.Errorf("opening the decision record: %w", err)
	}
	defer f.Close()
	n, err := f.Size()
	if err != nil {
		return confirm.Record{}, fmt.Errorf("reading %s: %w", path, err)
	}
	const most = 1 << 20
	if n > most {
		return confirm.Record{}, fmt.Errorf("%s: %d bytes, at most %d expected", path, n, most)
	}
	b := make([]byte, n)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return confirm.Record{}, fmt.Errorf("reading %s: %w", path, err)
	}
	r, err := confirm.Decode(b, group, oguid)
	if err != nil {
		return confirm.Record{}, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

func (s *store) save(group string, oguid uint32, r confirm.Record) error {
	b, err := confirm.Encode(group, oguid, r)
	if err != nil {
		return err
	}
	path := filepath.Join(s.dir, recordName(group))
	tmp := path + ".new"
	if err := s.write(tmp, b); err != nil {
		return fmt.Errorf("writing %s: %w", tmp, err)
	}
	if err := s.fs.Rename(tmp, path); err != nil {
		return fmt.Errorf("replacing %s: %w", path, err)
	}
	if err := s.fs.SyncDir(s.dir); err != nil {
		return fmt.Errorf("syncing %s: %w", s.dir, err)
	}
	return nil
}

func (s *store) write(path string, b []byte) error {
	f, err := s.fs.Create(path, true)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	return f.Sync()
}
