package value

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"datawatch/internal/sql/sqlapi"
)

// Interval is a length of time; months and days have no fixed length.
type Interval struct {
	Months, Days int64
	Micros       int64
}

// units are the names of PostgreSQL's units of time, in the parts they have.
var units = map[string]Interval{
	"microsecond": {Micros: 1}, "us": {Micros: 1}, "millisecond": {Micros: 1000}, "ms": {Micros: 1000},
	"second": {Micros: MicrosPerSecond}, "sec": {Micros: MicrosPerSecond}, "s": {Micros: MicrosPerSecond},
	"minute": {Micros: 60 * MicrosPerSecond}, "min": {Micros: 60 * MicrosPerSecond}, "m": {Micros: 60 * MicrosPerSecond},
	"hour": {Micros: 3600 * MicrosPerSecond}, "hr": {Micros: 3600 * MicrosPerSecond}, "h": {Micros: 3600 * MicrosPerSecond},
	"day": {Days: 1}, "d": {Days: 1}, "week": {Days: 7}, "w": {Days: 7}, "month": {Months: 1}, "mon": {Months: 1}, "quarter": {Months: 3},
	"year": {Months: 12}, "yr": {Months: 12}, "y": {Months: 12}, "decade": {Months: 120}, "century": {Months: 1200}, "centurie": {Months: 1200}, "millennium": {Months: 12000},
}

// maxPart bounds the parts of an interval: 178 million years, as PostgreSQL.
const maxPart = 1 << 31

// ParseInterval reads "1 year 2 mons -3 days 04:05:06.7", "90 minutes", "1 day
// ago", or ISO 8601's P1DT2H; a number alone counts seconds.
func ParseInterval(text string) (Interval, error) {
	var iv Interval
	bad := func() (Interval, error) {
		return iv, &sqlapi.Error{Code: "22007", Message: fmt.Sprintf("invalid input syntax for type interval: %q", text)}
	}
	s := strings.ToLower(strings.TrimSpace(text))
	if strings.HasPrefix(s, "p") {
		var ok bool
		if iv, ok = isoInterval(s[1:]); !ok {
			return bad()
		}
		return iv, nil
	}
	words := splitInterval(strings.TrimPrefix(s, "@"))
	if len(words) == 0 {
		return bad()
	}
	sign := int64(1)
	if words[len(words)-1] == "ago" {
		sign, words = -1, words[:len(words)-1]
	}
	for i := 0; i < len(words); i++ {
		w := words[i]
		if strings.Contains(w, ":") {
			neg := strings.HasPrefix(w, "-")
			st, ok := clock(strings.TrimLeft(w, "+-"))
			if !ok {
				return bad()
			}
			if neg {
				st = -st
			}
			iv.Micros += st
			continue
		}
		f, err := strconv.ParseFloat(w, 64)
		if err != nil || math.Abs(f) > maxPart || math.IsNaN(f) {
			return bad()
		}
		unit := "second"
		if i+1 < len(words) {
			i++
			unit = words[i]
		} else if len(words) > 1 {
			return bad()
		}
		if !iv.add(f, unit) {
			return bad()
		}
	}
	if sign < 0 {
		iv = iv.Neg()
	}
	return iv, nil
}

func splitInterval(s string) []string {
	var out []string
	for _, f := range strings.Fields(strings.ReplaceAll(s, ",", " ")) {
		at := 0 // "10min" is two words
		for at < len(f) && (f[at] >= '0' && f[at] <= '9' || strings.IndexByte("+-.:", f[at]) >= 0) {
			at++
		}
		if at > 0 && at < len(f) {
			out = append(out, f[:at], f[at:])
		} else {
			out = append(out, f)
		}
	}
	return out
}

// clock reads h:mm[:ss[.frac]] of any number of hours.
func clock(s string) (int64, bool) {
	parts := strings.Split(s, ":")
	if len(parts) < 2 || len(parts) > 3 {
		return 0, false
	}
	h, err := strconv.ParseInt(parts[0], 10, 32)
	m, err2 := strconv.ParseInt(parts[1], 10, 32)
	sec := 0.0
	var err3 error
	if len(parts) == 3 {
		sec, err3 = strconv.ParseFloat(parts[2], 64)
	}
	if err != nil || err2 != nil || err3 != nil || m > 59 || m < 0 || sec < 0 || sec >= 61 {
		return 0, false
	}
	return (h*3600+m*60)*MicrosPerSecond + int64(math.Round(sec*MicrosPerSecond)), true
}

// add adds f units; fractions go to the smaller parts, a month having 30 days.
func (iv *Interval) add(f float64, unit string) bool {
	u, ok := units[unit]
	if !ok {
		if u, ok = units[strings.TrimSuffix(unit, "s")]; !ok {
			return false
		}
	}
	whole := func(x float64) (int64, float64) { i, frac := math.Modf(x); return int64(i), frac }
	switch {
	case u.Months > 0:
		m, frac := whole(math.Round(f*float64(u.Months)*1e6) / 1e6)
		d, rest := whole(math.Round(frac*30*1e6) / 1e6)
		iv.Months, iv.Days, iv.Micros = iv.Months+m, iv.Days+d, iv.Micros+int64(math.Round(rest*MicrosPerDay))
	case u.Days > 0:
		d, frac := whole(f * float64(u.Days))
		iv.Days, iv.Micros = iv.Days+d, iv.Micros+int64(math.Round(frac*MicrosPerDay))
	default:
		iv.Micros += int64(math.Round(f * float64(u.Micros)))
	}
	return iv.Months < maxPart && iv.Months > -maxPart && iv.Days < maxPart && iv.Days > -maxPart
}

func isoInterval(s string) (iv Interval, ok bool) {
	names := map[byte]string{'y': "year", 'm': "month", 'w': "week", 'd': "day"}
	for len(s) > 0 {
		if s[0] == 't' {
			names, s = map[byte]string{'h': "hour", 'm': "minute", 's': "second"}, s[1:]
			continue
		}
		n := 0
		for n < len(s) && (s[n] >= '0' && s[n] <= '9' || s[n] == '.' || s[n] == '-') {
			n++
		}
		f, err := strconv.ParseFloat(s[:n], 64)
		if err != nil || n == len(s) || names[s[n]] == "" || !iv.add(f, names[s[n]]) {
			return iv, false
		}
		ok, s = true, s[n+1:]
	}
	return iv, ok
}

// Neg is the interval backwards.
func (iv Interval) Neg() Interval { return Interval{-iv.Months, -iv.Days, -iv.Micros} }

// Plus adds two intervals.
func (iv Interval) Plus(o Interval) Interval {
	return Interval{iv.Months + o.Months, iv.Days + o.Days, iv.Micros + o.Micros}
}

// Times multiplies an interval.
func (iv Interval) Times(f float64) Interval {
	var out Interval
	out.add(float64(iv.Months)*f, "month")
	out.add(float64(iv.Days)*f, "day")
	out.Micros += int64(math.Round(float64(iv.Micros) * f))
	return out
}

// Seconds is the length with months of 30 and years of 365.25 days.
func (iv Interval) Seconds() float64 {
	y, m := iv.Months/12, iv.Months%12
	return float64(y)*365.25*86400 + float64(m*30+iv.Days)*86400 + float64(iv.Micros)/MicrosPerSecond
}

// String is PostgreSQL's form: 1 year 2 mons 3 days 04:05:06.
func (iv Interval) String() string {
	var b []string
	part := func(n int64, one, many string) {
		switch {
		case n == 0:
		case n == 1:
			b = append(b, "1 "+one)
		default:
			b = append(b, strconv.FormatInt(n, 10)+" "+many)
		}
	}
	part(iv.Months/12, "year", "years")
	part(iv.Months%12, "mon", "mons")
	part(iv.Days, "day", "days")
	if iv.Micros != 0 || len(b) == 0 {
		us, sign := iv.Micros, ""
		if us < 0 {
			us, sign = -us, "-"
		}
		b = append(b, sign+string(AppendClock(nil, us)))
	}
	return strings.Join(b, " ")
}

// Shift moves a date or time by an interval: the result of a date is a
// timestamp, as in PostgreSQL.
func (t Stamp) Shift(iv Interval) Stamp {
	if t.Inf != 0 {
		return t
	}
	if !t.HasDate { // a time of day goes round
		t.Micros = ((t.Micros+iv.Micros)%MicrosPerDay + MicrosPerDay) % MicrosPerDay
		return t
	}
	y, m, d := CivilOf(t.Days)
	months := y*12 + m - 1 + iv.Months
	y, m = months/12, months%12+1
	if months < 0 && m < 1 {
		y, m = y-1, m+12
	}
	us := (DaysOf(y, m, min(d, MonthDays(y, m)))+iv.Days)*MicrosPerDay + t.Micros + iv.Micros
	t.Days, t.Micros = us/MicrosPerDay, us%MicrosPerDay
	if t.Micros < 0 {
		t.Days, t.Micros = t.Days-1, t.Micros+MicrosPerDay
	}
	t.HasTime = true
	return t
}

// Text is the stamp as it is stored.
func (t Stamp) Text() string {
	switch {
	case t.Inf > 0:
		return "infinity"
	case t.Inf < 0:
		return "-infinity"
	case !t.HasDate:
		return string(AppendClock(nil, t.Micros))
	case !t.HasTime:
		return string(AppendDate(nil, t.Days))
	}
	return string(AppendStamp(nil, t.Days*MicrosPerDay+t.Micros))
}

// Since is t - o: days and a time of day.
func (t Stamp) Since(o Stamp) Interval {
	us := (t.Days-o.Days)*MicrosPerDay + t.Micros - o.Micros
	return Interval{Days: us / MicrosPerDay, Micros: us % MicrosPerDay}
}

// Age is age(t, o): years, months and days as a calendar counts them.
func (t Stamp) Age(o Stamp) Interval {
	if t.Days*MicrosPerDay+t.Micros < o.Days*MicrosPerDay+o.Micros {
		return o.Age(t).Neg()
	}
	ty, tm, td := CivilOf(t.Days)
	oy, om, od := CivilOf(o.Days)
	months, days, us := (ty-oy)*12+tm-om, td-od, t.Micros-o.Micros
	if us < 0 {
		us, days = us+MicrosPerDay, days-1
	}
	if days < 0 {
		months--
		days += MonthDays(oy, om) // the month that the earlier date is in
	}
	return Interval{months, days, us}
}
