package pgwire

import (
	"datawatch/internal/sql/value"
	"encoding/binary"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"pgregory.net/rapid"

	"datawatch/internal/sql/sqlapi"
)

func text(s string) sqlapi.Value { return sqlapi.Value{Kind: sqlapi.Text, Bytes: []byte(s)} }
func blob(s string) sqlapi.Value { return sqlapi.Value{Kind: sqlapi.Blob, Bytes: []byte(s)} }
func num(n int64) sqlapi.Value   { return sqlapi.Value{Kind: sqlapi.Integer, Int: n} }
func flt(f float64) sqlapi.Value { return sqlapi.Value{Kind: sqlapi.Float, Float: f} }

func same(a, b sqlapi.Value) bool {
	return a.Kind == b.Kind && a.Int == b.Int && a.Float == b.Float && string(a.Bytes) == string(b.Bytes)
}

func TestParametersFromText(t *testing.T) {
	for _, tc := range []struct {
		oid  uint32
		in   string
		want sqlapi.Value
		code string
	}{
		{oidInt4, "-7", num(-7), ""},
		{oidInt4, " 7 ", num(7), ""},
		{oidInt4, "2147483648", num(0), "22003"},
		{oidInt4, "abc", num(0), "22P02"},
		{oidInt4, "", num(0), "22P02"},
		{oidInt2, "32768", num(0), "22003"},
		{oidInt2, "-32768", num(-32768), ""},
		{oidInt8, "-9223372036854775808", num(math.MinInt64), ""},
		{oidInt8, "9223372036854775808", num(0), "22003"},
		{oidOID, "4294967295", num(4294967295), ""},
		{oidFloat8, "1e-3", flt(0.001), ""},
		{oidFloat8, "Infinity", flt(math.Inf(1)), ""},
		{oidFloat8, "1e999", flt(0), "22003"},
		{oidFloat8, "NaN", flt(0), "22003"},
		{oidNumeric, "12345678901", num(12345678901), ""},
		{oidNumeric, "5.00", num(5), ""},
		{oidNumeric, "-0.25", flt(-0.25), ""},
		{oidNumeric, "0x10", flt(0), "22P02"},
		{oidNumeric, "1_0", flt(0), "22P02"},
		{oidBool, "tr", num(1), ""},
		{oidBool, "OFF", num(0), ""},
		{oidBool, "2", num(0), "22P02"},
		{oidBytea, `\x00fF`, blob("\x00\xff"), ""},
		{oidBytea, `a\\b\001`, blob("a\\b\x01"), ""},
		{oidBytea, `\x0`, blob(""), "22P02"},
		{oidBytea, `a\9`, blob(""), "22P02"},
		{oidDate, "2024-2-9", text("2024-02-09"), ""},
		{oidDate, "2024-02-30", text(""), "22007"},
		{oidDate, "infinity", text("infinity"), ""},
		{oidDate, "0044-03-15 BC", text("0044-03-15 BC"), ""},
		{oidTime, "1:02", text("01:02:00"), ""},
		{oidTime, "23:59:59.1234567", text("23:59:59.123457"), ""},
		{oidTime, "25:00", text(""), "22007"},
		{oidTimestamp, "2024-02-29T12:00:00.500", text("2024-02-29 12:00:00.5"), ""},
		{oidTimestamp, "2024-02-29 12:00:00+05", text("2024-02-29 12:00:00"), ""},
		{oidTimestamp, "2024-02-29", text("2024-02-29 00:00:00"), ""},
		{oidTimestamptz, "2024-03-01 00:30:00+01", text("2024-02-29 23:30:00"), ""},
		{oidTimestamptz, "2023-12-31 23:00:00.25 -0330", text("2024-01-01 02:30:00.25"), ""},
		{oidTimestamptz, "2024-01-01T00:00:00Z", text("2024-01-01 00:00:00"), ""},
		{oidTimestamptz, "yesterday", text(""), "22007"},
		{oidUUID, "{A0EEBC99-9C0B-4ef8-bb6d6bb9bd380a11}", text("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"), ""},
		{oidUUID, "a0eebc99", text(""), "22P02"},
		{oidJSONB, `{"a":1}`, text(`{"a":1}`), ""},
		{oidText, "añ", text("añ"), ""},
		{oidText, "a\x00", text(""), "22021"},
		{oidVarchar, "\xff", text(""), "22021"},
		{0, "anything", text("anything"), ""},
	} {
		got, _, err := decodeValue(nil, tc.oid, 0, []byte(tc.in))
		if err != nil || tc.code != "" {
			if err == nil || asError(err).Code != tc.code {
				t.Errorf("%s %q: error %v, want %q", value.TypeName(tc.oid), tc.in, err, tc.code)
			}
		} else if !same(got, tc.want) {
			t.Errorf("%s %q: got %+v %q, want %+v %q", value.TypeName(tc.oid), tc.in, got, got.Bytes, tc.want, tc.want.Bytes)
		}
	}
}

func TestResultsAsText(t *testing.T) {
	for _, tc := range []struct {
		oid  uint32
		mod  int32
		in   sqlapi.Value
		want string
	}{
		{oidInt4, -1, num(-7), "-7"},
		{oidInt4, -1, text("no number"), "no number"},
		{oidBool, -1, num(1), "t"}, {oidBool, -1, num(0), "f"}, {oidBool, -1, text("true"), "t"}, {oidBool, -1, text("?"), "?"},
		{oidFloat8, -1, flt(2), "2"}, {oidFloat8, -1, flt(1e15), "1e+15"}, {oidFloat8, -1, flt(0.1), "0.1"},
		{oidFloat8, -1, flt(123456789012345), "123456789012345"}, {oidFloat8, -1, flt(0.00001), "1e-05"},
		{oidFloat8, -1, flt(math.Inf(-1)), "-Infinity"}, {oidFloat4, -1, flt(float64(float32(0.1))), "0.1"},
		{oidText, -1, flt(2), "2.0"}, {oidText, -1, flt(2.5), "2.5"}, {oidText, -1, num(2), "2"}, {oidText, -1, flt(1e300), "1e+300"},
		{oidNumeric, 10<<16 | 2 + 4, num(3), "3.00"}, {oidNumeric, 10<<16 | 2 + 4, flt(1.5), "1.50"}, {oidNumeric, -1, flt(1e20), "100000000000000000000"},
		{oidBytea, -1, blob("\x00\xab"), `\x00ab`}, {oidText, -1, blob("\xff"), `\xff`}, {oidText, -1, blob("ok"), "ok"},
		{oidUUID, -1, blob("0123456789abcdef"), "30313233-3435-3637-3839-616263646566"},
		{oidTimestamptz, -1, text("2024-01-01 00:00:00"), "2024-01-01 00:00:00+00"},
		{oidTimestamptz, -1, text("2024-01-01 00:00:00+02"), "2024-01-01 00:00:00+02"},
		{oidTimestamp, -1, text("2024-01-01 00:00:00"), "2024-01-01 00:00:00"},
		{oidDate, -1, text("2024-01-01"), "2024-01-01"}, {oidDate, -1, text("2024-01-01 00:00:00Z"), "2024-01-01"}, {oidDate, -1, text("0044-03-15 BC"), "0044-03-15 BC"},
		{oidTimestamp, -1, text("2024-01-01 00:00:00.5Z"), "2024-01-01 00:00:00.5"}, {oidTimestamp, -1, text("2024-01-01 00:00:00 -02"), "2024-01-01 00:00:00"},
		{oidBytea, -1, text(`\x00aB`), `\x00aB`}, {oidBytea, -1, text(`\x0`), `\x5c7830`}, {oidBytea, -1, text("ab"), `\x6162`},
	} {
		got, err := appendValue(nil, fakeRow{tc.in}, 0, &sqlapi.Column{OID: tc.oid, TypeMod: tc.mod}, 0)
		if err != nil || string(got) != tc.want {
			t.Errorf("%s of %+v: %q %v, want %q", value.TypeName(tc.oid), tc.in, got, err, tc.want)
		}
	}
}

// TestBinaryAgainstPGX decodes our binary results with pgx's codecs, and our
// decoder reads what pgx encodes.
func TestBinaryAgainstPGX(t *testing.T) {
	m := pgtype.NewMap()
	for _, tc := range []struct {
		oid  uint32
		in   sqlapi.Value
		want any // what pgx makes of the text form of the same value
	}{
		{oidInt2, num(-2), "-2"}, {oidInt4, num(1 << 30), "1073741824"}, {oidInt8, num(math.MinInt64), "-9223372036854775808"},
		{oidInt8, text("12"), "12"}, {oidInt4, flt(3), "3"}, {oidOID, num(4294967295), "4294967295"},
		{oidFloat4, flt(1.5), "1.5"}, {oidFloat8, flt(-1e300), "-1e+300"}, {oidFloat8, num(3), "3"},
		{oidBool, num(7), "t"}, {oidBool, text("no"), "f"}, {oidBytea, blob("\x00\x01"), `\x0001`}, {oidBytea, text(`\x0001`), `\x0001`},
		{oidNumeric, num(0), "0"}, {oidNumeric, num(-10000), "-10000"}, {oidNumeric, flt(0.00012), "0.00012"}, {oidNumeric, flt(123456.789), "123456.789"},
		{oidNumeric, text("12345678901234567890.0100"), "12345678901234567890.0100"},
		{oidDate, text("1999-12-31"), "1999-12-31"}, {oidDate, text("0044-03-15 BC"), "0044-03-15 BC"},
		{oidTime, text("23:59:59.000001"), "23:59:59.000001"},
		{oidTimestamp, text("1970-01-01T00:00:00.5"), "1970-01-01 00:00:00.5"}, {oidTimestamp, text("2024-02-29"), "2024-02-29 00:00:00"},
		{oidTimestamptz, text("2024-02-29 23:30:00"), "2024-02-29 23:30:00Z"}, {oidTimestamptz, text("2024-03-01 00:30:00+01:00"), "2024-02-29 23:30:00Z"},
		{oidUUID, text("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"), "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}, {oidUUID, blob("0123456789abcdef"), "30313233-3435-3637-3839-616263646566"},
		{oidText, text("x"), "x"}, {oidJSON, text("[1]"), "[1]"}, {oidText, num(5), "5"},
	} {
		b, err := appendValue(nil, fakeRow{tc.in}, 0, &sqlapi.Column{OID: tc.oid, TypeMod: -1}, 1)
		if err != nil {
			t.Errorf("%s of %+v: %v", value.TypeName(tc.oid), tc.in, err)
			continue
		}
		typ, ok := m.TypeForOID(tc.oid)
		if !ok {
			t.Fatalf("pgx does not know %d", tc.oid)
		}
		v, err := typ.Codec.DecodeValue(m, tc.oid, pgtype.BinaryFormatCode, b)
		if err != nil {
			t.Errorf("pgx cannot read %s of %+v (% x): %v", value.TypeName(tc.oid), tc.in, b, err)
			continue
		}
		w, err := typ.Codec.DecodeValue(m, tc.oid, pgtype.TextFormatCode, []byte(tc.want.(string)))
		if err != nil {
			t.Fatalf("%s %q: %v", value.TypeName(tc.oid), tc.want, err)
		}
		vb, err1 := m.Encode(tc.oid, pgtype.BinaryFormatCode, v, nil)
		wb, err2 := m.Encode(tc.oid, pgtype.BinaryFormatCode, w, nil)
		if err1 != nil || err2 != nil || string(vb) != string(wb) {
			t.Errorf("%s of %+v is %v, want %v (%v %v)", value.TypeName(tc.oid), tc.in, v, w, err1, err2)
		}
		// And back: what pgx sends for that value is read as an equal value.
		back, _, err := decodeValue(nil, tc.oid, 1, wb)
		if err != nil {
			t.Errorf("%s: cannot read pgx's % x: %v", value.TypeName(tc.oid), wb, err)
			continue
		}
		again, err := appendValue(nil, fakeRow{back}, 0, &sqlapi.Column{OID: tc.oid, TypeMod: -1}, 1)
		if err != nil {
			t.Errorf("%s: %+v: %v", value.TypeName(tc.oid), back, err)
			continue
		}
		if x, err := typ.Codec.DecodeValue(m, tc.oid, pgtype.BinaryFormatCode, again); err != nil {
			t.Error(err)
		} else if tc.oid != oidNumeric {
			if xb, _ := m.Encode(tc.oid, pgtype.BinaryFormatCode, x, nil); string(xb) != string(wb) {
				t.Errorf("%s: % x came back as % x", value.TypeName(tc.oid), wb, xb)
			}
		}
	}
}

func TestBinaryMisfits(t *testing.T) {
	for _, tc := range []struct {
		oid  uint32
		in   sqlapi.Value
		code string
	}{
		{oidInt4, num(1 << 31), "22003"}, {oidInt2, num(40000), "22003"}, {oidInt4, text("abc"), "22P02"}, {oidInt8, flt(1.5), "22003"}, {oidInt8, flt(1e19), "22003"},
		{oidFloat8, text("x"), "22P02"}, {oidFloat4, flt(1e300), "22003"}, {oidBool, blob("t"), "22P02"}, {oidNumeric, text("1e9999"), "22P02"}, {oidNumeric, blob("1"), "22P02"},
		{oidDate, text("12:00"), "22P02"}, {oidDate, num(5), "22003"}, {oidTime, text("2024-01-01"), "22P02"}, {oidUUID, text("zz"), "22P02"}, {1007, text("{1}"), "0A000"},
	} {
		_, err := appendValue(nil, fakeRow{tc.in}, 0, &sqlapi.Column{Name: "c", OID: tc.oid, TypeMod: -1}, 1)
		if err == nil || asError(err).Code != tc.code {
			t.Errorf("%s of %+v: %v, want %s", value.TypeName(tc.oid), tc.in, err, tc.code)
		}
	}
	for oid, raw := range map[uint32]string{oidInt4: "abc", oidBool: "", oidUUID: "x", oidNumeric: "\x00\x01\x00\x00\x00\x00\x00\x00", oidJSONB: "\x02{}", oidTime: "\xff\xff\xff\xff\xff\xff\xff\xff"} {
		if _, _, err := decodeValue(nil, oid, 1, []byte(raw)); err == nil || asError(err).Code != "22P03" {
			t.Errorf("binary %s % x: %v", value.TypeName(oid), raw, err)
		}
	}
	if _, _, err := decodeValue(nil, 1007, 1, []byte("x")); asError(err).Code != "22P03" {
		t.Errorf("binary array: %v", err)
	}
	if _, _, err := decodeValue(nil, 3904, 1, []byte("x")); asError(err).Code != "0A000" { // int4range
		t.Errorf("binary range: %v", err)
	}
}

func TestBinaryArrays(t *testing.T) {
	u32 := func(n ...uint32) (b []byte) {
		for _, x := range n {
			b = binary.BigEndian.AppendUint32(b, x)
		}
		return b
	}
	ints := slices.Concat(u32(1, 1, oidInt4, 3, 1, 4, 7, 0xffffffff, 4, 0xfffffffe))
	texts := slices.Concat(u32(1, 0, oidText, 2, 1, 3), []byte(`a"b`), u32(0))
	for _, x := range []struct {
		name, want string
		oid        uint32
		raw        []byte
	}{
		{"ints", "{7,NULL,-2}", 1007, ints}, {"texts", `{"a\"b",""}`, 1009, texts}, {"empty", "{}", 1009, u32(0, 0, oidText)},
	} {
		v, _, err := decodeValue(nil, x.oid, 1, x.raw)
		if err != nil || string(v.Bytes) != x.want || v.Kind != sqlapi.Text {
			t.Errorf("%s: %q %v, want %q", x.name, v.Bytes, err, x.want)
		}
		for n := range x.raw { // cut short: refused, no panic
			if v, _, err := decodeValue(nil, x.oid, 1, x.raw[:n]); err == nil {
				t.Errorf("%s cut at %d: %q", x.name, n, v.Bytes)
			}
		}
	}
	if _, _, err := decodeValue(nil, 1007, 1, u32(1, 0, oidInt4, 0x7fffffff, 1)); err == nil {
		t.Error("an array of two thousand million elements in 20 bytes is accepted")
	}
	if _, _, err := decodeValue(nil, 1007, 1, u32(2, 0, oidInt4, 1, 1, 1, 1)); asError(err).Code != "0A000" {
		t.Errorf("two dimensions: %v", err)
	}
}

func TestNumericRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringMatching(`-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?`).Draw(t, "n")
		b, ok := appendNumeric(nil, []byte(s))
		if !ok {
			t.Fatalf("%q refused", s)
		}
		got, ok := decodeNumeric(nil, b)
		zero := true
		for _, c := range s {
			zero = zero && (c == '-' || c == '0' || c == '.')
		}
		if zero && s[0] == '-' {
			s = s[1:]
		}
		if !ok || string(got) != s {
			t.Fatalf("%q came back as %q", s, got)
		}
	})
}

func TestTimestampsAgainstStdlib(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		us := rapid.Int64Range(-60_000_000_000_000_000, 250_000_000_000_000_000).Draw(t, "us")
		var raw [8]byte
		binary.BigEndian.PutUint64(raw[:], uint64(us))
		got, ok := appendTimeFromBinary(nil, oidTimestamp, raw[:])
		want := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(us/1e6) * time.Second)
		if us%1e6 < 0 {
			want = want.Add(-time.Second)
		}
		want = want.Add(time.Duration((us%1e6+1e6)%1e6) * time.Microsecond)
		if us > 9e15 || us < -9e15 { // time.Duration overflows: go by days
			want = time.Date(2000, 1, 1+int(us/value.MicrosPerDay), 0, 0, 0, int(0), time.UTC).Add(time.Duration(us%value.MicrosPerDay) * time.Microsecond)
		}
		if !ok || string(got) != want.Format("2006-01-02 15:04:05.999999") {
			t.Fatalf("%d became %q, want %s", us, got, want.Format("2006-01-02 15:04:05.999999"))
		}
		back, ok := appendTimeBinary(nil, oidTimestamp, got)
		if !ok || int64(binary.BigEndian.Uint64(back)) != us {
			t.Fatalf("%q came back as % x", got, back)
		}
	})
}

func FuzzTimeText(f *testing.F) {
	for _, s := range []string{"2024-02-29 12:00:00.5+01:30", "infinity", "24:00:00", "1-1-1 BC", "-4712-01-01"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, s []byte) {
		for _, oid := range []uint32{oidDate, oidTime, oidTimestamp, oidTimestamptz} {
			norm, ok := value.AppendTime(nil, oid, s)
			if !ok {
				continue
			}
			again, ok := value.AppendTime(nil, oid, norm)
			if !ok || string(again) != string(norm) {
				t.Errorf("%q became %q, then %q", s, norm, again)
			}
			if a, ok := appendTimeBinary(nil, oid, norm); ok {
				if b, _ := appendTimeFromBinary(nil, oid, a); string(b) != string(norm) {
					t.Errorf("%q: binary of %q is %q", s, norm, b)
				}
			}
		}
	})
}
