package watcher

import (
	"encoding/json"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"datawatch/internal/certs"
	"datawatch/internal/ha/proto"
	"datawatch/internal/secure"
)

// The port of a watcher is for watchers and monitors, and a hello must be that
// of the program which opened the link.
func TestWhoMayUseThePort(t *testing.T) {
	dir := t.TempDir()
	keys := certs.GroupKeys{certs.NewGroupKey(time.Now())}
	if err := certs.WriteFile(filepath.Join(dir, certs.KeyFile), keys.Format(), 0o600); err != nil {
		t.Fatal(err)
	}
	end := func(role secure.Role, name string) *secure.Endpoint {
		e, err := secure.New(secure.Config{Mode: secure.Key, Dir: dir, Role: role, Name: name, Param: "MAL_SSL_MODE"})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := end(secure.Watcher, "B").Listen(ln, secure.Port{Name: "MAL_DW_PORT", Allow: allow, Refusal: refusal})
	got := make(chan net.Conn)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			got <- nc
		}
	})
	defer wg.Wait()
	defer l.Close()
	for _, c := range []struct {
		role  secure.Role
		name  string
		hello proto.Hello
		want  string // "" it may
	}{
		{secure.Watcher, "A", proto.Hello{Role: proto.RoleWatcher, Name: "A"}, ""},
		{secure.Watcher, "A", proto.Hello{Role: proto.RoleWatcher, Name: "C"}, "the link was opened by watcher A, the hello says watcher C"},
		{secure.Monitor, "M", proto.Hello{Role: proto.RoleMonitor, Name: "10.0.0.1"}, ""},
		{secure.Monitor, "M", proto.Hello{Role: proto.RoleWatcher, Name: "A"}, "the link was opened by monitor M, the hello says watcher A"},
		{secure.Watcher, "A", proto.Hello{Role: proto.RoleMonitor}, "the link was opened by watcher A, the hello says monitor"},
		{secure.Instance, "A", proto.Hello{}, "MAL_DW_PORT is for watchers and monitors, not for instance A"},
	} {
		nc, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		out, err := end(c.role, c.name).Client(t.Context(), nc, secure.Want{Role: secure.Watcher, Name: "B"})
		if err == nil {
			in := <-got
			err = checkPeer(in, c.hello)
			in.Close()
			out.Close()
		}
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s %s with %+v: %v, want %q", c.role, c.name, c.hello, err, c.want)
		}
	}
	typ, b := refusal("no")
	var r proto.HelloReply
	if err := json.Unmarshal(b, &r); err != nil || typ != proto.TypeHelloReply || r.Code == 0 || r.Msg != "no" {
		t.Errorf("refusal: type %d, %s", typ, b)
	}
}

// The status that others read tells of a certificate that ends soon.
func TestStatusTellsOfCertificate(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	ca, err := certs.NewCA("CA", now, 10)
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
	p, err := a.Issue(certs.Request{Identities: []certs.Identity{{OGUID: 9, Role: certs.Instance, Name: "B"}}, Now: now, Days: 5})
	if err != nil {
		t.Fatal(err)
	}
	if err := certs.WritePair(dir, "B", p); err != nil {
		t.Fatal(err)
	}
	e, err := secure.New(secure.Config{Mode: secure.Cert, Dir: dir, Role: secure.Watcher, Name: "B", Param: "MAL_SSL_MODE"})
	if err != nil {
		t.Fatal(err)
	}
	st := (&Guard{deps: Deps{Secure: e}}).fill(proto.WatcherStatus{}, now)
	if c := st.Cert; c == nil || c.File != filepath.Join(dir, "B.crt") || !c.Ours || c.Authority || c.At.Sub(now).Round(time.Hour) != 120*time.Hour {
		t.Errorf("%+v", c)
	}
	if st := (&Guard{}).fill(proto.WatcherStatus{}, now); st.Cert != nil {
		t.Errorf("without TLS: %+v", st.Cert)
	}
}
