package value

import (
	"bytes"
	"strconv"
)

const (
	MicrosPerSecond = 1_000_000
	MicrosPerDay    = 86400 * MicrosPerSecond
	epoch2000       = 730425 // days from 0000-03-01, see DaysOf
)

// Stamp is a parsed date, time or both.
type Stamp struct {
	Days             int64 // since 2000-01-01
	Micros           int64 // of the day
	Offset           int64 // seconds east of UTC
	Inf              int   // +1, -1: infinity
	Zoned            bool
	HasDate, HasTime bool
}

// DaysOf counts days in the proleptic Gregorian calendar.
func DaysOf(y, m, d int64) int64 {
	if m <= 2 {
		y--
		m += 12
	}
	era := y / 400
	if y < 0 {
		era = (y - 399) / 400
	}
	yoe := y - era*400
	doy := (153*(m-3)+2)/5 + d - 1
	doe := yoe*365 + yoe/4 - yoe/100 + doy
	return era*146097 + doe - epoch2000
}

func CivilOf(days int64) (y, m, d int64) {
	z := days + epoch2000
	era := z / 146097
	if z < 0 {
		era = (z - 146096) / 146097
	}
	doe := z - era*146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	d, m, y = doy-(153*mp+2)/5+1, mp+3, yoe+era*400
	if m > 12 {
		m -= 12
		y++
	}
	return y, m, d
}

// digits reads between lo and hi digits.
func digits(s []byte, lo, hi int) (v int64, rest []byte, ok bool) {
	n := 0
	for n < len(s) && n < hi && s[n] >= '0' && s[n] <= '9' {
		v = v*10 + int64(s[n]-'0')
		n++
	}
	return v, s[n:], n >= lo
}

func eat(s []byte, c byte) ([]byte, bool) {
	if len(s) > 0 && s[0] == c {
		return s[1:], true
	}
	return s, false
}

// ParseStamp reads "2024-02-29", "12:30:00.5", or both, with a zone
// (Z, +02, +02:00, -0330, UTC) and BC perhaps, or infinity.
func ParseStamp(s []byte) (t Stamp, ok bool) {
	s = bytes.TrimSpace(s)
	switch string(s) {
	case "infinity", "Infinity":
		return Stamp{Inf: 1, HasDate: true, HasTime: true}, true
	case "-infinity", "-Infinity":
		return Stamp{Inf: -1, HasDate: true, HasTime: true}, true
	}
	bc := false
	if b, cut := bytes.CutSuffix(s, []byte(" BC")); cut {
		s, bc = b, true
	}
	if i := bytes.IndexByte(s, '-'); i >= 1 && (i < 3 || s[2] != ':') {
		var y, m, d int64
		var ok1, ok2, ok3, ok4, ok5 bool
		y, s, ok1 = digits(s, 1, 6)
		s, ok2 = eat(s, '-')
		m, s, ok3 = digits(s, 1, 2)
		s, ok4 = eat(s, '-')
		d, s, ok5 = digits(s, 1, 2)
		if bc {
			y = 1 - y
		}
		if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || m < 1 || m > 12 || d < 1 || d > MonthDays(y, m) {
			return t, false
		}
		t.Days, t.HasDate = DaysOf(y, m, d), true
		if len(s) == 0 {
			return t, true
		}
		if s[0] == ' ' || s[0] == 'T' || s[0] == 't' {
			s = s[1:]
		} else if s[0] != '+' && s[0] != 'Z' {
			return t, false
		}
	}
	if h, rest, ok := digits(s, 1, 2); ok {
		var m, sec, frac int64
		s, ok = eat(rest, ':')
		if !ok {
			return t, false
		}
		if m, s, ok = digits(s, 2, 2); !ok {
			return t, false
		}
		if rest, ok := eat(s, ':'); ok {
			if sec, s, ok = digits(rest, 2, 2); !ok {
				return t, false
			}
			if rest, ok := eat(s, '.'); ok {
				var after []byte
				frac, after, ok = digits(rest, 1, 6)
				for n := len(rest) - len(after); n < 6; n++ {
					frac *= 10
				}
				if len(after) > 0 && after[0] >= '5' && after[0] <= '9' {
					frac++
				}
				for len(after) > 0 && after[0] >= '0' && after[0] <= '9' {
					after = after[1:]
				}
				if s = after; !ok {
					return t, false
				}
			}
		}
		if h > 24 || m > 59 || sec > 60 || h == 24 && (m > 0 || sec > 0 || frac > 0) {
			return t, false
		}
		t.Micros, t.HasTime = ((h*60+m)*60+sec)*MicrosPerSecond+frac, true
	} else if !t.HasDate {
		return t, false
	}
	return t, parseZone(bytes.TrimLeft(s, " "), &t)
}

func parseZone(s []byte, t *Stamp) bool {
	switch string(s) {
	case "":
		return true
	case "Z", "z", "UTC", "GMT":
		t.Zoned = true
		return true
	}
	if s[0] != '+' && s[0] != '-' {
		return false
	}
	neg := s[0] == '-'
	h, rest, ok := digits(s[1:], 2, 2)
	if !ok {
		return false
	}
	var parts [2]int64 // minutes, seconds
	for i := range parts {
		if len(rest) == 0 {
			break
		}
		rest, _ = eat(rest, ':')
		if parts[i], rest, ok = digits(rest, 2, 2); !ok || parts[i] > 59 {
			return false
		}
	}
	if len(rest) > 0 || h > 15 {
		return false
	}
	t.Offset, t.Zoned = h*3600+parts[0]*60+parts[1], true
	if neg {
		t.Offset = -t.Offset
	}
	return true
}

func MonthDays(y, m int64) int64 {
	switch m {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if y%4 == 0 && (y%100 != 0 || y%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// Micros2000 is the moment as microseconds since 2000-01-01, in UTC when utc
// is asked for and the text names a zone.
func (t Stamp) Micros2000(utc bool) int64 {
	us := t.Days*MicrosPerDay + t.Micros
	if utc {
		us -= t.Offset * MicrosPerSecond
	}
	return us
}

// AppendTime normalises a text parameter: dates as YYYY-MM-DD, times as
// HH:MM:SS[.ffffff], timestamps as both with a space between, those with a
// zone in UTC without one. So written, SQLite compares them in order of time.
func AppendTime(b []byte, oid uint32, text []byte) ([]byte, bool) {
	t, ok := ParseStamp(text)
	switch {
	case !ok, oid == Time && (!t.HasTime || t.Inf != 0), oid != Time && !t.HasDate:
		return b, false
	case t.Inf > 0:
		return append(b, "infinity"...), true
	case t.Inf < 0:
		return append(b, "-infinity"...), true
	case oid == Time:
		return AppendClock(b, t.Micros), true
	case oid == Date:
		return AppendDate(b, t.Days), true
	}
	return AppendStamp(b, t.Micros2000(oid == TimestampTZ)), true
}

// ValidDay keeps years within 6 digits, which ParseStamp can read back.
func ValidDay(d int64) bool { return d > -2_451_545 && d < 364_000_000 }

func AppendStamp(b []byte, us int64) []byte {
	days, rest := us/MicrosPerDay, us%MicrosPerDay
	if rest < 0 {
		days, rest = days-1, rest+MicrosPerDay
	}
	b, bc := appendYMD(b, days)
	b = AppendClock(append(b, ' '), rest)
	if bc {
		b = append(b, " BC"...)
	}
	return b
}

func AppendDate(b []byte, days int64) []byte {
	b, bc := appendYMD(b, days)
	if bc {
		b = append(b, " BC"...)
	}
	return b
}

func appendYMD(b []byte, days int64) (out []byte, bc bool) {
	y, m, d := CivilOf(days)
	if bc = y <= 0; bc {
		y = 1 - y
	}
	for p := int64(1000); p > y && p > 1; p /= 10 {
		b = append(b, '0')
	}
	b = append(strconv.AppendInt(b, y, 10), '-')
	return append2(append(append2(b, m), '-'), d), bc
}

// AppendClock writes a time of day, the fraction without trailing zeros.
func AppendClock(b []byte, us int64) []byte {
	s := us / MicrosPerSecond
	b = append(append2(b, s/3600), ':')
	b = append(append2(b, s/60%60), ':')
	b = append2(b, s%60)
	if f := us % MicrosPerSecond; f > 0 {
		b = append(b, '.')
		for p := int64(MicrosPerSecond / 10); f > 0; p /= 10 {
			b = append(b, byte('0'+f/p))
			f %= p
		}
	}
	return b
}

func append2(b []byte, v int64) []byte { return append(b, byte('0'+v/10%10), byte('0'+v%10)) }
