package dialect

import (
	"math"
	"strconv"
	"strings"
)

// SequenceSpec is CREATE, ALTER or DROP SEQUENCE. Options that are not given
// are nil.
type SequenceSpec struct {
	Names       []string // several for DROP
	IfExists    bool     // IF EXISTS, or IF NOT EXISTS
	Cascade     bool
	OID         uint32 // AS type, 0: not given
	Start       *int64
	Increment   *int64
	Min, Max    *int64
	NoMin       bool // NO MINVALUE
	NoMax       bool
	Cache       *int64
	Cycle       *bool
	Restart     bool   // ALTER
	RestartWith *int64 // nil: with the start value
	OwnerTable  string
	OwnerColumn string
	NoOwner     bool   // OWNED BY NONE
	Rename      string // ALTER ... RENAME TO
}

// sequence parses CREATE, ALTER and DROP SEQUENCE; nil for anything else.
func (p *parser) sequence(verb string) (*Statement, error) {
	start := p.i
	temp := verb == "CREATE" && p.any("TEMP", "TEMPORARY") != ""
	if !p.accept("SEQUENCE") {
		p.i = start
		return nil, nil
	}
	if temp {
		return unsupported("CREATE TEMPORARY SEQUENCE"), nil
	}
	q := &SequenceSpec{}
	st := &Statement{Kind: Sequence, Tag: verb + " SEQUENCE", Verb: verb, Sequence: q}
	q.IfExists = p.accept("IF", "NOT", "EXISTS") || p.accept("IF", "EXISTS")
	for {
		n, err := p.name()
		if err != nil {
			return nil, err
		}
		if p.accept(".") {
			if n, err = p.name(); err != nil {
				return nil, err
			}
		}
		q.Names = append(q.Names, n)
		if verb != "DROP" || !p.accept(",") {
			break
		}
	}
	if verb == "DROP" {
		q.Cascade = p.any("CASCADE", "RESTRICT") == "CASCADE"
		return p.end(st)
	}
	if verb == "ALTER" {
		switch {
		case p.accept("RENAME", "TO"):
			n, err := p.name()
			q.Rename = n
			if err != nil {
				return nil, err
			}
			return p.end(st)
		case p.accept("OWNER", "TO"), p.peek().is("SET") && p.i+1 < len(p.toks) && p.toks[p.i+1].in("SCHEMA", "LOGGED", "UNLOGGED"):
			return &Statement{Kind: NoOp, Tag: st.Tag}, nil
		}
	}
	if err := p.sequenceOptions(q, verb); err != nil {
		return nil, err
	}
	return p.end(st)
}

// sequenceOptions reads options up to the end, or to a closing bracket.
func (p *parser) sequenceOptions(q *SequenceSpec, verb string) error {
	yes, no := true, false
	for p.more() && !p.peek().is(")") {
		var err error
		switch {
		case p.accept("AS"):
			typ, next := parseType(p.toks, p.i)
			if next < 0 || typ.OID != Int2 && typ.OID != Int4 && typ.OID != Int8 {
				return p.err()
			}
			q.OID, p.i = typ.OID, next
			if p.toks[next-1].is("INTEGER") {
				q.OID = Int4
			}
		case p.accept("INCREMENT"):
			p.accept("BY")
			q.Increment, err = p.integer()
		case p.accept("START"):
			p.accept("WITH")
			q.Start, err = p.integer()
		case p.accept("MINVALUE"):
			q.Min, err = p.integer()
		case p.accept("MAXVALUE"):
			q.Max, err = p.integer()
		case p.accept("NO", "MINVALUE"), p.accept("NOMINVALUE"):
			q.NoMin = true
		case p.accept("NO", "MAXVALUE"), p.accept("NOMAXVALUE"):
			q.NoMax = true
		case p.accept("CACHE"):
			q.Cache, err = p.integer()
		case p.accept("NOCACHE"), p.accept("ORDER"), p.accept("NOORDER"), p.accept("NO", "ORDER"), p.accept("NO", "CACHE"), p.accept(","):
		case p.accept("NO", "CYCLE"), p.accept("NOCYCLE"):
			q.Cycle = &no
		case p.accept("CYCLE"):
			q.Cycle = &yes
		case verb == "ALTER" && p.accept("RESTART"):
			q.Restart = true
			if p.accept("WITH") || p.peek().kind == tNumber || p.peek().is("-") {
				q.RestartWith, err = p.integer()
			}
		case p.accept("OWNED", "BY", "NONE"):
			q.NoOwner = true
		case p.accept("OWNED", "BY"):
			var path []string
			for {
				n, err := p.name()
				if err != nil {
					return err
				}
				if path = append(path, n); !p.accept(".") {
					break
				}
			}
			if len(path) < 2 {
				return p.err()
			}
			q.OwnerTable, q.OwnerColumn = path[len(path)-2], path[len(path)-1]
		default:
			return p.err()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// integer reads a number with its sign. Beyond 64 bits it is the nearest: the
// manual's MAXVALUE may have 28 digits.
func (p *parser) integer() (*int64, error) {
	neg := p.accept("-")
	if !neg {
		p.accept("+")
	}
	t := p.peek()
	if t.kind != tNumber || strings.ContainsAny(t.val, ".eExX") {
		return nil, p.err()
	}
	p.i++
	if neg {
		t.val = "-" + t.val
	}
	n, err := strconv.ParseInt(t.val, 10, 64)
	if err != nil {
		if n = math.MaxInt64; neg {
			n = math.MinInt64
		}
	}
	return &n, nil
}

// sequenceCall rewrites seq.NEXTVAL and seq.CURRVAL (manual), NEXT VALUE FOR seq
// (standard), and drops the cast of nextval('seq'::regclass).
func (st *Statement) sequenceCall(t []token, i int) (int, bool) {
	x := t[i]
	switch {
	case x.is("NEXT") && i+3 < len(t) && t[i+1].is("VALUE") && t[i+2].is("FOR") && t[i+3].isName():
		k := i + 3
		for k+2 < len(t) && t[k+1].is(".") {
			k += 2
		}
		st.edits = append(st.edits, edit{x.start, t[k].end, "nextval(" + quoteString(t[k].val) + ")"})
		return k, true
	case x.in("NEXTVAL", "CURRVAL", "SETVAL") && i+4 < len(t) && t[i+1].is("(") && t[i+2].kind == tString && t[i+3].is("::"):
		if _, next := parseType(t, i+4); next > 0 && (t[next].is(")") || t[next].is(",")) {
			st.edits = append(st.edits, edit{t[i+3].start, t[next-1].end, ""})
			return next - 1, true
		}
	case x.isName() && i+2 < len(t) && t[i+1].is(".") && t[i+2].in("NEXTVAL", "CURRVAL") && !(i+3 < len(t) && t[i+3].in("(", ".")):
		st.edits = append(st.edits, edit{x.start, t[i+2].end, strings.ToLower(t[i+2].val) + "(" + quoteString(x.val) + ")"})
		return i + 2, true
	case x.isName() && i+4 < len(t) && t[i+1].is(".") && t[i+2].isName() && t[i+3].is(".") && t[i+4].in("NEXTVAL", "CURRVAL"):
		st.edits = append(st.edits, edit{x.start, t[i+4].end, strings.ToLower(t[i+4].val) + "(" + quoteString(t[i+2].val) + ")"})
		return i + 4, true
	}
	return i, false
}
