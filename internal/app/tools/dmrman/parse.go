package dmrman

import (
	"strings"

	"datawatch/internal/app/tools"
)

// verb is what a statement does.
type verb uint8

const (
	vBackup verb = iota
	vRestore
	vRecoverSet
	vRecoverArch
	vUpdateMagic
	vCheckSet
	vShowSet
	vCheckDB
	vHelp
	vExit
)

// stmt is a parsed statement.
type stmt struct {
	verb       verb
	ini        string // dm.ini
	dir        string // backup set or archive
	name       string // TO name
	withoutLog bool
}

// lex cuts a statement into words and quoted strings (marked by a leading
// quote); doubled quotes stand for one.
func lex(s string) ([]string, error) {
	var out []string
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
		case c == '\'' || c == '"':
			var b strings.Builder
			b.WriteByte('\'')
			i++
			for {
				if i >= len(s) {
					return nil, tools.Usagef("closing quote is missing in %q", s)
				}
				if s[i] == c {
					if i+1 < len(s) && s[i+1] == c {
						i++
					} else {
						break
					}
				}
				b.WriteByte(s[i])
				i++
			}
			i++
			out = append(out, b.String())
		default:
			j := i
			for j < len(s) && !strings.ContainsRune(" \t\r\n'\"", rune(s[j])) {
				j++
			}
			out = append(out, s[i:j])
			i = j
		}
	}
	return out, nil
}

// words is a statement being read.
type words struct {
	w   []string
	all string
}

func (p *words) is(ws ...string) bool {
	if len(p.w) < len(ws) {
		return false
	}
	for i, w := range ws {
		if !strings.EqualFold(p.w[i], w) {
			return false
		}
	}
	p.w = p.w[len(ws):]
	return true
}

func (p *words) quoted(what string) (string, error) {
	if len(p.w) == 0 || p.w[0][0] != '\'' || len(p.w[0]) == 1 {
		return "", tools.Usagef("%s in quotes is expected after %q", what, p.before())
	}
	s := p.w[0][1:]
	p.w = p.w[1:]
	return s, nil
}

func (p *words) before() string {
	ws, _ := lex(p.all)
	done := ws[:len(ws)-len(p.w)]
	return strings.Join(done, " ")
}

func (p *words) end() error {
	if len(p.w) > 0 {
		return tools.Usagef("unexpected %q after %q", strings.TrimPrefix(p.w[0], "'"), p.before())
	}
	return nil
}

// parse reads one statement (manual 7.1, 6.14), with or without a semicolon.
func parse(text string) (stmt, error) {
	text = strings.TrimSuffix(strings.TrimSpace(text), ";")
	ws, err := lex(text)
	if err != nil {
		return stmt{}, err
	}
	p := &words{w: ws, all: text}
	var s stmt
	switch {
	case p.is("EXIT"), p.is("QUIT"):
		s.verb = vExit
	case p.is("HELP"), p.is("?"):
		s.verb = vHelp
	case p.is("BACKUP", "DATABASE"):
		s.verb = vBackup
		s.ini, err = p.quoted("path of dm.ini")
		p.is("FULL")
		if err == nil && p.is("TO") {
			if len(p.w) == 0 || strings.EqualFold(p.w[0], "BACKUPSET") {
				return s, tools.Usagef("a name is expected after TO")
			}
			s.name, p.w = strings.TrimPrefix(p.w[0], "'"), p.w[1:]
		}
		if err == nil && p.is("BACKUPSET") {
			s.dir, err = p.quoted("directory")
		}
		s.withoutLog = p.is("WITHOUT", "LOG")
	case p.is("RESTORE", "DATABASE"):
		s.verb = vRestore
		if s.ini, err = p.quoted("path of dm.ini"); err == nil {
			if !p.is("FROM", "BACKUPSET") {
				return s, tools.Usagef("FROM BACKUPSET 'dir' is expected after %q", p.before())
			}
			s.dir, err = p.quoted("directory")
		}
	case p.is("RECOVER", "DATABASE"):
		s, err = parseRecover(p)
	case p.is("CHECK", "BACKUPSET"):
		s.verb = vCheckSet
		s.dir, err = p.quoted("directory")
	case p.is("SHOW", "BACKUPSET"):
		s.verb = vShowSet
		s.dir, err = p.quoted("directory")
	case p.is("CHECK", "DATABASE"):
		s.verb = vCheckDB
		s.ini, err = p.quoted("path of dm.ini")
	default:
		return s, tools.Usagef("unknown statement %q; HELP lists the statements", text)
	}
	if err == nil {
		err = p.end()
	}
	return s, err
}

func parseRecover(p *words) (s stmt, err error) {
	if s.ini, err = p.quoted("path of dm.ini"); err != nil {
		return s, err
	}
	switch {
	case p.is("FROM", "BACKUPSET"):
		s.verb = vRecoverSet
		s.dir, err = p.quoted("directory")
	case p.is("WITH", "ARCHIVEDIR"):
		s.verb = vRecoverArch
		s.dir, err = p.quoted("directory")
	case p.is("UPDATE", "DB_MAGIC"):
		s.verb = vUpdateMagic
	default:
		err = tools.Usagef("FROM BACKUPSET 'dir', WITH ARCHIVEDIR 'dir' or UPDATE DB_MAGIC is expected after %q", p.before())
	}
	return s, err
}
