package pgwire

import (
	"bytes"
	"encoding/binary"
	"math"
	"strconv"
)

// SQLite has no dates: they are ISO text. PostgreSQL's binary forms count days
// and microseconds from 2000-01-01.

const (
	usPerSecond = 1_000_000
	usPerDay    = 86400 * usPerSecond
	epoch2000   = 730425 // days from 0000-03-01, see daysFromCivil
)

// stamp is a parsed date, time or both.
type stamp struct {
	days             int64 // since 2000-01-01
	micros           int64 // of the day
	offset           int64 // seconds east of UTC
	inf              int   // +1, -1: infinity
	zoned            bool
	hasDate, hasTime bool
}

// daysFromCivil counts days in the proleptic Gregorian calendar.
func daysFromCivil(y, m, d int64) int64 {
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

func civilFromDays(days int64) (y, m, d int64) {
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

// parseTimestamp reads "2024-02-29", "12:30:00.5", or both, with a zone
// (Z, +02, +02:00, -0330, UTC) and BC perhaps, or infinity.
func parseTimestamp(s []byte) (t stamp, ok bool) {
	s = bytes.TrimSpace(s)
	switch string(s) {
	case "infinity", "Infinity":
		return stamp{inf: 1, hasDate: true, hasTime: true}, true
	case "-infinity", "-Infinity":
		return stamp{inf: -1, hasDate: true, hasTime: true}, true
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
		if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || m < 1 || m > 12 || d < 1 || d > monthDays(y, m) {
			return t, false
		}
		t.days, t.hasDate = daysFromCivil(y, m, d), true
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
		t.micros, t.hasTime = ((h*60+m)*60+sec)*usPerSecond+frac, true
	} else if !t.hasDate {
		return t, false
	}
	return t, parseZone(bytes.TrimLeft(s, " "), &t)
}

func parseZone(s []byte, t *stamp) bool {
	switch string(s) {
	case "":
		return true
	case "Z", "z", "UTC", "GMT":
		t.zoned = true
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
	t.offset, t.zoned = h*3600+parts[0]*60+parts[1], true
	if neg {
		t.offset = -t.offset
	}
	return true
}

func monthDays(y, m int64) int64 {
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

// micros2000 is the moment as microseconds since 2000-01-01, in UTC when utc
// is asked for and the text names a zone.
func (t stamp) micros2000(utc bool) int64 {
	us := t.days*usPerDay + t.micros
	if utc {
		us -= t.offset * usPerSecond
	}
	return us
}

// appendTimeBinary turns ISO text into the binary form of a type.
func appendTimeBinary(b []byte, oid uint32, text []byte) ([]byte, bool) {
	t, ok := parseTimestamp(text)
	if !ok || !t.hasDate && oid != oidTime || oid == oidTime && (!t.hasTime || t.inf != 0) {
		return b, false
	}
	switch oid {
	case oidDate:
		d := t.days
		switch t.inf {
		case 1:
			d = math.MaxInt32
		case -1:
			d = math.MinInt32
		}
		return binary.BigEndian.AppendUint32(b, uint32(int32(d))), true
	case oidTime:
		return binary.BigEndian.AppendUint64(b, uint64(t.micros)), true
	}
	us := t.micros2000(oid == oidTimestamptz)
	switch t.inf {
	case 1:
		us = math.MaxInt64
	case -1:
		us = math.MinInt64
	}
	return binary.BigEndian.AppendUint64(b, uint64(us)), true
}

// appendTimeText normalises a text parameter: dates as YYYY-MM-DD, times as
// HH:MM:SS[.ffffff], timestamps as both with a space between, those with a
// zone in UTC without one. So written, SQLite compares them in order of time.
func appendTimeText(b []byte, oid uint32, text []byte) ([]byte, bool) {
	t, ok := parseTimestamp(text)
	switch {
	case !ok, oid == oidTime && (!t.hasTime || t.inf != 0), oid != oidTime && !t.hasDate:
		return b, false
	case t.inf > 0:
		return append(b, "infinity"...), true
	case t.inf < 0:
		return append(b, "-infinity"...), true
	case oid == oidTime:
		return appendClock(b, t.micros), true
	case oid == oidDate:
		return appendDate(b, t.days), true
	}
	return appendStamp(b, t.micros2000(oid == oidTimestamptz)), true
}

// appendTimeFromBinary turns a binary parameter into the same text.
func appendTimeFromBinary(b []byte, oid uint32, raw []byte) ([]byte, bool) {
	if oid == oidDate {
		switch d := int32(binary.BigEndian.Uint32(raw)); d {
		case math.MaxInt32:
			return append(b, "infinity"...), true
		case math.MinInt32:
			return append(b, "-infinity"...), true
		default:
			return appendDate(b, int64(d)), validDay(int64(d))
		}
	}
	us := int64(binary.BigEndian.Uint64(raw))
	switch {
	case oid == oidTime:
		if us < 0 || us > usPerDay {
			return b, false
		}
		return appendClock(b, us), true
	case us == math.MaxInt64:
		return append(b, "infinity"...), true
	case us == math.MinInt64:
		return append(b, "-infinity"...), true
	}
	return appendStamp(b, us), validDay(us / usPerDay)
}

// validDay keeps years within 6 digits, which parseTimestamp can read back.
func validDay(d int64) bool { return d > -2_451_545 && d < 364_000_000 }

func appendStamp(b []byte, us int64) []byte {
	days, rest := us/usPerDay, us%usPerDay
	if rest < 0 {
		days, rest = days-1, rest+usPerDay
	}
	b, bc := appendYMD(b, days)
	b = appendClock(append(b, ' '), rest)
	if bc {
		b = append(b, " BC"...)
	}
	return b
}

func appendDate(b []byte, days int64) []byte {
	b, bc := appendYMD(b, days)
	if bc {
		b = append(b, " BC"...)
	}
	return b
}

func appendYMD(b []byte, days int64) (out []byte, bc bool) {
	y, m, d := civilFromDays(days)
	if bc = y <= 0; bc {
		y = 1 - y
	}
	for p := int64(1000); p > y && p > 1; p /= 10 {
		b = append(b, '0')
	}
	b = append(strconv.AppendInt(b, y, 10), '-')
	return append2(append(append2(b, m), '-'), d), bc
}

// appendClock writes a time of day, the fraction without trailing zeros.
func appendClock(b []byte, us int64) []byte {
	s := us / usPerSecond
	b = append(append2(b, s/3600), ':')
	b = append(append2(b, s/60%60), ':')
	b = append2(b, s%60)
	if f := us % usPerSecond; f > 0 {
		b = append(b, '.')
		for p := int64(usPerSecond / 10); f > 0; p /= 10 {
			b = append(b, byte('0'+f/p))
			f %= p
		}
	}
	return b
}

func append2(b []byte, v int64) []byte { return append(b, byte('0'+v/10%10), byte('0'+v%10)) }
