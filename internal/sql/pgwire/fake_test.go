package pgwire

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"datawatch/internal/sql/sqlapi"
)

// fakeBackend understands a few statements:
//
//	echo OID...        takes that many parameters and returns them as one row
//	rows N             N rows of (int8, text)
//	insert             no result
//	begin|commit|rollback
//	fail CODE          an error when run; FATAL ends the session
//	badparse           an error at position 5 when prepared
//	hang               runs until it is cancelled or terminated
//	notice, setparam
type fakeBackend struct {
	verifiers  map[string]string // upper case
	trust      atomic.Bool
	seen       atomic.Pointer[sqlapi.LoginInfo]
	results    atomic.Int32
	refuseHost atomic.Pointer[sqlapi.Error]
	hanging    chan struct{} // receives one value per statement that hangs
	live       atomic.Int32  // sessions not closed
	portals    atomic.Int32
	owned      atomic.Int32
	stmts      atomic.Int32
	refuse     atomic.Pointer[sqlapi.Error]
	last       atomic.Pointer[fakeSession]
}

// verifier makes one the slow, standard way, independently of the product.
func verifier(password string) string {
	const iter = 4096
	salt := []byte("0123456789abcdef")
	h := func(key, data []byte) []byte { m := hmac.New(sha256.New, key); m.Write(data); return m.Sum(nil) }
	u := h([]byte(password), append(append([]byte(nil), salt...), 0, 0, 0, 1))
	salted := append([]byte(nil), u...)
	for range iter - 1 {
		u = h([]byte(password), u)
		for i := range salted {
			salted[i] ^= u[i]
		}
	}
	stored := sha256.Sum256(h(salted, []byte("Client Key")))
	e := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iter, e(salt), e(stored[:]), e(h(salted, []byte("Server Key"))))
}

var sysdba = sync.OnceValue(func() string { return verifier("SYSDBA") })

func newFake() *fakeBackend {
	return &fakeBackend{verifiers: map[string]string{"SYSDBA": sysdba()}, hanging: make(chan struct{}, 100)}
}

func (f *fakeBackend) Login(info sqlapi.LoginInfo) (sqlapi.Login, error) {
	f.seen.Store(&info)
	if e := f.refuseHost.Load(); e != nil {
		return nil, e
	}
	v, ok := f.verifiers[strings.ToUpper(info.User)]
	if !ok {
		v = verifier("nobody knows")
	}
	return &fakeLogin{f, v, ok}, nil
}

type fakeLogin struct {
	f     *fakeBackend
	v     string
	known bool
}

func (l *fakeLogin) Trusted() bool    { return l.f.trust.Load() }
func (l *fakeLogin) Verifier() string { return l.v }
func (l *fakeLogin) Result(_ context.Context, proved bool) error {
	l.f.results.Add(1)
	if l.known && (proved || l.Trusted()) {
		return nil
	}
	return &sqlapi.Error{Severity: "FATAL", Code: "28P01", Message: "password authentication failed for user \"" + l.f.seen.Load().User + "\""}
}

func (f *fakeBackend) NewSession(ctx context.Context, info sqlapi.Info, n sqlapi.Notify) (sqlapi.Session, error) {
	if e := f.refuse.Load(); e != nil {
		return nil, e
	}
	f.live.Add(1)
	s := &fakeSession{f: f, n: n, st: sqlapi.TxIdle, done: make(chan struct{}), stop: make(chan struct{}, 1), info: info}
	f.last.Store(s)
	return s, nil
}

type fakeSession struct {
	f    *fakeBackend
	n    sqlapi.Notify
	info sqlapi.Info
	st   sqlapi.TxStatus
	stop chan struct{}
	done chan struct{}
	once sync.Once
	term *sqlapi.Error

	finals atomic.Int32
}

func (s *fakeSession) Split(sql string) (out []string, err error) {
	for _, p := range strings.Split(sql, ";") {
		if p = strings.TrimSpace(p); p != "" {
			out = append(out, p)
		}
	}
	return out, nil
}
func (s *fakeSession) Final()                    { s.finals.Add(1) }
func (s *fakeSession) TxStatus() sqlapi.TxStatus { return s.st }
func (s *fakeSession) Sync(_ context.Context, failed bool) error {
	if failed && s.st == sqlapi.TxActive {
		s.st = sqlapi.TxFailed
	}
	return s.ended()
}
func (s *fakeSession) ended() error {
	select {
	case <-s.done:
		return s.term
	default:
		return nil
	}
}
func (s *fakeSession) Parameters() map[string]string {
	return map[string]string{"server_version": "15.0 (Datawatch)", "client_encoding": "UTF8", "standard_conforming_strings": "on", "DateStyle": "ISO, MDY", "TimeZone": "UTC", "integer_datetimes": "on"}
}
func (s *fakeSession) Cancel() {
	select {
	case s.stop <- struct{}{}:
	default:
	}
}
func (s *fakeSession) Terminate(e *sqlapi.Error) { s.once.Do(func() { s.term = e; close(s.done) }) }
func (s *fakeSession) Done() <-chan struct{}     { return s.done }
func (s *fakeSession) Close()                    { s.f.live.Add(-1) }

func (s *fakeSession) Prepare(_ context.Context, sql string, oids []uint32) (sqlapi.Stmt, error) {
	w := strings.Fields(strings.TrimSuffix(sql, ";"))
	st := &fakeStmt{s: s, w: w}
	if err := s.ended(); err != nil {
		return nil, err
	}
	col := func(name string, oid uint32) sqlapi.Column {
		return sqlapi.Column{Name: name, OID: oid, Size: -1, TypeMod: -1}
	}
	if len(w) > 0 {
		switch w[0] {
		case "echo":
			for i, a := range w[1:] {
				oid, _ := strconv.Atoi(a)
				st.oids = append(st.oids, uint32(oid))
				st.cols = append(st.cols, col("c"+strconv.Itoa(i+1), uint32(oid)))
			}
		case "rows":
			st.cols = []sqlapi.Column{col("i", oidInt8), col("t", oidText)}
		case "badparse":
			return nil, &sqlapi.Error{Code: "42601", Message: "syntax error", Detail: "d", Hint: "h", Position: 5}
		}
	}
	s.f.stmts.Add(1)
	return st, nil
}

type fakeStmt struct {
	s    *fakeSession
	w    []string
	oids []uint32
	cols []sqlapi.Column
}

func (t *fakeStmt) ParamOIDs() []uint32      { return t.oids }
func (t *fakeStmt) Columns() []sqlapi.Column { return t.cols }
func (t *fakeStmt) Empty() bool              { return len(t.w) == 0 }
func (t *fakeStmt) Close()                   { t.s.f.stmts.Add(-1) }
func (t *fakeStmt) Bind(v []sqlapi.Value) (sqlapi.Portal, error) {
	p := &fakePortal{t: t}
	for _, x := range v {
		x.Bytes = append([]byte(nil), x.Bytes...)
		p.v = append(p.v, x)
	}
	t.s.f.portals.Add(1)
	return p, nil
}

// BindOwned keeps the values where they are.
func (t *fakeStmt) BindOwned(v []sqlapi.Value) (sqlapi.Portal, error) {
	t.s.f.portals.Add(1)
	t.s.f.owned.Add(1)
	return &fakePortal{t: t, v: append(fakeRow(nil), v...)}, nil
}

type fakePortal struct {
	t   *fakeStmt
	v   fakeRow
	pos int
}

func (p *fakePortal) Columns() []sqlapi.Column { return p.t.cols }
func (p *fakePortal) Close()                   { p.t.s.f.portals.Add(-1) }

func (p *fakePortal) Run(ctx context.Context, maxRows int, row func(sqlapi.Row) error) (string, bool, error) {
	s, w := p.t.s, p.t.w
	if err := s.ended(); err != nil {
		return "", false, err
	}
	if s.st == sqlapi.TxFailed && w[0] != "rollback" {
		return "", false, &sqlapi.Error{Code: "25P02", Message: "current transaction is aborted"}
	}
	switch w[0] {
	case "echo":
		return "SELECT 1", false, row(p.v)
	case "rows":
		n, _ := strconv.Atoi(w[1])
		var r fakeRow = []sqlapi.Value{{Kind: sqlapi.Integer}, {Kind: sqlapi.Text, Bytes: []byte("row of some text")}}
		for sent := 0; p.pos < n; sent++ {
			if maxRows > 0 && sent == maxRows {
				return "", true, nil
			}
			r[0].Int = int64(p.pos)
			p.pos++
			if err := row(r); err != nil {
				return "", false, err
			}
		}
		return "SELECT " + w[1], false, nil
	case "begin":
		s.st = sqlapi.TxActive
	case "commit", "rollback":
		s.st = sqlapi.TxIdle
	case "fail":
		e := &sqlapi.Error{Code: w[1], Message: "failed as asked", Detail: "d", Hint: "h"}
		if len(w) > 2 {
			e.Severity = w[2]
		}
		return "", false, fmt.Errorf("run: %w", e)
	case "hang":
		s.f.hanging <- struct{}{}
		select {
		case <-s.stop:
			return "", false, &sqlapi.Error{Code: "57014", Message: "canceling statement due to user request"}
		case <-s.done:
			return "", false, s.term
		case <-ctx.Done():
			return "", false, ctx.Err()
		}
	case "notice":
		s.n.Notice(&sqlapi.Error{Code: "01000", Message: "take note", Severity: "WARNING"})
	case "setparam":
		s.n.ParameterChanged("application_name", "x")
	case "insert":
		return "INSERT 0 1", false, nil
	}
	return strings.ToUpper(w[0]), false, nil
}

type fakeRow []sqlapi.Value

func (r fakeRow) Kind(i int) sqlapi.Kind { return r[i].Kind }
func (r fakeRow) Int64(i int) int64      { return r[i].Int }
func (r fakeRow) Float64(i int) float64  { return r[i].Float }
func (r fakeRow) Bytes(i int) []byte     { return r[i].Bytes }

// serve starts a server on a loopback port; it is closed with the test, and
// must leave no session, statement or portal behind.
func serve(t testing.TB, f *fakeBackend, edit ...func(*Server)) (*Server, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Listener: l, Backend: f, Log: slog.New(slog.DiscardHandler), AuthTimeout: 10 * time.Second}
	for _, e := range edit {
		e(s)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(context.Background()) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-done; err != ErrServerClosed {
			t.Errorf("Serve returned %v", err)
		}
		if n := f.live.Load(); n != 0 {
			t.Errorf("%d sessions not closed", n)
		}
		if a, b := f.portals.Load(), f.stmts.Load(); a != 0 || b != 0 {
			t.Errorf("%d portals and %d statements not closed", a, b)
		}
	})
	return s, l.Addr().String()
}

// eventually polls until ok, for at most 5 seconds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
	}
}
