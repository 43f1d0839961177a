package pgwire

import (
	"bytes"
	"encoding/binary"
	"strconv"
)

// PostgreSQL's binary numeric: digits to base 10000, with the weight of the
// first, a sign and the number of decimals to show.
const (
	numNeg  = 0x4000
	numNaN  = 0xc000
	numPInf = 0xd000
	numNInf = 0xf000
	// maxShift bounds exponents: no float goes beyond, and no short text may
	// become a long number.
	maxShift = 2000
)

// appendNumeric encodes decimal text.
func appendNumeric(b, text []byte) ([]byte, bool) {
	special := func(sign uint16) ([]byte, bool) {
		b = append(b, 0, 0, 0, 0)
		b = binary.BigEndian.AppendUint16(b, sign)
		return append(b, 0, 0), true
	}
	switch string(text) {
	case "NaN":
		return special(numNaN)
	case "Infinity":
		return special(numPInf)
	case "-Infinity":
		return special(numNInf)
	}
	sign := uint16(0)
	if len(text) > 0 && (text[0] == '-' || text[0] == '+') {
		if text[0] == '-' {
			sign = numNeg
		}
		text = text[1:]
	}
	shift := 0
	if i := bytes.IndexAny(text, "eE"); i >= 0 {
		n, err := strconv.Atoi(string(text[i+1:]))
		if err != nil || n > maxShift || n < -maxShift {
			return b, false
		}
		text, shift = text[:i], n
	}
	if len(text) == 0 || len(text) > 1<<16 {
		return b, false
	}
	digits := make([]byte, 0, 64)
	point := -1
	for _, c := range text {
		switch {
		case c >= '0' && c <= '9':
			digits = append(digits, c)
		case c == '.' && point < 0:
			point = len(digits)
		default:
			return b, false
		}
	}
	if len(digits) == 0 {
		return b, false
	}
	if point < 0 {
		point = len(digits)
	}
	point += shift
	if point > len(digits) {
		digits = append(digits, bytes.Repeat([]byte{'0'}, point-len(digits))...)
	}
	dscale := len(digits) - point
	front := 0 // zeros before the digits so that the point falls between groups
	if point < 0 {
		front = -point
	}
	front += (4 - (point+front)%4) % 4
	weight := (point+front)/4 - 1
	at := len(b)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	n := 0
	for i := -front; i < len(digits); i += 4 {
		v := uint16(0)
		for j := i; j < i+4; j++ {
			v *= 10
			if j >= 0 && j < len(digits) {
				v += uint16(digits[j] - '0')
			}
		}
		if v == 0 && n == 0 {
			weight--
			continue
		}
		b = binary.BigEndian.AppendUint16(b, v)
		n++
	}
	for n > 0 && b[len(b)-1] == 0 && b[len(b)-2] == 0 {
		b = b[:len(b)-2]
		n--
	}
	if n == 0 {
		weight, sign = 0, 0
	}
	binary.BigEndian.PutUint16(b[at:], uint16(n))
	binary.BigEndian.PutUint16(b[at+2:], uint16(weight))
	binary.BigEndian.PutUint16(b[at+4:], sign)
	binary.BigEndian.PutUint16(b[at+6:], uint16(dscale))
	return b, true
}

// decodeNumeric appends the decimal text of a binary numeric.
func decodeNumeric(b, raw []byte) ([]byte, bool) {
	if len(raw) < 8 {
		return b, false
	}
	n := int(binary.BigEndian.Uint16(raw))
	weight := int(int16(binary.BigEndian.Uint16(raw[2:])))
	sign := binary.BigEndian.Uint16(raw[4:])
	dscale := int(binary.BigEndian.Uint16(raw[6:]))
	digits := raw[8:]
	if len(digits) != 2*n || dscale > 16383 {
		return b, false
	}
	switch sign {
	case 0:
	case numNeg:
		b = append(b, '-')
	case numNaN:
		return append(b, "NaN"...), true
	case numPInf:
		return append(b, "Infinity"...), true
	case numNInf:
		return append(b, "-Infinity"...), true
	default:
		return b, false
	}
	group := func(i int) (g [4]byte, ok bool) {
		v := 0
		if i >= 0 && i < n {
			v = int(binary.BigEndian.Uint16(digits[2*i:]))
		}
		for j := 3; j >= 0; j-- {
			g[j] = byte('0' + v%10)
			v /= 10
		}
		return g, v == 0
	}
	start := len(b)
	for i := 0; i <= weight; i++ {
		g, ok := group(i)
		if !ok {
			return b, false
		}
		b = append(b, g[:]...)
	}
	if z := bytes.TrimLeft(b[start:], "0"); len(z) < len(b)-start {
		b = b[:start+copy(b[start:], z)]
	}
	if len(b) == start {
		b = append(b, '0')
	}
	if dscale > 0 {
		b = append(b, '.')
		end := len(b) + dscale
		for i := weight + 1; len(b) < end; i++ {
			g, ok := group(i)
			if !ok {
				return b, false
			}
			b = append(b, g[:]...)
		}
		b = b[:end]
	}
	return b, true
}
