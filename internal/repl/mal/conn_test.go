package mal

import (
	"errors"
	"io"
	"net"
	"testing"

	"datawatch/internal/clock"
)

// A connection that comes while the Node closes is closed with it.
func TestConnectionWhileClosing(t *testing.T) {
	n, err := New(Config{Self: "A", Entries: []Entry{{Inst: "A"}}, Clock: clock.Real{}, Identity: func() Identity { return Identity{} }}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		ours, theirs := net.Pipe()
		n.newConn(ours)
		if _, err := theirs.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	}
}
