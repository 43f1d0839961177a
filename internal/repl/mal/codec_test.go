package mal

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"strings"
	"testing"

	"datawatch/internal/base"
)

func sampleHello() *hello {
	return &hello{Inst: "DM01", To: "DM02", Compress: 3, Identity: Identity{PmntMagic: 0x567891, OGUID: 453331, Mode: base.ModePrimary,
		Status: base.StatusOpen, Lineage: base.Lineage{{ID: 1, TGUID: strings.Repeat("a", 32), CurInst: "DM01", Apply: []base.Position{{Seq: 1, LSN: 2}}}}}}
}

func TestHelloRoundTrip(t *testing.T) {
	b, err := appendHello(nil, sampleHello())
	if err != nil {
		t.Fatal(err)
	}
	h, err := decodeHello(b)
	if err != nil || !reflect.DeepEqual(h, sampleHello()) {
		t.Fatalf("%+v, %v", h, err)
	}
}

func TestHelloWithFullLineageFits(t *testing.T) {
	h := sampleHello()
	for range base.MaxOpenRecords {
		r := h.Identity.Lineage[0]
		r.ID, r.CurInst = 1<<63, strings.Repeat("N", 16)
		r.Apply = []base.Position{{Seq: 1<<64 - 1, LSN: 1<<64 - 1}}
		h.Identity.Lineage = h.Identity.Lineage.Append(r)
	}
	if _, err := appendHello(nil, h); err != nil {
		t.Fatal(err)
	}
}

func TestHelloRefusals(t *testing.T) {
	good, _ := appendHello(nil, sampleHello())
	other := append([]byte(nil), good...)
	binary.LittleEndian.PutUint16(other, Version+1)
	long := sampleHello()
	long.Inst = strings.Repeat("x", maxInstName+1)
	longB, _ := appendHello(nil, long)
	for name, c := range map[string]struct {
		b    []byte
		code base.Code
	}{
		"empty":   {nil, CodeMessage},
		"version": {other, CodeVersion},
		"no json": {good[:4], CodeMessage},
		"cut":     {good[:len(good)-1], CodeMessage},
		"no name": {[]byte("\x01\x00\x00\x00{}"), CodeMessage},
		"long":    {longB, CodeMessage},
	} {
		if _, err := decodeHello(c.b); base.CodeOf(err, 0) != c.code {
			t.Errorf("%s: %v, want code %d", name, err, c.code)
		}
	}
}

func TestRedoRoundTrip(t *testing.T) {
	h := RedoHeader{Kind: KindRecover, Claim: base.ArchInvalid, Count: 2, OpenID: 7, OpenGUID: strings.Repeat("g", 32), Hardened: base.Position{Seq: 8, LSN: 9}}
	b := h.Append(nil)
	if len(b) != RedoHeaderSize {
		t.Fatalf("header of %d bytes", len(b))
	}
	for _, p := range []string{"one", "second"} {
		b = PackageLen(b, len(p))
		b = append(b, p...)
	}
	got, pkgs, err := DecodeRedo(b)
	if err != nil || got != h || len(pkgs) != 2 || string(pkgs[0]) != "one" || string(pkgs[1]) != "second" {
		t.Fatalf("%+v %q %v", got, pkgs, err)
	}
	a := Ack{Stand: base.Position{Seq: 1, LSN: 2}, Keep: base.Position{Seq: 3, LSN: 4}}
	if g, err := DecodeAck(a.Append(nil)); err != nil || g != a {
		t.Fatalf("%v %v", g, err)
	}
	n := Hardened{Pos: base.Position{Seq: 5, LSN: 6}, OpenID: 7}
	if g, err := DecodeHardened(n.Append(nil)); err != nil || g != n {
		t.Fatalf("%v %v", g, err)
	}
}

func TestRedoRefusals(t *testing.T) {
	h := RedoHeader{Kind: KindRealtime, Claim: base.ArchValid, Count: 1, OpenID: 1, OpenGUID: "g"}
	good := append(PackageLen(h.Append(nil), 3), "abc"...)
	change := func(f func(b []byte)) []byte {
		b := append([]byte(nil), good...)
		f(b)
		return b
	}
	for name, b := range map[string][]byte{
		"empty":          nil,
		"cut header":     good[:RedoHeaderSize-1],
		"kind 0":         change(func(b []byte) { b[0] = 0 }),
		"kind 4":         change(func(b []byte) { b[0] = 4 }),
		"flags":          change(func(b []byte) { b[1] = 2 }),
		"claim":          change(func(b []byte) { b[2] = 9 }),
		"reserved":       change(func(b []byte) { b[70] = 1 }),
		"no packages":    change(func(b []byte) { b[4] = 0 }),
		"two realtime":   change(func(b []byte) { b[4] = 2 }),
		"many":           change(func(b []byte) { b[0], b[4], b[5] = 3, 0xff, 0xff }),
		"no open record": change(func(b []byte) { b[8] = 0 }),
		"no guid":        change(func(b []byte) { b[16] = 0 }),
		"cut package":    good[:len(good)-1],
		"more":           append(append([]byte(nil), good...), 0),
		"huge length":    change(func(b []byte) { binary.LittleEndian.PutUint32(b[RedoHeaderSize:], 1<<32-1) }),
	} {
		if _, _, err := DecodeRedo(b); base.CodeOf(err, 0) != CodeMessage {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := DecodeRedo(good); err != nil {
		t.Fatal(err)
	}
}

func TestOGUIDRules(t *testing.T) {
	type id = Identity
	mk := func(o uint32, m base.Mode, s base.Status) id { return id{OGUID: o, Mode: m, Status: s} }
	for _, c := range []struct {
		name string
		a, b id
		code base.Code
	}{
		{"equal", mk(5, base.ModePrimary, base.StatusOpen), mk(5, base.ModeStandby, base.StatusOpen), 0},
		{"different", mk(5, base.ModePrimary, base.StatusOpen), mk(6, base.ModeStandby, base.StatusMount), CodeOGUID},
		{"both unset", mk(0, base.ModeNormal, base.StatusOpen), mk(0, base.ModeNormal, base.StatusOpen), 0},
		{"peer mounted, unset", mk(5, base.ModePrimary, base.StatusMount), mk(0, base.ModeNormal, base.StatusMount), 0},
		{"we mounted, unset", mk(0, base.ModeNormal, base.StatusMount), mk(5, base.ModePrimary, base.StatusOpen), 0},
		{"standby open, unset", mk(5, base.ModePrimary, base.StatusOpen), mk(0, base.ModeStandby, base.StatusOpen), CodeOGUID},
		{"we open, unset", mk(0, base.ModeStandby, base.StatusOpen), mk(5, base.ModePrimary, base.StatusOpen), CodeOGUID},
	} {
		if got := base.CodeOf(check(c.a, c.b, "X"), 0); got != c.code {
			t.Errorf("%s: %d, want %d", c.name, got, c.code)
		}
	}
	if got := base.CodeOf(check(id{PmntMagic: 1}, id{PmntMagic: 2}, "X"), 0); got != CodePmntMagic {
		t.Errorf("magic: %d", got)
	}
}

func FuzzHello(f *testing.F) {
	b, _ := appendHello(nil, sampleHello())
	f.Add(b)
	f.Add([]byte("\x01\x00\x00\x00{\"inst\":\"A\"}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHello(b)
		if err != nil {
			return
		}
		c, err := appendHello(nil, h)
		if err != nil {
			return
		}
		if _, err := decodeHello(c); err != nil {
			t.Fatalf("own encoding refused: %v", err)
		}
	})
}

func FuzzRedo(f *testing.F) {
	h := RedoHeader{Kind: KindRecover, Claim: base.ArchInvalid, Count: 2, OpenID: 7, OpenGUID: "guid"}
	b := append(PackageLen(h.Append(nil), 1), 'x')
	f.Add(append(PackageLen(b, 2), "yz"...))
	f.Add(h.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, pkgs, err := DecodeRedo(b)
		if err != nil {
			return
		}
		c := h.Append(nil)
		for _, p := range pkgs {
			c = append(PackageLen(c, len(p)), p...)
		}
		// Bytes behind the end of the name are the only freedom.
		if !bytes.Equal(c[:16], b[:16]) || !bytes.Equal(c[48:], b[48:]) {
			t.Fatalf("does not round-trip:\n%x\n%x", b, c)
		}
		DecodeAck(b)
		DecodeHardened(b)
		_ = decodeError(b)
	})
}

func TestRejoinMessages(t *testing.T) {
	for _, r := range []RejoinRequest{
		{Op: RejoinBegin, Body: []byte("{}")},
		{Op: RejoinPackages, Token: 7, From: 5, Count: MaxDigests},
		{Op: RejoinPages, Token: 1 << 60, Pages: []uint32{1, 2, 1<<32 - 1}},
		{Op: RejoinEnd, Token: 3},
	} {
		got, err := DecodeRejoin(r.Append(nil))
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%+v came back as %+v, %v", r, got, err)
		}
	}
	pages := RejoinRequest{Op: RejoinPages, Pages: []uint32{4, 5}}.Append(nil)
	change := func(at int, v byte) []byte {
		b := append([]byte(nil), pages...)
		b[at] = v
		return b
	}
	for name, c := range map[string]struct {
		b    []byte
		code base.Code
	}{
		"empty":             {nil, CodeMessage},
		"cut":               {pages[:RejoinHeaderSize-1], CodeMessage},
		"newer":             {change(0, RejoinVersion+1), CodeRejoin},
		"unknown":           {change(1, 9), CodeMessage},
		"reserved":          {change(2, 1), CodeMessage},
		"fewer pages":       {change(12, 3), CodeMessage},
		"many pages":        {change(15, 200), CodeMessage},
		"page 0":            {change(16, 0), CodeMessage},
		"pages fall":        {change(16, 6), CodeMessage},
		"no body":           {pages[:RejoinHeaderSize], CodeMessage},
		"too many packages": {RejoinRequest{Op: RejoinPackages, From: 1, Count: MaxDigests + 1}.Append(nil), CodeMessage},
		"no package":        {RejoinRequest{Op: RejoinPackages, From: 1}.Append(nil), CodeMessage},
		"from nowhere":      {RejoinRequest{Op: RejoinPackages, Count: 1}.Append(nil), CodeMessage},
		"end with a body":   {append(RejoinRequest{Op: RejoinEnd}.Append(nil), 1), CodeMessage},
	} {
		if _, err := DecodeRejoin(c.b); base.CodeOf(err, 0) != c.code {
			t.Errorf("%s: %v, want code %d", name, err, c.code)
		}
	}
	d := Digest{GSEQ: 1, PrevLSN: 2, MinLSN: 3, MaxLSN: 4, OpenID: 5, SrcDBMagic: 6, NPTX: 7, RawLen: 8, Sum: [32]byte{9, 31: 10}}
	if got, err := DecodeDigests(AppendDigest(AppendDigest(nil, d), d)); err != nil || len(got) != 2 || got[1] != d {
		t.Errorf("%+v, %v", got, err)
	}
	for _, n := range []int{1, DigestSize - 1, (MaxDigests + 1) * DigestSize} {
		if _, err := DecodeDigests(make([]byte, n)); err == nil {
			t.Errorf("digests in %d bytes", n)
		}
	}
}

func FuzzRejoin(f *testing.F) {
	f.Add(RejoinRequest{Op: RejoinPages, Token: 1, Pages: []uint32{1, 3}}.Append(nil))
	f.Add(RejoinRequest{Op: RejoinPackages, Token: 1, From: 3, Count: 2}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRejoin(b)
		if err != nil {
			return
		}
		if again, err := DecodeRejoin(r.Append(nil)); err != nil || again.Op != r.Op || again.Token != r.Token || !reflect.DeepEqual(again.Pages, r.Pages) {
			t.Fatalf("%+v came back as %+v, %v", r, again, err)
		}
	})
}
