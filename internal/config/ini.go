package config

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxFileSize is the largest configuration file that is read, in bytes. The
// largest sensible one has a few hundred lines.
const MaxFileSize = 1 << 20

// Doc is the text of an ini file, line by line, with its meaning. Rewriting
// keeps comments, order, blank lines and line ends.
//
// A line is blank, a comment (first character # or ;), a section header
// "[NAME]", or "KEY = VALUE". A comment may follow a header or a value after a
// blank: "PORT_NUM = 5236 #port". A value may stand in double quotes, which
// keeps blanks and "#" in it. Keys and section names ignore case.
type Doc struct {
	name  string
	lines []line
	bom   bool
}

type lineKind uint8

const (
	lineOther lineKind = iota // blank or comment
	lineSection
	lineKey
)

type line struct {
	raw  string // without the line end
	eol  string // "\n", "\r\n" or "" on the last line
	kind lineKind
	name string // section or key as written
	// value as meant; from and to are its place in raw, quotes included.
	value    string
	from, to int
	no       int // 1-based number in the file that was parsed
}

// Entry is one "KEY = VALUE" of a Doc.
type Entry struct {
	Section string // as written in its header; "" before the first header
	Key     string // as written
	Value   string
	Line    int // 1-based
}

// ParseDoc splits text into lines and reports every line that is neither
// blank, comment, header nor "KEY = VALUE". name appears in errors.
func ParseDoc(name string, data []byte) (*Doc, error) {
	d := &Doc{name: name}
	if len(data) > MaxFileSize {
		return nil, Errors{{File: name, Msg: fmt.Sprintf("file has %d bytes", len(data)), Allowed: fmt.Sprintf("at most %d", MaxFileSize)}}
	}
	if bytes.HasPrefix(data, []byte("\xef\xbb\xbf")) {
		d.bom = true
		data = data[3:]
	}
	var errs Errors
	for no := 1; len(data) > 0; no++ {
		l := line{no: no}
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			l.raw, l.eol, data = string(data[:i]), "\n", data[i+1:]
			if strings.HasSuffix(l.raw, "\r") {
				l.raw, l.eol = l.raw[:len(l.raw)-1], "\r\n"
			}
		} else {
			l.raw, data = string(data), nil
		}
		if e := l.parse(); e != nil {
			e.File, e.Line = name, no
			errs = append(errs, e)
		}
		d.lines = append(d.lines, l)
	}
	return d, errs.err()
}

const blanks = " \t\v\f\r"

// parse fills kind, name and value from raw.
func (l *line) parse() *Error {
	s := strings.Trim(l.raw, blanks)
	if s == "" || s[0] == '#' || s[0] == ';' {
		return nil
	}
	if s[0] == '[' {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return &Error{Msg: fmt.Sprintf("section header %q has no closing bracket", clip(s))}
		}
		rest := strings.TrimLeft(s[end+1:], blanks)
		if rest != "" && rest[0] != '#' && rest[0] != ';' {
			return &Error{Msg: fmt.Sprintf("unexpected text %q after the section header", clip(rest))}
		}
		name := strings.Trim(s[1:end], blanks)
		if e := checkName(name); e != "" {
			return &Error{Msg: fmt.Sprintf("section name %q %s", clip(name), e)}
		}
		l.kind, l.name = lineSection, name
		return nil
	}
	eq := strings.IndexByte(l.raw, '=')
	if eq < 0 {
		return &Error{Msg: fmt.Sprintf("%q is neither a comment, a [SECTION] nor KEY = VALUE", clip(s))}
	}
	key := strings.Trim(l.raw[:eq], blanks)
	if e := checkName(key); e != "" {
		return &Error{Msg: fmt.Sprintf("key %q %s", clip(key), e)}
	}
	l.kind, l.name = lineKey, key
	return l.parseValue(eq + 1)
}

func (l *line) parseValue(from int) *Error {
	for from < len(l.raw) && strings.IndexByte(blanks, l.raw[from]) >= 0 {
		from++
	}
	rest := l.raw[from:]
	l.from = from
	if strings.HasPrefix(rest, `"`) {
		end := strings.IndexByte(rest[1:], '"')
		if end < 0 {
			return &Error{Key: l.name, Value: rest, Msg: "closing quote is missing"}
		}
		l.value, l.to = rest[1:end+1], from+end+2
		after := strings.TrimLeft(l.raw[l.to:], blanks)
		if after != "" && after[0] != '#' {
			return &Error{Key: l.name, Value: rest, Msg: "unexpected text after the closing quote"}
		}
	} else {
		end := len(rest)
		for i := 0; i < len(rest); i++ {
			if rest[i] == '#' && (i == 0 || strings.IndexByte(blanks, rest[i-1]) >= 0) {
				end = i
				break
			}
		}
		l.value = strings.TrimRight(rest[:end], blanks)
		l.to = from + len(l.value)
	}
	return checkText(l.name, l.value)
}

// checkName says what is wrong with a key or section name, "" for nothing.
func checkName(s string) string {
	switch {
	case s == "":
		return "is empty"
	case len(s) > 128:
		return "is longer than 128 bytes"
	case !utf8.ValidString(s):
		return "is not UTF-8"
	}
	for _, r := range s {
		if r <= ' ' || r == 0x7f || strings.ContainsRune(`[]="#;`, r) {
			return fmt.Sprintf("holds the character %q", r)
		}
	}
	return ""
}

// checkText refuses values that no parameter can have.
func checkText(key, v string) *Error {
	if !utf8.ValidString(v) {
		return &Error{Key: key, Value: v, Msg: "value is not UTF-8"}
	}
	for _, r := range v {
		if r < ' ' && r != '\t' || r == 0x7f {
			return &Error{Key: key, Value: v, Msg: fmt.Sprintf("value holds the control character %q", r)}
		}
	}
	return nil
}

// Name is the file name given to ParseDoc.
func (d *Doc) Name() string { return d.name }

// Bytes is the text as it now is.
func (d *Doc) Bytes() []byte {
	var b bytes.Buffer
	if d.bom {
		b.WriteString("\xef\xbb\xbf")
	}
	for _, l := range d.lines {
		b.WriteString(l.raw)
		b.WriteString(l.eol)
	}
	return b.Bytes()
}

// Entries lists every KEY = VALUE in order.
func (d *Doc) Entries() []Entry {
	var out []Entry
	section := ""
	for _, l := range d.lines {
		switch l.kind {
		case lineSection:
			section = l.name
		case lineKey:
			out = append(out, Entry{section, l.name, l.value, l.no})
		}
	}
	return out
}

// Sections lists the section headers in order as Entries without key.
func (d *Doc) Sections() []Entry {
	var out []Entry
	for _, l := range d.lines {
		if l.kind == lineSection {
			out = append(out, Entry{Section: l.name, Line: l.no})
		}
	}
	return out
}

// Get returns the first value of key in section ("" is the part before the
// first header).
func (d *Doc) Get(section, key string) (string, bool) {
	for _, e := range d.Entries() {
		if strings.EqualFold(e.Section, section) && strings.EqualFold(e.Key, key) {
			return e.Value, true
		}
	}
	return "", false
}

// Set gives key in section a new value: in place when the key is there (its
// comment stays), otherwise as a new line at the end of the section, otherwise
// in a new section at the end of the file. The value is quoted when it has to
// be. Checking it against the parameter table is the caller's (see SetParam).
func (d *Doc) Set(section, key, value string) error {
	if e := checkName(key); e != "" {
		return &Error{File: d.name, Section: section, Msg: fmt.Sprintf("key %q %s", clip(key), e)}
	}
	if section != "" {
		if e := checkName(section); e != "" {
			return &Error{File: d.name, Msg: fmt.Sprintf("section name %q %s", clip(section), e)}
		}
	}
	if e := checkText(key, value); e != nil {
		e.File, e.Section = d.name, section
		return e
	}
	written, err := quote(value)
	if err != nil {
		return &Error{File: d.name, Section: section, Key: key, Value: value, Msg: err.Error()}
	}
	cur, last, found := "", -1, section == ""
	for i := range d.lines {
		l := &d.lines[i]
		if l.kind == lineSection {
			cur = l.name
			if strings.EqualFold(cur, section) {
				found, last = true, i
			}
			continue
		}
		if !strings.EqualFold(cur, section) {
			continue
		}
		if l.kind == lineKey {
			last = i
			if strings.EqualFold(l.name, key) {
				d.replace(l, written)
				return nil
			}
		}
	}
	text := key + " = " + written
	if !found {
		d.insert(len(d.lines), "["+section+"]")
		d.insert(len(d.lines), text)
		return nil
	}
	if last < 0 && section == "" {
		// No key before the first header: after the leading comments.
		for last+1 < len(d.lines) && d.lines[last+1].kind == lineOther {
			last++
		}
	}
	d.insert(last+1, text)
	return nil
}

// replace puts written where the value of l stands.
func (d *Doc) replace(l *line, written string) {
	before, after := l.raw[:l.from], l.raw[l.to:]
	if strings.HasSuffix(before, "=") {
		before += " "
	}
	if strings.HasPrefix(after, "#") {
		after = " " + after // an empty value stood directly before its comment
	}
	l.raw = before + written + after
	_ = l.parse() // the same line with another checked value
}

// insert adds a line before index i.
func (d *Doc) insert(i int, raw string) {
	eol := "\n"
	for _, l := range d.lines {
		if l.eol != "" {
			eol = l.eol
			break
		}
	}
	if i > 0 && d.lines[i-1].eol == "" {
		d.lines[i-1].eol = eol
	}
	l := line{raw: raw, eol: eol}
	_ = l.parse()
	d.lines = append(d.lines[:i], append([]line{l}, d.lines[i:]...)...)
	for j := range d.lines {
		d.lines[j].no = j + 1
	}
}

// quote writes a value so that parsing gives it back.
func quote(v string) (string, error) {
	plain := v == strings.Trim(v, blanks) && !strings.HasPrefix(v, `"`) && !strings.HasPrefix(v, "#")
	for i := 1; plain && i < len(v); i++ {
		if v[i] == '#' && strings.IndexByte(blanks, v[i-1]) >= 0 {
			plain = false
		}
	}
	if plain {
		return v, nil
	}
	if strings.Contains(v, `"`) {
		return "", fmt.Errorf("a value with blanks at its ends or a # cannot hold a double quote")
	}
	return `"` + v + `"`, nil
}
