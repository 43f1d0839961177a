package session

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ncruces/go-sqlite3"

	"datawatch/internal/sql/dialect"
	"datawatch/internal/sql/sqlapi"
)

// Portal implements sqlapi.Portal.
type Portal struct {
	st     *Stmt
	s      *Session
	params []sqlapi.Value
	cur    *cursor // rows that are still to come
	count  int64
	cols   []sqlapi.Column // when more exact than the statement's
	ran    bool
	inner  *Portal // of EXECUTE: what it runs
}

// Columns implements sqlapi.Portal. In a simple query, where values travel as
// text whatever their type, expressions without a declared type take that of
// the first row: the query is started for that.
func (p *Portal) Columns() []sqlapi.Column {
	st := p.st
	s := p.s
	if p.cols != nil {
		return p.cols
	}
	if st.copy != nil {
		return nil
	}
	if len(st.guessed) == 0 || st.write || st.p.ForUpdate || p.ran {
		return st.cols
	}
	ctx := s.linked
	if ctx == nil {
		ctx = context.Background()
	}
	if s.enter(ctx) != nil {
		return st.cols
	}
	defer s.leave()
	if s.simple <= 0 || s.tx.failed {
		return st.cols
	}
	s.begun(st.text())
	s.timeout()
	defer s.finished()
	p.ran = true
	cur, err := p.open()
	if err != nil {
		p.cur = &cursor{s: s, err: s.mapError(err, st)}
		return st.cols
	}
	p.cur = cur
	s.track(cur)
	more := len(cur.rows) > 0
	kind := func(i int) sqlapi.Kind { return cur.rows[0].Kind(i) }
	if cur.cs != nil {
		if more, err = cur.next(); err != nil {
			err = s.mapError(err, st)
			cur.close()
			cur.err = err
			return st.cols
		}
		cur.primed = more
		kind = func(i int) sqlapi.Kind { return kindOf(cur.cs.s.ColumnType(i)) }
	}
	p.cols = append([]sqlapi.Column(nil), st.cols...)
	for _, i := range st.guessed {
		if !more {
			break
		}
		oid := uint32(dialect.Text)
		switch kind(i) {
		case sqlapi.Integer:
			oid = dialect.Int8
		case sqlapi.Float:
			oid = dialect.Float8
		case sqlapi.Blob:
			oid = dialect.Bytea
		}
		p.cols[i].OID, p.cols[i].Size = oid, dialect.SizeOf(oid)
	}
	return p.cols
}

// Close implements sqlapi.Portal.
func (p *Portal) Close() {
	if p.inner != nil {
		p.inner.Close()
	}
	if p.cur == nil {
		return
	}
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.cur.close()
	p.cur = nil
}

// Run implements sqlapi.Portal.
func (p *Portal) Run(ctx context.Context, maxRows int, row func(sqlapi.Row) error) (tag string, suspended bool, err error) {
	s := p.s
	if err := s.enter(ctx); err != nil {
		return "", false, err
	}
	defer s.leave()
	if p.cur == nil {
		s.begun(p.st.text())
	} else {
		s.resumed()
	}
	s.timeout()
	defer s.finished()
	tag, suspended, err = p.run(maxRows, row)
	defer func() {
		if suspended {
			return
		}
		s.noteSlow(p, tag, err)
		if s.tx.rec == nil { // they may be large, and a portal may stay
			p.params = nil
		}
	}()
	if err != nil {
		if p.cur != nil {
			p.cur.close()
		}
		if p.inner != nil && p.inner.cur != nil {
			p.inner.cur.close()
		}
		err = s.fail(err, p.st)
	}
	if s.simple > 0 && !suspended {
		if s.simple--; s.simple == 0 && err == nil && s.tx.active && s.tx.implicit {
			if err = s.fail(s.commit(), nil); err != nil {
				tag = ""
			}
		}
	}
	if e := s.ended(); e != nil && err == nil && s.term.Load() != nil {
		err = e
	}
	return tag, suspended, err
}

// text is the statement for V$SESSIONS; never one with a password.
func (st *Stmt) text() string {
	if st.p.Kind == dialect.Role {
		return st.p.Verb + " " + strings.Join(st.p.Role.Names, ", ")
	}
	return st.p.shown
}

func (p *Portal) run(maxRows int, row func(sqlapi.Row) error) (string, bool, error) {
	s, st := p.s, p.st
	if s.tx.failed && !endsFailed(st.p.Kind) {
		return "", false, s.aborted()
	}
	if p.inner != nil {
		return p.inner.run(maxRows, row)
	}
	if p.cur != nil {
		return p.fetch(maxRows, row)
	}
	if st.copy != nil && st.copy.In {
		return "", false, &sqlapi.Error{Code: "0A000", Message: "COPY FROM STDIN is not supported here"}
	}
	if p.ran {
		return "", false, &sqlapi.Error{Code: "55000", Message: "portal cannot be run any more"}
	}
	p.ran = true
	if st.p.Kind == dialect.Execute {
		inner, err := s.execute(st.p)
		if err != nil {
			return "", false, err
		}
		p.inner = inner
		return inner.run(maxRows, row)
	}
	if st.p.Kind != dialect.SQL {
		if st.p.Kind == dialect.Empty {
			return "", false, nil
		}
		tag, err := s.utility(p, row)
		return tag, false, err
	}
	if st.write || st.p.Temp {
		return p.write(maxRows, row)
	}
	cur, err := p.open()
	if err != nil {
		return "", false, err
	}
	p.cur = cur
	s.track(cur)
	return p.fetch(maxRows, row)
}

// open starts a reading statement on the connection it belongs to.
func (p *Portal) open() (*cursor, error) {
	s, st := p.s, p.st
	c, release, err := s.readConn(st)
	if err != nil {
		return nil, err
	}
	s.tx.ran = true
	cur := &cursor{s: s, c: c, release: release}
	cs, err := c.exact(st.p.SQL, len(st.cols)+st.p.Hidden)
	if err != nil {
		cur.close()
		return nil, s.notHere(c, st.p, err)
	}
	cur.cs = cs
	if s.tx.rec != nil && c == s.tx.c {
		n := c.natureOf(cs, st.p)
		if n == locking {
			cur.close()
			if _, err := s.upgrade(false); err != nil {
				return nil, err
			}
			return p.open()
		}
		if n == repeated {
			cur.step = s.tx.rec.begin(p, false)
		} else {
			s.tx.rec.now = nil
		}
	}
	if err := cs.bind(p.params); err != nil {
		cur.close()
		return nil, err
	}
	if rows, ok := p.scan(c, cs); ok {
		err := cur.close()
		cur.rows = rows
		return cur, err
	}
	if err := p.explainScan(c, cur); err != nil {
		cur.close()
		return nil, err
	}
	return cur, nil
}

func planChanged() error {
	return &sqlapi.Error{Code: "0A000", Message: "cached plan must not change result type",
		Hint: "A table of the statement was altered; prepare it again."}
}

// readConn is the connection for a statement that does not write.
func (s *Session) readConn(st *Stmt) (c *conn, release bool, err error) {
	if !s.b.tables() && s.tx.c == nil {
		if st.p.ForUpdate {
			return nil, false, s.b.notOpen()
		}
		c, err := s.b.empty.get(s.ctx)
		if err != nil {
			return nil, false, err
		}
		c.use(s)
		return c, true, nil
	}
	if s.tx.concurrent && !st.p.ForUpdate {
		if c, err := s.apart(); c != nil || err != nil {
			return c, false, err
		}
	}
	switch {
	case st.p.ForUpdate:
		if s.b.standby() {
			return nil, false, readOnlyError("standby", "SELECT FOR UPDATE")
		}
		if s.tx.active && s.tx.readOnly {
			return nil, false, readOnlyError("", "SELECT FOR UPDATE")
		}
		if !s.tx.active {
			break // nothing would be held after the statement
		}
		c, err := s.writeTx(st.p.NoWait)
		return c, false, err
	case s.tx.c != nil:
		s.tx.c.use(s)
		return s.tx.c, false, nil
	case s.tx.snapshot() && (s.tx.readOnly || s.b.standby()):
		c, err := s.pin()
		return c, false, err
	case s.tx.snapshot():
		c, err := s.writeTx(false)
		return c, false, err
	}
	if s.own != nil {
		s.own.use(s)
		return s.own, true, nil
	}
	c, err = s.reader()
	return c, true, err
}

// fetch delivers rows, up to maxRows.
func (p *Portal) fetch(maxRows int, row func(sqlapi.Row) error) (string, bool, error) {
	cur := p.cur
	if cur.err != nil {
		p.cur = nil
		return "", false, cur.err
	}
	n := 0
	for maxRows == 0 || n < maxRows {
		r, err := cur.row()
		if err != nil {
			return "", false, err
		}
		if err := p.s.waitSeen(); err != nil {
			return "", false, err
		}
		if r == nil {
			err := cur.close()
			p.cur = nil
			if err != nil {
				return "", false, err
			}
			return p.st.tag(p.count), false, nil
		}
		n++
		p.count++
		if err := row(r); err != nil {
			return "", false, err
		}
	}
	// Something is open: it must not get in the way of what the session does
	// next, so only a pooled reader keeps its place in the result.
	if cur.cs != nil && !(cur.release && cur.c.kind == readerConn) {
		if err := cur.materialise(); err != nil {
			return "", false, err
		}
	}
	if cur.cs == nil && len(cur.rows) == 0 {
		cur.close()
		p.cur = nil
		return p.st.tag(p.count), false, nil
	}
	return "", true, nil
}

// write runs a statement that changes something.
func (p *Portal) write(maxRows int, row func(sqlapi.Row) error) (string, bool, error) {
	s, st := p.s, p.st
	if s.tx.active && s.tx.readOnly && st.main {
		return "", false, readOnlyError("", st.p.Tag)
	}
	if s.b.standby() && st.main {
		return "", false, readOnlyError("standby", st.p.Tag)
	}
	if !s.b.tables() {
		return "", false, s.b.notOpen()
	}
	if st.p.Temp {
		if s.tx.rec != nil {
			if _, err := s.upgrade(false); err != nil {
				return "", false, err
			}
		}
		if err := s.ensureOwn(); err != nil {
			return "", false, err
		}
	}
	var rows []valueRow
	var n int64
	var err error
	switch {
	case !st.main && s.own != nil && (s.b.standby() || s.tx.readOnly || !s.tx.active && s.simple < 2):
		// Several statements in one simple query are a transaction, on a primary
		// with the lock, as the next may write the database. A series of the
		// extended protocol is one statement mostly, and does not wait for others.
		if !s.tx.active && s.simple > 1 {
			s.begin(dialect.Modes{}, true)
		}
		rows, n, err = p.writeTemp()
	case s.tx.concurrent && st.repeatable():
		rows, n, err = p.concurrently()
	case st.p.Sequences != nil || st.p.Moves && !st.p.Temp:
		err = s.atomic(st.p.Tag, func(c *conn) (err error) { rows, n, err = p.withSequences(c); return err })
	case st.records && !s.tx.active && s.simple == 1:
		// Owners and privileges change with it: a transaction of its own.
		err = s.atomic(st.p.Tag, func(c *conn) (err error) { rows, n, err = p.exec(c); return err })
	case s.tx.active || s.simple != 1:
		if !s.tx.active { // a series: it commits at Sync
			s.begin(dialect.Modes{}, true)
		}
		var c *conn
		if c, err = s.writeTx(false); err == nil {
			c.use(s)
			rows, n, err = p.exec(c)
		}
	default:
		rows, n, err = p.autocommit()
	}
	if err != nil {
		return "", false, err
	}
	p.count = 0
	if st.cols == nil {
		return st.tag(n), false, nil
	}
	p.cur = &cursor{s: s, rows: rows}
	s.track(p.cur)
	tag, suspended, err := p.fetch(maxRows, row)
	return tag, suspended, err
}

// autocommit runs the statement as a transaction of its own: lock, run, unlock,
// wait until it is hardened.
func (p *Portal) autocommit() ([]valueRow, int64, error) {
	s := p.s
	if s.vars.get("default_transaction_read_only") == "on" && p.st.main {
		return nil, 0, readOnlyError("", p.st.p.Tag)
	}
	if s.own == nil && p.st.shared() {
		j := newJob(p)
		switch mine, err := s.enterGate(j); {
		case err != nil:
			return nil, 0, err
		case mine:
			s.b.runJobs(j)
		}
		if j.err != nil {
			s.seen = j.lsn
			return nil, 0, j.err
		}
		return j.rows, j.n, s.waitHardened(j.lsn)
	}
	c, err := s.lockWrite(s.own, false)
	if err != nil {
		return nil, 0, err
	}
	rows, n, err := p.exec(c)
	lsn := s.unlockWrite(c)
	if err != nil {
		return nil, 0, err
	}
	return rows, n, s.waitHardened(lsn)
}

// writeTemp changes temporary tables only: no lock, nothing to harden.
func (p *Portal) writeTemp() ([]valueRow, int64, error) {
	s := p.s
	c := s.own
	c.use(s)
	if s.tx.active && s.tx.c == nil {
		if _, err := s.pin(); err != nil {
			return nil, 0, err
		}
	}
	rows, n, err := p.exec(c)
	if s.tx.c != c {
		c.unuse()
	}
	return rows, n, err
}

// exec runs a writing statement to its end; its rows are kept.
func (p *Portal) exec(c *conn) (rows []valueRow, n int64, err error) {
	s, st := p.s, p.st
	s.tx.ran = true
	cs, err := c.exact(st.p.SQL, len(st.cols)+st.p.Hidden)
	if err != nil {
		return nil, 0, err
	}
	if c.kind == privateConn && c.natureOf(cs, st.p) == locking {
		c.trapped = true
		c.done(cs)
		return nil, 0, errTrapped
	}
	if err := cs.bind(p.params); err != nil {
		c.done(cs)
		return nil, 0, err
	}
	var done func() error // what else the statement changes
	if cs.rec.records() {
		if done, err = s.record(c, cs); err != nil {
			c.done(cs)
			return nil, 0, err
		}
	}
	before := int64(0)
	if !st.p.Rows {
		before = c.db.TotalChanges()
	}
	kept := s.b.keep()
	for {
		var more bool
		if more, err = c.step(cs); err != nil || !more {
			break
		}
		if cs.s.DataCount() != cs.ncols {
			c.forget(cs)
			return nil, 0, planChanged()
		}
		if err := kept.add(copyRow(cs.s, cs.ncols)); err != nil {
			c.undo(cs)
			return nil, 0, err
		}
	}
	rows = kept.rows
	if err == nil {
		if st.p.Rows {
			n = c.db.Changes()
		} else {
			n = c.db.TotalChanges() - before
		}
	} else if c.file != nil {
		err = s.storeError(c, err)
	}
	schema, main := cs.rec.schema, cs.rec.main
	c.done(cs)
	if err == nil && done != nil {
		err = done()
	}
	if schema {
		if c.ddl = true; main {
			c.changed()
			s.b.schemaGen.Add(1)
		}
		c.flush()
	}
	if err != nil && errors.Is(err, sqlite3.BUSY_SNAPSHOT) {
		// Cannot happen while the write lock is held; never shown as such.
		err = fmt.Errorf("internal: stale snapshot under the write lock: %w", err)
	}
	return rows, n, err
}
