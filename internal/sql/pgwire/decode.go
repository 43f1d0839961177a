package pgwire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"unicode/utf8"

	"datawatch/internal/sql/sqlapi"
	"datawatch/internal/sql/value"
)

// decodeValue turns a parameter into what SQLite is given: integers, floats,
// text and blobs; dates and times become ISO text, times with a zone UTC.
// Text that need not be changed is not copied; what is made new is appended
// to scratch, which is returned.
func decodeValue(scratch []byte, oid uint32, format int16, raw []byte) (sqlapi.Value, []byte, error) {
	if format != 0 {
		return decodeBinary(scratch, oid, raw)
	}
	if !utf8.Valid(raw) || bytes.IndexByte(raw, 0) >= 0 {
		return sqlapi.Value{}, scratch, errUTF8("a parameter")
	}
	return value.FromText(scratch, oid, raw)
}

func decodeBinary(scratch []byte, oid uint32, raw []byte) (sqlapi.Value, []byte, error) {
	bad := func() (sqlapi.Value, []byte, error) {
		return sqlapi.Value{}, scratch, &sqlapi.Error{Code: "22P03", Message: fmt.Sprintf("incorrect binary data format of %s (%d bytes)", value.TypeName(oid), len(raw))}
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
		return value.FloatValue(scratch, float64(math.Float32frombits(binary.BigEndian.Uint32(raw))))
	case oidFloat8:
		return value.FloatValue(scratch, math.Float64frombits(binary.BigEndian.Uint64(raw)))
	case oidNumeric:
		at := len(scratch)
		out, ok := decodeNumeric(scratch, raw)
		if !ok {
			return bad()
		}
		return value.NumericValue(out, out[at:])
	case oidBytea:
		return sqlapi.Value{Kind: sqlapi.Blob, Bytes: raw}, scratch, nil
	case oidDate, oidTime, oidTimestamp, oidTimestamptz:
		return text(appendTimeFromBinary(scratch, oid, raw))
	case oidUUID:
		return text(value.AppendUUID(scratch, raw), true)
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
		return sqlapi.Value{}, scratch, sqlErr("0A000", "binary parameters of "+value.TypeName(oid)+" are not supported")
	}
	if !utf8.Valid(raw) || bytes.IndexByte(raw, 0) >= 0 {
		return sqlapi.Value{}, scratch, errUTF8("a parameter")
	}
	return sqlapi.Value{Kind: sqlapi.Text, Bytes: raw}, scratch, nil
}
