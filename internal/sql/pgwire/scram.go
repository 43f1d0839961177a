package pgwire

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"
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

// credentials finds a user's keys, or makes up keys that nothing matches: the
// exchange with an unknown user looks like one with a wrong password, the
// salt being the same at every attempt.
func (s *Server) credentials(user string) (cred scram.StoredCredentials, isDefault, ok bool) {
	v, isDefault, ok := s.Backend.Verifier(user)
	if ok {
		cred, err := ParseVerifier(v)
		if err == nil {
			return cred, isDefault, true
		}
		s.Log.Error("user cannot log in", "user", user, "err", err)
	}
	mac := hmac.New(sha256.New, s.mockKey[:])
	mac.Write([]byte(strings.ToUpper(user)))
	cred.Salt, cred.Iters = string(mac.Sum(nil)[:16]), mockIterations
	cred.StoredKey, cred.ServerKey = make([]byte, sha256.Size), make([]byte, sha256.Size)
	rand.Read(cred.StoredKey)
	rand.Read(cred.ServerKey)
	return cred, false, false
}

// authenticate runs SCRAM-SHA-256 (RFC 7677) and reports whether the password
// that was proved is the initial one.
func (c *conn) authenticate(user string) (isDefault bool, err error) {
	var known bool
	server, err := scram.SHA256.NewServer(func(string) (cred scram.StoredCredentials, err error) {
		// As in PostgreSQL, the user is the one of the startup message; the
		// name inside the exchange is ignored (libpq sends none).
		cred, isDefault, known = c.srv.credentials(user)
		return cred, nil
	})
	if err != nil {
		return false, err
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
		return false, err
	}
	m, err := c.password()
	if err != nil {
		return false, err
	}
	mech := string(m.cstr())
	n := m.int32()
	first := m.bytes(int(n))
	if n < 0 || !m.end() {
		return false, &protoError{"malformed SASLInitialResponse message"}
	}
	if mech != mechanism && (mech != plus || !c.binding.IsSupported()) {
		return false, fatal("08P01", fmt.Sprintf("client selected an invalid SASL authentication mechanism; the server offers %s", offered))
	}
	if bound := len(first) > 0 && first[0] == 'p'; bound != (mech == plus) {
		return false, fatal("08P01", fmt.Sprintf("malformed SCRAM message: channel binding of the message does not fit mechanism %s", mech))
	}
	reply, err := conv.Step(string(first))
	if err != nil && reply == scram.ErrServerDoesSupportChannelBinding {
		return false, fatal("28000", "SCRAM channel binding negotiation error: the client thinks that the server does not support channel binding, but it does; somebody may have changed what it offered")
	}
	if err != nil {
		return false, fatal("08P01", "malformed SCRAM message: "+err.Error())
	}
	if err := c.sasl(11, reply); err != nil {
		return false, err
	}
	if m, err = c.password(); err != nil {
		return false, err
	}
	reply, err = conv.Step(string(m.b))
	if err != nil || !conv.Valid() || !known {
		c.srv.Log.Warn("password authentication failed", "user", user, "remote", c.nc.RemoteAddr(), "known", known)
		return false, fatal("28P01", fmt.Sprintf("password authentication failed for user %q", user))
	}
	b, at = begin(c.buf(), 'R')
	c.out = finish(append(binary.BigEndian.AppendUint32(b, 12), reply...), at)
	return isDefault, nil
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
