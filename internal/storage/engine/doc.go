// Package engine is one database: control file, page store, online log, local
// archive, the flusher that makes commits safe, the checkpointer, and the
// database's mode and status (manual 2.2.3, 2.2.4).
//
// It keeps
//   - G1: a commit is acknowledged (WaitHardened) only after its package was
//     shipped to every Valid realtime archive, is synced in the online log, and
//     was shipped to every Valid timely archive; a failure suspends;
//   - G3: the Shipper is asked once more at the very moment of release, because
//     the process may have stood still since the answers came;
//   - G2, with pagestore: what readers see moves only by hardened packages;
//   - G4: checkpoints go to hardened LSNs, and the log is freed only after the
//     data file, the archive and the control file are synced;
//   - G5: LogForeign checks position and lineage before anything changes;
//   - G6, with pagestore: visible states are ends of packages;
//   - G9: Open recovers everything acknowledged or names the damaged file.
//
// Which archives are Valid, how packages travel, and what the watcher decides
// is left to its Shipper and to the callers of OpenDatabase and Suspend.
package engine

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/clock"
	"datawatch/internal/storage/pagestore"
	"datawatch/internal/storage/redo"
	"datawatch/internal/vfs"
)

var (
	// ErrClosed means that the database is shutting down or closed.
	ErrClosed = errors.New("database is closed")
	// ErrHalted means that a disk failed; the text says which write.
	ErrHalted = errors.New("database is halted")
	// ErrNotOpen means that the status does not allow changing data.
	ErrNotOpen = errors.New("database is not open")
	// ErrReadOnly means a write to a Standby database.
	ErrReadOnly = errors.New("database is in Standby mode, read only")
	// ErrStatus means an operation that the status or mode does not allow (manual 2.2.4).
	ErrStatus = errors.New("not allowed in this status")
	// ErrSuspended means that the database is in status Suspend; the text says why.
	ErrSuspended = errors.New("database is suspended")
	// ErrTooLarge means a transaction that the online log cannot hold, as it must
	// where there is no local archive, or a package larger than the log.
	ErrTooLarge = errors.New("transaction is larger than the online log allows")
	// ErrPosition means packages that do not continue this database (G5).
	ErrPosition = errors.New("package does not continue this database")
	// ErrLineage means packages of another line of openings (G5).
	ErrLineage = errors.New("package is of another lineage")
	// ErrRejoin means that the database has been given up for a rejoin, which the
	// next Open completes.
	ErrRejoin = errors.New("the database rejoins its group: it has to be opened anew")
	// ErrForeign means packages or files of another database.
	ErrForeign = errors.New("belongs to another database")
)

// Config says how a database is opened. FS, Dir, CtlPath and LogPaths are required.
type Config struct {
	FS          vfs.FS
	Clock       clock.Clock  // nil: clock.Real
	Log         *slog.Logger // nil: discarded
	Dir         string       // holds the lock file
	CtlPath     string
	LogPaths    []string
	BufferBytes int64 // clean-page cache; 0: pagestore.DefaultBuffer
	InstName    string
	Compress    bool // packages
	// Replayers is how many goroutines replay redo, on a standby and after a crash
	// (REDOS_PARALLEL_NUM); 0: 1.
	Replayers          int
	CheckpointInterval time.Duration // 0: 30 s
	Arch               *ArchConfig   // nil: no local archive (ARCH_INI = 0)
	OnHalt             func(error)   // called once, on its own goroutine
	MaxPackage         int           // bytes of redo in one package; 0: 4 MiB, and at most a quarter of the log
	RedoBuffer         int           // bytes of redo waiting for the flusher before writers wait; 0: 32 MiB
	DirtyBytes         int64         // page versions that trigger a checkpoint; 0: 128 MiB
	RetryInterval      time.Duration // between attempts on a full disk; 0: 1 s
	// PartBytes of redo are the most that a transaction has in one piece; 0: 1 MiB,
	// and at most MaxPackage. SpillBytes and VersionBytes bound memory for pages
	// (pagestore.Options).
	PartBytes                int
	SpillBytes, VersionBytes int64
}

// ArchConfig is the local archive (manual 5.3).
type ArchConfig struct {
	Dir, Name            string
	FileSize, SpaceLimit int64 // bytes
	FlushBuf             int   // bytes
	ReserveTime          time.Duration
}

func (c Config) withDefaults() Config {
	if c.Clock == nil {
		c.Clock = clock.Real{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.CheckpointInterval == 0 {
		c.CheckpointInterval = 30 * time.Second
	}
	if c.MaxPackage == 0 {
		c.MaxPackage = 4 << 20
	}
	if c.RedoBuffer == 0 {
		c.RedoBuffer = 32 << 20
	}
	if c.DirtyBytes == 0 {
		c.DirtyBytes = 128 << 20
	}
	if c.PartBytes == 0 {
		c.PartBytes = pagestore.DefaultPart
	}
	if c.RetryInterval == 0 {
		c.RetryInterval = time.Second
	}
	return c
}

// Shipper sends packages to other instances. One package is under way at a time.
type Shipper interface {
	// Ship sends a package to the realtime archives, before the local write. nil
	// means that every Valid one has it. It must return when ctx is done. After a
	// failure and a new OpenDatabase the same package comes again.
	Ship(ctx context.Context, pkg *redo.Package) error
	// ShipTimely sends it to the timely archives, after the local write.
	ShipTimely(ctx context.Context, pkg *redo.Package) error
	// Release is asked last, when the package is everywhere and its commits are
	// about to be acknowledged. An error means that a standby that may have taken
	// over meanwhile cannot be excluded (G3); the package waits as after any
	// failed send. They may be acknowledged until the time it returns, always if
	// that is zero.
	Release(ctx context.Context, pkg *redo.Package) (until time.Time, err error)
	// Hardened tells, without blocking, how far this database is safe on disk.
	Hardened(pos base.Position)
}

type noShipper struct{}

func (noShipper) Ship(context.Context, *redo.Package) error       { return nil }
func (noShipper) ShipTimely(context.Context, *redo.Package) error { return nil }
func (noShipper) Release(context.Context, *redo.Package) (time.Time, error) {
	return time.Time{}, nil
}
func (noShipper) Hardened(base.Position) {}

// Positions are the places of a database in the redo of its group (manual 2.2.5, 2.2.8).
type Positions struct {
	Cur    base.Position // newest LSN assigned, newest package made
	Flush  base.Position // given to the flusher for writing
	File   base.Position // in the online log
	Ckpt   base.LSN      // all changes up to it are in the data file
	Apply  base.Position // standby: original position in its online log; otherwise File
	Replay base.Position // visible to readers (hardened; on a standby: replayed)
}
