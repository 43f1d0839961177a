package pgwire

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/xdg-go/scram"

	"datawatch/internal/secure"
)

// shown makes a server show one certificate.
func shown(c tls.Certificate) func() *tls.Config {
	cfg := &tls.Config{Certificates: []tls.Certificate{c}, NextProtos: []string{secure.SQLProtocol}}
	return func() *tls.Config { return cfg }
}

func edCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// A client may begin with TLS at once, but must say what for.
func TestDirectTLS(t *testing.T) {
	_, addr := serve(t, newFake(), func(s *Server) { s.TLS = shown(certificate(t)) })
	c := dial(t, addr, "sslmode=require", "sslnegotiation=direct")
	if tc, ok := c.Conn().(*tls.Conn); !ok || tc.ConnectionState().NegotiatedProtocol != "postgresql" {
		t.Fatalf("connection is a %T", c.Conn())
	}
	if _, err := c.Exec(t.Context(), "rows 3").ReadAll(); err != nil {
		t.Fatal(err)
	}
	nc, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	b, _ := io.ReadAll(nc)
	if !strings.Contains(string(b), "08P01") || !strings.Contains(string(b), "without the ALPN protocol") {
		t.Errorf("without ALPN: %q", b)
	}
	if _, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}); err == nil {
		t.Error("a client of another protocol got in")
	}
	_, addr = serve(t, newFake())
	if _, err := pgconn.Connect(t.Context(), dsn(addr, "sslmode=require", "sslnegotiation=direct")); err == nil {
		t.Error("TLS without a certificate")
	}
}

// Clients that have to use TLS are told so; a CancelRequest may come in plain
// text, as libpq sends it.
func TestRequireTLS(t *testing.T) {
	_, addr := serve(t, newFake(), func(s *Server) {
		s.TLS, s.RequireTLS = shown(certificate(t)), func(a net.Addr) bool { return strings.HasPrefix(a.String(), "127.0.0.1:") }
	})
	_, err := pgconn.Connect(t.Context(), dsn(addr))
	if err == nil || !strings.Contains(err.Error(), "connections from 127.0.0.1 must be encrypted (SQLSTATE 28000)") {
		t.Errorf("plain text: %v", err)
	}
	if dial(t, addr, "sslmode=require").Ping(t.Context()) != nil {
		t.Error("TLS is refused")
	}
	r := newRaw(t, addr)
	r.send([]byte{0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e, 0, 0, 0, 1, 0, 0, 0, 2})
	r.expectClosed()
	_, addr = serve(t, newFake(), func(s *Server) { s.RequireTLS = func(net.Addr) bool { return true } })
	r = newRaw(t, addr)
	r.send(startupMessage("SYSDBA"))
	if b, _ := io.ReadAll(r.nc); !strings.Contains(string(b), "SSL_CERT and SSL_KEY of dm.ini") {
		t.Errorf("a server without certificate says %q", b)
	}
}

func startupMessage(user string) []byte {
	b, _ := (&pgproto3.StartupMessage{ProtocolVersion: 3 << 16, Parameters: map[string]string{"user": user}}).Encode(nil)
	return b
}

// SCRAM is bound to the TLS connection: a login relayed by somebody with
// another certificate fails, and so does one that was talked out of binding.
func TestChannelBinding(t *testing.T) {
	cert := certificate(t)
	_, addr := serve(t, newFake(), func(s *Server) { s.TLS = shown(cert) })
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	good, err := scram.NewTLSServerEndpointBinding(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}})
	if err != nil {
		t.Fatal(err)
	}
	bad := good
	bad.Data = bytes.Repeat([]byte{7}, len(good.Data))
	cl, err := scram.SHA256.NewClient("", "SYSDBA", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, mech string
		conv       *scram.ClientConversation
		want       string // "" success
	}{
		{"bound", plus, cl.NewConversationWithChannelBinding(good), ""},
		{"client without binding", mechanism, cl.NewConversation(), ""},
		{"bound to another certificate", plus, cl.NewConversationWithChannelBinding(bad), "28P01"},
		{"talked out of it", mechanism, cl.NewConversationAdvertisingChannelBinding(), "28000"},
		{"plus without binding", plus, cl.NewConversation(), "08P01"},
		{"binding without plus", mechanism, cl.NewConversationWithChannelBinding(good), "08P01"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, offers := login(t, addr, c.mech, c.conv)
			if len(offers) != 2 || offers[0] != plus || offers[1] != mechanism {
				t.Errorf("the server offers %q", offers)
			}
			if got != c.want {
				t.Errorf("answer %q, want %q", got, c.want)
			}
		})
	}
}

// login runs one SCRAM exchange under TLS and returns the SQLSTATE of its
// failure, and what the server offered.
func login(t *testing.T, addr, mech string, conv *scram.ClientConversation) (code string, offers []string) {
	t.Helper()
	nc, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{secure.SQLProtocol}})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	f := pgproto3.NewFrontend(nc, nc)
	f.Send(&pgproto3.StartupMessage{ProtocolVersion: 3 << 16, Parameters: map[string]string{"user": "SYSDBA"}})
	first := true
	for {
		if err := f.Flush(); err != nil {
			t.Fatal(err)
		}
		m, err := f.Receive()
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *pgproto3.AuthenticationSASL:
			offers = append(offers, m.AuthMechanisms...)
			msg, err := conv.Step("")
			if err != nil {
				t.Fatal(err)
			}
			f.Send(&pgproto3.SASLInitialResponse{AuthMechanism: mech, Data: []byte(msg)})
		case *pgproto3.AuthenticationSASLContinue:
			msg, err := conv.Step(string(m.Data))
			if err != nil {
				t.Fatal(err)
			}
			first = false
			f.Send(&pgproto3.SASLResponse{Data: []byte(msg)})
		case *pgproto3.AuthenticationSASLFinal:
			if _, err := conv.Step(string(m.Data)); err != nil {
				t.Fatal(err)
			}
		case *pgproto3.AuthenticationOk:
			if first {
				t.Fatal("let in without an exchange")
			}
			return "", offers
		case *pgproto3.ErrorResponse:
			return m.Code, offers
		default:
			t.Fatalf("unexpected %T", m)
		}
	}
}

// psql checks the server and is bound to it; with an Ed25519 certificate, for
// which there is no binding, it still gets in.
func TestPSQLVerifies(t *testing.T) {
	psql, err := exec.LookPath("psql")
	if err != nil {
		t.Skip("psql is not installed (Debian package postgresql-client)")
	}
	run := func(addr string, opts ...string) (string, error) {
		host, port, _ := net.SplitHostPort(addr)
		cmd := exec.CommandContext(t.Context(), psql, "-X", "-A", "-t", "-c", "rows 1",
			strings.Join(append(opts, "host="+host, "port="+port, "user=SYSDBA", "dbname=DAMENG"), " "))
		cmd.Env = append(os.Environ(), "PGPASSWORD=SYSDBA")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	file := func(c tls.Certificate) string {
		p := filepath.Join(t.TempDir(), "root.crt")
		if err := os.WriteFile(p, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	cert, other, ed := certificate(t), certificate(t), edCertificate(t)
	var log syncBuffer
	_, addr := serve(t, newFake(), func(s *Server) {
		s.TLS, s.Log = shown(cert), slog.New(slog.NewTextHandler(&log, nil))
	})
	if out, err := run(addr, "sslmode=verify-full", "sslrootcert="+file(cert), "channel_binding=require"); err != nil || !strings.HasPrefix(out, "0|") {
		t.Errorf("verify-full with channel binding: %v %s", err, out)
	}
	if out, err := run(addr, "sslmode=verify-full", "sslrootcert="+file(other)); err == nil || !strings.Contains(out, "certificate verify failed") {
		t.Errorf("another authority: %v %s", err, out)
	}
	eventually(t, "a line about the client that refused us", func() bool {
		return strings.Contains(log.String(), "clients that do not trust our certificate end it like this")
	})
	_, addr = serve(t, newFake(), func(s *Server) { s.TLS = shown(ed) })
	if out, err := run(addr, "sslmode=require"); err != nil || !strings.HasPrefix(out, "0|") {
		t.Errorf("Ed25519: %v %s", err, out)
	}
}

// Garbage leaves one line, not one per attempt.
func TestGarbageIsLoggedOnce(t *testing.T) {
	var log syncBuffer
	_, addr := serve(t, newFake(), func(s *Server) {
		s.TLS, s.Log = shown(certificate(t)), slog.New(slog.NewTextHandler(&log, nil))
	})
	for _, b := range []string{"GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x00\x05hello", strings.Repeat("\xff", 20)} {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(nc, b)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		stop := context.AfterFunc(ctx, func() { nc.Close() })
		_, _ = io.Copy(io.Discard, nc)
		if !stop() {
			t.Errorf("%.10q: still open after 5 s", b)
		}
		cancel()
		nc.Close()
	}
	eventually(t, "a line", func() bool { return strings.Contains(log.String(), "connection refused") })
	if n := strings.Count(log.String(), "connection refused"); n != 1 {
		t.Errorf("%d lines:\n%s", n, log.String())
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
