package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/clock"
	"datawatch/internal/storage/arch"
	"datawatch/internal/storage/ctl"
	"datawatch/internal/storage/pagestore"
	"datawatch/internal/storage/redo"
	"datawatch/internal/storage/rlog"
)

// recoverBatch is how much redo a recovery replays at a time, in bytes.
const recoverBatch = 4 << 20

// LockName is the lock file in Config.Dir that keeps a second process away.
const LockName = "dmserver.lock"

// Engine is an open database. Its methods are safe for concurrent use.
// docs/lock-order.md lists its locks.
type Engine struct {
	cfg   Config
	lock  io.Closer
	store *pagestore.Store
	log   *rlog.Log
	arch  *arch.Archive // nil: no local archive

	pmnt, magic base.Magic // PMNT_MAGIC and DB_MAGIC, which never change

	opMu clock.Mutex // one administrative operation at a time
	cmu  clock.Mutex // one checkpoint at a time
	fmu  clock.Mutex // one LogForeign at a time

	mu        sync.Mutex
	ctl       ctl.Control
	status    base.Status
	lineage   base.Lineage // hardened open records
	ckptAt    time.Time    // end of the last checkpoint
	logged    base.Lineage // open records in the online log beyond those, not hardened yet
	reason    string       // of Suspend
	reasonAt  time.Time
	cause     suspendCause
	archFull  string // see ArchiveFull
	suspends  int    // counts calls that suspend
	running   bool   // the flusher may begin a package
	busy      bool   // it is at work on one
	cur       base.Seq
	flush     base.Position
	file      base.Position
	hard      base.Position // hardened: end of a package
	hardLSEQ  base.Seq
	chain     chain         // open at hard
	ckptChain base.Seq      // GSEQ where the chain begins that the log's checkpoint is in; 0: none
	replaying *replaying    // packages of another database beyond hard; nil: none
	held      base.Seq      // what the archive was told to keep
	changed   chan struct{} // closed at the next change
	callbacks []func()
	shipper   Shipper
	halted    error

	buf      redoBuffer
	pending  *pending // of the flusher
	hardened atomic.Uint64
	until    atomic.Pointer[time.Time] // Shipper.Release, of the newest package
	hardAt   atomic.Int64              // when it last moved, Unix nanoseconds
	times    stageTimes

	ctx     context.Context // done when the engine stops
	stop    context.CancelFunc
	wg      sync.WaitGroup
	kickF   chan struct{}
	kickC   chan struct{}
	resume  chan struct{} // wakes a wait for disk space
	closeMu clock.Mutex
	closed  bool
}

type suspendCause uint8

const (
	causeNone suspendCause = iota
	causeAsked
	causeSend
	causeDiskFull
)

// Open locks and recovers a database and leaves it in status Mount (manual
// 2.2.4: Startup, After Redo, Mount). Errors name the file.
func Open(ctx context.Context, cfg Config) (*Engine, error) {
	cfg = cfg.withDefaults()
	e := &Engine{cfg: cfg, status: base.StatusStartup, shipper: noShipper{}, changed: make(chan struct{}),
		kickF: make(chan struct{}, 1), kickC: make(chan struct{}, 1), resume: make(chan struct{}, 1)}
	e.ctx, e.stop = context.WithCancel(context.WithoutCancel(ctx))
	e.buf.init(cfg)
	e.buf.refuse(ErrNotOpen)
	lock := filepath.Join(cfg.Dir, LockName)
	var err error
	if e.lock, err = cfg.FS.Lock(lock); err != nil {
		e.stop()
		return nil, fmt.Errorf("open database: another process has it? lock file %s: %w", lock, err)
	}
	if err := e.recover(ctx); err != nil {
		e.stop()
		e.closeFiles()
		return nil, fmt.Errorf("open database: %w", err)
	}
	e.mu.Lock()
	e.status = base.StatusMount
	e.mu.Unlock()
	e.wg.Add(2)
	go e.flusher()
	go e.checkpointer()
	return e, nil
}

func (e *Engine) recover(ctx context.Context) error {
	c, err := ctl.Load(e.cfg.FS, e.cfg.CtlPath)
	if err != nil {
		return fmt.Errorf("control file %s: %w", e.cfg.CtlPath, err)
	}
	if len(c.DataFiles) != 1 {
		return fmt.Errorf("control file %s: %d data files, this program knows one", e.cfg.CtlPath, len(c.DataFiles))
	}
	if c, err = e.graft(ctx, c); err != nil {
		return err
	}
	e.ctl = c.Clone()
	e.pmnt, e.magic = c.PmntMagic, c.DBMagic
	e.lineage = c.Lineage
	if e.log, err = rlog.Open(e.cfg.FS, e.cfg.LogPaths, rlog.Config{PmntMagic: c.PmntMagic, DBMagic: c.DBMagic}); err != nil {
		return err
	}
	_, total := e.log.Space()
	e.buf.setLog(total, e.cfg.Arch != nil)
	if a := e.cfg.Arch; a != nil {
		if e.arch, err = arch.Open(e.cfg.FS, arch.Config{Dir: a.Dir, Name: a.Name, FileSize: a.FileSize, SpaceLimit: a.SpaceLimit,
			FlushBuf: a.FlushBuf, ReserveTime: a.ReserveTime, PmntMagic: c.PmntMagic, DBMagic: c.DBMagic, Clock: e.cfg.Clock}); err != nil {
			return err
		}
	}
	df := c.DataFiles[0]
	ckpt := e.log.Info().CkptLSN
	if e.store, err = pagestore.Open(e.cfg.FS, e.dataPath(c), pagestore.Options{Whole: wholeLSN(c), PageSize: c.PageSize, BufferBytes: e.cfg.BufferBytes,
		Tablespace: df.Tablespace, File: df.File, LSN: ckpt, Committer: e,
		Replayers: e.cfg.Replayers, PartBytes: min(e.cfg.PartBytes, e.buf.maxPkg), SpillBytes: e.cfg.SpillBytes, VersionBytes: e.cfg.VersionBytes,
		Now: func() int64 { return e.cfg.Clock.Now().UnixNano() }}); err != nil {
		return err
	}
	if c.Clean {
		e.ctl.Clean = false
		if err := e.ctl.Save(e.cfg.FS, e.cfg.CtlPath); err != nil {
			return err
		}
	}
	if err := e.redo(ctx, ckpt); err != nil {
		return err
	}
	e.status = base.StatusAfterRedo
	return nil
}

func (e *Engine) dataPath(c *ctl.Control) string {
	path := c.DataFiles[0].Path
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(e.cfg.CtlPath), path)
	}
	return path
}

// redo replays the online log, gives the archive what it lacks of it, and takes
// from the archive what the log never had.
func (e *Engine) redo(ctx context.Context, ckpt base.LSN) error {
	_, total := e.log.Space()
	pos := base.Position{LSN: ckpt}
	var lseq base.Seq
	if seq := e.log.CheckpointChain(); seq != 0 {
		if err := e.resumeChain(ctx, seq, ckpt); err != nil {
			return err
		}
	}
	batch, opens, size := e.store.NewBatch(), base.Lineage(nil), 0
	apply := func() error {
		if err := e.store.ApplyBatch(batch, batch.Len()); err != nil {
			return err
		}
		batch, size = e.store.NewBatch(), 0
		return nil
	}
	relieve := func() error {
		// Before versions would have to go to the spill file; no earlier, since
		// nothing waits for room in the log.
		if e.store.Stats().VersionBytes > e.store.VersionLimit()/4*3 {
			e.store.SetHardened(pos.LSN)
			_, err := e.store.Checkpoint(ctx, pos.LSN)
			return err
		}
		return nil
	}
	err := e.log.Recover(func(p *redo.Package) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if pos.Seq != 0 && p.GSEQ != pos.Seq+1 {
			return fmt.Errorf("package %d follows %d: %w", p.GSEQ, pos.Seq, ErrPosition)
		}
		if e.arch != nil && p.GSEQ > e.arch.End().Seq {
			if err := e.arch.Append(p, p.SrcDBMagic != e.ctl.DBMagic); err != nil {
				return fmt.Errorf("bring the archive to the end of the online log: %w", err)
			}
		}
		first, err := addPackage(batch, p, e.chain.first, &opens)
		if err != nil {
			return err
		}
		e.chain = e.chain.after(p, first)
		for _, r := range opens {
			if err := e.addOpenRecord(r); err != nil {
				return err
			}
		}
		pos, lseq, opens = p.Pos(), p.LSEQ, opens[:0]
		if size += p.EncodedLen(); int64(size) < min(recoverBatch, total/8) {
			return nil
		}
		if err := apply(); err != nil {
			return err
		}
		return relieve()
	})
	if err == nil {
		err = apply()
	}
	if err != nil {
		return err
	}
	e.store.SetHardened(pos.LSN)
	if info := e.log.Info(); pos.Seq == 0 {
		if pos.Seq = info.FileSeq; pos.Seq == 0 {
			pos.Seq = e.ctl.Position.Seq
		}
		lseq = info.NextLSEQ - 1
	}
	if e.arch != nil {
		switch end := e.arch.End(); {
		case end.Seq > pos.Seq:
			if err := e.arch.TruncateAfter(pos); err != nil {
				return fmt.Errorf("archive %s ends at %v, after the online log, %v: %w", e.cfg.Arch.Dir, end, pos, err)
			}
		case end.Seq != 0 && end != pos:
			return fmt.Errorf("archive %s ends at %v, the database at %v, and the online log no longer has what lies between: "+
				"move the archive files away and make the standbys anew from a backup: %w", e.cfg.Arch.Dir, end, pos, arch.ErrContinuity)
		}
		if err := e.arch.Sync(); err != nil {
			return err
		}
	}
	e.cur, e.flush, e.file, e.hard, e.hardLSEQ = pos.Seq, pos, pos, pos, lseq
	e.hardened.Store(uint64(pos.LSN))
	e.buf.last = pos.LSN
	e.holdArchive()
	return nil
}

// addPackage adds a package to a batch, and its open records to opens; chain is
// the first part of the large transaction that is open before it, and is returned
// for the one after it.
func addPackage(b *pagestore.Batch, p *redo.Package, chain base.LSN, opens *base.Lineage) (base.LSN, error) {
	for t, err := range p.PTXs() {
		if err != nil {
			return 0, err
		}
		if chain, err = redo.ChainAfter(chain, t.Kind, t.LSN); err != nil {
			return 0, err
		}
		if err := b.Add(t, func(r redo.Record) error {
			o, err := openRecord(r)
			*opens = append(*opens, o)
			return err
		}); err != nil {
			return 0, err
		}
	}
	return chain, nil
}

// openRecord decodes a logical record; open records are the only kind known.
func openRecord(r redo.Record) (o base.OpenRecord, err error) {
	if err := json.Unmarshal(r.Payload, &o); err != nil {
		return o, fmt.Errorf("open record: %w", err)
	}
	return o, nil
}

// addOpenRecord takes an open record of the log into the lineage; one that the
// control file had already is checked. Under mu, or before others run.
func (e *Engine) addOpenRecord(r base.OpenRecord) error {
	last := e.lineage.Last()
	if r.ID == last.ID+1 {
		e.lineage = e.lineage.Append(r)
		return nil
	}
	for _, o := range e.lineage {
		if o.ID == r.ID && o.TGUID == r.TGUID {
			return nil
		}
	}
	return fmt.Errorf("open record %d (%s) after %d (%s): %w", r.ID, r.TGUID, last.ID, last.TGUID, ErrLineage)
}

// Store returns the page store, for sessions.
func (e *Engine) Store() *pagestore.Store { return e.store }

// Archive returns the local archive, nil when there is none.
func (e *Engine) Archive() *arch.Archive { return e.arch }

// LogInfo returns the state of the online log, for V$RLOG.
func (e *Engine) LogInfo() rlog.Info { return e.log.Info() }

// Control returns a copy of the control file's content with the current lineage.
func (e *Engine) Control() ctl.Control {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.controlLocked()
}

func (e *Engine) controlLocked() ctl.Control {
	c := e.ctl.Clone()
	c.Lineage = append(base.Lineage(nil), e.lineage...)
	c.Position = e.whole()
	return c
}

// Lineage returns the open records in the online log, up to Positions.File.
func (e *Engine) Lineage() base.Lineage {
	_, l := e.State()
	return l
}

// State returns positions and lineage of one moment: the lineage has every open
// record at or before Positions.File and none beyond, so that comparing both
// with another database's never takes a reign that arrives for a fork. The
// lineage must not be changed.
func (e *Engine) State() (Positions, base.Lineage) {
	ckpt := e.log.CheckpointLSN()
	last := e.buf.lastLSN()
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.lineage // never changed in place
	for _, r := range e.logged {
		l = l.Append(r)
	}
	return Positions{Cur: base.Position{Seq: e.cur, LSN: last}, Flush: e.flush, File: e.file, Ckpt: ckpt, Apply: e.file, Replay: e.hard}, l
}

// HardState returns the hardened position and the lineage up to it, of one
// moment: what this database can vouch for towards the others of its group. The
// lineage must not be changed.
func (e *Engine) HardState() (base.Position, base.Lineage) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.hard, e.lineage
}

// Hardened returns the LSN that readers see.
func (e *Engine) Hardened() base.LSN { return base.LSN(e.hardened.Load()) }

// Positions returns the places of the database in the log.
func (e *Engine) Positions() Positions {
	p, _ := e.State()
	return p
}

// SetShipper sets who sends packages; before OpenDatabase.
func (e *Engine) SetShipper(s Shipper) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s == nil {
		s = noShipper{}
	}
	e.shipper = s
}

// Backup is a consistent state of a database, pinned until Close.
type Backup struct {
	*pagestore.Snap
	Control ctl.Control // with the lineage of that state
	// Position is the end of the package that the snapshot is, or of the last one
	// before a large transaction under way then: redo after it brings the backup forward.
	Position base.Position
	Hard     base.Position // the end of the package that the snapshot is
}

// BeginBackup pins the hardened state.
func (e *Engine) BeginBackup() (*Backup, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.status == base.StatusShutdown {
		return nil, ErrClosed
	}
	if !e.store.Readable() {
		return nil, pagestore.ErrNotWhole
	}
	c := e.controlLocked()
	c.Rejoin = nil // it has come so far
	return &Backup{Snap: e.store.Snapshot(), Control: c, Position: e.whole(), Hard: e.hard}, nil
}

// Close ends a database normally: what is committed is flushed, the data file is
// brought up to it and the control file says so. In status Suspend what is not
// hardened is dropped (manual 2.2.4). ctx limits the wait for the flush, and for an
// operation under way.
func (e *Engine) Close(ctx context.Context) error {
	e.closeMu.Lock()
	defer e.closeMu.Unlock()
	if e.closed {
		return nil
	}
	if !e.opMu.TryLock() {
		// Its holder may wait for what ends only with the engine: room on a disk.
		over := context.AfterFunc(ctx, e.stop)
		e.opMu.Lock()
		over()
	}
	defer e.opMu.Unlock()
	e.buf.refuse(ErrClosed)
	drainErr := e.drain(ctx)
	if errors.Is(drainErr, ErrSuspended) {
		drainErr = nil
	}
	e.shutdown()
	var err error
	e.mu.Lock()
	halted := e.halted
	e.mu.Unlock()
	if halted == nil {
		if err = e.Checkpoint(context.WithoutCancel(ctx)); err == nil {
			e.mu.Lock()
			c := e.controlLocked()
			c.Clean = e.file == e.hard
			e.mu.Unlock()
			c.DataFiles[0].Pages = e.store.Pages()
			err = c.Save(e.cfg.FS, e.cfg.CtlPath)
		}
	}
	e.closed = true
	return errors.Join(drainErr, err, e.closeFiles())
}

// Abort stops at once and drops what is not hardened; the next Open recovers.
func (e *Engine) Abort() {
	e.buf.refuse(ErrClosed)
	e.stop()
	e.closeMu.Lock()
	defer e.closeMu.Unlock()
	if e.closed {
		return
	}
	e.shutdown()
	e.closed = true
	_ = e.closeFiles() // the next Open looks for itself
}

// shutdown stops the goroutines; waiters get ErrClosed.
func (e *Engine) shutdown() {
	e.setStatus(func() { e.status, e.running = base.StatusShutdown, false })
	e.stop()
	e.fmu.Lock() // a LogForeign under way sees the stop
	defer e.fmu.Unlock()
	e.wg.Wait()
}

func (e *Engine) closeFiles() error {
	var errs []error
	if e.store != nil {
		errs = append(errs, e.store.Close())
	}
	if e.arch != nil {
		errs = append(errs, e.arch.Close())
	}
	if e.log != nil {
		errs = append(errs, e.log.Close())
	}
	return errors.Join(append(errs, e.lock.Close())...)
}
