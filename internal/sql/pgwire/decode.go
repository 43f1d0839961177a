package pgwire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"datawatch/internal/sql/sqlapi"
)

// decodeValue turns a parameter into what SQLite is given: integers, floats,
// text and blobs; dates and times become ISO text, times with a zone UTC.
// Text that need not be changed is not copied; what is made new is appended
// to scratch, which is returned.
func decodeValue(scratch []byte, oid uint32, format int16, raw []byte) (sqlapi.Value, []byte, error) {
	if format != 0 {
		return decodeBinary(scratch, oid, raw)
	}
	bad := func() (sqlapi.Value, []byte, error) { return sqlapi.Value{}, scratch, badInput(oid, raw) }
	if !utf8.Valid(raw) || bytes.IndexByte(raw, 0) >= 0 {
		return sqlapi.Value{}, scratch, errUTF8("a parameter")
	}
	switch oid {
	case oidInt2, oidInt4, oidInt8, oidOID:
		v, err := parseInt(oid, raw)
		return sqlapi.Value{Kind: sqlapi.Integer, Int: v}, scratch, err
	case oidFloat4, oidFloat8:
		bits := 64
		if oid == oidFloat4 {
			bits = 32
		}
		f, err := strconv.ParseFloat(strings.TrimSpace(string(raw)), bits)
		switch {
		case errors.Is(err, strconv.ErrRange):
			return sqlapi.Value{}, scratch, outOfRange(oid, raw)
		case err != nil:
			return bad()
		}
		return floatParam(scratch, f)
	case oidNumeric:
		return numericParam(scratch, raw)
	case oidBool:
		t, ok := parseBool(raw)
		if !ok {
			return bad()
		}
		return sqlapi.Value{Kind: sqlapi.Integer, Int: int64(b2i(t))}, scratch, nil
	case oidBytea:
		at := len(scratch)
		out, ok := appendBytea(scratch, raw)
		if !ok {
			return bad()
		}
		return sqlapi.Value{Kind: sqlapi.Blob, Bytes: out[at:]}, out, nil
	case oidDate, oidTime, oidTimestamp, oidTimestamptz:
		at := len(scratch)
		out, ok := appendTimeText(scratch, oid, raw)
		if !ok {
			e := badInput(oid, raw)
			e.Code = "22007"
			return sqlapi.Value{}, scratch, e
		}
		return sqlapi.Value{Kind: sqlapi.Text, Bytes: out[at:]}, out, nil
	case oidUUID:
		u, ok := parseUUID(raw)
		if !ok {
			return bad()
		}
		at := len(scratch)
		scratch = appendUUID(scratch, u[:])
		return sqlapi.Value{Kind: sqlapi.Text, Bytes: scratch[at:]}, scratch, nil
	}
	return sqlapi.Value{Kind: sqlapi.Text, Bytes: raw}, scratch, nil
}

func decodeBinary(scratch []byte, oid uint32, raw []byte) (sqlapi.Value, []byte, error) {
	bad := func() (sqlapi.Value, []byte, error) {
		return sqlapi.Value{}, scratch, &sqlapi.Error{Code: "22P03", Message: fmt.Sprintf("incorrect binary data format of %s (%d bytes)", typeName(oid), len(raw))}
	}
	text := func(out []byte, ok bool) (sqlapi.Value, []byte, error) {
		if !ok {
			return bad()
		}
		v := sqlapi.Value{Kind: sqlapi.Text, Bytes: out[len(scratch):]}
		return v, out, nil
	}
	integer := func(v int64) (sqlapi.Value, []byte, error) {
		return sqlapi.Value{Kind: sqlapi.Integer, Int: v}, scratch, nil
	}
	size := 0
	switch oid {
	case oidBool, oidChar:
		size = 1
	case oidInt2:
		size = 2
	case oidInt4, oidOID, oidFloat4, oidDate:
		size = 4
	case oidInt8, oidFloat8, oidTime, oidTimestamp, oidTimestamptz:
		size = 8
	case oidUUID:
		size = 16
	}
	if size > 0 && len(raw) != size {
		return bad()
	}
	switch oid {
	case oidBool:
		return integer(int64(b2i(raw[0] != 0)))
	case oidInt2:
		return integer(int64(int16(binary.BigEndian.Uint16(raw))))
	case oidInt4:
		return integer(int64(int32(binary.BigEndian.Uint32(raw))))
	case oidOID:
		return integer(int64(binary.BigEndian.Uint32(raw)))
	case oidInt8:
		return integer(int64(binary.BigEndian.Uint64(raw)))
	case oidFloat4:
		return floatParam(scratch, float64(math.Float32frombits(binary.BigEndian.Uint32(raw))))
	case oidFloat8:
		return floatParam(scratch, math.Float64frombits(binary.BigEndian.Uint64(raw)))
	case oidNumeric:
		at := len(scratch)
		out, ok := decodeNumeric(scratch, raw)
		if !ok {
			return bad()
		}
		return numericParam(out, out[at:])
	case oidBytea:
		return sqlapi.Value{Kind: sqlapi.Blob, Bytes: raw}, scratch, nil
	case oidDate, oidTime, oidTimestamp, oidTimestamptz:
		return text(appendTimeFromBinary(scratch, oid, raw))
	case oidUUID:
		return text(appendUUID(scratch, raw), true)
	case oidJSONB:
		if len(raw) == 0 || raw[0] != 1 {
			return bad()
		}
		raw = raw[1:]
	case oidText, oidVarchar, oidBPChar, oidName, oidUnknown, oidChar, oidJSON, 0:
	default:
		if isArray(oid) {
			return decodeArray(scratch, raw)
		}
		return sqlapi.Value{}, scratch, sqlErr("0A000", "binary parameters of "+typeName(oid)+" are not supported")
	}
	if !utf8.Valid(raw) || bytes.IndexByte(raw, 0) >= 0 {
		return sqlapi.Value{}, scratch, errUTF8("a parameter")
	}
	return sqlapi.Value{Kind: sqlapi.Text, Bytes: raw}, scratch, nil
}

func badInput(oid uint32, raw []byte) *sqlapi.Error {
	return &sqlapi.Error{Code: "22P02", Message: fmt.Sprintf("invalid input syntax for type %s: \"%s\"", typeName(oid), clip(raw))}
}

func outOfRange(oid uint32, raw []byte) *sqlapi.Error {
	return &sqlapi.Error{Code: "22003", Message: fmt.Sprintf("value \"%s\" is out of range for type %s", clip(raw), typeName(oid))}
}

func clip(raw []byte) string {
	if len(raw) > 100 {
		return string(raw[:97]) + "..."
	}
	return string(raw)
}

// floatParam refuses what SQLite would silently turn into NULL.
func floatParam(scratch []byte, f float64) (sqlapi.Value, []byte, error) {
	if math.IsNaN(f) {
		return sqlapi.Value{}, scratch, sqlErr("22003", "NaN cannot be stored")
	}
	return sqlapi.Value{Kind: sqlapi.Float, Float: f}, scratch, nil
}

// parseInt reads an integer of the width of its type.
func parseInt(oid uint32, raw []byte) (int64, error) {
	lo, hi := int64(math.MinInt64), int64(math.MaxInt64)
	switch oid {
	case oidInt2:
		lo, hi = math.MinInt16, math.MaxInt16
	case oidInt4:
		lo, hi = math.MinInt32, math.MaxInt32
	case oidOID:
		lo, hi = 0, math.MaxUint32
	}
	v, ok := smallInt(raw)
	if !ok {
		var err error
		v, err = strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
		if errors.Is(err, strconv.ErrRange) {
			return 0, outOfRange(oid, raw)
		} else if err != nil {
			return 0, badInput(oid, raw)
		}
	}
	if v < lo || v > hi {
		return 0, outOfRange(oid, raw)
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

// numericParam gives SQLite a numeric as its own NUMERIC affinity would store
// it: an integer when it is one and fits, else a float.
func numericParam(scratch, raw []byte) (sqlapi.Value, []byte, error) {
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
		return sqlapi.Value{}, scratch, outOfRange(oidNumeric, raw)
	case err != nil, strings.ContainsAny(s, "xXpP_"):
		return sqlapi.Value{}, scratch, badInput(oidNumeric, raw)
	}
	if i := int64(f); float64(i) == f && math.Abs(f) < 1<<53 {
		return sqlapi.Value{Kind: sqlapi.Integer, Int: i}, scratch, nil
	}
	return floatParam(scratch, f)
}

// parseBool accepts what PostgreSQL does: unique prefixes of the words.
func parseBool(raw []byte) (v, ok bool) {
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

// appendBytea decodes bytea's hex form (\x0aff) or escape form (\012\\).
func appendBytea(b, raw []byte) ([]byte, bool) {
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

// parseUUID accepts 32 hexadecimal digits with hyphens anywhere between
// pairs, perhaps in braces.
func parseUUID(s []byte) (u [16]byte, ok bool) {
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
