package session

import (
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"datawatch/internal/sql/catalog"
	"datawatch/internal/sql/sqlapi"
)

func sqlLiteral(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// pgFormat is format(): %s, %I, %L, %%, with positions.
func pgFormat(a []sqlapi.Value) (sqlapi.Value, error) {
	var b strings.Builder
	f := str(a[0])
	next := 1
	for i := 0; i < len(f); i++ {
		if f[i] != '%' {
			b.WriteByte(f[i])
			continue
		}
		i++
		if i < len(f) && f[i] == '%' {
			b.WriteByte('%')
			continue
		}
		at := i
		for i < len(f) && f[i] >= '0' && f[i] <= '9' {
			i++
		}
		arg, width, left := next, 0, false
		if i > at && i < len(f) && f[i] == '$' {
			arg, _ = strconv.Atoi(f[at:i])
			i++
			at = i
		}
		if i < len(f) && f[i] == '-' {
			left = true
			i++
			at = i
		}
		for i < len(f) && f[i] >= '0' && f[i] <= '9' {
			i++
		}
		if i > at {
			width, _ = strconv.Atoi(f[at:i])
		}
		if i >= len(f) || strings.IndexByte("sIL", f[i]) < 0 {
			return a[0], badArgument("unrecognized format() type specifier: use %%s, %%I, %%L; printf() has SQLite's")
		}
		if arg < 1 || arg >= len(a) {
			return a[0], badArgument("too few arguments for format()")
		}
		next = arg + 1
		v, text := a[arg], ""
		switch {
		case f[i] == 'L' && v.Kind == sqlapi.Null:
			text = "NULL"
		case f[i] == 'L':
			text = sqlLiteral(str(v))
		case v.Kind == sqlapi.Null && f[i] == 'I':
			return a[0], &sqlapi.Error{Code: "22004", Message: "null values cannot be formatted as an SQL identifier"}
		case v.Kind == sqlapi.Null:
		case f[i] == 'I':
			text = catalog.QuoteIdent(str(v))
		default:
			text = str(v)
		}
		if n := width - utf8.RuneCountInString(text); n > 0 && n < 1<<20 {
			if left {
				text += strings.Repeat(" ", n)
			} else {
				text = strings.Repeat(" ", n) + text
			}
		}
		b.WriteString(text)
	}
	return textValue(b.String()), nil
}

// ilike is x ILIKE pattern [ESCAPE c], which SQLite calls with the pattern first.
func ilike(a []sqlapi.Value) (sqlapi.Value, error) {
	for _, v := range a {
		if v.Kind == sqlapi.Null {
			return v, nil
		}
	}
	escape := '\\'
	if len(a) > 2 {
		e := []rune(str(a[2]))
		if len(e) > 1 {
			return a[0], &sqlapi.Error{Code: "22025", Message: "invalid escape string"}
		}
		if escape = 0; len(e) == 1 {
			escape = e[0]
		}
	}
	var b strings.Builder
	b.WriteString("(?is)^")
	quoted := false
	for _, r := range str(a[0]) {
		switch {
		case quoted:
			b.WriteString(regexp.QuoteMeta(string(r)))
			quoted = false
		case r == escape && escape != 0:
			quoted = true
		case r == '%':
			b.WriteString(".*")
		case r == '_':
			b.WriteByte('.')
		default:
			b.WriteString(regexp.QuoteMeta(string(r)))
		}
	}
	re, err := compile(b.String()+"$", "")
	if err != nil {
		return a[0], err
	}
	if re.MatchString(str(a[1])) {
		return intValue(1), nil
	}
	return intValue(0), nil
}
