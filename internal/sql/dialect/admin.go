package dialect

import (
	"strconv"
	"strings"
)

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

// systemNames are PostgreSQL's names of parameters of dm.ini, and how its
// milliseconds are counted there.
var systemNames = map[string]struct {
	name string
	unit int64 // milliseconds
}{
	"STATEMENT_TIMEOUT": {"STATEMENT_TIMEOUT", 1}, "LOCK_TIMEOUT": {"LOCK_TIMEOUT", 1},
	"IDLE_SESSION_TIMEOUT":                {"IDLE_SESSION_TIMEOUT", 1000},
	"IDLE_IN_TRANSACTION_SESSION_TIMEOUT": {"IDLE_IN_TRAN_TIMEOUT", 1000},
	"LOG_MIN_DURATION_STATEMENT":          {"SLOW_SQL_TIME", 1},
}

// alterSystem: ALTER SYSTEM SET name {= | TO} value [BOTH | MEMORY | SPFILE],
// or RESET name, which is SP_SET_PARA_VALUE under another name. Scope: memory
// and file, as the manual's product does without a word about it; a static
// parameter needs SPFILE.
func (p *parser) alterSystem() (*Statement, error) {
	st := &Statement{Kind: Call, Tag: "ALTER SYSTEM", Name: "SP_SET_PARA_VALUE"}
	reset := p.accept("RESET")
	if !reset && !p.accept("SET") {
		return nil, p.err()
	}
	t := p.peek()
	if !t.isName() && t.kind != tString {
		return nil, p.err()
	}
	p.i++
	name := strings.ToUpper(t.val)
	value := Arg{String: true} // empty: the default
	if !reset {
		if !p.accept("=") && !p.accept("TO") {
			return nil, p.err()
		}
		v, err := p.arg()
		if err != nil {
			return nil, err
		}
		value = v
	}
	if s, ok := systemNames[name]; ok {
		if ms, ok := milliseconds(value.Text); ok && (s.unit > 1 || value.Text != strconv.FormatInt(ms, 10)) {
			value.Text = strconv.FormatInt((ms+s.unit-1)/s.unit, 10)
		}
		name = s.name
	}
	scope := map[string]string{"": "1", "BOTH": "1", "MEMORY": "0", "SPFILE": "2"}[p.any("BOTH", "MEMORY", "SPFILE")]
	st.Args = []Arg{{Text: scope}, {Text: name, String: true}, value}
	return p.end(st)
}

// milliseconds reads a time such as 500, 500ms, 10s or 5min.
func milliseconds(v string) (int64, bool) {
	i := strings.IndexFunc(v, func(r rune) bool { return r < '0' || r > '9' })
	if i < 0 {
		i = len(v)
	}
	unit := map[string]int64{"": 1, "ms": 1, "s": 1000, "min": 60000, "h": 3600000, "d": 86400000}[strings.TrimSpace(v[i:])]
	n, err := strconv.ParseInt(v[:i], 10, 64)
	if err != nil || unit == 0 || n > 1<<53/unit {
		return 0, false
	}
	return n * unit, true
}

// check: CHECK DATABASE [PAGES | INDEXES], which is SP_DB_CHECK with a result of
// several columns.
func (p *parser) check() (*Statement, error) {
	if !p.accept("DATABASE") {
		return nil, p.err()
	}
	return p.end(&Statement{Kind: Call, Tag: "CHECK DATABASE", Name: "SP_DB_CHECK", Verb: p.any("PAGES", "INDEXES")})
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

// procedure reports whether a name is in the namespace of system procedures.
func procedure(t token) bool {
	return t.isName() && (hasPrefixFold(t.val, "SP_") || hasPrefixFold(t.val, "SF_") || strings.EqualFold(t.val, "CHECKPOINT"))
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}
