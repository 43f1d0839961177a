package redo

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"datawatch/internal/base"
	"datawatch/internal/storage/page"
)

var update = flag.Bool("update", false, "rewrite golden files")

// The bytes of version 1 must never change.
func TestGolden(t *testing.T) {
	old, new := make([]byte, 512), make([]byte, 512)
	copy(new[20:], "golden row")
	copy(new[200:], "pointer")
	var b Builder
	b.Begin(PTXHeader{LSN: 10, Kind: KindCommit, Node: 1, PrevNode: 2, PrevLSN: 3, TimeNs: 1553049334000000000})
	b.Diff(Addr{Tablespace: 1, File: 2, Page: 300}, old, new)
	b.Resize(1, 2, 301)
	b.Logical(LogicalOpenRecord, []byte(`{"id":1}`))
	raw := bytes.Clone(b.Finish())
	h := Header{Node: 1, NNodes: 2, PmntMagic: 0x567891, DBMagic: 0x123456, SrcDBMagic: 0x123457, GSEQ: 4, LSEQ: 5, PrevLSN: 9,
		MinLSN: 10, MaxLSN: 10, DepNode: 0, DepLSN: 8, OpenID: 6, TimeNs: 1553049334000000001, NPTX: 1}
	for name, compress := range map[string]bool{"plain": false, "s2": true} {
		p, err := NewPackage(h, raw, compress)
		if err != nil {
			t.Fatal(err)
		}
		enc, _ := p.EncodeLog(nil, LogMark{PrevSum: 0x11223344, LogID: 0x55667788, BatchSeq: 4})
		file := filepath.Join("testdata", "package-v1-"+name+".hex")
		if *update {
			os.MkdirAll("testdata", 0o755)
			if err := os.WriteFile(file, []byte(hex.Dump(enc)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !compress && hex.Dump(enc) != string(want) { // a compressor may improve; what it wrote must stay readable
			t.Errorf("%s: the format changed; a new format needs a new version:\n%s", name, hex.Dump(enc))
		}
		q, err := Decode(undump(t, want))
		if err != nil {
			t.Fatal(err)
		}
		got, err := q.Raw()
		if err != nil || !bytes.Equal(got, raw) || q.BatchSeq != 4 || q.PrevSum != 0x11223344 || q.LogID != 0x55667788 {
			t.Errorf("%s: stored package decodes to %+v, %v", name, q.Header, err)
		}
	}
}

// undump reads back what hex.Dump wrote.
func undump(t testing.TB, dump []byte) []byte {
	t.Helper()
	var out []byte
	for line := range bytes.Lines(dump) {
		if len(line) < 60 {
			continue
		}
		digits := bytes.ReplaceAll(line[10:58], []byte(" "), nil)
		b, err := hex.DecodeString(string(digits))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b...)
	}
	return out
}

func FuzzDecode(f *testing.F) {
	for _, c := range []bool{false, true} {
		enc := samplePackage(f, c, 10, 3).Encode(nil)
		f.Add(enc)
		f.Add(enc[:HeaderSize])
	}
	f.Add([]byte("DWPK"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, in := range [][]byte{b, patch(b)} {
			p, err := Decode(in)
			// A few kilobytes may say 255 MB when decompressed, which takes seconds:
			// allowed, capped, and too slow for a fuzzer, which takes it for a hang.
			if err != nil || p.RawLen > 4<<20 {
				continue
			}
			buf := make([]byte, 4096)
			for x, err := range p.PTXs() {
				if err != nil {
					break
				}
				for r, err := range x.Records() {
					if err == nil && r.Type == RecPhysical {
						_ = r.ApplyTo(buf)
					}
				}
			}
			if !allZero(buf[4096-page.TrailerSize:]) {
				t.Fatal("a trailer was written to")
			}
			enc, _ := p.EncodeLog(nil, p.LogMark)
			if !bytes.Equal(enc, in[:len(enc)]) {
				t.Fatal("a decoded package encodes to other bytes")
			}
		}
	})
}

// patch makes magic, lengths and checksums fit, so that the fuzzer gets behind them.
func patch(b []byte) []byte {
	if len(b) < HeaderSize {
		return b
	}
	b = bytes.Clone(b)
	copy(b, pkgMagic[:])
	le := binary.LittleEndian
	le.PutUint16(b[4:], Version)
	le.PutUint16(b[6:], HeaderSize)
	le.PutUint32(b[112:], uint32(len(b)-HeaderSize))
	return reseal(b)
}

func allZero(b []byte) bool { return bytes.Count(b, []byte{0}) == len(b) }

// FuzzDiff checks that old page plus differences is new page.
func FuzzDiff(f *testing.F) {
	f.Add([]byte("abcdefgh"), []byte("abcdefgx"), 0)
	f.Add([]byte{}, bytes.Repeat([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0}, 20), 300)
	f.Fuzz(func(t *testing.T, a, b []byte, at int) {
		old, new := make([]byte, 1024), make([]byte, 1024)
		at = max(0, min(at, 1000))
		copy(old[at:], a)
		copy(new[at:], b)
		var bl Builder
		bl.Begin(PTXHeader{LSN: 1, Kind: KindCommit})
		bl.Diff(Addr{Page: 1}, old, new)
		for r, err := range decodePTX(t, bl.Finish()).Records() {
			if err != nil {
				t.Fatal(err)
			}
			if err := r.ApplyTo(old); err != nil {
				t.Fatal(err)
			}
		}
		if n := 1024 - page.TrailerSize; !bytes.Equal(old[:n], new[:n]) {
			t.Fatal("not the new page")
		}
	})
}

func BenchmarkDiff(b *testing.B) {
	for _, bb := range []struct {
		name    string
		changed int
	}{{"equal", 0}, {"few bytes", 3}, {"scattered", 100}} {
		b.Run(bb.name, func(b *testing.B) {
			old := samplePage(1)
			new := bytes.Clone(old)
			r := rand.New(rand.NewPCG(1, 1))
			for range bb.changed {
				new[r.IntN(ps-page.TrailerSize)]++
			}
			var bl Builder
			b.SetBytes(ps)
			b.ReportAllocs()
			for b.Loop() {
				bl.Begin(PTXHeader{LSN: 1, Kind: KindCommit})
				bl.Diff(Addr{Page: 1}, old, new)
			}
			b.ReportMetric(float64(bl.Len()-PTXHeaderSize), "redo-bytes")
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	raw := bytes.Repeat([]byte("some redo "), 2000)
	h := Header{MinLSN: 1, MaxLSN: 100, NPTX: 100, PrevLSN: base.LSN(0)}
	for _, c := range []struct {
		name     string
		compress bool
	}{{"plain", false}, {"s2", true}} {
		b.Run(c.name, func(b *testing.B) {
			var buf []byte
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				p, err := NewPackage(h, raw, c.compress)
				if err != nil {
					b.Fatal(err)
				}
				buf = p.Encode(buf[:0])
			}
		})
	}
}
