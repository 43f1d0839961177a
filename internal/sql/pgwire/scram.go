package pgwire

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"

	"datawatch/internal/sql/sqlapi"
)

const (
	mechanism = "SCRAM-SHA-256"
	// plus binds the login to the TLS connection (RFC 5802): whoever sits in
	// the middle with another certificate fails.
	plus = "SCRAM-SHA-256-PLUS"
	// mockIterations is what an unknown user is asked for: PostgreSQL's
	// default, which verifiers made by this product have too.
	mockIterations = 4096
	maxIterations  = 1 << 24
)

// ParseVerifier reads "SCRAM-SHA-256$iter:salt$stored:server".
func ParseVerifier(v string) (scram.StoredCredentials, error) {
	var cred scram.StoredCredentials
	bad := fmt.Errorf("password verifier is not of the form %s$iterations:salt$stored:server", mechanism)
	rest, ok := strings.CutPrefix(v, mechanism+"$")
	if !ok {
		return cred, bad
	}
	left, right, ok := strings.Cut(rest, "$")
	iter, salt, ok2 := strings.Cut(left, ":")
	stored, server, ok3 := strings.Cut(right, ":")
	if !ok || !ok2 || !ok3 {
		return cred, bad
	}
	n, err := strconv.Atoi(iter)
	if err != nil || n < 1 || n > maxIterations {
		return cred, bad
	}
	var raw [3][]byte
	for i, s := range []string{salt, stored, server} {
		if raw[i], err = base64.StdEncoding.DecodeString(s); err != nil {
			return cred, bad
		}
	}
	if len(raw[0]) == 0 || len(raw[1]) != sha256.Size || len(raw[2]) != sha256.Size {
		return cred, bad
	}
	cred.Salt, cred.Iters, cred.StoredKey, cred.ServerKey = string(raw[0]), n, raw[1], raw[2]
	return cred, nil
}

// authenticate runs SCRAM-SHA-256 (RFC 7677), with everyone: what it says to an
// unknown user is what it says to a known one with a wrong password.
func (c *conn) authenticate(ctx context.Context, info sqlapi.Info) error {
	_, secure := c.nc.(*tls.Conn)
	l, err := c.srv.Backend.Login(sqlapi.LoginInfo{User: info.User, Database: info.Database, RemoteAddr: info.RemoteAddr, Local: ownHost(c.nc), TLS: secure})
	if err != nil {
		return fatalError(err)
	}
	if l.Trusted() {
		return fatalError(l.Result(ctx, false))
	}
	cred, err := ParseVerifier(l.Verifier())
	if err != nil {
		return fatalError(err)
	}
	server, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) {
		// As in PostgreSQL, the user is the one of the startup message; the
		// name inside the exchange is ignored (libpq sends none).
		return cred, nil
	})
	if err != nil {
		return err
	}
	conv := server.NewConversation()

	b, at := begin(c.buf(), 'R')
	b = binary.BigEndian.AppendUint32(b, 10)
	offered := mechanism
	if c.binding.IsSupported() {
		conv = server.NewConversationWithChannelBinding(c.binding)
		b = appendCStr(b, plus)
		offered = plus + " and " + mechanism
	}
	c.out = finish(append(appendCStr(b, mechanism), 0), at)
	if err := c.flush(); err != nil {
		return err
	}
	m, err := c.password()
	if err != nil {
		return err
	}
	mech := string(m.cstr())
	n := m.int32()
	first := m.bytes(int(n))
	if n < 0 || !m.end() {
		return &protoError{"malformed SASLInitialResponse message"}
	}
	if mech != mechanism && (mech != plus || !c.binding.IsSupported()) {
		return fatal("08P01", fmt.Sprintf("client selected an invalid SASL authentication mechanism; the server offers %s", offered))
	}
	if bound := len(first) > 0 && first[0] == 'p'; bound != (mech == plus) {
		return fatal("08P01", fmt.Sprintf("malformed SCRAM message: channel binding of the message does not fit mechanism %s", mech))
	}
	reply, err := conv.Step(string(first))
	if err != nil && reply == scram.ErrServerDoesSupportChannelBinding {
		return fatal("28000", "SCRAM channel binding negotiation error: the client thinks that the server does not support channel binding, but it does; somebody may have changed what it offered")
	}
	if err != nil {
		return fatal("08P01", "malformed SCRAM message: "+err.Error())
	}
	if err := c.sasl(11, reply); err != nil {
		return err
	}
	if m, err = c.password(); err != nil {
		return err
	}
	reply, err = conv.Step(string(m.b))
	if err := l.Result(ctx, err == nil && conv.Valid()); err != nil {
		return fatalError(err)
	}
	if err != nil || !conv.Valid() { // unreachable: Result lets nobody in who has not proved the password
		return fatal("28P01", "password authentication failed")
	}
	b, at = begin(c.buf(), 'R')
	c.out = finish(append(binary.BigEndian.AppendUint32(b, 12), reply...), at)
	return nil
}

// fatalError is err as the end of a connection.
func fatalError(err error) error {
	if err == nil {
		return nil
	}
	e := *asError(err)
	e.Severity = "FATAL"
	return &e
}

// sasl sends an authentication message with data.
func (c *conn) sasl(code uint32, data string) error {
	b, at := begin(c.buf(), 'R')
	c.out = finish(append(binary.BigEndian.AppendUint32(b, code), data...), at)
	return c.flush()
}

// password reads the one message that is allowed during authentication.
func (c *conn) password() (body, error) {
	typ, b, err := c.rd.message(func(typ byte) int {
		switch typ {
		case 'p':
			return maxPreAuth
		case 'X':
			return 0
		}
		return -1
	})
	if err != nil {
		var p *protoError
		if errors.As(err, &p) && typ != 'p' {
			p.msg = fmt.Sprintf("expected SASL response, got message type %d", typ)
		}
		return body{}, err
	}
	if typ == 'X' {
		return body{}, errClose
	}
	return body{b: b}, nil
}
