package dialect

import "strings"

// SET, RESET and SHOW.

func (p *parser) set() (*Statement, error) {
	st := &Statement{Kind: Set, Tag: "SET"}
	switch {
	case p.accept("TRANSACTION"):
		if p.accept("SNAPSHOT") {
			return unsupported("SET TRANSACTION SNAPSHOT"), nil
		}
		st.Kind = SetTransaction
		return p.modes(st)
	case p.accept("SESSION", "CHARACTERISTICS", "AS", "TRANSACTION"):
		st.Kind = SetCharacteristics
		return p.modes(st)
	case p.accept("CONSTRAINTS"):
		return unsupported("SET CONSTRAINTS"), nil
	case p.accept("IDENTITY_INSERT"):
		return &Statement{Kind: NoOp, Tag: "SET"}, nil
	}
	if p.accept("LOCAL") {
		st.Local = true
	} else {
		p.accept("SESSION")
	}
	switch {
	case p.accept("TIME", "ZONE"):
		st.Name = "timezone"
		return p.setValue(st)
	case p.accept("NAMES"):
		st.Name = "client_encoding"
		return p.setValue(st)
	case p.accept("AUTHORIZATION"):
		st.Name = "session_authorization"
		return p.setValue(st)
	case p.accept("ROLE"):
		st.Name = "role"
		return p.setValue(st)
	}
	n, err := p.paramName()
	if err != nil {
		return nil, err
	}
	st.Name = n
	if p.any("=", "TO") == "" {
		return nil, p.err()
	}
	return p.setValue(st)
}

// paramName reads name or class.name.
func (p *parser) paramName() (string, error) {
	n, err := p.name()
	if err != nil {
		return "", err
	}
	for p.accept(".") {
		m, err := p.name()
		if err != nil {
			return "", err
		}
		n += "." + m
	}
	return n, nil
}

func (p *parser) setValue(st *Statement) (*Statement, error) {
	if p.accept("DEFAULT") {
		st.Default = true
		return p.end(st)
	}
	var vals []string
	for {
		neg := ""
		if t := p.peek(); t.is("-") || t.is("+") {
			p.i++
			if t.is("-") {
				neg = "-"
			}
		}
		t := p.peek()
		if t.kind == tOp || t.kind == tParam {
			return nil, p.err()
		}
		p.i++
		vals = append(vals, neg+t.val)
		if !p.accept(",") {
			break
		}
	}
	st.Value = strings.Join(vals, ", ")
	return p.end(st)
}

func (p *parser) reset() (*Statement, error) {
	st := &Statement{Kind: Reset, Tag: "RESET"}
	return p.showName(st)
}

func (p *parser) show() (*Statement, error) {
	return p.showName(&Statement{Kind: Show, Tag: "SHOW"})
}

func (p *parser) showName(st *Statement) (*Statement, error) {
	switch {
	case p.accept("ALL"):
		st.Name = "ALL"
		return p.end(st)
	case p.accept("TIME", "ZONE"):
		st.Name = "timezone"
		return p.end(st)
	case p.accept("TRANSACTION", "ISOLATION", "LEVEL"):
		st.Name = "transaction_isolation"
		return p.end(st)
	case p.accept("SESSION", "AUTHORIZATION"):
		st.Name = "session_authorization"
		return p.end(st)
	}
	n, err := p.paramName()
	if err != nil {
		return nil, err
	}
	st.Name = n
	return p.end(st)
}
