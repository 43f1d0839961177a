// Package backup owns backup sets: a directory with a copy of a database at one
// moment and a manifest that says what it is. It writes them from a running or a
// stopped database, verifies them, and restores a database from them (manual
// 7.1, 6.14). FORMAT.md describes the files.
//
// It keeps its part of G5 (a restored database has the lineage and position of
// the moment of the backup, and its own DB_MAGIC before it may open), G8 (every
// byte of a set is covered by a checksum, verified before the target is touched;
// a newer version is refused) and G9 (a set without manifest was not finished;
// a restore that was cut off leaves a database that says so).
//
// A set is taken at a package boundary from a pinned snapshot, so it is complete
// in itself: no redo is needed to make it consistent. What SQL or dmrman
// statements look like is left to their packages.
package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/storage/ctl"
	"datawatch/internal/storage/page"
	"datawatch/internal/vfs"
)

const (
	// Version is the format this code writes.
	Version = 1
	// ManifestName is the file that makes a directory a backup set.
	ManifestName = "backup.meta"

	manifestMagic = "DWBACKUP"
	maxManifest   = 16 << 20
	chunk         = 1 << 20
)

var (
	// ErrDamaged means a set whose bytes are not those that were written.
	ErrDamaged = errors.New("backup set is damaged")
	// ErrVersion means a set of a newer program.
	ErrVersion = errors.New("backup set is newer than this program")
	// ErrForeign means a directory that is no backup set, or one of another database.
	ErrForeign = errors.New("not a backup set for this")
	// ErrExists means a directory that already holds something.
	ErrExists = errors.New("directory is not empty")
)

// Manifest describes a backup set.
type Manifest struct {
	Name       string    `json:"name,omitempty"` // TO name
	Online     bool      `json:"online"`
	WithoutLog bool      `json:"without_log,omitempty"`
	Created    time.Time `json:"created"`
	// Control is the control file at the moment of the backup: names, magics,
	// mode, OGUID, lineage.
	Control ctl.Control `json:"control"`
	// Position of the moment: every package up to it is contained, none after.
	Position base.Position `json:"position"`
	Files    []File        `json:"files"`
}

// File is one file of a set.
type File struct {
	Name       string `json:"name"` // in the directory of the set
	Tablespace uint16 `json:"tablespace"`
	File       uint16 `json:"file"`
	Path       string `json:"path"` // in the database, as in its control file
	Pages      uint32 `json:"pages"`
	Size       int64  `json:"size"` // bytes
	SHA256     string `json:"sha256"`
}

// Source is a database at one moment.
type Source struct {
	Control  ctl.Control
	Position base.Position
	Files    []FileSource
}

// FileSource reads the pages, sealed, of one data file; page numbers are from 1.
type FileSource struct {
	Tablespace, File uint16
	Pages            uint32
	ReadPage         func(n uint32, buf []byte) error
}

// Options say how a set is written.
type Options struct {
	Dir        string // missing, or empty
	Name       string
	Online     bool
	WithoutLog bool
	Created    time.Time
	Progress   func(done, total int64) // bytes; may be nil
}

// Write writes a backup set. The manifest comes last, so a set that was cut off
// is recognised as unfinished; a failed one is removed again.
func Write(ctx context.Context, fsys vfs.FS, src Source, opt Options) (_ *Manifest, err error) {
	if names, err := fsys.ReadDir(opt.Dir); err == nil && len(names) > 0 {
		return nil, fmt.Errorf("backup to %s: %w", opt.Dir, ErrExists)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("backup to %s: %w", opt.Dir, err)
	}
	if err := fsys.MkdirAll(opt.Dir); err != nil {
		return nil, fmt.Errorf("backup to %s: %w", opt.Dir, err)
	}
	m := &Manifest{Name: opt.Name, Online: opt.Online, WithoutLog: opt.WithoutLog, Created: opt.Created,
		Control: src.Control.Clone(), Position: src.Position}
	var written []string
	defer func() {
		if err != nil {
			for _, n := range written {
				_ = fsys.Remove(filepath.Join(opt.Dir, n))
			}
		}
	}()
	paths := map[[2]uint16]string{}
	for _, f := range src.Control.DataFiles {
		paths[[2]uint16{f.Tablespace, f.File}] = f.Path
	}
	var done, total int64
	for _, f := range src.Files {
		total += int64(f.Pages) * int64(src.Control.PageSize)
	}
	for _, f := range src.Files {
		path, ok := paths[[2]uint16{f.Tablespace, f.File}]
		if !ok {
			return nil, fmt.Errorf("backup to %s: data file (%d,%d) is not in the control file", opt.Dir, f.Tablespace, f.File)
		}
		file := File{Name: fmt.Sprintf("data_%d_%d.dbf", f.Tablespace, f.File), Tablespace: f.Tablespace, File: f.File, Path: path, Pages: f.Pages}
		written = append(written, file.Name)
		if err := writeFile(ctx, fsys, filepath.Join(opt.Dir, file.Name), f, src.Control.PageSize, &file, func(n int64) {
			done += n
			if opt.Progress != nil {
				opt.Progress(done, total)
			}
		}); err != nil {
			return nil, fmt.Errorf("backup to %s: %w", opt.Dir, err)
		}
		m.Files = append(m.Files, file)
	}
	written = append(written, ManifestName)
	if err := m.save(fsys, opt.Dir); err != nil {
		return nil, fmt.Errorf("backup to %s: %w", opt.Dir, err)
	}
	return m, nil
}

func writeFile(ctx context.Context, fsys vfs.FS, path string, src FileSource, pageSize int, out *File, wrote func(int64)) (err error) {
	w, err := fsys.Create(path, true)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := w.Close(); err == nil {
			err = cerr
		}
	}()
	sum := sha256.New()
	buf := make([]byte, 0, chunk)
	flush := func() error {
		if _, err := w.WriteAt(buf, out.Size); err != nil {
			return err
		}
		sum.Write(buf)
		out.Size += int64(len(buf))
		wrote(int64(len(buf)))
		buf = buf[:0]
		return ctx.Err()
	}
	for n := uint32(1); n <= src.Pages; n++ {
		p := buf[len(buf) : len(buf)+pageSize]
		if err := src.ReadPage(n, p); err != nil {
			return fmt.Errorf("read page %d of data file (%d,%d): %w", n, src.Tablespace, src.File, err)
		}
		if _, err := page.Verify(p); err != nil {
			return fmt.Errorf("page %d of data file (%d,%d): %w", n, src.Tablespace, src.File, err)
		}
		buf = buf[:len(buf)+pageSize]
		if len(buf)+pageSize > cap(buf) {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	out.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return w.Sync()
}

// save writes the manifest: a line "DWBACKUP version sha256", then JSON.
func (m *Manifest) save(fsys vfs.FS, dir string) error {
	body, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	text := append([]byte(fmt.Sprintf("%s %d %x\n", manifestMagic, Version, sum)), body...)
	tmp := filepath.Join(dir, ManifestName+".new")
	f, err := fsys.Create(tmp, true)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(text, 0)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = fsys.Rename(tmp, filepath.Join(dir, ManifestName))
	}
	if err == nil {
		err = fsys.SyncDir(dir)
	}
	if err == nil {
		err = fsys.SyncDir(filepath.Dir(filepath.Clean(dir)))
	}
	if err != nil {
		_ = fsys.Remove(tmp)
	}
	return err
}

// Load reads the manifest of a set and checks everything in it, but not the
// data files; see Verify.
func Load(fsys vfs.FS, dir string) (*Manifest, error) {
	path := filepath.Join(dir, ManifestName)
	f, err := fsys.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s has no %s (never finished, or something else): %w", dir, ManifestName, ErrForeign)
	}
	if err != nil {
		return nil, fmt.Errorf("open backup set: %w", err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, fmt.Errorf("open backup set %s: %w", dir, err)
	}
	if size > maxManifest {
		return nil, fmt.Errorf("%s has %d bytes: %w", path, size, ErrDamaged)
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); err != nil && !(errors.Is(err, io.EOF) && int64(n) == size) {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	m, err := parseManifest(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

func parseManifest(b []byte) (*Manifest, error) {
	head, body, ok := bytes.Cut(b, []byte("\n"))
	var version int
	var sum string
	if n, _ := fmt.Sscanf(string(head), manifestMagic+" %d %64s", &version, &sum); !ok || n != 2 {
		return nil, ErrForeign
	}
	if version > Version {
		return nil, fmt.Errorf("version %d, this program knows %d: %w", version, Version, ErrVersion)
	}
	if got := sha256.Sum256(body); hex.EncodeToString(got[:]) != sum {
		return nil, fmt.Errorf("checksum of the manifest is wrong: %w", ErrDamaged)
	}
	m := &Manifest{}
	if err := json.Unmarshal(body, m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err := m.Control.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if len(m.Files) == 0 || len(m.Files) != len(m.Control.DataFiles) {
		return nil, fmt.Errorf("%d files for %d data files: %w", len(m.Files), len(m.Control.DataFiles), ErrDamaged)
	}
	for _, f := range m.Files {
		if f.Name == "" || f.Name != filepath.Base(f.Name) || strings.HasPrefix(f.Name, ".") || f.Size != int64(f.Pages)*int64(m.Control.PageSize) {
			return nil, fmt.Errorf("file %q of %d bytes: %w", f.Name, f.Size, ErrDamaged)
		}
	}
	return m, nil
}

// Verify reads every byte of a set and compares it with the checksums, of the
// files and of the pages in them.
func Verify(ctx context.Context, fsys vfs.FS, dir string, progress func(done, total int64)) (*Manifest, error) {
	m, err := Load(fsys, dir)
	if err != nil {
		return nil, err
	}
	var done int64
	for _, f := range m.Files {
		err := m.read(ctx, fsys, dir, f, func(b []byte, _ int64) error {
			if done += int64(len(b)); progress != nil {
				progress(done, m.bytes())
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *Manifest) bytes() (n int64) {
	for _, f := range m.Files {
		n += f.Size
	}
	return n
}

// read passes a file of the set to fn in pieces of whole pages and checks it.
func (m *Manifest) read(ctx context.Context, fsys vfs.FS, dir string, file File, fn func(b []byte, off int64) error) error {
	path := filepath.Join(dir, file.Name)
	f, err := fsys.Open(path)
	if err != nil {
		return fmt.Errorf("backup set: %w", err)
	}
	defer f.Close()
	if size, err := f.Size(); err != nil || size != file.Size {
		return fmt.Errorf("%s has %d bytes, %d were written: %w", path, size, file.Size, errors.Join(ErrDamaged, err))
	}
	ps := m.Control.PageSize
	buf := make([]byte, chunk/ps*ps)
	var sum hash.Hash = sha256.New()
	for off := int64(0); off < file.Size; {
		b := buf[:min(int64(len(buf)), file.Size-off)]
		if n, err := f.ReadAt(b, off); err != nil && !(errors.Is(err, io.EOF) && n == len(b)) {
			return fmt.Errorf("read %s: %w", path, err)
		}
		sum.Write(b)
		for i := 0; i < len(b); i += ps {
			if _, err := page.Verify(b[i : i+ps]); err != nil {
				return fmt.Errorf("%s, page %d: %w: %w", path, (off+int64(i))/int64(ps)+1, ErrDamaged, err)
			}
		}
		if err := fn(b, off); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		off += int64(len(b))
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != file.SHA256 {
		return fmt.Errorf("checksum of %s is wrong: %w", path, ErrDamaged)
	}
	return nil
}
