package dialect

import "strings"

// SQL's own prepared statements and cursors.

// CursorSpec is DECLARE, FETCH, MOVE or CLOSE.
type CursorSpec struct {
	Name  string // "" with CLOSE ALL
	Query string // DECLARE
	Count int64  // FETCH and MOVE; -1: all
}

// prepareStmt parses PREPARE name [(types)] AS statement, after the verb.
func (p *parser) prepareStmt() (*Statement, error) {
	if p.peek().is("TRANSACTION") {
		return unsupported("two-phase commit (PREPARE TRANSACTION)"), nil
	}
	n, err := p.name()
	if err != nil {
		return nil, err
	}
	st := &Statement{Kind: Prepare, Tag: "PREPARE", Name: n}
	if p.accept("(") {
		for {
			typ, next := parseType(p.toks, p.i)
			if next < 0 {
				return nil, p.err()
			}
			st.Types, p.i = append(st.Types, typ), next
			if p.accept(")") {
				break
			}
			if !p.accept(",") {
				return nil, p.err()
			}
		}
	}
	if !p.accept("AS") || !p.more() {
		return nil, p.err()
	}
	if !p.peek().in("SELECT", "INSERT", "UPDATE", "DELETE", "VALUES", "WITH", "MERGE", "REPLACE") {
		return nil, p.err()
	}
	st.Value = p.s[p.peek().start:p.toks[len(p.toks)-1].end]
	return st, nil
}

// executeStmt parses EXECUTE name [(expressions)], after the verb.
func (p *parser) executeStmt() (*Statement, error) {
	n, err := p.name()
	if err != nil {
		return nil, err
	}
	st := &Statement{Kind: Execute, Tag: "EXECUTE", Name: n}
	if p.accept("(") {
		end := closing(p.toks, p.i-1)
		if end < 0 {
			return nil, p.err()
		}
		commas(p.toks, p.i, end, func(_, lo, hi int) {
			if lo < hi {
				st.Tables = append(st.Tables, p.s[p.toks[lo].start:p.toks[hi-1].end])
			}
		})
		p.i = end + 1
	}
	return p.end(st)
}

// declare parses DECLARE name ... CURSOR ... FOR query, after the verb.
func (p *parser) declare() (*Statement, error) {
	n, err := p.name()
	if err != nil {
		return nil, err
	}
	for p.any("BINARY", "INSENSITIVE", "ASENSITIVE", "NO", "SCROLL") != "" {
		if p.toks[p.i-1].is("BINARY") {
			return unsupported("a BINARY cursor"), nil
		}
	}
	if !p.accept("CURSOR") {
		return nil, p.err()
	}
	if p.accept("WITH", "HOLD") {
		return unsupported("a cursor WITH HOLD"), nil
	}
	p.accept("WITHOUT", "HOLD")
	if !p.accept("FOR") || !p.peek().in("SELECT", "VALUES", "WITH", "(", "TABLE") {
		return nil, p.err()
	}
	q := &CursorSpec{Name: n, Query: p.s[p.peek().start:p.toks[len(p.toks)-1].end]}
	return &Statement{Kind: Declare, Tag: "DECLARE CURSOR", Name: n, Cursor: q}, nil
}

// fetch parses FETCH and MOVE, after the verb. Cursors go forward only.
func (p *parser) fetch(verb string) (*Statement, error) {
	q := &CursorSpec{Count: 1}
	backward := func() (*Statement, error) {
		return unsupported(verb + " backward or to a position"), nil
	}
	number := func() error {
		if t := p.peek(); t.kind == tNumber || t.is("-") {
			n, err := p.integer()
			if err != nil {
				return err
			}
			q.Count = *n
			return nil
		}
		if p.accept("ALL") {
			q.Count = -1
		}
		return nil
	}
	switch {
	case p.peek().in("PRIOR", "FIRST", "LAST", "ABSOLUTE", "RELATIVE", "BACKWARD") && p.i+1 < len(p.toks):
		return backward()
	case p.accept("NEXT"):
	default:
		p.accept("FORWARD")
		at := p.i
		if err := number(); err != nil {
			return nil, err
		}
		if p.toks[min(at, len(p.toks)-1)].is("-") {
			return backward()
		}
	}
	p.any("FROM", "IN")
	n, err := p.name()
	if err != nil {
		return nil, err
	}
	q.Name = n
	return p.end(&Statement{Kind: Fetch, Tag: verb, Verb: verb, Name: n, Cursor: q})
}

// closeCursor parses CLOSE, after the verb.
func (p *parser) closeCursor() (*Statement, error) {
	n, err := p.name()
	if err != nil {
		return nil, err
	}
	if strings.EqualFold(n, "ALL") {
		n = ""
	}
	return p.end(&Statement{Kind: CloseCursor, Tag: "CLOSE CURSOR", Name: n, Cursor: &CursorSpec{Name: n}})
}
