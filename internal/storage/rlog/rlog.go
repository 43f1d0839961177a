// Package rlog owns the online redo log (manual 2.2.10): two or more files of
// fixed size, written in a circle, with the checkpoint position in the header
// of file 0. FORMAT.md has the byte tables.
//
// It keeps its part of
//   - G1: Append returns only when every package is on disk, synced;
//   - G4: it says, by what Append returned, which redo is on disk;
//   - G8: a foreign, newer or mixed-up file is refused by name;
//   - G9: whatever byte a power failure cuts at, Recover yields every package
//     that was appended, in order, then perhaps the first packages of the
//     write that was under way, and nothing else; damage among packages that
//     had been appended is an error that names file and offset.
//
// The header is not written by Append. Where the log ends is found by reading
// it: a package continues the log only if its LSEQ, PrevLSN and the checksum of
// its predecessor are right, so redo that an earlier lap, a failed Append or
// another log left behind is never mistaken for it. Each package also says
// with which package its write began; since a write begins only after the one
// before is synced, a whole package of a later write behind a gap proves that
// the gap is damage and not a torn end.
//
// When to append, checkpoint and ship is left to engine.
package rlog

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"sync"

	"datawatch/internal/base"
	"datawatch/internal/clock"
	"datawatch/internal/storage/redo"
	"datawatch/internal/storage/twin"
	"datawatch/internal/vfs"
)

const (
	// MinFileSize and MaxFileSize bound a log file, in bytes, MaxFiles their number.
	MinFileSize = 64 << 10
	MaxFileSize = 1 << 40
	MaxFiles    = 100

	sectorSize = 512  // packages start at multiples of it
	blockSize  = 4096 // the operating system's page

	// maxMarkEvery bounds how far apart the places are that a checkpoint can free
	// the log up to (a checkpoint of everything frees everything).
	maxMarkEvery = 64 << 10
	// scanWindow is how far behind a torn end Recover looks for proof of damage:
	// more than one write ever holds, but for a single huge PTX.
	scanWindow = 64 << 20
	// keepBuf is the largest write buffer kept from Append to Append: of 16 MB of
	// packages, the batch of a standby, each rounded up to a sector.
	keepBuf = 20 << 20
)

var (
	// ErrFull means that there is no room until the checkpoint moves on.
	ErrFull = errors.New("online log is full")
	// ErrTooLarge means that the packages do not fit the log even when it is empty.
	ErrTooLarge = errors.New("packages are larger than the online log")
	// ErrDamaged means that redo which had been written is not readable, or a
	// header is not.
	ErrDamaged = errors.New("online log is damaged")
	// ErrForeign means a file of another database or another log.
	ErrForeign = errors.New("file does not belong to this online log")
	// ErrVersion means a file written by a newer program.
	ErrVersion = twin.ErrVersion
	// ErrContinuity means an Append that does not continue the log.
	ErrContinuity = errors.New("package does not continue the online log")
	// ErrState means Append before Recover, Recover twice, or use after Close.
	ErrState = errors.New("online log is not in a state for this")
)

// ID is what a new log is created with.
type ID struct {
	PmntMagic, DBMagic base.Magic
	LSEQ               base.Seq // of the last package before the log begins; 0 for a new database
	LSN                base.LSN // the largest LSN before the log begins; 0 for a new database
}

// Config is what Open expects of the files. Magics that are 0 are not checked.
type Config struct {
	PmntMagic, DBMagic base.Magic
}

// mark is a place between two packages: its position on the endless strip that
// the circle is cut from, and what the package there must continue.
type mark struct {
	at      int64
	next    base.Seq // LSEQ of the package there
	prevLSN base.LSN
	prevSum uint32
}

// Log is an open online log. Append, SetCheckpoint and the queries may run
// concurrently.
type Log struct {
	paths  []string
	files  []vfs.File
	hfile  vfs.File // file 0 again: its sync errors must not be mixed up with those of Append
	usable int64    // bytes per file for packages
	total  int64
	gap    int64  // least distance of marks
	static header // identity; state as read by Open

	appendMu clock.Mutex // one Append at a time
	buf      []byte
	newMarks []mark

	headerMu clock.Mutex // one header write at a time
	twin     *twin.Header

	mu      sync.Mutex // guards what follows; never held during input or output
	ready   bool       // recovered and not closed
	ckptLSN base.LSN
	ckpt    mark
	marks   []mark // between ckpt and end, ascending, at least gap apart
	end     mark
	gseq    base.Seq // of the last package, 0 when not known
	written Written
}

// Create makes the files of a new log: filled with zeros, so that later writes
// change no metadata, and synced. fileSize is in bytes (rounded down to 4 KiB,
// at least MinFileSize). Files that exist are an error (fs.ErrExist). File 0
// gets its header last: an interrupted Create leaves no log that opens.
func Create(fsys vfs.FS, paths []string, fileSize int64, id ID) error {
	return create(fsys, paths, fileSize, id, rand.Uint32())
}

func create(fsys vfs.FS, paths []string, fileSize int64, id ID, logID uint32) error {
	fileSize -= fileSize % blockSize
	if fileSize < MinFileSize || fileSize > MaxFileSize {
		return fmt.Errorf("online log file size %d: must be %d to %d bytes", fileSize, MinFileSize, int64(MaxFileSize))
	}
	if len(paths) < 1 || len(paths) > MaxFiles {
		return fmt.Errorf("%d online log files: must be 1 to %d", len(paths), MaxFiles)
	}
	h := header{
		nfiles: uint16(len(paths)), logID: logID, fileSize: fileSize, pmnt: id.PmntMagic, db: id.DBMagic,
		ckptLSN: id.LSN, ckptOffset: twin.Size, ckptLSEQ: id.LSEQ + 1, ckptPrevLSN: id.LSN, fileLSN: id.LSN, fileLSEQ: id.LSEQ,
	}
	for _, p := range paths {
		if _, err := fsys.Stat(p); err == nil {
			return fmt.Errorf("create online log: %w", &fs.PathError{Op: "create", Path: p, Err: fs.ErrExist})
		}
	}
	zeros := make([]byte, min(fileSize, 1<<20))
	for i := len(paths) - 1; i >= 0; i-- {
		h.index = uint16(i)
		if err := createFile(fsys, paths[i], zeros, h); err != nil {
			return fmt.Errorf("create online log %s: %w", paths[i], err)
		}
	}
	return nil
}

func createFile(fsys vfs.FS, path string, zeros []byte, h header) (err error) {
	f, err := fsys.Create(path, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for off := int64(0); off < h.fileSize; {
		n := min(int64(len(zeros)), h.fileSize-off)
		if _, err := f.WriteAt(zeros[:n], off); err != nil {
			return err
		}
		off += n
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := fsys.SyncDir(filepath.Dir(path)); err != nil {
		return err
	}
	if err := twin.New(fileKind).Write(f, h.marshal()); err != nil {
		return err
	}
	return f.Sync()
}

// Open opens the files of a log, in the order of Create, and checks that they
// are one log and the one expected. Recover must follow before Append.
func Open(fsys vfs.FS, paths []string, cfg Config) (_ *Log, err error) {
	if len(paths) == 0 {
		return nil, errors.New("open online log: no files named")
	}
	l := &Log{paths: append([]string(nil), paths...)}
	defer func() {
		if err != nil {
			l.closeFiles()
		}
	}()
	for i, p := range paths {
		f, err := fsys.Open(p)
		if err != nil {
			return nil, fmt.Errorf("open online log: %w", err)
		}
		l.files = append(l.files, f)
		t, h, err := readHeader(f)
		if err != nil {
			return nil, fmt.Errorf("open online log %s: %w", p, err)
		}
		if i == 0 {
			l.twin, l.static = t, h
		}
		if err := l.checkFile(i, h, cfg); err != nil {
			return nil, fmt.Errorf("open online log %s: %w", p, err)
		}
	}
	if l.hfile, err = fsys.Open(paths[0]); err != nil {
		return nil, fmt.Errorf("open online log: %w", err)
	}
	h := &l.static
	l.usable = h.fileSize - twin.Size
	l.total = l.usable * int64(len(paths))
	l.gap = min(max(l.total/256, sectorSize), maxMarkEvery)
	l.ckptLSN, l.gseq = h.ckptLSN, h.fileGSEQ
	l.ckpt = mark{at: int64(h.ckptFile)*l.usable + h.ckptOffset - twin.Size, next: h.ckptLSEQ, prevLSN: h.ckptPrevLSN, prevSum: h.ckptPrevSum}
	l.end = l.ckpt
	return l, nil
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

func (l *Log) checkFile(i int, h header, cfg Config) error {
	size, err := l.files[i].Size()
	if err != nil {
		return err
	}
	switch {
	case cfg.PmntMagic != 0 && h.pmnt != cfg.PmntMagic:
		return fmt.Errorf("%w: PMNT_MAGIC is %v, the database's is %v", ErrForeign, h.pmnt, cfg.PmntMagic)
	case cfg.DBMagic != 0 && h.db != cfg.DBMagic:
		return fmt.Errorf("%w: DB_MAGIC is %v, the database's is %v", ErrForeign, h.db, cfg.DBMagic)
	case h.logID != l.static.logID || h.db != l.static.db || h.fileSize != l.static.fileSize || h.nfiles != l.static.nfiles:
		return fmt.Errorf("%w: it is of another log than %s", ErrForeign, l.paths[0])
	case int(h.index) != i || int(h.nfiles) != len(l.paths):
		return fmt.Errorf("%w: it is file %d of %d, named as file %d of %d", ErrForeign, h.index, h.nfiles, i, len(l.paths))
	case size < h.fileSize:
		return fmt.Errorf("%w: it has %d bytes of %d", ErrDamaged, size, h.fileSize)
	}
	return nil
}

// place translates a position on the strip to file and offset.
func (l *Log) place(at int64) (file int, off int64) {
	return int(at / l.usable % int64(len(l.paths))), at%l.usable + twin.Size
}

// where names a position for errors.
func (l *Log) where(at int64) string {
	f, off := l.place(at)
	return fmt.Sprintf("%s, offset %d", l.paths[f], off)
}

// each calls fn for the pieces of b that lie in one file.
func (l *Log) each(at int64, b []byte, fn func(file int, off int64, piece []byte) error) error {
	for len(b) > 0 {
		file, off := l.place(at)
		n := min(int64(len(b)), l.static.fileSize-off)
		if err := fn(file, off, b[:n]); err != nil {
			return err
		}
		at, b = at+n, b[n:]
	}
	return nil
}

func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }

// Append writes the packages, one after the other, with one write and one sync
// (two when they cross the end of a file), and returns when they are on disk.
// They must continue the log: LSEQ, PrevLSN and magics are checked, which is
// ErrContinuity. ErrFull: nothing was written; move the checkpoint and repeat.
// After any other error (disk full, input/output) the packages may or may not
// be found by Recover, from the first one on; another Append may follow and
// takes their place.
func (l *Log) Append(pkgs ...*redo.Package) error {
	if len(pkgs) == 0 {
		return nil
	}
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	l.mu.Lock()
	ready, ckpt, end := l.ready, l.ckpt.at, l.end
	lastMark := l.lastMark()
	l.mu.Unlock()
	if !ready {
		return fmt.Errorf("append: %w", ErrState)
	}
	need, add := int64(0), Written{Packages: int64(len(pkgs))}
	for _, p := range pkgs {
		need += roundUp(int64(p.EncodedLen()), sectorSize)
		add.Bytes += int64(p.EncodedLen())
		add.PTX += int64(p.NPTX)
	}
	switch {
	case need > l.total:
		return fmt.Errorf("%w: %d bytes, the log holds %d", ErrTooLarge, need, l.total)
	case end.at+need > ckpt+l.total:
		return fmt.Errorf("%w: %d bytes needed, %d free", ErrFull, need, ckpt+l.total-end.at)
	}
	start, batch := end.at, end.next
	newMarks := l.newMarks[:0]
	b := l.buf[:0]
	if room := need + blockSize; int64(cap(b)) < room { // grown step by step it would be copied as often
		b = make([]byte, 0, room)
	}
	for _, p := range pkgs {
		if err := l.continues(p, end); err != nil {
			return err
		}
		if end.at-lastMark >= l.gap {
			newMarks, lastMark = append(newMarks, end), end.at
		}
		var sum uint32
		b, sum = p.EncodeLog(b, redo.LogMark{PrevSum: end.prevSum, LogID: l.static.logID, BatchSeq: batch})
		b = pad(b, sectorSize)
		end = mark{at: start + int64(len(b)), next: p.LSEQ + 1, prevLSN: p.MaxLSN, prevSum: sum}
	}
	// A block that was not touched before is written whole: the system need not
	// read it from disk to fill the rest in.
	if full := roundUp(end.at, blockSize); full <= ckpt+l.total && end.at/blockSize != start/blockSize {
		b = append(b, zeroBlock[:full-end.at]...)
	}
	l.newMarks = newMarks
	if cap(b) <= keepBuf {
		l.buf = b
	}
	if err := l.write(start, b); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.marks = append(l.marks, newMarks...)
	l.end = end
	l.gseq = pkgs[len(pkgs)-1].GSEQ
	l.written.Packages += add.Packages
	l.written.Bytes += add.Bytes
	l.written.PTX += add.PTX
	return nil
}

func (l *Log) continues(p *redo.Package, end mark) error {
	switch {
	case p.LSEQ != end.next:
		return fmt.Errorf("%w: LSEQ %d, expected %d", ErrContinuity, p.LSEQ, end.next)
	case p.PrevLSN != end.prevLSN:
		return fmt.Errorf("%w: LSEQ %d follows LSN %d, the log ends at %d", ErrContinuity, p.LSEQ, p.PrevLSN, end.prevLSN)
	case p.DBMagic != l.static.db || p.PmntMagic != l.static.pmnt:
		return fmt.Errorf("%w: LSEQ %d has PMNT_MAGIC %v and DB_MAGIC %v, the log %v and %v",
			ErrContinuity, p.LSEQ, p.PmntMagic, p.DBMagic, l.static.pmnt, l.static.db)
	}
	return nil
}

var zeroBlock [blockSize]byte

// lastMark is the position of the newest mark; l.mu is held.
func (l *Log) lastMark() int64 {
	if n := len(l.marks); n > 0 {
		return l.marks[n-1].at
	}
	return l.ckpt.at
}

// pad appends zeros up to a multiple of unit.
func pad(b []byte, unit int64) []byte {
	if rest := int64(len(b)) % unit; rest != 0 {
		b = append(b, zeroBlock[:unit-rest]...)
	}
	return b
}

// write puts b on disk at a position of the strip.
func (l *Log) write(at int64, b []byte) error {
	var touched [MaxFiles]bool
	err := l.each(at, b, func(file int, off int64, piece []byte) error {
		touched[file] = true
		if _, err := l.files[file].WriteAt(piece, off); err != nil {
			return fmt.Errorf("write online log %s, offset %d: %w", l.paths[file], off, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, f := range l.files {
		if touched[i] {
			if err := f.Sync(); err != nil {
				return fmt.Errorf("sync online log %s: %w", l.paths[i], err)
			}
		}
	}
	return nil
}
