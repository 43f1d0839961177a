// Package secure protects the links between the programs of a group:
// instances, watchers and monitors. It turns an accepted or dialled connection
// into one whose other end is known, or refuses it with a reason that both
// ends log.
//
// A link is TLS 1.3. Who stands at its other end is settled by one exchange of
// claims right after the handshake (PROTOCOL.md), in one of two ways: each end
// has a certificate of the group's authority that names it (Cert), or each end
// proves, with an HMAC over keying material of this very TLS connection, that
// it has the group's key (Key). docs/decisions/0004-secure-links.md holds the threat
// model and why it is done so. Off leaves links in plain text, as on loopback.
//
// It keeps the network side of G8 for every internal port, with or without
// TLS: before a peer is known it may hold one of a fixed number of places, for
// a bounded time, and send a bounded number of bytes; what it gets wrong makes
// one line in the log, not one per attempt. Peers that are known are the
// business of the packages above, which compare their own hello with PeerOf.
package secure

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"datawatch/internal/certs"
	"datawatch/internal/clock"
)

// Mode is how the other end of a link is known.
type Mode uint8

const (
	Off  Mode = iota // plain text, anybody
	Cert             // by certificate
	Key              // by the group's shared key
)

func (m Mode) String() string { return [...]string{"OFF", "CERT", "KEY"}[m] }

// Role is the kind of a program.
type Role string

const (
	Instance Role = "instance"
	Watcher  Role = "watcher"
	Monitor  Role = "monitor"
)

// kind is what certificates call a role: a watcher uses the certificate of
// the instance it guards.
func (r Role) kind() string {
	if r == Monitor {
		return certs.Monitor
	}
	return certs.Instance
}

// Peer is the program at the other end of a link.
type Peer struct {
	Role  Role
	Name  string // of the instance, the guarded instance, or the monitor
	OGUID uint32 // 0: an instance that has none yet
}

func (p Peer) String() string {
	if p.Name == "" {
		return string(p.Role)
	}
	return string(p.Role) + " " + p.Name
}

// Config of an Endpoint.
type Config struct {
	Mode Mode
	Role Role
	Name string // the instance, the instance guarded, or the monitor
	// Dir holds ca.crt, NAME.crt and NAME.key (Cert) or group.key (Key).
	Dir string
	// Param names the setting in messages: "MAL_SSL_MODE of /dm/dmmal.ini".
	Param string
	// OGUID is the number of the group, 0 while there is none. nil: 0.
	OGUID func() uint32
	Clock clock.Clock  // nil: the system's
	Log   *slog.Logger // nil: slog.Default
	// Timeout bounds the time until a peer is known; default 5 s.
	Timeout time.Duration
}

// Endpoint makes and accepts protected links for one program. A nil Endpoint
// is one of mode Off that checks nothing.
type Endpoint struct {
	cfg  Config
	cr   *creds
	gate *Gate
}

// New makes an Endpoint and reads its files once, so that what is wrong with
// them is an error at start; later changes of the files are noticed at the
// next handshake.
func New(cfg Config) (*Endpoint, error) {
	if cfg.Clock == nil {
		cfg.Clock = clock.Real{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 5 * time.Second
	}
	if cfg.OGUID == nil {
		cfg.OGUID = func() uint32 { return 0 }
	}
	e := &Endpoint{cfg: cfg, gate: NewGate(cfg.Clock)}
	if cfg.Mode == Off {
		return e, nil
	}
	e.cr = newCreds(cfg)
	s, err := e.cr.current()
	if err != nil {
		return nil, fmt.Errorf("%s = %s: %w", cfg.Param, cfg.Mode, err)
	}
	if err := e.own(s, cfg.OGUID()); err != nil {
		return nil, fmt.Errorf("%s = %s: %w", cfg.Param, cfg.Mode, err)
	}
	return e, nil
}

// Mode is how links are protected.
func (e *Endpoint) Mode() Mode {
	if e == nil {
		return Off
	}
	return e.cfg.Mode
}

// own checks that our certificate is ours.
func (e *Endpoint) own(s *secrets, oguid uint32) error {
	if e.cfg.Mode != Cert {
		return nil
	}
	for _, id := range certs.Identities(s.pair.Leaf) {
		if id.Role == e.cfg.Role.kind() && strings.EqualFold(id.Name, e.cfg.Name) && (oguid == 0 || id.OGUID == oguid) {
			return nil
		}
	}
	want := fmt.Sprintf("%s %s", e.cfg.Role.kind(), e.cfg.Name)
	if oguid != 0 {
		want += fmt.Sprintf(" of OGUID %d", oguid)
	}
	return fmt.Errorf("our own certificate %s is for %s, not for %s; `dw certs issue` makes one", s.certPath, certs.Describe(s.pair.Leaf), want)
}

// oguids are the groups our certificate speaks for, as far as it is ours.
func (e *Endpoint) oguids(s *secrets) map[uint32]bool {
	out := map[uint32]bool{}
	for _, id := range certs.Identities(s.pair.Leaf) {
		if id.Role == e.cfg.Role.kind() && strings.EqualFold(id.Name, e.cfg.Name) {
			out[id.OGUID] = true
		}
	}
	return out
}

// Loopback tells whether an address, with or without a port, names this
// machine only.
func Loopback(addr string) bool {
	host := addr
	if h, _, err := net.SplitHostPort(addr); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// Choice is what a configuration says about links.
type Choice struct {
	Value string   // AUTO, OFF, CERT or KEY
	Addrs []string // of every program of the system that it names
	Dir   string   // where the files are
	Name  string   // base name of the certificate
	// Params of these two and the file they stand in, for messages.
	ModeParam, DirParam, AddrParam, File string
}

// Decide turns a configuration into a Mode. AUTO is Off while every address is
// on loopback; otherwise the files decide, and without any it is an error:
// plain text between machines is to be asked for by name.
func (c Choice) Decide() (Mode, error) {
	switch strings.ToUpper(c.Value) {
	case "OFF":
		return Off, nil
	case "CERT":
		return Cert, nil
	case "KEY":
		return Key, nil
	}
	far := ""
	for _, a := range c.Addrs {
		if !Loopback(a) {
			far = a
			break
		}
	}
	if far == "" {
		return Off, nil
	}
	cert, key := filepath.Join(c.Dir, c.Name+".crt"), filepath.Join(c.Dir, certs.KeyFile)
	for _, f := range []struct {
		path string
		mode Mode
	}{{cert, Cert}, {key, Key}} {
		if _, err := os.Stat(f.path); err == nil {
			return f.mode, nil
		} else if !errors.Is(err, os.ErrNotExist) {
			return Off, fmt.Errorf("%s: %s = %s: %w", c.File, c.DirParam, c.Dir, err)
		}
	}
	return Off, fmt.Errorf("%s: %s %s is not on loopback, so links need TLS, and %s = %s holds neither %s nor %s. Make certificates (`dw certs ca`, `dw certs issue`) or a group key (`dw certs key`), see docs/operations.md; or send everything in plain text, redo and passwords included: %s = OFF",
		c.File, c.AddrParam, far, c.DirParam, c.Dir, filepath.Base(cert), filepath.Base(key), c.ModeParam)
}

// protocols is the ALPN name: a port of ours never takes a TLS client that
// came for something else, nor the other way round.
var protocols = []string{"datawatch/1"}

func (e *Endpoint) tlsConfig(s *secrets) *tls.Config {
	c := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             protocols,
		Time:                   e.cfg.Clock.Now,
		SessionTicketsDisabled: true, // a whole handshake takes milliseconds and asks the files of today
		// Certificates are judged after the handshake, when the reason can
		// be told to the other end in words (judge).
		InsecureSkipVerify:          true, //nolint:gosec // see above
		DynamicRecordSizingDisabled: true, // redo is bulk
		Certificates:                []tls.Certificate{*s.pair},
	}
	if e.cfg.Mode == Cert {
		c.ClientAuth = tls.RequestClientCert // judge refuses a peer without
	}
	return c
}

// clean makes a text of the other end fit for a log line.
func clean(s string, max int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > max {
		s = strings.ToValidUTF8(s[:max], "") + "..."
	}
	return s
}
