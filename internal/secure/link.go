package secure

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"datawatch/internal/certs"
)

// maxPreAuth bounds what a peer may send before it is known: a handshake with
// a long chain of certificates has a tenth of it.
const maxPreAuth = 64 << 10

// Want is whom a dialling program expects.
type Want struct {
	Role Role
	Name string // "" any
	// OGUID is the group this link is for, 0: Config.OGUID.
	OGUID uint32
}

// link is a protected connection after its claims.
type link struct {
	net.Conn // TLS
	raw      net.Conn
	peer     Peer
}

// Close ends the connection at once. No close_notify: it could wait for a peer
// that does not read, and frames say by themselves whether they are whole.
func (l *link) Close() error { return l.raw.Close() }

// PeerOf tells who is at the other end; ok is false when nobody was asked:
// mode Off.
func PeerOf(nc net.Conn) (p Peer, ok bool) {
	if l, is := nc.(*link); is {
		return l.peer, true
	}
	return Peer{}, false
}

// Check compares what a peer says of itself in a later hello with who it is.
// It returns nil on links where nobody was asked.
func Check(nc net.Conn, role Role, name string) error {
	p, ok := PeerOf(nc)
	if ok && (p.Role != role || !strings.EqualFold(p.Name, name)) {
		return fmt.Errorf("the link was opened by %s, the hello says %s", p, Peer{Role: role, Name: clean(name, maxName)})
	}
	return nil
}

// bounded counts what comes before the peer is known.
type bounded struct {
	net.Conn
	left int // < 0: no limit
}

var errTooMuch = fmt.Errorf("more than %d bytes before it was known who sends them", maxPreAuth)

func (b *bounded) Read(p []byte) (int, error) {
	if b.left < 0 {
		return b.Conn.Read(p)
	}
	if b.left == 0 {
		return 0, errTooMuch
	}
	n, err := b.Conn.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// Client protects a connection we dialled; in mode Off it returns it as it is.
// On error the connection is closed. The error names the other end as far as
// it is known, and is the same at every attempt for the same reason.
func (e *Endpoint) Client(ctx context.Context, nc net.Conn, want Want) (net.Conn, error) {
	if e.Mode() == Off {
		return nc, nil
	}
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Timeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	l, err := e.client(ctx, nc, want)
	if !stop() && (err == nil || errors.Is(ctx.Err(), context.DeadlineExceeded)) {
		if err = context.Cause(ctx); errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("TLS with %s: no answer within %v", Peer{want.Role, want.Name, 0}, e.cfg.Timeout)
		}
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	return l, nil
}

func (e *Endpoint) client(ctx context.Context, nc net.Conn, want Want) (*link, error) {
	whom := Peer{Role: want.Role, Name: want.Name}
	s, err := e.cr.current()
	if err != nil {
		return nil, err
	}
	oguid := want.OGUID
	if oguid == 0 {
		oguid = e.cfg.OGUID()
	}
	raw := &bounded{Conn: nc, left: maxPreAuth}
	tc := tls.Client(raw, e.tlsConfig(s))
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS with %s: %w", whom, explain(err, e.cfg.Param))
	}
	cs := tc.ConnectionState()
	if cs.NegotiatedProtocol != protocols[0] {
		return nil, fmt.Errorf("TLS with %s: the other side speaks TLS, but not %s: is this the right port?", whom, protocols[0])
	}
	var key certs.GroupKey
	if e.cfg.Mode == Key {
		key = s.keys[0]
	}
	mine, err := e.claimOf(s, oguid, typeClaim, key, cs, whom)
	if err != nil {
		return nil, err
	}
	// The server's certificate can be judged now, before anything of ours is
	// said; who exactly it is follows in its claim.
	if e.cfg.Mode == Cert {
		if err := certs.Verify(s.cas, cs.PeerCertificates, e.cfg.Clock.Now()); err != nil {
			_ = writeClaim(tc, typeClaim, claim{V: claimVersion, Role: mine.Role, Name: mine.Name, Refuse: err.Error()})
			return nil, fmt.Errorf("we refuse %s: %w", whom, err)
		}
	}
	if err := writeClaim(tc, typeClaim, mine); err != nil {
		return nil, fmt.Errorf("TLS with %s: %w", whom, explain(err, e.cfg.Param))
	}
	theirs, err := readClaim(tc, typeReply)
	if err != nil {
		return nil, fmt.Errorf("TLS with %s: %w", whom, explain(err, e.cfg.Param))
	}
	if theirs.Refuse != "" {
		return nil, fmt.Errorf("refused by %s: %s", whom, theirs.Refuse)
	}
	if err := e.judge(s, cs, typeReply, theirs, oguid); err != nil {
		return nil, fmt.Errorf("we refuse %s: %w", whom, err)
	}
	if theirs.Role != want.Role || want.Name != "" && !strings.EqualFold(theirs.Name, want.Name) {
		return nil, fmt.Errorf("we refuse %s: %s answered instead of %s", whom, theirs.who(), whom)
	}
	raw.left = -1
	return &link{tc, nc, theirs.peer()}, nil
}

// server protects a connection that was accepted and has begun with a TLS
// record.
func (e *Endpoint) server(ctx context.Context, nc net.Conn, allow func(Peer) error) (*link, error) {
	s, err := e.cr.current()
	if err != nil {
		return nil, err
	}
	oguid := e.cfg.OGUID()
	raw := &bounded{Conn: nc, left: maxPreAuth}
	tc := tls.Server(raw, e.tlsConfig(s))
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS handshake: %w", explain(err, e.cfg.Param))
	}
	cs := tc.ConnectionState()
	if cs.NegotiatedProtocol != protocols[0] {
		return nil, fmt.Errorf("TLS handshake: the client does not ask for %s: it is not a program of ours", protocols[0])
	}
	theirs, err := readClaim(tc, typeClaim)
	if err != nil {
		return nil, fmt.Errorf("after the TLS handshake: %w", explain(err, e.cfg.Param))
	}
	if theirs.Refuse != "" {
		return nil, fmt.Errorf("%s refuses us: %s", theirs.who(), theirs.Refuse)
	}
	err = e.judge(s, cs, typeClaim, theirs, oguid)
	if err == nil {
		switch self := (Peer{Role: e.cfg.Role, Name: e.cfg.Name}); {
		case theirs.ToRole != self.Role || theirs.ToName != "" && !strings.EqualFold(theirs.ToName, self.Name):
			err = fmt.Errorf("%s wanted %s, this is %s", theirs.who(), clean(Peer{Role: theirs.ToRole, Name: theirs.ToName}.String(), 2*maxName), self)
		case allow != nil:
			err = allow(theirs.peer())
		}
	}
	var mine claim
	if err == nil {
		key, _ := s.keys.Find(theirs.Key)
		mine, err = e.claimOf(s, oguid, typeReply, key, cs, theirs.peer())
	}
	if err != nil {
		_ = writeClaim(tc, typeReply, claim{V: claimVersion, Role: e.cfg.Role, Name: e.cfg.Name, Refuse: err.Error()})
		return nil, fmt.Errorf("we refuse %s: %w", theirs.who(), err)
	}
	if err := writeClaim(tc, typeReply, mine); err != nil {
		return nil, err
	}
	raw.left = -1
	return &link{tc, nc, theirs.peer()}, nil
}

// explain words what a TLS library says in its own terms.
func explain(err error, param string) error {
	var rec tls.RecordHeaderError
	var op *net.OpError
	var alert tls.AlertError
	var t interface{ Timeout() bool }
	switch {
	case errors.As(err, &rec) && string(rec.RecordHeader[:4]) == "DWF1":
		return fmt.Errorf("the other side answered in plain text, it does not use TLS: %s must be the same in the whole group", paramName(param))
	case errors.As(err, &rec):
		return fmt.Errorf("the other side does not speak TLS: it sent %q", rec.RecordHeader[:])
	case errors.Is(err, errTooMuch):
		return errTooMuch
	case errors.As(err, &alert):
		return fmt.Errorf("the other side ended it: %w", alert)
	case errors.As(err, &op) && op.Op == "remote error":
		return fmt.Errorf("the other side ended it: %w", op.Err)
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("closed by the other side; its log may say why")
	case errors.As(err, &t) && t.Timeout():
		return errors.New("nothing came for too long")
	}
	return err
}

// patience is how long a refused peer has to read why.
const patience = 300 * time.Millisecond

// sayPlain answers a peer in its own framing and lets it read that: closing a
// socket with unread input may destroy what was sent.
func sayPlain(nc net.Conn, b []byte, now time.Time) {
	_ = nc.SetDeadline(now.Add(patience))
	if _, err := nc.Write(b); err != nil {
		return
	}
	if cw, ok := nc.(interface{ CloseWrite() error }); ok && cw.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, nc, maxPreAuth)
	}
}
