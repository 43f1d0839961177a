package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/sql/sqlapi"
	"datawatch/internal/sql/views"
	"datawatch/internal/storage/page"
	"datawatch/internal/storage/pagestore"
	"datawatch/internal/vfs"
)

// testDB is a page store without a log: commits harden at once, or when hold
// is lifted.
type testDB struct {
	fs     vfs.FS
	store  *pagestore.Store
	mode   atomic.Uint32
	status atomic.Uint32
	fail   atomic.Pointer[error] // what Reserve answers

	mu   sync.Mutex
	cond *sync.Cond
	lsn  base.LSN
	hold bool

	waits atomic.Int32 // calls of WaitHardened that wait

	flight chan struct{}
}

func newTestDB(tb testing.TB) *testDB {
	tb.Helper()
	fs := vfs.NewMem()
	f, err := fs.Create("/data", true)
	if err != nil {
		tb.Fatal(err)
	}
	p := page.NewDatabase(4096)
	page.Seal(p, 1, 0)
	if _, err := f.WriteAt(p, 0); err != nil {
		tb.Fatal(err)
	}
	f.Close()
	return openTestDB(tb, fs, 1)
}

func openTestDB(tb testing.TB, fs vfs.FS, lsn base.LSN) (d *testDB) {
	tb.Helper()
	var err error
	d = &testDB{fs: fs, lsn: lsn}
	d.cond = sync.NewCond(&d.mu)
	d.mode.Store(uint32(base.ModePrimary))
	d.status.Store(uint32(base.StatusOpen))
	d.store, err = pagestore.Open(fs, "/data", pagestore.Options{PageSize: 4096, LSN: lsn, Committer: d})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { d.store.Close() })
	return d
}

func (d *testDB) Mode() base.Mode         { return base.Mode(d.mode.Load()) }
func (d *testDB) Status() base.Status     { return base.Status(d.status.Load()) }
func (d *testDB) Store() *pagestore.Store { return d.store }
func (d *testDB) Reserve(context.Context, base.LSN, int) error {
	if e := d.fail.Load(); e != nil {
		return *e
	}
	return nil
}
func (d *testDB) Cancel() {}
func (d *testDB) NextLSN() base.LSN {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lsn + 1
}
func (d *testDB) Part(_ context.Context, _ []byte, lsn base.LSN, _ bool) error {
	if e := d.fail.Load(); e != nil {
		return *e
	}
	d.Commit(nil, lsn)
	return nil
}
func (d *testDB) Abandon(_ []byte, lsn base.LSN) bool { d.Commit(nil, lsn); return true }
func (d *testDB) Commit(_ []byte, lsn base.LSN) {
	d.mu.Lock()
	d.lsn = lsn
	hold := d.hold
	d.mu.Unlock()
	if !hold {
		d.store.SetHardened(lsn)
		d.cond.Broadcast()
	}
}
func (d *testDB) Hardened() base.LSN      { return d.store.Hardened() }
func (d *testDB) Flight() <-chan struct{} { return d.flight }
func (d *testDB) WaitHardened(ctx context.Context, lsn base.LSN) error {
	stop := context.AfterFunc(ctx, d.cond.Broadcast)
	defer stop()
	d.waits.Add(1)
	defer d.waits.Add(-1)
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.store.Hardened() < lsn {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		d.cond.Wait()
	}
	return nil
}

// setHold makes commits hang (status Suspend), or hardens all of them.
func (d *testDB) setHold(on bool) {
	d.mu.Lock()
	d.hold = on
	lsn := d.lsn
	d.mu.Unlock()
	if !on {
		d.store.SetHardened(lsn)
		d.mu.Lock()
		d.cond.Broadcast()
		d.mu.Unlock()
	}
}

type fakeAdmin struct {
	mu    sync.Mutex
	calls []string
	alter func(verb string) error
	db    *testDB
}

func (a *fakeAdmin) note(f string, args ...any) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls = append(a.calls, fmt.Sprintf(f, args...))
	return nil
}
func (a *fakeAdmin) last() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.calls) == 0 {
		return ""
	}
	return a.calls[len(a.calls)-1]
}
func (a *fakeAdmin) AlterDatabase(_ context.Context, verb string) error {
	a.note("alter %s", verb)
	if a.alter != nil {
		return a.alter(verb)
	}
	return nil
}
func (a *fakeAdmin) AddArchiveLog(_ context.Context, d string) error {
	return a.note("archivelog %s", d)
}
func (a *fakeAdmin) SetOGUID(_ context.Context, n uint32) error { return a.note("oguid %d", n) }
func (a *fakeAdmin) SetPara(_ context.Context, scope int, n, v string) error {
	return a.note("para %d %s=%s", scope, n, v)
}
func (a *fakeAdmin) GetPara(n string) (string, bool) {
	if strings.EqualFold(n, "PORT_NUM") {
		return "5236", true
	}
	return "", false
}
func (a *fakeAdmin) Backup(_ context.Context, b BackupStmt) error { return a.note("backup %+v", b) }
func (a *fakeAdmin) Checkpoint(context.Context) error             { return a.note("checkpoint") }
func (a *fakeAdmin) SetArchStatus(_ context.Context, inst string, n int) error {
	return a.note("arch %s %d", inst, n)
}
func (a *fakeAdmin) Views() views.Source { return testSource{a.db} }

// testSource has one row in V$INSTANCE and nothing else.
type testSource struct{ d *testDB }

func (s testSource) Instance() []views.InstanceRow {
	return []views.InstanceRow{{}}
}
func (testSource) Database() []views.DatabaseRow             { return nil }
func (testSource) RLog() []views.RLogRow                     { return nil }
func (testSource) LogPkgs() []views.LogPkgRow                { return nil }
func (testSource) LogPkgStat() []views.LogPkgStatRow         { return nil }
func (testSource) ArchStatus() []views.ArchStatusRow         { return nil }
func (testSource) ArchFiles() []views.ArchFileRow            { return nil }
func (testSource) ArchIni() []views.ArchIniRow               { return nil }
func (testSource) MALIni() []views.MALIniRow                 { return nil }
func (testSource) MALSys() []views.MALSysRow                 { return nil }
func (testSource) MALSites() []views.MALSiteRow              { return nil }
func (testSource) MALLinks() []views.MALLinkRow              { return nil }
func (testSource) RapplySys() []views.RapplySysRow           { return nil }
func (testSource) KeepPkg() []views.KeepPkgRow               { return nil }
func (testSource) DMWatcher() []views.DMWatcherRow           { return nil }
func (testSource) UtskInfo() []views.UtskInfoRow             { return nil }
func (testSource) UtskSys() []views.UtskSysRow               { return nil }
func (testSource) RapplyLSN() []views.RapplyLSNRow           { return nil }
func (testSource) RapplyTasks() []views.KeepPkgRow           { return nil }
func (testSource) RapplyParallel() []views.RapplyParallelRow { return nil }
func (testSource) Parameters() []views.ParameterRow          { return nil }
func (testSource) OpenHistory() []views.OpenHistoryRow       { return nil }
func (testSource) Sessions() []views.SessionRow              { return nil }
func (testSource) Trx() []views.TrxRow                       { return nil }
func (testSource) Locks() []views.LockRow                    { return nil }
func (testSource) ArchSend() []views.ArchSendRow             { return nil }
func (testSource) RecoverStatus() []views.RecoverStatusRow   { return nil }
func (testSource) RapplyStat() []views.RapplyStatRow         { return nil }
func (testSource) DBCheck() []views.DBCheckRow               { return nil }
func (testSource) DBProblems() []views.DBProblemRow          { return nil }
func (testSource) Version() []views.VersionRow               { return nil }

// env is a backend over a test database.
type env struct {
	tb    testing.TB
	db    *testDB
	admin *fakeAdmin
	b     *Backend
}

func newEnv(tb testing.TB, opts ...func(*Config)) *env {
	tb.Helper()
	db := newTestDB(tb)
	if err := InitSchema(context.Background(), FromEngine(db), "SYSDBA", "SYSDBA"); err != nil {
		tb.Fatal(err)
	}
	e := &env{tb: tb, db: db, admin: &fakeAdmin{db: db}}
	cfg := Config{DB: FromEngine(db), Admin: e.admin}
	for _, o := range opts {
		o(&cfg)
	}
	e.b = New(cfg)
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := e.b.Close(ctx, "test ends"); err != nil {
			tb.Error(err)
		}
	})
	return e
}

// client is a session with helpers that speak simple and extended query.
type client struct {
	tb testing.TB
	*Session
	notices []string
	params  map[string]string
}

func (c *client) Notice(e *sqlapi.Error)       { c.notices = append(c.notices, e.Code+" "+e.Message) }
func (c *client) ParameterChanged(n, v string) { c.params[n] = v }
func (e *env) client() *client                 { return e.clientAs(sqlapi.Info{User: "SYSDBA"}) }
func (e *env) clientAs(i sqlapi.Info) *client {
	e.tb.Helper()
	if i.User == "" {
		i.User = "SYSDBA"
	}
	c := &client{tb: e.tb, params: map[string]string{}}
	s, err := e.b.NewSession(context.Background(), i, c)
	if err != nil {
		e.tb.Fatal(err)
	}
	c.Session = s.(*Session)
	e.tb.Cleanup(s.Close)
	return c
}

func rowText(r sqlapi.Row, n int) string {
	var out []string
	for i := range n {
		if r.Kind(i) == sqlapi.Null {
			out = append(out, "NULL")
		} else {
			out = append(out, string(r.Bytes(i)))
		}
	}
	return strings.Join(out, "|")
}

// simple runs a simple query like pgwire does: the rows of all statements,
// joined by spaces, and the last tag.
func (c *client) simpleQ(sql string) (rows, tag string, err error) {
	ctx := context.Background()
	parts, err := c.Split(sql)
	if err != nil {
		return "", "", err
	}
	var out []string
	for _, p := range parts {
		var st sqlapi.Stmt
		st, err = c.Prepare(ctx, p, nil)
		if err != nil {
			break
		}
		var po sqlapi.Portal
		po, err = st.Bind(nil)
		if err != nil {
			break
		}
		n := len(po.Columns())
		tag, _, err = po.Run(ctx, 0, func(r sqlapi.Row) error { out = append(out, rowText(r, n)); return nil })
		po.Close()
		st.Close()
		if err != nil {
			break
		}
	}
	if serr := c.Sync(ctx, err != nil); serr != nil && err == nil {
		err = serr
	}
	return strings.Join(out, " "), tag, err
}

// exec must succeed; it returns rows and tag.
func (c *client) exec(sql string) string {
	c.tb.Helper()
	rows, tag, err := c.simpleQ(sql)
	if err != nil {
		c.tb.Fatalf("%s: %v", sql, err)
	}
	if rows == "" {
		return tag
	}
	return rows
}

// code returns the SQLSTATE of a statement that must fail.
func (c *client) code(sql string) string {
	c.tb.Helper()
	_, tag, err := c.simpleQ(sql)
	if err == nil {
		c.tb.Fatalf("%s: no error but %s", sql, tag)
	}
	return codeOf(c.tb, err)
}

func codeOf(tb testing.TB, err error) string {
	tb.Helper()
	var e *sqlapi.Error
	if !errors.As(err, &e) {
		tb.Fatalf("not an *sqlapi.Error: %v", err)
	}
	return e.Code
}

func (c *client) is(sql, want string) {
	c.tb.Helper()
	if got := c.exec(sql); got != want {
		c.tb.Fatalf("%s: %q, want %q", sql, got, want)
	}
}

func (c *client) fails(sql, want string) {
	c.tb.Helper()
	if got := c.code(sql); got != want {
		_, _, err := c.simpleQ(sql)
		c.tb.Fatalf("%s: SQLSTATE %s, want %s (again: %v)", sql, got, want, err)
	}
}

func val(v any) sqlapi.Value {
	switch x := v.(type) {
	case nil:
		return sqlapi.Value{}
	case int:
		return sqlapi.Value{Kind: sqlapi.Integer, Int: int64(x)}
	case float64:
		return sqlapi.Value{Kind: sqlapi.Float, Float: x}
	case []byte:
		return sqlapi.Value{Kind: sqlapi.Blob, Bytes: x}
	}
	return sqlapi.Value{Kind: sqlapi.Text, Bytes: []byte(v.(string))}
}

// run executes without Sync, as one Execute of an extended series.
func (c *client) run(sql string, args ...any) (rows, tag string, err error) {
	ctx := context.Background()
	st, err := c.Prepare(ctx, sql, nil)
	if err != nil {
		return "", "", err
	}
	defer st.Close()
	var vals []sqlapi.Value
	for _, a := range args {
		vals = append(vals, val(a))
	}
	po, err := st.Bind(vals)
	if err != nil {
		return "", "", err
	}
	defer po.Close()
	n := len(st.Columns())
	var out []string
	tag, _, err = po.Run(ctx, 0, func(r sqlapi.Row) error { out = append(out, rowText(r, n)); return nil })
	return strings.Join(out, " "), tag, err
}

// ext runs one statement as an extended series with Sync.
func (c *client) ext(sql string, args ...any) (string, error) {
	rows, tag, err := c.run(sql, args...)
	if serr := c.Sync(context.Background(), err != nil); err == nil {
		err = serr
	}
	if rows == "" {
		rows = tag
	}
	return rows, err
}

// until polls a condition that another goroutine brings about.
func until(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("never: %s", what)
		}
	}
}

func errOf(tb testing.TB, err error) *sqlapi.Error {
	tb.Helper()
	var e *sqlapi.Error
	if !errors.As(err, &e) {
		tb.Fatalf("not an *sqlapi.Error: %v", err)
	}
	return e
}
