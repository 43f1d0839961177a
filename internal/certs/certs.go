// Package certs makes, reads and checks what programs of a group know each
// other by: a certificate authority, certificates that name a program and its
// group, and files of group keys. Everything is built from the standard
// library's X.509 with ECDSA keys on P-256, which every TLS client speaks and
// for which SCRAM channel binding is defined (it is not for Ed25519).
//
// An identity stands in a certificate as a URI, "datawatch:OGUID:ROLE:NAME",
// with the role "instance" (a database and its watcher) or "monitor"; a
// certificate may carry several, and beside them the DNS names and addresses
// by which SQL clients check a server.
//
// It owns the formats of the files in such a directory (FORMAT.md) and keeps
// G8 for them: a file that is too large, damaged or readable by others is
// refused by name. Who may talk to whom is the business of package secure.
package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Names of the files of a directory.
const (
	CACertFile = "ca.crt"
	CAKeyFile  = "ca.key"
	KeyFile    = "group.key"
)

// Roles in certificates.
const (
	Instance = "instance"
	Monitor  = "monitor"
)

// Days a CA and a certificate are valid unless told otherwise.
const (
	CADays   = 3650
	CertDays = 825
)

// backdate is how far the start of a new certificate lies in the past, so that
// a host whose clock is a little behind accepts it at once.
const backdate = 10 * time.Minute

// Identity is one program of one group.
type Identity struct {
	OGUID uint32
	Role  string // Instance or Monitor
	Name  string // of the instance or monitor
}

// String is the form people read: "instance GRP1_RT_01 of OGUID 453331".
func (i Identity) String() string { return fmt.Sprintf("%s %s of OGUID %d", i.Role, i.Name, i.OGUID) }

const scheme = "datawatch"

func (i Identity) uri() *url.URL {
	return &url.URL{Scheme: scheme, Opaque: fmt.Sprintf("%d:%s:%s", i.OGUID, i.Role, url.PathEscape(i.Name))}
}

// Identities are those a certificate carries. Other URIs are ignored.
func Identities(c *x509.Certificate) []Identity {
	var out []Identity
	for _, u := range c.URIs {
		if u.Scheme != scheme {
			continue
		}
		f := strings.SplitN(u.Opaque, ":", 3)
		if len(f) != 3 || f[1] != Instance && f[1] != Monitor {
			continue
		}
		og, err := strconv.ParseUint(f[0], 10, 32)
		name, err2 := url.PathUnescape(f[2])
		if err == nil && err2 == nil && name != "" {
			out = append(out, Identity{uint32(og), f[1], name})
		}
	}
	return out
}

// Describe names what a certificate was made for, for messages.
func Describe(c *x509.Certificate) string {
	var parts []string
	for _, i := range Identities(c) {
		parts = append(parts, i.String())
	}
	switch {
	case len(parts) > 0:
		return strings.Join(parts, ", ")
	case c.IsCA:
		return "authority " + c.Subject.CommonName
	}
	return fmt.Sprintf("%q, which names no instance or monitor", c.Subject.CommonName)
}

// Authority signs certificates.
type Authority struct {
	Cert *x509.Certificate
	Key  crypto.Signer
}

// Pair is a certificate with its private key, both in PEM.
type Pair struct{ Cert, Key []byte }

// NewCA makes an authority.
func NewCA(name string, now time.Time, days int) (Pair, error) {
	if name == "" {
		return Pair{}, errors.New("the authority needs a name")
	}
	key, serial, err := fresh()
	if err != nil {
		return Pair{}, err
	}
	t := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name, Organization: []string{"Datawatch"}},
		NotBefore: now.Add(-backdate), NotAfter: now.AddDate(0, 0, days), IsCA: true, BasicConstraintsValid: true,
		MaxPathLen: 0, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	return sign(t, t, key, key)
}

// Request is what a certificate is to say.
type Request struct {
	Identities []Identity
	Hosts      []string // DNS names and addresses, for SQL clients
	Now        time.Time
	Days       int
}

// Issue makes a key and a certificate for it.
func (a *Authority) Issue(r Request) (Pair, error) {
	if len(r.Identities) == 0 {
		return Pair{}, errors.New("a certificate needs the name and OGUID of an instance or a monitor")
	}
	key, serial, err := fresh()
	if err != nil {
		return Pair{}, err
	}
	t := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: r.Identities[0].Name, Organization: []string{"Datawatch"}},
		NotBefore: r.Now.Add(-backdate), NotAfter: r.Now.AddDate(0, 0, r.Days), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	if t.NotAfter.After(a.Cert.NotAfter) {
		t.NotAfter = a.Cert.NotAfter // nobody accepts it longer than its authority
	}
	if !t.NotAfter.After(r.Now) {
		return Pair{}, fmt.Errorf("the authority %s expired on %s: make a new one", a.Cert.Subject.CommonName, day(a.Cert.NotAfter))
	}
	for _, i := range r.Identities {
		if i.Name == "" || i.Role != Instance && i.Role != Monitor {
			return Pair{}, fmt.Errorf("not an identity: %s", i)
		}
		t.URIs = append(t.URIs, i.uri())
	}
	for _, h := range r.Hosts {
		if ip := net.ParseIP(strings.Trim(h, "[]")); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else if h != "" && !strings.ContainsAny(h, " /:") {
			t.DNSNames = append(t.DNSNames, h)
		} else {
			return Pair{}, fmt.Errorf("host %q is neither an address nor a DNS name", h)
		}
	}
	return sign(t, a.Cert, key, a.Key)
}

// EncodeCert is a certificate in PEM form.
func EncodeCert(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// Again is a request for a certificate that says what c says.
func Again(c *x509.Certificate, now time.Time, days int) Request {
	r := Request{Identities: Identities(c), Hosts: append([]string(nil), c.DNSNames...), Now: now, Days: days}
	for _, ip := range c.IPAddresses {
		r.Hosts = append(r.Hosts, ip.String())
	}
	return r
}

func fresh() (*ecdsa.PrivateKey, *big.Int, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, nil, err
	}
	return key, serial.Add(serial, big.NewInt(1)), nil
}

func sign(t, parent *x509.Certificate, key *ecdsa.PrivateKey, signer crypto.Signer) (Pair, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), signer)
	if err != nil {
		return Pair{}, fmt.Errorf("sign the certificate: %w", err)
	}
	k, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: k})}, nil
}

// Dates says why a certificate is not valid at a moment, naming it; nil when
// it is.
func Dates(c *x509.Certificate, now time.Time) error {
	switch {
	case now.Before(c.NotBefore):
		return fmt.Errorf("the certificate of %s is not valid before %s, and the clock here says %s: compare the clocks of both hosts",
			Describe(c), moment(c.NotBefore), day(now))
	case now.After(c.NotAfter):
		return fmt.Errorf("the certificate of %s expired on %s (the clock here says %s): `dw certs renew` makes a new one",
			Describe(c), moment(c.NotAfter), day(now))
	}
	return nil
}

// day is what messages give as the present: they are compared with the last
// one to log each once.
func day(t time.Time) string    { return t.UTC().Format("2006-01-02") }
func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// Verify checks that chain, the leaf first, leads to one of the authorities
// and is valid now. The error names the certificate.
func Verify(roots []*x509.Certificate, chain []*x509.Certificate, now time.Time) error {
	if len(chain) == 0 {
		return errors.New("no certificate was presented")
	}
	leaf := chain[0]
	if err := Dates(leaf, now); err != nil {
		return err
	}
	o := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	var names []string
	for _, r := range roots {
		o.Roots.AddCert(r)
		names = append(names, strconv.Quote(r.Subject.CommonName))
	}
	for _, c := range chain[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := leaf.Verify(o)
	var unknown x509.UnknownAuthorityError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &unknown):
		return fmt.Errorf("the certificate of %s is signed by %q, which is none of the authorities of our %s (%s)",
			Describe(leaf), leaf.Issuer.CommonName, CACertFile, strings.Join(names, ", "))
	}
	for _, r := range roots { // an authority that expired explains it better
		if r.Subject.String() == leaf.Issuer.String() {
			if derr := Dates(r, now); derr != nil {
				return derr
			}
		}
	}
	return fmt.Errorf("the certificate of %s: %w", Describe(leaf), err)
}
