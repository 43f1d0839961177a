package value

import (
	"fmt"
	"math"
	"strings"

	"datawatch/internal/sql/sqlapi"
)

// ReadStamp reads a date or time as it is stored or written.
func ReadStamp(text []byte) (Stamp, error) {
	t, ok := ParseStamp(text)
	if !ok {
		return t, &sqlapi.Error{Code: "22007", Message: fmt.Sprintf("invalid input syntax for type timestamp: %q", clip(text))}
	}
	if t.Zoned && t.HasDate && t.Inf == 0 {
		us := t.Micros2000(true)
		t.Days, t.Micros, t.Offset = us/MicrosPerDay, us%MicrosPerDay, 0
		if t.Micros < 0 {
			t.Days, t.Micros = t.Days-1, t.Micros+MicrosPerDay
		}
	}
	return t, nil
}

// Weekday of days since 2000-01-01, a Saturday: 0 is Sunday.
func Weekday(days int64) int64 { return ((days+6)%7 + 7) % 7 }

// ISOWeek is the week and its year.
func ISOWeek(days int64) (year, week int64) {
	thursday := days - (Weekday(days)+6)%7 + 3
	year, _, _ = CivilOf(thursday)
	return year, (thursday-DaysOf(year, 1, 1))/7 + 1
}

func unknownField(field string) error {
	return &sqlapi.Error{Code: "22023", Message: fmt.Sprintf("unit %q is not recognized", field)}
}

// Field is date_part(field, t).
func (t Stamp) Field(field string) (float64, error) {
	y, m, d := CivilOf(t.Days)
	us := t.Micros
	century := func(n int64) float64 {
		if y > 0 {
			return float64((y + n - 1) / n)
		}
		return float64(-((n - y) / n))
	}
	switch f := strings.ToLower(field); f {
	case "year", "years":
		if y <= 0 {
			y--
		}
		return float64(y), nil
	case "month", "months", "mon":
		return float64(m), nil
	case "day", "days":
		return float64(d), nil
	case "hour", "hours":
		return float64(us / (3600 * MicrosPerSecond)), nil
	case "minute", "minutes":
		return float64(us / (60 * MicrosPerSecond) % 60), nil
	case "second", "seconds":
		return float64(us%(60*MicrosPerSecond)) / MicrosPerSecond, nil
	case "milliseconds", "millisecond":
		return float64(us%(60*MicrosPerSecond)) / 1000, nil
	case "microseconds", "microsecond":
		return float64(us % (60 * MicrosPerSecond)), nil
	case "dow":
		return float64(Weekday(t.Days)), nil
	case "isodow":
		return float64((Weekday(t.Days)+6)%7 + 1), nil
	case "doy":
		return float64(t.Days - DaysOf(y, 1, 1) + 1), nil
	case "week":
		_, w := ISOWeek(t.Days)
		return float64(w), nil
	case "isoyear":
		iy, _ := ISOWeek(t.Days)
		return float64(iy), nil
	case "quarter":
		return float64((m-1)/3 + 1), nil
	case "decade":
		return math.Floor(float64(y) / 10), nil
	case "century":
		return century(100), nil
	case "millennium":
		return century(1000), nil
	case "epoch":
		if !t.HasDate {
			return float64(us) / MicrosPerSecond, nil
		}
		return float64(t.Days-DaysOf(1970, 1, 1))*86400 + float64(us)/MicrosPerSecond, nil
	case "julian":
		return float64(t.Days) + 2451545 + float64(us)/MicrosPerDay, nil
	case "timezone", "timezone_hour", "timezone_minute":
		return 0, nil
	}
	return 0, unknownField(field)
}

// Field is date_part(field, interval).
func (iv Interval) Field(field string) (float64, error) {
	us := iv.Micros
	switch strings.ToLower(field) {
	case "year", "years":
		return float64(iv.Months / 12), nil
	case "month", "months":
		return float64(iv.Months % 12), nil
	case "quarter":
		return float64(iv.Months%12/3 + 1), nil
	case "decade":
		return float64(iv.Months / 120), nil
	case "day", "days":
		return float64(iv.Days), nil
	case "hour", "hours":
		return float64(us / (3600 * MicrosPerSecond)), nil
	case "minute", "minutes":
		return float64(us / (60 * MicrosPerSecond) % 60), nil
	case "second", "seconds":
		return float64(us%(60*MicrosPerSecond)) / MicrosPerSecond, nil
	case "milliseconds":
		return float64(us%(60*MicrosPerSecond)) / 1000, nil
	case "microseconds":
		return float64(us % (60 * MicrosPerSecond)), nil
	case "epoch":
		return iv.Seconds(), nil
	}
	return 0, unknownField(field)
}

// Trunc is date_trunc(unit, t).
func (t Stamp) Trunc(unit string) (Stamp, error) {
	y, m, _ := CivilOf(t.Days)
	step := int64(0)
	t.HasTime = true
	switch u := strings.ToLower(unit); u {
	case "microseconds", "microsecond":
		return t, nil
	case "milliseconds", "millisecond":
		step = 1000
	case "second", "seconds":
		step = MicrosPerSecond
	case "minute", "minutes":
		step = 60 * MicrosPerSecond
	case "hour", "hours":
		step = 3600 * MicrosPerSecond
	case "day", "days":
		step = MicrosPerDay
	case "week", "weeks":
		t.Days, t.Micros = t.Days-(Weekday(t.Days)+6)%7, 0
		return t, nil
	default:
		switch u {
		case "month", "months":
		case "quarter":
			m = (m-1)/3*3 + 1
		case "year", "years":
			m = 1
		case "decade":
			y, m = y/10*10, 1
		case "century":
			y, m = (y-1)/100*100+1, 1
		case "millennium":
			y, m = (y-1)/1000*1000+1, 1
		default:
			return t, unknownField(unit)
		}
		t.Days, t.Micros = DaysOf(y, m, 1), 0
		return t, nil
	}
	t.Micros -= t.Micros % step
	return t, nil
}
