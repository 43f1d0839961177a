package session

import (
	"sync/atomic"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/metrics"
	"datawatch/internal/sql/sqlapi"
)

// counters since the start. Statements and errors are counted by each session,
// so that no statement touches what all share; these have those of the sessions
// that are gone.
type counters struct {
	opened, refused      atomic.Int64
	timedOut             atomic.Int64 // sessions ended by an idle limit
	terminated           atomic.Int64
	statements, errors   atomic.Int64
	lockTimeouts, memory atomic.Int64
	slow                 atomic.Int64

	concurrentCommits, conflicts, upgrades, concurrentBusy atomic.Int64 // of concurrent transactions
	commits                                                metrics.Histogram
}

// CommitTimes are how long it took from the arrival of a statement that commits
// to the moment at which its commit could not be lost any more.
func (b *Backend) CommitTimes() *metrics.Histogram { return &b.counts.commits }

// committed counts a commit that is hardened. The clock is that of whoever
// hardened it, read once for all commits of a package.
func (s *Session) committed() {
	if h := s.b.hardenedAt; h != nil && !s.stmtStart.IsZero() {
		if at := h(); at != 0 {
			s.b.counts.commits.Observe(time.Duration(at - s.stmtStart.UnixNano()))
		}
	}
}

// Stats are the numbers of a backend for monitoring.
type Stats struct {
	Sessions, Active, InTransaction, WaitingLock, WaitingHarden int
	MaxSessions, Reserved                                       int

	Opened, Refused, TimedOut, Terminated int64 // sessions
	Statements, Errors                    int64
	LockTimeouts, OutOfMemory, Slow       int64 // statements
	Connections                           int   // of SQLite, open

	// Of concurrent transactions: committed, ended by 40001, turned into ordinary
	// ones, and begun as ordinary ones for want of a connection.
	ConcurrentCommits, Conflicts, Upgrades, ConcurrentBusy int64

	WriterHeld           bool
	TempMemory, TempDisk int64 // bytes of temporary files
}

// Stats counts now.
func (b *Backend) Stats() Stats {
	c := &b.counts
	st := Stats{MaxSessions: b.cfg.MaxSessions, Reserved: b.cfg.Reserved, Opened: c.opened.Load(), Refused: c.refused.Load(), TimedOut: c.timedOut.Load(),
		Terminated: c.terminated.Load(), Statements: c.statements.Load(), Errors: c.errors.Load(), LockTimeouts: c.lockTimeouts.Load(),
		OutOfMemory: c.memory.Load(), Slow: c.slow.Load(), Connections: b.readers.count() + b.private.count() + b.empty.count(), WriterHeld: b.holder.Load() != nil,
		ConcurrentCommits: c.concurrentCommits.Load(), Conflicts: c.conflicts.Load(), Upgrades: c.upgrades.Load(), ConcurrentBusy: c.concurrentBusy.Load()}
	st.TempMemory, st.TempDisk = b.files.TempBytes()
	for _, s := range b.list() {
		tx := s.TxStatus() != sqlapi.TxIdle
		s.smu.Lock()
		st.Sessions++
		st.Statements += int64(s.statements)
		st.Errors += int64(s.errs)
		if s.active {
			st.Active++
		}
		switch s.waiting {
		case waitLock:
			st.WaitingLock++
		case waitHardened, waitRows:
			st.WaitingHarden++
		}
		s.smu.Unlock()
		if tx {
			st.InTransaction++
		}
	}
	return st
}

// left adds what a session that closes has counted.
func (c *counters) left(s *Session) {
	s.smu.Lock()
	defer s.smu.Unlock()
	c.statements.Add(int64(s.statements))
	c.errors.Add(int64(s.errs))
	s.statements, s.errs = 0, 0
}

// room reports whether one more session may begin. Under b.mu.
func (b *Backend) room(admin bool) error {
	n := len(b.sessions)
	switch {
	case n < b.cfg.MaxSessions, admin && n < b.cfg.MaxSessions+b.cfg.Reserved:
		b.counts.opened.Add(1)
		return nil
	case n < b.cfg.MaxSessions+b.cfg.Reserved:
		b.counts.refused.Add(1)
		return &sqlapi.Error{Severity: "FATAL", Code: "53300", Message: "too many clients: the remaining sessions are reserved for administrators",
			Hint: "MAX_SESSIONS of dm.ini is the limit."}
	}
	b.counts.refused.Add(1)
	return &sqlapi.Error{Severity: "FATAL", Code: "53300", Message: "sorry, too many clients already", Hint: "MAX_SESSIONS of dm.ini is the limit."}
}

// full reports whether only administrators may still come in.
func (b *Backend) full() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.sessions) >= b.cfg.MaxSessions
}

// trxInfo is what is shown of the transaction under way. Under Session.smu.
type trxInfo struct {
	id       uint64 // 0: none
	start    time.Time
	iso      string
	kind     string
	readOnly bool
}

// TrxInfo is one row of V$TRX.
type TrxInfo struct {
	ID        uint64
	Session   uint32
	User      string
	State     string // active, idle, failed
	Isolation string
	Kind      string // LOCKING, or CONCURRENT as long as it does without the write lock
	ReadOnly  bool
	Start     time.Time
	Writer    bool // holds the write lock
	Waiting   string
}

// noteTrx makes the transaction under way visible, or its end.
func (s *Session) noteTrx() {
	var t trxInfo
	if s.tx.active {
		t = trxInfo{id: s.tx.id, start: s.txTime, iso: s.tx.iso, kind: "LOCKING", readOnly: s.tx.readOnly}
		if s.tx.concurrent && (s.tx.rec != nil || s.tx.c == nil) {
			t.kind = "CONCURRENT"
		}
	}
	s.smu.Lock()
	s.trx = t
	s.smu.Unlock()
}

// notePinned shows, or hides, a snapshot in V$LOCK.
func (s *Session) notePinned(on bool) {
	s.smu.Lock()
	s.pinned = on
	s.smu.Unlock()
}

// Transactions lists those that are open: of sessions in a transaction, and of
// single statements that hold the write lock.
func (b *Backend) Transactions() []TrxInfo {
	var out []TrxInfo
	for _, s := range b.list() {
		holds := b.holder.Load() == s
		st := s.TxStatus()
		s.smu.Lock()
		t := TrxInfo{ID: s.trx.id, Session: s.id, User: s.info.User, State: "idle", Isolation: s.trx.iso, Kind: s.trx.kind, ReadOnly: s.trx.readOnly,
			Start: s.trx.start, Writer: holds, Waiting: s.waiting}
		switch {
		case s.active:
			t.State = "active"
		case st == sqlapi.TxFailed:
			t.State = "failed"
		}
		if t.ID == 0 && holds { // a statement on its own
			t.Start, t.Isolation, t.Kind = s.stmtStart, "read committed", "LOCKING"
		}
		s.smu.Unlock()
		if t.ID != 0 || holds {
			out = append(out, t)
		}
	}
	return out
}

// LockInfo is one row of V$LOCK: the write lock of the database, held or waited
// for, or a snapshot that keeps old versions of pages.
type LockInfo struct {
	Trx     uint64
	Session uint32
	Kind    string // WRITE, SNAPSHOT
	Blocked bool
	Blocker uint32 // session that has it, when Blocked
	Since   time.Time
	LSN     base.LSN
}

// Locks lists the holder of the write lock, those that wait for it, and pinned
// snapshots of transactions.
func (b *Backend) Locks() []LockInfo {
	var out []LockInfo
	holder := b.holder.Load()
	for _, s := range b.list() {
		s.smu.Lock()
		l := LockInfo{Trx: s.trx.id, Session: s.id, Since: s.stmtStart}
		waits, pinned := s.waiting == waitLock, s.pinned
		if s.trx.id != 0 {
			l.Since = s.trx.start
		}
		if waits {
			l.Since = s.stmtStart
		}
		s.smu.Unlock()
		switch {
		case s == holder:
			l.Kind = "WRITE"
		case waits:
			l.Kind, l.Blocked = "WRITE", true
			if holder != nil {
				l.Blocker = holder.id
			}
		case pinned:
			l.Kind = "SNAPSHOT"
		default:
			continue
		}
		out = append(out, l)
	}
	return out
}
