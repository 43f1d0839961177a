package value

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"datawatch/internal/sql/sqlapi"
)

var (
	monthNames = []string{"January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"}
	dayNames   = []string{"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"}
)

// timePatterns are the patterns of to_char for times, the longer before those
// they begin with.
var timePatterns = []string{"SSSS", "IYYY", "YYYY", "Y,YYY", "YYY", "MONTH", "Month", "month", "HH24", "HH12", "DDD", "MON", "Mon", "mon", "DAY", "Day", "day",
	"A.M.", "P.M.", "a.m.", "p.m.", "YY", "IY", "MM", "DD", "DY", "Dy", "dy", "HH", "MI", "SS", "MS", "US", "AM", "PM", "am", "pm", "WW", "IW", "CC", "ID", "TZ", "OF", "Y", "Q", "D", "J", "W"}

// spelled are the patterns whose case is that of the result.
var spelled = map[string]bool{"MONTH": true, "MON": true, "DAY": true, "DY": true, "AM": true, "PM": true, "A.M.": true, "P.M.": true}

// pattern finds the pattern at the start of f; its case matters for names only.
func pattern(f string) string {
	for _, p := range timePatterns {
		if len(f) >= len(p) && (f[:len(p)] == p || strings.EqualFold(f[:len(p)], p) && !spelled[strings.ToUpper(p)]) {
			return p
		}
	}
	return ""
}

// FormatTime is to_char(t, format).
func FormatTime(t Stamp, format string) string {
	var b strings.Builder
	y, m, d := CivilOf(t.Days)
	h, mi, s := t.Micros/(3600*MicrosPerSecond), t.Micros/(60*MicrosPerSecond)%60, t.Micros/MicrosPerSecond%60
	us := t.Micros % MicrosPerSecond
	for f := format; f != ""; {
		fill := true
		if len(f) > 2 && strings.EqualFold(f[:2], "FM") {
			f, fill = f[2:], false
		}
		if f[0] == '"' {
			end := strings.IndexByte(f[1:], '"')
			if end < 0 {
				b.WriteString(f[1:])
				break
			}
			b.WriteString(f[1 : end+1])
			f = f[end+2:]
			continue
		}
		p := pattern(f)
		if p == "" {
			b.WriteByte(f[0])
			f = f[1:]
			continue
		}
		f = f[len(p):]
		var n, width int64 = -1, 2
		text, pad := "", 0
		name := func(s string, w int) {
			if p == strings.ToUpper(p) {
				s = strings.ToUpper(s)
			} else if p == strings.ToLower(p) {
				s = strings.ToLower(s)
			}
			text, pad = s, w
		}
		half := func(am, pm string) string {
			if h < 12 {
				return am
			}
			return pm
		}
		switch strings.ToUpper(p) {
		case "YYYY":
			n, width = y, 4
		case "Y,YYY":
			text = fmt.Sprintf("%d,%03d", y/1000, y%1000)
		case "YYY":
			n, width = y%1000, 3
		case "YY":
			n = y % 100
		case "Y":
			n, width = y%10, 1
		case "IYYY":
			n, _ = ISOWeek(t.Days)
			width = 4
		case "IY":
			n, _ = ISOWeek(t.Days)
			n %= 100
		case "MM":
			n = m
		case "MONTH":
			name(monthNames[m-1], 9)
		case "MON":
			name(monthNames[m-1][:3], 0)
		case "DD":
			n = d
		case "DDD":
			n, width = t.Days-DaysOf(y, 1, 1)+1, 3
		case "D":
			n, width = Weekday(t.Days)+1, 1
		case "ID":
			n, width = (Weekday(t.Days)+6)%7+1, 1
		case "DAY":
			name(dayNames[Weekday(t.Days)], 9)
		case "DY":
			name(dayNames[Weekday(t.Days)][:3], 0)
		case "HH24":
			n = h
		case "HH", "HH12":
			n = (h+11)%12 + 1
		case "MI":
			n = mi
		case "SS":
			n = s
		case "SSSS":
			n, width = t.Micros/MicrosPerSecond, 1
		case "MS":
			n, width = us/1000, 3
		case "US":
			n, width = us, 6
		case "AM", "PM":
			if text = half("AM", "PM"); p == strings.ToLower(p) {
				text = strings.ToLower(text)
			}
		case "A.M.", "P.M.":
			if text = half("A.M.", "P.M."); p == strings.ToLower(p) {
				text = strings.ToLower(text)
			}
		case "Q":
			n, width = (m-1)/3+1, 1
		case "WW":
			n = (t.Days-DaysOf(y, 1, 1))/7 + 1
		case "W":
			n, width = (d-1)/7+1, 1
		case "IW":
			_, n = ISOWeek(t.Days)
		case "CC":
			n = (y + 99) / 100
		case "J":
			n, width = t.Days+2451545, 1
		case "TZ":
			text = "UTC"
		case "OF":
			text = "+00"
		}
		if n >= 0 {
			if !fill {
				width = 1
			}
			text = fmt.Sprintf("%0*d", width, n)
			if len(f) >= 2 && strings.EqualFold(f[:2], "TH") {
				th := ordinal(n)
				if f[:2] == "TH" {
					th = strings.ToUpper(th)
				}
				text, f = text+th, f[2:]
			}
		}
		if fill && len(text) < pad {
			text += strings.Repeat(" ", pad-len(text))
		}
		b.WriteString(text)
	}
	return b.String()
}

func ordinal(n int64) string {
	if n%100/10 != 1 {
		switch n % 10 {
		case 1:
			return "st"
		case 2:
			return "nd"
		case 3:
			return "rd"
		}
	}
	return "th"
}

// ScanTime is to_timestamp(text, format): what the format does not name is that
// of 0001-01-01 00:00.
func ScanTime(text, format string) (Stamp, error) {
	y, m, d, doy := int64(1), int64(1), int64(1), int64(0)
	var h, mi, s, us int64
	pm, am := false, false
	bad := func(p string) (Stamp, error) {
		return Stamp{}, &sqlapi.Error{Code: "22007", Message: fmt.Sprintf("invalid value %q for %q", clip([]byte(text)), p)}
	}
	for f := format; f != ""; {
		if len(f) > 2 && strings.EqualFold(f[:2], "FM") {
			f = f[2:]
		}
		if f[0] == '"' {
			end := strings.IndexByte(f[1:], '"') + 1
			if end < 1 {
				break
			}
			text = text[min(len(text), end-1):]
			f = f[end+1:]
			continue
		}
		p := pattern(f)
		if p == "" {
			if f = f[1:]; text != "" && !(text[0] >= '0' && text[0] <= '9') {
				text = text[1:]
			}
			continue
		}
		f = f[len(p):]
		up := strings.ToUpper(p)
		text = strings.TrimLeft(text, " ")
		names := func(list []string, short bool) (int64, bool) {
			for i, n := range list {
				if len(text) >= len(n) && !short && strings.EqualFold(text[:len(n)], n) {
					text = text[len(n):]
					return int64(i), true
				}
				if short && len(text) >= 3 && strings.EqualFold(text[:3], n[:3]) {
					text = text[3:]
					return int64(i), true
				}
			}
			return 0, false
		}
		switch up {
		case "MONTH", "MON":
			i, ok := names(monthNames, up == "MON")
			if !ok {
				return bad(p)
			}
			m = i + 1
			continue
		case "DAY", "DY":
			if _, ok := names(dayNames, up == "DY"); !ok {
				return bad(p)
			}
			continue
		case "AM", "PM", "A.M.", "P.M.":
			if len(text) < len(p) || strings.IndexByte("aApP", text[0]) < 0 {
				return bad(p)
			}
			pm = text[0] == 'p' || text[0] == 'P'
			am, text = !pm, text[len(p):]
			continue
		case "TZ", "OF":
			text = strings.TrimLeft(text, "UTCGMZutcgmz+-0:")
			continue
		}
		width := map[string]int{"YYYY": 4, "IYYY": 4, "YYY": 3, "Y": 1, "DDD": 3, "MS": 3, "US": 6, "SSSS": 5, "J": 7, "D": 1, "Q": 1, "W": 1}[up]
		if width == 0 {
			width = 2
		}
		n := 0
		for n < len(text) && text[n] >= '0' && text[n] <= '9' && n < width {
			n++
		}
		v, err := strconv.ParseInt(text[:n], 10, 64)
		if err != nil {
			return bad(p)
		}
		text = text[n:]
		switch up {
		case "YYYY", "IYYY":
			y = v
		case "YYY", "YY", "Y":
			if y = 2000 + v; up == "YY" && v >= 70 {
				y = 1900 + v
			}
		case "MM":
			m = v
		case "DD":
			d = v
		case "DDD":
			doy = v
		case "HH24", "HH", "HH12":
			h = v
		case "MI":
			mi = v
		case "SS":
			s = v
		case "MS", "US":
			for ; n < width; n++ {
				v *= 10
			}
			if us = v; up == "MS" {
				us = v * 1000
			}
		case "SSSS":
			h, mi, s = v/3600, v/60%60, v%60
		case "J":
			y, m, d = CivilOf(v - 2451545)
		}
	}
	if pm && h < 12 {
		h += 12
	} else if am && h == 12 {
		h = 0
	}
	if m < 1 || m > 12 || d < 1 || d > MonthDays(y, m) || h > 23 || mi > 59 || s > 59 || doy > 366 {
		return Stamp{}, &sqlapi.Error{Code: "22008", Message: "date/time field value out of range"}
	}
	t := Stamp{Days: DaysOf(y, m, d), Micros: ((h*60+mi)*60+s)*MicrosPerSecond + us, HasDate: true, HasTime: true}
	if doy > 0 {
		t.Days = DaysOf(y, 1, 1) + doy - 1
	}
	return t, nil
}

// FormatNumber is to_char(f, format).
func FormatNumber(f float64, format string) string {
	up := strings.ToUpper(format)
	fm := strings.Contains(up, "FM")
	pr, mi, sign := strings.Contains(up, "PR"), strings.Contains(up, "MI"), strings.Contains(up, "S")
	for _, w := range []string{"FM", "PR", "MI", "TH", "S"} {
		up = strings.ReplaceAll(up, w, "")
	}
	whole, frac, point := strings.Cut(strings.ReplaceAll(up, "D", "."), ".")
	decimals := strings.Count(frac, "9") + strings.Count(frac, "0")
	neg := f < 0
	text := strconv.FormatFloat(math.Abs(f), 'f', decimals, 64)
	digits, rest, _ := strings.Cut(text, ".")
	places := strings.Count(whole, "9") + strings.Count(whole, "0")
	over := len(digits) > places && digits != "0"
	if digits == "0" && !strings.Contains(whole, "0") && (places > 0 && decimals > 0 || places == 0) {
		digits = ""
	}
	var b strings.Builder
	pos, started := places, false
	for i := 0; i < len(whole); i++ {
		switch c := whole[i]; c {
		case '9', '0':
			at := len(digits) - pos
			pos--
			switch {
			case over:
				b.WriteByte('#')
			case at >= 0:
				b.WriteByte(digits[at])
				started = true
			case c == '0' || started || strings.Contains(whole[:i], "0"):
				b.WriteByte('0')
				started = true
			default:
				b.WriteByte(' ')
			}
		case ',', 'G':
			if started || over {
				b.WriteByte(',')
			} else {
				b.WriteByte(' ')
			}
		case 'L':
			b.WriteByte('$')
		default:
			b.WriteByte(c)
		}
	}
	out := b.String()
	if point {
		if over {
			rest = strings.Repeat("#", decimals)
		} else if fm { // nines at the end are not shown when zero
			keep := strings.LastIndexByte(frac, '0') + 1
			for len(rest) > keep && rest[len(rest)-1] == '0' {
				rest = rest[:len(rest)-1]
			}
		}
		out += "." + rest
	}
	body := strings.TrimLeft(out, " ")
	blanks := strings.Repeat(" ", len(out)-len(body))
	switch {
	case pr && neg:
		body = "<" + body + ">"
	case pr:
		body = " " + body + " "
	case mi && neg:
		body += "-"
	case mi:
		body += " "
	case sign && strings.HasSuffix(strings.ToUpper(format), "S"):
		body += map[bool]string{true: "-", false: "+"}[neg]
	case sign:
		body = map[bool]string{true: "-", false: "+"}[neg] + body
	case neg:
		body = "-" + body
	default:
		body = " " + body
	}
	if fm {
		return strings.TrimSpace(body)
	}
	return blanks + body
}
