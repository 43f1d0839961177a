package session

import (
	"fmt"
	"strings"

	"github.com/ncruces/go-sqlite3"

	"datawatch/internal/sql/dialect"
	"datawatch/internal/sql/sqlapi"
)

// Statements about users and roles. They are writing statements like any
// other: part of the transaction they are in.

// manager executes one of them.
type manager struct {
	s  *Session
	c  *conn
	db *sqlite3.Conn
	a  *access // before the statement
	id int64   // who executes it
}

// manage runs fn with the write lock, as the server, and makes every connection
// look at users and privileges again.
func (s *Session) manage(what string, fn func(m *manager) error) error {
	audit := ""
	err := s.atomic(what, func(c *conn) error {
		a, err := c.access(true)
		if err != nil {
			return err
		}
		id, err := s.subject(a)
		if err != nil {
			return err
		}
		c.internal = true
		defer func() { c.internal = false }()
		c.ddl, c.dirty, c.mine = true, true, nil
		c.flush()
		m := &manager{s: s, c: c, db: c.db, a: a, id: id}
		err = guard(func() error {
			if err := m.newest(); err != nil {
				return err
			}
			if err := fn(m); err != nil {
				return err
			}
			return bump(c.db)
		})
		c.flush()
		s.b.schemaGen.Add(1)
		if err != nil && c.file != nil {
			err = s.storeError(c, err)
		}
		audit = a.nameOf(id)
		return err
	})
	if err == nil {
		s.b.log.Info("audit", "action", what, "by", audit, "login", s.info.User, "remote", s.info.RemoteAddr)
		if !s.tx.active {
			_, err := s.b.access() // ends the sessions of dropped users
			if err != nil {
				s.b.log.Error("read users", "err", err)
			}
		}
	}
	return err
}

// newest makes the tables of a database of the first version anew.
func (m *manager) newest() error {
	legacy, err := legacyUsers(m.db)
	if err != nil || !legacy {
		return err
	}
	var users []*role
	for _, r := range m.a.byID {
		if r.login {
			users = append(users, r)
		}
	}
	if err := makeTables(m.db, users); err != nil {
		return err
	}
	for _, u := range users {
		if u.id != sysdbaID {
			if err := exec(m.db, "INSERT INTO main."+memberTable+" VALUES(?, ?, ?, 1)", int64(dbaID), u.id, int64(sysdbaID)); err != nil {
				return err
			}
		}
	}
	return nil
}

// bump changes the schema cookie, and has the connection see that itself.
func bump(db *sqlite3.Conn) error {
	v, err := rowsOf(db, "PRAGMA main.schema_version")
	if err != nil {
		return err
	}
	var n int32
	fmt.Sscan(v[0][0], &n)
	if _, err := db.Config(sqlite3.DBCONFIG_DEFENSIVE, false); err != nil {
		return err
	}
	err = db.Exec(fmt.Sprintf("PRAGMA main.schema_version = %d", n+1))
	if _, e := db.Config(sqlite3.DBCONFIG_DEFENSIVE, true); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return db.Exec("SELECT 1 FROM main.sqlite_schema LIMIT 1")
}

// role finds one that must exist; CURRENT_USER and the like are the session's.
func (m *manager) role(name string) (*role, error) {
	switch strings.ToUpper(name) {
	case "CURRENT_USER", "CURRENT_ROLE", "USER":
		return m.a.byID[m.id], nil
	case "SESSION_USER":
		return m.a.byID[m.s.me.session], nil
	}
	if r := m.a.find(name); r != nil {
		return r, nil
	}
	return nil, &sqlapi.Error{Code: "42704", Message: fmt.Sprintf("role %q does not exist", name)}
}

func (m *manager) mustAdminister(what string) error {
	if !m.a.dba(m.id) {
		return &sqlapi.Error{Code: "42501", Message: "permission denied: " + what + " needs the role DBA"}
	}
	return nil
}

// roleStmt executes CREATE, ALTER and DROP of users and roles.
func (s *Session) roleStmt(p *parsed) error {
	r := p.Role
	return s.manage(p.Verb+" "+strings.Join(r.Names, ", "), func(m *manager) error {
		self := r.OnlyPassword() && m.a.find(r.Names[0]) == m.a.byID[m.s.me.session]
		if !self {
			if err := m.mustAdminister(p.Verb); err != nil {
				return err
			}
		}
		var err error
		switch r.Verb {
		case "CREATE":
			err = m.create(r)
		case "ALTER":
			err = m.alter(r)
		default:
			err = m.drop(r, p.Verb)
		}
		if err != nil {
			return err
		}
		return m.someAdministrator()
	})
}

func (m *manager) create(r *dialect.RoleSpec) error {
	name := r.Names[0]
	switch {
	case len(name) == 0 || len(name) > 128:
		return &sqlapi.Error{Code: "42602", Message: "the name of a user or role must have 1 to 128 bytes"}
	case strings.EqualFold(name, "public"), strings.EqualFold(name, "none"), strings.HasPrefix(lower(name), "pg_"), strings.ContainsAny(name, "\x00+,@/\" \t\r\n"):
		return &sqlapi.Error{Code: "42939", Message: fmt.Sprintf("role name %q is reserved, or has characters that names of roles must not have", name)}
	case m.a.find(name) != nil && r.Exists:
		m.s.notice("42710", fmt.Sprintf("role %q already exists, skipping", name))
		return nil
	case m.a.find(name) != nil:
		return &sqlapi.Error{Code: "42710", Message: fmt.Sprintf("role %q already exists", name)}
	}
	x := &role{name: name, inherit: true, connLimit: -1, failedLimit: -1, lockMinutes: -1}
	if err := m.apply(x, r); err != nil {
		return err
	}
	if err := insertRole(m.db, x); err != nil {
		return err
	}
	x.id = m.db.LastInsertRowID()
	for _, in := range r.In {
		if err := m.join(in, x, false); err != nil {
			return err
		}
	}
	for i, list := range [][]string{r.Members, r.Admins} {
		for _, n := range list {
			member, err := m.role(n)
			if err != nil {
				return err
			}
			if err := m.setMember(x.id, member.id, i == 1); err != nil {
				return err
			}
		}
	}
	return m.super(x, r)
}

// super is SUPERUSER: membership in DBA.
func (m *manager) super(x *role, r *dialect.RoleSpec) error {
	switch {
	case r.Super == nil:
		return nil
	case *r.Super:
		return m.setMember(dbaID, x.id, true)
	case x.id == sysdbaID:
		return &sqlapi.Error{Code: "0LP01", Message: "SYSDBA is always an administrator"}
	}
	return exec(m.db, "DELETE FROM main."+memberTable+" WHERE ROLE = ? AND MEMBER = ?", int64(dbaID), x.id)
}

func (m *manager) join(in string, x *role, admin bool) error {
	r, err := m.role(in)
	if err != nil {
		return err
	}
	return m.setMember(r.id, x.id, admin)
}

func (m *manager) setMember(role, member int64, admin bool) error {
	if role == member || role != member && m.a.memberOf(role, member) {
		return &sqlapi.Error{Code: "0LP01", Message: fmt.Sprintf("role %q is a member of role %q", m.a.nameOf(role), m.a.nameOf(member))}
	}
	return exec(m.db, "INSERT INTO main."+memberTable+" VALUES(?1, ?2, ?3, ?4) ON CONFLICT(ROLE, MEMBER) DO UPDATE SET ADMIN = max(ADMIN, ?4)", role, member, m.id, admin)
}

// apply changes the attributes that a statement names.
func (m *manager) apply(x *role, r *dialect.RoleSpec) error {
	if r.Login != nil {
		x.login = *r.Login
	}
	if r.Inherit != nil {
		x.inherit = *r.Inherit
	}
	if r.ConnLimit != nil {
		x.connLimit = *r.ConnLimit
	}
	if r.FailedLimit != nil {
		x.failedLimit = *r.FailedLimit
	}
	if r.LockMinutes != nil {
		x.lockMinutes = *r.LockMinutes
	}
	if r.Locked != nil {
		if x.locked = *r.Locked; !x.locked {
			x.unlocks++ // every instance forgets the failures it has counted
		}
	}
	if r.ValidUntil != nil {
		x.validUntil = strings.TrimSpace(*r.ValidUntil)
		if x.validUntil != "infinity" {
			t, err := parseUntil(x.validUntil)
			if err != nil {
				return &sqlapi.Error{Code: "22007", Message: err.Error()}
			}
			x.validUntil = t.UTC().Format("2006-01-02 15:04:05+00")
		}
	}
	if r.NoPassword {
		x.verifier, x.isDefault = "", false
	}
	if r.Password == nil {
		return nil
	}
	return m.password(x, *r.Password)
}

func (m *manager) password(x *role, password string) error {
	if strings.HasPrefix(password, "SCRAM-SHA-256$") {
		if _, _, _, _, ok := parts(password); !ok {
			return &sqlapi.Error{Code: "22023", Message: fmt.Sprintf("the password verifier is not of the form SCRAM-SHA-256$iterations:salt$stored:server with at least %d iterations", scramIterations)}
		}
		// Made by the client (psql's \password): the policy cannot see it, but the
		// initial password and the name of the user can be recognised.
		if verify(password, x.name) {
			if err := m.s.b.policy().check(x.name, x.name); err != nil {
				return err
			}
		}
		x.verifier, x.isDefault = password, verify(password, DefaultPassword)
		return nil
	}
	if strings.HasPrefix(password, "md5") && len(password) == 35 {
		return &sqlapi.Error{Code: "0A000", Message: "MD5 passwords are not supported"}
	}
	if err := m.s.b.policy().check(x.name, password); err != nil {
		return err
	}
	v, err := makeVerifier(password)
	if err != nil {
		return err
	}
	x.verifier, x.isDefault = v, password == DefaultPassword
	return nil
}

func builtin(id int64) bool { return id == dbaID || id == resourceID || id == vtiID }

func (m *manager) alter(r *dialect.RoleSpec) error {
	x, err := m.role(r.Names[0])
	if err != nil {
		return err
	}
	if builtin(x.id) || x.id == sysdbaID && r.Rename != "" {
		return &sqlapi.Error{Code: "42939", Message: fmt.Sprintf("role %q is part of the system and cannot be changed so", x.name)}
	}
	y := *x
	if r.Rename != "" {
		if o := m.a.find(r.Rename); o != nil && o.id != x.id {
			return &sqlapi.Error{Code: "42710", Message: fmt.Sprintf("role %q already exists", r.Rename)}
		}
		return exec(m.db, "UPDATE main."+userTable+" SET NAME = ? WHERE ID = ?", r.Rename, x.id)
	}
	if err := m.apply(&y, r); err != nil {
		return err
	}
	err = exec(m.db, "UPDATE main."+userTable+` SET LOGIN = ?2, INHERIT = ?3, VERIFIER = ?4, IS_DEFAULT = ?5, CONN_LIMIT = ?6, VALID_UNTIL = ?7,
		LOCKED = ?8, UNLOCKS = ?9, FAILED_LIMIT = ?10, LOCK_MINUTES = ?11 WHERE ID = ?1`, y.id, y.login, y.inherit, y.verifier, y.isDefault, y.connLimit,
		y.validUntil, y.locked, y.unlocks, y.failedLimit, y.lockMinutes)
	if err != nil {
		return err
	}
	for _, in := range r.In {
		if err := m.join(in, &y, false); err != nil {
			return err
		}
	}
	return m.super(&y, r)
}

func (m *manager) drop(r *dialect.RoleSpec, verb string) error {
	for _, n := range r.Names {
		x := m.a.find(n)
		switch {
		case x == nil && r.Exists:
			m.s.notice("42704", fmt.Sprintf("role %q does not exist, skipping", n))
			continue
		case x == nil:
			return &sqlapi.Error{Code: "42704", Message: fmt.Sprintf("role %q does not exist", n)}
		case builtin(x.id) || x.id == sysdbaID:
			return &sqlapi.Error{Code: "42939", Message: fmt.Sprintf("role %q is part of the system and cannot be dropped", x.name)}
		case x.id == m.s.me.login || x.id == m.s.me.session || x.id == m.id:
			return &sqlapi.Error{Code: "55006", Message: "current user cannot be dropped"}
		}
		var on []string
		for rel, id := range m.a.owners {
			if id == x.id {
				on = append(on, "owner of "+m.a.names[rel])
			}
		}
		for _, g := range m.a.grants {
			if g.grantor == x.id {
				on = append(on, "privileges on "+m.relName(g.rel)+" that it granted to "+m.a.nameOf(g.grantee))
			}
		}
		if len(on) > 0 {
			return &sqlapi.Error{Code: "2BP01", Message: fmt.Sprintf("role %q cannot be dropped because some objects depend on it", x.name),
				Detail: strings.Join(on[:min(len(on), 10)], "\n"), Hint: "REASSIGN OWNED BY ... TO ... gives its tables to another role; REVOKE takes privileges back."}
		}
		for _, sql := range []string{"DELETE FROM main." + userTable + " WHERE ID = ?1", "DELETE FROM main." + memberTable + " WHERE ROLE = ?1 OR MEMBER = ?1",
			"DELETE FROM main." + grantTable + " WHERE GRANTEE = ?1"} {
			if err := exec(m.db, sql, x.id); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *manager) relName(rel string) string {
	if rel == schemaRel {
		return "schema public"
	}
	return m.a.names[rel]
}

// someAdministrator refuses a change after which nobody could administer.
func (m *manager) someAdministrator() error {
	r, err := loadRoles(m.db)
	if err != nil {
		return err
	}
	for _, x := range r.byID {
		if x.login && !x.locked && x.verifier != "" && !x.expired(m.s.b.cfg.Clock.Now()) && r.dba(x.id) {
			return nil
		}
	}
	return &sqlapi.Error{Code: "55000", Message: "there would be no administrator left who can log in"}
}
