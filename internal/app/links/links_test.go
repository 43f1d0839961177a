package links

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datawatch/internal/certs"
	"datawatch/internal/config"
	"datawatch/internal/secure"
)

// instance writes the files of an instance whose MAL_HOST is given.
func instance(t *testing.T, host, mal string) *config.Instance {
	t.Helper()
	dir := t.TempDir()
	put := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("dm.ini", "INSTANCE_NAME = A\nPORT_NUM = 24800\nMAL_INI = 1\n")
	put("dmmal.ini", mal+fmt.Sprintf("\n[M1]\nMAL_INST_NAME = A\nMAL_HOST = 127.0.0.1\nMAL_PORT = 24801\n[M2]\nMAL_INST_NAME = B\nMAL_HOST = %s\nMAL_PORT = 24802\n", host))
	in, err := config.LoadInstance(filepath.Join(dir, "dm.ini"))
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func TestForInstance(t *testing.T) {
	for _, c := range []struct {
		name, host, mal string
		key             bool
		want            secure.Mode
		err             string
	}{
		{"loopback", "127.0.0.1", "", false, secure.Off, ""},
		{"loopback with files", "127.0.0.1", "", true, secure.Off, ""},
		{"loopback, asked for", "127.0.0.1", "MAL_SSL_MODE = KEY", true, secure.Key, ""},
		{"another host", "10.0.0.2", "", true, secure.Key, ""},
		{"another host, nothing there", "10.0.0.2", "", false, secure.Off, "MAL_HOST 10.0.0.2 is not on loopback, so links need TLS, and MAL_SSL_PATH = "},
		{"another host, asked for", "10.0.0.2", "MAL_SSL_MODE = CERT", true, secure.Cert, "ca.crt"},
		{"another host, plain text by name", "10.0.0.2", "MAL_SSL_MODE = OFF", false, secure.Off, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := instance(t, c.host, c.mal)
			dir := filepath.Join(filepath.Dir(in.DM.Path), "ssl")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if c.key {
				if err := certs.WriteFile(filepath.Join(dir, certs.KeyFile), certs.GroupKeys{certs.NewGroupKey(time.Now())}.Format(), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			e, err := ForInstance(in, secure.Watcher, nil, nil, nil)
			var bad *Error
			switch {
			case c.err == "" && (err != nil || e.Mode() != c.want):
				t.Errorf("%v, %v", e.Mode(), err)
			case c.err != "" && (!errors.As(err, &bad) || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), "dmmal.ini")):
				t.Errorf("%v, want %q", err, c.err)
			}
		})
	}
	if e, err := ForInstance(&config.Instance{DM: &config.DM{InstanceName: "A"}}, secure.Instance, nil, nil, nil); err != nil || e.Mode() != secure.Off {
		t.Errorf("without MAL: %v", err)
	}
	if h := DWHost(&config.Instance{}); h != "127.0.0.1" {
		t.Errorf("without MAL the watcher's port is on %q", h)
	}
}

func TestSQL(t *testing.T) {
	near, far := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5}, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 9), Port: 5}
	for _, c := range []struct {
		listen, require, cert string
		starts                bool
		near, far             bool // must use TLS
	}{
		{"", "REMOTE", "", false, false, true},
		{"10.0.0.1", "REMOTE", "", false, false, true},
		{"127.0.0.1", "REMOTE", "", true, false, true},
		{"", "NONE", "", true, false, false},
		{"", "REMOTE", "c", true, false, true},
		{"", "ALL", "c", true, true, true},
	} {
		dm := &config.DM{ListenIP: c.listen, SSLRequire: c.require, SSLCert: c.cert}
		err := CheckSQL(dm)
		if (err == nil) != c.starts || err != nil && (!strings.Contains(err.Error(), "SSL_REQUIRE = NONE") || !strings.Contains(err.Error(), "LISTEN_IP")) {
			t.Errorf("%+v: %v", c, err)
		}
		if r := RequireTLS(dm); r(near) != c.near || r(far) != c.far {
			t.Errorf("%+v: near %v, far %v", c, r(near), r(far))
		}
	}
}
