package scan

import (
	"bytes"
	"encoding/binary"
	"math"
	"strconv"
)

// Kind is the storage class of a Value.
type Kind uint8

// Storage classes, in no order that means anything.
const (
	Null Kind = iota
	Int
	Real
	Text
	Blob
)

// Value is what a register of SQLite's machine holds. The zero Value is NULL.
type Value struct {
	Kind  Kind
	n     int64  // Int; the bits of Real
	Bytes []byte // Text, Blob; may belong to a page
}

// IntValue, RealValue, TextValue and BlobValue make values.
func IntValue(n int64) Value { return Value{Kind: Int, n: n} }

// RealValue makes a Real; NaN is NULL, as it is to SQLite.
func RealValue(f float64) Value {
	if f != f {
		return Value{}
	}
	return Value{Kind: Real, n: int64(math.Float64bits(f))}
}

// TextValue makes a Text of the bytes, which it keeps.
func TextValue(b []byte) Value { return Value{Kind: Text, Bytes: b} }

// BlobValue makes a Blob of the bytes, which it keeps.
func BlobValue(b []byte) Value { return Value{Kind: Blob, Bytes: b} }

// Int64 is the number of an Int.
func (v *Value) Int64() int64 { return v.n }

// Float64 is the number of a Real.
func (v *Value) Float64() float64 { return math.Float64frombits(uint64(v.n)) }

// number is an Int or Real as a double.
func (v *Value) number() float64 {
	if v.Kind == Int {
		return float64(v.n)
	}
	return v.Float64()
}

// clone is v with bytes of its own, in buf if they fit.
func (v *Value) clone(buf []byte) Value {
	if v.Kind < Text {
		return Value{Kind: v.Kind, n: v.n, Bytes: buf[:0]}
	}
	return Value{Kind: v.Kind, Bytes: append(buf[:0], v.Bytes...)}
}

// compare orders values as sqlite3MemCompare does with the collation BINARY:
// NULL, numbers, text, blobs.
func compare(a, b *Value) int {
	if a.Kind == Int && b.Kind == Int {
		switch {
		case a.n < b.n:
			return -1
		case a.n > b.n:
			return 1
		}
		return 0
	}
	if ra, rb := rank(a.Kind), rank(b.Kind); ra != rb {
		return ra - rb
	}
	switch a.Kind {
	case Null:
		return 0
	case Text, Blob:
		return bytes.Compare(a.Bytes, b.Bytes)
	case Int:
		return intReal(a.n, b.Float64())
	}
	if b.Kind == Int {
		return -intReal(b.n, a.Float64())
	}
	x, y := a.Float64(), b.Float64()
	switch {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

func rank(k Kind) int {
	switch k {
	case Null:
		return 0
	case Int, Real:
		return 1
	case Text:
		return 2
	}
	return 3
}

// intReal compares an integer with a double without rounding either.
func intReal(i int64, r float64) int {
	switch {
	case r < -9223372036854775808.0:
		return 1
	case r >= 9223372036854775808.0:
		return -1
	}
	y := int64(r)
	switch {
	case i < y:
		return -1
	case i > y:
		return 1
	}
	s := float64(i)
	switch {
	case s < r:
		return -1
	case s > r:
		return 1
	}
	return 0
}

// Affinities, as SQLite codes them.
const (
	affMask    = 0x47
	affBlob    = 'A'
	affText    = 'B'
	affNumeric = 'C'
	affReal    = 'E'
)

// numeric reports whether SQLite may take a text for a number: then the rules of
// its own reader decide, which are not repeated here. A date is none.
func numeric(b []byte) bool {
	space := func(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }
	for len(b) > 0 && space(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && (space(b[len(b)-1]) || b[len(b)-1] == 0) {
		b = b[:len(b)-1]
	}
	digits := 0
	take := func() {
		for len(b) > 0 && b[0] >= '0' && b[0] <= '9' {
			b = b[1:]
			digits++
		}
	}
	sign := func() {
		if len(b) > 0 && (b[0] == '+' || b[0] == '-') {
			b = b[1:]
		}
	}
	sign()
	take()
	if len(b) > 0 && b[0] == '.' {
		b = b[1:]
		take()
	}
	if digits == 0 {
		return false
	}
	if len(b) > 0 && b[0]|0x20 == 'e' {
		b = b[1:]
		sign()
		take()
	}
	return len(b) == 0
}

// compareWith is compare with the affinity of a comparison applied to both
// sides.
func compareWith(a, b *Value, aff uint16) (int, error) {
	switch {
	case aff >= affNumeric:
		if a.Kind == Text && numeric(a.Bytes) || b.Kind == Text && numeric(b.Bytes) {
			if a.Kind != Text || b.Kind != Text || !bytes.Equal(a.Bytes, b.Bytes) {
				return 0, ErrUnsupported
			}
			return 0, nil
		}
	case aff == affText && (a.Kind == Text) != (b.Kind == Text):
		if a.Kind == Real || b.Kind == Real {
			return 0, ErrUnsupported // as SQLite writes it
		}
		var buf [24]byte
		if a.Kind == Int {
			t := TextValue(strconv.AppendInt(buf[:0], a.n, 10))
			return compare(&t, b), nil
		}
		if b.Kind == Int {
			t := TextValue(strconv.AppendInt(buf[:0], b.n, 10))
			return compare(a, &t), nil
		}
	}
	return compare(a, b), nil
}

// Affinity applies an affinity, as SQLite codes it, to a value that is stored or
// looked up.
func Affinity(v *Value, aff byte) error {
	switch {
	case aff >= affNumeric:
		switch {
		case v.Kind == Text && numeric(v.Bytes):
			return ErrUnsupported
		case v.Kind == Real && aff <= affReal:
			r := v.Float64()
			if r > -9223372036854774784.0 && r < 9223372036854774784.0 && float64(int64(r)) == r {
				*v = IntValue(int64(r))
			}
		}
	case aff == affText:
		switch v.Kind {
		case Real:
			return ErrUnsupported
		case Int:
			*v = TextValue(strconv.AppendInt(nil, v.n, 10))
		}
	}
	return nil
}

// arithmetic does one of SQLite's operators: left op right.
func arithmetic(op opcode, left, right *Value) (Value, error) {
	if left.Kind == Null || right.Kind == Null {
		return Value{}, nil
	}
	if left.Kind > Real || right.Kind > Real {
		return Value{}, ErrUnsupported
	}
	if left.Kind == Int && right.Kind == Int {
		a, b := left.n, right.n
		switch op {
		case opAdd:
			if s := a + b; (s^a)&(s^b) >= 0 {
				return IntValue(s), nil
			}
		case opSubtract:
			if s := a - b; (a^b)&(s^a) >= 0 {
				return IntValue(s), nil
			}
		case opMultiply:
			if p, ok := multiply(a, b); ok {
				return IntValue(p), nil
			}
		case opDivide:
			if b == 0 {
				return Value{}, nil
			}
			if b != -1 || a != math.MinInt64 {
				return IntValue(a / b), nil
			}
		case opRemainder:
			switch b {
			case 0:
				return Value{}, nil
			case -1:
				return IntValue(0), nil
			}
			return IntValue(a % b), nil
		}
	} else if op == opRemainder {
		return Value{}, ErrUnsupported
	}
	a, b := left.number(), right.number()
	switch op {
	case opAdd:
		a += b
	case opSubtract:
		a -= b
	case opMultiply:
		a *= b
	default:
		if b == 0 {
			return Value{}, nil
		}
		a /= b
	}
	return RealValue(a), nil
}

func multiply(a, b int64) (int64, bool) {
	if a == 0 || b == 0 {
		return 0, true
	}
	p := a * b
	if p/b != a || a == -1 && b == math.MinInt64 || b == -1 && a == math.MinInt64 {
		return 0, false
	}
	return p, true
}

// appendKey appends to b what is the same for values that compare as equal, and
// for no others.
func appendKey(b []byte, v *Value) []byte {
	switch v.Kind {
	case Int:
		return binary.LittleEndian.AppendUint64(append(b, byte(Int)), uint64(v.n))
	case Real:
		r := v.Float64()
		if r >= -9223372036854775808.0 && r < 9223372036854775808.0 && float64(int64(r)) == r {
			return binary.LittleEndian.AppendUint64(append(b, byte(Int)), uint64(int64(r)))
		}
		return binary.LittleEndian.AppendUint64(append(b, byte(Real)), uint64(v.n))
	case Text, Blob:
		b = binary.AppendUvarint(append(b, byte(v.Kind)), uint64(len(v.Bytes)))
		return append(b, v.Bytes...)
	}
	return append(b, byte(Null))
}
