package session

import (
	"fmt"

	"datawatch/internal/sql/dialect"
	"datawatch/internal/sql/sqlapi"
)

// Owners. Whoever makes a table or view owns it; a table that is dropped takes
// the privileges on it along, one that is renamed keeps them. That is written in
// the transaction of the statement itself.

// records reports a statement whose effects are to be recorded.
func (r *authRecord) records() bool { return len(r.created)+len(r.dropped)+len(r.altered) > 0 }

// asServer runs fn with the permissions of the server.
func (c *conn) asServer(fn func() error) error {
	rec, was := c.rec, c.internal
	c.internal = true
	defer func() { c.rec, c.internal = rec, was }()
	return fn()
}

// record looks at the tables that a statement makes, drops or renames, and
// returns what writes their owners and privileges when it has run.
func (s *Session) record(c *conn, cs *cstmt) (done func() error, err error) {
	rec := cs.rec
	a, err := c.access(len(rec.dropped)+len(rec.altered) > 0)
	if err != nil {
		return nil, err
	}
	id, err := s.subject(a)
	if err != nil {
		return nil, err
	}
	var made []string // IF NOT EXISTS must not change owners
	err = c.asServer(func() error {
		for _, n := range rec.created {
			found, err := rowsOf(c.db, "SELECT 1 FROM main.sqlite_schema WHERE lower(name) = ?1", lower(n))
			if err != nil {
				return err
			}
			if len(found) == 0 && id != sysdbaID && !a.legacy {
				made = append(made, lower(n))
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	words := wordsOf(cs.sql)
	return func() error {
		return c.asServer(func() error {
			for _, n := range rec.dropped {
				if err := forget(c, lower(n), a); err != nil {
					return err
				}
			}
			for _, n := range made {
				if err := exec(c.db, "INSERT OR REPLACE INTO main."+ownerTable+" VALUES(?, ?)", n, id); err != nil {
					return err
				}
			}
			for _, n := range rec.altered {
				if err := renamed(c, lower(n), words, a); err != nil {
					return err
				}
			}
			return nil
		})
	}, nil
}

// recordSequences is record for CREATE, ALTER and DROP SEQUENCE, and asks for the
// right to it.
func (s *Session) recordSequences(c *conn, p *parsed) (done func() error, err error) {
	a, err := c.access(true)
	if err != nil {
		return nil, err
	}
	id, err := s.subject(a)
	if err != nil {
		return nil, err
	}
	q := p.Sequence
	for _, n := range q.Names {
		_, known := a.sequences[lower(n)]
		switch {
		case p.Verb == "CREATE" && !a.mayCreate(id) && !a.dba(id):
			return nil, &sqlapi.Error{Code: "42501", Message: "permission denied for schema public"}
		case p.Verb != "CREATE" && known && !a.owns(id, lower(n)):
			return nil, &sqlapi.Error{Code: "42501", Message: "must be owner of sequence " + n}
		}
	}
	if q.OwnerTable != "" && a.names[lower(q.OwnerTable)] != "" && !a.owns(id, lower(q.OwnerTable)) {
		return nil, a.notOwner(lower(q.OwnerTable))
	}
	return func() error {
		err := c.asServer(func() error {
			for _, n := range q.Names {
				var err error
				rel := lower(n)
				_, known := a.sequences[rel]
				switch {
				case p.Verb == "CREATE" && !known && id != sysdbaID && !a.legacy:
					err = exec(c.db, "INSERT OR REPLACE INTO main."+ownerTable+" VALUES(?, ?)", rel, id)
				case p.Verb == "DROP":
					err = forget(c, rel, a)
				case p.Verb == "ALTER" && q.Rename != "":
					err = renamed(c, rel, wordsOf("alter sequence x rename to "+dialect.QuoteName(q.Rename)), a)
				}
				if err != nil {
					return err
				}
			}
			return bump(c.db)
		})
		c.changed()
		c.flush()
		s.b.schemaGen.Add(1)
		return err
	}, nil
}

func forget(c *conn, rel string, a *access) error {
	if err := forgetComments(c, rel, a); err != nil {
		return err
	}
	if _, ok := a.owners[rel]; ok {
		if err := exec(c.db, "DELETE FROM main."+ownerTable+" WHERE REL = ?", rel); err != nil {
			return err
		}
	}
	if a.byRel[rel] != nil {
		return exec(c.db, "DELETE FROM main."+grantTable+" WHERE REL = ?", rel)
	}
	return nil
}

func renamed(c *conn, rel string, w *words, a *access) error {
	table, from, to := w.rename()
	if err := moveComments(c, rel, table, from, to, a); err != nil {
		return err
	}
	_, owned := a.owners[rel]
	switch {
	case table:
		if owned {
			if err := exec(c.db, "UPDATE main."+ownerTable+" SET REL = ? WHERE REL = ?", to, rel); err != nil {
				return err
			}
		}
		if a.byRel[rel] == nil {
			return nil
		}
		return exec(c.db, "UPDATE main."+grantTable+" SET REL = ? WHERE REL = ?", to, rel)
	case from == "" || a.byRel[rel] == nil:
		return nil
	case to == "":
		return exec(c.db, "DELETE FROM main."+grantTable+" WHERE REL = ? AND COL = ?", rel, from)
	}
	return exec(c.db, "UPDATE main."+grantTable+" SET COL = ? WHERE REL = ? AND COL = ?", to, rel, from)
}

// alterOwner executes ALTER TABLE ... OWNER TO.
func (s *Session) alterOwner(p *parsed) error {
	return s.manage("ALTER TABLE "+p.Name+" OWNER TO "+p.Value, func(m *manager) error {
		rel := lower(p.Name)
		switch {
		case systemTable(rel):
			return &sqlapi.Error{Code: "42501", Message: "permission denied for table " + p.Name}
		case m.a.names[rel] == "" && p.IfExists:
			return nil
		case m.a.names[rel] == "":
			return &sqlapi.Error{Code: "42P01", Message: fmt.Sprintf("relation %q does not exist", p.Name)}
		case !m.a.owns(m.id, rel):
			return m.a.notOwner(rel)
		}
		to, err := m.role(p.Value)
		if err != nil {
			return err
		}
		if !m.a.dba(m.id) {
			if !m.a.memberOf(m.id, to.id) {
				return &sqlapi.Error{Code: "42501", Message: fmt.Sprintf("must be member of role %q", to.name)}
			}
			if !m.a.mayCreate(to.id) && !m.a.dba(to.id) {
				return &sqlapi.Error{Code: "42501", Message: "permission denied for schema public"}
			}
		}
		return m.give(rel, to.id)
	})
}

// give changes an owner, and in whose name privileges were granted.
func (m *manager) give(rel string, to int64) error {
	was := m.a.owner(rel)
	if err := exec(m.db, "DELETE FROM main."+ownerTable+" WHERE REL = ?", rel); err != nil {
		return err
	}
	if to != sysdbaID {
		if err := exec(m.db, "INSERT INTO main."+ownerTable+" VALUES(?, ?)", rel, to); err != nil {
			return err
		}
	}
	return exec(m.db, "UPDATE OR REPLACE main."+grantTable+" SET GRANTOR = ? WHERE REL = ? AND GRANTOR = ?", to, rel, was)
}

// reassign executes REASSIGN OWNED.
func (s *Session) reassign(p *parsed) error {
	return s.manage(p.Text, func(m *manager) error {
		if err := m.mustAdminister("REASSIGN OWNED"); err != nil {
			return err
		}
		to, err := m.role(p.Name)
		if err != nil {
			return err
		}
		for _, n := range p.Tables {
			from, err := m.role(n)
			if err != nil {
				return err
			}
			for rel := range m.a.names {
				if m.a.owner(rel) == from.id && !systemTable(rel) && len(rel) > 0 && !isSQLite(rel) {
					if err := m.give(rel, to.id); err != nil {
						return err
					}
				}
			}
		}
		return nil
	})
}

func isSQLite(rel string) bool { return len(rel) > 7 && rel[:7] == "sqlite_" }
