package twin

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"datawatch/internal/vfs"
)

var kind = Kind{Magic: [8]byte{'T', 'E', 'S', 'T'}, Version: 3}

func newFile(t *testing.T) (*vfs.Mem, vfs.File) {
	m := vfs.NewMem()
	f, err := m.Create("/f", true)
	if err == nil {
		err = m.SyncDir("/")
	}
	if err != nil {
		t.Fatal(err)
	}
	return m, f
}

func save(t *testing.T, h *Header, f vfs.File, payload string) {
	t.Helper()
	if err := errors.Join(h.Write(f, []byte(payload)), f.Sync()); err != nil {
		t.Fatal(err)
	}
	h.Done()
}

func TestPowerCut(t *testing.T) {
	m, f := newFile(t)
	h := New(kind)
	save(t, h, f, "version 0")
	last := 0
	m.SetHook(func(op vfs.Op) error {
		for seed := range uint64(20) {
			c := m.CrashClone(rand.New(rand.NewPCG(seed, 1)))
			g, err := c.Open("/f")
			if err != nil {
				t.Fatal(err)
			}
			_, p, err := Read(g, kind)
			if err != nil || string(p) != string(rune('a'+last)) && string(p) != string(rune('a'+last+1)) && last > 0 {
				t.Fatalf("after %d: %q, %v", last, p, err)
			}
		}
		return nil
	})
	for last = range 10 {
		save(t, h, f, string(rune('a'+last+1)))
	}
}

func TestRefusals(t *testing.T) {
	_, f := newFile(t)
	for name, tt := range map[string]struct {
		at   int64
		b    []byte
		want error
	}{
		"newer":       {0, nil, ErrVersion},
		"foreign":     {0, []byte("something else"), ErrForeign},
		"second copy": {4096 + 30, []byte{9}, nil},
		"first copy":  {30, []byte{9}, nil},
		"empty":       {0, make([]byte, Size), ErrDamaged},
		"garbage":     {0, bytes.Repeat([]byte{7}, 100), ErrForeign},
	} {
		k := kind
		if name == "newer" {
			k.Version++
		}
		save(t, New(k), f, "x")
		if tt.b != nil {
			f.WriteAt(tt.b, tt.at)
			if tt.want == ErrForeign {
				f.WriteAt(tt.b, tt.at+4096)
			}
		}
		_, p, err := Read(f, kind)
		if !errors.Is(err, tt.want) || tt.want == nil && string(p) != "x" {
			t.Errorf("%s: %q, %v", name, p, err)
		}
	}
	if err := New(kind).Write(f, make([]byte, MaxPayload+1)); err == nil {
		t.Error("a payload that does not fit is written")
	}
	f.Truncate(100)
	if _, _, err := Read(f, kind); !errors.Is(err, ErrDamaged) {
		t.Errorf("cut short: %v", err)
	}
}

// A write that was not confirmed does not cost the copy that is known to be good.
func TestUnconfirmedWritesTakeOnePlace(t *testing.T) {
	_, f := newFile(t)
	h := New(kind)
	save(t, h, f, "good")
	for range 3 {
		if err := h.Write(f, []byte("doubtful")); err != nil {
			t.Fatal(err)
		}
	}
	f.WriteAt([]byte{1, 2, 3}, 40) // the place of the third generation
	if _, p, err := Read(f, kind); err != nil || string(p) != "good" {
		t.Fatalf("%q, %v", p, err)
	}
}

// TestRewrite: what Rewrite writes is what is there, byte by byte, also of an older
// version, so that a power failure while it does leaves no other header.
func TestRewrite(t *testing.T) {
	_, f := newFile(t)
	h := New(kind)
	for _, p := range []string{"one", "two", "three"} {
		save(t, h, f, p)
	}
	var before, after [Size]byte
	f.ReadAt(before[:], 0)
	newer := kind
	newer.Version++
	h, payload, err := Read(f, newer)
	if err != nil || string(payload) != "three" {
		t.Fatalf("%q, %v", payload, err)
	}
	if err := errors.Join(h.Rewrite(f), f.Sync()); err != nil {
		t.Fatal(err)
	}
	if f.ReadAt(after[:], 0); after != before {
		t.Error("the header was changed")
	}
	save(t, h, f, "four")
	if _, payload, err := Read(f, newer); err != nil || string(payload) != "four" {
		t.Errorf("%q, %v", payload, err)
	}
}
