package dialect

import (
	"strconv"
	"strings"
)

// RoleSpec is CREATE, ALTER or DROP of users and roles, in the words of
// PostgreSQL and of the manual's product. Pointers are nil where the statement
// says nothing.
type RoleSpec struct {
	Verb   string // CREATE, ALTER, DROP
	Names  []string
	Exists bool // IF EXISTS, or IF NOT EXISTS
	Rename string

	Password    *string // a password, or a verifier in PostgreSQL's form
	NoPassword  bool    // PASSWORD NULL
	Login       *bool
	Inherit     *bool
	Super       *bool // SUPERUSER, SYSDBA: membership in DBA
	Locked      *bool // ACCOUNT LOCK, UNLOCK
	ConnLimit   *int  // -1: none
	ValidUntil  *string
	FailedLimit *int // LIMIT FAILED_LOGIN_ATTEMPTS; 0: no limit
	LockMinutes *int // LIMIT PASSWORD_LOCK_TIME

	In, Members, Admins []string // IN ROLE, ROLE, ADMIN
}

// OnlyPassword reports a statement that changes a password and nothing else.
func (r *RoleSpec) OnlyPassword() bool {
	return r.Verb == "ALTER" && len(r.Names) == 1 && r.Password != nil && r.Login == nil && r.Inherit == nil && r.Super == nil &&
		r.Locked == nil && r.ConnLimit == nil && r.ValidUntil == nil && r.FailedLimit == nil && r.LockMinutes == nil && r.Rename == ""
}

// role parses what follows CREATE, ALTER or DROP, from USER or ROLE on.
func (p *parser) role(verb string) (*Statement, error) {
	kind := p.peek()
	p.i++
	st := &Statement{Kind: Role, Tag: verb + " ROLE", Verb: verb + " " + kind.up, Role: &RoleSpec{Verb: verb}}
	r := st.Role
	var err error
	switch {
	case verb == "DROP":
		r.Exists = p.accept("IF", "EXISTS")
		if r.Names, err = p.roleNames(); err != nil {
			return nil, err
		}
		if p.accept("CASCADE") {
			return unsupported("DROP " + kind.up + " ... CASCADE"), nil
		}
		p.accept("RESTRICT")
		return p.end(st)
	case verb == "CREATE":
		r.Exists = p.accept("IF", "NOT", "EXISTS")
		yes := kind.is("USER")
		r.Login = &yes
	case p.accept("ALL"):
		return unsupported("ALTER " + kind.up + " ALL"), nil
	}
	n, err := p.roleName()
	if err != nil {
		return nil, err
	}
	r.Names = []string{n}
	if verb == "ALTER" {
		switch {
		case p.accept("RENAME", "TO"):
			if r.Rename, err = p.roleName(); err != nil {
				return nil, err
			}
			return p.end(st)
		case p.peek().in("SET", "RESET", "IN"):
			return unsupported("ALTER " + kind.up + " ... " + p.peek().up), nil
		}
	}
	p.accept("WITH")
	for p.more() {
		refused, err := p.roleOption(st, kind.up)
		if err != nil || refused != nil {
			return refused, err
		}
	}
	return st, nil
}

// roleName is a name; PUBLIC and NONE are none.
func (p *parser) roleName() (string, error) {
	if t := p.peek(); t.isName() {
		p.i++
		return t.name(), nil
	}
	return "", p.err()
}

func (p *parser) roleNames() (out []string, err error) {
	for {
		n, err := p.roleName()
		if err != nil {
			return nil, err
		}
		if out = append(out, n); !p.accept(",") {
			return out, nil
		}
	}
}

// secret is the error of a statement that may hold a password: it does not
// quote the text, which goes to logs.
func (p *parser) secret(st *Statement) error {
	return &SyntaxError{"syntax error in " + st.Verb + ": its text is not shown, as it may hold a password", p.peek().start}
}

func (p *parser) roleOption(st *Statement, kind string) (refused *Statement, err error) {
	r := st.Role
	set := func(b **bool, v bool) { *b = &v }
	number := func(n **int, lo int) error {
		neg := p.accept("-")
		t := p.peek()
		v, err := strconv.Atoi(t.val)
		if neg {
			v = -v
		}
		if t.kind != tNumber || err != nil || v < lo {
			if t.is("UNLIMITED") {
				p.i++
				v = max(lo, -1)
				*n = &v
				return nil
			}
			return p.secret(st)
		}
		p.i++
		*n = &v
		return nil
	}
	switch {
	case p.accept("IDENTIFIED", "BY"), p.accept("PASSWORD"), p.accept("ENCRYPTED", "PASSWORD"):
		t := p.peek()
		switch {
		case t.is("NULL"):
			r.NoPassword, r.Password = true, nil
		case t.kind == tString || t.isName():
			v := t.val
			r.Password, r.NoPassword = &v, false
		default:
			return nil, p.secret(st)
		}
		p.i++
	case p.accept("UNENCRYPTED"):
		return unsupported("UNENCRYPTED PASSWORD"), nil
	case p.accept("LOGIN"):
		set(&r.Login, true)
	case p.accept("NOLOGIN"):
		set(&r.Login, false)
	case p.accept("INHERIT"):
		set(&r.Inherit, true)
	case p.accept("NOINHERIT"):
		set(&r.Inherit, false)
	case p.accept("SUPERUSER"), p.accept("SYSDBA"):
		set(&r.Super, true)
	case p.accept("NOSUPERUSER"):
		set(&r.Super, false)
	case p.any("NOCREATEDB", "NOCREATEROLE", "NOCREATEUSER", "NOREPLICATION", "NOBYPASSRLS") != "":
	case p.peek().in("CREATEDB", "CREATEROLE", "CREATEUSER", "REPLICATION", "BYPASSRLS", "DEFAULT", "TABLESPACE", "DISKSPACE",
		"ALLOW_IP", "NOT_ALLOW_IP", "ALLOW_DATETIME", "NOT_ALLOW_DATETIME", "PROFILE", "QUOTA", "READ", "HASH"):
		return unsupported(st.Verb + " ... " + p.peek().up), nil
	case p.accept("ACCOUNT", "LOCK"):
		set(&r.Locked, true)
	case p.accept("ACCOUNT", "UNLOCK"):
		set(&r.Locked, false)
	case p.accept("CONNECTION", "LIMIT"):
		return nil, number(&r.ConnLimit, -1)
	case p.accept("VALID", "UNTIL"):
		t := p.peek()
		if t.kind != tString {
			return nil, p.secret(st)
		}
		p.i++
		r.ValidUntil = &t.val
	case p.accept("LIMIT"):
		for {
			var err error
			switch {
			case p.accept("FAILED_LOGIN_ATTEMPTS"), p.accept("FAILED_LOGIN_ATTEMPS"): // the second is how the product spells it
				err = number(&r.FailedLimit, 0)
			case p.accept("PASSWORD_LOCK_TIME"):
				err = number(&r.LockMinutes, 0)
			case p.accept("SESSION_PER_USER"):
				err = number(&r.ConnLimit, -1)
			case p.peek().in("CONNECT_TIME", "CONNECT_IDLE_TIME", "PASSWORD_LIFE_TIME", "PASSWORD_REUSE_TIME", "PASSWORD_REUSE_MAX",
				"PASSWORD_GRACE_TIME", "CPU_PER_CALL", "CPU_PER_SESSION", "MEM_SPACE", "READ_PER_CALL", "READ_PER_SESSION"):
				return unsupported(st.Verb + " ... LIMIT " + p.peek().up), nil
			default:
				return nil, p.secret(st)
			}
			if err != nil || !p.accept(",") {
				return nil, err
			}
		}
	case p.accept("IN", "ROLE"), p.accept("IN", "GROUP"):
		return nil, p.moreRoles(&r.In)
	case st.Role.Verb == "CREATE" && (p.accept("ROLE") || p.accept("USER")):
		return nil, p.moreRoles(&r.Members)
	case st.Role.Verb == "CREATE" && p.accept("ADMIN"):
		return nil, p.moreRoles(&r.Admins)
	case p.accept("SYSID"):
		p.i++
	default:
		return nil, p.secret(st)
	}
	return nil, nil
}

func (p *parser) moreRoles(to *[]string) error {
	names, err := p.roleNames()
	*to = append(*to, names...)
	return err
}

// GrantSpec is GRANT or REVOKE, or one of the statements about ownership.
type GrantSpec struct {
	Revoke     bool
	OptionOnly bool     // REVOKE GRANT OPTION FOR, ADMIN OPTION FOR
	Option     bool     // WITH GRANT OPTION, WITH ADMIN OPTION
	Cascade    bool     //
	On         string   // TABLE, SEQUENCE, SCHEMA, DATABASE; "" for roles
	Privs      []Priv   // ALL alone stands for every privilege
	Objects    []string // names; with On == TABLE and All: nil
	All        bool     // ALL TABLES IN SCHEMA public
	Roles      []string // of a grant of roles
	To         []string
}

// Priv is a privilege, perhaps for some columns only.
type Priv struct {
	Name    string // upper case
	Columns []string
}

var privileges = []string{"SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "CREATE", "USAGE", "CONNECT", "TEMPORARY", "TEMP", "ALL",
	"TRIGGER", "EXECUTE", "SET", "MAINTAIN", "ALTER", "INDEX"}

// grant parses GRANT and REVOKE.
func (p *parser) grant(verb string) (*Statement, error) {
	g := &GrantSpec{Revoke: verb == "REVOKE"}
	st := &Statement{Kind: Grant, Tag: verb, Verb: verb, Grant: g}
	if g.Revoke && (p.accept("GRANT", "OPTION", "FOR") || p.accept("ADMIN", "OPTION", "FOR")) {
		g.OptionOnly = true
	}
	// A role may have any name: it is a list of privileges if ON follows.
	onObject := false
	for k, depth := p.i, 0; k < len(p.toks) && !onObject; k++ {
		switch x := p.toks[k]; {
		case x.is("("):
			depth++
		case x.is(")"):
			depth--
		case depth == 0 && x.in("TO", "FROM"):
			k = len(p.toks)
		case depth == 0 && x.is("ON"):
			onObject = true
		}
	}
	if !onObject {
		return p.grantRoles(st)
	}
	for {
		w := p.any(privileges...)
		if w == "" {
			if p.peek().kind == tIdent {
				return nil, &SyntaxError{"unrecognized privilege type " + strconv.Quote(strings.ToLower(p.peek().val)), p.peek().start}
			}
			return nil, p.err()
		}
		if w == "ALL" {
			p.accept("PRIVILEGES")
		}
		pr := Priv{Name: w}
		if p.accept("(") {
			var err error
			if pr.Columns, err = p.nameList(); err != nil {
				return nil, err
			}
		}
		g.Privs = append(g.Privs, pr)
		if !p.accept(",") {
			break
		}
	}
	if !p.accept("ON") {
		return nil, p.err()
	}
	if refused, err := p.grantObjects(g, verb); refused != nil || err != nil {
		return refused, err
	}
	return p.grantees(st)
}

func (p *parser) grantObjects(g *GrantSpec, verb string) (refused *Statement, err error) {
	g.On = "TABLE"
	switch {
	case p.accept("ALL", "TABLES", "IN", "SCHEMA"):
		g.All = true
	case p.accept("ALL", "SEQUENCES", "IN", "SCHEMA"):
		g.On, g.All = "SEQUENCE", true
	case p.accept("SEQUENCE"):
		g.On = "SEQUENCE"
	case p.accept("SCHEMA"):
		g.On = "SCHEMA"
	case p.accept("DATABASE"):
		g.On = "DATABASE"
	case p.peek().is("ALL") && p.i+1 < len(p.toks):
		return unsupported(verb + " ... ON ALL " + p.toks[p.i+1].up + " IN SCHEMA"), nil
	case p.peek().in("FUNCTION", "PROCEDURE", "ROUTINE", "TYPE", "DOMAIN", "LANGUAGE", "TABLESPACE", "PARAMETER", "FOREIGN", "PACKAGE", "CLASS", "DIRECTORY") &&
		p.i+1 < len(p.toks) && p.toks[p.i+1].isName() && !p.toks[p.i+1].in("TO", "FROM"):
		return unsupported(verb + " ... ON " + p.peek().up), nil
	case p.peek().in("LARGE"):
		return unsupported(verb + " ... ON LARGE OBJECT"), nil
	default:
		if !p.accept("TABLE") {
			p.accept("VIEW")
		}
	}
	for {
		n, err := p.name()
		if err != nil {
			return nil, err
		}
		if p.accept(".") {
			if !strings.EqualFold(n, "public") && !strings.EqualFold(n, "main") {
				return nil, &SyntaxError{"schema " + strconv.Quote(n) + " does not exist", p.toks[p.i-2].start}
			}
			if n, err = p.name(); err != nil {
				return nil, err
			}
		}
		g.Objects = append(g.Objects, n)
		if !p.accept(",") {
			return nil, nil
		}
	}
}

func (p *parser) grantRoles(st *Statement) (*Statement, error) {
	st.Tag += " ROLE"
	g := st.Grant
	if p.peek().in("CREATE", "DROP", "ALTER", "SELECT", "INSERT", "UPDATE", "DELETE", "BACKUP", "DUMP", "EXECUTE", "COMMENT", "ALL") && p.i+1 < len(p.toks) &&
		!p.toks[p.i+1].in("TO", "FROM", ",") {
		return unsupported(st.Verb + " of the system privilege " + p.peek().up + " " + p.toks[p.i+1].up + " (grant the role RESOURCE or DBA)"), nil
	}
	var err error
	if g.Roles, err = p.roleNames(); err != nil {
		return nil, err
	}
	return p.grantees(st)
}

func (p *parser) grantees(st *Statement) (*Statement, error) {
	g := st.Grant
	if want := map[bool]string{false: "TO", true: "FROM"}[g.Revoke]; !p.accept(want) {
		return nil, p.err()
	}
	var err error
	for {
		p.any("GROUP", "USER", "ROLE")
		n, e := p.roleName()
		if err = e; err != nil {
			return nil, err
		}
		if g.To = append(g.To, n); !p.accept(",") {
			break
		}
	}
	switch {
	case !g.Revoke && (p.accept("WITH", "GRANT", "OPTION") || p.accept("WITH", "ADMIN", "OPTION")):
		g.Option = true
	case g.Revoke && p.accept("CASCADE"):
		g.Cascade = true
	case g.Revoke:
		p.accept("RESTRICT")
	}
	if p.peek().is("GRANTED") {
		return unsupported(st.Verb + " ... GRANTED BY"), nil
	}
	return p.end(st)
}

// reassign is REASSIGN OWNED BY a TO b.
func (p *parser) reassign() (*Statement, error) {
	st := &Statement{Kind: Reassign, Tag: "REASSIGN OWNED"}
	if !p.accept("OWNED", "BY") {
		return nil, p.err()
	}
	var err error
	if st.Tables, err = p.roleNames(); err != nil {
		return nil, err
	}
	if !p.accept("TO") {
		return nil, p.err()
	}
	if st.Name, err = p.roleName(); err != nil {
		return nil, err
	}
	return p.end(st)
}

// alterOwner is ALTER TABLE | VIEW name OWNER TO role, after the name.
func (p *parser) alterOwner(name string, exists bool) *Statement {
	to, err := p.roleName()
	if err != nil || p.more() {
		return nil
	}
	return &Statement{Kind: AlterOwner, Tag: "ALTER TABLE", Name: name, Value: to, IfExists: exists}
}

// alterView is ALTER VIEW name OWNER TO role; nil: SQLite's.
func (p *parser) alterView() *Statement {
	exists := p.accept("IF", "EXISTS")
	n, err := p.name()
	if err == nil && p.accept(".") {
		n, err = p.name()
	}
	if err != nil || !p.accept("OWNER", "TO") {
		return nil
	}
	st := p.alterOwner(n, exists)
	if st != nil {
		st.Tag = "ALTER VIEW"
	}
	return st
}
