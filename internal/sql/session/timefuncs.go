package session

import (
	"fmt"
	"math"

	"github.com/ncruces/go-sqlite3"

	"datawatch/internal/sql/sqlapi"
	"datawatch/internal/sql/value"
)

// function is one of PostgreSQL's: NULL in, NULL out.
type function struct {
	name string
	n    int // arguments, -1: any
	fn   func(a []sqlapi.Value) (sqlapi.Value, error)
}

// register makes functions that depend on nothing but their arguments known.
func (c *conn) register(list []function) error {
	for _, f := range list {
		fn := f.fn
		err := c.db.CreateFunction(f.name, f.n, sqlite3.INNOCUOUS|sqlite3.DETERMINISTIC, sqlFunction(func(a []sqlapi.Value) (sqlapi.Value, error) {
			for _, v := range a {
				if v.Kind == sqlapi.Null {
					return v, nil
				}
			}
			return fn(a)
		}))
		if err != nil {
			return fmt.Errorf("register function %s: %w", f.name, err)
		}
	}
	return nil
}

func str(v sqlapi.Value) string {
	if w, err := value.Cast(value.Type{OID: value.VarChar, Mod: 1<<20 + 4}, v); err == nil {
		return string(w.Bytes)
	}
	return string(v.Bytes)
}

func numberOf(v sqlapi.Value) (float64, error) {
	switch v.Kind {
	case sqlapi.Integer:
		return float64(v.Int), nil
	case sqlapi.Float:
		return v.Float, nil
	}
	w, err := value.Assign(value.Type{OID: value.Float8, Mod: -1}, v)
	return w.Float, err
}

func whole(v sqlapi.Value) (int64, error) {
	w, err := value.Cast(value.Type{OID: value.Int8, Mod: -1}, v)
	return w.Int, err
}

func badArgument(format string, a ...any) error {
	return &sqlapi.Error{Code: "22023", Message: fmt.Sprintf(format, a...)}
}

func floatValue(f float64) sqlapi.Value { return sqlapi.Value{Kind: sqlapi.Float, Float: f} }

// numericValue is a whole number when it is one.
func numericValue(f float64) sqlapi.Value {
	if i := int64(f); float64(i) == f && math.Abs(f) < 1<<53 {
		return intValue(i)
	}
	return floatValue(f)
}

// moment reads an argument that is a time or an interval.
func moment(v sqlapi.Value) (t value.Stamp, iv value.Interval, isInterval bool, err error) {
	if v.Kind != sqlapi.Text {
		return t, iv, false, &sqlapi.Error{Code: "42883", Message: "the argument is neither a time nor an interval"}
	}
	if t, err = value.ReadStamp(v.Bytes); err == nil {
		return t, iv, false, nil
	}
	if iv, e := value.ParseInterval(string(v.Bytes)); e == nil {
		return t, iv, true, nil
	}
	return t, iv, false, err
}

// momentOr is moment for an argument that may be known to be an interval.
func momentOr(v sqlapi.Value, interval bool) (t value.Stamp, iv value.Interval, isInterval bool, err error) {
	if interval {
		iv, err = intervalArg(v)
		return t, iv, true, err
	}
	return moment(v)
}

func datePart(a []sqlapi.Value) (float64, error) {
	t, iv, isInterval, err := moment(a[1])
	if err != nil {
		return 0, err
	}
	if isInterval {
		return iv.Field(str(a[0]))
	}
	return t.Field(str(a[0]))
}

// timePlus is a + b, or a - b with sign -1, where one of them is about time.
// intervals has 1 for a, 2 for b that is certainly an interval.
func timePlus(a, b sqlapi.Value, sign, intervals int64) (sqlapi.Value, error) {
	if a.Kind != sqlapi.Text && b.Kind == sqlapi.Text && sign > 0 {
		a, b, intervals = b, a, intervals>>1
	}
	ta, ia, aInterval, err := momentOr(a, intervals&1 != 0)
	if err != nil {
		return a, err
	}
	if b.Kind == sqlapi.Integer || b.Kind == sqlapi.Float { // days of a date
		if aInterval || ta.HasTime || !ta.HasDate || b.Kind == sqlapi.Float {
			return a, &sqlapi.Error{Code: "42883", Message: "operator does not exist: only a date and a whole number can be added"}
		}
		ta.Days += sign * b.Int
		if !value.ValidDay(ta.Days) {
			return a, &sqlapi.Error{Code: "22008", Message: "date out of range"}
		}
		return textValue(ta.Text()), nil
	}
	tb, ib, bInterval, err := momentOr(b, intervals&2 != 0)
	if err != nil {
		return b, err
	}
	if sign < 0 {
		ib = ib.Neg()
	}
	var t value.Stamp
	switch {
	case aInterval && bInterval:
		return textValue(ia.Plus(ib).String()), nil
	case bInterval:
		t = ta.Shift(ib)
	case aInterval && sign > 0:
		t = tb.Shift(ia)
	case aInterval:
		return a, &sqlapi.Error{Code: "42883", Message: "operator does not exist: interval - timestamp"}
	case sign < 0 && !ta.HasTime && !tb.HasTime:
		return intValue(ta.Days - tb.Days), nil
	case sign < 0:
		return textValue(ta.Since(tb).String()), nil
	case !ta.HasDate && tb.HasDate:
		ta, tb = tb, ta
		fallthrough
	case ta.HasDate && !tb.HasDate: // a date and a time of day
		t = ta.Shift(value.Interval{Micros: tb.Micros})
	default:
		return a, &sqlapi.Error{Code: "42883", Message: "operator does not exist: timestamp + timestamp"}
	}
	if t.HasDate && !value.ValidDay(t.Days) {
		return a, &sqlapi.Error{Code: "22008", Message: "timestamp out of range"}
	}
	return textValue(t.Text()), nil
}

func intervalArg(v sqlapi.Value) (value.Interval, error) {
	if v.Kind != sqlapi.Text {
		return value.Interval{}, &sqlapi.Error{Code: "42846", Message: "cannot cast to interval"}
	}
	return value.ParseInterval(string(v.Bytes))
}

var timeFunctions = []function{
	{"dw_time_plus", 3, func(a []sqlapi.Value) (sqlapi.Value, error) { return timePlus(a[0], a[1], 1, a[2].Int) }},
	{"dw_time_minus", 3, func(a []sqlapi.Value) (sqlapi.Value, error) { return timePlus(a[0], a[1], -1, a[2].Int) }},
	{"dw_interval_mul", 3, func(a []sqlapi.Value) (sqlapi.Value, error) {
		if a[0].Kind != sqlapi.Text {
			a[0], a[1] = a[1], a[0]
		}
		iv, err := intervalArg(a[0])
		if err != nil {
			return a[0], err
		}
		f, err := numberOf(a[1])
		return textValue(iv.Times(f).String()), err
	}},
	{"dw_interval", 1, func(a []sqlapi.Value) (sqlapi.Value, error) {
		iv, err := intervalArg(a[0])
		return textValue(iv.String()), err
	}},
	{"make_interval", 4, func(a []sqlapi.Value) (sqlapi.Value, error) {
		var n [4]int64
		for i := range n {
			n[i] = a[i].Int
		}
		return textValue(value.Interval{Months: n[0]*12 + n[1], Days: n[2]*7 + n[3]}.String()), nil
	}},
	{"justify_hours", 1, func(a []sqlapi.Value) (sqlapi.Value, error) {
		iv, err := intervalArg(a[0])
		iv.Days, iv.Micros = iv.Days+iv.Micros/value.MicrosPerDay, iv.Micros%value.MicrosPerDay
		return textValue(iv.String()), err
	}},
	{"justify_days", 1, func(a []sqlapi.Value) (sqlapi.Value, error) {
		iv, err := intervalArg(a[0])
		iv.Months, iv.Days = iv.Months+iv.Days/30, iv.Days%30
		return textValue(iv.String()), err
	}},
	{"date_part", 2, func(a []sqlapi.Value) (sqlapi.Value, error) { f, err := datePart(a); return floatValue(f), err }},
	{"dw_extract", 2, func(a []sqlapi.Value) (sqlapi.Value, error) {
		f, err := datePart(a)
		return numericValue(f), err
	}},
	{"date_trunc", 2, func(a []sqlapi.Value) (sqlapi.Value, error) {
		t, err := value.ReadStamp(a[1].Bytes)
		if err == nil {
			t, err = t.Trunc(str(a[0]))
		}
		return textValue(t.Text()), err
	}},
	{"age", 2, func(a []sqlapi.Value) (sqlapi.Value, error) {
		t, err := value.ReadStamp(a[0].Bytes)
		if err != nil {
			return a[0], err
		}
		o, err := value.ReadStamp(a[1].Bytes)
		return textValue(t.Age(o).String()), err
	}},
	{"make_date", 3, func(a []sqlapi.Value) (sqlapi.Value, error) {
		return value.Assign(value.Type{OID: value.Date, Mod: -1}, textValue(fmt.Sprintf("%04d-%02d-%02d", a[0].Int, a[1].Int, a[2].Int)))
	}},
	{"make_timestamp", 6, func(a []sqlapi.Value) (sqlapi.Value, error) {
		sec, err := numberOf(a[5])
		if err != nil {
			return a[5], err
		}
		return value.Assign(value.Type{OID: value.Timestamp, Mod: -1}, textValue(fmt.Sprintf("%04d-%02d-%02d %02d:%02d:%09.6f", a[0].Int, a[1].Int, a[2].Int, a[3].Int, a[4].Int, sec)))
	}},
	{"to_char", 2, func(a []sqlapi.Value) (sqlapi.Value, error) {
		if a[0].Kind == sqlapi.Integer || a[0].Kind == sqlapi.Float {
			f, err := numberOf(a[0])
			return textValue(value.FormatNumber(f, str(a[1]))), err
		}
		t, iv, isInterval, err := moment(a[0])
		if err != nil {
			return a[0], err
		}
		if isInterval {
			t = value.Stamp{Micros: iv.Micros, HasTime: true}
		}
		return textValue(value.FormatTime(t, str(a[1]))), nil
	}},
	{"to_date", 2, func(a []sqlapi.Value) (sqlapi.Value, error) {
		t, err := value.ScanTime(str(a[0]), str(a[1]))
		t.HasTime = false
		return textValue(t.Text()), err
	}},
	{"to_timestamp", 2, func(a []sqlapi.Value) (sqlapi.Value, error) {
		t, err := value.ScanTime(str(a[0]), str(a[1]))
		return textValue(t.Text()), err
	}},
	{"to_timestamp", 1, func(a []sqlapi.Value) (sqlapi.Value, error) {
		f, err := numberOf(a[0])
		if err != nil || math.Abs(f) > 1e12 {
			return a[0], badArgument("timestamp out of range: %v", f)
		}
		t := value.Stamp{Days: value.DaysOf(1970, 1, 1), HasDate: true, HasTime: true}.Shift(value.Interval{Micros: int64(math.Round(f * value.MicrosPerSecond))})
		return textValue(t.Text()), nil
	}},
	{"to_number", 2, func(a []sqlapi.Value) (sqlapi.Value, error) {
		var digits []byte
		for _, c := range []byte(str(a[0])) {
			if c >= '0' && c <= '9' || c == '.' || c == '-' {
				digits = append(digits, c)
			}
		}
		return value.Assign(value.Type{OID: value.Numeric, Mod: -1}, sqlapi.Value{Kind: sqlapi.Text, Bytes: digits})
	}},
}
