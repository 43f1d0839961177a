package certs

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// maxFile caps certificate and key files.
const maxFile = 256 << 10

// Read reads a file of certificates, at most maxFile bytes.
func Read(path string) ([]byte, error) { return read(path, false) }

// ReadSecret reads a file that nobody but its owner (or, owned by root, its
// group) may read; another mode is refused, as PostgreSQL and ssh do.
func ReadSecret(path string) ([]byte, error) { return read(path, true) }

func read(path string, secret bool) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if secret {
		forbidden := fs.FileMode(0o077)
		if sys, ok := st.Sys().(*syscall.Stat_t); ok && sys.Uid == 0 && os.Geteuid() != 0 {
			forbidden = 0o037
		}
		if st.Mode().Perm()&forbidden != 0 {
			return nil, fmt.Errorf("%s may be read by others (mode %#o): chmod 600 it", path, st.Mode().Perm())
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	return b, nil
}

// ParseCerts reads the certificates of a PEM file; name appears in errors.
func ParseCerts(name string, b []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for n := 1; ; n++ {
		var blk *pem.Block
		if blk, b = pem.Decode(b); blk == nil {
			break
		}
		if blk.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%s: block %d is a %s, not a CERTIFICATE", name, n, blk.Type)
		}
		c, err := x509.ParseCertificate(blk.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: certificate %d: %w", name, n, err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", name)
	}
	return out, nil
}

// LoadCAs reads the authorities a directory trusts.
func LoadCAs(path string) ([]*x509.Certificate, error) {
	b, err := Read(path)
	if err != nil {
		return nil, err
	}
	cas, err := ParseCerts(path, b)
	if err != nil {
		return nil, err
	}
	for _, c := range cas {
		if !c.IsCA {
			return nil, fmt.Errorf("%s: the certificate of %s is not that of an authority", path, Describe(c))
		}
	}
	return cas, nil
}

// LoadPair reads a certificate and its key; the Leaf is set.
func LoadPair(certPath, keyPath string) (*tls.Certificate, error) {
	cb, err := Read(certPath)
	if err != nil {
		return nil, err
	}
	kb, err := ReadSecret(keyPath)
	if err != nil {
		return nil, err
	}
	p, err := tls.X509KeyPair(cb, kb)
	if err != nil {
		return nil, fmt.Errorf("%s with %s: %w", certPath, keyPath, err)
	}
	return &p, nil
}

// LoadAuthority reads ca.crt and ca.key of a directory; the first certificate
// of ca.crt is the one that signs.
func LoadAuthority(dir string) (*Authority, error) {
	p, err := LoadPair(filepath.Join(dir, CACertFile), filepath.Join(dir, CAKeyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: there is no authority in %s; `dw certs ca -dir %s` makes one", err, dir, dir)
	} else if err != nil {
		return nil, err
	}
	key, ok := p.PrivateKey.(crypto.Signer)
	if !ok || !p.Leaf.IsCA {
		return nil, fmt.Errorf("%s is not the certificate of an authority", filepath.Join(dir, CACertFile))
	}
	return &Authority{Cert: p.Leaf, Key: key}, nil
}

// WritePair writes NAME.key (mode 0600) and NAME.crt, each replaced in one
// step, so that a program that reads them meanwhile finds whole files.
func WritePair(dir, name string, p Pair) error {
	if err := WriteFile(filepath.Join(dir, name+".key"), p.Key, 0o600); err != nil {
		return err
	}
	return WriteFile(filepath.Join(dir, name+".crt"), p.Cert, 0o644)
}

// WriteFile replaces a file: written beside it, synced, renamed.
func WriteFile(path string, b []byte, mode fs.FileMode) error {
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, bytes.NewReader(b))
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp)
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
