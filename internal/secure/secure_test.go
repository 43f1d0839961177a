package secure

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"datawatch/internal/certs"
	"datawatch/internal/clock"
	"datawatch/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const og = 453331

// logs is a log that tests read.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// clk is a clock whose hands tests move; waiting is real.
type clk struct {
	clock.Real
	mu  sync.Mutex
	off time.Duration
}

func (c *clk) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.off)
}

func (c *clk) add(d time.Duration) {
	c.mu.Lock()
	c.off += d
	c.mu.Unlock()
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// authority makes a CA in a directory of its own.
func authority(t *testing.T, name string) (dir string, a *certs.Authority) {
	t.Helper()
	dir = t.TempDir()
	p, err := certs.NewCA(name, time.Now(), 3650)
	check(t, err)
	check(t, certs.WritePair(dir, "ca", p))
	a, err = certs.LoadAuthority(dir)
	check(t, err)
	return dir, a
}

// issue puts a certificate, and the authority's own, into dir.
func issue(t *testing.T, a *certs.Authority, dir string, oguid uint32, role, name string, change ...func(*certs.Request)) {
	t.Helper()
	r := certs.Request{Identities: []certs.Identity{{OGUID: oguid, Role: role, Name: name}}, Now: time.Now(), Days: 365}
	for _, f := range change {
		f(&r)
	}
	p, err := a.Issue(r)
	check(t, err)
	check(t, certs.WritePair(dir, name, p))
}

func groupKey(t *testing.T, dir string, ks ...certs.GroupKey) {
	t.Helper()
	check(t, certs.WriteFile(filepath.Join(dir, certs.KeyFile), certs.GroupKeys(ks).Format(), 0o600))
}

// side is one program of a test.
type side struct {
	*Endpoint
	log *logs
	clk *clk
}

func newSide(t *testing.T, c Config) side {
	t.Helper()
	s := side{log: &logs{}, clk: &clk{}}
	c.Log = slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	c.Clock = s.clk
	if c.Param == "" {
		c.Param = "MAL_SSL_MODE of dmmal.ini"
	}
	if c.OGUID == nil {
		c.OGUID = func() uint32 { return og }
	}
	var err error
	s.Endpoint, err = New(c)
	check(t, err)
	return s
}

func refusal(msg string) (uint16, []byte) { return 6, []byte(msg) }

// listen serves an echo of one message behind the endpoint.
func (s side) listen(t *testing.T, p Port) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	if p.Name == "" {
		p.Name = "MAL_PORT"
	}
	p.Refusal = refusal
	l := s.Listen(ln, p)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer nc.Close()
				who := "nobody"
				if p, ok := PeerOf(nc); ok {
					who = p.String()
				}
				f, err := wire.NewReader(nc, 1<<20).Read()
				if err == nil {
					_ = wire.NewWriter(nc).Write(f.Type, f.ID, []byte(who+":"), f.Payload)
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l
}

// dial connects to the listener and sends one message.
func (s side) dial(t *testing.T, l net.Listener, w Want) (string, error) {
	t.Helper()
	nc, err := net.Dial("tcp", l.Addr().String())
	check(t, err)
	c, err := s.Client(t.Context(), nc, w)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if err := wire.NewWriter(c).Write(100, 1, []byte("hello")); err != nil {
		return "", err
	}
	f, err := wire.NewReader(c, 1<<20).Read()
	if err != nil {
		return "", err
	}
	if f.Type == 6 {
		return "", errors.New("refused: " + string(f.Payload))
	}
	return string(f.Payload), nil
}

// waitLog waits until the log has a line with every word, and returns it.
func waitLog(t *testing.T, l *logs, words ...string) string {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		for _, line := range strings.Split(l.String(), "\n") {
			found := true
			for _, w := range words {
				found = found && strings.Contains(line, w)
			}
			if found {
				return line
			}
		}
	}
	t.Fatalf("no line with %q in\n%s", words, l)
	return ""
}

// Both ways of knowing each other let the right programs in, and every wrong
// one is told why, on both sides.
func TestWhoMayTalk(t *testing.T) {
	dir, ca := authority(t, "CA one")
	issue(t, ca, dir, og, certs.Instance, "A")
	issue(t, ca, dir, og, certs.Instance, "B")
	issue(t, ca, dir, og, certs.Monitor, "M")
	elseDir, elseCA := authority(t, "CA two")
	issue(t, elseCA, elseDir, og, certs.Instance, "A")
	mixDir, _ := authority(t, "CA two b") // a certificate of one authority, trusting ours
	issue(t, elseCA, mixDir, og, certs.Instance, "A")
	copyFile(t, filepath.Join(dir, "ca.crt"), filepath.Join(mixDir, "ca.crt"))
	otherGroup := t.TempDir()
	copyFile(t, filepath.Join(dir, "ca.crt"), filepath.Join(otherGroup, "ca.crt"))
	issue(t, ca, otherGroup, 7, certs.Instance, "A")
	later := t.TempDir()
	copyFile(t, filepath.Join(dir, "ca.crt"), filepath.Join(later, "ca.crt"))
	issue(t, ca, later, og, certs.Instance, "A", func(r *certs.Request) { r.Now = r.Now.AddDate(0, 0, 3) })
	gone := t.TempDir()
	copyFile(t, filepath.Join(dir, "ca.crt"), filepath.Join(gone, "ca.crt"))
	issue(t, ca, gone, og, certs.Instance, "A", func(r *certs.Request) { r.Now, r.Days = r.Now.AddDate(0, 0, -30), 10 })
	keyDir, badKey, fakeKey := t.TempDir(), t.TempDir(), t.TempDir()
	k := certs.NewGroupKey(time.Now())
	groupKey(t, keyDir, k)
	groupKey(t, badKey, certs.NewGroupKey(time.Now()))
	groupKey(t, fakeKey, k)

	a := func(c Config) Config {
		c.Role, c.Name = Instance, "A"
		return c
	}
	for _, c := range []struct {
		name           string
		client, server Config
		want           Want
		tamper         func(client *Endpoint)
		answer         string // or
		clientErr      string
		serverLog      []string
	}{
		{name: "certificates", client: a(Config{Mode: Cert, Dir: dir}), server: Config{Mode: Cert, Dir: dir}, answer: "instance A:hello"},
		{name: "key", client: a(Config{Mode: Key, Dir: keyDir}), server: Config{Mode: Key, Dir: keyDir}, answer: "instance A:hello"},
		{name: "off", client: a(Config{}), server: Config{}, answer: "nobody:hello"},
		{name: "certificate, no OGUID yet", client: a(Config{Mode: Cert, Dir: dir, OGUID: func() uint32 { return 0 }}), server: Config{Mode: Cert, Dir: dir}, answer: "instance A:hello"},
		{name: "key, no OGUID yet", client: a(Config{Mode: Key, Dir: keyDir, OGUID: func() uint32 { return 0 }}), server: Config{Mode: Key, Dir: keyDir}, answer: "instance A:hello"},
		{name: "watcher with the certificate of its instance", client: Config{Mode: Cert, Dir: dir, Role: Watcher, Name: "A"}, server: Config{Mode: Cert, Dir: dir}, answer: "watcher A:hello"},
		{name: "monitor", client: Config{Mode: Cert, Dir: dir, Role: Monitor, Name: "M"}, server: Config{Mode: Cert, Dir: dir}, answer: "monitor M:hello"},

		{name: "another authority", client: a(Config{Mode: Cert, Dir: elseDir}), server: Config{Mode: Cert, Dir: dir},
			clientErr: `we refuse instance B: the certificate of instance B of OGUID 453331 is signed by "CA one", which is none of the authorities of our ca.crt ("CA two")`,
			serverLog: []string{`instance A refuses us`, `signed by \"CA one\"`}},
		{name: "certificate of another authority", client: a(Config{Mode: Cert, Dir: mixDir}), server: Config{Mode: Cert, Dir: dir},
			clientErr: `refused by instance B: the certificate of instance A of OGUID 453331 is signed by "CA two", which is none of the authorities of our ca.crt ("CA one")`,
			serverLog: []string{"we refuse instance A", `signed by \"CA two\"`}},
		{name: "another group", client: a(Config{Mode: Cert, Dir: otherGroup, OGUID: func() uint32 { return 7 }}), server: Config{Mode: Cert, Dir: dir},
			clientErr: "refused by instance B: instance A belongs to OGUID 7, this side to OGUID 453331", serverLog: []string{"we refuse instance A", "OGUID 7"}},
		{name: "another group, key", client: a(Config{Mode: Key, Dir: keyDir, OGUID: func() uint32 { return 7 }}), server: Config{Mode: Key, Dir: keyDir},
			clientErr: "refused by instance B: instance A belongs to OGUID 7, this side to OGUID 453331", serverLog: []string{"OGUID 7"}},
		{name: "not yet valid", client: a(Config{Mode: Cert, Dir: later}), server: Config{Mode: Cert, Dir: dir},
			clientErr: "is not valid before", serverLog: []string{"we refuse instance A", "is not valid before", "compare the clocks"}},
		{name: "expired", client: a(Config{Mode: Cert, Dir: gone}), server: Config{Mode: Cert, Dir: dir},
			clientErr: "refused by instance B: the certificate of instance A of OGUID 453331 expired on", serverLog: []string{"we refuse instance A", "expired on", "dw certs renew"}},
		{name: "another instance answers", client: a(Config{Mode: Cert, Dir: dir}), server: Config{Mode: Cert, Dir: dir}, want: Want{Role: Instance, Name: "C"},
			clientErr: "refused by instance C: instance A wanted instance C, this is instance B", serverLog: []string{"we refuse instance A", "wanted instance C"}},
		{name: "the watcher's port", client: a(Config{Mode: Cert, Dir: dir}), server: Config{Mode: Cert, Dir: dir}, want: Want{Role: Watcher},
			clientErr: "instance A wanted watcher, this is instance B", serverLog: []string{"wanted watcher"}},
		{name: "somebody else's name", client: Config{Mode: Cert, Dir: dir, Role: Instance, Name: "A"}, server: Config{Mode: Cert, Dir: dir},
			tamper:    func(e *Endpoint) { e.cr.cfg.Name = "M" },
			clientErr: "our own certificate", serverLog: []string{"after the TLS handshake"}},
		{name: "certificate to key", client: a(Config{Mode: Cert, Dir: dir}), server: Config{Mode: Key, Dir: keyDir},
			clientErr: "none of the authorities", serverLog: []string{"instance A refuses us"}},
		{name: "key to certificate", client: a(Config{Mode: Key, Dir: keyDir}), server: Config{Mode: Cert, Dir: dir},
			clientErr: "refused by instance B: instance A authenticates by KEY, this side by CERT: MAL_SSL_MODE must be the same in the whole group", serverLog: []string{"authenticates by KEY"}},
		{name: "another key", client: a(Config{Mode: Key, Dir: badKey}), server: Config{Mode: Key, Dir: keyDir},
			clientErr: "which is not in our group.key (it has " + k.ID + ")", serverLog: []string{"we refuse instance A", "not in our group.key"}},
		{name: "only the id of the key", client: a(Config{Mode: Key, Dir: fakeKey}), server: Config{Mode: Key, Dir: keyDir},
			tamper:    func(e *Endpoint) { e.cr.files.have.keys[0].Secret[0] ^= 1 },
			clientErr: "does not know group key " + k.ID, serverLog: []string{"does not know group key"}},
		{name: "plain to TLS", client: a(Config{}), server: Config{Mode: Cert, Dir: dir},
			clientErr: "refused: this side takes TLS only: MAL_SSL_MODE must be the same in the whole group", serverLog: []string{"it speaks plain text, this side takes TLS only"}},
		{name: "TLS to plain", client: a(Config{Mode: Cert, Dir: dir}), server: Config{},
			clientErr: "the other side answered in plain text, it does not use TLS: MAL_SSL_MODE", serverLog: []string{"it speaks TLS, this side does not"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.server.Role, c.server.Name = Instance, "B"
			srv, cl := newSide(t, c.server), newSide(t, c.client)
			if c.want.Role == "" {
				c.want = Want{Role: Instance, Name: "B"}
			}
			if c.tamper != nil {
				c.tamper(cl.Endpoint)
				if c.name == "somebody else's name" {
					cl.cr = newCreds(cl.cr.cfg)
				}
			}
			l := srv.listen(t, Port{})
			got, err := cl.dial(t, l, c.want)
			if c.clientErr == "" {
				if err != nil || got != c.answer {
					t.Fatalf("got %q, %v\nserver: %s", got, err, srv.log)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.clientErr) {
				t.Fatalf("client says %v (got %q), want %q", err, got, c.clientErr)
			}
			waitLog(t, srv.log, append([]string{"connection refused", "from=127.0.0.1"}, c.serverLog...)...)
		})
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	check(t, err)
	check(t, os.WriteFile(to, b, 0o644))
}

// A peer that lies about its name, holding a good certificate for another, is
// refused; the honest client library cannot be made to, so the frames are
// written here.
func TestLyingClaim(t *testing.T) {
	dir, ca := authority(t, "CA")
	issue(t, ca, dir, og, certs.Instance, "A")
	issue(t, ca, dir, og, certs.Instance, "B")
	srv := newSide(t, Config{Mode: Cert, Dir: dir, Role: Instance, Name: "B"})
	l := srv.listen(t, Port{})
	pair, err := certs.LoadPair(filepath.Join(dir, "A.crt"), filepath.Join(dir, "A.key"))
	check(t, err)
	for _, c := range []struct {
		name string
		conf *tls.Config
		cl   claim
		want string
	}{
		{"another name", &tls.Config{NextProtos: protocols, Certificates: []tls.Certificate{*pair}}, claim{V: 1, Auth: "CERT", Role: Instance, Name: "C", OGUID: og, ToRole: Instance}, "the certificate shown is for instance A of OGUID 453331, not for instance C"},
		{"another role", &tls.Config{NextProtos: protocols, Certificates: []tls.Certificate{*pair}}, claim{V: 1, Auth: "CERT", Role: Monitor, Name: "A", OGUID: og, ToRole: Instance}, "not for monitor A"},
		{"another group", &tls.Config{NextProtos: protocols, Certificates: []tls.Certificate{*pair}}, claim{V: 1, Auth: "CERT", Role: Instance, Name: "A", OGUID: 8, ToRole: Instance}, "belongs to OGUID 8"},
		{"no certificate", &tls.Config{NextProtos: protocols}, claim{V: 1, Auth: "CERT", Role: Instance, Name: "A", OGUID: og, ToRole: Instance}, "instance A presented no certificate"},
		{"version", &tls.Config{NextProtos: protocols}, claim{V: 2}, "version 2 of the link protocol there, 1 here"},
		{"long name", &tls.Config{NextProtos: protocols}, claim{V: 1, Name: strings.Repeat("x", 200)}, "too long"},
		{"no role", &tls.Config{NextProtos: protocols}, claim{V: 1, Name: "x"}, "unknown role"},
		{"no ALPN", &tls.Config{}, claim{}, "does not ask for datawatch/1"},
		{"TLS 1.2", &tls.Config{MaxVersion: tls.VersionTLS12}, claim{}, "TLS handshake"},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv.gate.at = map[string]*gated{}
			c.conf.InsecureSkipVerify = true
			nc, err := tls.Dial("tcp", l.Addr().String(), c.conf)
			if err == nil {
				defer nc.Close()
				_ = writeClaim(nc, typeClaim, c.cl)
				if r, err := readClaim(nc, typeReply); err == nil && r.Refuse == "" {
					t.Fatalf("accepted: %+v", r)
				}
			}
			waitLog(t, srv.log, c.want)
		})
	}
}

// The proof of one connection is worth nothing on another: a man in the
// middle, who has a TLS connection with each side, cannot pass it on.
func TestManInTheMiddle(t *testing.T) {
	dir := t.TempDir()
	groupKey(t, dir, certs.NewGroupKey(time.Now()))
	srv := newSide(t, Config{Mode: Key, Dir: dir, Role: Instance, Name: "B"})
	l := srv.listen(t, Port{})
	pair, err := throwaway(time.Now())
	check(t, err)
	mid, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer mid.Close()
	wg.Go(func() {
		nc, err := mid.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		in := tls.Server(nc, &tls.Config{NextProtos: protocols, Certificates: []tls.Certificate{*pair}})
		c, err := readClaim(in, typeClaim)
		if err != nil {
			t.Errorf("in the middle: %v", err)
			return
		}
		out, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: protocols})
		if err != nil {
			t.Errorf("in the middle: %v", err)
			return
		}
		defer out.Close()
		_ = writeClaim(out, typeClaim, c)
		if r, err := readClaim(out, typeReply); err == nil {
			_ = writeClaim(in, typeReply, r)
		}
	})
	cl := newSide(t, Config{Mode: Key, Dir: dir, Role: Instance, Name: "A"})
	nc, err := net.Dial("tcp", mid.Addr().String())
	check(t, err)
	_, err = cl.Client(t.Context(), nc, Want{Role: Instance, Name: "B"})
	if err == nil || !strings.Contains(err.Error(), "does not know group key") {
		t.Fatalf("client: %v", err)
	}
	waitLog(t, srv.log, "does not know group key")
}

// A server without the key that sends the client's own proof back fails.
func TestReflectedProof(t *testing.T) {
	dir := t.TempDir()
	groupKey(t, dir, certs.NewGroupKey(time.Now()))
	pair, err := throwaway(time.Now())
	check(t, err)
	fake, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer fake.Close()
	wg.Go(func() {
		nc, err := fake.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		in := tls.Server(nc, &tls.Config{NextProtos: protocols, Certificates: []tls.Certificate{*pair}})
		if c, err := readClaim(in, typeClaim); err == nil {
			_ = writeClaim(in, typeReply, c)
			_, _ = io.Copy(io.Discard, in)
		}
	})
	cl := newSide(t, Config{Mode: Key, Dir: dir, Role: Instance, Name: "A"})
	nc, err := net.Dial("tcp", fake.Addr().String())
	check(t, err)
	defer nc.Close()
	// Even with the very same names on both sides.
	if _, err = cl.Client(t.Context(), nc, Want{Role: Instance, Name: "A"}); err == nil || !strings.Contains(err.Error(), "does not know group key") {
		t.Fatalf("client: %v", err)
	}
}

// A client finds out that nobody answers within its time.
func TestSilentServer(t *testing.T) {
	dir := t.TempDir()
	groupKey(t, dir, certs.NewGroupKey(time.Now()))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer ln.Close()
	cl := newSide(t, Config{Mode: Key, Dir: dir, Role: Instance, Name: "A", Timeout: 50 * time.Millisecond})
	nc, err := net.Dial("tcp", ln.Addr().String())
	check(t, err)
	_, err = cl.Client(t.Context(), nc, Want{Role: Instance, Name: "B"})
	if err == nil || err.Error() != "TLS with instance B: no answer within 50ms" {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	nc, err = net.Dial("tcp", ln.Addr().String())
	check(t, err)
	if _, err = cl.Client(ctx, nc, Want{Role: Instance, Name: "B"}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// A program with a good certificate that sits at another one's address is
// found out by the client, whatever it says.
func TestLyingServer(t *testing.T) {
	dir, ca := authority(t, "CA")
	issue(t, ca, dir, og, certs.Instance, "A")
	issue(t, ca, dir, og, certs.Instance, "C")
	pair, err := certs.LoadPair(filepath.Join(dir, "C.crt"), filepath.Join(dir, "C.key"))
	check(t, err)
	cl := newSide(t, Config{Mode: Cert, Dir: dir, Role: Instance, Name: "A"})
	for _, c := range []struct {
		reply claim
		want  string
	}{
		{claim{V: 1, Auth: "CERT", Role: Instance, Name: "C", OGUID: og}, "we refuse instance B: instance C answered instead of instance B"},
		{claim{V: 1, Auth: "CERT", Role: Instance, Name: "B", OGUID: og}, "we refuse instance B: the certificate shown is for instance C of OGUID 453331, not for instance B"},
		{claim{V: 1, Auth: "CERT", Role: Watcher, Name: "C", OGUID: og}, "watcher C answered instead of instance B"},
		{claim{V: 1, Auth: "CERT", Role: Instance, Refuse: "go\naway\x1b[0m"}, "refused by instance B: go?away?[0m"},
	} {
		fake, err := net.Listen("tcp", "127.0.0.1:0")
		check(t, err)
		var wg sync.WaitGroup
		wg.Go(func() {
			nc, err := fake.Accept()
			if err != nil {
				return
			}
			defer nc.Close()
			in := tls.Server(nc, &tls.Config{NextProtos: protocols, Certificates: []tls.Certificate{*pair}, ClientAuth: tls.RequestClientCert})
			if _, err := readClaim(in, typeClaim); err == nil {
				_ = writeClaim(in, typeReply, c.reply)
			}
		})
		nc, err := net.Dial("tcp", fake.Addr().String())
		check(t, err)
		l, err := cl.Client(t.Context(), nc, Want{Role: Instance, Name: "B"})
		if err == nil {
			l.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.reply, err, c.want)
		}
		fake.Close()
		wg.Wait()
	}
}

// Not a byte more than allowed is read before the peer is known.
func TestBounded(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	defer a.Close()
	go func() { _, _ = b.Write(make([]byte, 200)) }()
	r := &bounded{Conn: a, left: 100}
	got, err := io.ReadAll(r)
	if len(got) != 100 || !errors.Is(err, errTooMuch) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	r.left = -1
	if n, err := io.ReadFull(r, make([]byte, 100)); n != 100 || err != nil {
		t.Errorf("without limit: %d, %v", n, err)
	}
}
