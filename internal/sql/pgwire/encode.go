package pgwire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"datawatch/internal/sql/sqlapi"
	"datawatch/internal/sql/value"
)

// Type numbers of PostgreSQL.
const (
	oidBool        = value.Bool
	oidBytea       = value.Bytea
	oidChar        = value.Char
	oidName        = value.Name
	oidInt8        = value.Int8
	oidInt2        = value.Int2
	oidInt4        = value.Int4
	oidText        = value.Text
	oidOID         = value.OID
	oidJSON        = value.JSON
	oidFloat4      = value.Float4
	oidFloat8      = value.Float8
	oidUnknown     = value.Unknown
	oidBPChar      = value.BPChar
	oidVarchar     = value.VarChar
	oidDate        = value.Date
	oidTime        = value.Time
	oidTimestamp   = value.Timestamp
	oidTimestamptz = value.TimestampTZ
	oidNumeric     = value.Numeric
	oidUUID        = value.UUID
	oidJSONB       = value.JSONB
)

// appendValue appends column i of the row, which is not null, in the wire
// form of the column's type. SQLite's types belong to values, not to columns:
// text format shows whatever is there, binary format refuses a value that the
// announced type cannot hold.
func appendValue(b []byte, r sqlapi.Row, i int, col *sqlapi.Column, format int16) ([]byte, error) {
	if format == 0 {
		return appendText(b, r, i, col), nil
	}
	return appendBinary(b, r, i, col)
}

func appendText(b []byte, r sqlapi.Row, i int, col *sqlapi.Column) []byte {
	switch kind := r.Kind(i); kind {
	case sqlapi.Integer:
		v := r.Int64(i)
		switch {
		case col.OID == oidBool:
			if v != 0 {
				return append(b, 't')
			}
			return append(b, 'f')
		case col.OID == oidNumeric && scale(col) > 0:
			b = append(strconv.AppendInt(b, v, 10), '.')
			for range scale(col) {
				b = append(b, '0')
			}
			return b
		}
		return strconv.AppendInt(b, v, 10)
	case sqlapi.Float:
		v := r.Float64(i)
		switch col.OID {
		case oidNumeric:
			return appendDecimal(b, v, scale(col))
		case oidFloat4:
			return appendFloat(b, v, 32)
		case oidFloat8:
			return appendFloat(b, v, 64)
		}
		return appendPlainFloat(b, v)
	case sqlapi.Blob:
		v := r.Bytes(i)
		switch {
		case col.OID == oidBytea:
		case col.OID == oidUUID && len(v) == 16:
			return value.AppendUUID(b, v)
		case utf8.Valid(v):
			return append(b, v...)
		}
		return hex.AppendEncode(append(b, '\\', 'x'), v)
	}
	v := r.Bytes(i)
	switch col.OID {
	case oidBool:
		if t, ok := value.ParseBool(v); ok {
			if t {
				return append(b, 't')
			}
			return append(b, 'f')
		}
	case oidBytea:
		if value.IsHexBytea(v) { // a literal in PostgreSQL's notation, stored as it was written
			return append(b, v...)
		}
		return hex.AppendEncode(append(b, '\\', 'x'), v)
	case oidDate:
		if len(v) > len("2006-01-02") { // a date written with a time of day
			if t, ok := value.ParseStamp(v); ok && t.Inf == 0 && t.HasDate && t.HasTime {
				return value.AppendDate(b, t.Days)
			}
		}
	case oidTimestamp:
		// A literal with a zone: PostgreSQL drops the zone of a timestamp
		// without one.
		if t, ok := value.ParseStamp(v); ok && t.Zoned && t.HasDate && t.HasTime {
			if i := bytes.IndexAny(v[min(len(v), 10):], "Z+-"); i > 0 {
				v = bytes.TrimRight(v[:10+i], " ")
			}
		}
	case oidTimestamptz:
		if t, ok := value.ParseStamp(v); ok && !t.Zoned && t.Inf == 0 {
			return append(append(b, v...), "+00"...)
		}
	}
	return append(b, v...)
}

// scale is the number of decimals a numeric column declares, or -1.
func scale(col *sqlapi.Column) int {
	if col.TypeMod < 4 {
		return -1
	}
	return int((col.TypeMod - 4) & 0xffff)
}

// appendFloat writes a float as PostgreSQL does: the shortest form that reads
// back the same.
func appendFloat(b []byte, v float64, bits int) []byte {
	switch {
	case math.IsInf(v, 1):
		return append(b, "Infinity"...)
	case math.IsInf(v, -1):
		return append(b, "-Infinity"...)
	case math.IsNaN(v):
		return append(b, "NaN"...)
	}
	limit := 1e15
	if bits == 32 {
		limit = 1e6
	}
	if a := math.Abs(v); a != 0 && (a < 1e-4 || a >= limit) {
		return strconv.AppendFloat(b, v, 'e', -1, bits)
	}
	return strconv.AppendFloat(b, v, 'f', -1, bits)
}

// appendPlainFloat is for a column whose type is not known: as appendFloat,
// but a whole number keeps ".0", as in SQLite.
func appendPlainFloat(b []byte, v float64) []byte {
	at := len(b)
	b = appendFloat(b, v, 64)
	for _, c := range b[at:] {
		if c != '-' && (c < '0' || c > '9') {
			return b
		}
	}
	return append(b, ".0"...)
}

// appendDecimal writes a float as a numeric: without exponent.
func appendDecimal(b []byte, v float64, scale int) []byte {
	if math.IsInf(v, 0) || math.IsNaN(v) {
		return appendFloat(b, v, 64)
	}
	return strconv.AppendFloat(b, v, 'f', scale, 64)
}

func misfit(r sqlapi.Row, i int, col *sqlapi.Column) error {
	v := []byte("a blob")
	if r.Kind(i) != sqlapi.Blob {
		v = appendText(nil, r, i, &sqlapi.Column{OID: oidText})
		if len(v) > 40 {
			v = append(v[:37], "..."...)
		}
	}
	code := "22P02"
	if r.Kind(i) == sqlapi.Integer || r.Kind(i) == sqlapi.Float {
		code = "22003"
	}
	return &sqlapi.Error{Code: code, Message: fmt.Sprintf("value %q of column %q is not a valid %s", v, col.Name, value.TypeName(col.OID)),
		Hint: "Columns are not bound to their declared type; ask for the text format, or cast the value."}
}

func appendBinary(b []byte, r sqlapi.Row, i int, col *sqlapi.Column) ([]byte, error) {
	kind := r.Kind(i)
	switch col.OID {
	case oidInt2, oidInt4, oidInt8, oidOID:
		v, ok := intValue(r, i, kind)
		switch {
		case !ok:
		case col.OID == oidInt8:
			return binary.BigEndian.AppendUint64(b, uint64(v)), nil
		case col.OID == oidInt4 && v == int64(int32(v)), col.OID == oidOID && v == int64(uint32(v)):
			return binary.BigEndian.AppendUint32(b, uint32(v)), nil
		case col.OID == oidInt2 && v == int64(int16(v)):
			return binary.BigEndian.AppendUint16(b, uint16(v)), nil
		}
		return b, misfit(r, i, col)
	case oidFloat4, oidFloat8:
		v, ok := floatValue(r, i, kind)
		if !ok {
			return b, misfit(r, i, col)
		}
		if col.OID == oidFloat8 {
			return binary.BigEndian.AppendUint64(b, math.Float64bits(v)), nil
		}
		f := float32(v)
		if math.IsInf(float64(f), 0) && !math.IsInf(v, 0) {
			return b, misfit(r, i, col)
		}
		return binary.BigEndian.AppendUint32(b, math.Float32bits(f)), nil
	case oidBool:
		switch kind {
		case sqlapi.Integer:
			return append(b, b2i(r.Int64(i) != 0)), nil
		case sqlapi.Text:
			if t, ok := value.ParseBool(r.Bytes(i)); ok {
				return append(b, b2i(t)), nil
			}
		}
		return b, misfit(r, i, col)
	case oidBytea:
		v := r.Bytes(i)
		switch {
		case kind == sqlapi.Text && value.IsHexBytea(v):
			at := len(b)
			b = append(b, make([]byte, len(v)/2-1)...)
			_, err := hex.Decode(b[at:], v[2:])
			return b, err
		case kind == sqlapi.Blob || kind == sqlapi.Text:
			return append(b, v...), nil
		}
		return appendText(b, r, i, col), nil
	case oidNumeric:
		if kind != sqlapi.Blob {
			var tmp [64]byte
			if out, ok := appendNumeric(b, appendText(tmp[:0], r, i, col)); ok {
				return out, nil
			}
		}
		return b, misfit(r, i, col)
	case oidDate, oidTime, oidTimestamp, oidTimestamptz:
		if kind == sqlapi.Text {
			if out, ok := appendTimeBinary(b, col.OID, r.Bytes(i)); ok {
				return out, nil
			}
		}
		return b, misfit(r, i, col)
	case oidUUID:
		v := r.Bytes(i)
		if kind == sqlapi.Blob && len(v) == 16 {
			return append(b, v...), nil
		}
		if kind == sqlapi.Text {
			if u, ok := value.ParseUUID(v); ok {
				return append(b, u[:]...), nil
			}
		}
		return b, misfit(r, i, col)
	case oidJSONB:
		return appendText(append(b, 1), r, i, col), nil
	case oidText, oidVarchar, oidBPChar, oidName, oidUnknown, oidChar, oidJSON:
		return appendText(b, r, i, col), nil
	}
	return b, sqlErr("0A000", fmt.Sprintf("no binary format for column %q of %s", col.Name, value.TypeName(col.OID)))
}

func b2i(v bool) byte {
	if v {
		return 1
	}
	return 0
}

func intValue(r sqlapi.Row, i int, kind sqlapi.Kind) (int64, bool) {
	switch kind {
	case sqlapi.Integer:
		return r.Int64(i), true
	case sqlapi.Float:
		f := r.Float64(i)
		return int64(f), f == math.Trunc(f) && f >= -1<<63 && f < 1<<63
	case sqlapi.Text:
		v, err := strconv.ParseInt(string(r.Bytes(i)), 10, 64)
		return v, err == nil
	}
	return 0, false
}

func floatValue(r sqlapi.Row, i int, kind sqlapi.Kind) (float64, bool) {
	switch kind {
	case sqlapi.Integer:
		return float64(r.Int64(i)), true
	case sqlapi.Float:
		return r.Float64(i), true
	case sqlapi.Text:
		v, err := strconv.ParseFloat(string(r.Bytes(i)), 64)
		return v, err == nil
	}
	return 0, false
}
