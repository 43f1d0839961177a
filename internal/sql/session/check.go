package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/sql/dialect"
	"datawatch/internal/sql/sqlapi"
)

// CHECK DATABASE reads everything and reports what is damaged; it repairs
// nothing. First the checksum of every page of the data file, then SQLite's own
// check of tables, indexes and constraints, on a snapshot: readers and writers
// go on, on a primary and on a standby alike, and the old versions of pages that
// the snapshot needs stay in memory until it is done.

// maxProblems bounds what is kept and reported of one check.
const maxProblems = 1000

// Problem is one thing that a check found.
type Problem struct {
	What   string // page, structure
	Object string // table or index, "" when not known
	Page   uint32 // 0: not known
	Offset int64  // in the data file, with Page
	Text   string
}

// CheckStatus is what is known of the check under way, or of the last one.
type CheckStatus struct {
	State       string // RUNNING, OK, DAMAGED, CANCELLED, FAILED; "" when there was none
	Phase       string // pages, structure
	Session     uint32
	User        string
	Start, End  time.Time
	LSN         base.LSN // of the snapshot that was checked
	Done, Total uint32   // pages, of the phase
	Problems    []Problem
	More        int    // problems beyond those
	Error       string // with FAILED
}

// Count is the number of problems.
func (c *CheckStatus) Count() int { return len(c.Problems) + c.More }

type dbCheck struct {
	running sync.Mutex // held by the check under way
	done    atomic.Uint32

	mu sync.Mutex
	st CheckStatus
}

func (c *dbCheck) change(f func(*CheckStatus)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.st)
}

func (c *dbCheck) found(p Problem) {
	c.change(func(st *CheckStatus) {
		if len(st.Problems) < maxProblems {
			st.Problems = append(st.Problems, p)
		} else {
			st.More++
		}
	})
}

// LastCheck tells of the check under way, or of the last one since the start.
func (b *Backend) LastCheck() CheckStatus {
	c := &b.check
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.st
	st.Problems = append([]Problem(nil), st.Problems...)
	if st.State == "RUNNING" {
		st.Done = min(c.done.Load(), st.Total)
	}
	return st
}

// pageChecker is a database whose pages can be verified.
type pageChecker interface {
	CheckPages(ctx context.Context, progress func(done, total uint32), bad func(page uint32, offset int64, err error)) error
}

var checkColumns = []sqlapi.Column{textColumn("what"), textColumn("object"), {Name: "page", OID: dialect.Int8, Size: 8, TypeMod: -1},
	{Name: "file_offset", OID: dialect.Int8, Size: 8, TypeMod: -1}, textColumn("message")}

// checkStmt is CHECK DATABASE [PAGES | INDEXES], or SP_DB_CHECK().
func (s *Session) checkStmt(p *Portal, row func(sqlapi.Row) error) (string, error) {
	st := p.st.p
	if len(st.Args) > 0 {
		return "", &sqlapi.Error{Code: "42883", Message: "SP_DB_CHECK takes no arguments"}
	}
	if !s.b.administrator(s.info.User) {
		return "", &sqlapi.Error{Code: "42501", Message: "permission denied to check the database"}
	}
	res, err := s.check(st.Verb)
	if err != nil {
		return "", err
	}
	if st.Tag != "CHECK DATABASE" {
		n := int64(res.Count())
		v := sqlapi.Value{Kind: sqlapi.Integer, Int: n, Bytes: []byte(strconv.FormatInt(n, 10))}
		return "SELECT 1", row(valueRow{v})
	}
	null := sqlapi.Value{}
	number := func(n int64) sqlapi.Value {
		return sqlapi.Value{Kind: sqlapi.Integer, Int: n, Bytes: []byte(strconv.FormatInt(n, 10))}
	}
	text := func(s string) sqlapi.Value {
		if s == "" {
			return null
		}
		return sqlapi.Value{Kind: sqlapi.Text, Bytes: []byte(s)}
	}
	for _, x := range res.Problems {
		r := valueRow{text(x.What), text(x.Object), null, null, text(x.Text)}
		if x.Page != 0 {
			r[2], r[3] = number(int64(x.Page)), number(x.Offset)
		}
		if err := row(r); err != nil {
			return "", err
		}
	}
	sum := fmt.Sprintf("no damage found; LSN %d, %v", res.LSN, res.End.Sub(res.Start).Round(time.Millisecond))
	if n := res.Count(); n > 0 {
		sum = fmt.Sprintf("%d problems; LSN %d, %v", n, res.LSN, res.End.Sub(res.Start).Round(time.Millisecond))
	}
	err = row(valueRow{text("result"), null, null, null, text(sum)})
	return fmt.Sprintf("SELECT %d", len(res.Problems)+1), err
}

// check runs one check; only one runs at a time.
func (s *Session) check(what string) (CheckStatus, error) {
	c := &s.b.check
	if !c.running.TryLock() {
		return CheckStatus{}, &sqlapi.Error{Code: "55006", Message: fmt.Sprintf("a check is running already, in session %d", s.b.LastCheck().Session), Hint: "V$DB_CHECK shows how far it is."}
	}
	defer c.running.Unlock()
	c.done.Store(0)
	c.change(func(st *CheckStatus) {
		*st = CheckStatus{State: "RUNNING", Phase: "pages", Session: s.id, User: s.info.User, Start: time.Now()}
	})
	var err error
	if what != "INDEXES" {
		err = s.checkPages()
	}
	if err == nil && what != "PAGES" {
		err = s.checkStructure()
	}
	c.change(func(st *CheckStatus) {
		st.End, st.Done = time.Now(), c.done.Load()
		switch {
		case err != nil && s.ctx.Err() != nil:
			st.State = "CANCELLED"
		case err != nil:
			st.State, st.Error = "FAILED", err.Error()
		case st.Count() > 0:
			st.State = "DAMAGED"
		default:
			st.State, st.Done = "OK", st.Total
		}
	})
	res := s.b.LastCheck()
	switch res.State {
	case "OK":
		s.b.log.Info("database checked: no damage found", "lsn", res.LSN, "took", res.End.Sub(res.Start).String())
	case "DAMAGED":
		first := res.Problems[0]
		s.b.log.Error("database checked: DAMAGE", "problems", res.Count(), "first", strings.TrimSpace(first.Object+" "+first.Text), "offset", first.Offset)
	default:
		s.b.log.Warn("check of the database did not end", "state", res.State, "problems", res.Count(), "err", err)
	}
	return res, err
}

func (s *Session) checkPages() error {
	pc, ok := s.b.cfg.DB.(pageChecker)
	if !ok {
		return &sqlapi.Error{Code: "0A000", Message: "CHECK DATABASE PAGES is not supported here"}
	}
	c := &s.b.check
	return pc.CheckPages(s.ctx, func(done, total uint32) {
		c.done.Store(done)
		c.change(func(st *CheckStatus) { st.Total = total })
	}, func(page uint32, offset int64, err error) {
		c.found(Problem{What: "page", Page: page, Offset: offset, Text: err.Error()})
	})
}

// countingHandle counts pages that are read, for the progress of a check.
type countingHandle struct {
	Handle
	n *atomic.Uint32
}

func (h countingHandle) ReadAt(b []byte, off int64) (int, error) {
	if len(b) > 100 { // a page, not a look at the header
		h.n.Add(1)
	}
	return h.Handle.ReadAt(b, off)
}

// checkStructure runs SQLite's check on a connection, and a snapshot, of its own.
func (s *Session) checkStructure() error {
	if !s.b.tables() {
		return s.b.notOpen()
	}
	c := &s.b.check
	c.done.Store(0)
	cn, err := s.b.openCounting(&c.done)
	if err != nil {
		return err
	}
	defer cn.close()
	cn.use(s)
	cn.internal = true
	if err := cn.run("BEGIN"); err != nil {
		return err
	}
	defer cn.rollback()
	if err := cn.run("SELECT 1 FROM sqlite_schema LIMIT 1"); err != nil { // pins the snapshot
		return s.storeError(cn, err)
	}
	size, err := cn.h.Size()
	if err != nil {
		return err
	}
	lsn := base.LSN(0)
	if h, ok := cn.h.(countingHandle).Handle.(interface{ Snapshot() base.LSN }); ok {
		lsn = h.Snapshot()
	}
	c.change(func(st *CheckStatus) {
		st.Phase, st.LSN, st.Total = "structure", lsn, uint32(size/int64(s.pageSize(cn)))
	})
	err = s.integrity(cn, "")
	if err == nil || s.ctx.Err() != nil {
		return err
	}
	// A page could not be read, which ends SQLite's check: each table on its own
	// tells which are concerned and lets the others be checked.
	c.found(Problem{What: "structure", Text: err.Error()})
	tables, err := cn.names("SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY name")
	if err != nil {
		c.found(Problem{What: "structure", Object: "sqlite_schema", Text: s.storeError(cn, err).Error()})
		return nil
	}
	for _, t := range tables {
		if err := s.integrity(cn, t); err != nil {
			if s.ctx.Err() != nil {
				return err
			}
			c.found(Problem{What: "structure", Object: t, Text: err.Error()})
		}
	}
	return nil
}

func (s *Session) pageSize(c *conn) int {
	var b [2]byte
	if _, err := c.h.ReadAt(b[:], 16); err != nil && !errors.Is(err, io.EOF) {
		return 4096
	}
	if n := int(b[0])<<8 | int(b[1]); n > 1 {
		return n
	}
	return 65536
}

// integrity runs SQLite's check of one table, or of everything.
func (s *Session) integrity(c *conn, table string) error {
	sql := "PRAGMA integrity_check(" + strconv.Itoa(maxProblems) + ")"
	if table != "" {
		sql = "PRAGMA integrity_check(" + dialect.QuoteName(table) + ")"
	}
	rows, err := c.names(sql)
	for _, r := range rows {
		if r != "ok" {
			s.b.check.found(problemOf(r, table))
		}
	}
	if err != nil && c.file != nil {
		err = s.storeError(c, err)
	}
	return err
}

// problemOf finds the table or index in one of SQLite's messages.
func problemOf(text, table string) Problem {
	p := Problem{What: "structure", Object: table, Text: text}
	for _, mark := range []string{"missing from index ", "in index ", "entries in index "} {
		if i := strings.LastIndex(text, mark); i >= 0 {
			p.Object = strings.TrimSpace(text[i+len(mark):])
			return p
		}
	}
	if i := strings.LastIndex(text, " in "); i >= 0 && strings.HasPrefix(text, "NULL value") {
		p.Object = strings.TrimSpace(text[i+4:])
	}
	if rest, ok := strings.CutPrefix(text, "CHECK constraint failed in "); ok {
		p.Object = rest
	}
	return p
}

// names runs an internal statement and returns its first column; with an error,
// the rows before it.
func (c *conn) names(sql string) (out []string, err error) {
	cs, err := c.prepare(sql)
	if err != nil {
		return nil, err
	}
	defer func() {
		if e := guard(func() error { return c.done(cs) }); err == nil {
			err = e
		}
	}()
	for {
		more, err := c.step(cs)
		if err != nil || !more {
			return out, err
		}
		out = append(out, cs.s.ColumnText(0))
	}
}

// openCounting opens a reader connection that counts the pages it reads.
func (b *Backend) openCounting(n *atomic.Uint32) (*conn, error) {
	c := &conn{b: b, kind: readerConn, stmts: map[string]*cstmt{}, internal: true}
	c.h = countingHandle{b.cfg.DB.NewHandle(true), n}
	var err error
	if c.db, c.file, err = b.files.Open(context.Background(), c.h, true, readerMemory); err != nil {
		return nil, fmt.Errorf("open SQL connection: %w", err)
	}
	if err := c.setUp(readerCacheKB * 4); err != nil {
		c.db.Close()
		return nil, fmt.Errorf("set up SQL connection: %w", err)
	}
	return c, nil
}
