package pgwire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

const (
	minRead      = 4 << 10  // buffer of an idle connection
	keepRead     = 16 << 10 // largest buffer kept when it is empty
	maxStartup   = 10_000   // PostgreSQL's MAX_STARTUP_PACKET_LENGTH
	maxPreAuth   = 4 << 10  // SASL messages are a few hundred bytes
	maxSmall     = 64 << 10 // messages that have no reason to be long
	largeMessage = 1 << 20  // from here on copies are avoided
	maxDiscarded = 1 << 30  // what PostgreSQL itself would accept
)

// reader cuts the client's stream into messages. A message is a slice of its
// buffer, valid until the next call. The buffer grows with what has arrived,
// never with what a length field announces, and shrinks back when it is empty.
type reader struct {
	nc   net.Conn
	buf  []byte
	r, w int
}

// buffered returns how many bytes were read but not consumed.
func (r *reader) buffered() int { return r.w - r.r }

// next is the type of the message that follows, 0 when it has not arrived.
func (r *reader) next() byte {
	if r.r == r.w {
		return 0
	}
	return r.buf[r.r]
}

// need makes n bytes available at buf[r:].
func (r *reader) need(n int) error {
	if r.w-r.r >= n {
		return nil
	}
	if r.r == r.w {
		r.r, r.w = 0, 0
		if r.buf == nil || len(r.buf) > keepRead {
			r.buf = make([]byte, minRead)
		}
	}
	for r.w-r.r < n {
		if r.r > 0 && r.r+n > len(r.buf) {
			r.w = copy(r.buf, r.buf[r.r:r.w])
			r.r = 0
		}
		if r.w == len(r.buf) { // full, and r.r is 0: the client did send this much
			size := 2 * len(r.buf)
			if n >= largeMessage && n < size {
				size = n // its last buffer need not be a power of two
			}
			b := make([]byte, size)
			copy(b, r.buf[:r.w])
			r.buf = b
		}
		m, err := r.nc.Read(r.buf[r.w:])
		r.w += m
		if err != nil && r.w-r.r < n {
			if errors.Is(err, io.EOF) && r.w > r.r {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// give leaves the buffer to whoever has the messages taken from it; what has been
// read beyond them moves to another one.
func (r *reader) give() {
	rest := r.buf[r.r:r.w]
	b := make([]byte, max(minRead, len(rest)))
	r.r, r.w, r.buf = 0, copy(b, rest), b
}

// grow makes the buffer at least n bytes long.
func (r *reader) grow(n int) {
	if len(r.buf) < n {
		b := make([]byte, n)
		r.w = copy(b, r.buf[r.r:r.w])
		r.buf, r.r = b, 0
	}
}

// protoError is a violation after which the stream cannot be followed.
type protoError struct{ msg string }

func (e *protoError) Error() string { return e.msg }

// tooLong is a message over the limit; the reader has not consumed its body.
type tooLong struct {
	typ byte
	n   int
}

func (e *tooLong) Error() string { return fmt.Sprintf("message of %d bytes", e.n) }

// startup reads a message without a type byte: its code and the rest.
func (r *reader) startup() (code uint32, body []byte, err error) {
	if err := r.need(4); err != nil {
		return 0, nil, err
	}
	n := int(binary.BigEndian.Uint32(r.buf[r.r:]))
	if n < 8 || n > maxStartup {
		return 0, nil, &protoError{"invalid length of startup packet"}
	}
	if err := r.need(n); err != nil {
		return 0, nil, err
	}
	b := r.buf[r.r : r.r+n]
	r.r += n
	return binary.BigEndian.Uint32(b[4:]), b[8:], nil
}

// message reads the next message; limit says how long a type may be, a
// negative limit refuses the type.
func (r *reader) message(limit func(byte) int) (typ byte, body []byte, err error) {
	if err := r.need(5); err != nil {
		return 0, nil, err
	}
	typ = r.buf[r.r]
	max := limit(typ)
	if max < 0 {
		return typ, nil, &protoError{fmt.Sprintf("invalid frontend message type %d", typ)}
	}
	n := int(binary.BigEndian.Uint32(r.buf[r.r+1:]))
	if n < 4 || n > maxDiscarded {
		return typ, nil, &protoError{fmt.Sprintf("invalid length %d of message %q", n, typ)}
	}
	if n-4 > max {
		r.r += 5
		return typ, nil, &tooLong{typ, n - 4}
	}
	if err := r.need(1 + n); err != nil {
		return typ, nil, err
	}
	body = r.buf[r.r+5 : r.r+1+n]
	r.r += 1 + n
	return typ, body, nil
}

// discard skips n bytes of the stream without keeping them.
func (r *reader) discard(n int) error {
	for n > 0 {
		if r.r == r.w {
			r.r, r.w = 0, 0
			if err := r.need(1); err != nil {
				return err
			}
		}
		m := min(n, r.w-r.r)
		r.r += m
		n -= m
	}
	return nil
}

// body takes apart the fields of a message; bad is set by the first field
// that is not there, and everything after it is empty.
type body struct {
	b   []byte
	bad bool
}

func (m *body) fail() { m.b, m.bad = nil, true }

// cstr returns a null-terminated string without its end.
func (m *body) cstr() []byte {
	for i, c := range m.b {
		if c == 0 {
			s := m.b[:i]
			m.b = m.b[i+1:]
			return s
		}
	}
	m.fail()
	return nil
}

func (m *body) byte() byte {
	if len(m.b) < 1 {
		m.fail()
		return 0
	}
	v := m.b[0]
	m.b = m.b[1:]
	return v
}

func (m *body) int16() int {
	if len(m.b) < 2 {
		m.fail()
		return 0
	}
	v := int(binary.BigEndian.Uint16(m.b))
	m.b = m.b[2:]
	return v
}

func (m *body) int32() int32 {
	if len(m.b) < 4 {
		m.fail()
		return 0
	}
	v := int32(binary.BigEndian.Uint32(m.b))
	m.b = m.b[4:]
	return v
}

// bytes returns the next n bytes.
func (m *body) bytes(n int) []byte {
	if n < 0 || n > len(m.b) {
		m.fail()
		return nil
	}
	v := m.b[:n:n]
	m.b = m.b[n:]
	return v
}

// end reports whether the message was well-formed and has nothing left.
func (m *body) end() bool { return !m.bad && len(m.b) == 0 }
