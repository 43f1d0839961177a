package page

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestSealVerify(t *testing.T) {
	for size := MinSize; size <= MaxSize; size *= 2 {
		p := make([]byte, size)
		if lsn, err := Verify(p); lsn != 0 || err != nil {
			t.Fatalf("zero page of %d: %d, %v", size, lsn, err)
		}
		r := rand.New(rand.NewPCG(uint64(size), 0))
		for i := range p {
			p[i] = byte(r.Uint32())
		}
		Seal(p, 77, 3)
		lsn, err := Verify(p)
		if err != nil || lsn != 77 || LSN(p) != 77 || Node(p) != 3 {
			t.Fatalf("size %d: LSN %d, node %d, %v", size, lsn, Node(p), err)
		}
		for _, i := range []int{0, size / 2, size - 17, size - 16, size - 8, size - 4, size - 2, size - 1} {
			q := bytes.Clone(p)
			q[i] ^= 1
			if _, err := Verify(q); !errors.Is(err, ErrChecksum) {
				t.Errorf("size %d, byte %d flipped: %v", size, i, err)
			}
		}
		torn := append(bytes.Clone(p[:size/2]), make([]byte, size/2)...)
		if _, err := Verify(torn); err == nil {
			t.Errorf("size %d: a torn page passes", size)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, n := range []int{0, 100, 513, 131072} {
		if _, err := Verify(make([]byte, n)); !errors.Is(err, ErrSize) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	p := make([]byte, 4096)
	Seal(p, 1, 0)
	p[4094] = 2
	binary.LittleEndian.PutUint32(p[4088:], checksum(p))
	if _, err := Verify(p); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "format 2, this program knows 1") {
		t.Errorf("newer format: %v", err)
	}
}

// The header follows the SQLite file format, section 1.3 and 1.6.
func TestNewDatabase(t *testing.T) {
	for size := MinSize; size <= MaxSize; size *= 2 {
		p := NewDatabase(size)
		if _, err := Verify(p); err != nil || len(p) != size {
			t.Fatalf("size %d: %v", size, err)
		}
		be := binary.BigEndian
		wantSize := uint16(size)
		if size == 65536 {
			wantSize = 1
		}
		if !bytes.HasPrefix(p, []byte("SQLite format 3\x00")) || be.Uint16(p[16:]) != wantSize || p[20] != TrailerSize ||
			be.Uint32(p[24:]) != be.Uint32(p[92:]) || be.Uint32(p[28:]) != 1 || be.Uint32(p[44:]) != 4 || be.Uint32(p[56:]) != 1 {
			t.Errorf("size %d: header % x", size, p[:100])
		}
		if p[100] != 0x0d || be.Uint16(p[103:]) != 0 || int(be.Uint16(p[105:])) != size-TrailerSize {
			t.Errorf("size %d: b-tree header % x", size, p[100:108])
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("a page size of 1000 is accepted")
		}
	}()
	NewDatabase(1000)
}

func BenchmarkSeal(b *testing.B) {
	p := make([]byte, 4096)
	b.SetBytes(4096)
	for b.Loop() {
		Seal(p, 1, 0)
	}
}
