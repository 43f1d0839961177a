package secure

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datawatch/internal/certs"
)

// Whatever is not one of our programs is closed, leaves one line, and the
// right program gets in afterwards; with TLS and without.
func TestGarbage(t *testing.T) {
	dir, ca := authority(t, "CA")
	issue(t, ca, dir, og, certs.Instance, "A")
	issue(t, ca, dir, og, certs.Instance, "B")
	for _, mode := range []Mode{Off, Cert} {
		t.Run(mode.String(), func(t *testing.T) {
			srv := newSide(t, Config{Mode: mode, Dir: dir, Role: Instance, Name: "B", Timeout: 300 * time.Millisecond})
			cl := newSide(t, Config{Mode: mode, Dir: dir, Role: Instance, Name: "A"})
			l := srv.listen(t, Port{})
			send := func(b string) {
				nc, err := net.Dial("tcp", l.Addr().String())
				check(t, err)
				defer nc.Close()
				_, _ = io.WriteString(nc, b)
				_ = nc.SetReadDeadline(time.Now().Add(5 * time.Second))
				if _, err := io.Copy(io.Discard, nc); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%.20q: still open after 5 s", b)
				}
			}
			for range 3 {
				send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			}
			send("ab") // and then nothing
			send(strings.Repeat("\x00", 1<<20))
			if mode == Cert {
				send("\x16\x03\x01\x02\x00" + strings.Repeat("\x01", 512))
				send("\x16\x03\x01\xff\xff" + strings.Repeat("\x01", 70000))
			}
			waitLog(t, srv.log, "connection refused", "MAL_PORT", `not one of our programs: it began with \"GET \"`)
			waitLog(t, srv.log, "did not say who it is within 300ms")
			kept := func() int {
				srv.gate.mu.Lock()
				defer srv.gate.mu.Unlock()
				return srv.gate.at["MAL_PORT 127.0.0.1 garbage"].more
			}
			for end := time.Now().Add(5 * time.Second); kept() < 3 && time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
			}
			if n := strings.Count(srv.log.String(), "not one of our programs"); n != 1 {
				t.Errorf("%d lines for one kind of garbage:\n%s", n, srv.log)
			}
			srv.clk.add(gateEvery)
			send("GET / HTTP/1.1\r\n\r\n")
			waitLog(t, srv.log, "not one of our programs", "like_it_since=3")
			if got, err := cl.dial(t, l, Want{Role: Instance, Name: "B"}); err != nil || !strings.HasSuffix(got, ":hello") {
				t.Fatal(got, err)
			}
		})
	}
}

// A thousand silent connections from one host do not keep a good peer from
// another host out, and cost no more than maxPending places.
func TestCrowd(t *testing.T) {
	dir := t.TempDir()
	groupKey(t, dir, certs.NewGroupKey(time.Now()))
	srv := newSide(t, Config{Mode: Key, Dir: dir, Role: Instance, Name: "B", Timeout: time.Minute})
	cl := newSide(t, Config{Mode: Key, Dir: dir, Role: Instance, Name: "A"})
	l := srv.listen(t, Port{})
	good, err := net.Dial("tcp", l.Addr().String()) // connected, but slow to speak
	check(t, err)
	for range 4 * maxPending {
		nc, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}).Dial("tcp", l.Addr().String())
		check(t, err)
		defer nc.Close()
	}
	waitLog(t, srv.log, "more than 64 connections that do not say who they are")
	c, err := cl.Client(t.Context(), good, Want{Role: Instance, Name: "B"})
	if err != nil {
		t.Fatalf("the crowd pushed a good peer out: %v", err)
	}
	c.Close()
	in := l.(*listener)
	in.mu.Lock()
	n := len(in.pending)
	in.mu.Unlock()
	if n > maxPending {
		t.Errorf("%d pending", n)
	}
}

// A peer that may not use a port is told so.
func TestAllow(t *testing.T) {
	dir, ca := authority(t, "CA")
	issue(t, ca, dir, og, certs.Instance, "A")
	issue(t, ca, dir, og, certs.Instance, "B")
	srv := newSide(t, Config{Mode: Cert, Dir: dir, Role: Instance, Name: "B"})
	cl := newSide(t, Config{Mode: Cert, Dir: dir, Role: Instance, Name: "A"})
	l := srv.listen(t, Port{Allow: func(p Peer) error { return fmt.Errorf("%s has no business here", p) }})
	_, err := cl.dial(t, l, Want{Role: Instance, Name: "B"})
	if err == nil || err.Error() != "refused by instance B: instance A has no business here" {
		t.Fatal(err)
	}
	waitLog(t, srv.log, "we refuse instance A: instance A has no business here")
}

// Certificates and keys are changed in the files while everything runs.
func TestRotation(t *testing.T) {
	t.Run("certificate", func(t *testing.T) {
		dir, ca := authority(t, "CA old")
		issue(t, ca, dir, og, certs.Instance, "A")
		issue(t, ca, dir, og, certs.Instance, "B")
		srv := newSide(t, Config{Mode: Cert, Dir: dir, Role: Instance, Name: "B"})
		l := srv.listen(t, Port{})
		serial := func() string {
			nc, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: protocols})
			check(t, err)
			defer nc.Close()
			return nc.ConnectionState().PeerCertificates[0].SerialNumber.String()
		}
		before := serial()
		issue(t, ca, dir, og, certs.Instance, "B")
		if serial() == before {
			t.Fatal("a renewed certificate is not shown")
		}
		waitLog(t, srv.log, "read again", "instance B")
		// Half of a change, or nonsense, leaves the old one in force.
		now := serial()
		good, err := os.ReadFile(filepath.Join(dir, "B.crt"))
		check(t, err)
		copyFile(t, filepath.Join(dir, "A.crt"), filepath.Join(dir, "B.crt"))
		if serial() != now {
			t.Fatal("a certificate without its key is in force")
		}
		waitLog(t, srv.log, "cannot be used; the former stay in force", "B.crt")
		check(t, os.WriteFile(filepath.Join(dir, "B.crt"), good, 0o644))
		if serial() != now {
			t.Fatal("lost the certificate")
		}
		// A new authority beside the old one: both are trusted.
		oldDir, cl := dir, newSide(t, Config{Mode: Cert, Dir: dir, Role: Instance, Name: "A"})
		newDir, newCA := authority(t, "CA new")
		ob, err := os.ReadFile(filepath.Join(oldDir, "ca.crt"))
		check(t, err)
		nb, err := os.ReadFile(filepath.Join(newDir, "ca.crt"))
		check(t, err)
		dial := func(what, want string) {
			t.Helper()
			_, err := cl.dial(t, l, Want{Role: Instance, Name: "B"})
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Fatalf("%s: %v, want %q", what, err, want)
			}
		}
		check(t, os.WriteFile(filepath.Join(dir, "ca.crt"), append(nb, ob...), 0o644))
		dial("both trusted", "")
		issue(t, newCA, dir, og, certs.Instance, "B")
		dial("one side new", "")
		issue(t, newCA, dir, og, certs.Instance, "A")
		check(t, os.WriteFile(filepath.Join(dir, "ca.crt"), nb, 0o644))
		dial("all new", "")
		issue(t, ca, dir, og, certs.Instance, "A")
		dial("the old authority is gone", "signed by \"CA old\"")
	})
	t.Run("key", func(t *testing.T) {
		a, b := t.TempDir(), t.TempDir()
		old, next := certs.NewGroupKey(time.Now()), certs.NewGroupKey(time.Now())
		groupKey(t, a, old)
		groupKey(t, b, old)
		srv := newSide(t, Config{Mode: Key, Dir: b, Role: Instance, Name: "B"})
		cl := newSide(t, Config{Mode: Key, Dir: a, Role: Instance, Name: "A"})
		l := srv.listen(t, Port{})
		for _, step := range []struct {
			name string
			a, b []certs.GroupKey
			want string
		}{
			{"one has the next key too", []certs.GroupKey{old}, []certs.GroupKey{old, next}, ""},
			{"both have both", []certs.GroupKey{old, next}, []certs.GroupKey{old, next}, ""},
			{"one uses the next", []certs.GroupKey{next, old}, []certs.GroupKey{old, next}, ""},
			{"the other uses the next", []certs.GroupKey{old, next}, []certs.GroupKey{next, old}, ""},
			{"the old one is gone", []certs.GroupKey{next}, []certs.GroupKey{next}, ""},
			{"who still uses it", []certs.GroupKey{old}, []certs.GroupKey{next}, "which is not in our group.key"},
		} {
			groupKey(t, a, step.a...)
			groupKey(t, b, step.b...)
			_, err := cl.dial(t, l, Want{Role: Instance, Name: "B"})
			if step.want == "" && err != nil || step.want != "" && (err == nil || !strings.Contains(err.Error(), step.want)) {
				t.Fatalf("%s: %v", step.name, err)
			}
		}
	})
}

// What is wrong with the files is an error at start that names file and cure.
func TestStart(t *testing.T) {
	dir, ca := authority(t, "CA")
	issue(t, ca, dir, og, certs.Instance, "A")
	open := t.TempDir()
	groupKey(t, open, certs.NewGroupKey(time.Now()))
	check(t, os.Chmod(filepath.Join(open, certs.KeyFile), 0o644))
	for _, c := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"no files", Config{Mode: Cert, Dir: t.TempDir(), Name: "A"}, "ca.crt"},
		{"no key", Config{Mode: Key, Dir: t.TempDir(), Name: "A"}, "group.key"},
		{"somebody else's", Config{Mode: Cert, Dir: dir, Name: "A", Role: Monitor}, "is for instance A of OGUID 453331, not for monitor A"},
		{"another group's", Config{Mode: Cert, Dir: dir, Name: "A", OGUID: func() uint32 { return 9 }}, "not for instance A of OGUID 9; `dw certs issue`"},
		{"readable key", Config{Mode: Key, Dir: open, Name: "A"}, "may be read by others (mode 0644): chmod 600"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.cfg.Role == "" {
				c.cfg.Role = Instance
			}
			c.cfg.Param = "MAL_SSL_MODE of dmmal.ini"
			_, err := New(c.cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "MAL_SSL_MODE of dmmal.ini = ") {
				t.Fatal(err)
			}
		})
	}
}

func TestDecide(t *testing.T) {
	empty, key := t.TempDir(), t.TempDir()
	groupKey(t, key, certs.NewGroupKey(time.Now()))
	both, ca := authority(t, "CA")
	issue(t, ca, both, og, certs.Instance, "A")
	groupKey(t, both, certs.NewGroupKey(time.Now()))
	near, far := []string{"127.0.0.1", "localhost", "::1"}, []string{"127.0.0.1", "10.0.0.7"}
	for _, c := range []struct {
		value string
		addrs []string
		dir   string
		want  Mode
		err   string
	}{
		{"AUTO", near, empty, Off, ""},
		{"AUTO", near, both, Off, ""},
		{"AUTO", far, both, Cert, ""},
		{"AUTO", far, key, Key, ""},
		{"AUTO", []string{"db1.example"}, key, Key, ""},
		{"AUTO", far, empty, Off, "dmmal.ini: MAL_HOST 10.0.0.7 is not on loopback, so links need TLS, and MAL_SSL_PATH = " + empty + " holds neither A.crt nor group.key"},
		{"off", far, empty, Off, ""},
		{"cert", near, empty, Cert, ""},
		{"Key", near, empty, Key, ""},
	} {
		m, err := Choice{Value: c.value, Addrs: c.addrs, Dir: c.dir, Name: "A", ModeParam: "MAL_SSL_MODE", DirParam: "MAL_SSL_PATH", AddrParam: "MAL_HOST", File: "dmmal.ini"}.Decide()
		if m != c.want || c.err == "" && err != nil || c.err != "" && (err == nil || !strings.HasPrefix(err.Error(), c.err) || !strings.HasSuffix(err.Error(), "MAL_SSL_MODE = OFF")) {
			t.Errorf("%+v: %v, %v", c, m, err)
		}
	}
}

// The end of a certificate is announced before it comes.
func TestExpiryWarning(t *testing.T) {
	dir, ca := authority(t, "CA")
	issue(t, ca, dir, og, certs.Instance, "A", func(r *certs.Request) { r.Days = 40 })
	s := newSide(t, Config{Mode: Cert, Dir: dir, Role: Instance, Name: "A"})
	look := func() { _, err := s.cr.current(); check(t, err) }
	look()
	if strings.Contains(s.log.String(), "ends soon") {
		t.Fatal("too early")
	}
	s.clk.add(15 * 24 * time.Hour)
	look()
	look()
	if n := strings.Count(s.log.String(), "our certificate ends soon"); n != 1 {
		t.Fatalf("%d warnings on one day", n)
	}
	s.clk.add(30 * 24 * time.Hour)
	look()
	waitLog(t, s.log, "our certificate has expired", "A.crt")
}

// TestEnding: so that others can tell of it; an authority that ends as early is named.
func TestEnding(t *testing.T) {
	now := time.Now()
	caFor := func(days int) (string, *certs.Authority) {
		dir := t.TempDir()
		p, err := certs.NewCA("CA", now, days)
		check(t, err)
		check(t, certs.WritePair(dir, "ca", p))
		a, err := certs.LoadAuthority(dir)
		check(t, err)
		return dir, a
	}
	for _, c := range []struct {
		ca, days, after int
		ends, authority bool
	}{
		{3650, 40, 0, false, false}, {3650, 40, 11, true, false}, {3650, 40, 41, true, false},
		{50, 365, 0, false, false}, {50, 365, 21, true, true}, {20, 10, 0, true, false},
	} {
		dir, ca := caFor(c.ca)
		issue(t, ca, dir, og, certs.Instance, "A", func(r *certs.Request) { r.Days, r.Now = c.days, now })
		s := newSide(t, Config{Mode: Cert, Dir: dir, Role: Instance, Name: "A"})
		s.clk.add(time.Duration(c.after) * 24 * time.Hour)
		e := s.Ending()
		if (e != nil) != c.ends || e != nil && (e.File != filepath.Join(dir, "A.crt") || !e.Ours || e.Authority != c.authority) {
			t.Errorf("%+v: %+v", c, e)
		}
		sql, err := NewSQL(filepath.Join(dir, "A.crt"), filepath.Join(dir, "A.key"), s.clk, nil)
		check(t, err)
		if e := sql.Ending(); (e != nil) != c.ends || e != nil && e.Authority {
			t.Errorf("%+v, for SQL clients: %+v", c, e)
		}
	}
	if e := (*Endpoint)(nil).Ending(); e != nil {
		t.Errorf("without TLS: %+v", e)
	}
}

// SQL clients are shown a renewed certificate at the next connection.
func TestSQLCertificate(t *testing.T) {
	dir, ca := authority(t, "CA")
	issue(t, ca, dir, og, certs.Instance, "A")
	var log logs
	cert, key := filepath.Join(dir, "A.crt"), filepath.Join(dir, "A.key")
	s, err := NewSQL(cert, key, nil, slog.New(slog.NewTextHandler(&log, nil)))
	check(t, err)
	before := s.Config()
	if s.Config() != before {
		t.Error("a new configuration for the same files: tickets of clients are worth nothing")
	}
	issue(t, ca, dir, og, certs.Instance, "A")
	after := s.Config()
	if after == before || after.Certificates[0].Leaf.Equal(before.Certificates[0].Leaf) {
		t.Error("the former certificate is shown")
	}
	waitLog(t, &log, "certificate for SQL clients read again")
	check(t, os.Chmod(key, 0o644))
	check(t, os.Chtimes(key, time.Now(), time.Now().Add(time.Second)))
	if s.Config() != after {
		t.Error("a key that others may read is used")
	}
	waitLog(t, &log, "the former stay in force", "chmod 600")
	if _, err := NewSQL(cert, key, nil, nil); err == nil || !strings.Contains(err.Error(), "SSL_CERT, SSL_KEY: ") {
		t.Error(err)
	}
}
