package monitor

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datawatch/internal/certs"
	"datawatch/internal/ha/proto"
)

// TestTipTellsOfCertificates: of one that ends soon, and of one that has ended, with
// what to type; only the latter is not normal.
func TestTipTellsOfCertificates(t *testing.T) {
	g := newFakes(t, "A", "B")
	m := g.open(t, nil)
	ready(t, m)
	for _, n := range []string{"A", "B"} {
		g.change(n, func(s *proto.WatcherStatus) { s.Config.Mode = "MANUAL" })
	}
	now := time.Now()
	soon, over := now.AddDate(0, 0, 5), now.AddDate(0, 0, -1)
	tells := func(what string, normal bool, want ...string) {
		t.Helper()
		until(t, what, func() bool {
			r := m.Tip()
			s := strings.Join(r.Lines, "\n") + "\n"
			for _, w := range want {
				if !strings.Contains(s, w+"\n") {
					return false
				}
			}
			// Endings has the same of certificates, and nothing else.
			l, bad := m.Endings()
			if len(l) != len(want) || bad == normal {
				return false
			}
			for _, x := range l {
				if !strings.Contains(s, "  "+x+"\n") {
					return false
				}
			}
			return r.OK == normal && strings.Count(s, "next:")*2 == len(want) && (normal || r.Code == CodeTipAbnormal)
		})
	}
	tells("nothing ends", true)
	g.change("B", func(s *proto.WatcherStatus) { s.Cert = &proto.Ending{File: "/ssl/B.crt", At: soon, Ours: true} })
	tells("it ends soon", true, "  B: its certificate /ssl/B.crt ends on "+soon.Format(time.DateOnly),
		"  next: dw certs renew B where ca.key is, then copy B.crt and B.key to where /ssl/B.crt is")
	g.change("B", func(s *proto.WatcherStatus) { s.Cert.At = over; s.Inst.SQLCert = s.Cert })
	tells("it has ended, and is that of SQL clients too", false, "  B: its certificate /ssl/B.crt expired on "+over.Format(time.DateOnly)+": whoever checks it refuses it",
		"  next: dw certs renew B where ca.key is, then copy B.crt and B.key to where /ssl/B.crt is")
	g.change("B", func(s *proto.WatcherStatus) {
		s.Cert = &proto.Ending{File: "/ssl/B.crt", At: soon, Ours: true, Authority: true}
		s.Inst.SQLCert = &proto.Ending{File: "/pub/web.pem", At: soon}
	})
	tells("its authority ends, and another certificate for SQL clients", true,
		"  B: its certificate /ssl/B.crt ends on "+soon.Format(time.DateOnly), "  next: its authority ends with it: dw certs ca -next where ca.key is, and the steps that it says",
		"  B: its certificate for SQL clients /pub/web.pem ends on "+soon.Format(time.DateOnly), "  next: put a new certificate in the place of /pub/web.pem")
}

// TestTipTellsOfItsOwnCertificate: the monitor's, also when it reaches nobody.
func TestTipTellsOfItsOwnCertificate(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	ca, err := certs.NewCA("CA", now, 3650)
	if err != nil {
		t.Fatal(err)
	}
	if err := certs.WritePair(dir, "ca", ca); err != nil {
		t.Fatal(err)
	}
	a, err := certs.LoadAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	p, err := a.Issue(certs.Request{Identities: []certs.Identity{{OGUID: 7, Role: certs.Monitor, Name: "mon"}}, Now: now, Days: 10})
	if err != nil {
		t.Fatal(err)
	}
	if err := certs.WritePair(dir, "mon", p); err != nil {
		t.Fatal(err)
	}
	g := newFakes(t, "A", "B")
	clk := &leap{}
	m := g.open(t, func(c *Config) { c.TLS, c.Clock = TLS{Mode: "CERT", Dir: dir, Name: "mon"}, clk })
	file := filepath.Join(dir, "mon.crt")
	want := []string{"this monitor's certificate " + file + " ends on " + now.AddDate(0, 0, 10).Format(time.DateOnly),
		"  next: dw certs renew mon where ca.key is, then copy mon.crt and mon.key to where " + file + " is"}
	if l := m.Tip().Lines; len(l) < 2 || l[0] != want[0] || l[1] != want[1] {
		t.Errorf("%q, want %q first", l, want)
	}
	clk.by.Add(int64(11 * 24 * time.Hour))
	if l := m.Tip().Lines; !strings.HasPrefix(l[0], "this monitor's certificate "+file+" expired on ") {
		t.Errorf("%q", l)
	}
}

// TestRefusedStep: a watcher that answers, but is refused or refuses, is not to be
// started.
func TestRefusedStep(t *testing.T) {
	for _, c := range []struct{ why, want string }{
		{"", ""},
		{" (connecting: dial tcp 10.0.0.1:5436: connect: connection refused)", ""},
		{" (TLS with watcher: no answer within 5s)", ""},
		{" (we refuse watcher: the certificate of instance B of OGUID 7 expired on 2026-11-28: `dw certs renew` makes a new one)", "dw certs renew where ca.key is, then"},
		{" (refused by watcher: the certificate of monitor m is signed by \"X\", which is none of the authorities)", "mend what is refused: docs/operations.md"},
	} {
		if got := refusedStep(c.why); !strings.HasPrefix(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%q: %q, want %q", c.why, got, c.want)
		}
	}
}

// TestRefusedByAll: what is to be done about several watchers is said once.
func TestRefusedByAll(t *testing.T) {
	g := newFakes(t, "A", "B")
	m := g.open(t, func(c *Config) {
		c.Dial = func(context.Context, string) (net.Conn, error) { return nil, errors.New("no") }
		c.Heartbeat = time.Hour // between attempts
	})
	until(t, "both attempts have failed", func() bool { return strings.Count(m.linkErrors(), "connecting: no") == 2 })
	m.mu.Lock()
	for _, l := range m.groups[0].links {
		l.lastErr = "refused by watcher: the certificate of monitor m expired on 2026-11-28: `dw certs renew` makes a new one"
	}
	m.mu.Unlock()
	s := strings.Join(m.Tip().Lines, "\n")
	if strings.Count(s, "no message received from this watcher (refused by watcher: ") != 2 || strings.Count(s, "next: dw certs renew") != 1 {
		t.Error(s)
	}
	if _, err := m.CheckOpen("", "A"); err == nil || !strings.Contains(err.Error(), "makes a new one): dw certs renew where ca.key is") {
		t.Error(err)
	}
}
