package secure

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"datawatch/internal/certs"
)

// warnDays is how long before its end a certificate is complained about.
const warnDays = 30

// secrets are what a handshake needs, as read from the files at one moment.
type secrets struct {
	pair     *tls.Certificate
	certPath string
	cas      []*x509.Certificate // Cert
	keys     certs.GroupKeys     // Key
}

// creds keeps secrets current: it looks at the files before every handshake
// and reads them again when one has changed. Files that cannot be used leave
// what was read before in force.
type creds struct {
	cfg Config

	mu     sync.Mutex
	have   *secrets
	stamps []stamp
	said   string    // last complaint
	warned time.Time // of the end of the certificate
}

// stamp tells one version of a file from another.
type stamp struct {
	mod  time.Time
	size int64
	ino  uint64
}

func (c *creds) paths() []string {
	if c.cfg.Mode == Key {
		return []string{filepath.Join(c.cfg.Dir, certs.KeyFile)}
	}
	return []string{filepath.Join(c.cfg.Dir, certs.CACertFile), filepath.Join(c.cfg.Dir, c.cfg.Name+".crt"), filepath.Join(c.cfg.Dir, c.cfg.Name+".key")}
}

func (c *creds) current() (*secrets, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := stamps(c.paths())
	if c.have == nil || !slices.Equal(now, c.stamps) {
		s, err := c.load()
		switch {
		case err == nil:
			if c.have != nil {
				c.cfg.Log.Info("certificates or group key read again", "dir", c.cfg.Dir, "using", s.describe())
			}
			c.have, c.stamps, c.said = s, now, ""
		case c.have == nil:
			return nil, err
		case err.Error() != c.said: // perhaps half of a change: look again next time
			c.said = err.Error()
			c.cfg.Log.Error("changed certificates or group key cannot be used; the former stay in force", "dir", c.cfg.Dir, "err", err)
		}
	}
	c.warn()
	return c.have, nil
}

// warn complains once a day about a certificate that ends soon.
func (c *creds) warn() {
	if c.cfg.Mode != Cert {
		return
	}
	now := c.cfg.Clock.Now()
	left := c.have.pair.Leaf.NotAfter.Sub(now)
	if left > warnDays*24*time.Hour || now.Sub(c.warned) < 24*time.Hour {
		return
	}
	c.warned = now
	if left <= 0 {
		c.cfg.Log.Error("our certificate has expired: peers refuse it; `dw certs renew` makes a new one", "file", c.have.certPath, "expired", c.have.pair.Leaf.NotAfter)
		return
	}
	c.cfg.Log.Warn("our certificate ends soon; `dw certs renew` makes a new one", "file", c.have.certPath, "expires", c.have.pair.Leaf.NotAfter)
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
