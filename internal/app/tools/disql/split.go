package disql

import "strings"

// splitter cuts text that arrives line by line into statements. A statement
// ends at a semicolon outside quotes and comments, a trigger at the semicolon
// after END, and either at a line that holds nothing but "/".
type splitter struct {
	buf strings.Builder
	sc  scanner
}

// Feed adds a line (without its line end) and returns the statements that are
// now complete, without their final semicolon.
func (s *splitter) Feed(line string) []string {
	if strings.TrimSpace(line) == "/" && !s.sc.inside() {
		var out []string
		if st := strings.TrimSpace(s.buf.String()); st != "" {
			out = append(out, st)
		}
		s.Reset()
		return out
	}
	var out []string
	text := line + "\n"
	start := 0
	for i := 0; i < len(text); i++ {
		if s.sc.next(text[i]) {
			s.buf.WriteString(text[start:i])
			if st := strings.TrimSpace(s.buf.String()); !onlyComments(st) {
				out = append(out, st)
			}
			s.Reset()
			start = i + 1
		}
	}
	s.buf.WriteString(text[start:])
	if rest := strings.TrimSpace(s.buf.String()); strings.HasPrefix(rest, `\`) {
		s.Reset() // a command of disql after a statement
		return append(out, rest)
	}
	if onlyComments(s.buf.String()) && !s.sc.inside() {
		s.Reset()
	}
	return out
}

// Pending says that a statement has begun and not ended.
func (s *splitter) Pending() bool { return strings.TrimSpace(s.buf.String()) != "" }

// Rest returns and forgets what has not ended.
func (s *splitter) Rest() string {
	st := strings.TrimSpace(s.buf.String())
	s.Reset()
	if onlyComments(st) {
		return ""
	}
	return st
}

// Reset forgets what has not ended.
func (s *splitter) Reset() { s.buf.Reset(); s.sc = scanner{} }

// scanner knows, byte by byte, whether a semicolon ends a statement.
type scanner struct {
	quote   byte // ' " ` ] or 0
	comment byte // '-' to the line end, '*' to the end mark, or 0
	prev    byte
	word    []byte
	words   int    // words so far, at most 4 counted
	create  bool   // the first word was CREATE
	trigger bool   // CREATE [TEMP|TEMPORARY|OR REPLACE] TRIGGER
	last    string // last word, upper case, "" after other characters
}

func (s *scanner) inside() bool { return s.quote != 0 || s.comment == '*' }

// next takes a byte and says whether it is a semicolon that ends a statement.
func (s *scanner) next(c byte) bool {
	prev := s.prev
	s.prev = c
	switch {
	case s.comment == '-':
		if c == '\n' {
			s.comment = 0
		}
		return false
	case s.comment == '*':
		if prev == '*' && c == '/' {
			s.comment, s.prev = 0, 0
		}
		return false
	case s.quote != 0:
		// A doubled quote closes and opens again, which comes to the same.
		if c == s.quote {
			s.quote = 0
		}
		return false
	}
	if isWord(c) {
		if len(s.word) < 16 {
			s.word = append(s.word, c)
		}
		return false
	}
	s.endWord()
	switch {
	case c == '-' && prev == '-':
		s.comment = '-'
	case c == '*' && prev == '/':
		s.comment, s.prev = '*', 0
	case c == '\'' || c == '"' || c == '`':
		s.quote, s.last = c, ""
	case c == '[':
		s.quote, s.last = ']', ""
	case c == ';':
		if !s.trigger || s.last == "END" {
			return true
		}
		s.last = ""
	}
	return false
}

func (s *scanner) endWord() {
	if len(s.word) == 0 {
		return
	}
	w := strings.ToUpper(string(s.word))
	s.word = s.word[:0]
	s.last = w
	s.words++
	if s.words == 1 {
		s.create = w == "CREATE"
	}
	if s.create && w == "TRIGGER" && s.words <= 4 {
		s.trigger = true
	}
}

func isWord(c byte) bool {
	return c == '_' || c == '$' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

// onlyComments says that nothing in the text would be executed.
func onlyComments(text string) bool {
	for {
		text = strings.TrimSpace(text)
		switch {
		case text == "":
			return true
		case strings.HasPrefix(text, "--"):
			i := strings.IndexByte(text, '\n')
			if i < 0 {
				return true
			}
			text = text[i:]
		case strings.HasPrefix(text, "/*"):
			i := strings.Index(text[2:], "*/")
			if i < 0 {
				return false
			}
			text = text[i+4:]
		default:
			return false
		}
	}
}
