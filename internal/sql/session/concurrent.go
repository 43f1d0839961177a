package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"datawatch/internal/sql/sqlapi"
)

// Concurrent transactions (docs/decisions/0006-concurrent-transactions.md). One
// works on a connection of its own: it reads one hardened snapshot and its own
// changes (G2), blocks nobody and waits for nobody. Its session records each
// statement with what the client was told of it. COMMIT takes the write lock for
// a moment and executes the statements again, on the newest state: when every
// one of them answers as before, the transaction might as well have run then,
// alone, and is committed so; otherwise it comes to nothing (40001).
//
// What cannot be repeated, or needs the lock itself, makes the transaction an
// ordinary one first: it takes the lock, executes what it has done so far again,
// and keeps the lock to its end (upgrade). Every path to the lock leads through
// writeTx, which does that.

const (
	// privatePatience is how long a transaction waits for a private connection
	// before it takes the write lock instead.
	privatePatience = 250 * time.Millisecond
	// What a transaction may record; beyond it is upgraded.
	maxSteps    = 1000
	maxRecorded = 4 << 20 // bytes
	maxDrawn    = 10_000  // values, of one statement
	maxPrivate  = 4096    // pages written beside the connection's cache
	// quickSteps is the largest transaction that is committed together with others.
	quickSteps = 64
)

// nature is what a concurrent transaction has to do about a statement.
type nature uint8

const (
	repeated nature = iota + 1 // it is recorded
	skipped                    // it tells nothing of the data: it need not be
	locking                    // it cannot be repeated
)

// unsteady functions may answer differently the next time; stateful ones tell
// of, or change, the connection or the session.
var (
	unsteady = wordSet("random randomblob date time datetime julianday strftime unixepoch timediff pg_sleep pg_cancel_backend pg_terminate_backend " +
		"pg_blocking_pids current_setting currval lastval pg_reload_conf pg_rotate_logfile")
	stateful = wordSet("last_insert_rowid changes total_changes set_config setval")
)

func wordSet(list string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(list) {
		m[w] = true
	}
	return m
}

// defaultConcurrent is default_transaction_concurrent.
func (s *Session) defaultConcurrent() bool {
	if s.vars.isSet("default_transaction_concurrent") {
		return s.vars.get("default_transaction_concurrent") == "on"
	}
	return s.b.limits.Load().Concurrent
}

// natureOf judges a statement by what it was seen to touch when it was compiled.
func (c *conn) natureOf(cs *cstmt, p *parsed) nature {
	if cs.nature == 0 {
		data, status := false, false
		for _, u := range cs.rec.uses {
			switch {
			case u.op == useAdmin && strings.HasPrefix(u.table, ofSQLite):
				data = true
			case u.op > useDelete:
			case c.tells(u.table):
				status = true
			default:
				data = true
			}
		}
		odd := cs.rec.unsteady || status
		switch {
		case cs.rec.state, odd && !cs.readOnly, odd && data:
			cs.nature = locking
		case !cs.readOnly:
			cs.nature = repeated
		case !data, p.Tag == "PRAGMA", p.Tag == "EXPLAIN":
			cs.nature = skipped // the schema is compared anyway
		default:
			cs.nature = repeated
		}
	}
	return cs.nature
}

// tells reports whether a table is one of the server's views of itself.
func (c *conn) tells(table string) bool {
	n := strings.ToLower(table)
	if !strings.HasPrefix(n, "v$") && !strings.HasPrefix(n, "pg_") && !strings.HasPrefix(n, "information_schema") {
		return false
	}
	rows, err := c.query("SELECT 1 FROM main.sqlite_schema WHERE lower(name) = $1", textValue(n))
	return err == nil && len(rows) == 0
}

// repeatable reports whether a writing statement may be executed twice. The key
// that an INSERT made is another one the second time, which does not matter as
// long as the client has not seen it.
func (st *Stmt) repeatable() bool {
	return st.shared() && !st.p.Temp && st.p.Sequences == nil && !st.p.Moves && !st.records && !(st.p.Tag == "INSERT" && st.cols != nil)
}

// apart returns the private connection of a concurrent transaction, with the
// first statement a new one; nil when the transaction has to do without.
func (s *Session) apart() (*conn, error) {
	t := &s.tx
	switch {
	case t.rec != nil && t.rec.full():
		return s.upgrade(false)
	case t.rec != nil:
		t.c.use(s)
		return t.c, nil
	case t.c != nil, t.readOnly, s.own != nil, s.b.noWrites(), !s.b.tables():
		return nil, nil
	}
	s.setWaiting(waitConn)
	c, err := s.b.private.get(s.ctx)
	s.setWaiting("")
	if errors.Is(err, errPoolBusy) {
		s.b.counts.concurrentBusy.Add(1)
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	c.use(s)
	r := &recording{}
	if err = c.run("BEGIN IMMEDIATE"); err == nil {
		r.cookie, err = c.cookie()
	}
	for _, n := range t.saves {
		if err == nil {
			err = c.run("SAVEPOINT " + quoted(n))
			r.mark("SAVEPOINT ", n)
		}
	}
	if err != nil {
		c.old = c.rollback() != nil
		s.giveBack(c)
		return nil, err
	}
	t.c, t.rec, t.ran = c, r, true
	s.notePinned(true)
	return c, nil
}

// leavePrivate undoes what the transaction has done on its connection, and gives
// the connection back.
func (s *Session) leavePrivate() *recording {
	c, r := s.tx.c, s.tx.rec
	s.tx.c, s.tx.rec = nil, nil
	s.notePinned(false)
	if err := c.rollback(); err != nil || r.pages > maxPrivate {
		c.old = true
	}
	s.giveBack(c)
	return r
}

// concurrently executes a writing statement of a concurrent transaction.
func (p *Portal) concurrently() ([]valueRow, int64, error) {
	s := p.s
	c, err := s.apart()
	if err != nil {
		return nil, 0, err
	}
	if s.tx.rec != nil {
		rows, n, err := p.recorded(c)
		if !errors.Is(err, errTrapped) {
			return rows, n, err
		}
	}
	if c, err = s.writeTx(false); err != nil {
		return nil, 0, err
	}
	c.use(s)
	return p.exec(c)
}

// recorded executes a writing statement on the private connection; errTrapped
// says that it has to be done with the lock, and has done nothing yet.
func (p *Portal) recorded(c *conn) ([]valueRow, int64, error) {
	s, r := p.s, p.s.tx.rec
	st := r.begin(p, true)
	c.trapped = false
	start := time.Now()
	rows, count, err := p.exec(c)
	r.took += time.Since(start)
	r.pages += c.file.Written()
	r.now = nil
	if c.trapped { // the record goes on without it
		c.trapped = false
		r.steps = r.steps[:len(r.steps)-1]
		return nil, 0, errTrapped
	}
	if err != nil {
		st.failed(s, err)
		return nil, 0, err
	}
	st.done(rows, count, len(p.st.cols))
	return rows, count, nil
}

// errTrapped is the error of a function that cannot be repeated and that nobody
// could see in the statement: it stands in a default or a trigger.
var errTrapped = errors.New("not to be repeated")

// trapped is called when a query has drawn more values than are remembered. As
// long as nobody has seen a row of it, it is done with the lock instead.
func (cur *cursor) trapped() (more bool, err error) {
	s, st := cur.s, cur.step
	r := s.tx.rec
	cur.c.trapped = false
	cur.close()
	last := len(r.steps) - 1
	if st.rows > 0 || r.steps[last] != st {
		return false, &sqlapi.Error{Code: "53400", Message: fmt.Sprintf("a query of a concurrent transaction draws more than %d values of clock_timestamp, gen_random_uuid or nextval", maxDrawn),
			Hint: "Use a transaction that is not concurrent."}
	}
	r.steps = r.steps[:last]
	if _, err := s.upgrade(false); err != nil {
		return false, err
	}
	again, err := st.p.open()
	if err != nil {
		return false, err
	}
	*cur = *again
	s.track(cur)
	return cur.next()
}

// upgrade makes a concurrent transaction an ordinary one: it takes the write
// lock and does again on the newest state what it has done so far.
func (s *Session) upgrade(noWait bool) (*conn, error) {
	r := s.leavePrivate()
	s.tx.concurrent = false
	s.noteTrx()
	s.b.counts.upgrades.Add(1)
	c, err := s.beginWrite(noWait)
	if err == nil {
		if err = s.repeat(c, r, ""); err == nil {
			return c, nil
		}
		err = s.storeError(c, err)
		s.seen = max(s.seen, s.tx.sees())
	}
	// Nothing is left of the transaction: there is nothing to go back to.
	if errors.Is(err, errConflict) {
		s.b.counts.conflicts.Add(1)
	}
	seen := s.seen
	s.tx.reason, s.tx.told = "it could not be continued with the write lock", true
	s.releaseTx()
	s.seen = seen
	return nil, err
}

// commitConcurrent commits a concurrent transaction.
func (s *Session) commitConcurrent() error {
	r := s.leavePrivate()
	if !r.writes { // it has read one state, and was right about that
		s.endTx(true)
		return nil
	}
	j := &job{s: s, rec: r, quick: r.took < quickTime && len(r.steps) <= quickSteps}
	mine, err := s.enterGate(j)
	if err == nil {
		if mine {
			s.b.runJobs(j)
		}
		err = j.err
	}
	s.endTx(err == nil)
	if err != nil {
		if errors.Is(err, errConflict) {
			s.b.counts.conflicts.Add(1)
		}
		s.seen = j.lsn
		return err
	}
	s.b.counts.concurrentCommits.Add(1)
	return s.waitHardened(j.lsn)
}

// within does the transaction again as a part of the common one under way; when
// that fails, nothing of it is left there.
func (s *Session) within(c *conn, r *recording) error {
	const mark = "dw_job" // those of the client begin with "s."
	if err := c.run("SAVEPOINT " + mark); err != nil {
		return err
	}
	err := s.repeat(c, r, "s.")
	if err != nil {
		if c.db.GetAutocommit() {
			return err // the whole common transaction is gone
		}
		ctx := c.db.SetInterrupt(context.Background())
		defer c.db.SetInterrupt(ctx)
		if e := c.run("ROLLBACK TO " + mark); e != nil {
			c.old = true
			return errors.Join(err, e)
		}
	}
	if e := c.run("RELEASE " + mark); e != nil {
		c.old = true
		err = errors.Join(err, e)
	}
	return err
}

// wholly does the transaction again as one of its own, and commits it.
func (s *Session) wholly(c *conn, r *recording) error {
	err := c.run("BEGIN IMMEDIATE")
	if err == nil {
		err = s.repeat(c, r, "")
	}
	if err == nil {
		err = c.seqCommit()
	}
	if err == nil {
		err = c.run("COMMIT")
	}
	if err != nil {
		err = s.storeError(c, err)
	}
	return err
}

// harmless parameters change no answer.
var harmless = map[string]bool{"application_name": true, "client_min_messages": true, "extra_float_digits": true}

// steady is called before a parameter changes: statements that were executed
// with the old value are not executed again with the new one.
func (s *Session) steady(name string) error {
	if s.tx.rec == nil || len(s.tx.rec.steps) == 0 || harmless[name] || strings.HasSuffix(name, "_timeout") {
		return nil
	}
	_, err := s.upgrade(false)
	return err
}

// draw returns a value that cannot be foretold. In a concurrent transaction it is
// recorded, and is the same when the statement is repeated: so a client may know
// the number of a row, or its UUID, before the transaction is committed.
func (c *conn) draw(what string, fresh func() (sqlapi.Value, error)) (sqlapi.Value, error) {
	s := c.sess.Load()
	if s == nil {
		return fresh()
	}
	if st := s.again; st != nil {
		if st.at < len(st.drawn) && st.drawn[st.at].what == what {
			st.at++
			return st.drawn[st.at-1].v, nil
		}
		return fresh()
	}
	if c.kind != privateConn || s.tx.rec == nil || s.tx.rec.now == nil {
		return fresh()
	}
	st := s.tx.rec.now
	if len(st.drawn) >= maxDrawn {
		c.trapped = true
		return sqlapi.Value{}, errTrapped
	}
	v, err := fresh()
	if err == nil {
		st.drawn = append(st.drawn, drawn{what, v})
		s.tx.rec.bytes += 64
	}
	return v, err
}
