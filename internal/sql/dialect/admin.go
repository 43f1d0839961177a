package dialect

import "strings"

func (p *parser) alterDatabase() (*Statement, error) {
	st := &Statement{Kind: AlterDatabase, Tag: "ALTER DATABASE"}
	switch w := p.any("MOUNT", "OPEN", "SUSPEND", "PRIMARY", "STANDBY", "NORMAL", "ADD"); w {
	case "OPEN":
		st.Verb = w
		if p.accept("FORCE") {
			st.Verb = "OPEN FORCE"
		}
	case "ADD":
		if !p.accept("ARCHIVELOG") {
			return nil, p.err()
		}
		v, err := p.str()
		if err != nil {
			return nil, err
		}
		st.Kind, st.Value = AddArchiveLog, v
	case "":
		if p.peek().in("MODIFY", "DELETE", "ARCHIVELOG", "NOARCHIVELOG", "RENAME") {
			return unsupported("ALTER DATABASE " + p.peek().up), nil
		}
		return nil, p.err()
	default:
		st.Verb = w
	}
	return p.end(st)
}

// alterUser: ALTER USER name IDENTIFIED BY pwd | [WITH] PASSWORD 'pwd'.
func (p *parser) alterUser() (*Statement, error) {
	st := &Statement{Kind: AlterUser, Tag: "ALTER ROLE"}
	n, err := p.name()
	if err != nil {
		return nil, err
	}
	st.Name = n
	if !p.accept("IDENTIFIED", "BY") {
		p.accept("WITH")
		p.accept("ENCRYPTED")
		if !p.accept("PASSWORD") {
			return unsupported("ALTER USER other than changing the password"), nil
		}
	}
	if t := p.peek(); t.kind == tString || t.isName() {
		st.Value = t.val
		p.i++
	} else {
		return nil, p.err()
	}
	return p.end(st)
}

// backup: BACKUP DATABASE [FULL] [TO name] BACKUPSET 'dir' [WITHOUT LOG].
func (p *parser) backup() (*Statement, error) {
	if !p.accept("DATABASE") {
		if p.peek().in("ARCHIVE", "ARCHIVELOG", "TABLE", "TABLESPACE") {
			return unsupported("BACKUP " + p.peek().up), nil
		}
		return nil, p.err()
	}
	st := &Statement{Kind: Backup, Tag: "BACKUP DATABASE"}
	b := &st.Backup
	b.Full = p.accept("FULL")
	if !b.Full && p.peek().is("INCREMENT") {
		return unsupported("BACKUP DATABASE INCREMENT"), nil
	}
	var err error
	if p.accept("TO") {
		if b.Name, err = p.name(); err != nil {
			return nil, err
		}
	}
	if !p.accept("BACKUPSET") {
		return nil, p.err()
	}
	if b.Dir, err = p.str(); err != nil {
		return nil, err
	}
	b.WithoutLog = p.accept("WITHOUT", "LOG")
	return p.end(st)
}

// call parses the arguments after a procedure's name.
func (p *parser) call(name token, tag string, sel bool) (*Statement, error) {
	st := &Statement{Kind: Call, Tag: tag, Name: strings.ToUpper(name.val), Select: sel}
	if p.accept("(") && !p.accept(")") {
		for {
			a, err := p.arg()
			if err != nil {
				return nil, err
			}
			st.Args = append(st.Args, a)
			if p.accept(")") {
				break
			}
			if !p.accept(",") {
				return nil, p.err()
			}
		}
	}
	if sel {
		if p.accept("FROM") && !p.accept("DUAL") {
			return nil, p.err()
		}
		if p.accept("AS") || p.more() {
			if _, err := p.name(); err != nil {
				return nil, err
			}
		}
	}
	return p.end(st)
}

// selectCall recognises SELECT SP_X(...) standing alone; nil: something else.
func (p *parser) selectCall() *Statement {
	t := p.peek()
	p.i++
	st, err := p.call(t, "SELECT", true)
	if err != nil {
		return nil
	}
	return st
}

func (p *parser) arg() (Arg, error) {
	neg := ""
	if p.accept("-") {
		neg = "-"
	} else {
		p.accept("+")
	}
	t := p.peek()
	switch {
	case t.kind == tNumber:
		p.i++
		return Arg{Text: neg + t.val}, nil
	case neg != "":
	case t.kind == tString, t.kind == tQuoted:
		p.i++
		return Arg{Text: t.val, String: true}, nil
	case t.is("NULL"):
		p.i++
		return Arg{Null: true}, nil
	case t.in("TRUE", "FALSE"):
		p.i++
		return Arg{Text: map[string]string{"TRUE": "1", "FALSE": "0"}[t.up]}, nil
	case t.kind == tParam && paramNumber(t.val) > 0:
		p.i++
		return Arg{Param: paramNumber(t.val)}, nil
	case t.kind == tIdent:
		p.i++
		return Arg{Text: t.val, String: true}, nil
	}
	return Arg{}, p.err()
}
