package session

import "strings"

// words are the names in a text of SQL, in lower case: every word, quoted name
// and string, as SQLite's own tokenizer finds them. Who may have named a table
// is decided by them, so whatever can be a name must be among them; too many
// do no harm.
type words struct {
	all  map[string]bool
	ctes map[string]bool // names that a WITH may have given to a query
	list []string        // in order; operators as they are, quoted text with a mark before it
}

func (w *words) has(name string) bool { return w != nil && w.all[name] }

// lower folds as SQLite compares names: ASCII only.
func lower(s string) string {
	for i := 0; i < len(s); i++ {
		if 'A' <= s[i] && s[i] <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if 'A' <= b[i] && b[i] <= 'Z' {
					b[i] |= 0x20
				}
			}
			return string(b)
		}
	}
	return s
}

const quotedMark = "\x00"

func wordChar(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '$' || c >= 0x80
}

// wordsOf takes text apart with SQLite's rules, which are not those of the
// dialect's lexer: [x] is a name, there are no dollar quotes nor E”.
func wordsOf(texts ...string) *words {
	w := &words{all: map[string]bool{}, ctes: map[string]bool{}}
	for _, s := range texts {
		w.add(s)
	}
	return w
}

func (w *words) add(s string) {
	from := len(w.list)
	name := func(n, mark string) {
		n = lower(n)
		w.all[n] = true
		w.list = append(w.list, mark+n)
	}
	for i := 0; i < len(s); {
		switch c := s[i]; {
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
				n = len(s) - i - 4
			}
			i += n + 4
		case c == '\'' || c == '"' || c == '`':
			var b strings.Builder
			for i++; i < len(s); i++ {
				if s[i] == c {
					if i+1 < len(s) && s[i+1] == c {
						i++
					} else {
						break
					}
				}
				b.WriteByte(s[i])
			}
			i++
			name(b.String(), quotedMark)
		case c == '[':
			n := strings.IndexByte(s[i:], ']')
			if n < 0 {
				n = len(s) - i
			}
			name(s[i+1:i+n], quotedMark)
			i += n + 1
		case wordChar(c):
			at := i
			for i < len(s) && wordChar(s[i]) {
				i++
			}
			name(s[at:i], "")
		default:
			w.list = append(w.list, s[i:i+1])
			i++
		}
	}
	w.findCTEs(w.list[from:])
}

// findCTEs notes each name before [(columns)] AS [[NOT] MATERIALIZED] (.
func (w *words) findCTEs(l []string) {
	for i, x := range l {
		if x != "as" {
			continue
		}
		k := i + 1
		if k < len(l) && l[k] == "not" {
			k++
		}
		if k < len(l) && l[k] == "materialized" {
			k++
		}
		if k >= len(l) || l[k] != "(" || i == 0 {
			continue
		}
		at := i - 1
		if l[at] == ")" {
			for at--; at >= 0 && l[at] != "("; at-- {
			}
			at--
		}
		if at >= 0 {
			w.ctes[strings.TrimPrefix(l[at], quotedMark)] = true
		}
	}
}

// unmark is the name at place i of list, "" beyond its end.
func (w *words) at(i int) string {
	if i < 0 || i >= len(w.list) {
		return ""
	}
	return strings.TrimPrefix(w.list[i], quotedMark)
}

// keyword reports an unquoted word.
func (w *words) keyword(i int, k ...string) bool {
	if i < 0 || i >= len(w.list) {
		return false
	}
	for _, x := range k {
		if w.list[i] == x {
			return true
		}
	}
	return false
}

// replaces reports a statement that may delete rows in the way of new ones:
// REPLACE INTO, INSERT OR REPLACE, UPDATE OR REPLACE.
func (w *words) replaces() bool {
	for i := range w.list {
		if w.keyword(i, "replace") && (w.keyword(i-1, "or") || w.keyword(i+1, "into")) {
			return true
		}
	}
	return false
}

// insertColumns are the columns that INSERT INTO table names; nil: all.
func (w *words) insertColumns() (table string, cols []string) {
	for i := range w.list {
		if !w.keyword(i, "into") {
			continue
		}
		k := i + 1
		if k+1 < len(w.list) && w.list[k+1] == "." {
			k += 2
		}
		table = w.at(k)
		k++
		if w.keyword(k, "as") {
			k += 2
		}
		if k >= len(w.list) || w.list[k] != "(" {
			return table, nil
		}
		for k++; k < len(w.list) && w.list[k] != ")"; k++ {
			if w.list[k] != "," {
				cols = append(cols, w.at(k))
			}
		}
		return table, cols
	}
	return "", nil
}

// reference is REFERENCES table [(columns)].
type reference struct {
	table string
	cols  []string
}

func (w *words) references() (out []reference) {
	for i := range w.list {
		if !w.keyword(i, "references") {
			continue
		}
		r := reference{table: w.at(i + 1)}
		k := i + 2
		if k < len(w.list) && w.list[k] == "." {
			r.table = w.at(i + 3)
			k += 2
		}
		if k < len(w.list) && w.list[k] == "(" {
			for k++; k < len(w.list) && w.list[k] != ")"; k++ {
				if w.list[k] != "," {
					r.cols = append(r.cols, w.at(k))
				}
			}
		}
		out = append(out, r)
	}
	return out
}

// rename reads ALTER TABLE x RENAME TO y (table), RENAME [COLUMN] a TO b and
// DROP [COLUMN] a (then to is empty).
func (w *words) rename() (table bool, from, to string) {
	for i := range w.list {
		switch {
		case i < 3 || !w.keyword(0, "alter"):
		case w.keyword(i, "rename"):
			k := i + 1
			if w.keyword(k, "to") {
				return true, "", w.at(k + 1)
			}
			if w.keyword(k, "column") && !w.keyword(k+1, "to") {
				k++
			}
			return false, w.at(k), w.at(k + 2)
		case w.keyword(i, "drop"):
			k := i + 1
			if w.keyword(k, "column") && k+1 < len(w.list) {
				k++
			}
			return false, w.at(k), ""
		}
	}
	return false, "", ""
}
