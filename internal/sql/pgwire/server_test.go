package pgwire

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"datawatch/internal/sql/sqlapi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func dsn(addr string, more ...string) string {
	host, port, _ := net.SplitHostPort(addr)
	return fmt.Sprintf("host=%s port=%s user=SYSDBA password=SYSDBA dbname=DAMENG sslmode=disable %s", host, port, strings.Join(more, " "))
}

func dial(t testing.TB, addr string, more ...string) *pgconn.PgConn {
	t.Helper()
	c, err := pgconn.Connect(t.Context(), dsn(addr, more...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

// code returns the SQLSTATE of an error, or what else it is.
func code(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return fmt.Sprint(err)
}

func TestSimpleQuery(t *testing.T) {
	_, addr := serve(t, newFake())
	c := dial(t, addr)
	if v := c.ParameterStatus("server_version"); v != "15.0 (Datawatch)" {
		t.Errorf("server_version %q", v)
	}
	if c.PID() == 0 || len(c.SecretKey()) != 4 {
		t.Errorf("no key data: %d %x", c.PID(), c.SecretKey())
	}
	res, err := c.Exec(t.Context(), "rows 2; insert; rows 0").ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(res) != 3 || len(res[0].Rows) != 2 || string(res[0].Rows[1][0]) != "1" ||
		res[0].FieldDescriptions[0].Name != "i" || res[1].CommandTag.String() != "INSERT 0 1" ||
		res[2].CommandTag.String() != "SELECT 0" {
		for _, r := range res {
			t.Errorf("got %+v", r)
		}
	}
	if res, err = c.Exec(t.Context(), " ; ").ReadAll(); err != nil || len(res) != 1 || len(res[0].Rows) != 0 {
		t.Errorf("empty query: %v %v", res, err)
	}
	_, err = c.Exec(t.Context(), "insert; badparse; insert").ReadAll()
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code != "42601" || pe.Detail != "d" || pe.Hint != "h" || pe.Severity != "ERROR" || pe.Position != int32(len("insert; ")+5) {
		t.Errorf("got %+v", pe)
	}
	if _, err = c.Exec(t.Context(), "insert").ReadAll(); err != nil {
		t.Error("not usable after an error:", err)
	}
	for _, sql := range []string{"begin", "fail 22012", "insert"} {
		_, err = c.Exec(t.Context(), sql).ReadAll()
	}
	if code(err) != "25P02" || c.TxStatus() != 'E' {
		t.Errorf("in a failed transaction: %v, status %c", err, c.TxStatus())
	}
	if _, err = c.Exec(t.Context(), "rollback").ReadAll(); err != nil || c.TxStatus() != 'I' {
		t.Errorf("rollback: %v, status %c", err, c.TxStatus())
	}
	if _, err = c.Exec(t.Context(), "echo 23").ReadAll(); code(err) != "42P02" {
		t.Errorf("parameter in a simple query: %v", err)
	}
	if _, err = c.Exec(t.Context(), "echo \xff").ReadAll(); code(err) != "22021" {
		t.Errorf("bad UTF-8: %v", err)
	}
	if _, err = c.Exec(t.Context(), "fail 57P03 FATAL").ReadAll(); code(err) != "57P03" {
		t.Errorf("fatal error: %v", err)
	}
	eventually(t, "connection closed", func() bool { return c.IsClosed() || c.Ping(context.Background()) != nil })
}

func TestNoticesAndParameters(t *testing.T) {
	_, addr := serve(t, newFake())
	cfg, err := pgconn.ParseConfig(dsn(addr))
	if err != nil {
		t.Fatal(err)
	}
	var notices []string
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices = append(notices, n.Severity+" "+n.Message) }
	c, err := pgconn.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	if _, err := c.Exec(t.Context(), "notice; setparam").ReadAll(); err != nil {
		t.Fatal(err)
	}
	if len(notices) != 1 || notices[0] != "WARNING take note" || c.ParameterStatus("application_name") != "x" {
		t.Errorf("notices %q, application_name %q", notices, c.ParameterStatus("application_name"))
	}
}

func TestPortalsAndLimits(t *testing.T) {
	f := newFake()
	_, addr := serve(t, f)
	r := newRaw(t, addr)
	r.login()
	r.send(msgParse("s", "rows 5"), msgBind("p", "s"), msgDescribe('P', "p"), msgExecute("p", 2), msgExecute("p", 2), msgSync())
	r.expect("1 2 T D D s D D s Z:I")
	r.send(msgExecute("p", 0), msgSync()) // gone with its transaction
	r.expect("E:34000 Z:I")
	r.send(msgQuery("begin"))
	r.expect("C:BEGIN Z:T")
	r.send(msgBind("p", "s"), msgExecute("p", 3), msgSync())
	r.expect("2 D D D s Z:T")
	r.send(msgExecute("p", 3), msgExecute("p", 3), msgBind("p", "s"), msgExecute("p", 1), msgSync())
	r.expect("D D C:SELECT@5 C:SELECT@0 E:42P03 Z:E")
	r.send(msgQuery("rollback"))
	r.expect("C:ROLLBACK Z:I")
	r.send(msgParse("s", "insert"), msgParse("t", "insert"), msgSync())
	r.expect("E:42P05 Z:I")
	r.send(msgParse("", "insert"), msgDescribe('S', ""), msgBind("", ""), msgDescribe('P', ""), msgExecute("", 0), msgExecute("", 0), msgSync())
	r.expect("1 t n 2 n C:INSERT@0@1 E:55000 Z:I")
	r.send(msgParse("", ""), msgBind("", ""), msgExecute("", 0), msgSync())
	r.expect("1 2 I Z:I")
	r.send(msgClose('S', "s"), msgClose('S', "nothing"), msgClose('P', "nothing"), msgBind("", "s"), msgSync())
	r.expect("3 3 3 E:26000 Z:I")
	// A portal outlives the unnamed statement it was made of.
	r.send(msgQuery("begin"), msgParse("", "rows 3"), msgBind("c1", ""), msgExecute("c1", 1), msgSync(), msgParse("", "insert"), msgBind("", ""), msgExecute("", 0), msgExecute("c1", 1), msgClose('P', "c1"), msgSync())
	r.expect("C:BEGIN Z:T 1 2 D s Z:T 1 2 C:INSERT@0@1 D s 3 Z:T")
	r.send(msgParse("e", "echo 23 25"), msgDescribe('S', "e"), msgBind("", "e"), msgSync())
	r.expect("1 t T E:08P01 Z:E")
	// Flush sends what there is; nothing after the error until Sync.
	r.send(msgQuery("rollback"), msgParse("x", "insert"), msg('H', nil))
	r.expect("C:ROLLBACK Z:I 1")
	r.send(msgBind("", "nope"), msgParse("y", "insert"), msgQuery("insert"), msg('H', nil))
	r.expect("E:26000")
	r.send(msgSync(), msgDescribe('S', "y"), msgSync())
	r.expect("Z:I E:26000 Z:I")
	r.send(msg('X', nil))
	r.expectClosed()
}

func TestPipeline(t *testing.T) {
	_, addr := serve(t, newFake())
	c := dial(t, addr)
	p := c.StartPipeline(t.Context())
	for range 50 {
		p.SendQueryParams("echo 23", [][]byte{[]byte("7")}, nil, nil, nil)
		p.SendPipelineSync()
	}
	p.SendQueryParams("fail 22012", nil, nil, nil, nil)
	p.SendQueryParams("insert", nil, nil, nil, nil)
	p.SendPipelineSync()
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
	rows, syncs, errs := 0, 0, 0
	for {
		res, err := p.GetResults()
		if err != nil {
			if code(err) != "22012" {
				t.Fatal(err)
			}
			errs++
			continue
		}
		switch r := res.(type) {
		case *pgconn.ResultReader:
			for r.NextRow() {
				rows++
			}
			if _, err := r.Close(); err != nil {
				if code(err) != "22012" {
					t.Fatal(err)
				}
				errs++
			}
		case *pgconn.PipelineSync:
			syncs++
		}
		if syncs == 51 {
			break
		}
	}
	if rows != 50 || errs != 1 {
		t.Errorf("%d rows, %d errors", rows, errs)
	}
	p.Close()
}

func TestAuthentication(t *testing.T) {
	f := newFake()
	_, addr := serve(t, f)
	for name, tc := range map[string]struct{ opt, code string }{
		"right":              {"", "<nil>"},
		"user in lower case": {"user=sysdba", "<nil>"},
		"wrong password":     {"password=x", "28P01"},
		"unknown user":       {"user=nobody", "28P01"},
		"encoding":           {"client_encoding=LATIN1", "22023"},
		"replication":        {"replication=database", "0A000"},
		"protocol 3.2":       {"max_protocol_version=3.2", "<nil>"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := pgconn.Connect(t.Context(), dsn(addr, tc.opt))
			if err == nil {
				c.Close(context.Background())
			}
			if code(err) != tc.code {
				t.Errorf("got %v, want %s", err, tc.code)
			}
		})
	}
	f.refuse.Store(&sqlapi.Error{Code: "57P03", Message: "the database system is starting up"})
	if _, err := pgconn.Connect(t.Context(), dsn(addr)); code(err) != "57P03" {
		t.Errorf("session refused: %v", err)
	}
}

// remoteListener makes clients look as if they came from elsewhere.
type remoteListener struct{ net.Listener }
type remoteConn struct{ net.Conn }

func (l remoteListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return remoteConn{c}, nil
}
func (remoteConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 9} }

// What the backend is told about a login, and what it says: nothing else
// decides.
func TestLogin(t *testing.T) {
	f := newFake()
	_, local := serve(t, f)
	dial(t, local)
	if i := f.seen.Load(); !i.Local || i.TLS || i.User != "SYSDBA" || i.Database != "DAMENG" || !strings.HasPrefix(i.RemoteAddr, "127.0.0.1:") {
		t.Errorf("from loopback: %+v", i)
	}
	g := newFake()
	_, addr := serve(t, g, func(s *Server) {
		s.Listener = remoteListener{s.Listener}
		cert := certificate(t)
		s.TLS = func() *tls.Config { return &tls.Config{Certificates: []tls.Certificate{cert}} }
	})
	c, err := pgconn.Connect(t.Context(), strings.Replace(dsn(addr), "sslmode=disable", "sslmode=require", 1))
	if err != nil {
		t.Fatal(err)
	}
	c.Close(context.Background())
	if i := g.seen.Load(); i.Local || !i.TLS || i.RemoteAddr != "192.0.2.1:9" {
		t.Errorf("from elsewhere, by TLS: %+v", i)
	}
	before := g.results.Load()
	for _, user := range []string{"SYSDBA", "nobody"} {
		if _, err := pgconn.Connect(t.Context(), dsn(addr, "password=x", "user="+user)); code(err) != "28P01" {
			t.Errorf("wrong password of %s: %v", user, err)
		}
	}
	if n := g.results.Load() - before; n != 2 {
		t.Errorf("the backend heard of %d failures, want 2", n)
	}
	g.refuseHost.Store(&sqlapi.Error{Code: "28000", Message: "not from there"})
	if _, err := pgconn.Connect(t.Context(), dsn(addr)); code(err) != "28000" || !strings.Contains(err.Error(), "FATAL") {
		t.Errorf("address refused: %v", err)
	}
	g.refuseHost.Store(nil)
	g.trust.Store(true)
	if c, err = pgconn.Connect(t.Context(), dsn(addr, "password=")); err != nil {
		t.Errorf("trusted: %v", err)
	} else {
		c.Close(context.Background())
	}
	if _, err := pgconn.Connect(t.Context(), dsn(addr, "user=nobody")); code(err) != "28P01" {
		t.Errorf("trusted, but unknown: %v", err)
	}
}

func TestCancel(t *testing.T) {
	f := newFake()
	_, addr := serve(t, f)
	c := dial(t, addr)
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(context.Background(), "hang").ReadAll()
		done <- err
	}()
	<-f.hanging
	// A wrong key does nothing, and neither does a request without a session.
	r := newRaw(t, addr)
	r.send(cancelMsg(c.PID(), 1), nil)
	r.expectClosed()
	r = newRaw(t, addr)
	r.send(cancelMsg(99999, 1), nil)
	r.expectClosed()
	select {
	case err := <-done:
		t.Fatal("cancelled by a wrong key:", err)
	default:
	}
	if err := c.CancelRequest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; code(err) != "57014" {
		t.Errorf("got %v", err)
	}
	// Cancelling an idle session does not hit its next statement.
	if err := c.CancelRequest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(t.Context(), "insert").ReadAll(); err != nil {
		t.Error(err)
	}
}

// A server that is still starting says so at once, so that a client with
// several hosts goes on to the next.
func TestStarting(t *testing.T) {
	s, addr := serve(t, newFake(), (*Server).Starting)
	if _, err := pgconn.Connect(t.Context(), dsn(addr)); code(err) != "57P03" {
		t.Errorf("while starting: %v", err)
	}
	s.Ready()
	dial(t, addr)
}

func TestMaxSessions(t *testing.T) {
	s, addr := serve(t, newFake(), func(s *Server) { s.MaxSessions = 3 })
	var cs []*pgconn.PgConn
	for range 3 {
		cs = append(cs, dial(t, addr))
	}
	if _, err := pgconn.Connect(t.Context(), dsn(addr)); code(err) != "53300" {
		t.Errorf("fourth: %v", err)
	}
	cs[0].Close(t.Context())
	eventually(t, "a session is free", func() bool { return s.Sessions() == 2 })
	dial(t, addr)
}

func TestTooManyUnauthenticated(t *testing.T) {
	_, addr := serve(t, newFake(), func(s *Server) { s.MaxSessions = 1 })
	var rs []*raw
	for range 1 + preAuthSlots {
		rs = append(rs, newRaw(t, addr))
	}
	for _, r := range rs[:2] { // make sure they are counted
		r.send([]byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f})
		if b := r.bytes(1); b[0] != 'N' {
			t.Fatalf("SSLRequest answered %q", b)
		}
	}
	eventually(t, "further connections are refused", func() bool {
		r := newRaw(t, addr)
		typ, b := r.tryRead()
		return typ == 'E' && strings.Contains(string(b), "C53300")
	})
}

func TestAuthTimeout(t *testing.T) {
	_, addr := serve(t, newFake(), func(s *Server) { s.AuthTimeout = 50 * time.Millisecond })
	r := newRaw(t, addr)
	r.expect("E:57014")
	r.expectClosed()
	r = newRaw(t, addr)
	r.send(msgStartup(3<<16, "user", "SYSDBA"))
	r.expect("R E:57014")
	r.expectClosed()
}

func TestShutdown(t *testing.T) {
	f := newFake()
	s, addr := serve(t, f)
	idle, busy := newRaw(t, addr), newRaw(t, addr)
	idle.login()
	busy.login()
	busy.send(msgQuery("begin"))
	busy.expect("C:BEGIN Z:T")
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(context.Background()) }()
	idle.expect("E:57P01")
	idle.expectClosed()
	busy.send(msgQuery("insert"))
	busy.expect("C:INSERT@0@1 Z:T")
	busy.send(msgQuery("commit"))
	busy.expect("C:COMMIT Z:I E:57P01")
	busy.expectClosed()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("still listening")
	}
}

func TestCloseInterrupts(t *testing.T) {
	f := newFake()
	s, addr := serve(t, f)
	hang, tx, auth := newRaw(t, addr), newRaw(t, addr), newRaw(t, addr)
	hang.login()
	tx.login()
	auth.send(msgStartup(3<<16, "user", "SYSDBA"))
	auth.expect("R")
	hang.send(msgQuery("hang"))
	<-f.hanging
	tx.send(msgQuery("begin"))
	tx.expect("C:BEGIN Z:T")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(ctx) }()
	cancel()
	for _, r := range []*raw{hang, tx, auth} {
		r.expect("E:57P01")
		r.expectClosed()
	}
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown returned %v", err)
	}
}

// TestCloseDoesNotWaitForSilentReader: a client that does not read its rows
// cannot keep the server from closing.
func TestCloseDoesNotWaitForSilentReader(t *testing.T) {
	f := newFake()
	s, addr := serve(t, f)
	r := newRaw(t, addr)
	r.login()
	r.send(msgQuery("rows 10000000"))
	r.read() // it has begun
	start := time.Now()
	s.Close()
	if d := time.Since(start); d > closeGrace+3*time.Second {
		t.Errorf("Close took %v", d)
	}
}

// TestTerminateFromTheSession: a session that is ended below the protocol, as
// by SESS_FREE_IN_SUSPEND, tells its client at once, idle or busy.
func TestTerminateFromTheSession(t *testing.T) {
	f := newFake()
	_, addr := serve(t, f)
	for _, busy := range []bool{false, true} {
		r := newRaw(t, addr)
		r.login()
		sess := f.last.Load()
		if busy {
			r.send(msgQuery("hang"))
			<-f.hanging
		}
		sess.Terminate(&sqlapi.Error{Severity: "FATAL", Code: "57P02", Message: "the database is suspended"})
		r.expect("E:57P02")
		r.expectClosed()
	}
	r := newRaw(t, addr)
	r.login()
	r.send(msgQuery("fail 57P01 FATAL"))
	r.expect("E:57P01")
	r.expectClosed()
	eventually(t, "sessions closed", func() bool { return f.live.Load() == 0 })
}

// TestClientVanishes: nothing is left of a client that closes its socket in
// the middle of a transaction, a portal or a message.
func TestClientVanishes(t *testing.T) {
	f := newFake()
	_, addr := serve(t, f)
	for _, last := range [][]byte{msgQuery("begin"), append(msgParse("s", "rows 9"), msgBind("p", "s")...), {'Q', 0, 0}, msgQuery("rows 1000000")} {
		r := newRaw(t, addr)
		r.login()
		r.send(last)
		r.nc.Close()
	}
	eventually(t, "sessions closed", func() bool {
		return f.live.Load() == 0 && f.portals.Load() == 0 && f.stmts.Load() == 0
	})
}

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestTLS(t *testing.T) {
	f := newFake()
	s, addr := serve(t, f, func(s *Server) { s.TLS = shown(certificate(t)) })
	c := dial(t, addr, "sslmode=require")
	if _, ok := c.Conn().(*tls.Conn); !ok {
		t.Fatalf("connection is a %T", c.Conn())
	}
	res, err := c.Exec(t.Context(), "rows 3000").ReadAll()
	if err != nil || len(res[0].Rows) != 3000 {
		t.Fatalf("%v", err)
	}
	if plain := dial(t, addr); plain.Ping(t.Context()) != nil {
		t.Error("plain text refused")
	}
	// Text sent behind SSLRequest is not taken for encrypted.
	r := newRaw(t, addr)
	r.send([]byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f, 'x'})
	r.expect("E:08P01")
	r.expectClosed()
	// Garbage instead of a handshake.
	r = newRaw(t, addr)
	r.send([]byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f})
	if b := r.bytes(1); b[0] != 'S' {
		t.Fatalf("SSLRequest answered %q", b)
	}
	r.send([]byte("GET / HTTP/1.0\r\n\r\n"))
	eventually(t, "handshake given up", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.conns) <= 2 })
	_, addr = serve(t, newFake())
	if _, err := pgconn.Connect(t.Context(), dsn(addr, "sslmode=require")); err == nil {
		t.Error("TLS without a certificate")
	}
}

func TestPGX(t *testing.T) {
	_, addr := serve(t, newFake())
	c, err := pgx.Connect(t.Context(), dsn(addr))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	now := time.Date(2024, 2, 29, 12, 34, 56, 789012000, time.UTC)
	sql := fmt.Sprintf("echo %d %d %d %d %d %d %d", oidInt8, oidText, oidFloat8, oidBool, oidTimestamptz, oidBytea, oidDate)
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec} {
		var i int64
		var s string
		var f float64
		var b bool
		var ts, d time.Time
		var raw []byte
		err := c.QueryRow(t.Context(), sql, mode, int64(-5), "añb", 1.5, true, now, []byte{0, 255}, now).Scan(&i, &s, &f, &b, &ts, &raw, &d)
		if err != nil || i != -5 || s != "añb" || f != 1.5 || !b || !ts.Equal(now) || string(raw) != "\x00\xff" || d.Format("2006-01-02") != "2024-02-29" {
			t.Errorf("%v: %v %v %q %v %v %v %v %v", mode, err, i, s, f, b, ts, raw, d)
		}
	}
	batch := &pgx.Batch{}
	for range 10 {
		batch.Queue("insert")
	}
	if err := c.SendBatch(t.Context(), batch).Close(); err != nil {
		t.Error(err)
	}
}

// TestFinal: a series of one statement, sent as drivers do, is announced as such.
func TestFinal(t *testing.T) {
	f := newFake()
	_, addr := serve(t, f)
	c := dial(t, addr)
	if r := c.ExecParams(t.Context(), "insert", nil, nil, nil, nil).Read(); r.Err != nil {
		t.Fatal(r.Err)
	}
	if n := f.last.Load().finals.Load(); n != 1 {
		t.Errorf("Final called %d times for one statement", n)
	}
	b := &pgconn.Batch{}
	b.ExecParams("insert", nil, nil, nil, nil)
	b.ExecParams("insert", nil, nil, nil, nil)
	if _, err := c.ExecBatch(t.Context(), b).ReadAll(); err != nil {
		t.Fatal(err)
	}
	if n := f.last.Load().finals.Load(); n != 2 {
		t.Errorf("Final called %d times, want 2: for the last statement of the batch only", n)
	}
}
