package secure

import (
	"crypto/x509"
	"time"

	"datawatch/internal/certs"
)

// Ending is a certificate of ours that ends within warnDays, or has ended.
type Ending struct {
	File string
	At   time.Time
	// Ours: `dw certs renew` makes the next one. Authority: not by itself, since the
	// authority that signs it ends with it.
	Ours, Authority bool
}

// Ending tells whether our certificate ends soon; nil: it does not, or there is
// none.
func (e *Endpoint) Ending() *Ending {
	if e.Mode() != Cert {
		return nil
	}
	s, err := e.cr.current()
	if err != nil {
		return nil
	}
	return ending(s.certPath, s.pair.Leaf, s.cas, e.cfg.Clock.Now())
}

// Ending tells whether the certificate for SQL clients ends soon.
func (s *SQL) Ending() *Ending {
	return ending(s.cert, s.Config().Certificates[0].Leaf, nil, s.expiry.clk.Now())
}

func ending(file string, leaf *x509.Certificate, cas []*x509.Certificate, now time.Time) *Ending {
	e := &Ending{File: file, At: leaf.NotAfter, Ours: len(certs.Identities(leaf)) > 0}
	for _, ca := range cas {
		if !ca.NotAfter.After(e.At) && soon(ca.NotAfter, now) && leaf.CheckSignatureFrom(ca) == nil {
			e.At, e.Authority = ca.NotAfter, true
		}
	}
	if !soon(e.At, now) {
		return nil
	}
	return e
}

func soon(end, now time.Time) bool { return end.Sub(now) <= warnDays*24*time.Hour }
