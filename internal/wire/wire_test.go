package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
)

func frame(t testing.TB, typ uint16, id uint64, payload []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := NewWriter(&b).Write(typ, id, payload[:len(payload)/2], payload[len(payload)/2:]); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestDamage: a frame with any bit changed, or cut anywhere, is refused.
func TestDamage(t *testing.T) {
	whole := frame(t, 7, 9, []byte("payload"))
	f, err := NewReader(bytes.NewReader(whole), 100).Read()
	if err != nil || f.Type != 7 || f.ID != 9 || string(f.Payload) != "payload" {
		t.Fatalf("%+v %v", f, err)
	}
	for i := range whole {
		for bit := range 8 {
			b := bytes.Clone(whole)
			b[i] ^= 1 << bit
			if _, err := NewReader(bytes.NewReader(b), 100).Read(); !errors.Is(err, ErrBad) {
				t.Errorf("byte %d, bit %d: %v", i, bit, err)
			}
		}
		if _, err := NewReader(bytes.NewReader(whole[:i]), 100).Read(); i > 0 && !errors.Is(err, ErrBad) || i == 0 && err != io.EOF {
			t.Errorf("cut after %d bytes: %v", i, err)
		}
	}
}

// TestAnnounced: a length costs memory only as the bytes arrive (G8).
func TestAnnounced(t *testing.T) {
	b := frame(t, 1, 0, nil)
	binary.LittleEndian.PutUint32(b[4:], MaxRedo)
	if _, err := NewReader(bytes.NewReader(b), MaxRedo-1).Read(); !errors.Is(err, ErrBad) {
		t.Errorf("above the cap: %v", err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := NewReader(bytes.NewReader(b), MaxRedo).Read(); !errors.Is(err, ErrBad) {
		t.Errorf("announced and not sent: %v", err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 8<<20 {
		t.Errorf("%d bytes for a frame that never came", n)
	}
}

// TestLargeOverTCP: a large payload in parts arrives as a small one does, and the
// next frame behind it.
func TestLargeOverTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	payload := make([]byte, 5<<20+3)
	for i := range payload {
		payload[i] = byte(i * 7 >> 3)
	}
	sizes := []int{large - 1, large, len(payload), 10}
	errs := make(chan error, 1)
	go func() {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			errs <- err
			return
		}
		defer c.Close()
		w := NewWriter(c)
		for i, n := range sizes {
			if err := w.Write(7, uint64(i), payload[:n/3], nil, payload[n/3:n]); err != nil {
				errs <- err
				return
			}
		}
		errs <- nil
	}()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := NewReader(c, MaxRedo)
	for i, n := range sizes {
		f, err := r.Read()
		if err != nil || f.Type != 7 || f.ID != uint64(i) || !bytes.Equal(f.Payload, payload[:n]) {
			t.Fatalf("frame %d: type %d, id %d, %d bytes of %d, %v", i, f.Type, f.ID, len(f.Payload), n, err)
		}
	}
	if err := <-errs; err != nil {
		t.Error(err)
	}
}

// FuzzRead: whatever arrives, Read returns valid frames or ErrBad, none longer
// than allowed; what it accepts is written again as it was.
func FuzzRead(f *testing.F) {
	f.Add(frame(f, 1, 2, []byte(`{"a":1}`)))
	f.Add(append(frame(f, 1, 2, nil), frame(f, 3, 4, make([]byte, 100))...))
	f.Add([]byte("DWF1\xff\xff\xff\xff"))
	f.Add(frame(f, 5, 0, make([]byte, 5000)))
	f.Fuzz(func(t *testing.T, in []byte) {
		const limit, big = 1000, 4000
		r := NewReader(bytes.NewReader(in), limit)
		r.SetMaxFor(5, big)
		for at := 0; ; {
			fr, err := r.Read()
			if err != nil {
				if err != io.EOF && !errors.Is(err, ErrBad) || err == io.EOF && at != len(in) {
					t.Fatalf("at %d of %d: %v", at, len(in), err)
				}
				return
			}
			if n := len(fr.Payload); n > big || n > limit && fr.Type != 5 {
				t.Fatalf("payload of %d bytes", n)
			}
			again := frame(t, fr.Type, fr.ID, fr.Payload)
			if !bytes.Equal(again, in[at:at+len(again)]) {
				t.Fatalf("written again: %x, was %x", again, in[at:at+len(again)])
			}
			at += len(again)
		}
	})
}
