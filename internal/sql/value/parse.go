// Package value knows the text forms of PostgreSQL's types and what of them
// SQLite stores: the parsing of parameters, of lines of COPY and of literals, the
// casts, and the checks of declared types all come here, so that they agree.
//
// It is pure, and keeps the part of G8 that concerns values. The binary forms are
// pgwire's.
package value

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"datawatch/internal/sql/sqlapi"
)

// Type numbers of PostgreSQL.
const (
	Bool        = 16
	Bytea       = 17
	Char        = 18
	Name        = 19
	Int8        = 20
	Int2        = 21
	Int4        = 23
	Text        = 25
	OID         = 26
	JSON        = 114
	Float4      = 700
	Float8      = 701
	Unknown     = 705
	BPChar      = 1042
	VarChar     = 1043
	Date        = 1082
	Time        = 1083
	Timestamp   = 1114
	TimestampTZ = 1184
	Numeric     = 1700
	UUID        = 2950
	JSONB       = 3802
)

func BadInput(oid uint32, raw []byte) *sqlapi.Error {
	return &sqlapi.Error{Code: "22P02", Message: fmt.Sprintf("invalid input syntax for type %s: \"%s\"", TypeName(oid), clip(raw))}
}

func OutOfRange(oid uint32, raw []byte) *sqlapi.Error {
	return &sqlapi.Error{Code: "22003", Message: fmt.Sprintf("value \"%s\" is out of range for type %s", clip(raw), TypeName(oid))}
}

func clip(raw []byte) string {
	if len(raw) > 100 {
		return string(raw[:97]) + "..."
	}
	return string(raw)
}

// FromText turns the text form of a type into what SQLite stores: integers,
// floats, text and blobs; dates and times become ISO text, times with a zone
// UTC. The text is valid UTF-8 without zero bytes. Text that need not be changed
// is not copied; what is made new is appended to scratch, which is returned. The
// errors are *sqlapi.Error: 22P02 and 22007 for another syntax, 22003 for a
// number out of range.
func FromText(scratch []byte, oid uint32, raw []byte) (sqlapi.Value, []byte, error) {
	bad := func() (sqlapi.Value, []byte, error) { return sqlapi.Value{}, scratch, BadInput(oid, raw) }
	switch oid {
	case Int2, Int4, Int8, OID:
		v, err := parseInt(oid, raw)
		return sqlapi.Value{Kind: sqlapi.Integer, Int: v}, scratch, err
	case Float4, Float8:
		bits := 64
		if oid == Float4 {
			bits = 32
		}
		f, err := strconv.ParseFloat(strings.TrimSpace(string(raw)), bits)
		switch {
		case errors.Is(err, strconv.ErrRange):
			return sqlapi.Value{}, scratch, OutOfRange(oid, raw)
		case err != nil:
			return bad()
		}
		return FloatValue(scratch, f)
	case Numeric:
		return NumericValue(scratch, raw)
	case Bool:
		t, ok := ParseBool(raw)
		if !ok {
			return bad()
		}
		return sqlapi.Value{Kind: sqlapi.Integer, Int: truth(t)}, scratch, nil
	case Bytea:
		at := len(scratch)
		out, ok := AppendBytea(scratch, raw)
		if !ok {
			return bad()
		}
		return sqlapi.Value{Kind: sqlapi.Blob, Bytes: out[at:]}, out, nil
	case Date, Time, Timestamp, TimestampTZ:
		at := len(scratch)
		out, ok := AppendTime(scratch, oid, raw)
		if !ok {
			e := BadInput(oid, raw)
			e.Code = "22007"
			return sqlapi.Value{}, scratch, e
		}
		return sqlapi.Value{Kind: sqlapi.Text, Bytes: out[at:]}, out, nil
	case UUID:
		u, ok := ParseUUID(raw)
		if !ok {
			return bad()
		}
		at := len(scratch)
		scratch = AppendUUID(scratch, u[:])
		return sqlapi.Value{Kind: sqlapi.Text, Bytes: scratch[at:]}, scratch, nil
	}
	return sqlapi.Value{Kind: sqlapi.Text, Bytes: raw}, scratch, nil
}

// FloatValue refuses what SQLite would silently turn into NULL.
func FloatValue(scratch []byte, f float64) (sqlapi.Value, []byte, error) {
	if math.IsNaN(f) {
		return sqlapi.Value{}, scratch, &sqlapi.Error{Code: "22003", Message: "NaN cannot be stored"}
	}
	return sqlapi.Value{Kind: sqlapi.Float, Float: f}, scratch, nil
}

// parseInt reads an integer of the width of its type.
func parseInt(oid uint32, raw []byte) (int64, error) {
	lo, hi := intRange(oid)
	v, ok := smallInt(raw)
	if !ok {
		var err error
		v, err = strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
		if errors.Is(err, strconv.ErrRange) {
			return 0, OutOfRange(oid, raw)
		} else if err != nil {
			return 0, BadInput(oid, raw)
		}
	}
	if v < lo || v > hi {
		return 0, OutOfRange(oid, raw)
	}
	return v, nil
}

// smallInt reads the plain numbers that nearly every parameter is, without
// making a string of them.
func smallInt(raw []byte) (v int64, ok bool) {
	neg := len(raw) > 0 && raw[0] == '-'
	if neg {
		raw = raw[1:]
	}
	if len(raw) == 0 || len(raw) > 18 {
		return 0, false
	}
	for _, c := range raw {
		if c < '0' || c > '9' {
			return 0, false
		}
		v = v*10 + int64(c-'0')
	}
	if neg {
		v = -v
	}
	return v, true
}

// NumericValue gives SQLite a numeric as its own NUMERIC affinity would store
// it: an integer when it is one and fits, else a float.
func NumericValue(scratch, raw []byte) (sqlapi.Value, []byte, error) {
	if v, ok := smallInt(raw); ok {
		return sqlapi.Value{Kind: sqlapi.Integer, Int: v}, scratch, nil
	}
	s := strings.TrimSpace(string(raw))
	if v, err := strconv.ParseInt(s, 10, 64); err == nil {
		return sqlapi.Value{Kind: sqlapi.Integer, Int: v}, scratch, nil
	}
	f, err := strconv.ParseFloat(s, 64)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return sqlapi.Value{}, scratch, OutOfRange(Numeric, raw)
	case err != nil, strings.ContainsAny(s, "xXpP_"):
		return sqlapi.Value{}, scratch, BadInput(Numeric, raw)
	}
	if i := int64(f); float64(i) == f && math.Abs(f) < 1<<53 {
		return sqlapi.Value{Kind: sqlapi.Integer, Int: i}, scratch, nil
	}
	return FloatValue(scratch, f)
}

// ParseBool accepts what PostgreSQL does: unique prefixes of the words.
func ParseBool(raw []byte) (v, ok bool) {
	s := strings.ToLower(strings.TrimSpace(string(raw)))
	switch {
	case s == "":
		return false, false
	case s == "1", s == "on", strings.HasPrefix("true", s), strings.HasPrefix("yes", s):
		return true, true
	case s == "0", s == "off", s == "of", strings.HasPrefix("false", s), strings.HasPrefix("no", s):
		return false, true
	}
	return false, false
}

// AppendBytea decodes bytea's hex form (\x0aff) or escape form (\012\\).
func AppendBytea(b, raw []byte) ([]byte, bool) {
	if bytes.HasPrefix(raw, []byte(`\x`)) {
		out, err := hex.AppendDecode(b, bytes.ReplaceAll(raw[2:], []byte(" "), nil))
		return out, err == nil
	}
	for i := 0; i < len(raw); i++ {
		switch {
		case raw[i] != '\\':
			b = append(b, raw[i])
		case i+1 < len(raw) && raw[i+1] == '\\':
			b = append(b, '\\')
			i++
		case i+3 < len(raw):
			v, err := strconv.ParseUint(string(raw[i+1:i+4]), 8, 8)
			if err != nil {
				return b, false
			}
			b = append(b, byte(v))
			i += 3
		default:
			return b, false
		}
	}
	return b, true
}

// ParseUUID accepts 32 hexadecimal digits with hyphens anywhere between
// pairs, perhaps in braces.
func ParseUUID(s []byte) (u [16]byte, ok bool) {
	if len(s) > 2 && s[0] == '{' && s[len(s)-1] == '}' {
		s = s[1 : len(s)-1]
	}
	n := 0
	for i := 0; i < len(s); {
		if s[i] == '-' && n > 0 {
			i++
			continue
		}
		if i+2 > len(s) || n == 16 {
			return u, false
		}
		if _, err := hex.Decode(u[n:n+1], s[i:i+2]); err != nil {
			return u, false
		}
		n++
		i += 2
	}
	return u, n == 16
}

// AppendUUID writes 16 bytes in the usual form.
func AppendUUID(b, v []byte) []byte {
	for i, n := range [...]int{4, 2, 2, 2, 6} {
		if i > 0 {
			b = append(b, '-')
		}
		b = hex.AppendEncode(b, v[:n])
		v = v[n:]
	}
	return b
}

// IsHexBytea tells whether text is bytes in PostgreSQL's hex notation: such a
// literal reaches a bytea column as text.
func IsHexBytea(v []byte) bool {
	if len(v)%2 != 0 || len(v) < 2 || v[0] != '\\' || v[1] != 'x' {
		return false
	}
	for _, c := range v[2:] {
		if !('0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F') {
			return false
		}
	}
	return true
}

var typeNames = map[uint32]string{
	Bool: "boolean", Bytea: "bytea", Char: "\"char\"", Name: "name", Int8: "bigint", Int2: "smallint",
	Int4: "integer", Text: "text", OID: "oid", JSON: "json", Float4: "real", Float8: "double precision",
	Unknown: "unknown", BPChar: "character", VarChar: "character varying", Date: "date", Time: "time",
	Timestamp: "timestamp", TimestampTZ: "timestamp with time zone", Numeric: "numeric", UUID: "uuid", JSONB: "jsonb",
}

func TypeName(oid uint32) string {
	if n, ok := typeNames[oid]; ok {
		return n
	}
	return "type " + strconv.FormatUint(uint64(oid), 10)
}

func truth(v bool) int64 {
	if v {
		return 1
	}
	return 0
}
