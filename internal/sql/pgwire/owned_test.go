package pgwire

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
)

// TestOwned: large values are not copied: they stay where they were read, and
// nothing that the client sends later overwrites them.
func TestOwned(t *testing.T) {
	f := newFake()
	_, addr := serve(t, f)
	r := newRaw(t, addr)
	r.login()
	bind := func(portal string, v []byte) []byte {
		b := []byte(portal + "\x00e\x00\x00\x01\x00\x01\x00\x01")
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...)
		return msg('B', append(b, 0, 1, 0, 1))
	}
	values := [][]byte{bytes.Repeat([]byte("a"), 3<<20), bytes.Repeat([]byte("b"), 2<<20+17), bytes.Repeat([]byte("c"), 1<<20), []byte("small")}
	for range 2 {
		r.send(msgQuery("begin"))
		r.expect("C:BEGIN Z:T")
		go func() { // more than the buffers of the connection hold
			_, _ = r.nc.Write(bytes.Join([][]byte{msgParse("e", "echo 17"), bind("p0", values[0]), bind("p1", values[1]), bind("p2", values[2]), bind("p3", values[3]),
				msgExecute("p0", 0), msgExecute("p1", 0), msgExecute("p2", 0), msgExecute("p3", 0), msgClose('S', "e"), msgSync()}, nil))
		}()
		r.expect("1 2 2 2 2")
		for i, want := range values {
			typ, b := r.read()
			if typ != 'D' || len(b) < 6 || !bytes.Equal(b[6:], want) {
				t.Fatalf("value %d: message %q of %d bytes", i, typ, len(b))
			}
			r.expect("C:SELECT@1")
		}
		r.expect("3 Z:T")
		r.send(msgQuery("rollback"))
		r.expect("C:ROLLBACK Z:I")
	}
	if n := f.owned.Load(); n != 6 {
		t.Errorf("%d binds without a copy, want 6", n)
	}
}

// The buffer of a large message is as large as the message, however it arrives.
func TestLargeBuffer(t *testing.T) {
	m := msg('d', make([]byte, 5<<20))
	nc := &chunks{b: append(append([]byte{}, m...), msgSync()...), n: 1000}
	rd := reader{nc: nc}
	typ, b, err := rd.message(func(byte) int { return 1 << 30 })
	if typ != 'd' || len(b) != 5<<20 || err != nil {
		t.Fatal(typ, len(b), err)
	}
	if len(rd.buf) != len(m) {
		t.Errorf("a message of %d bytes in a buffer of %d", len(m), len(rd.buf))
	}
	if rd.give(); len(rd.buf) != minRead {
		t.Errorf("%d bytes kept", len(rd.buf))
	}
	if typ, _, err := rd.message(func(byte) int { return 1 << 30 }); typ != 'S' || err != nil {
		t.Errorf("then %q, %v", typ, err)
	}
}

// chunks is a connection that delivers n bytes at a time.
type chunks struct {
	net.Conn
	b []byte
	n int
}

func (c *chunks) Read(p []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), c.n)], c.b)
	c.b = c.b[n:]
	return n, nil
}
