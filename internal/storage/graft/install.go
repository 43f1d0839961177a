package graft

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"datawatch/internal/base"
	"datawatch/internal/storage/ctl"
	"datawatch/internal/storage/rlog"
	"datawatch/internal/vfs"
)

// Target is a closed database whose control file names a graft file. The caller
// holds the lock of the database.
type Target struct {
	FS       vfs.FS
	CtlPath  string
	DataPath string
	LogPaths []string
}

// newSuffix ends the names of the log files that will take the places of the old.
const newSuffix = ".new"

// Install makes the database a standby that ends at c.Rejoin.Fork: pages from the
// graft file, a new online log, the open records of up to there, Standby mode; the
// recovery that follows cuts the archive where the log ends. It returns the control file's new content, which is on disk. A
// power failure at any moment leaves c in the control file, and the next Install
// does everything again; errors name the file.
func Install(ctx context.Context, t Target, c *ctl.Control) (*ctl.Control, error) {
	r := c.Rejoin
	if r == nil || r.Graft == nil {
		return c, nil
	}
	n := c.Clone()
	// Both copies of the control file say what is being done before it begins.
	if err := n.Save(t.FS, t.CtlPath); err != nil {
		return nil, err
	}
	if err := t.pages(ctx, &n); err != nil {
		return nil, err
	}
	if err := t.log(&n); err != nil {
		return nil, err
	}
	n.Mode, n.Position, n.Clean = base.ModeStandby, r.Fork, false
	n.Lineage = upTo(n.Lineage, r)
	n.DataFiles[0].Pages = r.Graft.Pages
	n.Rejoin.Graft = nil
	if err := n.Save(t.FS, t.CtlPath); err != nil {
		return nil, err
	}
	return &n, Clean(t.FS, t.CtlPath)
}

// upTo returns the open records that are in common with the new primary's.
func upTo(l base.Lineage, r *ctl.Rejoin) base.Lineage {
	id := l.Common(r.Lineage)
	n := len(l)
	for n > 0 && l[n-1].ID > id {
		n--
	}
	return l[:n]
}

// Clean removes a graft file that no control file names.
func Clean(fsys vfs.FS, ctlPath string) error {
	if err := fsys.Remove(ctlPath + Suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove graft file: %w", err)
	}
	return nil
}

// pages writes the pages of the graft file into the data file and gives it the
// size that it has with them. A page that is torn by a power failure is written
// again by the next Install.
func (t Target) pages(ctx context.Context, c *ctl.Control) (err error) {
	path := filepath.Join(filepath.Dir(t.CtlPath), c.Rejoin.Graft.File)
	g, err := t.FS.Open(path)
	if err != nil {
		return fmt.Errorf("graft file: %w", err)
	}
	defer g.Close()
	f, err := t.FS.Open(t.DataPath)
	if err != nil {
		return fmt.Errorf("data file: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	// Copies in the doublewrite area are of pages that are given up.
	if err := t.FS.Remove(t.DataPath + ".dwb"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("doublewrite area: %w", err)
	}
	if err := t.FS.SyncDir(filepath.Dir(t.DataPath)); err != nil {
		return fmt.Errorf("doublewrite area: %w", err)
	}
	check := func(h Head) error {
		if h.PageSize != c.PageSize || h.PmntMagic != c.PmntMagic || h.Fork != c.Rejoin.Fork || h.Whole != c.Rejoin.Whole {
			return fmt.Errorf("%w: it is of PMNT_MAGIC %v, page size %d, from %v to %v", ErrDamaged, h.PmntMagic, h.PageSize, h.Fork, h.Whole)
		}
		return nil
	}
	h, err := read(g, *c.Rejoin.Graft, check, func(n uint32, data []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := f.WriteAt(data, int64(n-1)*int64(c.PageSize)); err != nil {
			return fmt.Errorf("write %s page %d: %w", t.DataPath, n, err)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("graft file %s: %w", path, err)
	}
	if err := f.Truncate(int64(h.Pages) * int64(c.PageSize)); err != nil {
		return fmt.Errorf("size of %s: %w", t.DataPath, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", t.DataPath, err)
	}
	return nil
}

// log puts an empty online log that continues at the fork in the place of the
// old one, of the same size. Files that were replaced already are replaced again.
func (t Target) log(c *ctl.Control) error {
	st, err := t.FS.Stat(t.LogPaths[0])
	if err != nil {
		return fmt.Errorf("online log: %w", err)
	}
	fresh := make([]string, len(t.LogPaths))
	for i, p := range t.LogPaths {
		fresh[i] = p + newSuffix
		if err := t.FS.Remove(fresh[i]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("online log: %w", err)
		}
	}
	id := rlog.ID{PmntMagic: c.PmntMagic, DBMagic: c.DBMagic, LSEQ: c.Rejoin.Graft.LSEQ, LSN: c.Rejoin.Fork.LSN}
	if err := rlog.Create(t.FS, fresh, st.Size(), id); err != nil {
		return err
	}
	for i, p := range t.LogPaths {
		if err := t.FS.Rename(fresh[i], p); err != nil {
			return fmt.Errorf("online log: %w", err)
		}
		if err := t.FS.SyncDir(filepath.Dir(p)); err != nil {
			return fmt.Errorf("online log: %w", err)
		}
	}
	return nil
}
