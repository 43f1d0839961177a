package pgwire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/xdg-go/scram"

	"datawatch/internal/secure"
)

// tlsRecord is the first byte of a TLS handshake: clients of PostgreSQL 17 and
// later may begin with it (sslnegotiation=direct).
const tlsRecord = 0x16

// direct takes a client that begins with TLS, without SSLRequest. It must name
// the protocol it came for (ALPN), so that nobody can lead a client of another
// protocol here. done is false when the client began otherwise.
func (c *conn) direct(ctx context.Context) (done bool, err error) {
	if err := c.rd.need(1); err != nil || c.rd.next() != tlsRecord {
		return false, err
	}
	if c.srv.TLS == nil {
		return false, &protoError{"the client begins with TLS, and this server has no certificate (SSL_CERT of dm.ini)"}
	}
	nc := &prefixed{Conn: c.nc, first: slices.Clone(c.rd.buf[c.rd.r:c.rd.w])}
	if err := c.handshake(ctx, nc); err != nil {
		return true, err
	}
	if p := c.nc.(*tls.Conn).ConnectionState().NegotiatedProtocol; p != secure.SQLProtocol {
		return true, &protoError{fmt.Sprintf("direct TLS connection without the ALPN protocol %q", secure.SQLProtocol)}
	}
	return true, nil
}

// handshake puts the connection under TLS.
func (c *conn) handshake(ctx context.Context, nc net.Conn) error {
	cfg := c.srv.TLS()
	tc := tls.Server(nc, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		c.werr = err // nothing can be said in the middle of a handshake
		var op *net.OpError
		switch {
		case errors.As(err, &op) && op.Op == "remote error":
			err = fmt.Errorf("the client ended it: %w", op.Err)
		case errors.As(err, &op) && op.Op == "local error" && strings.Contains(op.Err.Error(), "bad record MAC"):
			// OpenSSL's alert at this point is not encrypted.
			err = fmt.Errorf("%w: clients that do not trust our certificate end it like this", op.Err)
		case errors.Is(err, io.EOF):
			err = fmt.Errorf("the client closed it: %w", err)
		}
		return &tlsError{err}
	}
	c.mu.Lock()
	c.nc = tc
	c.mu.Unlock()
	c.rd = reader{nc: tc}
	c.binding = endpoint(cfg)
	return nil
}

// tlsError is a handshake that failed.
type tlsError struct{ err error }

func (e *tlsError) Error() string { return "TLS handshake: " + e.err.Error() }
func (e *tlsError) Unwrap() error { return e.err }

// endpoint is the channel binding tls-server-end-point (RFC 5929): a hash of
// the certificate that was shown. There is none for signatures without a hash
// of their own (Ed25519); SCRAM goes without binding then.
func endpoint(cfg *tls.Config) scram.ChannelBinding {
	if len(cfg.Certificates) == 0 || len(cfg.Certificates[0].Certificate) == 0 {
		return scram.ChannelBinding{}
	}
	leaf := cfg.Certificates[0].Leaf
	if leaf == nil {
		var err error
		if leaf, err = x509.ParseCertificate(cfg.Certificates[0].Certificate[0]); err != nil {
			return scram.ChannelBinding{}
		}
	}
	b, err := scram.NewTLSServerEndpointBinding(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}})
	if err != nil {
		return scram.ChannelBinding{}
	}
	return b
}

// encrypted reports whether the connection is under TLS.
func (c *conn) encrypted() bool {
	_, ok := c.nc.(*tls.Conn)
	return ok
}

// mayBePlain refuses a client that has to use TLS and does not.
func (c *conn) mayBePlain() error {
	if c.encrypted() || c.srv.RequireTLS == nil || !c.srv.RequireTLS(c.nc.RemoteAddr()) {
		return nil
	}
	e := fatal("28000", fmt.Sprintf("connections from %s must be encrypted", host(c.nc.RemoteAddr())))
	e.Hint = "Connect with sslmode=require, or better verify-full with sslrootcert. SSL_REQUIRE of dm.ini asks for it."
	if c.srv.TLS == nil {
		e.Hint = "This server has no certificate: SSL_CERT and SSL_KEY of dm.ini name one. SSL_REQUIRE of dm.ini asks for encryption."
	}
	return e
}

// complain logs what was no login at all: one line for each kind and host
// once in a while.
func (c *conn) complain(err error) {
	var proto *protoError
	var long *tooLong
	var bad *tlsError
	switch {
	case errors.As(err, &bad), errors.As(err, &proto), errors.As(err, &long):
	default:
		c.srv.Log.Debug("SQL client refused", "remote", c.nc.RemoteAddr(), "user", c.user, "err", err)
		return
	}
	if ok, more := c.srv.gate.Pass(host(c.nc.RemoteAddr())); ok {
		args := []any{"port", "PORT_NUM", "from", c.nc.RemoteAddr().String(), "err", err.Error()}
		if more > 0 {
			args = append(args, "like_it_since", more)
		}
		c.srv.Log.Warn("connection refused", args...)
	}
}

func host(a net.Addr) string {
	if h, _, err := net.SplitHostPort(a.String()); err == nil {
		return h
	}
	return a.String()
}

// prefixed gives back bytes that were read ahead.
type prefixed struct {
	net.Conn
	first []byte
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.first) > 0 {
		n := copy(b, p.first)
		p.first = p.first[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}
