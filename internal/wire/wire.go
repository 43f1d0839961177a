// Package wire frames messages between instances, watchers and monitors.
//
// A frame, all integers little-endian:
//
//	offset size what
//	0      4    magic "DWF1" (version 1 of the framing)
//	4      4    payload length, capped by the reader before any allocation
//	8      2    message type (owned by the protocol above)
//	10     2    flags, 0 today; unknown flags are refused
//	12     8    request id; 0 for one-way messages
//	20     4    CRC-32C over bytes 0-19 and the payload
//	24     n    payload
//
// Guarantee G8: a length beyond the cap, a bad magic or a bad checksum is an
// error before anything is allocated or believed, and ends the connection.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"sync"
)

const (
	HeaderSize = 24
	// MaxPreAuth caps frames before the peer has said a valid hello.
	MaxPreAuth = 64 << 10
	// MaxControl caps control messages after it.
	MaxControl = 4 << 20
	// MaxRedo caps frames that carry a redo package.
	MaxRedo = 256 << 20
	// large payloads are not copied before they are written.
	large = 64 << 10
)

var (
	magic  = [4]byte{'D', 'W', 'F', '1'}
	table  = crc32.MakeTable(crc32.Castagnoli)
	ErrBad = errors.New("wire: not a valid frame")
)

// Frame is one message. Payload is valid until the next Read on the same Reader
// unless the Reader was told to keep nothing (see Reader.Read).
type Frame struct {
	Type    uint16
	ID      uint64
	Payload []byte
}

// Reader reads frames. Not safe for concurrent use.
type Reader struct {
	r   io.Reader
	max uint32
	// one type may have a cap of its own
	bigType uint16
	bigMax  uint32
	hdr     [HeaderSize]byte
}

// NewReader reads from r, refusing payloads above limit bytes. The caller
// supplies buffering.
func NewReader(r io.Reader, limit int) *Reader { return &Reader{r: r, max: uint32(limit)} }

// SetMax changes the cap, typically raised once the peer is known.
func (r *Reader) SetMax(limit int) { r.max = uint32(limit) }

// SetMaxFor gives frames of one type a cap of their own: redo may be large,
// control messages beside it may not.
func (r *Reader) SetMaxFor(typ uint16, limit int) { r.bigType, r.bigMax = typ, uint32(limit) }

// Read returns the next frame with a payload of its own. io.EOF only between
// frames. Large payloads are grown as they arrive, so that a peer must send
// what it announces before it costs memory.
func (r *Reader) Read() (Frame, error) {
	if _, err := io.ReadFull(r.r, r.hdr[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return Frame{}, fmt.Errorf("%w: cut off in the header", ErrBad)
		}
		return Frame{}, err
	}
	h := r.hdr[:]
	if [4]byte(h[:4]) != magic {
		return Frame{}, fmt.Errorf("%w: magic %q instead of %q", ErrBad, h[:4], magic[:])
	}
	n := binary.LittleEndian.Uint32(h[4:])
	limit := r.max
	if r.bigMax > 0 && binary.LittleEndian.Uint16(h[8:]) == r.bigType {
		limit = r.bigMax
	}
	if n > limit {
		return Frame{}, fmt.Errorf("%w: payload of %d bytes, at most %d allowed here", ErrBad, n, limit)
	}
	if fl := binary.LittleEndian.Uint16(h[10:]); fl != 0 {
		return Frame{}, fmt.Errorf("%w: unknown flags %#x", ErrBad, fl)
	}
	f := Frame{Type: binary.LittleEndian.Uint16(h[8:]), ID: binary.LittleEndian.Uint64(h[12:])}
	const step = 2 << 20
	for len(f.Payload) < int(n) {
		k := min(int(n)-len(f.Payload), max(step, len(f.Payload)))
		at := len(f.Payload)
		f.Payload = append(f.Payload, make([]byte, k)...)
		if _, err := io.ReadFull(r.r, f.Payload[at:]); err != nil {
			return Frame{}, fmt.Errorf("%w: cut off in the payload: %w", ErrBad, err)
		}
	}
	sum := crc32.Update(crc32.Checksum(h[:20], table), table, f.Payload)
	if sum != binary.LittleEndian.Uint32(h[20:]) {
		return Frame{}, fmt.Errorf("%w: checksum", ErrBad)
	}
	return f, nil
}

// Writer writes frames; safe for concurrent use. Each frame is one Write of
// header and payload together when small, so that TCP_NODELAY sends one segment;
// a large one goes to TCP from where it is.
type Writer struct {
	mu  sync.Mutex
	w   io.Writer
	buf []byte
}

func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write sends one frame. Parts of the payload may be given separately.
func (w *Writer) Write(typ uint16, id uint64, parts ...[]byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	if n > MaxRedo {
		return fmt.Errorf("wire: payload of %d bytes exceeds %d", n, MaxRedo)
	}
	b := append(w.buf[:0], magic[:]...)
	b = binary.LittleEndian.AppendUint32(b, uint32(n))
	b = binary.LittleEndian.AppendUint16(b, typ)
	b = binary.LittleEndian.AppendUint16(b, 0)
	b = binary.LittleEndian.AppendUint64(b, id)
	sum := crc32.Checksum(b, table)
	for _, p := range parts {
		sum = crc32.Update(sum, table, p)
	}
	b = binary.LittleEndian.AppendUint32(b, sum)
	if c, ok := w.w.(*net.TCPConn); ok && n >= large {
		w.buf = b
		out := append(net.Buffers{b}, parts...)
		_, err := out.WriteTo(c)
		return err
	}
	for _, p := range parts {
		b = append(b, p...)
	}
	if cap(b) <= 1<<20 {
		w.buf = b
	}
	_, err := w.w.Write(b)
	return err
}
