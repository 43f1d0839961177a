package session

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/ncruces/go-sqlite3"

	"datawatch/internal/sql/sqlapi"
)

// regexps keeps compiled regular expressions, of which statements have few.
var regexps struct {
	mu sync.Mutex
	m  map[string]*regexp.Regexp
}

func compile(pattern, flags string) (*regexp.Regexp, error) {
	mode := ""
	for _, f := range flags {
		switch f {
		case 'i':
			mode += "i"
		case 'n', 'm':
			mode += "m"
		case 's':
			mode += "s"
		case 'g', 'c':
		default:
			return nil, badArgument("invalid regular expression option: %q", f)
		}
	}
	if mode != "" {
		pattern = "(?" + mode + ")" + pattern
	}
	regexps.mu.Lock()
	defer regexps.mu.Unlock()
	if re := regexps.m[pattern]; re != nil {
		return re, nil
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, &sqlapi.Error{Code: "2201B", Message: "invalid regular expression: " + err.Error()}
	}
	if len(regexps.m) > 500 || regexps.m == nil {
		regexps.m = map[string]*regexp.Regexp{}
	}
	regexps.m[pattern] = re
	return re, nil
}

// optional is argument i as text, "" when there is none.
func optional(a []sqlapi.Value, i int) string {
	if i < len(a) {
		return str(a[i])
	}
	return ""
}

var backslash = regexp.MustCompile(`\\([0-9&\\])`)

func regexpReplace(a []sqlapi.Value) (sqlapi.Value, error) {
	flags := optional(a, 3)
	re, err := compile(str(a[1]), flags)
	if err != nil {
		return a[0], err
	}
	s := str(a[0])
	with := backslash.ReplaceAllStringFunc(strings.ReplaceAll(str(a[2]), "$", "$$"), func(m string) string {
		switch m[1] {
		case '&':
			return "${0}"
		case '\\':
			return `\`
		}
		return "${" + m[1:] + "}"
	})
	if strings.Contains(flags, "g") {
		s = re.ReplaceAllString(s, with)
	} else if m := re.FindStringSubmatchIndex(s); m != nil {
		s = s[:m[0]] + string(re.ExpandString(nil, with, s, m)) + s[m[1]:]
	}
	if len(s) > maxText {
		return a[0], errTooLong
	}
	return textValue(s), nil
}

func array(elements []string, null []bool) sqlapi.Value {
	var b strings.Builder
	b.WriteByte('{')
	for i, e := range elements {
		if i > 0 {
			b.WriteByte(',')
		}
		switch {
		case null != nil && null[i]:
			b.WriteString("NULL")
		case e == "" || strings.EqualFold(e, "null") || strings.ContainsAny(e, `{}", \`) || strings.ContainsAny(e, "\t\n"):
			b.WriteString(`"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(e) + `"`)
		default:
			b.WriteString(e)
		}
	}
	return textValue(b.String() + "}")
}

// similarPattern is a pattern of SIMILAR TO as a regular expression.
func similarPattern(p string) string {
	var b strings.Builder
	b.WriteString("(?s)^(?:")
	for i := 0; i < len(p); i++ {
		switch c := p[i]; c {
		case '%':
			b.WriteString(".*")
		case '_':
			b.WriteByte('.')
		case '\\':
			if i+1 < len(p) {
				i++
				b.WriteString(regexp.QuoteMeta(p[i : i+1]))
			}
		case '.', '^', '$':
			b.WriteByte('\\')
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String() + ")$"
}

func substringOf(a []sqlapi.Value) (sqlapi.Value, error) {
	if len(a) == 2 && a[1].Kind == sqlapi.Text {
		if _, err := strconv.Atoi(strings.TrimSpace(string(a[1].Bytes))); err != nil { // SUBSTRING(x FROM pattern)
			re, err := compile(str(a[1]), "")
			if err != nil {
				return a[0], err
			}
			m := re.FindStringSubmatch(str(a[0]))
			switch {
			case m == nil:
				return sqlapi.Value{}, nil
			case len(m) > 1:
				return textValue(m[1]), nil
			}
			return textValue(m[0]), nil
		}
	}
	from, err := whole(a[1])
	if err != nil {
		return a[0], err
	}
	n := int64(math.MaxInt32)
	if len(a) > 2 {
		if n, err = whole(a[2]); err != nil {
			return a[0], err
		}
		if n < 0 {
			return a[0], &sqlapi.Error{Code: "22011", Message: "negative substring length not allowed"}
		}
	}
	to := from + min(n, math.MaxInt32)
	from = max(from, 1)
	if a[0].Kind == sqlapi.Blob {
		b := a[0].Bytes
		lo, hi := min(from-1, int64(len(b))), min(max(to-1, from-1), int64(len(b)))
		return sqlapi.Value{Kind: sqlapi.Blob, Bytes: b[lo:hi]}, nil
	}
	_, rest := cut(str(a[0]), from-1)
	out, _ := cut(rest, max(to-from, 0))
	return textValue(out), nil
}

func initcap(s string) string {
	word := false
	return strings.Map(func(r rune) rune {
		defer func() { word = unicode.IsLetter(r) || unicode.IsDigit(r) }()
		if word {
			return unicode.ToLower(r)
		}
		return unicode.ToUpper(r)
	}, s)
}

func position(in, what string) int64 {
	i := strings.Index(in, what)
	if i >= 0 {
		i = utf8.RuneCountInString(in[:i])
	}
	return int64(i + 1)
}

func jsonPath(a []sqlapi.Value, text bool) (sqlapi.Value, error) {
	dec := json.NewDecoder(bytes.NewReader(a[0].Bytes))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return a[0], &sqlapi.Error{Code: "22P02", Message: "invalid input syntax for type json"}
	}
	for _, k := range a[1:] {
		switch x := v.(type) {
		case map[string]any:
			var ok bool
			if v, ok = x[str(k)]; !ok {
				return sqlapi.Value{}, nil
			}
		case []any:
			i, err := strconv.Atoi(str(k))
			if i < 0 {
				i += len(x)
			}
			if err != nil || i < 0 || i >= len(x) {
				return sqlapi.Value{}, nil
			}
			v = x[i]
		default:
			return sqlapi.Value{}, nil
		}
	}
	if s, ok := v.(string); ok && text {
		return textValue(s), nil
	}
	if v == nil && text {
		return sqlapi.Value{}, nil
	}
	b, err := json.Marshal(v)
	return sqlapi.Value{Kind: sqlapi.Text, Bytes: b}, err
}

var textFunctionList = []function{
	{"regexp_replace", 3, regexpReplace}, {"regexp_replace", 4, regexpReplace},
	{"regexp_match", 2, regexpMatch}, {"regexp_match", 3, regexpMatch},
	{"regexp_like", 2, regexpLike}, {"regexp_like", 3, regexpLike},
	{"regexp_count", 2, func(a []sqlapi.Value) (sqlapi.Value, error) {
		re, err := compile(str(a[1]), "")
		if err != nil {
			return a[0], err
		}
		return intValue(int64(len(re.FindAllStringIndex(str(a[0]), -1)))), nil
	}},
	{"regexp_substr", 2, func(a []sqlapi.Value) (sqlapi.Value, error) {
		re, err := compile(str(a[1]), "")
		if err != nil {
			return a[0], err
		}
		m := re.FindStringIndex(str(a[0]))
		if m == nil {
			return sqlapi.Value{}, nil
		}
		return textValue(str(a[0])[m[0]:m[1]]), nil
	}},
	{"regexp_split_to_array", 2, func(a []sqlapi.Value) (sqlapi.Value, error) {
		re, err := compile(str(a[1]), "")
		if err != nil {
			return a[0], err
		}
		return array(re.Split(str(a[0]), -1), nil), nil
	}},
	{"string_to_array", 2, func(a []sqlapi.Value) (sqlapi.Value, error) {
		if str(a[0]) == "" {
			return textValue("{}"), nil
		}
		return array(strings.Split(str(a[0]), str(a[1])), nil), nil
	}},
	{"dw_similar", 1, func(a []sqlapi.Value) (sqlapi.Value, error) { return textValue(similarPattern(str(a[0]))), nil }},
	{"dw_substring", 2, substringOf}, {"dw_substring", 3, substringOf},
	{"dw_position", 2, func(a []sqlapi.Value) (sqlapi.Value, error) { return intValue(position(str(a[1]), str(a[0]))), nil }},
	{"overlay", 3, overlay}, {"overlay", 4, overlay},
	{"initcap", 1, func(a []sqlapi.Value) (sqlapi.Value, error) { return textValue(initcap(str(a[0]))), nil }},
	{"ascii", 1, func(a []sqlapi.Value) (sqlapi.Value, error) {
		r, _ := utf8.DecodeRuneInString(str(a[0]))
		if str(a[0]) == "" {
			r = 0
		}
		return intValue(int64(r)), nil
	}},
	{"chr", 1, func(a []sqlapi.Value) (sqlapi.Value, error) {
		if a[0].Int < 1 || a[0].Int > unicode.MaxRune {
			return a[0], &sqlapi.Error{Code: "54000", Message: "requested character is not valid"}
		}
		return textValue(string(rune(a[0].Int))), nil
	}},
	{"btrim", 1, func(a []sqlapi.Value) (sqlapi.Value, error) { return textValue(strings.Trim(str(a[0]), " ")), nil }},
	{"btrim", 2, func(a []sqlapi.Value) (sqlapi.Value, error) {
		return textValue(strings.Trim(str(a[0]), str(a[1]))), nil
	}},
	{"starts_with", 2, func(a []sqlapi.Value) (sqlapi.Value, error) {
		if strings.HasPrefix(str(a[0]), str(a[1])) {
			return intValue(1), nil
		}
		return intValue(0), nil
	}},
	{"translate", 3, func(a []sqlapi.Value) (sqlapi.Value, error) {
		from, to := []rune(str(a[1])), []rune(str(a[2]))
		return textValue(strings.Map(func(r rune) rune {
			for i, f := range from {
				if f == r {
					if i < len(to) {
						return to[i]
					}
					return -1
				}
			}
			return r
		}, str(a[0]))), nil
	}},
	{"to_hex", 1, func(a []sqlapi.Value) (sqlapi.Value, error) {
		return textValue(strconv.FormatUint(uint64(a[0].Int), 16)), nil
	}},
	{"bit_length", 1, func(a []sqlapi.Value) (sqlapi.Value, error) { return intValue(int64(8 * len(str(a[0])))), nil }},
	{"sha256", 1, func(a []sqlapi.Value) (sqlapi.Value, error) {
		sum := sha256.Sum256(a[0].Bytes)
		return sqlapi.Value{Kind: sqlapi.Blob, Bytes: sum[:]}, nil
	}},
	{"encode", 2, func(a []sqlapi.Value) (sqlapi.Value, error) {
		switch strings.ToLower(str(a[1])) {
		case "hex":
			return textValue(hex.EncodeToString(a[0].Bytes)), nil
		case "base64":
			return textValue(base64.StdEncoding.EncodeToString(a[0].Bytes)), nil
		case "escape":
			var b strings.Builder
			for _, c := range a[0].Bytes {
				switch {
				case c == '\\':
					b.WriteString(`\\`)
				case c == 0 || c >= 0x80:
					fmt.Fprintf(&b, `\%03o`, c)
				default:
					b.WriteByte(c)
				}
			}
			return textValue(b.String()), nil
		}
		return a[0], badArgument("unrecognized encoding: %q", str(a[1]))
	}},
	{"decode", 2, func(a []sqlapi.Value) (sqlapi.Value, error) {
		var b []byte
		var err error
		switch strings.ToLower(str(a[1])) {
		case "hex":
			b, err = hex.DecodeString(str(a[0]))
		case "base64":
			b, err = base64.StdEncoding.DecodeString(strings.ReplaceAll(str(a[0]), "\n", ""))
		default:
			return a[0], badArgument("unrecognized encoding: %q", str(a[1]))
		}
		if err != nil {
			return a[0], badArgument("invalid data for %s", str(a[1]))
		}
		return sqlapi.Value{Kind: sqlapi.Blob, Bytes: b}, nil
	}},
	{"div", 2, func(a []sqlapi.Value) (sqlapi.Value, error) {
		x, err := numberOf(a[0])
		if err != nil {
			return a[0], err
		}
		y, err := numberOf(a[1])
		if err == nil && y == 0 {
			err = &sqlapi.Error{Code: "22012", Message: "division by zero"}
		}
		return numericValue(math.Trunc(x / y)), err
	}},
	{"trunc", 2, func(a []sqlapi.Value) (sqlapi.Value, error) {
		x, err := numberOf(a[0])
		p := math.Pow10(int(a[1].Int))
		return numericValue(math.Trunc(x*p) / p), err
	}},
	{"gcd", 2, func(a []sqlapi.Value) (sqlapi.Value, error) {
		x, y := a[0].Int, a[1].Int
		for y != 0 {
			x, y = y, x%y
		}
		return intValue(max(x, -x)), nil
	}},
	{"cbrt", 1, func(a []sqlapi.Value) (sqlapi.Value, error) {
		f, err := numberOf(a[0])
		return floatValue(math.Cbrt(f)), err
	}},
	{"json_typeof", 1, jsonTypeOf}, {"jsonb_typeof", 1, jsonTypeOf},
	{"to_json", 1, toJSON}, {"to_jsonb", 1, toJSON},
	{"json_extract_path", -1, func(a []sqlapi.Value) (sqlapi.Value, error) { return jsonPath(a, false) }},
	{"jsonb_extract_path", -1, func(a []sqlapi.Value) (sqlapi.Value, error) { return jsonPath(a, false) }},
	{"json_extract_path_text", -1, func(a []sqlapi.Value) (sqlapi.Value, error) { return jsonPath(a, true) }},
	{"jsonb_extract_path_text", -1, func(a []sqlapi.Value) (sqlapi.Value, error) { return jsonPath(a, true) }},
}

func regexpMatch(a []sqlapi.Value) (sqlapi.Value, error) {
	re, err := compile(str(a[1]), optional(a, 2))
	if err != nil {
		return a[0], err
	}
	s := str(a[0])
	m := re.FindStringSubmatchIndex(s)
	if m == nil {
		return sqlapi.Value{}, nil
	}
	if len(m) > 2 {
		m = m[2:]
	}
	var out []string
	var null []bool
	for i := 0; i < len(m); i += 2 {
		if m[i] < 0 {
			out, null = append(out, ""), append(null, true)
			continue
		}
		out, null = append(out, s[m[i]:m[i+1]]), append(null, false)
	}
	return array(out, null), nil
}

func regexpLike(a []sqlapi.Value) (sqlapi.Value, error) {
	re, err := compile(str(a[1]), optional(a, 2))
	if err != nil {
		return a[0], err
	}
	if re.MatchString(str(a[0])) {
		return intValue(1), nil
	}
	return intValue(0), nil
}

func overlay(a []sqlapi.Value) (sqlapi.Value, error) {
	s, with := str(a[0]), str(a[1])
	from, err := whole(a[2])
	if err != nil || from < 1 {
		return a[0], &sqlapi.Error{Code: "22011", Message: "negative substring length not allowed"}
	}
	n := int64(utf8.RuneCountInString(with))
	if len(a) > 3 {
		if n, err = whole(a[3]); err != nil {
			return a[0], err
		}
	}
	head, _ := cut(s, from-1)
	_, tail := cut(s, max(from-1+n, 0))
	return textValue(head + with + tail), nil
}

func jsonTypeOf(a []sqlapi.Value) (sqlapi.Value, error) {
	t := bytes.TrimSpace(a[0].Bytes)
	if !json.Valid(t) {
		return a[0], &sqlapi.Error{Code: "22P02", Message: "invalid input syntax for type json"}
	}
	kind := "number"
	switch t[0] {
	case '{':
		kind = "object"
	case '[':
		kind = "array"
	case '"':
		kind = "string"
	case 't', 'f':
		kind = "boolean"
	case 'n':
		kind = "null"
	}
	return textValue(kind), nil
}

func toJSON(a []sqlapi.Value) (sqlapi.Value, error) {
	if a[0].Kind != sqlapi.Text {
		return textValue(str(a[0])), nil
	}
	if t := bytes.TrimSpace(a[0].Bytes); len(t) > 0 && (t[0] == '{' || t[0] == '[') && json.Valid(t) {
		return a[0], nil
	}
	b, err := json.Marshal(string(a[0].Bytes))
	return sqlapi.Value{Kind: sqlapi.Text, Bytes: b}, err
}

// textFunctions registers those above, the ones that take NULL, and aggregates.
func (c *conn) textFunctions() error {
	if err := c.register(textFunctionList); err != nil {
		return err
	}
	const det = sqlite3.INNOCUOUS | sqlite3.DETERMINISTIC
	for _, f := range []function{
		{"dw_format", -1, func(a []sqlapi.Value) (sqlapi.Value, error) {
			if len(a) == 0 || a[0].Kind == sqlapi.Null {
				return sqlapi.Value{}, nil
			}
			return pgFormat(a)
		}},
		{"quote_nullable", 1, func(a []sqlapi.Value) (sqlapi.Value, error) {
			if a[0].Kind == sqlapi.Null {
				return textValue("NULL"), nil
			}
			return textValue(sqlLiteral(str(a[0]))), nil
		}},
	} {
		if err := c.db.CreateFunction(f.name, f.n, det, sqlFunction(f.fn)); err != nil {
			return fmt.Errorf("register function %s: %w", f.name, err)
		}
	}
	for _, n := range []int{2, 3} { // ILIKE is MATCH to SQLite
		if err := c.db.CreateFunction("match", n, det, sqlFunction(ilike)); err != nil {
			return fmt.Errorf("register function match: %w", err)
		}
	}
	for name, make := range map[string]func() sqlite3.AggregateFunction{
		"bool_and": func() sqlite3.AggregateFunction { return &boolAgg{and: true} }, "every": func() sqlite3.AggregateFunction { return &boolAgg{and: true} },
		"bool_or":     func() sqlite3.AggregateFunction { return &boolAgg{} },
		"dw_json_agg": func() sqlite3.AggregateFunction { return &jsonAgg{} },
		"stddev":      func() sqlite3.AggregateFunction { return &variance{root: true, sample: 1} }, "stddev_samp": func() sqlite3.AggregateFunction { return &variance{root: true, sample: 1} },
		"stddev_pop": func() sqlite3.AggregateFunction { return &variance{root: true} }, "variance": func() sqlite3.AggregateFunction { return &variance{sample: 1} },
		"var_samp": func() sqlite3.AggregateFunction { return &variance{sample: 1} }, "var_pop": func() sqlite3.AggregateFunction { return &variance{} },
	} {
		if err := c.db.CreateWindowFunction(name, 1, det, make); err != nil {
			return fmt.Errorf("register function %s: %w", name, err)
		}
	}
	return nil
}
