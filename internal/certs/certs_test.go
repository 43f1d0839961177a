package certs

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func authority(t *testing.T, dir, name string, now time.Time, days int) *Authority {
	t.Helper()
	p, err := NewCA(name, now, days)
	check(t, err)
	check(t, WritePair(dir, "ca", p))
	a, err := LoadAuthority(dir)
	check(t, err)
	return a
}

func TestIssueAndVerify(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	a := authority(t, dir, "CA", now, 100)
	want := []Identity{{453331, Instance, "GRP1_RT_01"}, {7, Monitor, "mon é/1"}}
	p, err := a.Issue(Request{Identities: want, Hosts: []string{"db1.example", "10.0.0.1", "::1"}, Now: now, Days: 365})
	check(t, err)
	check(t, WritePair(dir, "x", p))
	pair, err := LoadPair(filepath.Join(dir, "x.crt"), filepath.Join(dir, "x.key"))
	check(t, err)
	c := pair.Leaf
	if got := Identities(c); len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Fatalf("identities %v", got)
	}
	for _, h := range []string{"db1.example", "10.0.0.1", "::1"} {
		if err := c.VerifyHostname(h); err != nil {
			t.Error(err)
		}
	}
	if c.NotAfter.After(a.Cert.NotAfter) {
		t.Error("valid longer than its authority")
	}
	for _, f := range []string{"ca.key", "x.key"} {
		st, err := os.Stat(filepath.Join(dir, f))
		check(t, err)
		if st.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", f, st.Mode())
		}
	}
	roots := []*x509.Certificate{a.Cert}
	check(t, Verify(roots, []*x509.Certificate{c}, now))
	again := Again(c, now, 10)
	if len(again.Identities) != 2 || len(again.Hosts) != 3 {
		t.Errorf("again: %+v", again)
	}
	otherDir := t.TempDir()
	other := authority(t, otherDir, "CA", now, 100) // the same name, another key
	for _, tc := range []struct {
		name  string
		roots []*x509.Certificate
		chain []*x509.Certificate
		at    time.Time
		want  string
	}{
		{"unknown", []*x509.Certificate{other.Cert}, []*x509.Certificate{c}, now, "none of the authorities of our ca.crt"},
		{"early", roots, []*x509.Certificate{c}, now.AddDate(0, 0, -1), "not valid before"},
		{"late", roots, []*x509.Certificate{c}, now.AddDate(2, 0, 0), "expired on"},
		{"none", roots, nil, now, "no certificate"},
	} {
		if err := Verify(tc.roots, tc.chain, tc.at); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	// Its authority may end before the certificate says so.
	if _, err := a.Issue(Request{Identities: want, Now: now.AddDate(1, 0, 0), Days: 1}); err == nil || !strings.Contains(err.Error(), "authority CA expired") {
		t.Error(err)
	}
	for _, r := range []Request{{}, {Identities: []Identity{{1, "boss", "x"}}}, {Identities: want, Hosts: []string{"a b"}}} {
		r.Now, r.Days = now, 10
		if _, err := a.Issue(r); err == nil {
			t.Errorf("issued %+v", r)
		}
	}
}

func TestBadFiles(t *testing.T) {
	dir := t.TempDir()
	authority(t, dir, "CA", time.Now(), 10)
	put := func(name, text string) string {
		p := filepath.Join(dir, name)
		check(t, os.WriteFile(p, []byte(text), 0o600))
		return p
	}
	for _, c := range []struct {
		name string
		f    func() error
		want string
	}{
		{"no PEM", func() error { _, err := LoadCAs(put("a", "hello")); return err }, "holds no certificate"},
		{"a key", func() error { _, err := LoadCAs(filepath.Join(dir, "ca.key")); return err }, "is a PRIVATE KEY"},
		{"damaged", func() error {
			_, err := LoadCAs(put("b", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
			return err
		}, "certificate 1"},
		{"large", func() error { _, err := LoadCAs(put("c", strings.Repeat("x", maxFile+1))); return err }, "more than"},
		{"no authority", func() error { _, err := LoadAuthority(t.TempDir()); return err }, "dw certs ca"},
		{"readable", func() error {
			check(t, os.Chmod(filepath.Join(dir, "ca.key"), 0o644))
			_, err := LoadAuthority(dir)
			return err
		}, "may be read by others"},
	} {
		if err := c.f(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestGroupKeys(t *testing.T) {
	now := time.Now()
	ks := GroupKeys{NewGroupKey(now), NewGroupKey(now)}
	got, err := ParseGroupKeys("f", ks.Format())
	check(t, err)
	if len(got) != 2 || got[0] != ks[0] || got[1] != ks[1] {
		t.Fatalf("%v is not %v", got.IDs(), ks.IDs())
	}
	line := strings.Split(strings.TrimSpace(string(ks.Format())), "\n")
	good := line[len(line)-1]
	f := strings.Fields(good)
	secret := f[2]
	for _, c := range []struct{ text, want string }{
		{"", "f holds no key"},
		{"dwkey2 a b c", "f:1: does not begin with dwkey1"},
		{"\ndwkey1 a b", "f:2: 3 fields instead of 4"},
		{strings.Replace(good, secret, secret[:20], 1), "32 bytes in base64"},
		{strings.Replace(good, f[1], "00000000", 1), "the line was damaged"},
		{strings.Replace(good, f[3], "today", 1), `"today" is not a time`},
		{good + "\n" + good, "stands here twice"},
		{string(GroupKeys{NewGroupKey(now), NewGroupKey(now), NewGroupKey(now), NewGroupKey(now), NewGroupKey(now)}.Format()), "more than 4 keys"},
	} {
		_, err := ParseGroupKeys("f", []byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.30q: %v, want %q", c.text, err, c.want)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("the secret is in the message: %v", err)
		}
	}
}

func FuzzGroupKeys(f *testing.F) {
	f.Add(string(GroupKeys{NewGroupKey(time.Unix(0, 0))}.Format()))
	f.Add("dwkey1 a b c")
	f.Fuzz(func(t *testing.T, s string) {
		ks, err := ParseGroupKeys("f", []byte(s))
		if err != nil {
			return
		}
		again, err := ParseGroupKeys("f", ks.Format())
		if err != nil || len(again) != len(ks) {
			t.Fatalf("%d keys become %d, %v", len(ks), len(again), err)
		}
	})
}
