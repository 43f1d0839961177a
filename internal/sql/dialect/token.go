// Package dialect recognises statements that SQLite lacks (administration,
// run-time parameters, transaction control in PostgreSQL's words) and rewrites
// the small differences of spelling in the others (casts with ::, FROM DUAL,
// dollar quotes, FOR UPDATE ...). It also guesses the types of results and
// parameters from the text where that is safe.
//
// It is pure: text in, values out; it knows no session, no connection and no
// schema. It keeps the part of G8 that concerns statements: what it recognises
// but cannot do is refused by name. Everything else is left to SQLite, whose
// parser has the last word.
package dialect

import (
	"fmt"
	"strings"
)

type tokKind uint8

const (
	tIdent  tokKind = iota // unquoted word
	tQuoted                // "x", `x`, [x]
	tString                // 'x', E'x', $$x$$
	tNumber
	tParam // $1, ?, ?1, :x, @x
	tOp
)

// token is a lexical unit; its text is src[start:end].
type token struct {
	kind       tokKind
	start, end int
	up         string // tIdent: upper case; tOp: the operator; tString: "E" or "$" when not plain
	val        string // tQuoted, tString: the value; tIdent: as written
}

// is reports whether the token is the keyword or operator s (upper case).
func (t token) is(s string) bool { return (t.kind == tIdent || t.kind == tOp) && t.up == s }

func (t token) in(ss ...string) bool {
	for _, s := range ss {
		if t.is(s) {
			return true
		}
	}
	return false
}

// name is the identifier's value, as written.
func (t token) name() string { return t.val }

func (t token) isName() bool { return t.kind == tIdent || t.kind == tQuoted }

// SyntaxError is an error in the text itself; Offset is in bytes.
type SyntaxError struct {
	Msg    string
	Offset int
}

func (e *SyntaxError) Error() string { return e.Msg }

func identStart(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x80
}
func identPart(c byte) bool { return identStart(c) || c >= '0' && c <= '9' || c == '$' }
func digit(c byte) bool     { return c >= '0' && c <= '9' }

// lex cuts s into tokens; white space and comments are dropped.
func lex(s string) ([]token, error) {
	toks := make([]token, 0, len(s)/5+4)
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == '\f':
			i++
		case c == '-' && strings.HasPrefix(s[i:], "--"):
			n := strings.IndexByte(s[i:], '\n')
			if n < 0 {
				n = len(s) - i
			}
			i += n
		case c == '/' && strings.HasPrefix(s[i:], "/*"):
			n := strings.Index(s[i+2:], "*/")
			if n < 0 {
				return nil, &SyntaxError{"unterminated /* comment", i}
			}
			i += n + 4
		case c == '\'':
			v, end := quoted(s, i, '\'')
			if end < 0 {
				return nil, &SyntaxError{"unterminated quoted string", i}
			}
			toks = append(toks, token{kind: tString, start: i, end: end, val: v})
			i = end
		case c == '"' || c == '`':
			v, end := quoted(s, i, c)
			if end < 0 {
				return nil, &SyntaxError{"unterminated quoted identifier", i}
			}
			toks = append(toks, token{kind: tQuoted, start: i, end: end, val: v})
			i = end
		case (c == 'e' || c == 'E') && i+1 < len(s) && s[i+1] == '\'':
			v, end, err := escaped(s, i)
			if err != nil {
				return nil, err
			}
			toks = append(toks, token{kind: tString, start: i, end: end, up: "E", val: v})
			i = end
		case c == '$':
			t, err := dollar(s, i)
			if err != nil {
				return nil, err
			}
			toks = append(toks, t)
			i = t.end
		case digit(c) || c == '.' && i+1 < len(s) && digit(s[i+1]):
			end := number(s, i)
			toks = append(toks, token{kind: tNumber, start: i, end: end, val: s[i:end]})
			i = end
		case identStart(c):
			end := i + 1
			for end < len(s) && identPart(s[end]) {
				end++
			}
			toks = append(toks, token{kind: tIdent, start: i, end: end, up: strings.ToUpper(s[i:end]), val: s[i:end]})
			i = end
		case (c == '?' || c == ':' || c == '@') && i+1 < len(s) && identPart(s[i+1]), c == '?':
			end := i + 1
			for end < len(s) && identPart(s[end]) {
				end++
			}
			toks = append(toks, token{kind: tParam, start: i, end: end, val: s[i:end]})
			i = end
		default:
			n := 1
			if i+1 < len(s) {
				switch s[i : i+2] {
				case "::", "<=", ">=", "<>", "!=", "==", "||", "->", "<<", ">>":
					n = 2
				}
			}
			if strings.HasPrefix(s[i:], "->>") {
				n = 3
			}
			toks = append(toks, token{kind: tOp, start: i, end: i + n, up: s[i : i+n], val: s[i : i+n]})
			i += n
		}
	}
	return toks, nil
}

// quoted reads a quoted run from s[i]; doubled quotes stand for one.
func quoted(s string, i int, q byte) (string, int) {
	for j, dbl := i+1, false; j < len(s); j++ {
		if s[j] != q {
			continue
		}
		if j+1 < len(s) && s[j+1] == q {
			j, dbl = j+1, true
			continue
		}
		v := s[i+1 : j]
		if dbl {
			v = strings.ReplaceAll(v, string([]byte{q, q}), string(q))
		}
		return v, j + 1
	}
	return "", -1
}

// escaped reads E'...' with backslash escapes.
func escaped(s string, i int) (string, int, error) {
	var b strings.Builder
	for j := i + 2; j < len(s); j++ {
		switch c := s[j]; {
		case c == '\'' && j+1 < len(s) && s[j+1] == '\'':
			b.WriteByte(c)
			j++
		case c == '\'':
			return b.String(), j + 1, nil
		case c == '\\' && j+1 < len(s):
			j++
			switch e := s[j]; e {
			case 'n':
				b.WriteByte('\n')
			case 't':
				b.WriteByte('\t')
			case 'r':
				b.WriteByte('\r')
			case 'b':
				b.WriteByte('\b')
			case 'f':
				b.WriteByte('\f')
			case 'x', 'u', 'U':
				w := map[byte]int{'x': 2, 'u': 4, 'U': 8}[e]
				n, used := 0, 0
				for used < w && j+1+used < len(s) {
					d := strings.IndexByte("0123456789abcdef", s[j+1+used]|0x20)
					if d < 0 {
						break
					}
					n, used = n<<4|d, used+1
				}
				if used == 0 || e != 'x' && used < w || n == 0 || n > 0x10FFFF {
					return "", 0, &SyntaxError{"invalid escape in E'' string", j - 1}
				}
				if e == 'x' {
					b.WriteByte(byte(n))
				} else {
					b.WriteRune(rune(n))
				}
				j += used
			default:
				b.WriteByte(e)
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", 0, &SyntaxError{"unterminated quoted string", i}
}

// dollar reads $1 or a dollar-quoted string.
func dollar(s string, i int) (token, error) {
	j := i + 1
	for j < len(s) && digit(s[j]) {
		j++
	}
	if j > i+1 {
		return token{kind: tParam, start: i, end: j, val: s[i:j]}, nil
	}
	for j < len(s) && s[j] != '$' && identPart(s[j]) {
		j++
	}
	if j >= len(s) || s[j] != '$' {
		if j == i+1 {
			return token{kind: tOp, start: i, end: i + 1, up: "$", val: "$"}, nil
		}
		return token{kind: tParam, start: i, end: j, val: s[i:j]}, nil
	}
	tag := s[i : j+1]
	n := strings.Index(s[j+1:], tag)
	if n < 0 {
		return token{}, &SyntaxError{"unterminated dollar-quoted string", i}
	}
	return token{kind: tString, start: i, end: j + 1 + n + len(tag), up: "$", val: s[j+1 : j+1+n]}, nil
}

func number(s string, i int) int {
	j := i
	for j < len(s) && (identPart(s[j]) || s[j] == '.' || (s[j] == '+' || s[j] == '-') && (s[j-1]|0x20) == 'e' && !strings.HasPrefix(s[i:], "0x")) {
		if j > i && (s[j] == '+' || s[j] == '-') && !(j+1 < len(s) && digit(s[j+1])) {
			break
		}
		j++
	}
	return j
}

// Split cuts a string of statements at semicolons outside quotes, comments and
// trigger bodies. Comments stay with the statement they precede; statements
// that are empty or only comments are dropped.
func Split(s string) ([]string, error) {
	toks, err := lex(s)
	if err != nil {
		return nil, err
	}
	var out []string
	from, first := 0, 0
	for i, t := range toks {
		if !t.is(";") {
			continue
		}
		if stmt := toks[first:i]; len(stmt) > 0 {
			if isTrigger(stmt) && !triggerEnds(stmt) {
				continue
			}
			out = append(out, s[from:t.start])
		}
		from, first = t.end, i+1
	}
	if first < len(toks) {
		out = append(out, s[from:])
	}
	return out, nil
}

func isTrigger(t []token) bool {
	i := 1
	if len(t) > 1 && t[1].in("TEMP", "TEMPORARY") {
		i = 2
	}
	return t[0].is("CREATE") && len(t) > i && t[i].is("TRIGGER")
}

// triggerEnds: the body of a trigger ends with "; END".
func triggerEnds(t []token) bool {
	n := len(t)
	return n > 2 && t[n-1].is("END") && t[n-2].is(";")
}

func quoteString(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// QuoteName quotes an identifier.
func QuoteName(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

func unexpected(s string, toks []token, i int) error {
	if i >= len(toks) {
		return &SyntaxError{"syntax error at end of input", len(s)}
	}
	return &SyntaxError{fmt.Sprintf("syntax error at or near %q", s[toks[i].start:toks[i].end]), toks[i].start}
}
