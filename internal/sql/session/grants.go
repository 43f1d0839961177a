package session

import (
	"fmt"
	"strings"

	"datawatch/internal/sql/dialect"
	"datawatch/internal/sql/sqlapi"
)

// GRANT and REVOKE.

// grantStmt executes one.
func (s *Session) grantStmt(p *parsed) error {
	g := p.Grant
	return s.manage(strings.Join(strings.Fields(p.Text), " "), func(m *manager) error {
		switch g.On {
		case "":
			return m.grantRoles(g)
		case "SCHEMA":
			return m.onSchema(g)
		case "DATABASE":
			return m.onDatabase(g)
		case "SEQUENCE":
			return m.onSequences(g)
		}
		return m.onTables(g)
	})
}

// grantee finds who gets, or loses, privileges.
func (m *manager) grantee(name string) (int64, error) {
	if strings.EqualFold(name, "public") {
		return publicID, nil
	}
	r, err := m.role(name)
	if err != nil {
		return 0, err
	}
	return r.id, nil
}

func (m *manager) grantRoles(g *dialect.GrantSpec) error {
	for _, rn := range g.Roles {
		r, err := m.role(rn)
		if err != nil {
			return err
		}
		if !m.mayAdmit(r.id) {
			return &sqlapi.Error{Code: "42501", Message: fmt.Sprintf("must have admin option on role %q", r.name)}
		}
		for _, to := range g.To {
			id, err := m.grantee(to)
			if err != nil {
				return err
			}
			switch {
			case id == publicID:
				return &sqlapi.Error{Code: "0A000", Message: "GRANT of a role to PUBLIC is not supported"}
			case !g.Revoke:
				err = m.setMember(r.id, id, g.Option)
			case r.id == dbaID && id == sysdbaID:
				err = &sqlapi.Error{Code: "0LP01", Message: "SYSDBA is always an administrator"}
			case g.OptionOnly:
				err = exec(m.db, "UPDATE main."+memberTable+" SET ADMIN = 0 WHERE ROLE = ? AND MEMBER = ?", r.id, id)
			default:
				err = exec(m.db, "DELETE FROM main."+memberTable+" WHERE ROLE = ? AND MEMBER = ?", r.id, id)
			}
			if err != nil {
				return err
			}
		}
	}
	if g.Revoke {
		return m.someAdministrator()
	}
	return nil
}

// mayAdmit reports the admin option on a role.
func (m *manager) mayAdmit(id int64) bool {
	if m.a.dba(m.id) {
		return true
	}
	for _, x := range m.a.members {
		if x.role == id && x.admin && m.a.has(m.id)[x.member] {
			return true
		}
	}
	return false
}

func (m *manager) onDatabase(g *dialect.GrantSpec) error {
	if err := m.mustAdminister("GRANT ON DATABASE"); err != nil {
		return err
	}
	for _, o := range g.Objects {
		if !strings.EqualFold(o, m.s.b.cfg.DatabaseName) {
			return &sqlapi.Error{Code: "3D000", Message: fmt.Sprintf("database %q does not exist", o)}
		}
	}
	if g.Revoke {
		return &sqlapi.Error{Code: "0A000", Message: "REVOKE ON DATABASE is not supported", Hint: "Address rules, NOLOGIN and ACCOUNT LOCK say who may connect."}
	}
	for _, p := range g.Privs {
		switch p.Name {
		case "CONNECT", "TEMP", "TEMPORARY", "ALL": // everyone has these
		case "CREATE":
			return &sqlapi.Error{Code: "0A000", Message: "GRANT CREATE ON DATABASE is not supported: there are no schemas to create"}
		default:
			return invalidPrivilege(p.Name, "database")
		}
	}
	for _, to := range g.To {
		if _, err := m.grantee(to); err != nil {
			return err
		}
	}
	m.s.notice("00000", "every user who can log in may connect and make temporary tables: nothing was changed")
	return nil
}

func invalidPrivilege(name, kind string) error {
	return &sqlapi.Error{Code: "0LP01", Message: "invalid privilege type " + name + " for " + kind}
}

func (m *manager) onSchema(g *dialect.GrantSpec) error {
	if err := m.mustAdminister("GRANT ON SCHEMA"); err != nil {
		return err
	}
	for _, o := range g.Objects {
		if !strings.EqualFold(o, "public") {
			return &sqlapi.Error{Code: "3F000", Message: fmt.Sprintf("schema %q does not exist", o)}
		}
	}
	var set privs
	for _, p := range g.Privs {
		switch x := privOf(p.Name); {
		case p.Name == "ALL":
			set |= schemaPrivs
		case x&schemaPrivs != 0 && p.Columns == nil:
			set |= x
		default:
			return invalidPrivilege(p.Name, "schema")
		}
	}
	if g.Revoke && set&privUsage != 0 && set&privCreate == 0 {
		return &sqlapi.Error{Code: "0A000", Message: "REVOKE USAGE ON SCHEMA is not supported: everyone may use the schema, privileges are on tables"}
	}
	return m.change(g, []string{schemaRel}, map[string]privs{"": set & privCreate}, sysdbaID)
}

// onSequences executes GRANT ... ON SEQUENCE.
func (m *manager) onSequences(g *dialect.GrantSpec) error {
	var set privs
	for _, p := range g.Privs {
		switch x := privOf(p.Name) & (privUsage | privSelect | privUpdate); {
		case p.Name == "ALL":
			set |= privUsage | privSelect | privUpdate
		case x != 0 && p.Columns == nil:
			set |= x
		default:
			return invalidPrivilege(p.Name, "sequence")
		}
	}
	var rels []string
	for _, o := range g.Objects {
		if rel := lower(o); !g.All {
			if _, ok := m.a.sequences[rel]; !ok {
				return &sqlapi.Error{Code: "42P01", Message: fmt.Sprintf("relation %q does not exist", o)}
			}
			rels = append(rels, rel)
		} else if rel != "public" {
			return &sqlapi.Error{Code: "3F000", Message: fmt.Sprintf("schema %q does not exist", o)}
		}
	}
	if g.All {
		for rel := range m.a.sequences {
			rels = append(rels, rel)
		}
	}
	for _, rel := range rels {
		grantor := m.a.owner(rel)
		want := map[string]privs{"": set}
		if !m.a.owns(m.id, rel) {
			var err error
			if want, err = m.grantable(g, rel, want, false); err != nil {
				return err
			}
			grantor = m.id
		}
		if err := m.change(g, []string{rel}, want, grantor); err != nil {
			return err
		}
	}
	return nil
}

// onTables executes GRANT ... ON TABLE.
func (m *manager) onTables(g *dialect.GrantSpec) error {
	rels, err := m.tables(g)
	if err != nil {
		return err
	}
	for _, rel := range rels {
		want := map[string]privs{}
		all := false
		for _, p := range g.Privs {
			set := privOf(p.Name) & tablePrivs
			switch {
			case p.Name == "ALL" && p.Columns != nil:
				set = columnPrivs
			case p.Name == "ALL":
				set, all = tablePrivs, true
			case p.Name == "TRIGGER", p.Name == "MAINTAIN", p.Name == "ALTER", p.Name == "INDEX":
				return &sqlapi.Error{Code: "0A000", Message: "the privilege " + p.Name + " is not supported: only the owner of a table may do that"}
			case set == 0:
				return invalidPrivilege(p.Name, "table")
			case p.Columns != nil && set&columnPrivs == 0:
				return invalidPrivilege(p.Name, "column")
			}
			if p.Columns == nil {
				want[""] |= set
			}
			for _, c := range p.Columns {
				if _, _, _, _, _, err := m.db.TableColumnMetadata("main", rel, c); err != nil {
					return &sqlapi.Error{Code: "42703", Message: fmt.Sprintf("column %q of relation %q does not exist", c, m.a.names[rel])}
				}
				want[lower(c)] |= set
			}
		}
		// An owner, or an administrator, grants in the owner's name.
		grantor := m.a.owner(rel)
		if !m.a.owns(m.id, rel) {
			if want, err = m.grantable(g, rel, want, all); err != nil {
				return err
			}
			grantor = m.id
		}
		if err := m.change(g, []string{rel}, want, grantor); err != nil {
			return err
		}
	}
	return nil
}

func (m *manager) tables(g *dialect.GrantSpec) (rels []string, err error) {
	if g.All {
		if len(g.Objects) != 1 || !strings.EqualFold(g.Objects[0], "public") {
			return nil, &sqlapi.Error{Code: "3F000", Message: fmt.Sprintf("schema %q does not exist", g.Objects[0])}
		}
		for rel := range m.a.names {
			if !systemTable(rel) && !strings.HasPrefix(rel, "sqlite_") {
				rels = append(rels, rel)
			}
		}
		return rels, nil
	}
	for _, o := range g.Objects {
		rel := lower(o)
		switch {
		case systemTable(o) || strings.HasPrefix(rel, "sqlite_"):
			return nil, &sqlapi.Error{Code: "42501", Message: "permission denied for table " + o}
		case m.a.names[rel] != "":
		case strings.HasPrefix(rel, "v$") || rel == "sysopenhistory":
			return nil, &sqlapi.Error{Code: "0A000", Message: "privileges on single V$ views are not supported", Hint: "Grant the role VTI."}
		default:
			return nil, &sqlapi.Error{Code: "42P01", Message: fmt.Sprintf("relation %q does not exist", o)}
		}
		rels = append(rels, rel)
	}
	return rels, nil
}

// grantable keeps of what is asked for what the role may grant on.
func (m *manager) grantable(g *dialect.GrantSpec, rel string, want map[string]privs, all bool) (map[string]privs, error) {
	var table privs
	cols := map[string]privs{}
	for id, s := range m.a.byRel[rel] {
		if m.a.has(m.id)[id] {
			table |= s.option
			for c, p := range s.colOption {
				cols[c] |= p
			}
		}
	}
	out := map[string]privs{}
	any := false
	for c, p := range want {
		have := table | cols[c]
		if p&^have != 0 && !all {
			return nil, &sqlapi.Error{Code: "42501", Message: "permission denied for table " + m.a.names[rel],
				Detail: "The grant option is needed for: " + strings.Join((p&^have).names(), ", ") + "."}
		}
		out[c] = p & have
		any = any || out[c] != 0
	}
	if !any {
		return nil, &sqlapi.Error{Code: "42501", Message: "permission denied for table " + m.a.names[rel]}
	}
	return out, nil
}

// change writes privileges by column ("" the table) for every grantee.
func (m *manager) change(g *dialect.GrantSpec, rels []string, want map[string]privs, grantor int64) error {
	for _, to := range g.To {
		id, err := m.grantee(to)
		if err != nil {
			return err
		}
		if id == publicID && g.Option {
			return &sqlapi.Error{Code: "0LP01", Message: "grant options can only be granted to roles"}
		}
		for _, rel := range rels {
			for col, set := range want {
				for _, p := range set.names() {
					if g.Revoke {
						err = m.revoke(g, rel, col, id, p, grantor)
					} else {
						err = exec(m.db, "INSERT INTO main."+grantTable+` VALUES(?1, ?2, ?3, ?4, ?5, ?6)
							ON CONFLICT(REL, COL, GRANTEE, PRIV, GRANTOR) DO UPDATE SET OPT = max(OPT, ?6)`, rel, col, id, p, grantor, g.Option)
					}
					if err != nil {
						return err
					}
				}
			}
		}
	}
	if !g.Revoke {
		return nil
	}
	for _, rel := range rels {
		if err := m.dependents(rel, g.Cascade); err != nil {
			return err
		}
	}
	return nil
}

// revoke takes a privilege back: an owner whoever granted it, others what they
// granted themselves. From a table, it takes those on its columns too.
func (m *manager) revoke(g *dialect.GrantSpec, rel, col string, grantee int64, priv string, grantor int64) error {
	where := " WHERE REL = ?1 AND (?2 = '' OR COL = ?2) AND GRANTEE = ?3 AND PRIV = ?4 AND (?5 OR GRANTOR = ?6)"
	verb := "DELETE FROM main." + grantTable
	if g.OptionOnly {
		verb = "UPDATE main." + grantTable + " SET OPT = 0"
	}
	return exec(m.db, verb+where, rel, col, grantee, priv, m.a.owns(m.id, rel) || rel == schemaRel, grantor)
}

// dependents finds privileges whose grantors have lost the right to grant them.
func (m *manager) dependents(rel string, cascade bool) error {
	for {
		now, err := loadRelations(m.db)
		if err != nil {
			return err
		}
		a := &access{roles: m.a.roles, relations: now}
		gone := false
		for _, g := range now.grants {
			if g.rel != rel || g.grantor == now.owner(rel) || rel == schemaRel {
				continue
			}
			s := privs(0)
			for id, x := range now.byRel[rel] {
				if a.has(g.grantor)[id] && id != publicID {
					s |= x.option | x.colOption[g.col]
				}
			}
			if s&g.priv != 0 {
				continue
			}
			if !cascade {
				return &sqlapi.Error{Code: "2BP01", Message: "dependent privileges exist",
					Detail: fmt.Sprintf("%s granted %s on %s to %s.", a.nameOf(g.grantor), strings.Join(g.priv.names(), ""), now.names[rel], a.nameOf(g.grantee)),
					Hint:   "Use CASCADE to revoke them too."}
			}
			gone = true
			err := exec(m.db, "DELETE FROM main."+grantTable+" WHERE REL = ? AND COL = ? AND GRANTEE = ? AND PRIV = ? AND GRANTOR = ?",
				g.rel, g.col, g.grantee, strings.Join(g.priv.names(), ""), g.grantor)
			if err != nil {
				return err
			}
		}
		if !gone {
			return nil
		}
	}
}
