package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/sql/dialect"
	"datawatch/internal/sql/sqlapi"
)

// txn is the transaction of a session. A transaction that has not written has
// no connection: in READ COMMITTED each of its statements has its own.
type txn struct {
	active   bool
	id       uint64 // for V$TRX
	implicit bool   // of a series up to Sync, or of a simple query with several statements
	failed   bool
	reason   string // why it was rolled back from outside
	told     bool   // and the client knows
	iso      string
	readOnly bool
	ran      bool // a query has run: the isolation level is fixed

	begun      bool       // as a concurrent one, which the next one of AND CHAIN is too
	concurrent bool       // it is to do without the write lock until its commit
	rec        *recording // and does: what it has done so far; c is a private connection

	c      *conn    // where it runs, once it has a connection of its own
	locked bool     // c has the write lock
	base   base.LSN // with locked: the newest commit that it could see; 0: all are hardened
	ddl    base.LSN // and the newest that changed the schema
	saves  []string
	vars   *vars // values before the transaction, for ROLLBACK
}

const serializable = "serializable"

// snapshot reports whether the transaction wants one snapshot for all of it.
func (t *txn) snapshot() bool {
	return t.active && (t.iso == serializable || t.iso == "repeatable read")
}

func (s *Session) begin(m dialect.Modes, implicit bool) {
	s.tx = txn{active: true, id: s.b.trxID.Add(1), implicit: implicit, iso: s.vars.get("default_transaction_isolation"),
		readOnly: s.vars.get("default_transaction_read_only") == "on", vars: s.vars.clone()}
	if !implicit && m.Isolation == "" && (m.ReadOnly == nil || !*m.ReadOnly) && !s.tx.snapshot() && !s.tx.readOnly && s.defaultConcurrent() && !s.b.noWrites() {
		m.Concurrent = true
	}
	s.setModes(m)
	s.setStatus()
}

func (s *Session) setModes(m dialect.Modes) {
	if m.Isolation != "" {
		s.tx.iso, s.tx.concurrent, s.tx.begun = m.Isolation, false, false
	}
	if m.Concurrent {
		s.tx.iso, s.tx.concurrent, s.tx.begun = serializable, true, true
	}
	if m.ReadOnly != nil {
		s.tx.readOnly = *m.ReadOnly
	}
	s.noteTrx()
}

// lockWrite takes the write lock for c, or for the writer connection when c is
// nil, and returns the connection that has it.
func (s *Session) lockWrite(c *conn, noWait bool) (*conn, error) {
	b := s.b
	if !b.gate.tryLock() {
		if noWait {
			return nil, &sqlapi.Error{Code: "55P03", Message: "could not obtain the write lock"}
		}
		if _, err := s.enterGate(nil); err != nil {
			return nil, err
		}
	}
	c, err := s.lockStore(c)
	if err != nil {
		b.gate.unlock()
		return nil, err
	}
	return c, nil
}

// enterGate waits for the gate, or until j has been run: then mine is false.
func (s *Session) enterGate(j *job) (mine bool, err error) {
	limit := orServer(s.vars.own().lock, s.b.limits.Load().Lock)
	s.setWaiting(waitLock)
	if s.turn == nil {
		s.turn = make(chan bool, 1)
	}
	mine, err = s.b.gate.enter(s.ctx, limit, waiter{turn: s.turn, job: j})
	s.setWaiting("")
	if errors.Is(err, errGateTimeout) {
		s.b.counts.lockTimeouts.Add(1)
		err = &sqlapi.Error{Code: "55P03", Message: "canceling statement due to lock timeout",
			Detail: fmt.Sprintf("Other transactions held the write lock for more than %v.", limit)}
	}
	return mine, err
}

// lockStore does the part of lockWrite that runs with the gate held.
func (s *Session) lockStore(c *conn) (*conn, error) {
	b := s.b
	if !b.tables() {
		return nil, b.notOpen()
	}
	if b.standby() {
		return nil, readOnlyError("standby", "")
	}
	if c == nil {
		if b.writer != nil && b.writer.worn() {
			b.writer.close()
			b.writer = nil
		}
		if b.writer == nil {
			w, err := b.open(writerConn)
			if err != nil {
				return nil, err
			}
			b.writer = w
		}
		c = b.writer
	}
	if err := b.cfg.DB.LockWrite(s.ctx, c.h); err != nil {
		return nil, fmt.Errorf("take the write lock: %w", err)
	}
	c.use(s)
	c.locked = true
	b.holder.Store(s)
	return c, nil
}

// unlockWrite gives the write lock back and returns the LSN that whatever the
// session did or saw needs hardened.
func (s *Session) unlockWrite(c *conn) base.LSN {
	s.seen = s.b.release(c)
	s.b.gate.unlock()
	return s.seen
}

// release undoes lockStore. The LSN is that of unlockWrite.
func (b *Backend) release(c *conn) base.LSN {
	if err := c.rollback(); err != nil || !c.db.GetAutocommit() {
		c.old = true
		b.log.Error("rollback failed; the connection is replaced", "err", err)
	}
	c.unuse()
	c.locked = false
	c.seqEnd()
	ddl := c.ddl
	if ddl {
		c.ddl, c.dirty, c.mine = false, false, nil
		c.flush()
	}
	if lsn := uint64(c.h.LastCommit()); lsn > b.lastLSN.Load() {
		b.lastLSN.Store(lsn)
	}
	lsn := base.LSN(b.lastLSN.Load())
	if ddl {
		b.ddlLSN.Store(uint64(lsn))
	}
	b.holder.Store(nil)
	b.cfg.DB.UnlockWrite(c.h)
	if c == b.writer && c.worn() { // not the next time: it may be large
		c.close()
		b.writer = nil
	}
	return lsn
}

// waitHardened waits until a commit cannot be lost any more (G1).
func (s *Session) waitHardened(lsn base.LSN) error {
	s.seen = 0
	if lsn == 0 {
		return nil
	}
	s.setWaiting(waitHardened)
	defer s.setWaiting("")
	if err := s.b.cfg.DB.WaitHardened(s.ctx, lsn); err != nil {
		cause := context.Cause(s.ctx)
		if e := s.term.Load(); e != nil {
			x := *e
			x.Detail = "The outcome of the commit is not known."
			return &x
		}
		if cause != nil {
			return &sqlapi.Error{Code: "08007", Message: "canceled while waiting for the commit to be secured",
				Detail: "The transaction is committed here but not yet secured: it becomes visible when it is, or is lost if another database takes over before."}
		}
		return &sqlapi.Error{Code: "08007", Message: "the outcome of the commit is not known", Detail: err.Error()}
	}
	s.committed()
	if s.b.leaseOver != nil && s.b.leaseOver() {
		return &sqlapi.Error{Code: "08007", Message: "the outcome of the commit is not known",
			Detail: "This database stood still when it was about to acknowledge the commit; another one may have taken over, which has the commit then."}
	}
	return nil
}

// waitSeen waits, before a row or the end of rows goes to the client, until the
// commits are hardened that it comes from: a transaction with the write lock
// works on the newest pages, and a client must not see what could still be lost
// (G2). What it reads is mostly older, and then it need not wait.
func (s *Session) waitSeen() error {
	lsn := s.tx.sees()
	if lsn == 0 || lsn <= s.b.cfg.DB.Hardened() {
		return nil
	}
	s.setWaiting(waitRows)
	defer s.setWaiting("")
	if err := s.b.cfg.DB.WaitHardened(s.ctx, lsn); err != nil {
		if cause := context.Cause(s.ctx); cause != nil {
			return cause
		}
		return fmt.Errorf("wait until the rows are secured: %w", err)
	}
	return nil
}

// sees returns what must be hardened for the client to know what the transaction
// has read under the write lock: the changes of the pages that it read, and of
// the schema, which the connection remembers.
func (t *txn) sees() base.LSN {
	if !t.locked || t.base == 0 {
		return 0
	}
	return min(t.base, max(t.c.h.Seen(), t.ddl))
}

// errorSeen returns e when everything is hardened that the failed statement has
// looked at under the write lock: a duplicate key says that the other row is
// there, a missing table that somebody has dropped it (G2). When that cannot be
// waited for, the client is told so and nothing of what was seen.
func (s *Session) errorSeen(e error) error {
	lsn := s.seen
	if s.seen = 0; lsn == 0 {
		return e
	}
	s.setWaiting(waitRows)
	err := s.b.cfg.DB.WaitHardened(s.ctx, lsn)
	s.setWaiting("")
	switch cause := context.Cause(s.ctx); {
	case err == nil:
		return e
	case cause != nil: // mapError knows who ended it
		return s.mapError(cause, nil)
	default:
		return s.mapError(fmt.Errorf("wait until what the statement has seen is secured: %w", err), nil)
	}
}

// writeTx makes the session's transaction a writing one: the write lock, on a
// fresh snapshot, to its end.
func (s *Session) writeTx(noWait bool) (*conn, error) {
	if s.tx.locked {
		return s.tx.c, nil
	}
	if s.tx.rec != nil {
		return s.upgrade(noWait)
	}
	if s.tx.c != nil && s.tx.c != s.own { // a pinned snapshot cannot write
		return nil, readOnlyError("", "")
	}
	c, err := s.beginWrite(noWait)
	if err != nil {
		return nil, err
	}
	for _, n := range s.tx.saves {
		if err := c.run("SAVEPOINT " + dialect.QuoteName(n)); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// beginWrite takes the write lock for the session's transaction and begins on the
// newest state.
func (s *Session) beginWrite(noWait bool) (*conn, error) {
	c, err := s.lockWrite(s.own, noWait)
	if err != nil {
		return nil, err
	}
	last, err := s.forgetSeen(c)
	if err == nil {
		err = c.run("BEGIN IMMEDIATE")
	}
	if err != nil {
		s.unlockWrite(c)
		return nil, err
	}
	s.tx.c, s.tx.locked, s.tx.base, s.tx.ddl = c, true, last, base.LSN(s.b.ddlLSN.Load())
	if s.tx.concurrent {
		s.noteTrx() // it has come to nothing
	}
	return c, nil
}

// forgetSeen prepares a connection that has the write lock for a transaction
// whose client learns of rows before it ends (sees): its cache may hold pages of
// commits that are not hardened, and what is read from there nobody counts. It
// returns the newest commit, 0 when all are hardened.
func (s *Session) forgetSeen(c *conn) (base.LSN, error) {
	last := base.LSN(s.b.lastLSN.Load())
	if last <= s.b.cfg.DB.Hardened() {
		return 0, nil
	}
	if err := c.db.ReleaseMemory(); err != nil {
		return 0, fmt.Errorf("empty the page cache: %w", err)
	}
	c.h.ForgetSeen()
	return last, nil
}

// pin gives the transaction one snapshot for all of it.
func (s *Session) pin() (*conn, error) {
	if s.tx.c != nil {
		return s.tx.c, nil
	}
	c := s.own
	if c == nil {
		var err error
		if c, err = s.reader(); err != nil {
			return nil, err
		}
	} else {
		c.use(s)
	}
	err := c.run("BEGIN")
	if err == nil {
		err = c.run("SELECT 1 FROM sqlite_schema LIMIT 1")
	}
	for _, n := range s.tx.saves {
		if err == nil {
			err = c.run("SAVEPOINT " + dialect.QuoteName(n))
		}
	}
	if err != nil {
		c.rollback()
		s.giveBack(c)
		return nil, err
	}
	s.tx.c = c
	s.notePinned(true)
	return c, nil
}

// reader takes a pooled connection.
func (s *Session) reader() (*conn, error) {
	s.setWaiting(waitConn)
	c, err := s.b.readers.get(s.ctx)
	s.setWaiting("")
	if err != nil {
		return nil, err
	}
	c.use(s)
	return c, nil
}

// giveBack returns a connection taken by reader, or ends the use of own.
func (s *Session) giveBack(c *conn) {
	c.unuse()
	switch {
	case c == s.own:
	case c.kind == emptyConn:
		s.b.empty.put(c)
	case c.kind == privateConn:
		s.b.private.put(c)
	default:
		s.b.readers.put(c)
	}
}

// ensureOwn gives the session a connection of its own, for TEMP objects.
func (s *Session) ensureOwn() error {
	if s.own != nil {
		return nil
	}
	if s.tx.locked { // the transaction is on the writer connection: keep it
		s.own = s.tx.c
		s.b.writer = nil // we have the gate
		return nil
	}
	if s.tx.c != nil {
		return &sqlapi.Error{Code: "25001", Message: "temporary objects cannot be created after the first query of a transaction with one snapshot"}
	}
	c, err := s.b.open(writerConn)
	if err != nil {
		return err
	}
	s.own = c
	return nil
}

// commit ends the transaction well; it returns when the commit is hardened.
func (s *Session) commit() error {
	s.closeCursors()
	t := s.tx
	if t.rec != nil {
		return s.commitConcurrent()
	}
	if t.c != nil && !t.locked {
		err := t.c.run("COMMIT")
		if err != nil {
			t.c.rollback()
		}
		s.giveBack(t.c)
		s.tx.c = nil
		s.notePinned(false)
		s.endTx(err == nil)
		return err
	}
	if !t.locked {
		s.endTx(true)
		return nil
	}
	err := t.c.seqCommit()
	if err == nil {
		err = t.c.run("COMMIT")
	}
	if err != nil && t.c.file != nil {
		err = s.storeError(t.c, err)
	}
	s.tx.c, s.tx.locked = nil, false
	lsn := s.unlockWrite(t.c)
	s.endTx(err == nil)
	if err != nil {
		return err
	}
	return s.waitHardened(lsn)
}

// rollbackTx ends the transaction, undoing it.
func (s *Session) rollbackTx() {
	s.closeCursors()
	s.releaseTx()
	if s.tx.active {
		s.endTx(false)
	}
	s.setStatus()
}

// releaseTx rolls back on the connection and gives it up; the session still
// counts as being in a transaction.
func (s *Session) releaseTx() {
	s.closeCursors()
	c := s.tx.c
	if c == nil {
		return
	}
	locked := s.tx.locked
	s.tx.c, s.tx.locked, s.tx.rec = nil, false, nil
	if locked {
		s.unlockWrite(c)
		return
	}
	s.notePinned(false)
	if err := c.rollback(); err != nil {
		c.old = true
	}
	s.giveBack(c)
}

// endTx forgets the transaction.
func (s *Session) endTx(committed bool) {
	before := s.tx.vars
	s.tx, s.named = txn{}, nil
	s.noteTrx()
	if before != nil {
		s.vars.end(before, committed, s.changed)
		if len(s.me.ids) > 1 { // there was a SET ROLE
			s.assumed()
		}
	}
	s.setStatus()
}

// savepoint, release and rollbackTo are PostgreSQL's: a name may be used again,
// the newest one counts.
func (s *Session) savepoint(name string) error {
	if s.tx.c != nil {
		if err := s.tx.c.run("SAVEPOINT " + dialect.QuoteName(name)); err != nil {
			return err
		}
	}
	s.tx.rec.mark("SAVEPOINT ", name)
	s.tx.saves = append(s.tx.saves, name)
	return nil
}

func (s *Session) findSave(name string) int {
	for i := len(s.tx.saves) - 1; i >= 0; i-- {
		if strings.EqualFold(s.tx.saves[i], name) {
			return i
		}
	}
	return -1
}

func noSavepoint(name string) error {
	return &sqlapi.Error{Code: "3B001", Message: fmt.Sprintf("savepoint %q does not exist", name)}
}

func (s *Session) release(name string) error {
	i := s.findSave(name)
	if i < 0 {
		return noSavepoint(name)
	}
	if s.tx.c != nil {
		if err := s.tx.c.run("RELEASE " + dialect.QuoteName(name)); err != nil {
			return err
		}
	}
	s.tx.rec.mark("RELEASE ", name)
	s.tx.saves = s.tx.saves[:i]
	return nil
}

func (s *Session) rollbackTo(name string) error {
	i := s.findSave(name)
	if i < 0 {
		return noSavepoint(name)
	}
	s.closeCursors()
	s.named = nil
	if s.tx.reason != "" {
		return s.aborted()
	}
	if s.tx.c != nil {
		if s.tx.c.db.GetAutocommit() {
			// SQLite gave the whole transaction up (interrupted in a write, disk full).
			s.tx.reason, s.tx.told = "the statement that failed ended the whole transaction", true
			s.releaseTx()
			return s.aborted()
		}
		if err := s.tx.c.run("ROLLBACK TO " + dialect.QuoteName(name)); err != nil {
			return err
		}
		if s.tx.c.ddl {
			s.tx.c.flush()
			s.tx.c.mine = nil
		}
	}
	s.tx.rec.mark("ROLLBACK TO ", name)
	s.tx.saves = s.tx.saves[:i+1]
	s.tx.failed = false
	s.setStatus()
	return nil
}

// aborted refuses a statement in a failed transaction. The first after the
// transaction was rolled back from outside, be it COMMIT, says so: a client that
// has seen no error yet takes the tag ROLLBACK for success, or a 25P02 for a
// mistake of its own.
func (s *Session) aborted() *sqlapi.Error {
	if s.tx.reason != "" && !s.tx.told {
		s.tx.told = true
		return &sqlapi.Error{Code: codeEnded, Message: "the transaction was rolled back: " + s.tx.reason}
	}
	e := &sqlapi.Error{Code: "25P02", Message: "current transaction is aborted, commands ignored until end of transaction block"}
	if s.tx.reason != "" {
		e.Detail = "The transaction was rolled back: " + s.tx.reason + "."
	}
	return e
}

func readOnlyError(where, verb string) *sqlapi.Error {
	if verb == "" {
		verb = "this statement"
	}
	e := &sqlapi.Error{Code: "25006", Message: "cannot execute " + verb + " in a read-only transaction"}
	if where == "standby" {
		e.Detail = "The database is a standby."
	}
	return e
}

// storeError puts the store's own error, with its code, in the place of
// SQLite's number.
func (s *Session) storeError(c *conn, err error) error {
	if se := c.file.Err(); se != nil {
		return errors.Join(err, se)
	}
	return err
}

// now is the time of the transaction.
func (s *Session) now() time.Time {
	if s.txTime.IsZero() {
		return time.Now()
	}
	return s.txTime
}
