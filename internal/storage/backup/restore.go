package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/clock"
	"datawatch/internal/storage/arch"
	"datawatch/internal/storage/ctl"
	"datawatch/internal/storage/engine"
	"datawatch/internal/storage/page"
	"datawatch/internal/storage/pagestore"
	"datawatch/internal/storage/redo"
	"datawatch/internal/storage/rlog"
	"datawatch/internal/vfs"
)

var (
	// ErrInUse means that a server runs on the database.
	ErrInUse = errors.New("database is in use: stop it first")
	// ErrState means a step that is not due.
	ErrState = errors.New("not possible in this state of the database")
)

// DefaultLogSize is the size of an online log file when there is none to
// replace, in bytes.
const DefaultLogSize = 256 << 20

// Target is a stopped database that is restored or completed.
type Target struct {
	Dir      string // holds the lock file
	CtlPath  string
	LogPaths []string
	ArchDir  string // local archive; "" when none is configured
	LogSize  int64  // bytes of an online log file when there is none to replace; 0 DefaultLogSize
}

// lock keeps servers and other tools away.
func (t Target) lock(fsys vfs.FS) (io.Closer, error) {
	if err := fsys.MkdirAll(t.Dir); err != nil {
		return nil, err
	}
	path := filepath.Join(t.Dir, engine.LockName)
	l, err := fsys.Lock(path)
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrInUse, err)
	}
	return l, nil
}

func (t Target) data(c *ctl.Control, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(t.CtlPath), path)
}

// Online writes a set from a running database, or from one in Mount.
func Online(ctx context.Context, fsys vfs.FS, e *engine.Engine, opt Options) (*Manifest, error) {
	b, err := e.BeginBackup()
	if err != nil {
		return nil, fmt.Errorf("backup to %s: %w", opt.Dir, err)
	}
	defer b.Close()
	df := b.Control.DataFiles[0]
	src := Source{Control: b.Control, Position: b.Position, Files: []FileSource{
		{Tablespace: df.Tablespace, File: df.File, Pages: b.Pages(), ReadPage: b.ReadPage}}}
	src.Control.DataFiles[0].Pages = b.Pages()
	return Write(ctx, fsys, src, opt)
}

// Restore puts the content of a set in the place of a database. The set is
// verified whole before anything changes. The result has PMNT_MAGIC, position
// and lineage of the set and may not be opened before UpdateMagic.
func Restore(ctx context.Context, fsys vfs.FS, dir string, t Target, now time.Time, progress func(done, total int64)) (*Manifest, error) {
	m, err := Verify(ctx, fsys, dir, nil)
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	l, err := t.lock(fsys)
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	defer l.Close()
	c := m.Control.Clone()
	c.Clean, c.Position, c.Base, c.Created, c.Pending = true, m.Position, m.Position, now, ctl.PendingRestore
	for i := range c.DataFiles {
		if p := c.DataFiles[i].Path; filepath.IsAbs(p) {
			c.DataFiles[i].Path = filepath.Base(p)
		}
	}
	if err := fsys.MkdirAll(filepath.Dir(t.CtlPath)); err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	if err := c.Save(fsys, t.CtlPath); err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	var done int64
	for i, f := range m.Files {
		path := t.data(&c, c.DataFiles[i].Path)
		err := copyFile(ctx, fsys, m, dir, f, path, func(n int64) {
			if done += n; progress != nil {
				progress(done, m.bytes())
			}
		})
		if err != nil {
			return nil, fmt.Errorf("restore %s: %w", path, err)
		}
		c.DataFiles[i].Pages = f.Pages
	}
	c.Pending = ctl.PendingMagic
	if err := c.Save(fsys, t.CtlPath); err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	return m, nil
}

// copyFile writes a file of the set to path, without the doublewrite area that
// the database before it may have left there.
func copyFile(ctx context.Context, fsys vfs.FS, m *Manifest, dir string, file File, path string, wrote func(int64)) (err error) {
	if err := remove(fsys, path+".dwb"); err != nil {
		return err
	}
	if err := fsys.MkdirAll(filepath.Dir(path)); err != nil {
		return err
	}
	w, err := fsys.Create(path, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	err = m.read(ctx, fsys, dir, file, func(b []byte, off int64) error {
		wrote(int64(len(b)))
		_, err := w.WriteAt(b, off)
		return err
	})
	if err == nil {
		err = w.Sync()
	}
	if err == nil {
		err = fsys.SyncDir(filepath.Dir(path))
	}
	return err
}

func remove(fsys vfs.FS, path string) error {
	if err := fsys.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// pending loads the control file of a restored database.
func (t Target) pending(fsys vfs.FS) (*ctl.Control, error) {
	c, err := ctl.LoadPending(fsys, t.CtlPath)
	if err != nil {
		return nil, err
	}
	if c.Pending == ctl.PendingRestore {
		return nil, fmt.Errorf("%w: a restore was cut off, run RESTORE DATABASE again", ErrState)
	}
	return c, nil
}

// RecoverFromSet completes a restore from the set it was made from. A set is
// consistent in itself, so this verifies what was restored.
func RecoverFromSet(ctx context.Context, fsys vfs.FS, dir string, t Target) (*Manifest, error) {
	m, err := Load(fsys, dir)
	if err != nil {
		return nil, fmt.Errorf("recover: %w", err)
	}
	l, err := t.lock(fsys)
	if err != nil {
		return nil, fmt.Errorf("recover: %w", err)
	}
	defer l.Close()
	c, err := t.pending(fsys)
	if err != nil {
		return nil, fmt.Errorf("recover: %w", err)
	}
	if c.Pending != ctl.PendingMagic {
		return nil, fmt.Errorf("recover: %w: the database was not restored, or is complete", ErrState)
	}
	if c.PmntMagic != m.Control.PmntMagic || c.Base != m.Position {
		return nil, fmt.Errorf("recover: database was restored to %v of PMNT_MAGIC %v, the set is %v of %v: %w", c.Base, c.PmntMagic, m.Position, m.Control.PmntMagic, ErrForeign)
	}
	if c.Position != c.Base {
		return m, nil // archives were applied since; the pages have moved on
	}
	for i, f := range m.Files {
		path := t.data(c, c.DataFiles[i].Path)
		if err := sumFile(ctx, fsys, path, f); err != nil {
			return nil, fmt.Errorf("recover: %w: restore again", err)
		}
	}
	return m, nil
}

func sumFile(ctx context.Context, fsys vfs.FS, path string, want File) error {
	f, err := fsys.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, &ctxReader{ctx, io.NewSectionReader(f, 0, want.Size)}); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if size, err := f.Size(); err != nil || size != want.Size || hex.EncodeToString(sum.Sum(nil)) != want.SHA256 {
		return fmt.Errorf("%s is not what the set holds: %w", path, errors.Join(ErrDamaged, err))
	}
	return nil
}

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *ctxReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}

// RecoverWithArchive brings a restored database forward with the packages of an
// archive directory (manual 6.14), of this or of another database of its group, and
// returns where it was and is. Packages that it has are skipped; a gap or another
// lineage is refused.
func RecoverWithArchive(ctx context.Context, fsys vfs.FS, archDir string, t Target, ck clock.Clock) (was, pos base.Position, err error) {
	fail := func(err error) (base.Position, base.Position, error) {
		return was, pos, fmt.Errorf("recover with archive %s: %w", archDir, err)
	}
	if _, err := fsys.ReadDir(archDir); err != nil {
		return fail(err)
	}
	l, err := t.lock(fsys)
	if err != nil {
		return fail(err)
	}
	defer l.Close()
	c, err := t.pending(fsys)
	if err != nil {
		return fail(err)
	}
	if c.Pending != ctl.PendingMagic {
		return fail(fmt.Errorf("%w: the database was not restored, or is complete", ErrState))
	}
	was, pos = c.Position, c.Position
	a, err := continuing(fsys, archDir, c, ck)
	if err != nil {
		return fail(err)
	}
	if a == nil {
		return was, pos, nil
	}
	defer a.Close()
	df := c.DataFiles[0]
	s, err := pagestore.Open(fsys, t.data(c, df.Path), pagestore.Options{PageSize: c.PageSize, Tablespace: df.Tablespace, File: df.File, LSN: pos.LSN,
		Now: func() int64 { return ck.Now().UnixNano() }})
	if err != nil {
		return fail(err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	// Until the end the pages may be ahead of the control file.
	c.Clean = false
	if err := c.Save(fsys, t.CtlPath); err != nil {
		return fail(err)
	}
	lineage := c.Lineage
	// In the middle of a large transaction the data has nothing of it: the
	// database is then where that begins.
	var chain base.LSN
	var whole base.Position
	save := func() error {
		s.SetHardened(pos.LSN)
		if _, err := s.Checkpoint(ctx, pos.LSN); err != nil {
			return err
		}
		if c.Position, c.Lineage = pos, lineage; chain != 0 {
			c.Position = whole
		}
		c.DataFiles[0].Pages = s.Pages()
		return c.Save(fsys, t.CtlPath)
	}
	err = a.Read(ctx, pos.Seq+1, func(p *redo.Package) error {
		if p.GSEQ != pos.Seq+1 || p.PrevLSN != pos.LSN || p.PmntMagic != c.PmntMagic {
			return fmt.Errorf("package %d after LSN %d does not continue %v: %w", p.GSEQ, p.PrevLSN, pos, ErrForeign)
		}
		before := chain
		if lineage, chain, err = apply(s, p, lineage, chain); err != nil {
			return err
		}
		if chain != before && chain != 0 {
			whole = pos
		}
		pos = p.Pos()
		if s.Stats().VersionBytes > chunk*64 {
			return save()
		}
		return nil
	})
	if err != nil {
		return fail(err)
	}
	c.Clean = true
	if err := save(); err != nil {
		return fail(err)
	}
	return was, c.Position, nil
}

// continuing opens the archive of a directory that goes on where a restored
// database ends: its own, or that of the one other database which has what follows.
// nil: no archive there goes further.
func continuing(fsys vfs.FS, dir string, c *ctl.Control, ck clock.Clock) (_ *arch.Archive, err error) {
	writers, err := arch.Writers(fsys, dir, c.PmntMagic)
	if err != nil {
		return nil, err
	}
	if len(writers) == 0 {
		return nil, fmt.Errorf("it holds no archive file: %w", arch.ErrGone)
	}
	var fit []*arch.Archive
	var names []string
	var further base.Position
	defer func() {
		for _, a := range fit {
			err = errors.Join(err, a.Close())
		}
	}()
	for _, w := range writers {
		a, err := arch.Open(fsys, arch.Config{Dir: dir, Name: "RECOVER", FileSize: 64 << 20, PmntMagic: c.PmntMagic, DBMagic: w, Clock: ck, ReadOnly: true})
		if err != nil {
			return nil, err
		}
		fit, names = append(fit, a), append(names, w.String())
		end := a.End()
		switch {
		case c.Position.Less(end) && a.Has(c.Position.Seq+1):
			if w != c.DBMagic {
				continue
			}
			fit = fit[:len(fit)-1]
			return a, nil
		case further.Less(end):
			further = end
		}
		fit, names = fit[:len(fit)-1], names[:len(names)-1]
		if err := a.Close(); err != nil {
			return nil, err
		}
	}
	switch {
	case len(fit) == 1:
		a := fit[0]
		fit = nil
		return a, nil
	case len(fit) > 1:
		return nil, fmt.Errorf("archives of several databases go on from %v, DB_MAGIC %s: put the files of one into a directory of their own", c.Position, strings.Join(names, " and "))
	case c.Position.Less(further):
		return nil, fmt.Errorf("it lacks packages between %v and its end %v: %w", c.Position, further, arch.ErrGone)
	}
	return nil, nil
}

// apply replays a package whose lineage must be that of the database (G5). chain
// is the first part of a large transaction that is open before and, returned, after it.
func apply(s *pagestore.Store, p *redo.Package, lineage base.Lineage, chain base.LSN) (base.Lineage, base.LSN, error) {
	next, b := lineage, s.NewBatch()
	for x, err := range p.PTXs() {
		if err == nil {
			chain, err = redo.ChainAfter(chain, x.Kind, x.LSN)
		}
		if err == nil {
			err = b.Add(x, func(r redo.Record) error {
				var o base.OpenRecord
				if err := json.Unmarshal(r.Payload, &o); err != nil {
					return fmt.Errorf("open record: %w", err)
				}
				if o.ID != next.Last().ID+1 {
					return fmt.Errorf("open record %d after %d: %w", o.ID, next.Last().ID, ErrForeign)
				}
				next = next.Append(o)
				return nil
			})
		}
		if err != nil {
			return nil, 0, err
		}
	}
	if p.OpenID != next.Last().ID {
		return nil, 0, fmt.Errorf("package %d was made under open record %d, the database has %d: %w", p.GSEQ, p.OpenID, next.Last().ID, ErrForeign)
	}
	if err := s.ApplyBatch(b, b.Len()); err != nil {
		return nil, 0, err
	}
	return next, chain, nil
}

// UpdateMagic gives a database its own DB_MAGIC and new online logs that
// continue at its position; after it the database may be opened. A local
// archive left by the database that was there before is moved aside.
func UpdateMagic(ctx context.Context, fsys vfs.FS, t Target) (base.Magic, error) {
	fail := func(err error) (base.Magic, error) { return 0, fmt.Errorf("update DB_MAGIC: %w", err) }
	l, err := t.lock(fsys)
	if err != nil {
		return fail(err)
	}
	defer l.Close()
	c, err := t.pending(fsys)
	if err != nil {
		return fail(err)
	}
	if !c.Clean && c.Pending != "" {
		return fail(fmt.Errorf("%w: a recovery with an archive was cut off, run it again", ErrState))
	}
	if c.Rejoin != nil {
		return fail(fmt.Errorf("%w: it rejoins its group and has to replay up to %v of %s first", ErrState, c.Rejoin.Whole, c.Rejoin.Primary))
	}
	if !c.Clean {
		return fail(fmt.Errorf("%w: it was not closed normally, start and stop it first", ErrState))
	}
	size := t.LogSize
	if st, err := fsys.Stat(t.LogPaths[0]); err == nil && st.Size() >= rlog.MinFileSize {
		size = st.Size()
	} else if size == 0 {
		size = DefaultLogSize
	}
	// From here to the end the old online log is gone: whoever is cut off must
	// come back here.
	if c.Pending == "" {
		c.Pending = ctl.PendingMagic
		if err := c.Save(fsys, t.CtlPath); err != nil {
			return fail(err)
		}
	}
	if err := setAside(fsys, t.ArchDir); err != nil {
		return fail(err)
	}
	magic := engine.NewMagic()
	for magic == c.DBMagic {
		magic = engine.NewMagic()
	}
	// The new logs take the place of the old ones whole, so that their size is
	// known however often this is cut off.
	fresh := make([]string, len(t.LogPaths))
	for i, p := range t.LogPaths {
		fresh[i] = p + ".new"
		if err := remove(fsys, fresh[i]); err != nil {
			return fail(err)
		}
		if err := fsys.MkdirAll(filepath.Dir(p)); err != nil {
			return fail(err)
		}
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	if err := rlog.Create(fsys, fresh, size, rlog.ID{PmntMagic: c.PmntMagic, DBMagic: magic, LSN: c.Position.LSN}); err != nil {
		return fail(err)
	}
	for i, p := range t.LogPaths {
		if err := fsys.Rename(fresh[i], p); err != nil {
			return fail(err)
		}
		if err := fsys.SyncDir(filepath.Dir(p)); err != nil {
			return fail(err)
		}
	}
	c.DBMagic, c.Pending = magic, ""
	if err := c.Save(fsys, t.CtlPath); err != nil {
		return fail(err)
	}
	return magic, nil
}

// setAside renames an archive directory that holds files to "NAME.old1", so
// that the archive of another database is neither mixed up nor lost.
func setAside(fsys vfs.FS, dir string) error {
	if dir == "" {
		return nil
	}
	names, err := fsys.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(names) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	for n := 1; ; n++ {
		to := fmt.Sprintf("%s.old%d", filepath.Clean(dir), n)
		if _, err := fsys.Stat(to); err == nil {
			continue
		}
		if err := fsys.MkdirAll(to); err != nil {
			return err
		}
		for _, name := range names {
			if err := fsys.Rename(filepath.Join(dir, name), filepath.Join(to, name)); err != nil {
				return err
			}
		}
		return errors.Join(fsys.SyncDir(to), fsys.SyncDir(dir), fsys.SyncDir(filepath.Dir(to)))
	}
}

// CheckData reads every page of a stopped database's data files. A running
// one is refused: its pages are being written.
func CheckData(ctx context.Context, fsys vfs.FS, t Target) (pages int64, err error) {
	l, err := t.lock(fsys)
	if err != nil {
		return 0, err
	}
	defer l.Close()
	c, err := ctl.LoadPending(fsys, t.CtlPath)
	if err != nil {
		return 0, err
	}
	buf := make([]byte, c.PageSize)
	for _, df := range c.DataFiles {
		path := t.data(c, df.Path)
		f, err := fsys.Open(path)
		if err != nil {
			return pages, err
		}
		size, err := f.Size()
		for off := int64(0); err == nil && off+int64(len(buf)) <= size; off += int64(len(buf)) {
			if _, err = f.ReadAt(buf, off); err == nil {
				if _, err = page.Verify(buf); err != nil {
					err = fmt.Errorf("%s, page %d: %w", path, off/int64(len(buf))+1, err)
				}
			}
			pages++
			if ctx.Err() != nil {
				err = ctx.Err()
			}
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return pages, err
		}
	}
	return pages, nil
}
