package session

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ncruces/go-sqlite3"

	"datawatch/internal/sql/sqlapi"
	"datawatch/internal/sql/sqlitevfs"
	"datawatch/internal/sql/views"
)

type connKind uint8

const (
	readerConn  connKind = iota // read only
	writerConn                  // goes with the write lock, or is owned by a session with TEMP objects
	emptyConn                   // no database: V$ views only
	privateConn                 // writes to a snapshot, for itself alone: of a concurrent transaction
)

const (
	readerCacheKB = 2 << 10
	writerCacheKB = 32 << 10
	readerMemory  = 1 << 30 // address space, not memory
	writerMemory  = 4 << 30

	stmtCacheSize = 128
	// A connection that wrote more pages than this in one transaction, or ran
	// one statement longer than this, is replaced: its page cache, sorter and
	// hash tables leave memory behind that only closing gives back.
	wornPages = 8192
	wornTime  = 3 * time.Second
	wornValue = 16 << 20 // or had a value of more bytes
)

// conn is a SQLite connection with its prepared statements.
type conn struct {
	b          *Backend
	kind       connKind
	limit      int64 // bytes of its SQLite heap, 0 none
	db         *sqlite3.Conn
	file       *sqlitevfs.File
	h          Handle
	stmts      map[string]*cstmt
	tick       uint64
	sess       atomic.Pointer[Session] // who uses it, for functions such as current_user()
	old        bool
	seqOwn     map[string]*numbers   // reserved by the transaction under way, for it alone
	seqChanged map[string]bool       // sequences that it has made, changed or dropped
	locked     bool                  // it has the write lock
	trapped    bool                  // the statement used what cannot be repeated: see trap
	tables     map[string]*tableInfo // by folded name, see table
	ddl        bool                  // the schema changed in the transaction under way
	made       uint32                // schema cookie that the cached statements were made for
	gen        uint64                // and Backend.schemaGen

	// What the authorizer saw during the last prepare.
	internal bool // statements of the server itself: nothing is forbidden
	rec      authRecord
	running  *cstmt // the client's statement that SQLite works on
	again    bool   // SQLite wanted to compile it once more, by another schema

	known *access // who may do what, by the newest schema cookie seen
	mine  *access // and by this transaction's own changes, while dirty
	dirty bool    // the transaction under way has changed the schema, or users
}

// cstmt is a statement prepared on one connection.
type cstmt struct {
	s        *sqlite3.Stmt
	sql      string
	params   []int // SQLite's index-1 -> number of $n
	nparams  int
	ncols    int
	readOnly bool
	rec      authRecord
	busy     bool
	large    bool // it had a value beyond wornValue
	cached   bool
	used     uint64
	cookie   uint32         // of the schema before it was compiled
	who      uint64         // the Session.who that was permitted to execute it
	bound    []sqlapi.Value // its parameters

	plan      scanPlan // for aggregates of a whole table
	sequences []int64  // who must have the right to sequences that it names
	nature    nature   // 0: not yet known
}

func (b *Backend) open(kind connKind) (*conn, error) {
	c := &conn{b: b, kind: kind, stmts: map[string]*cstmt{}, internal: true}
	var err error
	cache := readerCacheKB
	switch kind {
	case emptyConn:
		c.db, err = sqlite3.OpenContext(sqlite3.WithMaxMemory(context.Background(), 64<<20), "file:/empty?vfs=memdb")
		if err != nil {
			c.db, err = sqlite3.Open(":memory:")
		}
	case readerConn:
		c.h = b.cfg.DB.NewHandle(true)
		c.db, c.file, err = b.files.Open(context.Background(), c.h, true, readerMemory)
	case privateConn:
		c.h = b.cfg.DB.NewPrivate()
		c.db, c.file, err = b.files.Open(context.Background(), c.h, false, readerMemory)
	default:
		cache = b.cfg.WriterCache
		c.h = b.cfg.DB.NewHandle(false)
		c.db, c.file, err = b.files.Open(context.Background(), c.h, false, writerMemory)
	}
	if err != nil {
		return nil, fmt.Errorf("open SQL connection: %w", err)
	}
	if err := c.setUp(cache); err != nil {
		c.db.Close()
		return nil, fmt.Errorf("set up SQL connection: %w", err)
	}
	c.internal = false
	if kind == privateConn {
		c.db.CommitHook(func() bool { return false }) // it is refused, not lost without a word
	}
	return c, nil
}

func (c *conn) setUp(cacheKB int) error {
	for _, o := range []struct {
		op sqlite3.DBConfig
		on bool
	}{
		{sqlite3.DBCONFIG_DEFENSIVE, true}, {sqlite3.DBCONFIG_DQS_DML, false}, {sqlite3.DBCONFIG_DQS_DDL, false},
		{sqlite3.DBCONFIG_ENABLE_FKEY, true},
	} {
		if _, err := c.db.Config(o.op, o.on); err != nil {
			return err
		}
	}
	err := c.db.Exec(fmt.Sprintf("PRAGMA journal_mode=TRUNCATE; PRAGMA temp_store=FILE; PRAGMA case_sensitive_like=ON; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-%d", cacheKB))
	if err != nil {
		return err
	}
	if err := c.functions(); err != nil {
		return err
	}
	if err := c.catalog(); err != nil {
		return err
	}
	if c.b.cfg.Admin != nil {
		if src := c.b.cfg.Admin.Views(); src != nil {
			if err := views.Register(c.db, src); err != nil {
				return err
			}
		}
	}
	return c.db.SetAuthorizer(c.authorize)
}

// use gives the connection to a session.
func (c *conn) use(s *Session) {
	c.sess.Store(s)
	if l := c.b.limits.Load().Memory; l != c.limit {
		c.db.HardHeapLimit(l)
		c.limit = l
	}
	c.interruptBy(s.ctx)
}

// interruptBy sets whose end interrupts what runs on the connection.
func (c *conn) interruptBy(ctx context.Context) {
	c.db.SetInterrupt(ctx)
	if h, ok := c.h.(interface{ SetContext(context.Context) }); ok {
		h.SetContext(ctx) // a commit may wait for log space
	}
}

// unuse takes it back; whatever ran is interrupted no more.
func (c *conn) unuse() {
	c.db.SetInterrupt(context.Background())
	c.sess.Store(nil)
}

// worn reports whether the connection should be replaced.
func (c *conn) worn() bool { return c.old || c.file != nil && c.file.Written() > wornPages }

func (c *conn) close() error {
	c.db.SetInterrupt(context.Background())
	c.stmts = nil
	var open []*sqlite3.Stmt
	for st := range c.db.Stmts() {
		open = append(open, st)
	}
	for _, st := range open {
		_ = guard(st.Close)
	}
	return guard(c.db.Close)
}

// prepare returns the statement from the cache or prepares it. It belongs to
// the caller until done.
func (c *conn) prepare(sql string) (*cstmt, error) {
	c.tick++
	key := sql
	if c.internal { // a client must not find what was prepared without the authorizer
		key = "\x00" + sql
	}
	if cs := c.stmts[key]; cs != nil && !cs.busy {
		cs.busy, cs.used = true, c.tick
		return c.checked(cs)
	}
	c.fresh()
	cs, err := c.compile(sql, key)
	if err != nil {
		return nil, err
	}
	if c.stmts[key] == nil {
		if len(c.stmts) >= stmtCacheSize {
			c.evict()
		}
		c.stmts[key] = cs
		cs.cached = true
	}
	return c.checked(cs)
}

// checked refuses a statement that the session may not execute.
func (c *conn) checked(cs *cstmt) (*cstmt, error) {
	if c.internal {
		return cs, nil
	}
	if err := c.permit(cs); err != nil {
		c.done(cs)
		return nil, err
	}
	return cs, nil
}

// compile makes a statement of the text.
func (c *conn) compile(sql, key string) (*cstmt, error) {
	c.rec = authRecord{}
	var cookie uint32
	if c.h != nil {
		var err error
		if cookie, err = c.cookie(); err != nil {
			return nil, err
		}
	}
	var st *sqlite3.Stmt
	var tail string
	err := guard(func() (e error) { st, tail, e = c.db.Prepare(sql); return e })
	if err != nil {
		if c.rec.denied != nil && errors.Is(err, sqlite3.AUTH) {
			return nil, c.rec.denied
		}
		return nil, err
	}
	if st == nil {
		return nil, &sqlapi.Error{Code: "42601", Message: "empty statement"}
	}
	if strings.TrimSpace(tail) != "" && !onlyComments(tail) {
		st.Close()
		return nil, &sqlapi.Error{Code: "42601", Message: "cannot insert multiple commands into a prepared statement"}
	}
	cs := &cstmt{s: st, sql: key, ncols: st.ColumnCount(), readOnly: st.ReadOnly(), rec: c.rec, cookie: cookie, busy: true, used: c.tick}
	n := st.BindCount()
	anonymous := 0
	for i := 1; i <= n; i++ {
		k := 0
		switch name := st.BindName(i); {
		case name == "":
			anonymous++
			k = anonymous
		case name[0] == '$' || name[0] == '?':
			for _, d := range name[1:] {
				if d < '0' || d > '9' {
					k = -1 << 40
				}
				k = k*10 + int(d-'0')
			}
		}
		if k <= 0 {
			name := st.BindName(i)
			st.Close()
			return nil, &sqlapi.Error{Code: "42601", Message: fmt.Sprintf("parameter %s: only $1, $2 ... can be used", name)}
		}
		cs.params = append(cs.params, k)
		cs.nparams = max(cs.nparams, k)
	}
	return cs, nil
}

// fresh brings the connection's idea of the schema up to date and drops cached
// statements of an older one. SQLite compares the schema only when a statement
// runs: without this it would compile, or describe, by the old one.
func (c *conn) fresh() {
	if c.h == nil || c.ddl || c.internal {
		return
	}
	v, err := c.cookie()
	if err != nil {
		return
	}
	gen := c.b.schemaGen.Load()
	if v == c.made && gen == c.gen {
		return
	}
	c.flush()
	if err := c.run("SELECT 1 FROM sqlite_schema LIMIT 1"); err == nil {
		c.made, c.gen = v, gen
	}
}

// cookie is the schema cookie in the database header, as the connection sees it.
func (c *conn) cookie() (uint32, error) {
	var b [4]byte
	if _, err := c.h.ReadAt(b[:], 40); err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint32(b[:]), nil
}

// flush closes the cached statements that are not in use.
func (c *conn) flush() {
	c.tables = nil
	for k, cs := range c.stmts {
		delete(c.stmts, k)
		if cs.cached = false; !cs.busy {
			cs.s.Close()
		}
	}
}

// exact is prepare for a statement that was described with n columns; one left
// from before a change of the schema is prepared again.
func (c *conn) exact(sql string, n int) (*cstmt, error) {
	cs, err := c.prepare(sql)
	if err == nil && cs.ncols != n {
		c.forget(cs)
		cs, err = c.prepare(sql)
	}
	if err != nil {
		return nil, err
	}
	if cs.ncols != n {
		c.done(cs)
		return nil, planChanged()
	}
	return cs, nil
}

func onlyComments(tail string) bool {
	parts, err := splitStatements(tail)
	return err == nil && len(parts) == 0
}

// evict closes the least recently used idle statement.
func (c *conn) evict() {
	var worst *cstmt
	for _, cs := range c.stmts {
		if !cs.busy && (worst == nil || cs.used < worst.used) {
			worst = cs
		}
	}
	if worst != nil {
		delete(c.stmts, worst.sql)
		worst.s.Close()
	}
}

// done resets the statement and gives it back to the cache. The error is that
// of the statement's last step.
func (c *conn) done(cs *cstmt) error {
	// Both repeat the statement's error; out of memory comes as a panic.
	err := guard(cs.s.Reset)
	cs.busy, cs.bound = false, nil
	if cs.large {
		c.old = true
	}
	if !cs.cached {
		_ = guard(cs.s.Close)
	}
	return err
}

// forget closes a statement that is not to be used again.
func (c *conn) forget(cs *cstmt) {
	if cs.cached && c.stmts[cs.sql] == cs {
		delete(c.stmts, cs.sql)
	}
	cs.cached = false
	c.done(cs)
}

// run executes an internal statement without parameters or result.
func (c *conn) run(sql string) error {
	c.internal = true // to the end: VACUUM prepares statements while it runs
	defer func() { c.internal = false }()
	cs, err := c.prepare(sql)
	if err != nil {
		return err
	}
	err = guard(func() error { return cs.s.Exec() })
	cs.busy = false
	return err
}

// rollback ends whatever transaction the connection is in.
func (c *conn) rollback() error {
	if c.db.GetAutocommit() {
		return nil
	}
	ctx := c.db.SetInterrupt(context.Background())
	defer c.db.SetInterrupt(ctx)
	return c.run("ROLLBACK")
}

// bind sets the parameters.
func (cs *cstmt) bind(params []sqlapi.Value) error {
	cs.bound = params
	for i, k := range cs.params {
		var err error
		if k > len(params) {
			return &sqlapi.Error{Code: "42P02", Message: fmt.Sprintf("there is no parameter $%d", k)}
		}
		switch v := &params[k-1]; v.Kind {
		case sqlapi.Integer:
			err = cs.s.BindInt64(i+1, v.Int)
		case sqlapi.Float:
			err = cs.s.BindFloat(i+1, v.Float)
		case sqlapi.Text:
			if v.Bytes == nil {
				err = cs.s.BindText(i+1, "")
			} else {
				err = cs.s.BindRawText(i+1, v.Bytes)
			}
		case sqlapi.Blob:
			if v.Bytes == nil {
				err = cs.s.BindZeroBlob(i+1, 0)
			} else {
				err = cs.s.BindBlob(i+1, v.Bytes)
			}
		default:
			err = cs.s.BindNull(i + 1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// maxAgain bounds how often a statement is compiled again because the schema or
// the rights change while it starts.
const maxAgain = 20

// step advances the statement; the error is final.
func (c *conn) step(cs *cstmt) (more bool, err error) {
	if c.internal { // perhaps within another statement
		return c.advance(cs)
	}
	for try := 0; ; try++ {
		c.again, c.running = false, cs
		more, err = c.advance(cs)
		c.running = nil
		if err == nil || !c.again || try == maxAgain {
			return more, err
		}
		// Nothing has been done yet: SQLite compares the schema first.
		if err := c.recompile(cs); err != nil {
			return false, err
		}
	}
}

// recompile prepares a statement by the schema of now, in its place, and asks
// again whether the session may execute it.
func (c *conn) recompile(cs *cstmt) error {
	if cs.cached {
		delete(c.stmts, cs.sql)
		cs.cached = false
	}
	fresh, err := c.compile(cs.sql, cs.sql)
	if err != nil {
		return err
	}
	if fresh.ncols != cs.ncols {
		fresh.s.Close()
		return planChanged()
	}
	cs.s.Close()
	fresh.used = cs.used
	bound := cs.bound
	*cs = *fresh
	if err := c.permit(cs); err != nil {
		return err
	}
	return cs.bind(bound)
}

func (c *conn) advance(cs *cstmt) (more bool, err error) {
	defer func() {
		if r := recover(); r != nil {
			c.old = true
			more, err = false, panicked(r)
		}
	}()
	if cs.s.Step() {
		return true, nil
	}
	return false, cs.s.Err()
}

// guard turns the binding's panic when memory is exhausted into an error.
func guard(fn func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = panicked(r)
		}
	}()
	return fn()
}

// panicked is the error of a panic of the binding when memory is exhausted.
func panicked(r any) error {
	if e, ok := r.(error); ok && strings.Contains(e.Error(), "out of memory") {
		return &sqlapi.Error{Code: "53200", Message: "out of memory", Detail: "The statement needs more memory than one connection may use.",
			Hint: "STMT_MEM_LIMIT of dm.ini is the limit."}
	}
	panic(r)
}
