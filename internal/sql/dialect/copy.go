package dialect

import (
	"fmt"
	"strings"
)

// CopySpec is COPY as written, with the defaults of its format filled in.
type CopySpec struct {
	In      bool // FROM STDIN
	Table   string
	Columns []string
	Query   string // COPY (query) TO: the query; Table is empty

	Binary        bool
	CSV           bool
	Delimiter     byte
	Null          string
	Header, Match bool // HEADER; HEADER MATCH
	Quote, Escape byte // CSV only
}

// copyStmt parses COPY table [(columns)] | (query) FROM STDIN | TO STDOUT with
// the options of PostgreSQL 9 and of those before.
func (p *parser) copyStmt() (*Statement, error) {
	c := &CopySpec{}
	st := &Statement{Kind: Copy, Tag: "COPY", Copy: c}
	c.Binary = p.accept("BINARY")
	if t := p.peek(); t.is("(") {
		end := closing(p.toks, p.i)
		if end < 0 || end == p.i+1 {
			return nil, p.err()
		}
		c.Query = p.s[p.toks[p.i].end:p.toks[end].start]
		if !p.toks[p.i+1].in("SELECT", "VALUES", "WITH") {
			return unsupported("COPY of a " + p.toks[p.i+1].val + " statement"), nil
		}
		p.i = end + 1
	} else if err := p.copyTable(c); err != nil {
		return nil, err
	}
	switch {
	case c.Query == "" && p.accept("FROM"):
		c.In = true
		if !p.accept("STDIN") {
			return p.copyFile()
		}
	case p.accept("TO"):
		if !p.accept("STDOUT") {
			return p.copyFile()
		}
	default:
		return nil, p.err()
	}
	return p.copyOptions(st)
}

// copyFile refuses what is neither STDIN nor STDOUT.
func (p *parser) copyFile() (*Statement, error) {
	switch t := p.peek(); {
	case t.is("PROGRAM"):
		return unsupported("COPY with a PROGRAM"), nil
	case t.kind == tString:
		return unsupported("COPY with a file of the server (use STDIN, STDOUT or psql's \\copy)"), nil
	}
	return nil, p.err()
}

func (p *parser) copyTable(c *CopySpec) (err error) {
	if c.Table, err = p.name(); err != nil {
		return err
	}
	if p.accept(".") {
		if c.Table, err = p.name(); err != nil {
			return err
		}
	}
	if p.accept("(") {
		c.Columns, err = p.nameList()
	}
	return err
}

// nameList reads names up to a closing bracket.
func (p *parser) nameList() (names []string, err error) {
	for {
		n, err := p.name()
		if err != nil {
			return nil, err
		}
		names = append(names, n)
		if p.accept(")") {
			return names, nil
		}
		if !p.accept(",") {
			return nil, p.err()
		}
	}
}

// copyOption is one option with its value; arg is nil when none was written.
type copyOption struct {
	name string
	arg  *token
	at   int
}

func (p *parser) copyOptions(st *Statement) (*Statement, error) {
	c := st.Copy
	p.accept("WITH")
	opts, refused, err := p.copyOptionList()
	if err != nil || refused != nil {
		return refused, err
	}
	if p.peek().is("WHERE") {
		return unsupported("COPY ... WHERE"), nil
	}
	if p.more() {
		return nil, p.err()
	}
	var null *string
	seen := map[string]bool{}
	for _, o := range opts {
		bad := func(format string, args ...any) error {
			return &SyntaxError{fmt.Sprintf(format, args...), o.at}
		}
		if seen[o.name] {
			return nil, bad("conflicting or redundant options: %s", strings.ToLower(o.name))
		}
		seen[o.name] = true
		text, char := "", byte(0)
		switch o.name {
		case "DELIMITER", "NULL", "QUOTE", "ESCAPE", "ENCODING", "FORMAT":
			if o.arg == nil {
				return nil, bad("COPY option %s needs a value", strings.ToLower(o.name))
			}
			text = o.arg.val
		}
		switch o.name {
		case "DELIMITER", "QUOTE", "ESCAPE":
			if len(text) != 1 {
				return nil, bad("COPY %s must be a single one-byte character", strings.ToLower(o.name))
			}
			char = text[0]
		}
		switch o.name {
		case "FORMAT":
			switch strings.ToLower(text) {
			case "csv":
				c.CSV = true
			case "text":
			case "binary":
				c.Binary = true
			default:
				return nil, bad("COPY format %q not recognized", text)
			}
		case "DELIMITER":
			if strings.IndexByte("\r\n\\.abcdefghijklmnopqrstuvwxyz0123456789", char) >= 0 {
				return nil, bad("COPY delimiter cannot be %q", text)
			}
			c.Delimiter = char
		case "NULL":
			if strings.ContainsAny(text, "\r\n") {
				return nil, bad("COPY null representation cannot use newline or carriage return")
			}
			null = &text
		case "QUOTE":
			c.Quote = char
		case "ESCAPE":
			c.Escape = char
		case "HEADER":
			on, ok := optionBool(o.arg)
			if !ok && o.arg != nil && strings.EqualFold(o.arg.val, "match") && c.In {
				c.Match, on, ok = true, true, true
			}
			if !ok {
				return nil, bad("COPY option header: a Boolean value or, in COPY FROM, \"match\" is needed")
			}
			c.Header = on
		case "FREEZE":
			if _, ok := optionBool(o.arg); !ok {
				return nil, bad("COPY option freeze needs a Boolean value")
			}
		case "ENCODING":
			switch strings.ToUpper(text) {
			case "UTF8", "UTF-8", "UNICODE", "SQL_ASCII":
			default:
				return unsupported("COPY with encoding " + text), nil
			}
		case "OIDS", "FORCE_QUOTE", "FORCE_NOT_NULL", "FORCE_NULL":
			return unsupported("COPY option " + o.name), nil
		default:
			return nil, bad("option %q not recognized", strings.ToLower(o.name))
		}
	}
	switch {
	case !c.CSV && (seen["QUOTE"] || seen["ESCAPE"]):
		return nil, &SyntaxError{"COPY quote and escape are available only in CSV mode", 0}
	case c.CSV:
		c.Delimiter, c.Quote = cmp(c.Delimiter, ','), cmp(c.Quote, '"')
		c.Escape = cmp(c.Escape, c.Quote)
		if c.Delimiter == c.Quote {
			return nil, &SyntaxError{"COPY delimiter and quote must be different", 0}
		}
	default:
		c.Delimiter, c.Null = cmp(c.Delimiter, '\t'), `\N`
	}
	if null != nil {
		c.Null = *null
	}
	if strings.IndexByte(c.Null, c.Delimiter) >= 0 {
		return nil, &SyntaxError{"COPY delimiter must not appear in the NULL specification", 0}
	}
	return st, nil
}

func cmp(v, def byte) byte {
	if v == 0 {
		return def
	}
	return v
}

// copyOptionList reads (name [value], ...) or the older form without brackets.
func (p *parser) copyOptionList() (opts []copyOption, refused *Statement, err error) {
	value := func(o *copyOption) {
		if t := p.peek(); p.more() && (t.kind == tString || t.kind == tNumber || t.isName()) {
			o.arg = &t
			p.i++
		}
	}
	if p.accept("(") {
		for {
			at := p.peek().start
			n, err := p.name()
			if err != nil {
				return nil, nil, err
			}
			o := copyOption{name: strings.ToUpper(n), at: at}
			if p.accept("(") || p.accept("*") { // a list of columns: refused by name
				return nil, unsupported("COPY option " + o.name), nil
			}
			value(&o)
			opts = append(opts, o)
			if p.peek().is("*") || p.peek().is("(") {
				return nil, unsupported("COPY option " + o.name), nil
			}
			if p.accept(")") {
				return opts, nil, nil
			}
			if !p.accept(",") {
				return nil, nil, p.err()
			}
		}
	}
	for p.more() {
		o := copyOption{at: p.peek().start}
		switch o.name = p.any("BINARY", "CSV", "HEADER", "FREEZE", "DELIMITER", "DELIMITERS", "NULL", "QUOTE", "ESCAPE", "ENCODING", "FORCE", "OIDS"); o.name {
		case "":
			return opts, nil, nil
		case "BINARY":
			o.name, o.arg = "FORMAT", &token{kind: tString, val: "binary"}
		case "FORCE":
			return nil, unsupported("COPY option FORCE " + p.peek().val), nil
		case "CSV":
			o.name, o.arg = "FORMAT", &token{kind: tString, val: "csv"}
		case "HEADER", "FREEZE", "OIDS":
		default:
			p.accept("AS")
			if o.name == "DELIMITERS" {
				o.name = "DELIMITER"
			}
			value(&o)
		}
		opts = append(opts, o)
	}
	return opts, nil, nil
}

// optionBool reads the value of a switch; none means on.
func optionBool(t *token) (on, ok bool) {
	if t == nil {
		return true, true
	}
	switch strings.ToLower(t.val) {
	case "true", "on", "1":
		return true, true
	case "false", "off", "0":
		return false, true
	}
	return false, false
}
