package value

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"datawatch/internal/sql/sqlapi"
)

// Type is a PostgreSQL type with its modifier: length + 4, or precision and
// scale; -1 for none.
type Type struct {
	OID uint32
	Mod int32
}

// Decimal is the precision and scale of a numeric type; ok is false when it was
// declared without.
func (t Type) Decimal() (precision, scale int, ok bool) {
	if t.OID != Numeric || t.Mod < 4 {
		return 0, 0, false
	}
	return int(t.Mod-4) >> 16, int(t.Mod-4) & 0xffff, true
}

// Length is the number of characters that varchar(n) and char(n) hold, 0 without
// limit.
func (t Type) Length() int {
	if t.OID != VarChar && t.OID != BPChar || t.Mod <= 4 {
		return 0
	}
	return int(t.Mod - 4)
}

// String is the type as messages of PostgreSQL name it.
func (t Type) String() string {
	if n := t.Length(); n > 0 {
		return fmt.Sprintf("%s(%d)", TypeName(t.OID), n)
	}
	if p, s, ok := t.Decimal(); ok {
		return fmt.Sprintf("numeric(%d,%d)", p, s)
	}
	return TypeName(t.OID)
}

// Converts reports whether Assign may change or refuse something for the type;
// for the others SQLite's affinity does what is needed.
func (t Type) Converts() bool {
	switch t.OID {
	case Int2, Int4, Int8, Float4, Float8, Numeric, Bool, Bytea, Date, Time, Timestamp, TimestampTZ, UUID, JSON, JSONB:
		return true
	}
	return t.Length() > 0
}

// Assign makes of a value what a column of type t stores, as PostgreSQL does
// when it assigns: fractions are rounded into integers and numeric(p,s), blanks
// beyond varchar(n) dropped, text read as the type. The error is an
// *sqlapi.Error: 22003 out of range, 22001 too long, 22P02 and 22007 not of the
// type's syntax, 42804 not possible at all.
func Assign(t Type, v sqlapi.Value) (sqlapi.Value, error) {
	if v.Kind == sqlapi.Null {
		return v, nil
	}
	switch t.OID {
	case Int2, Int4, Int8:
		return assignInt(t.OID, v)
	case Numeric:
		return assignNumeric(t, v)
	case Float4, Float8:
		if v.Kind == sqlapi.Text {
			return read(t.OID, v.Bytes)
		}
	case Bool:
		switch {
		case v.Kind == sqlapi.Text:
			return read(t.OID, v.Bytes)
		case v.Kind == sqlapi.Integer && (v.Int == 0 || v.Int == 1):
			return v, nil
		}
		return v, mismatch(t, v)
	case Date, Time, Timestamp, TimestampTZ:
		if v.Kind != sqlapi.Text {
			return v, mismatch(t, v)
		}
		return assignTime(t.OID, v)
	case UUID:
		if v.Kind == sqlapi.Text {
			return read(t.OID, v.Bytes)
		}
	case JSON, JSONB:
		if v.Kind == sqlapi.Text && !json.Valid(v.Bytes) {
			return v, BadInput(t.OID, v.Bytes)
		}
	case VarChar, BPChar:
		if n := t.Length(); n > 0 && v.Kind == sqlapi.Text {
			return assignChars(t, v, n)
		}
	case Bytea:
		if v.Kind == sqlapi.Text {
			return read(t.OID, v.Bytes)
		}
	}
	return v, nil
}

func read(oid uint32, raw []byte) (sqlapi.Value, error) {
	v, _, err := FromText(nil, oid, raw)
	return v, err
}

func mismatch(t Type, v sqlapi.Value) error {
	from := map[sqlapi.Kind]string{sqlapi.Integer: "bigint", sqlapi.Float: "double precision", sqlapi.Blob: "bytea", sqlapi.Text: "text"}[v.Kind]
	return &sqlapi.Error{Code: "42804", Message: fmt.Sprintf("column is of type %s but expression is of type %s", TypeName(t.OID), from),
		Hint: "You will need to rewrite or cast the expression."}
}

func assignInt(oid uint32, v sqlapi.Value) (sqlapi.Value, error) {
	switch v.Kind {
	case sqlapi.Text:
		return read(oid, v.Bytes)
	case sqlapi.Blob:
		return v, mismatch(Type{oid, -1}, v)
	case sqlapi.Float:
		f := math.Round(v.Float)
		if math.IsNaN(f) || f < -1<<63 || f >= 1<<63 {
			return v, tooLarge(oid)
		}
		v = sqlapi.Value{Kind: sqlapi.Integer, Int: int64(f)}
	}
	if lo, hi := intRange(oid); v.Int < lo || v.Int > hi {
		return v, tooLarge(oid)
	}
	return v, nil
}

func tooLarge(oid uint32) error {
	return &sqlapi.Error{Code: "22003", Message: TypeName(oid) + " out of range"}
}

// intRange is the range of an integer type.
func intRange(oid uint32) (lo, hi int64) {
	switch oid {
	case Int2:
		return math.MinInt16, math.MaxInt16
	case Int4:
		return math.MinInt32, math.MaxInt32
	case OID:
		return 0, math.MaxUint32
	}
	return math.MinInt64, math.MaxInt64
}

func assignNumeric(t Type, v sqlapi.Value) (sqlapi.Value, error) {
	var err error
	switch v.Kind {
	case sqlapi.Text:
		if v, err = read(Numeric, v.Bytes); err != nil {
			return v, err
		}
	case sqlapi.Blob:
		return v, mismatch(t, v)
	}
	p, s, ok := t.Decimal()
	if !ok {
		return v, nil
	}
	limit := math.Pow10(p - s)
	if v.Kind == sqlapi.Integer {
		if a := math.Abs(float64(v.Int)); a >= limit {
			return v, numericOverflow(t)
		}
		return v, nil
	}
	f := roundDecimal(v.Float, s)
	if math.Abs(f) >= limit || math.IsNaN(f) {
		return v, numericOverflow(t)
	}
	if i := int64(f); float64(i) == f && math.Abs(f) < 1<<53 {
		return sqlapi.Value{Kind: sqlapi.Integer, Int: i}, nil
	}
	return sqlapi.Value{Kind: sqlapi.Float, Float: f}, nil
}

// roundDecimal rounds to s decimals, half away from zero, by the shortest
// decimal form: 1.005 is rounded as it is written, not as it is stored.
func roundDecimal(f float64, s int) float64 {
	if math.IsInf(f, 0) || math.IsNaN(f) || s > 300 {
		return f
	}
	var buf [400]byte
	b := strconv.AppendFloat(buf[:0], f, 'f', -1, 64)
	dot := strings.IndexByte(string(b), '.')
	if dot < 0 || len(b)-dot-1 <= s {
		return f
	}
	up := b[dot+1+s] >= '5'
	b = b[:dot+1+s]
	r, _ := strconv.ParseFloat(string(b), 64)
	if up {
		step := math.Pow10(-s)
		if f < 0 {
			step = -step
		}
		r, _ = strconv.ParseFloat(strconv.FormatFloat(r+step, 'f', s, 64), 64)
	}
	return r
}

func numericOverflow(t Type) error {
	p, s, _ := t.Decimal()
	return &sqlapi.Error{Code: "22003", Message: "numeric field overflow",
		Detail: fmt.Sprintf("A field with precision %d, scale %d must round to an absolute value less than 10^%d.", p, s, p-s)}
}

func assignTime(oid uint32, v sqlapi.Value) (sqlapi.Value, error) {
	if Canonical(oid, v.Bytes) {
		return v, nil
	}
	return read(oid, v.Bytes)
}

// Canonical reports whether text is a date or time as it is stored, so that
// comparing text compares times. It may miss rare ones, but says yes to no other.
func Canonical(oid uint32, s []byte) bool {
	if oid == Date {
		return plainDate(s)
	}
	if oid == Time {
		return plainClock(s)
	}
	return len(s) > 11 && plainDate(s[:10]) && s[10] == ' ' && plainClock(s[11:])
}

func plainDate(s []byte) bool {
	if len(s) != 10 || s[4] != '-' || s[7] != '-' {
		return false
	}
	for i, c := range s {
		if i != 4 && i != 7 && (c < '0' || c > '9') {
			return false
		}
	}
	y := int64(s[0]-'0')*1000 + int64(s[1]-'0')*100 + int64(s[2]-'0')*10 + int64(s[3]-'0')
	m, d := int64(s[5]-'0')*10+int64(s[6]-'0'), int64(s[8]-'0')*10+int64(s[9]-'0')
	return y > 0 && m >= 1 && m <= 12 && d >= 1 && d <= MonthDays(y, m)
}

func plainClock(s []byte) bool {
	if len(s) < 8 || len(s) > 15 || s[2] != ':' || s[5] != ':' {
		return false
	}
	for i, c := range s {
		switch {
		case i == 2 || i == 5:
		case i == 8:
			if c != '.' || len(s) == 9 || s[len(s)-1] == '0' {
				return false
			}
		case c < '0' || c > '9':
			return false
		}
	}
	return (s[0] < '2' || s[0] == '2' && s[1] < '4') && s[3] < '6' && s[6] < '6'
}

func assignChars(t Type, v sqlapi.Value, n int) (sqlapi.Value, error) {
	if len(v.Bytes) <= n || utf8.RuneCount(v.Bytes) <= n {
		return v, nil
	}
	at := 0
	for range n {
		_, w := utf8.DecodeRune(v.Bytes[at:])
		at += w
	}
	for _, c := range v.Bytes[at:] {
		if c != ' ' {
			return v, &sqlapi.Error{Code: "22001", Message: "value too long for type " + t.String()}
		}
	}
	v.Bytes = v.Bytes[:at]
	return v, nil
}

// Cast makes of a value what x::type is. Where Assign refuses, Cast may cut
// text, drop the time of a day, and take numbers for truth. The error is an
// *sqlapi.Error.
func Cast(t Type, v sqlapi.Value) (sqlapi.Value, error) {
	switch {
	case v.Kind == sqlapi.Null:
		return v, nil
	case t.OID == Bool && (v.Kind == sqlapi.Integer || v.Kind == sqlapi.Float):
		return sqlapi.Value{Kind: sqlapi.Integer, Int: truth(v.Int != 0 || v.Float != 0)}, nil
	case t.OID == Bytea && v.Kind != sqlapi.Text && v.Kind != sqlapi.Blob, t.OID == UUID && v.Kind == sqlapi.Blob:
		return v, mismatch(t, v)
	case (t.OID == Int2 || t.OID == Int4 || t.OID == Int8) && v.Kind == sqlapi.Text:
		// What SQLite shows of a value may be text where PostgreSQL has a number.
		if w, err := read(t.OID, v.Bytes); err == nil {
			return w, nil
		} else if _, err2 := strconv.ParseFloat(strings.TrimSpace(string(v.Bytes)), 64); err2 != nil {
			return v, err
		}
		return v, BadInput(t.OID, v.Bytes)
	case (t.OID == Float4 || t.OID == Float8) && v.Kind == sqlapi.Integer:
		return sqlapi.Value{Kind: sqlapi.Float, Float: float64(v.Int)}, nil
	case t.OID == Float4 && v.Kind == sqlapi.Float:
		return sqlapi.Value{Kind: sqlapi.Float, Float: float64(float32(v.Float))}, nil
	}
	if n := t.Length(); n > 0 {
		v = toText(v)
		if utf8.RuneCount(v.Bytes) > n {
			at := 0
			for range n {
				_, w := utf8.DecodeRune(v.Bytes[at:])
				at += w
			}
			v.Bytes = v.Bytes[:at]
		}
		return v, nil
	}
	return Assign(t, v)
}

func toText(v sqlapi.Value) sqlapi.Value {
	switch v.Kind {
	case sqlapi.Integer:
		return sqlapi.Value{Kind: sqlapi.Text, Bytes: strconv.AppendInt(nil, v.Int, 10)}
	case sqlapi.Float:
		return sqlapi.Value{Kind: sqlapi.Text, Bytes: strconv.AppendFloat(nil, v.Float, 'f', -1, 64)}
	}
	v.Kind = sqlapi.Text
	return v
}

// Fits reports whether v can stand in a column of type t as it is; otherwise
// the error says why not. Where Assign only brings a numeric to its scale, the
// value fits.
func Fits(t Type, v sqlapi.Value) error {
	w, err := Assign(t, v)
	switch {
	case err != nil:
		return err
	case v.Kind == w.Kind && v.Int == w.Int && v.Float == w.Float && string(v.Bytes) == string(w.Bytes):
		return nil
	case t.OID == Numeric && v.Kind != sqlapi.Text, t.OID == Bytea, (t.OID == UUID || t.OID == JSON || t.OID == JSONB) && v.Kind == sqlapi.Text:
		return nil
	case v.Kind == sqlapi.Float && (t.OID == Int2 || t.OID == Int4 || t.OID == Int8):
		return &sqlapi.Error{Code: "22003", Message: TypeName(t.OID) + " out of range", Detail: "The value has a fraction: round or cast it."}
	case v.Kind == sqlapi.Text && (t.OID == Date || t.OID == Time || t.OID == Timestamp || t.OID == TimestampTZ):
		return &sqlapi.Error{Code: "22007", Message: fmt.Sprintf("%q is not stored as a %s", clip(v.Bytes), TypeName(t.OID)),
			Hint: "Cast the expression to the type of the column."}
	case v.Kind == sqlapi.Text && t.Length() > 0:
		return &sqlapi.Error{Code: "22001", Message: "value too long for type " + t.String()}
	}
	return mismatch(t, v)
}

// SQL is the value as a literal of SQLite's.
func SQL(v sqlapi.Value) string {
	switch v.Kind {
	case sqlapi.Integer:
		return strconv.FormatInt(v.Int, 10)
	case sqlapi.Float:
		switch {
		case math.IsInf(v.Float, 1):
			return "9e999"
		case math.IsInf(v.Float, -1):
			return "-9e999"
		}
		s := strconv.FormatFloat(v.Float, 'g', -1, 64)
		if !strings.ContainsAny(s, ".e") {
			s += ".0"
		}
		return s
	case sqlapi.Text:
		return "'" + strings.ReplaceAll(string(v.Bytes), "'", "''") + "'"
	case sqlapi.Blob:
		return "X'" + hex.EncodeToString(v.Bytes) + "'"
	}
	return "NULL"
}
