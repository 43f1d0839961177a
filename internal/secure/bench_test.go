package secure

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"datawatch/internal/certs"
	"datawatch/internal/wire"
)

// FuzzClaim: whatever comes as a claim is refused or short and printable.
func FuzzClaim(f *testing.F) {
	var b bytes.Buffer
	_ = writeClaim(&b, typeClaim, claim{V: 1, Auth: "CERT", Role: Instance, Name: "A", OGUID: 7, ToRole: Watcher})
	f.Add(b.Bytes())
	b.Reset()
	_ = writeClaim(&b, typeClaim, claim{V: 1, Role: Instance, Name: "A", Refuse: "no\nnot you"})
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := readClaim(bytes.NewReader(b), typeClaim)
		if err != nil {
			return
		}
		if len(c.Name) > maxName || len(c.Refuse) > maxText+3 || len(c.who()) > 2*maxName+3 || bytes.ContainsAny([]byte(c.Refuse+c.who()), "\n\x00\x1b") {
			t.Fatalf("%+v", c)
		}
	})
}

// BenchmarkConnect is one connection to another program, to its first answer.
func BenchmarkConnect(b *testing.B) {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	for _, mode := range []Mode{Off, Cert, Key} {
		b.Run(mode.String(), func(b *testing.B) {
			dir, now := b.TempDir(), time.Now()
			p, err := certs.NewCA("CA", now, 10)
			if err == nil {
				err = certs.WritePair(dir, "ca", p)
			}
			a, err2 := certs.LoadAuthority(dir)
			if err != nil || err2 != nil {
				b.Fatal(err, err2)
			}
			for _, n := range []string{"A", "B"} {
				p, err := a.Issue(certs.Request{Identities: []certs.Identity{{OGUID: og, Role: certs.Instance, Name: n}}, Now: now, Days: 5})
				if err == nil {
					err = certs.WritePair(dir, n, p)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			if err := certs.WriteFile(dir+"/"+certs.KeyFile, certs.GroupKeys{certs.NewGroupKey(now)}.Format(), 0o600); err != nil {
				b.Fatal(err)
			}
			end := func(name string) *Endpoint {
				e, err := New(Config{Mode: mode, Dir: dir, Role: Instance, Name: name, OGUID: func() uint32 { return og }, Log: log})
				if err != nil {
					b.Fatal(err)
				}
				return e
			}
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			l := end("B").Listen(ln, Port{Name: "MAL_PORT"})
			done := make(chan struct{})
			go func() {
				defer close(done)
				for {
					nc, err := l.Accept()
					if err != nil {
						return
					}
					if f, err := wire.NewReader(nc, 100).Read(); err == nil {
						_ = wire.NewWriter(nc).Write(f.Type, f.ID)
					}
					nc.Close()
				}
			}()
			cl := end("A")
			for b.Loop() {
				nc, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					b.Fatal(err)
				}
				c, err := cl.Client(b.Context(), nc, Want{Role: Instance, Name: "B"})
				if err != nil {
					b.Fatal(err)
				}
				if err := wire.NewWriter(c).Write(9, 1); err != nil {
					b.Fatal(err)
				}
				if _, err := wire.NewReader(c, 100).Read(); err != nil {
					b.Fatal(err)
				}
				c.Close()
			}
			l.Close()
			<-done
		})
	}
}
