package dw

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datawatch/internal/certs"
)

// dwCerts runs `dw certs` and returns what it printed.
func dwCerts(t *testing.T, now time.Time, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := certsCommand(args, now, &out)
	return out.String(), err
}

func must(t *testing.T, now time.Time, args ...string) string {
	t.Helper()
	out, err := dwCerts(t, now, args...)
	if err != nil {
		t.Fatalf("dw certs %s: %v", strings.Join(args, " "), err)
	}
	return out
}

func TestCerts(t *testing.T) {
	dir, now := filepath.Join(t.TempDir(), "ssl"), time.Now()
	must(t, now, "ca", "-dir", dir, "-name", "Test CA")
	must(t, now, "issue", "-dir", dir, "-oguid", "453331", "-host", "10.0.0.1,db1.example", "GRP1_RT_01", "GRP1_RT_02")
	must(t, now, "issue", "-monitor", "-oguid=453331", "-dir", dir, "monitor")
	must(t, now, "issue", "-h")
	for _, f := range []string{"ca.key", "GRP1_RT_01.key", "monitor.key"} {
		if st, err := os.Stat(filepath.Join(dir, f)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, st.Mode(), err)
		}
	}
	for _, c := range []struct {
		args []string
		want string
		bad  error // errState, or nil for a usage error
	}{
		{[]string{"ca"}, "ca.crt is there already", errState},
		{[]string{"issue", "-oguid", "453331", "GRP1_RT_01"}, "`dw certs renew GRP1_RT_01`", errState},
		{[]string{"issue", "X"}, "-oguid", nil},
		{[]string{"issue", "-oguid", "1"}, "give the NAME", nil},
		{[]string{"issue", "-oguid", "1", "../x"}, "cannot be the name", nil},
		{[]string{"issue", "-oguid", "1", "ca"}, "cannot be the name", nil},
		{[]string{"issue", "-oguid", "1", "-host", "a b", "Y"}, `host "a b"`, errAny},
		{[]string{"issue", "-oguid", "1", "-days", "-3", "Y"}, "-days -3: must be 1 to 36500", nil},
		{[]string{"issue", "-oguid", "1", "-days", "36501", "Y"}, "-days 36501: must be", nil},
		{[]string{"renew", "-days", "0"}, "-days 0: must be 1 to 36500", nil},
		{[]string{"ca", "-force", "-days=0"}, "-days 0: must be 1 to 36500", nil},
		{[]string{"ca", "-force", "-next"}, "exclude each other", nil},
		{[]string{"ca", "x"}, "unexpected", nil},
		{[]string{"paint"}, "no such command", nil},
		{[]string{"key", "-use"}, "group.key", errAny},
	} {
		_, err := dwCerts(t, now, append(c.args, "-dir", dir)...)
		var u usageError
		switch {
		case err == nil || !strings.Contains(err.Error(), c.want):
			t.Errorf("%v: %v, want %q", c.args, err, c.want)
		case c.bad == errState && !errors.Is(err, errState), c.bad == nil && !errors.As(err, &u):
			t.Errorf("%v: an error of the wrong kind: %v", c.args, err)
		}
	}
	out := must(t, now, "show", "-dir", dir)
	for _, w := range []string{"Test CA", "instance GRP1_RT_01 of OGUID 453331", "monitor monitor of OGUID 453331", "db1.example 10.0.0.1", "824"} {
		if !strings.Contains(out, w) {
			t.Errorf("show lacks %q:\n%s", w, out)
		}
	}
	// Near its end, after it, and with a key of another certificate.
	if out := must(t, now.AddDate(0, 0, 800), "show", "-dir", dir); !strings.Contains(out, "renew it soon") {
		t.Errorf("nothing about the near end:\n%s", out)
	}
	if out, err := dwCerts(t, now.AddDate(0, 0, 900), "show", "-dir", dir); err == nil || !strings.Contains(out, "expired on") {
		t.Errorf("expired: %v\n%s", err, out)
	}
	before, _ := os.ReadFile(filepath.Join(dir, "GRP1_RT_01.crt"))
	must(t, now, "renew", "-dir", dir, "GRP1_RT_01")
	after, err := leaf(filepath.Join(dir, "GRP1_RT_01.crt"))
	if err != nil || bytes.Equal(before, certs.EncodeCert(after)) {
		t.Errorf("not renewed: %v", err)
	}
	if len(after.DNSNames) != 1 || len(after.IPAddresses) != 1 || len(certs.Identities(after)) != 1 {
		t.Errorf("renewed as %s for %v %v", certs.Describe(after), after.DNSNames, after.IPAddresses)
	}
	if err := os.WriteFile(filepath.Join(dir, "GRP1_RT_01.crt"), before, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := dwCerts(t, now, "show", "-dir", dir); err == nil || !strings.Contains(out, "private key does not match public key") {
		t.Errorf("a certificate without its key: %v\n%s", err, out)
	}
	// The authority is exchanged in three steps.
	must(t, now, "ca", "-next", "-dir", dir, "-name", "Test CA 2")
	if _, err := dwCerts(t, now, "ca", "-retire", "-dir", dir); err == nil || !strings.Contains(err.Error(), `still signed by "Test CA"`) {
		t.Errorf("retired too early: %v", err)
	}
	must(t, now, "renew", "-dir", dir)
	must(t, now, "ca", "-retire", "-dir", dir)
	if out := must(t, now, "show", "-dir", dir); strings.Contains(strings.ReplaceAll(out, "Test CA 2", ""), "Test CA") {
		t.Errorf("the former authority is there:\n%s", out)
	}
	if _, err := os.Stat(filepath.Join(dir, "ca.key.old")); !errors.Is(err, os.ErrNotExist) {
		t.Error("its key is there")
	}
}

// errAny stands for an error of no particular kind in TestCerts.
var errAny = errors.New("any")

func TestCertsKey(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	load := func() certs.GroupKeys {
		ks, err := certs.LoadGroupKeys(filepath.Join(dir, certs.KeyFile))
		if err != nil {
			t.Fatal(err)
		}
		return ks
	}
	must(t, now, "key", "-dir", dir)
	old := load()
	if _, err := dwCerts(t, now, "key", "-dir", dir); !errors.Is(err, errState) {
		t.Errorf("overwritten: %v", err)
	}
	if _, err := dwCerts(t, now, "key", "-use", "-dir", dir); !errors.Is(err, errState) {
		t.Errorf("-use of one key: %v", err)
	}
	must(t, now, "key", "-add", "-dir", dir)
	both := load()
	if len(both) != 2 || both[0] != old[0] {
		t.Fatalf("after -add: %s", both.IDs())
	}
	must(t, now, "key", "-use", "-dir", dir)
	if ks := load(); ks[0] != both[1] || ks[1] != both[0] {
		t.Fatalf("after -use: %s", ks.IDs())
	}
	must(t, now, "key", "-drop", "-dir", dir)
	if ks := load(); len(ks) != 1 || ks[0] != both[1] {
		t.Fatalf("after -drop: %s", ks.IDs())
	}
	for range 3 {
		must(t, now, "key", "-add", "-dir", dir)
	}
	if _, err := dwCerts(t, now, "key", "-add", "-dir", dir); !errors.Is(err, errState) || len(load()) != 4 {
		t.Errorf("a fifth key: %v, %d keys", err, len(load()))
	}
}

// What `dw up -tls` writes is what the programs take.
func TestTLSConfiguration(t *testing.T) {
	for _, mode := range []string{"", "cert", "key"} {
		s, err := newSystem(Options{Dir: t.TempDir(), Standbys: 1, Mode: "auto", Monitors: 1, Port: 24700, TLS: mode}, "/bin")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.makeSecrets(time.Now()); err != nil {
			t.Fatal(err)
		}
		mal, mon := s.files(s.DBs[0])["dmmal.ini"], s.monitorFile(true, s.Dir)
		if on := mode != ""; strings.Contains(mal, "MAL_SSL_MODE = "+strings.ToUpper(mode)) != on || strings.Contains(mon, "MON_SSL_NAME = MONITOR1") != on ||
			strings.Contains(s.SQLOptions(), "verify-full") != on || (len(s.sqlTLS(s.DBs[0])) == 3) != on {
			t.Errorf("%q: %s\n%s\n%s", mode, mal, mon, s.SQLOptions())
		}
		if err := func() error { _, err := os.Stat(filepath.Join(s.sslDir(), certs.KeyFile)); return err }(); (err == nil) != (mode == "key") {
			t.Errorf("%q: group.key: %v", mode, err)
		}
	}
	if _, err := newSystem(Options{Dir: "x", Mode: "auto", Port: 24700, TLS: "maybe"}, ""); err == nil {
		t.Error("-tls=maybe is taken")
	}
	var f tlsFlag
	for v, want := range map[string]tlsFlag{"true": "cert", "false": "", "key": "key"} {
		if err := f.Set(v); err != nil || f != want {
			t.Errorf("-tls=%s: %q, %v", v, f, err)
		}
	}
}
