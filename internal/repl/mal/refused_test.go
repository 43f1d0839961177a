package mal

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestRefusalsAreLoggedSparingly: the first refusal of a host for a reason is
// logged at once, then one a minute that says how many there were.
func TestRefusalsAreLoggedSparingly(t *testing.T) {
	var r refusedLog
	now := time.Unix(1e9, 0)
	lines, told := 0, 0
	for range 150 { // a dial each second
		if log, more := r.note("10.0.0.1", "version", now); log {
			lines, told = lines+1, told+1+more
		}
		now = now.Add(time.Second)
	}
	if lines != 3 || told != 121 {
		t.Fatalf("%d lines tell of %d refusals, want 3 and 121 of 150", lines, told)
	}
	if log, _ := r.note("10.0.0.1", "another reason", now); !log {
		t.Fatal("another reason is not logged at once")
	}
	if log, _ := r.note("10.0.0.2", "version", now); !log {
		t.Fatal("another host is not logged at once")
	}
	lines = 0
	for i := range 10000 { // all different, as an attacker would
		if log, _ := r.note("10.0.0.3", fmt.Sprint(i), now); log {
			lines++
		}
	}
	if lines > refusedKinds || len(r.seen) > refusedKinds+1 {
		t.Fatalf("%d lines, %d remembered", lines, len(r.seen))
	}
	if log, more := r.note("10.0.0.3", "x", now.Add(2*time.Minute)); !log || more != 0 {
		t.Fatalf("after a quiet time: %v %d", log, more)
	}
}

// garbage listens and hands out connections on which no hello comes.
type garbage struct{ conns chan net.Conn }

func (g garbage) Accept() (net.Conn, error) {
	c, ok := <-g.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (g garbage) Close() error   { close(g.conns); return nil }
func (g garbage) Addr() net.Addr { return &net.TCPAddr{} }

// TestRefusedPeerDoesNotFillTheLog: the port itself logs so.
func TestRefusedPeerDoesNotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		g := garbage{make(chan net.Conn)}
		n, err := New(Config{Self: "A", Entries: []Entry{{Inst: "A", Host: "A", Port: 1}, {Inst: "B", Host: "B", Port: 1}},
			Identity: func() Identity { return Identity{OGUID: 1} }, Log: slog.New(slog.NewTextHandler(&log, nil)),
			Listen: func(context.Context, string) (net.Listener, error) { return g, nil },
			Dial:   func(context.Context, string) (net.Conn, error) { return nil, fmt.Errorf("nobody") }}, nil)
		if err == nil {
			err = n.Start(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		for range 30 {
			a, b := net.Pipe()
			g.conns <- a
			b.Close()
			time.Sleep(time.Second)
		}
		n.Close()
		if got := strings.Count(log.String(), "connection refused"); got != 1 {
			t.Fatalf("%d lines in 30 s:\n%s", got, log.String())
		}
	})
}
