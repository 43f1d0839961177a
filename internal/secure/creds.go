package secure

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"datawatch/internal/certs"
	"datawatch/internal/clock"
)

// warnDays is how long before its end a certificate is complained about.
const warnDays = 30

// reload keeps something read from files current: it looks at the files
// whenever it is asked and reads them again when one has changed. Files that
// cannot be used leave what was read before in force.
type reload[T any] struct {
	paths []string
	read  func() (T, error)
	log   *slog.Logger

	mu     sync.Mutex
	loaded bool
	have   T
	stamps []stamp
	said   string // last complaint
}

// current returns what the files say. again is true when they were read anew.
// An error is possible the first time only.
func (r *reload[T]) current() (have T, again bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := stamps(r.paths)
	if r.loaded && slices.Equal(now, r.stamps) {
		return r.have, false, nil
	}
	v, err := r.read()
	switch {
	case err == nil:
		again = r.loaded
		r.have, r.loaded, r.stamps, r.said = v, true, now, ""
	case !r.loaded:
		return v, false, err
	case err.Error() != r.said: // perhaps half of a change: look again next time
		r.said = err.Error()
		r.log.Error("changed certificates or keys cannot be used; the former stay in force", "err", err)
	}
	return r.have, again, nil
}

// stamp tells one version of a file from another.
type stamp struct {
	mod  time.Time
	size int64
	ino  uint64
}

func stamps(paths []string) []stamp {
	out := make([]stamp, len(paths))
	for i, p := range paths {
		if st, err := os.Stat(p); err == nil {
			out[i] = stamp{st.ModTime(), st.Size(), inode(st)}
		}
	}
	return out
}

// inode tells a file from one renamed over it within the same tick of the
// clock.
func inode(st fs.FileInfo) uint64 {
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		return s.Ino
	}
	return 0
}

// expiry complains once a day about a certificate that ends soon.
type expiry struct {
	clk clock.Clock
	log *slog.Logger

	mu     sync.Mutex
	warned time.Time
}

func (x *expiry) look(leaf *x509.Certificate, file string) {
	now := x.clk.Now()
	left := leaf.NotAfter.Sub(now)
	x.mu.Lock()
	defer x.mu.Unlock()
	if !soon(leaf.NotAfter, now) || now.Sub(x.warned) < 24*time.Hour {
		return
	}
	x.warned = now
	if left <= 0 {
		x.log.Error("our certificate has expired: whoever checks it refuses us; `dw certs renew` makes a new one", "file", file, "expired", leaf.NotAfter)
		return
	}
	x.log.Warn("our certificate ends soon; `dw certs renew` makes a new one", "file", file, "expires", leaf.NotAfter)
}

// secrets are what a handshake of a link needs, as read at one moment.
type secrets struct {
	pair     *tls.Certificate
	certPath string
	cas      []*x509.Certificate // Cert
	keys     certs.GroupKeys     // Key
}

// creds are the secrets of an Endpoint.
type creds struct {
	cfg    Config
	files  reload[*secrets]
	expiry expiry
}

func newCreds(cfg Config) *creds {
	c := &creds{cfg: cfg, expiry: expiry{clk: cfg.Clock, log: cfg.Log}}
	c.files = reload[*secrets]{paths: c.paths(), read: c.load, log: cfg.Log}
	return c
}

func (c *creds) paths() []string {
	if c.cfg.Mode == Key {
		return []string{filepath.Join(c.cfg.Dir, certs.KeyFile)}
	}
	return []string{filepath.Join(c.cfg.Dir, certs.CACertFile), filepath.Join(c.cfg.Dir, c.cfg.Name+".crt"), filepath.Join(c.cfg.Dir, c.cfg.Name+".key")}
}

func (c *creds) current() (*secrets, error) {
	s, again, err := c.files.current()
	if err != nil {
		return nil, err
	}
	if again {
		c.cfg.Log.Info("certificates or group key read again", "dir", c.cfg.Dir, "using", s.describe())
	}
	if c.cfg.Mode == Cert {
		c.expiry.look(s.pair.Leaf, s.certPath)
	}
	return s, nil
}

func (c *creds) load() (*secrets, error) {
	p := c.paths()
	if c.cfg.Mode == Key {
		keys, err := certs.LoadGroupKeys(p[0])
		if err != nil {
			return nil, fmt.Errorf("group key: %w", err)
		}
		pair, err := throwaway(c.cfg.Clock.Now())
		if err != nil {
			return nil, err
		}
		return &secrets{pair: pair, keys: keys, certPath: p[0]}, nil
	}
	cas, err := certs.LoadCAs(p[0])
	if err != nil {
		return nil, fmt.Errorf("authorities: %w", err)
	}
	pair, err := certs.LoadPair(p[1], p[2])
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	return &secrets{pair: pair, cas: cas, certPath: p[1]}, nil
}

func (s *secrets) describe() string {
	if s.keys != nil {
		return "keys " + s.keys.IDs()
	}
	return fmt.Sprintf("certificate of %s, expires %s", certs.Describe(s.pair.Leaf), s.pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
}

// throwaway is the certificate a program shows in mode Key. It proves nothing
// and is never written down: the group key does the proving.
func throwaway(now time.Time) (*tls.Certificate, error) {
	p, err := certs.NewCA("group key", now, 3650)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(p.Cert, p.Key)
	if err != nil {
		return nil, err
	}
	return &pair, nil
}

// SQL is the server's side of TLS with SQL clients (SSL_CERT, SSL_KEY).
type SQL struct {
	cert, key string
	log       *slog.Logger
	files     reload[*tls.Config]
	expiry    expiry
}

// SQLProtocol is the ALPN name of the PostgreSQL protocol.
const SQLProtocol = "postgresql"

// NewSQL reads the files once; later changes are noticed at the next
// handshake. nil Clock and Log take the system's.
func NewSQL(cert, key string, clk clock.Clock, log *slog.Logger) (*SQL, error) {
	if clk == nil {
		clk = clock.Real{}
	}
	if log == nil {
		log = slog.Default()
	}
	s := &SQL{cert: cert, key: key, log: log, expiry: expiry{clk: clk, log: log}}
	s.files = reload[*tls.Config]{paths: []string{cert, key}, log: log, read: func() (*tls.Config, error) {
		pair, err := certs.LoadPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("SSL_CERT, SSL_KEY: %w", err)
		}
		return &tls.Config{Certificates: []tls.Certificate{*pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{SQLProtocol}}, nil
	}}
	c, _, err := s.files.current()
	if err != nil {
		return nil, err
	}
	s.expiry.look(c.Certificates[0].Leaf, cert)
	return s, nil
}

// Config is for one handshake; its first certificate has its Leaf set.
func (s *SQL) Config() *tls.Config {
	c, again, _ := s.files.current()
	if again {
		s.log.Info("certificate for SQL clients read again", "file", s.cert, "expires", c.Certificates[0].Leaf.NotAfter)
	}
	s.expiry.look(c.Certificates[0].Leaf, s.cert)
	return c
}
