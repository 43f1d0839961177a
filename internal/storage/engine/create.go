package engine

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"datawatch/internal/base"
	"datawatch/internal/clock"
	"datawatch/internal/storage/ctl"
	"datawatch/internal/storage/page"
	"datawatch/internal/storage/rlog"
	"datawatch/internal/vfs"
)

// DataFileName is the data file of a database, beside the control file.
const DataFileName = "SYSTEM.DBF"

// CreateConfig describes a new database.
type CreateConfig struct {
	FS       vfs.FS
	Clock    clock.Clock
	Dir      string // made when missing
	CtlPath  string
	LogPaths []string
	LogSize  int64 // bytes of each log file
	DBName   string
	PageSize int // bytes
	OGUID    uint32
	Mode     base.Mode
	// PmntMagic and DBMagic are random when 0.
	PmntMagic, DBMagic base.Magic
	// For a database made from a backup: its position and lineage, and a function
	// that fills the data file with sealed pages.
	Base    base.Position
	Lineage base.Lineage
	Fill    func(vfs.File) error
}

// NewMagic returns a random magic number.
func NewMagic() base.Magic {
	var b [4]byte
	for {
		_, _ = rand.Read(b[:]) // never fails
		if m := binary.LittleEndian.Uint32(b[:]); m != 0 {
			return base.Magic(m)
		}
	}
}

// Create makes the files of a database. The control file comes last: an
// interrupted Create leaves no database. It refuses a directory that holds one.
func Create(cfg CreateConfig) error {
	if cfg.Clock == nil {
		cfg.Clock = clock.Real{}
	}
	if !page.ValidSize(cfg.PageSize) {
		return fmt.Errorf("create database: page size %d: %w", cfg.PageSize, page.ErrSize)
	}
	if _, err := cfg.FS.Stat(cfg.CtlPath); err == nil {
		return fmt.Errorf("create database: %s: %w", cfg.CtlPath, fs.ErrExist)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("create database: %s: %w", cfg.CtlPath, err)
	}
	ctlDir := filepath.Dir(cfg.CtlPath)
	for _, d := range []string{cfg.Dir, ctlDir} {
		if err := cfg.FS.MkdirAll(d); err != nil {
			return fmt.Errorf("create database: %w", err)
		}
	}
	if cfg.PmntMagic == 0 {
		cfg.PmntMagic = NewMagic()
	}
	if cfg.DBMagic == 0 {
		cfg.DBMagic = NewMagic()
	}
	path := filepath.Join(ctlDir, DataFileName)
	pages, err := createData(cfg, path)
	if err != nil {
		return fmt.Errorf("create data file %s: %w", path, err)
	}
	for _, p := range cfg.LogPaths {
		if err := cfg.FS.MkdirAll(filepath.Dir(p)); err != nil {
			return fmt.Errorf("create database: %w", err)
		}
	}
	if err := rlog.Create(cfg.FS, cfg.LogPaths, cfg.LogSize, rlog.ID{PmntMagic: cfg.PmntMagic,
		DBMagic: cfg.DBMagic, LSN: cfg.Base.LSN}); err != nil {
		return fmt.Errorf("create database: %w", err)
	}
	c := ctl.Control{DBName: cfg.DBName, PageSize: cfg.PageSize, PmntMagic: cfg.PmntMagic, DBMagic: cfg.DBMagic,
		OGUID: cfg.OGUID, Mode: cfg.Mode, Clean: true, Lineage: cfg.Lineage, Position: cfg.Base, Base: cfg.Base,
		Created: cfg.Clock.Now(), DataFiles: []ctl.DataFile{{Path: DataFileName, Pages: pages}}}
	if err := c.Save(cfg.FS, cfg.CtlPath); err != nil {
		return fmt.Errorf("create database: %w", err)
	}
	return nil
}

func createData(cfg CreateConfig, path string) (pages uint32, err error) {
	if _, err := cfg.FS.Stat(path); err == nil {
		return 0, fs.ErrExist
	}
	f, err := cfg.FS.Create(path, true)
	if err != nil {
		return 0, err
	}
	if cfg.Fill != nil {
		err = cfg.Fill(f)
	} else {
		_, err = f.WriteAt(page.NewDatabase(cfg.PageSize), 0)
	}
	if err == nil {
		err = f.Sync()
	}
	size, serr := f.Size()
	if err = errors.Join(err, serr, f.Close()); err != nil {
		return 0, err
	}
	return uint32(size / int64(cfg.PageSize)), cfg.FS.SyncDir(filepath.Dir(path))
}
