package session

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/sql/dialect"
	"datawatch/internal/sql/sqlapi"
)

// Session implements sqlapi.Session.
type Session struct {
	b      *Backend
	id     uint32
	info   sqlapi.Info
	notify sqlapi.Notify
	start  time.Time

	who       atomic.Uint64 // whose rights it has: session user and role; see identity
	me        identity
	connLimit int

	// mu is held while a method works, and by whoever rolls an idle session back.
	mu       sync.Mutex
	vars     *vars
	tx       txn
	own      *conn // the session's connection, once it has TEMP objects
	cursors  map[*cursor]struct{}
	simple   int // Runs of the simple query that are still to come; 0 in an extended series
	closed   bool
	modeGen  uint64
	txTime   time.Time               // now() inside a transaction
	seen     base.LSN                // what the running statement has looked at under a write lock that it no longer has; see errorSeen
	prepared map[string]*Stmt        // by PREPARE
	named    map[string]*namedCursor // by DECLARE, to the end of the transaction
	seqs     map[string]int64        // what nextval gave last, for currval
	lastSeq  string                  // and of which sequence, for lastval
	again    *step                   // of a concurrent transaction, that is being executed again
	turn     chan bool               // where the session waits for the write lock; see waiter

	// Interruption.
	cmu     sync.Mutex
	ctx     context.Context // of the running statement; replaced after it was cancelled
	cancel  context.CancelCauseFunc
	running bool
	linked  context.Context // whose end interrupts the running statement
	unlink  func() bool
	due     deadline

	term   atomic.Pointer[sqlapi.Error]
	done   chan struct{}
	once   sync.Once
	status atomic.Uint32 // sqlapi.TxStatus

	// For V$SESSIONS.
	smu              sync.Mutex
	sql              string
	waiting          string
	stmtStart        time.Time
	active           bool
	pinned           bool // a transaction has a snapshot for all of it
	trx              trxInfo
	statements, errs uint64
}

var errCancelled = &sqlapi.Error{Code: "57014", Message: "canceling statement due to user request"}

func (s *Session) renew() {
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
}

// enter begins a method call; every enter that returns nil needs a leave.
func (s *Session) enter(ctx context.Context) error {
	s.mu.Lock()
	if e := s.ended(); e != nil {
		s.mu.Unlock()
		return e
	}
	s.seen = 0
	s.cmu.Lock()
	s.disarm()
	if s.ctx.Err() != nil {
		s.renew()
		if s.tx.c != nil {
			s.tx.c.use(s)
		}
	}
	s.running = true
	if ctx != s.linked {
		if s.unlink != nil {
			s.unlink()
			s.unlink = nil
		}
		s.linked = ctx
		if ctx.Done() != nil {
			s.unlink = context.AfterFunc(ctx, func() { s.interrupt(errCancelled) })
		}
	}
	gone := ctx.Err() != nil
	s.cmu.Unlock()
	if gone {
		s.leave()
		return errCancelled
	}
	if g := s.b.modeGen.Load(); g != s.modeGen {
		s.modeGen = g
		s.announceMode()
	}
	return nil
}

// leave ends a method call.
func (s *Session) leave() {
	s.cmu.Lock()
	s.running = false
	s.armIdle()
	s.cmu.Unlock()
	s.setWaiting("")
	s.mu.Unlock()
}

// ended returns the reason when the session is over.
func (s *Session) ended() error {
	if e := s.term.Load(); e != nil {
		return e
	}
	if s.closed {
		return &sqlapi.Error{Severity: "FATAL", Code: "08003", Message: "the session is closed"}
	}
	return nil
}

// interrupt cancels the running statement, if there is one.
func (s *Session) interrupt(e *sqlapi.Error) {
	s.cmu.Lock()
	defer s.cmu.Unlock()
	if s.running {
		s.cancel(e)
	}
}

// rollbackNow interrupts the session and rolls its transaction back; the
// client learns at its next statement.
func (s *Session) rollbackNow(reason string) {
	s.cmu.Lock()
	if s.running && s.waitingFor() != waitHardened && s.waitingFor() != waitAdmin {
		s.cancel(&sqlapi.Error{Code: codeEnded, Message: "canceling statement: " + reason})
	}
	waits := s.running && (s.waitingFor() == waitHardened || s.waitingFor() == waitAdmin)
	s.cmu.Unlock()
	if waits {
		return // it holds no lock and no snapshot
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !s.tx.active && len(s.cursors) == 0 {
		return
	}
	open, told := s.tx.active && !s.tx.implicit, s.tx.failed
	s.rollbackTx()
	if open {
		s.tx.active, s.tx.failed, s.tx.reason, s.tx.told = true, true, reason, told
		s.setStatus()
	}
}

// Terminate implements sqlapi.Session.
func (s *Session) Terminate(e *sqlapi.Error) {
	if e.Severity == "" {
		x := *e
		x.Severity = "FATAL"
		e = &x
	}
	s.once.Do(func() {
		s.term.Store(e)
		s.cmu.Lock()
		s.cancel(e)
		s.cmu.Unlock()
		close(s.done)
		go func() { // an idle session must not keep its locks
			s.mu.Lock()
			defer s.mu.Unlock()
			if !s.closed {
				s.rollbackTx()
			}
		}()
	})
}

// Cancel implements sqlapi.Session.
func (s *Session) Cancel() { s.interrupt(errCancelled) }

// ID is the number of the session: in V$SESSIONS, pg_backend_pid() and the
// protocol's BackendKeyData.
func (s *Session) ID() uint32 { return s.id }

// Done implements sqlapi.Session.
func (s *Session) Done() <-chan struct{} { return s.done }

// Close implements sqlapi.Session.
func (s *Session) Close() {
	s.interrupt(errCancelled)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.rollbackTx()
	s.closed = true
	if s.own != nil {
		s.own.close()
		s.own = nil
	}
	s.stopTimer()
	s.cmu.Lock()
	if s.unlink != nil {
		s.unlink()
	}
	s.cmu.Unlock()
	s.b.counts.left(s)
	s.b.mu.Lock()
	delete(s.b.sessions, s.id)
	s.b.mu.Unlock()
}

// Split implements sqlapi.Session.
func (s *Session) Split(sql string) ([]string, error) {
	parts, err := dialect.Split(sql)
	if err != nil {
		return nil, syntaxError(sql, err)
	}
	s.mu.Lock()
	s.simple = len(parts)
	s.mu.Unlock()
	return parts, nil
}

// Final implements sqlapi.Session: Sync follows the next Run, which can then
// commit by itself and needs no BEGIN and COMMIT around it.
func (s *Session) Final() {
	s.mu.Lock()
	if !s.tx.active {
		s.simple = 1
	}
	s.mu.Unlock()
}

// TxStatus implements sqlapi.Session.
func (s *Session) TxStatus() sqlapi.TxStatus {
	if st := s.status.Load(); st != 0 {
		return sqlapi.TxStatus(st)
	}
	return sqlapi.TxIdle
}

func (s *Session) setStatus() {
	st := sqlapi.TxIdle
	switch {
	case !s.tx.active || s.tx.implicit:
	case s.tx.failed:
		st = sqlapi.TxFailed
	default:
		st = sqlapi.TxActive
	}
	s.status.Store(uint32(st))
}

// Sync implements sqlapi.Session.
func (s *Session) Sync(ctx context.Context, failed bool) error {
	if s.TxStatus() == sqlapi.TxIdle && s.term.Load() == nil {
		// Nothing to end: the common case needs no interruption machinery.
		s.mu.Lock()
		if !s.tx.active && len(s.cursors) == 0 {
			s.simple = 0
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
	}
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	s.simple = 0
	if s.tx.active && !s.tx.implicit {
		if failed { // in the protocol, where the session has not seen it: a bad parameter in Bind
			s.failTx()
		}
		return nil
	}
	s.closeCursors()
	if !s.tx.active {
		return nil
	}
	if failed || s.tx.failed {
		s.rollbackTx()
		return nil
	}
	return s.fail(s.commit(), nil)
}

// announceMode tells the client's driver what changed with the database's role.
func (s *Session) announceMode() {
	if s.notify == nil {
		return
	}
	on := onOff(s.b.noWrites())
	if s.vars.hotStandby != on {
		s.vars.hotStandby = on
		s.notify.ParameterChanged("in_hot_standby", on)
		if !s.vars.isSet("default_transaction_read_only") {
			s.notify.ParameterChanged("default_transaction_read_only", on)
		}
	}
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

// Parameters implements sqlapi.Session.
func (s *Session) Parameters() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.vars.hotStandby = onOff(s.b.noWrites())
	m := map[string]string{}
	for _, p := range reported {
		m[p] = s.show(p)
	}
	return m
}

// fail maps an error for the client and notes what it means for the
// transaction: everything until ROLLBACK is refused.
func (s *Session) fail(err error, st *Stmt) error {
	if err == nil {
		return nil
	}
	e := s.mapError(err, st)
	if x := (*sqlapi.Error)(nil); errors.As(e, &x) && x.Code == "53200" {
		s.b.counts.memory.Add(1)
	}
	s.smu.Lock()
	s.errs++
	s.smu.Unlock()
	s.seen = max(s.seen, s.tx.sees())
	switch {
	case s.tx.active && s.tx.implicit:
		s.rollbackTx()
	case s.tx.active:
		s.failTx()
	}
	return s.errorSeen(e)
}

// failTx makes the transaction a failed one.
func (s *Session) failTx() {
	if s.tx.failed {
		return
	}
	s.tx.failed = true
	if len(s.tx.saves) == 0 {
		s.releaseTx() // nothing can be saved: let other writers go on
	}
	s.setStatus()
}

const (
	waitLock     = "write lock"
	waitHardened = "hardened"
	waitConn     = "connection"
	waitRows     = "earlier commits" // with the write lock: rows go out when these are hardened
	waitAdmin    = "administration"
)

func (s *Session) setWaiting(w string) {
	s.smu.Lock()
	s.waiting = w
	s.smu.Unlock()
}

func (s *Session) waitingFor() string {
	s.smu.Lock()
	defer s.smu.Unlock()
	return s.waiting
}

// begun notes the start of a statement for V$SESSIONS.
func (s *Session) begun(text string) {
	if len(text) > 1000 {
		text = strings.ToValidUTF8(text[:1000], "")
	}
	now := time.Now()
	s.smu.Lock()
	s.sql, s.stmtStart, s.active = text, now, true
	s.statements++
	s.smu.Unlock()
	if !s.tx.active {
		s.txTime = now
	}
}

// resumed notes that a statement goes on.
func (s *Session) resumed() {
	s.smu.Lock()
	s.active = true
	s.smu.Unlock()
}

func (s *Session) finished() {
	s.smu.Lock()
	s.active = false
	s.smu.Unlock()
}

func (s *Session) describe() SessionInfo {
	st := s.TxStatus()
	s.smu.Lock()
	defer s.smu.Unlock()
	i := SessionInfo{ID: s.id, User: s.info.User, Database: s.info.Database, App: s.info.App, Address: s.info.RemoteAddr,
		State: "idle", Waiting: s.waiting, SQL: s.sql, Start: s.start, StmtStart: s.stmtStart,
		Statements: s.statements, Errors: s.errs, HoldsWriteLock: s.b.holder.Load() == s,
		TxID: s.trx.id, TxStart: s.trx.start}
	switch {
	case s.active:
		i.State = "active"
	case st == sqlapi.TxActive:
		i.State = "idle in transaction"
	case st == sqlapi.TxFailed:
		i.State = "idle in transaction (aborted)"
	}
	return i
}
