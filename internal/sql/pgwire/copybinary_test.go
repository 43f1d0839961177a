package pgwire

import (
	"bytes"
	"strings"
	"testing"
)

// binaryRows is COPY data in binary format; a nil field is NULL.
func binaryRows(rows ...[][]byte) []byte {
	b := append([]byte(copySignature), 0, 0, 0, 0, 0, 0, 0, 0)
	for _, r := range rows {
		b = append(b, 0, byte(len(r)))
		for _, f := range r {
			if f == nil {
				b = append(b, 0xff, 0xff, 0xff, 0xff)
				continue
			}
			b = append(b, 0, 0, byte(len(f)>>8), byte(len(f)))
			b = append(b, f...)
		}
	}
	return append(b, 0xff, 0xff)
}

// TestCopyBinary: what is copied in comes out again the same, in pieces of any
// size; damaged data is refused.
func TestCopyBinary(t *testing.T) {
	b, c := copyServer(t)
	long := []byte(strings.Repeat("x", 60_000))
	good := binaryRows([][]byte{{0, 0, 0, 7}, []byte("a\tb")}, [][]byte{{0xff, 0xff, 0xff, 0xff}, nil}, [][]byte{{0, 0, 0, 1}, long}, [][]byte{nil, {}})
	if _, err := c.CopyFrom(t.Context(), &oneByte{good[:200], good[200:]}, "copyin binary"); err != nil {
		t.Fatal(err)
	}
	if len(b.rows) != 4 || b.rows[0][0].Int != 7 || string(b.rows[0][1].Bytes) != "a\tb" || b.rows[1][0].Int != -1 || len(b.rows[2][1].Bytes) != 60_000 {
		t.Fatalf("%d rows: %.200v", len(b.rows), b.rows)
	}
	if _, err := c.CopyFrom(t.Context(), bytes.NewReader(good[:len(good)-2]), "copyin binary"); err != nil || len(b.rows) != 4 {
		t.Fatalf("without the end: %v, %d rows", err, len(b.rows))
	}
	var out bytes.Buffer
	if _, err := c.CopyTo(t.Context(), &out, "copyout binary"); err != nil || !bytes.Equal(out.Bytes(), good) {
		t.Errorf("%v: %d bytes, want %d", err, out.Len(), len(good))
	}
	change := func(at int, v byte) []byte { d := bytes.Clone(good); d[at] = v; return d }
	for name, x := range map[string]struct {
		data []byte
		code string
	}{
		"no signature": {[]byte("1\tabcdefghijklmnopqrstuvwxyz\n"), "22P04"}, "flags": {change(12, 1), "0A000"}, "critical flags": {change(11, 1), "22P04"}, "long extension": {change(15, 1), "22P04"},
		"field count": {change(20, 3), "22P04"}, "field size": {change(21, 0x80), "22P04"}, "long field": {change(29, 0x7f), "54000"}, "wrong size": {binaryRows([][]byte{{1, 2, 3}, nil}), "22P03"},
		"cut": {good[:30], "22P04"}, "after the end": {append(bytes.Clone(good), 1), "22P04"}, "empty": {nil, "22P04"}, "not UTF-8": {change(35, 0xff), "22021"},
	} {
		_, err := c.CopyFrom(t.Context(), bytes.NewReader(x.data), "copyin binary")
		if code(err) != x.code {
			t.Errorf("%s: %v, want %s", name, err, x.code)
		}
		if _, err := c.Exec(t.Context(), "insert").ReadAll(); err != nil {
			t.Fatalf("after %s: %v", name, err)
		}
	}
}

// oneByte reads its first part byte by byte.
type oneByte struct{ slow, rest []byte }

func (o *oneByte) Read(p []byte) (int, error) {
	if len(o.slow) > 0 {
		p[0], o.slow = o.slow[0], o.slow[1:]
		return 1, nil
	}
	r := bytes.NewReader(o.rest)
	n, err := r.Read(p)
	o.rest = o.rest[n:]
	return n, err
}
