// Package arch owns the local archive (manual 2.2.11.1, 2.2.11.3): files that
// hold every package a database produced or received, in GSEQ order, until
// they are deleted by age, by space or on command. FORMAT.md has the byte
// tables.
//
// It keeps its part of
//   - G5: packages are taken in GSEQ and LSN order only, for one PMNT_MAGIC;
//   - G8: foreign, newer and damaged files are refused by name;
//   - G9: whatever byte a power failure cuts at, Open finds every package that
//     was synced, in order, then perhaps some that followed, and cuts off the
//     rest; damage among synced packages is an error that names file and offset,
//     at Open where it is near the end, otherwise when it is read.
//
// Files in the directory whose DB_MAGIC is another's (the same database before
// it was restored, say) are left alone. Shipping, and making the archive agree
// with the online log after a crash, is left to engine.
package arch

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sort"
	"sync/atomic"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/clock"
	"datawatch/internal/storage/redo"
	"datawatch/internal/storage/twin"
	"datawatch/internal/vfs"
)

const (
	// indexEvery is the distance of entries in a file's sparse index, in bytes.
	indexEvery = 256 << 10
	// readChunk is how much is read at a time.
	readChunk = 256 << 10
	// maxKeep is the largest write buffer kept between writes.
	maxKeep = 8 << 20
	// joinBytes is how much AppendAll joins to one write.
	joinBytes = 4 << 20
)

var (
	// ErrContinuity means a package that does not continue the archive.
	ErrContinuity = errors.New("package does not continue the archive")
	// ErrGone means packages that the archive does not have (any more).
	ErrGone = errors.New("not in the archive")
	// ErrDamaged means that packages which had been written are not readable.
	ErrDamaged = errors.New("archive file is damaged")
	// ErrForeign means a file of another group of databases, or no archive file.
	ErrForeign = errors.New("file does not belong to this archive")
	// ErrVersion means a file written by a newer program.
	ErrVersion = twin.ErrVersion
	// ErrClosed means use after Close.
	ErrClosed = errors.New("archive is closed")
)

// Config describes an archive (dmarch.ini, manual 5.3).
type Config struct {
	Dir         string        // ARCH_DEST; made when missing
	Name        string        // the section's name; not StandbyName
	FileSize    int64         // ARCH_FILE_SIZE, bytes
	SpaceLimit  int64         // ARCH_SPACE_LIMIT, bytes; 0 none
	FlushBuf    int           // ARCH_FLUSH_BUF_SIZE, bytes: Append collects up to this much before it writes; 0 writes at once
	ReserveTime time.Duration // ARCH_RESERVE_TIME; 0 for ever
	PmntMagic   base.Magic
	DBMagic     base.Magic // of the database that writes
	ReadOnly    bool       // nothing is changed, so that the database may be writing
	Clock       clock.Clock
}

// entry of a sparse index: the package gseq begins at off.
type entry struct {
	gseq base.Seq
	off  int64
}

// file is one archive file. Fields are guarded by Archive.mu.
type file struct {
	path  string
	h     header // as things are; the header on disk may be behind
	index []entry
}

// Archive is an open archive. Safe for concurrent use.
type Archive struct {
	fs  vfs.FS
	cfg Config

	hold atomic.Uint64 // GSEQ: files with this package or later ones stay; 0: none must
	// A file could not be written or made, and nothing has been written since.
	failing atomic.Bool

	mu     clock.Mutex
	closed bool
	files  []*file // by GSEQ; only the last may be open for writing
	size   int64   // bytes of all files, as far as packages go
	end    base.Position

	// The file being written; nil when the next Append makes one.
	cur     vfs.File
	twin    *twin.Header
	buf     []byte // encoded packages not yet written ...
	written int64  // ... which belong at this offset
	torn    bool   // a write failed: bytes may stand behind written
	doubt   bool   // a sync failed: what is written behind synced may never reach the disk
	synced  header // h as of the last sync: what the next header on disk may claim
	unsync  bool   // something was appended since
}

// Open opens the archive in cfg.Dir, finds where it ends and cuts off what a
// power failure left half-written.
func Open(fsys vfs.FS, cfg Config) (_ *Archive, err error) {
	switch {
	case cfg.Name == "" || cfg.Name == StandbyName || filepath.Base(cfg.Name) != cfg.Name:
		return nil, fmt.Errorf("archive name %q: it must be a plain name other than %s", cfg.Name, StandbyName)
	case cfg.FileSize <= twin.Size || cfg.SpaceLimit < 0 || cfg.FlushBuf < 0 || cfg.ReserveTime < 0:
		return nil, fmt.Errorf("archive %s: file size %d, space limit %d, buffer %d, reserve time %v: out of range",
			cfg.Name, cfg.FileSize, cfg.SpaceLimit, cfg.FlushBuf, cfg.ReserveTime)
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.Real{}
	}
	if !cfg.ReadOnly {
		if err := fsys.MkdirAll(cfg.Dir); err != nil {
			return nil, fmt.Errorf("open archive: %w", err)
		}
	}
	names, err := fsys.ReadDir(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open archive: %w", err)
	}
	a := &Archive{fs: fsys, cfg: cfg}
	defer func() {
		if err != nil && a.cur != nil {
			a.cur.Close()
		}
	}()
	for _, n := range names {
		if namePattern.MatchString(n) {
			path := filepath.Join(cfg.Dir, n)
			if err := a.adopt(path); err != nil {
				return nil, fmt.Errorf("open archive file %s: %w", path, err)
			}
		}
	}
	sort.SliceStable(a.files, func(i, j int) bool { return a.files[i].h.first < a.files[j].h.first })
	for i, f := range a.files {
		if i > 0 && f.h.first <= a.files[i-1].h.last {
			return nil, fmt.Errorf("open archive file %s: %w: packages from %d on are also in %s", f.path, ErrDamaged, f.h.first, a.files[i-1].path)
		}
		a.size += f.h.end
	}
	if n := len(a.files); n > 0 {
		a.end = base.Position{Seq: a.files[n-1].h.last, LSN: a.files[n-1].h.lastLSN}
		if err := a.resume(a.files[n-1]); err != nil {
			return nil, fmt.Errorf("open archive file %s: %w", a.files[n-1].path, err)
		}
	}
	return a, nil
}

// adopt reads the header of a file, finds its end and adds it to a.files.
func (a *Archive) adopt(path string) error {
	f, err := a.fs.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return err
	}
	_, h, err := readHeader(f)
	if size <= twin.Size && (errors.Is(err, ErrDamaged) || err == nil && h.last < h.first && h.pmnt == a.cfg.PmntMagic && h.db == a.cfg.DBMagic) {
		return a.remove(path) // being made when the power failed; it never had a package
	}
	if err != nil {
		return err
	}
	if h.pmnt != a.cfg.PmntMagic {
		return fmt.Errorf("%w: PMNT_MAGIC is %v, the database's is %v", ErrForeign, h.pmnt, a.cfg.PmntMagic)
	}
	if h.db != a.cfg.DBMagic {
		return nil
	}
	if size < h.end {
		return fmt.Errorf("%w: it has %d bytes, redo up to offset %d was written", ErrDamaged, size, h.end)
	}
	if !h.isClosed() {
		if err := a.findEnd(f, path, &h, size); err != nil {
			return err
		}
	}
	if h.last < h.first {
		return a.remove(path)
	}
	a.files = append(a.files, &file{path: path, h: h})
	return nil
}

func readHeader(f vfs.File) (*twin.Header, header, error) {
	var h header
	t, payload, err := twin.Read(f, fileKind)
	switch {
	case errors.Is(err, twin.ErrForeign):
		return nil, h, fmt.Errorf("%w: %w", ErrForeign, err)
	case errors.Is(err, twin.ErrDamaged):
		return nil, h, fmt.Errorf("%w: %w", ErrDamaged, err)
	case err != nil:
		return nil, h, err
	}
	return t, h, h.unmarshal(payload)
}

// findEnd moves h to the last whole package of an open file and cuts the file
// there. What the header on disk vouches for is not read again. The rest is
// written once more: when its sync has failed, it is in the system's cache, which
// calls it written although it may not be on disk, and no later sync would save it.
func (a *Archive) findEnd(f vfs.File, path string, h *header, size int64) error {
	if a.cfg.ReadOnly {
	} else if err := f.Sync(); err != nil { // after a killed process the end may be in the cache only
		return err
	}
	s := &scanner{f: f, path: path, at: h.end, end: size, next: h.last + 1, prev: h.lastLSN, src: h.src, pmnt: h.pmnt}
	if h.last < h.first {
		s.prev = h.prevLSN
	}
	from := h.end
	for {
		off := s.at
		p, err := s.step(true)
		if errors.Is(err, redo.ErrVersion) || err != nil && !errors.Is(err, ErrDamaged) {
			return err
		}
		if err != nil || p == nil {
			break
		}
		h.add(&p.Header, off, s.at)
	}
	if a.cfg.ReadOnly || h.end == size && from == size {
		return nil
	}
	if err := f.Truncate(h.end); err != nil {
		return err
	}
	if err := rewrite(f, from, h.end); err != nil {
		return err
	}
	return f.Sync()
}

// rewrite writes a part of a file with what it has.
func rewrite(f vfs.File, from, to int64) error {
	b := make([]byte, min(to-from, readChunk))
	for from < to {
		b = b[:min(to-from, int64(len(b)))]
		if n, err := f.ReadAt(b, from); n < len(b) {
			return errors.Join(err, io.ErrUnexpectedEOF)
		}
		if _, err := f.WriteAt(b, from); err != nil {
			return err
		}
		from += int64(len(b))
	}
	return nil
}

// add moves the end of the header behind a package.
func (h *header) add(p *redo.Header, off, end int64) {
	h.last, h.lastLSN, h.lastOff, h.end, h.lastTime = p.GSEQ, p.MaxLSN, off, end, p.TimeNs
}

// resume opens the last file for writing, unless it is closed.
func (a *Archive) resume(l *file) error {
	if l.h.isClosed() || a.cfg.ReadOnly {
		return nil
	}
	f, err := a.fs.Open(l.path)
	if err != nil {
		return err
	}
	t, _, err := readHeader(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	a.cur, a.twin, a.written, a.synced, a.torn, a.doubt = f, t, l.h.end, l.h, false, false
	return nil
}

func (a *Archive) remove(path string) error {
	if a.cfg.ReadOnly {
		return nil
	}
	if err := a.fs.Remove(path); err != nil {
		return err
	}
	return a.fs.SyncDir(a.cfg.Dir)
}

// Append adds a package; standby says that another database produced it. It
// must follow End (ErrContinuity); an empty archive takes any. It is on disk
// after the next Sync. On an error nothing was added; it can be repeated.
func (a *Archive) Append(pkg *redo.Package, standby bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.append(pkg, standby, a.cfg.FlushBuf)
}

// Failing reports whether the last attempt to write a package failed, so that
// packages may be missing that the database has. It waits for no disk.
func (a *Archive) Failing() bool { return a.failing.Load() }

// AppendAll is Append for packages that follow each other, with a write for many
// instead of one for each. It returns how many were added, all unless there is an
// error; those after them can be tried again.
func (a *Archive) AppendAll(pkgs []*redo.Package, standby bool) (n int, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, p := range pkgs {
		buf := a.cfg.FlushBuf
		if i < len(pkgs)-1 {
			buf = max(buf, joinBytes)
		}
		if err := a.append(p, standby, buf); err != nil {
			return i, err
		}
	}
	return len(pkgs), nil
}

// append adds a package and writes when more than buf bytes wait. Under mu.
func (a *Archive) append(pkg *redo.Package, standby bool, buf int) error {
	switch {
	case a.closed:
		return ErrClosed
	case pkg.PmntMagic != a.cfg.PmntMagic:
		return fmt.Errorf("archive package %d: %w: PMNT_MAGIC is %v, the archive's is %v", pkg.GSEQ, ErrForeign, pkg.PmntMagic, a.cfg.PmntMagic)
	case pkg.GSEQ == 0 || len(a.files) > 0 && (pkg.GSEQ != a.end.Seq+1 || pkg.PrevLSN != a.end.LSN):
		return fmt.Errorf("%w: package %d follows LSN %d, the archive ends at %v", ErrContinuity, pkg.GSEQ, pkg.PrevLSN, a.end)
	}
	size := int64(pkg.EncodedLen())
	if err := a.makeRoom(size); err != nil {
		a.failing.Store(true)
		return err
	}
	if err := a.nextFile(pkg, standby, size); err != nil {
		a.failing.Store(true)
		return err
	}
	f := a.files[len(a.files)-1]
	off := a.written + int64(len(a.buf))
	n := len(a.buf)
	a.buf = pkg.Encode(a.buf)
	if len(a.buf) > buf {
		if err := a.flush(); err != nil {
			a.buf = a.buf[:n]
			return err
		}
	}
	f.note(pkg.GSEQ, off)
	f.h.add(&pkg.Header, off, off+size)
	a.size += size
	a.end, a.unsync = pkg.Pos(), true
	return nil
}

// note adds to the sparse index, if it is complete up to here.
func (f *file) note(gseq base.Seq, off int64) {
	if n := len(f.index); n == 0 && off == twin.Size || n > 0 && off-f.index[n-1].off >= indexEvery {
		f.index = append(f.index, entry{gseq, off})
	}
}

// nextFile makes sure that a.cur is the file the package goes to.
func (a *Archive) nextFile(pkg *redo.Package, standby bool, size int64) error {
	var flags uint16
	if standby {
		flags = flagStandby
	}
	if a.cur != nil {
		h := &a.files[len(a.files)-1].h
		full := h.end+size > a.cfg.FileSize && h.last >= h.first
		if !full && h.src == pkg.SrcDBMagic && h.node == pkg.Node && h.flags&flagStandby == flags {
			return nil
		}
		if h.last < h.first { // made for a package that could not be written; this one belongs elsewhere
			if err := a.dropEmpty(); err != nil {
				return err
			}
		} else if err := a.closeFile(); err != nil {
			return err
		}
		if _, err := a.deleteExpired(); err != nil {
			return err
		}
	}
	name := a.cfg.Name
	if standby {
		name = StandbyName
	}
	now := a.cfg.Clock.Now()
	path := filepath.Join(a.cfg.Dir, fileName(name, pkg.SrcDBMagic, pkg.Node, now))
	for stamp := now; ; { // one file per second and name: take the next free second
		if _, err := a.fs.Stat(path); err != nil {
			break
		}
		stamp = stamp.Add(time.Second)
		path = filepath.Join(a.cfg.Dir, fileName(name, pkg.SrcDBMagic, pkg.Node, stamp))
	}
	h := header{
		pmnt: a.cfg.PmntMagic, db: a.cfg.DBMagic, src: pkg.SrcDBMagic, node: pkg.Node, flags: flags, created: now.UnixNano(),
		first: pkg.GSEQ, firstLSN: pkg.MinLSN, prevLSN: pkg.PrevLSN, last: pkg.GSEQ - 1, lastLSN: pkg.PrevLSN,
		end: twin.Size, lastOff: twin.Size,
	}
	f, t, err := a.create(path, h)
	if err != nil {
		return fmt.Errorf("create archive file %s: %w", path, err)
	}
	a.files = append(a.files, &file{path: path, h: h})
	a.size += h.end
	a.cur, a.twin, a.written, a.synced, a.torn, a.doubt = f, t, h.end, h, false, false
	return nil
}

func (a *Archive) create(path string, h header) (vfs.File, *twin.Header, error) {
	f, err := a.fs.Create(path, true)
	if err != nil {
		return nil, nil, err
	}
	t := twin.New(fileKind)
	err = t.Write(f, h.marshal())
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = a.fs.SyncDir(a.cfg.Dir)
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close(), a.fs.Remove(path))
	}
	t.Done()
	return f, t, nil
}

// dropEmpty removes the current file, which holds no package.
func (a *Archive) dropEmpty() error {
	l := a.files[len(a.files)-1]
	err := errors.Join(a.cur.Close(), a.remove(l.path))
	a.cur, a.twin = nil, nil
	a.files = a.files[:len(a.files)-1]
	a.size -= l.h.end
	if err != nil {
		return fmt.Errorf("remove archive file %s: %w", l.path, err)
	}
	return nil
}

// flush writes the buffer.
func (a *Archive) flush() error {
	if len(a.buf) == 0 {
		return nil
	}
	path := a.files[len(a.files)-1].path
	if a.torn {
		if err := a.cur.Truncate(a.written); err != nil {
			return fmt.Errorf("truncate archive file %s: %w", path, err)
		}
		a.torn = false
	}
	if _, err := a.cur.WriteAt(a.buf, a.written); err != nil {
		a.torn = true
		a.failing.Store(true)
		return fmt.Errorf("write archive file %s, offset %d: %w", path, a.written, err)
	}
	a.failing.Store(false)
	a.written += int64(len(a.buf))
	if a.buf = a.buf[:0]; cap(a.buf) > maxKeep {
		a.buf = nil
	}
	return nil
}

// Sync makes every appended package durable.
func (a *Archive) Sync() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return ErrClosed
	}
	return a.sync()
}

// sync writes, in one sync, the packages and a header that vouches for those of
// the syncs before: a header must never claim what may not have arrived.
func (a *Archive) sync() error {
	if a.cur == nil || !a.unsync {
		return nil
	}
	if err := a.flush(); err != nil {
		return err
	}
	if a.doubt {
		if err := rewrite(a.cur, a.synced.end, a.written); err != nil {
			return fmt.Errorf("write archive file %s again: %w", a.files[len(a.files)-1].path, err)
		}
	}
	if err := a.writeHeader(a.synced); err != nil {
		a.doubt = true
		return err
	}
	a.synced, a.unsync, a.doubt = a.files[len(a.files)-1].h, false, false
	return nil
}

func (a *Archive) writeHeader(h header) error {
	path := a.files[len(a.files)-1].path
	if err := a.twin.Write(a.cur, h.marshal()); err != nil {
		return fmt.Errorf("write header of archive file %s: %w", path, err)
	}
	if err := a.cur.Sync(); err != nil {
		return fmt.Errorf("sync archive file %s: %w", path, err)
	}
	a.twin.Done()
	return nil
}

// closeFile ends the current file: its header gets its end and the closed flag.
func (a *Archive) closeFile() error {
	if err := a.sync(); err != nil {
		return err
	}
	l := a.files[len(a.files)-1]
	h := l.h
	h.flags |= flagClosed
	h.closed = a.cfg.Clock.Now().UnixNano()
	if err := a.writeHeader(h); err != nil {
		return err
	}
	l.h = h
	err := a.cur.Close()
	a.cur, a.twin = nil, nil
	if err != nil {
		return fmt.Errorf("close archive file %s: %w", l.path, err)
	}
	return nil
}

// Close syncs, notes the end in the header and closes the current file, to
// which the next Open adds.
func (a *Archive) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil
	}
	err := a.sync()
	a.closed = true
	if a.cur != nil {
		if err == nil {
			err = a.writeHeader(a.synced)
		}
		err = errors.Join(err, a.cur.Close())
		a.cur = nil
	}
	return err
}
