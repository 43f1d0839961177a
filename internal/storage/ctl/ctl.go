// Package ctl owns the control file of a database, dm.ctl: who the database
// is (names, magics, OGUID, mode), which files it has, whether it was closed
// normally, and its lineage and position as of the last checkpoint. FORMAT.md
// has the byte table.
//
// It keeps its part of G8 and G9: the file is replaced whole (new file, sync,
// rename, directory sync) and has a second copy, dm.ctl.bak, replaced after it.
// A power failure at any byte leaves the file before or after the change; a
// damaged dm.ctl is made up for by the copy; a newer version or a foreign file
// is refused by name. What the values mean is left to engine.
package ctl

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/storage/page"
	"datawatch/internal/vfs"
)

const (
	// Version is the newest format this code writes: 2 while Control.Rejoin is
	// set, so that a program that does not know of it refuses the file, 1 otherwise.
	Version = 2
	// BackupSuffix makes the name of the second copy.
	BackupSuffix = ".bak"
	// MaxSize caps the file, in bytes, before it is read.
	MaxSize = 4 << 20

	newSuffix  = ".new"
	headerSize = 24
	maxFiles   = 1 << 16
	maxName    = 4096
)

var (
	// ErrDamaged means that neither the file nor its copy is whole.
	ErrDamaged = errors.New("control file is damaged")
	// ErrVersion means a control file of a newer program.
	ErrVersion = errors.New("control file is newer than this program")
	// ErrForeign means a file that is no control file.
	ErrForeign = errors.New("not a control file")
	// ErrPending means a database that was restored and must not be opened yet.
	ErrPending = errors.New("restored database is not complete")
	// ErrInvalid means values that no database can have.
	ErrInvalid = errors.New("control file has an invalid value")
)

var (
	magic      = [8]byte{'D', 'W', 'C', 'T', 'L', 0, 0, 0}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// DataFile is one file of a tablespace.
type DataFile struct {
	Tablespace uint16 `json:"tablespace"`
	File       uint16 `json:"file"`
	Path       string `json:"path"`  // relative paths are relative to the control file
	Pages      uint32 `json:"pages"` // size in pages as of the checkpoint
}

// Control is the content of the control file. It is a value: copy it, change
// the copy, Save.
type Control struct {
	DBName    string     `json:"db_name"`
	PageSize  int        `json:"page_size"` // bytes
	PmntMagic base.Magic `json:"pmnt_magic"`
	DBMagic   base.Magic `json:"db_magic"`
	OGUID     uint32     `json:"oguid"` // 0: not in a watcher group
	Mode      base.Mode  `json:"mode"`
	DataFiles []DataFile `json:"data_files"`
	// Clean: closed normally, the data files are complete.
	Clean bool `json:"clean"`
	// Lineage holds the open records as of the checkpoint; later ones are in the log.
	Lineage base.Lineage `json:"lineage"`
	// Position is where the checkpoint stands in the group's redo.
	Position base.Position `json:"position"`
	// Base is the position of the backup this database was restored from; zero when it was not.
	Base    base.Position `json:"base"`
	Created time.Time     `json:"created"`
	// Pending names the dmrman statement that a restored database still needs
	// before it may be opened: PendingRestore, PendingMagic, or "".
	Pending string `json:"pending,omitempty"`
	// Rejoin is set while the database is being made a standby again with pages
	// of another; nil: it is whole.
	Rejoin *Rejoin `json:"rejoin,omitempty"`

	// Generation counts saves; Save sets it.
	Generation uint64 `json:"-"`
	// FromCopy is set by Load when the file itself was missing or damaged: Damage
	// says how, and the copy may be one save behind.
	FromCopy bool  `json:"-"`
	Damage   error `json:"-"`
}

// Values of Control.Pending.
const (
	PendingRestore = "RESTORE DATABASE"                     // a restore was cut off
	PendingMagic   = "RECOVER DATABASE ... UPDATE DB_MAGIC" // the database still has the DB_MAGIC of another
)

// Rejoin says how far a database has come that gives up the redo which its new
// primary is without (docs/decisions/0008): its pages are taken from there as of
// one LSN, its redo ends before.
type Rejoin struct {
	// Fork is the last position in common: the online log and the archive end there.
	Fork base.Position `json:"fork"`
	// Whole is the position that the pages were taken at, under the open records
	// Lineage. Before redo has been replayed up to it nothing may be read, and no
	// other history be followed.
	Whole   base.Position `json:"whole"`
	Lineage base.Lineage  `json:"lineage"`
	Primary string        `json:"primary"` // instance the pages are of
	Surplus string        `json:"surplus"` // file with the redo given up
	// Graft describes the file of pages that must be put into the data file before
	// anything else; nil: that has been done.
	Graft *Graft `json:"graft,omitempty"`
}

// Graft describes a graft file (package graft), complete and synced.
type Graft struct {
	File  string   `json:"file"`  // base name, beside the control file
	Size  int64    `json:"size"`  // bytes
	Sum   uint32   `json:"sum"`   // CRC-32C of the file
	Pages uint32   `json:"pages"` // of the database at Whole
	Count uint32   `json:"count"` // pages in the file
	LSEQ  base.Seq `json:"lseq"`  // of the last package of the online log that is given up
}

func (r *Rejoin) clone() *Rejoin {
	if r == nil {
		return nil
	}
	d := *r
	d.Lineage = cloneLineage(r.Lineage)
	if r.Graft != nil {
		g := *r.Graft
		d.Graft = &g
	}
	return &d
}

func cloneLineage(l base.Lineage) base.Lineage {
	d := append(base.Lineage(nil), l...)
	for i := range d {
		d[i].Apply = append([]base.Position(nil), l[i].Apply...)
	}
	return d
}

// Clone returns a copy that shares nothing with c.
func (c *Control) Clone() Control {
	d := *c
	d.Rejoin = c.Rejoin.clone()
	d.DataFiles = append([]DataFile(nil), c.DataFiles...)
	d.Lineage = cloneLineage(c.Lineage)
	return d
}

// Validate reports the first value that no database can have, as ErrInvalid.
func (c *Control) Validate() error {
	bad := func(format string, a ...any) error {
		return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, a...))
	}
	switch {
	case !page.ValidSize(c.PageSize):
		return bad("page size %d", c.PageSize)
	case c.DBName == "" || len(c.DBName) > maxName:
		return bad("database name of %d bytes", len(c.DBName))
	case c.PmntMagic == 0 || c.DBMagic == 0:
		return bad("PMNT_MAGIC %v, DB_MAGIC %v", c.PmntMagic, c.DBMagic)
	case c.Mode > base.ModeStandby:
		return bad("mode %d", c.Mode)
	case len(c.DataFiles) == 0 || len(c.DataFiles) > maxFiles:
		return bad("%d data files", len(c.DataFiles))
	case len(c.Lineage) > base.MaxOpenRecords:
		return bad("%d open records, at most %d", len(c.Lineage), base.MaxOpenRecords)
	}
	if r := c.Rejoin; r != nil {
		switch {
		case r.Fork.LSN == 0 || r.Whole.LSN < r.Fork.LSN || len(r.Lineage) == 0 || len(r.Lineage) > base.MaxOpenRecords:
			return bad("rejoin from %v to %v with %d open records", r.Fork, r.Whole, len(r.Lineage))
		case r.Graft != nil && (r.Graft.File == "" || filepath.Base(r.Graft.File) != r.Graft.File || r.Graft.Size <= 0 || r.Graft.Pages == 0):
			return bad("rejoin with the graft file %q of %d bytes for %d pages", r.Graft.File, r.Graft.Size, r.Graft.Pages)
		}
	}
	seen := map[[2]uint16]bool{}
	for _, f := range c.DataFiles {
		id := [2]uint16{f.Tablespace, f.File}
		if f.Path == "" || len(f.Path) > maxName || seen[id] {
			return bad("data file (%d,%d) with path %q", f.Tablespace, f.File, f.Path)
		}
		seen[id] = true
	}
	for i := 1; i < len(c.Lineage); i++ {
		if c.Lineage[i].ID <= c.Lineage[i-1].ID {
			return bad("open record %d after %d", c.Lineage[i].ID, c.Lineage[i-1].ID)
		}
	}
	return nil
}

// Marshal encodes c as a file of Generation.
func (c *Control) Marshal() ([]byte, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	body, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	b := append([]byte(nil), magic[:]...)
	version := uint16(1)
	if c.Rejoin != nil {
		version = 2
	}
	b = le.AppendUint16(b, version)
	b = le.AppendUint16(b, 0)
	b = le.AppendUint32(b, uint32(len(body)))
	b = le.AppendUint64(b, c.Generation)
	b = append(b, body...)
	b = le.AppendUint32(b, crc32.Checksum(b, castagnoli))
	if len(b) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrInvalid, len(b), MaxSize)
	}
	return b, nil
}

// Unmarshal decodes and checks a whole file. Errors are ErrDamaged, ErrVersion,
// ErrForeign or ErrInvalid, wrapped; the caller adds the path.
func Unmarshal(b []byte) (*Control, error) {
	le := binary.LittleEndian
	if len(b) < headerSize+4 {
		return nil, fmt.Errorf("%w: %d bytes", ErrDamaged, len(b))
	}
	sumOK := le.Uint32(b[len(b)-4:]) == crc32.Checksum(b[:len(b)-4], castagnoli)
	if [8]byte(b[:8]) != magic {
		if !sumOK && bytes.Count(b[:8], []byte{0}) == 8 {
			return nil, fmt.Errorf("%w: it begins with zeros", ErrDamaged)
		}
		return nil, fmt.Errorf("%w: it begins with % x", ErrForeign, b[:8])
	}
	if !sumOK {
		return nil, fmt.Errorf("%w: wrong checksum", ErrDamaged)
	}
	if v := le.Uint16(b[8:]); v > Version {
		return nil, fmt.Errorf("%w: version %d, this program knows %d", ErrVersion, v, Version)
	} else if v == 0 {
		return nil, fmt.Errorf("%w: version %d", ErrDamaged, v)
	}
	if n := le.Uint32(b[12:]); uint64(n) != uint64(len(b)-headerSize-4) {
		return nil, fmt.Errorf("%w: %d bytes of content, header says %d", ErrDamaged, len(b)-headerSize-4, n)
	}
	c := &Control{}
	d := json.NewDecoder(bytes.NewReader(b[headerSize : len(b)-4]))
	d.DisallowUnknownFields()
	if err := d.Decode(c); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if d.More() {
		return nil, fmt.Errorf("%w: something follows the content", ErrDamaged)
	}
	if v := le.Uint16(b[8:]); (v == 2) != (c.Rejoin != nil) {
		return nil, fmt.Errorf("%w: version %d with rejoin %v", ErrDamaged, v, c.Rejoin != nil)
	}
	c.Generation = le.Uint64(b[16:])
	return c, c.Validate()
}

// Load reads the control file, or its copy when the file is missing or damaged
// (FromCopy then says so). With neither file it is fs.ErrNotExist.
func Load(fsys vfs.FS, path string) (*Control, error) {
	c, err := LoadPending(fsys, path)
	if err == nil && c.Pending != "" {
		return nil, fmt.Errorf("control file %s: %w: run dmrman with %s first", path, ErrPending, c.Pending)
	}
	return c, err
}

// LoadPending is Load for the tools that complete a restored database.
func LoadPending(fsys vfs.FS, path string) (*Control, error) {
	c, err := load(fsys, path)
	if err == nil {
		return c, nil
	}
	if errors.Is(err, ErrVersion) {
		return nil, err // the copy would be older than what a newer program relies on
	}
	c, copyErr := load(fsys, path+BackupSuffix)
	switch {
	case copyErr == nil:
		c.FromCopy, c.Damage = true, err
		return c, nil
	case errors.Is(copyErr, fs.ErrNotExist):
		return nil, err
	}
	return nil, errors.Join(err, copyErr)
}

func load(fsys vfs.FS, path string) (*Control, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open control file: %w", err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, fmt.Errorf("control file %s: %w", path, err)
	}
	if size > MaxSize {
		return nil, fmt.Errorf("control file %s: %w: %d bytes, at most %d", path, ErrForeign, size, MaxSize)
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); err != nil && !(errors.Is(err, io.EOF) && n == len(b)) {
		return nil, fmt.Errorf("read control file %s: %w", path, err)
	}
	c, err := Unmarshal(b)
	if err != nil {
		return nil, fmt.Errorf("control file %s: %w", path, err)
	}
	return c, nil
}

// Save replaces the control file and then its copy. When it returns nil both
// are durable; when it fails the file has either content, whole. It increments
// Generation and clears FromCopy.
func (c *Control) Save(fsys vfs.FS, path string) error {
	n := *c
	n.Generation++
	b, err := n.Marshal()
	if err != nil {
		return fmt.Errorf("control file %s: %w", path, err)
	}
	for _, p := range []string{path, path + BackupSuffix} {
		if err := replace(fsys, p, b); err != nil {
			return fmt.Errorf("write control file %s: %w", p, err)
		}
	}
	c.Generation, c.FromCopy, c.Damage = n.Generation, false, nil
	return nil
}

func replace(fsys vfs.FS, path string, b []byte) error {
	tmp := path + newSuffix
	f, err := fsys.Create(tmp, true)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fsys.Rename(tmp, path); err != nil {
		return err
	}
	return fsys.SyncDir(filepath.Dir(path))
}
