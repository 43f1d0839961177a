package mal_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"datawatch/internal/certs"
	"datawatch/internal/repl/mal"
	"datawatch/internal/repl/repltest"
	"datawatch/internal/secure"
)

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// certificates makes a directory with an authority and instances of OGUID 7.
func certificates(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	ca, err := certs.NewCA("CA", time.Now(), 10)
	if err == nil {
		err = certs.WritePair(dir, "ca", ca)
	}
	if err != nil {
		t.Fatal(err)
	}
	a, err := certs.LoadAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		p, err := a.Issue(certs.Request{Identities: []certs.Identity{{OGUID: 7, Role: certs.Instance, Name: n}}, Now: time.Now(), Days: 5})
		if err == nil {
			err = certs.WritePair(dir, n, p)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func endpoint(t *testing.T, dir, name string, log *slog.Logger) *secure.Endpoint {
	t.Helper()
	e, err := secure.New(secure.Config{Mode: secure.Cert, Dir: dir, Role: secure.Instance, Name: name, Param: "MAL_SSL_MODE of dmmal.ini",
		OGUID: func() uint32 { return 7 }, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func until(t *testing.T, what func() string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what())
		}
	}
}

// Links come up under TLS, carry large frames, and come up again after a cut;
// an instance with a good certificate cannot speak for another one.
func TestSecureLinks(t *testing.T) {
	dir := certificates(t, "A", "B", "C")
	var log syncBuffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	n, ra, rb := repltest.NewNet(), &rec{}, &rec{}
	three := append([]mal.Entry{{Inst: "C", Host: "C", Port: 1}}, entries...)
	a := node(t, n, "A", same, ra, func(c *mal.Config) { c.Entries, c.Secure = three, endpoint(t, dir, "A", repltest.Quiet) })
	node(t, n, "B", same, rb, func(c *mal.Config) { c.Entries, c.Log, c.Secure = three, logger, endpoint(t, dir, "B", logger) })
	up := func(k int) func() bool { return func() bool { return ra.count(true) >= k && rb.count(true) >= k } }
	state := func() string { return fmt.Sprintf("links %+v\n%s", a.Links(), log.String()) }
	until(t, state, up(1))
	for _, size := range []int{0, 1, 3 << 20} {
		msg := strings.Repeat("m", size)
		if got, err := a.Call(t.Context(), "B", typEcho, []byte(msg)); err != nil || string(got) != "re:"+msg {
			t.Fatalf("%d bytes: %d, %v", size, len(got), err)
		}
	}
	n.Reset("A", "B")
	until(t, state, up(2))
	if _, err := a.Call(t.Context(), "B", typEcho); err != nil {
		t.Fatal(err)
	}
	a.Close()
	// C takes A's name in the hello, on a link that its own certificate opened.
	rc := &rec{}
	node(t, n, "A", same, rc, func(c *mal.Config) { c.Entries, c.Secure = three, endpoint(t, dir, "C", repltest.Quiet) })
	until(t, state, func() bool {
		return strings.Contains(log.String(), "the link was opened by instance C, the hello says instance A")
	})
	if rc.count(true) != 0 {
		t.Error("it got in")
	}
	// A certificate of another name than its instance's is refused at start.
	if _, err := secure.New(secure.Config{Mode: secure.Cert, Dir: dir, Role: secure.Instance, Name: filepath.Base("C"), OGUID: func() uint32 { return 8 }}); err == nil {
		t.Error("a certificate of another group is good enough")
	}
}
