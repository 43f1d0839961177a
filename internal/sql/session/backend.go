// Package session executes SQL for clients: sessions, transactions, the pool of
// SQLite connections, statement routing, errors and run-time parameters. It
// implements sqlapi over a database (storage engine) and a set of
// administration callbacks.
//
// How a statement finds its connection:
//   - One writer connection goes with the write lock of the database, so that
//     its page cache stays warm from commit to commit. The first writing
//     statement of a transaction takes the lock (first come, first served) on a
//     fresh snapshot and keeps it to the end.
//   - A concurrent transaction has a private connection, which writes to a hardened
//     snapshot for itself alone, and takes the lock at its COMMIT only, to do
//     again there what it has recorded (concurrent.go).
//   - Other statements run on pooled reader connections, each on the newest
//     hardened snapshot. SERIALIZABLE READ ONLY transactions and suspended
//     portals pin one.
//   - A session with TEMP objects owns a connection and does everything there.
//   - In status Mount, statements run on a connection without a database, which
//     has the V$ views only.
//
// It keeps G1 (a commit is reported only after WaitHardened, and the write lock
// is released before that wait), G2 (outside the write lock only hardened
// snapshots are read; rows read and errors made under it go out when what they
// are made of is hardened) and the SQL part of G8. Locks, snapshots and hardening
// themselves are the storage layer's; what clients speak is pgwire's.
package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/clock"
	"datawatch/internal/sql/dialect"
	"datawatch/internal/sql/hba"
	"datawatch/internal/sql/sqlapi"
	"datawatch/internal/sql/sqlitevfs"
	"datawatch/internal/sql/views"
)

// Handle is a connection's view of the store.
type Handle interface {
	sqlitevfs.Handle
	LastCommit() base.LSN // of the last transaction it published, 0 none
	// Seen is the newest change of what was read with the write lock since
	// ForgetSeen.
	Seen() base.LSN
	ForgetSeen()
}

// Database is what sessions need of the storage engine; FromEngine adapts one.
type Database interface {
	Mode() base.Mode
	Status() base.Status
	NewHandle(readOnly bool) Handle
	// NewPrivate makes a handle that writes to a hardened snapshot, without the
	// write lock and for itself alone: it can only roll back.
	NewPrivate() Handle
	// LockWrite takes the one write lock for h; while h has it, h reads the
	// newest pages. Cancelled by ctx.
	LockWrite(ctx context.Context, h Handle) error
	UnlockWrite(h Handle)
	Hardened() base.LSN
	WaitHardened(ctx context.Context, lsn base.LSN) error
	// Flight is closed when a commit can be of use to the next package: when the
	// one under way has been shipped or, after that, hardened; nil when none is.
	Flight() <-chan struct{}
}

// Admin does what statements ask of the server itself.
type Admin interface {
	// AlterDatabase executes MOUNT, OPEN, OPEN FORCE, SUSPEND, PRIMARY, STANDBY or NORMAL.
	AlterDatabase(ctx context.Context, verb string) error
	AddArchiveLog(ctx context.Context, description string) error
	SetOGUID(ctx context.Context, oguid uint32) error
	SetPara(ctx context.Context, scope int, name, value string) error
	GetPara(name string) (string, bool)
	Backup(ctx context.Context, stmt BackupStmt) error
	Checkpoint(ctx context.Context) error
	// SetArchStatus sets the state of one realtime or timely archive, of all
	// when inst is empty: 0 Valid, 1 Invalid (manual 9.1.2).
	SetArchStatus(ctx context.Context, inst string, status int) error
	Views() views.Source
}

// BackupStmt is BACKUP DATABASE as written.
type BackupStmt = dialect.BackupSpec

// Config makes a Backend. Zero durations and numbers take the defaults named.
type Config struct {
	DB           Database
	Admin        Admin
	Log          *slog.Logger
	DatabaseName string              // current_database()
	MaxSessions  int                 // 10000
	Readers      int                 // pooled reader connections, 3 per core
	Concurrent   int                 // concurrent transactions at a time, 32; negative: none
	WriterCache  int                 // page cache of the writer connection, KB, 32 MB
	LockTimeout  time.Duration       // wait for the write lock, 10 s
	IdleInWrite  time.Duration       // a session may hold the write lock idle, 60 s
	Reserved     int                 // sessions for administrators beyond MaxSessions
	SlowLog      func(SlowStatement) // takes those that Limits.Slow finds; nil: they are only counted
	Files        *sqlitevfs.System   // where large sorts and TEMP tables go; nil: they stay in memory
	Clock        clock.Clock         // of logins; the system's

	Login func() LoginPolicy // of now; nil: no rules
	Rules func() *hba.Rules  // address rules of now; nil: none
}

// Backend implements sqlapi.Backend.
type Backend struct {
	cfg     Config
	log     *slog.Logger
	started time.Time

	files   *sqlitevfs.System
	readers *pool // on hardened snapshots
	private *pool // of concurrent transactions
	empty   *pool // without a database
	gate    gate  // goes with writer
	writer  *conn // only touched by the owner of gate
	lastLSN atomic.Uint64
	ddlLSN  atomic.Uint64 // lastLSN after the last change of the schema
	maxTime time.Duration // of the statements of a common transaction

	limits atomic.Pointer[Limits]
	counts counters
	holder atomic.Pointer[Session] // of the write lock
	trxID  atomic.Uint64           // last number of a transaction
	ticker ticker
	check  dbCheck
	scans  scans

	hardenedAt func() int64 // nil: not known

	shared      atomic.Pointer[access] // the newest that a connection has read
	guard       loginGuard
	toldDefault sync.Map // users whose initial password was logged

	schemaGen atomic.Uint64 // changes with the schema, also before that is hardened

	parsed *cache // statements by text
	seqs   sequences
	bg     background

	mu       sync.Mutex
	sessions map[uint32]*Session
	nextID   uint32
	closed   *sqlapi.Error
	quiet    atomic.Int32 // > 0: statements that need the database are refused
	quietMsg string
	wasOpen  atomic.Bool
	// leaseOver: no commit may be acknowledged, for too much time has passed since
	// it was released (G3); nil: there is no such thing.
	leaseOver func() bool
	unserved  atomic.Pointer[string] // why a standby serves no reads; nil: it does
	mode      atomic.Uint32          // base.Mode, as StatusChanged last saw it
	modeGen   atomic.Uint64          // changes with mode and status, for ParameterStatus
}

// New makes a Backend. Nothing is opened before the first statement.
func New(cfg Config) *Backend {
	if cfg.MaxSessions == 0 {
		cfg.MaxSessions = 10000
	}
	if cfg.Readers == 0 {
		cfg.Readers = 3 * max(2, runtime.GOMAXPROCS(0))
	}
	if cfg.WriterCache == 0 {
		cfg.WriterCache = writerCacheKB
	}
	if cfg.Concurrent == 0 {
		cfg.Concurrent = 32
	}
	if cfg.LockTimeout == 0 {
		cfg.LockTimeout = 10 * time.Second
	}
	if cfg.IdleInWrite == 0 {
		cfg.IdleInWrite = time.Minute
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.Real{}
	}
	if cfg.DatabaseName == "" {
		cfg.DatabaseName = "DAMENG"
	}
	b := &Backend{cfg: cfg, log: cfg.Log, started: time.Now(), sessions: map[uint32]*Session{}, maxTime: maxTime, parsed: newCache(2048),
		files: cfg.Files}
	if h, ok := cfg.DB.(interface{ HardenedAt() int64 }); ok {
		b.hardenedAt = h.HardenedAt
	}
	if l, ok := cfg.DB.(interface{ LeaseOver() bool }); ok {
		b.leaseOver = l.LeaseOver
	}
	if b.files == nil {
		b.files, _ = sqlitevfs.New(nil, "") // nothing to fail
	}
	b.limits.Store(&Limits{Lock: cfg.LockTimeout, IdleInWrite: cfg.IdleInWrite})
	b.wasOpen.Store(isOpen(cfg.DB.Status()))
	b.mode.Store(uint32(cfg.DB.Mode()))
	b.readers = newPool(cfg.Readers, func() (*conn, error) { return b.open(readerConn) })
	b.private = newPool(max(cfg.Concurrent, 0), func() (*conn, error) { return b.open(privateConn) })
	b.private.overflow, b.private.patience = 0, privatePatience
	b.empty = newPool(2, func() (*conn, error) { return b.open(emptyConn) })
	return b
}

// standby reports whether the database takes no writes.
func (b *Backend) standby() bool { return b.cfg.DB.Mode() == base.ModeStandby }

// noWrites is what drivers are told that look for the database that takes
// writes: a standby does not, nor does a primary that is not open yet, or no
// longer, or suspended. A suspended one may be cut off from a standby that has
// become the primary meanwhile: a client that connects again must look there
// first, or it would wait here until somebody ends this database.
func (b *Backend) noWrites() bool {
	return b.shut() || b.cfg.DB.Status() == base.StatusSuspend
}

// shut is noWrites without Suspend, in which what writes here waits.
func (b *Backend) shut() bool { return b.standby() || !isOpen(b.cfg.DB.Status()) }

// tables reports whether tables can be used: status Open or Suspend and no
// Quiesce under way.
func (b *Backend) tables() bool {
	if !isOpen(b.cfg.DB.Status()) || b.unserved.Load() != nil {
		return false
	}
	return b.quiet.Load() == 0
}

// Unserved makes tables inaccessible for a reason of which the sessions know
// nothing (DW_CONSISTENCY_CHECK); an empty one ends that. Statements that run are
// left to end. It returns the reason until now.
func (b *Backend) Unserved(why string) (was string) {
	var p *string
	if why != "" {
		p = &why
	}
	if old := b.unserved.Swap(p); old != nil {
		was = *old
	}
	return was
}

func (b *Backend) notOpen() *sqlapi.Error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.quiet.Load() > 0 {
		return &sqlapi.Error{Code: codeNotNow, Message: "the database is changing its status: " + b.quietMsg}
	}
	if why := b.unserved.Load(); why != nil && isOpen(b.cfg.DB.Status()) {
		return &sqlapi.Error{Code: codeNotNow, Message: "this standby serves no reads now: " + *why,
			Hint: "V$ views and administration work; the primary serves reads."}
	}
	return &sqlapi.Error{Code: codeNotNow,
		Message: "database is in status " + b.cfg.DB.Status().String() + ": tables cannot be accessed",
		Hint:    "V$ views and administration work; ALTER DATABASE OPEN [FORCE] opens the database."}
}

// StatusChanged tells sessions that the mode or status may have changed: a
// database that is no longer open rolls every transaction back and keeps the
// connections (manual 2.2.4); a primary that has become a standby ends them, so
// that clients look for the new primary. Call it from the engine's OnChange; it
// does not block.
func (b *Backend) StatusChanged() {
	b.modeGen.Add(1)
	if mode := b.cfg.DB.Mode(); base.Mode(b.mode.Swap(uint32(mode))) == base.ModePrimary && mode == base.ModeStandby {
		go demoted(b.others())
	}
	st := b.cfg.DB.Status()
	open := isOpen(st)
	if b.shut() {
		b.seqs.forget() // another database may hand out numbers before this one does again
	}
	if b.wasOpen.Swap(open) && !open {
		go b.rollbackAll("the database went to status "+st.String(), func() bool { return !isOpen(b.cfg.DB.Status()) })
	}
}

func isOpen(s base.Status) bool { return s == base.StatusOpen || s == base.StatusSuspend }

// Quiesce refuses statements that need the database, interrupts those that run
// and rolls every open transaction back, so that the status can change. The
// caller resumes afterwards. Sessions that wait for their commit to harden are
// left waiting. ctx limits the wait for statements to stop.
func (b *Backend) Quiesce(ctx context.Context, reason string) (resume func(), err error) {
	b.mu.Lock()
	b.quiet.Add(1)
	b.quietMsg = reason
	b.mu.Unlock()
	var once sync.Once
	resume = func() {
		once.Do(func() { b.quiet.Add(-1) })
	}
	done := make(chan struct{})
	go func() { b.rollbackAll(reason, func() bool { return true }); close(done) }()
	select {
	case <-done:
		return resume, nil
	case <-ctx.Done():
		resume()
		return nil, fmt.Errorf("wait for transactions to roll back: %w", context.Cause(ctx))
	}
}

// rollbackAll rolls back in every session, as long as still says so.
func (b *Backend) rollbackAll(reason string, still func() bool) {
	var wg sync.WaitGroup
	for _, s := range b.list() {
		wg.Go(func() {
			if still() {
				s.rollbackNow(reason)
			}
		})
	}
	wg.Wait()
}

func (b *Backend) list() []*Session {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]*Session, 0, len(b.sessions))
	for _, s := range b.sessions {
		out = append(out, s)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].id < out[j].id })
	return out
}

// NewSession implements sqlapi.Backend.
func (b *Backend) NewSession(ctx context.Context, info sqlapi.Info, notify sqlapi.Notify) (sqlapi.Session, error) {
	s := &Session{b: b, info: info, notify: notify, start: time.Now(), done: make(chan struct{})}
	s.vars = newVars(b.cfg.DatabaseName, info)
	s.renew()
	if err := s.identify(); err != nil {
		return nil, err
	}
	info.User = s.info.User
	for k, v := range info.Params {
		k = strings.ToLower(k)
		if k == "user" || k == "database" || k == "replication" || strings.HasPrefix(k, "_pq_") {
			continue
		}
		if k == "options" {
			if err := s.options(v); err != nil {
				return nil, err
			}
			continue
		}
		if err := s.vars.set(k, v, false); err != nil {
			return nil, err
		}
	}
	if role := s.vars.get("role"); role != "none" {
		role, err := s.assume("role", role, false)
		if err != nil {
			return nil, err
		}
		s.vars.vals["role"] = role
		s.assumed()
	}
	s.vars.resetToStart()
	admin := b.full() && b.administrator(info.User)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed != nil {
		return nil, b.closed
	}
	if err := b.crowded(s); err != nil {
		return nil, err
	}
	if err := b.room(admin); err != nil {
		return nil, err
	}
	for { // a positive number in the protocol
		if b.nextID = (b.nextID + 1) & (1<<31 - 1); b.nextID != 0 && b.sessions[b.nextID] == nil {
			break
		}
	}
	s.id = b.nextID
	b.sessions[s.id] = s
	s.modeGen = b.modeGen.Load()
	s.cmu.Lock()
	s.armIdle() // a client that never says anything is idle too
	s.cmu.Unlock()
	return s, nil
}

// DropAll ends every session with FATAL 57P01 and the reason; new ones may come.
func (b *Backend) DropAll(reason string) {
	for _, s := range b.list() {
		s.Terminate(&sqlapi.Error{Severity: "FATAL", Code: codeEnded, Message: "terminating connection: " + reason})
	}
}

// others are the sessions without those of whoever changes the mode by hand at
// this moment: they keep theirs, and may have further statements to make.
func (b *Backend) others() []*Session {
	return slices.DeleteFunc(b.list(), func(s *Session) bool { return s.waitingFor() == waitAdmin })
}

// demoted ends the sessions of what was the primary.
func demoted(list []*Session) {
	for _, s := range list {
		s.Terminate(&sqlapi.Error{Severity: "FATAL", Code: codeEnded, Message: "terminating connection: the database is a standby now"})
	}
}

// Close refuses new sessions, ends the existing ones, waits until they have
// rolled back and closes every connection.
func (b *Backend) Close(ctx context.Context, reason string) error {
	b.mu.Lock()
	b.closed = &sqlapi.Error{Severity: "FATAL", Code: "57P03", Message: "the database system is shutting down"}
	b.mu.Unlock()
	b.DropAll(reason)
	done := make(chan struct{})
	go func() {
		for _, s := range b.list() {
			s.Close()
		}
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return fmt.Errorf("end sessions: %w", ctx.Err())
	}
	b.mu.Lock()
	b.ticker.run(0)
	b.mu.Unlock()
	b.bg.stop()
	if err := b.gate.lock(ctx, 0); err != nil {
		return fmt.Errorf("end writers: %w", err)
	}
	defer b.gate.unlock()
	var err error
	if b.writer != nil {
		err = b.writer.close()
		b.writer = nil
	}
	err = errors.Join(err, b.readers.close(), b.private.close(), b.empty.close())
	if b.cfg.Files == nil {
		b.files.Close()
	}
	return err
}

// SessionInfo is one row for V$SESSIONS.
type SessionInfo struct {
	ID                           uint32
	User, Database, App, Address string
	State                        string // idle, active, idle in transaction, idle in transaction (aborted)
	Waiting                      string // "", write lock, hardened, earlier commits, connection
	SQL                          string // current or last statement, shortened; never one with a password
	Start, TxStart, StmtStart    time.Time
	Statements, Errors           uint64
	HoldsWriteLock               bool
	TxID                         uint64 // 0 outside of a transaction
}

// Sessions lists the sessions by number.
func (b *Backend) Sessions() []SessionInfo {
	var out []SessionInfo
	for _, s := range b.list() {
		out = append(out, s.describe())
	}
	return out
}
