package pgwire

import (
	"encoding/binary"
	"math"

	"datawatch/internal/sql/value"
)

// SQLite has no dates: they are ISO text. PostgreSQL's binary forms count days
// and microseconds from 2000-01-01.

// appendTimeBinary turns ISO text into the binary form of a type.
func appendTimeBinary(b []byte, oid uint32, text []byte) ([]byte, bool) {
	t, ok := value.ParseStamp(text)
	if !ok || !t.HasDate && oid != oidTime || oid == oidTime && (!t.HasTime || t.Inf != 0) {
		return b, false
	}
	switch oid {
	case oidDate:
		d := t.Days
		switch t.Inf {
		case 1:
			d = math.MaxInt32
		case -1:
			d = math.MinInt32
		}
		return binary.BigEndian.AppendUint32(b, uint32(int32(d))), true
	case oidTime:
		return binary.BigEndian.AppendUint64(b, uint64(t.Micros)), true
	}
	us := t.Micros2000(oid == oidTimestamptz)
	switch t.Inf {
	case 1:
		us = math.MaxInt64
	case -1:
		us = math.MinInt64
	}
	return binary.BigEndian.AppendUint64(b, uint64(us)), true
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
			return value.AppendDate(b, int64(d)), value.ValidDay(int64(d))
		}
	}
	us := int64(binary.BigEndian.Uint64(raw))
	switch {
	case oid == oidTime:
		if us < 0 || us > value.MicrosPerDay {
			return b, false
		}
		return value.AppendClock(b, us), true
	case us == math.MaxInt64:
		return append(b, "infinity"...), true
	case us == math.MinInt64:
		return append(b, "-infinity"...), true
	}
	return value.AppendStamp(b, us), value.ValidDay(us / value.MicrosPerDay)
}
