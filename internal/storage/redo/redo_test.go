package redo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"datawatch/internal/base"
	"datawatch/internal/storage/page"

	"pgregory.net/rapid"
)

const ps = 4096

// samplePage makes a page with some content.
func samplePage(seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	p := make([]byte, ps)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

func TestDiffRanges(t *testing.T) {
	limit := ps - page.TrailerSize
	tests := []struct {
		name   string
		change []int // offsets to change
		ranges [][2]int
	}{
		{"nothing", nil, nil},
		{"first byte", []int{0}, [][2]int{{0, 1}}},
		{"last byte before the trailer", []int{limit - 1}, [][2]int{{limit - 1, 1}}},
		{"trailer only", []int{limit, ps - 1}, nil},
		{"gap of 7 merges", []int{100, 108}, [][2]int{{100, 9}}},
		{"gap of 8 does not", []int{100, 109}, [][2]int{{100, 1}, {109, 1}}},
		{"across words", []int{6, 7, 8, 9, 15, 16}, [][2]int{{6, 11}}},
		{"far apart", []int{1, 500, 4000}, [][2]int{{1, 1}, {500, 1}, {4000, 1}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			old := samplePage(1)
			new := bytes.Clone(old)
			for _, i := range tt.change {
				new[i]++
			}
			var b Builder
			b.Begin(PTXHeader{LSN: 1, Kind: KindCommit})
			n := b.Diff(Addr{Page: 7}, old, new)
			if (n == 0) != (tt.ranges == nil) {
				t.Fatalf("Diff added %d bytes", n)
			}
			var got [][2]int
			for r, err := range decodePTX(t, b.Finish()).Records() {
				if err != nil {
					t.Fatal(err)
				}
				if r.Addr.Page != 7 {
					t.Errorf("address %v", r.Addr)
				}
				if err := r.EachRange(func(off int, d []byte) { got = append(got, [2]int{off, len(d)}) }); err != nil {
					t.Fatal(err)
				}
			}
			if len(got) != len(tt.ranges) {
				t.Fatalf("ranges %v, want %v", got, tt.ranges)
			}
			for i := range got {
				if got[i] != tt.ranges[i] {
					t.Fatalf("ranges %v, want %v", got, tt.ranges)
				}
			}
		})
	}
}

func decodePTX(t testing.TB, b []byte) PTX {
	t.Helper()
	var p PTX
	if err := p.unmarshal(b); err != nil {
		t.Fatal(err)
	}
	if int(p.Len) != len(b)-PTXHeaderSize {
		t.Fatalf("PTX length %d in %d bytes", p.Len, len(b))
	}
	p.Body = b[PTXHeaderSize:]
	return p
}

// Property: applying the differences to the old page gives the new one, for
// every page size, and no two ranges are closer than mergeGap.
func TestDiffApplyProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.SampledFrom([]int{512, 1024, 4096, 65536}).Draw(t, "size")
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 2))
		old := make([]byte, size)
		for i := range old {
			old[i] = byte(r.IntN(3))
		}
		new := bytes.Clone(old)
		for range rapid.IntRange(0, 20).Draw(t, "edits") {
			at, n := r.IntN(size), r.IntN(1+r.IntN(200))
			for i := at; i < min(at+n, size); i++ {
				new[i] = byte(r.IntN(3))
			}
		}
		from := old
		if rapid.Bool().Draw(t, "from zero") {
			from, old = nil, make([]byte, size)
		}
		var b Builder
		b.Begin(PTXHeader{LSN: 9, Kind: KindCommit})
		added := b.Diff(Addr{Tablespace: 300, File: 2, Page: 1 << 30}, from, new)
		var p PTX
		if err := p.unmarshal(b.Finish()); err != nil {
			t.Fatal(err)
		}
		p.Body = b.Finish()[PTXHeaderSize:]
		if added != len(p.Body) {
			t.Fatalf("Diff said %d bytes, %d are there", added, len(p.Body))
		}
		got := bytes.Clone(old)
		for rec, err := range p.Records() {
			if err != nil {
				t.Fatal(err)
			}
			if err := rec.ApplyTo(got); err != nil {
				t.Fatal(err)
			}
			end := -mergeGap
			_ = rec.EachRange(func(off int, d []byte) {
				if off-end < mergeGap {
					t.Fatalf("range at %d follows one that ends at %d", off, end)
				}
				if d[0] == old[off] || d[len(d)-1] == old[off+len(d)-1] {
					t.Fatalf("range %d+%d logs equal bytes at its ends", off, len(d))
				}
				end = off + len(d)
			})
		}
		limit := size - page.TrailerSize
		if !bytes.Equal(got[:limit], new[:limit]) {
			t.Fatal("applied page differs from the new one")
		}
		if !bytes.Equal(got[limit:], old[limit:]) {
			t.Fatal("the trailer was touched")
		}
	})
}

// samplePTX appends a PTX with every type of record.
func samplePTX(raw []byte, lsn base.LSN) []byte {
	var b Builder
	b.Begin(PTXHeader{LSN: lsn, Kind: KindCommit, TimeNs: int64(lsn) * 1000})
	old := samplePage(uint64(lsn))
	new := bytes.Clone(old)
	copy(new[100:], "a row of text that was not there before")
	copy(new[3000:], "and its pointer")
	b.Diff(Addr{Page: uint32(lsn)}, old, new)
	b.Resize(0, 0, uint32(lsn)+10)
	b.Logical(LogicalOpenRecord, []byte(`{"id":1}`))
	return append(raw, b.Finish()...)
}

func samplePackage(t testing.TB, compress bool, lsn base.LSN, n int) *Package {
	t.Helper()
	var raw []byte
	for i := range n {
		raw = samplePTX(raw, lsn+base.LSN(i))
	}
	p, err := NewPackage(Header{
		PmntMagic: 0x567891, DBMagic: 0x123456, SrcDBMagic: 0x123456, GSEQ: 40, LSEQ: 50, PrevLSN: lsn - 1,
		MinLSN: lsn, MaxLSN: lsn + base.LSN(n) - 1, OpenID: 3, TimeNs: 1553049334000000000, NPTX: uint32(n),
	}, raw, compress)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPackageRoundTrip(t *testing.T) {
	for _, tt := range []struct {
		name     string
		compress bool
		n        int
	}{{"one", false, 1}, {"many", false, 100}, {"compressed", true, 100}, {"compressed blocks", true, 20000}, {"too small to compress", true, 1}} {
		t.Run(tt.name, func(t *testing.T) {
			p := samplePackage(t, tt.compress, 10, tt.n)
			enc := p.Encode([]byte("before"))[6:]
			if len(enc) != p.EncodedLen() {
				t.Fatalf("EncodedLen %d, encoded %d", p.EncodedLen(), len(enc))
			}
			q, err := Decode(append(enc, "after"...))
			if err != nil {
				t.Fatal(err)
			}
			h := q.Header
			h.Checksum = 0
			if h != p.Header || !p.SameRedo(q) {
				t.Fatalf("decoded %+v\nencoded %+v", h, p.Header)
			}
			if tt.n > 1 && tt.compress != (q.Flags&FlagS2 != 0) {
				t.Errorf("flags %#x", q.Flags)
			}
			want, n := base.LSN(10), 0
			for x, err := range q.PTXs() {
				if err != nil {
					t.Fatal(err)
				}
				if x.LSN != want {
					t.Fatalf("LSN %d, want %d", x.LSN, want)
				}
				for _, err := range x.Records() {
					if err != nil {
						t.Fatal(err)
					}
					n++
				}
				want++
			}
			if n != 3*tt.n {
				t.Errorf("%d records, want %d", n, 3*tt.n)
			}
		})
	}
}

func TestWithStore(t *testing.T) {
	p := samplePackage(t, true, 10, 50)
	q := p.WithStore(0x777, 5)
	if q.DBMagic != 0x777 || q.LSEQ != 5 || p.LSEQ != 50 || q.SrcDBMagic != p.SrcDBMagic {
		t.Fatalf("WithStore: %+v", q.Header)
	}
	if !p.SameRedo(q) {
		t.Error("the same redo stored elsewhere is not recognised")
	}
	plain := samplePackage(t, false, 10, 50)
	if !p.SameRedo(plain) {
		t.Error("the same redo uncompressed is not recognised")
	}
	for name, change := range map[string]func(*Package){
		"gseq": func(p *Package) { p.GSEQ++ }, "lineage": func(p *Package) { p.OpenID++ },
		"lsn": func(p *Package) { p.PrevLSN-- }, "data": func(p *Package) { p.Data = bytes.Clone(p.Data); p.Data[40]++ },
	} {
		r := *plain
		change(&r)
		if p.SameRedo(&r) || plain.SameRedo(&r) {
			t.Errorf("SameRedo does not see a different %s", name)
		}
	}
}

func TestEveryFlippedByteIsFound(t *testing.T) {
	enc := samplePackage(t, true, 10, 5).Encode(nil)
	for i := range enc {
		bad := bytes.Clone(enc)
		bad[i] ^= 0x10
		if _, err := Decode(bad); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("byte %d flipped: %v", i, err)
		}
	}
	for n := range enc {
		if _, err := Decode(enc[:n]); !errors.Is(err, ErrShort) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
}

// reseal makes the checksums of an encoded package right again after a change.
func reseal(b []byte) []byte {
	le := binary.LittleEndian
	le.PutUint32(b[offHeaderSum:], headerSum(b))
	le.PutUint32(b[offSum:], checksum(b))
	return b
}

func TestRefusals(t *testing.T) {
	le := binary.LittleEndian
	tests := []struct {
		name   string
		change func(b []byte)
		want   error
		text   string
	}{
		{"newer version", func(b []byte) { le.PutUint16(b[4:], Version+1) }, ErrVersion, "version 2, this program knows 1"},
		{"unknown flag", func(b []byte) { le.PutUint16(b[8:], 0x8000) }, ErrVersion, "flags"},
		{"huge data length", func(b []byte) { le.PutUint32(b[112:], 1<<31) }, ErrCorrupt, "bytes"},
		{"huge raw length", func(b []byte) { le.PutUint32(b[108:], 1<<31) }, ErrCorrupt, "bytes"},
		{"no PTX", func(b []byte) { le.PutUint32(b[28:], 0) }, ErrCorrupt, "0 PTX"},
		{"LSNs backwards", func(b []byte) { le.PutUint64(b[64:], 1) }, ErrCorrupt, "out of order"},
		{"node out of range", func(b []byte) { le.PutUint16(b[10:], 4) }, ErrCorrupt, "node 4"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := samplePackage(t, false, 10, 5).Encode(nil)
			tt.change(b)
			_, err := Decode(reseal(b))
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("error %v, want %v with %q", err, tt.want, tt.text)
			}
		})
	}
	if _, err := NewPackage(Header{MinLSN: 1, MaxLSN: 1, NPTX: 1}, make([]byte, MaxRaw+1), false); !errors.Is(err, ErrTooLarge) {
		t.Errorf("oversized package: %v", err)
	}
}

func TestBadPTXInGoodPackage(t *testing.T) {
	good := samplePackage(t, false, 10, 2)
	first := good.Data[:len(good.Data)/2]
	tests := []struct {
		name string
		data []byte
	}{
		{"second missing", first},
		{"same twice", append(bytes.Clone(first), first...)},
		{"kind unknown", func() []byte { d := bytes.Clone(good.Data); d[32] = 2; return d }()},
		{"length beyond", func() []byte { d := bytes.Clone(good.Data); d[24] = 0xff; d[25] = 0xff; return d }()},
		{"record type", func() []byte { d := bytes.Clone(good.Data); d[PTXHeaderSize] = 77; return d }()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := *good
			p.Data = tt.data
			var failed error
			for x, err := range p.PTXs() {
				if failed = err; err != nil {
					break
				}
				for _, err := range x.Records() {
					if err != nil {
						failed = err
					}
				}
				if failed != nil {
					break
				}
			}
			if !errors.Is(failed, ErrCorrupt) && !errors.Is(failed, ErrVersion) {
				t.Fatalf("decoded without a complaint: %v", failed)
			}
		})
	}
}

func TestApplyIsBounded(t *testing.T) {
	b := []byte{byte(RecPhysical), 0, 0, 1, 6}
	b = binary.AppendUvarint(b, ps-page.TrailerSize-1) // the last byte that may change ...
	b = append(b, 3, 1, 2, 3)                          // ... and two beyond
	r, n, err := decodeRecord(append(b, 9))
	if err == nil && n == len(b) {
		err = r.ApplyTo(make([]byte, ps))
	}
	if !errors.Is(err, ErrCorrupt) {
		t.Fatalf("range into the trailer: %v", err)
	}
}
