package dialect

import "strconv"

// Statements about tables that SQLite lacks or spells differently.

func (p *parser) lock() (*Statement, error) {
	st := &Statement{Kind: LockTable, Tag: "LOCK TABLE"}
	p.accept("TABLE")
	for {
		p.accept("ONLY")
		n, err := p.name()
		if err != nil {
			return nil, err
		}
		if p.accept(".") {
			if n, err = p.name(); err != nil {
				return nil, err
			}
		}
		st.Tables = append(st.Tables, n)
		if !p.accept(",") {
			break
		}
	}
	if p.accept("IN") {
		for p.any("ACCESS", "ROW", "SHARE", "UPDATE", "EXCLUSIVE", "INTENT") != "" {
		}
		if !p.accept("MODE") {
			return nil, p.err()
		}
	}
	st.NoWait = p.accept("NOWAIT")
	return p.end(st)
}

func (p *parser) vacuum() (*Statement, error) {
	st := &Statement{Kind: Vacuum, Tag: "VACUUM"}
	if p.accept("(") {
		for p.more() && !p.accept(")") {
			st.Analyze = st.Analyze || p.peek().in("ANALYZE", "ANALYSE")
			if p.peek().is("FULL") {
				st.Verb = "FULL"
			}
			p.i++
		}
	}
	for {
		switch p.any("FULL", "FREEZE", "VERBOSE", "ANALYZE", "ANALYSE") {
		case "FULL":
			st.Verb = "FULL"
			continue
		case "ANALYZE", "ANALYSE":
			st.Analyze = true
			continue
		case "":
		default:
			continue
		}
		break
	}
	if p.accept("INTO") {
		return unsupported("VACUUM INTO"), nil
	}
	return p.optTable(st)
}

func (p *parser) analyze() (*Statement, error) {
	p.accept("VERBOSE")
	return p.optTable(&Statement{Kind: Analyze, Tag: "ANALYZE"})
}

func (p *parser) optTable(st *Statement) (*Statement, error) {
	if p.more() {
		n, err := p.name()
		if err != nil {
			return nil, err
		}
		if p.accept(".") {
			if n, err = p.name(); err != nil {
				return nil, err
			}
		}
		st.Name = n
	}
	return p.end(st)
}

// MaxParam is the largest parameter number accepted.
const MaxParam = 32766

// paramNumber is n of $n or ?n; 0 for anything else.
func paramNumber(s string) int {
	if len(s) < 2 || s[0] != '$' && s[0] != '?' {
		return 0
	}
	n, err := strconv.Atoi(s[1:])
	if err != nil || n < 1 || n > MaxParam {
		return 0
	}
	return n
}
