package session

import (
	"fmt"

	"datawatch/internal/sql/catalog"
	"datawatch/internal/sql/sqlapi"
)

// Comments on tables, views, sequences and columns. They are for people: nothing
// depends on them. The table is made with the first one; a comment follows what
// it is about when that is renamed, and goes with it (owner.go).

const (
	commentTable = catalog.CommentTable
	commentDDL   = "CREATE TABLE IF NOT EXISTS main." + commentTable + "(REL VARCHAR(256), COL VARCHAR(256), TEXT VARCHAR NOT NULL, PRIMARY KEY(REL, COL)) WITHOUT ROWID"
	// maxComment bounds one comment, in bytes.
	maxComment = 1 << 16
)

// comment executes COMMENT ON.
func (s *Session) comment(p *parsed) error {
	return s.manage("COMMENT ON "+p.Verb, func(m *manager) error {
		rel, col := lower(p.Name), lower(p.Value)
		_, sequence := m.a.sequences[rel]
		_, view := m.a.views[rel]
		table := m.a.names[rel] != "" && !view
		switch {
		case systemTable(rel) || isSQLite(rel):
			return &sqlapi.Error{Code: "42501", Message: "permission denied for table " + p.Name}
		case !sequence && !view && !table:
			return &sqlapi.Error{Code: "42P01", Message: fmt.Sprintf("relation %q does not exist", p.Name)}
		case p.Verb == "TABLE" && !table, p.Verb == "VIEW" && !view, p.Verb == "SEQUENCE" && !sequence, p.Verb == "COLUMN" && sequence:
			return &sqlapi.Error{Code: "42809", Message: fmt.Sprintf("%q is not a %s", p.Name, map[string]string{"TABLE": "table", "VIEW": "view",
				"SEQUENCE": "sequence", "COLUMN": "table or view"}[p.Verb])}
		case !m.a.owns(m.id, rel):
			return m.a.notOwner(rel)
		case p.Verb == "COLUMN" && m.c.table(rel).column(col, 0) == nil:
			return &sqlapi.Error{Code: "42703", Message: fmt.Sprintf("column %q of relation %q does not exist", p.Value, p.Name)}
		}
		if p.Default || p.Tables[0] == "" {
			if !m.a.comments {
				return nil
			}
			return exec(m.db, "DELETE FROM main."+commentTable+" WHERE REL = ? AND COL = ?", rel, col)
		}
		if len(p.Tables[0]) > maxComment {
			return &sqlapi.Error{Code: "54000", Message: fmt.Sprintf("a comment of %d bytes is longer than %d", len(p.Tables[0]), maxComment)}
		}
		if err := m.db.Exec(commentDDL); err != nil {
			return err
		}
		return exec(m.db, "INSERT OR REPLACE INTO main."+commentTable+" VALUES(?, ?, ?)", rel, col, p.Tables[0])
	})
}

// forgetComments drops those of a relation that is gone.
func forgetComments(c *conn, rel string, a *access) error {
	if !a.comments {
		return nil
	}
	return exec(c.db, "DELETE FROM main."+commentTable+" WHERE REL = ?", rel)
}

// moveComments follows ALTER TABLE ... RENAME and DROP COLUMN, in the words of
// renamed.
func moveComments(c *conn, rel string, table bool, from, to string, a *access) error {
	switch {
	case !a.comments || !table && from == "":
		return nil
	case table:
		return exec(c.db, "UPDATE OR REPLACE main."+commentTable+" SET REL = ? WHERE REL = ?", to, rel)
	case to == "":
		return exec(c.db, "DELETE FROM main."+commentTable+" WHERE REL = ? AND COL = ?", rel, from)
	}
	return exec(c.db, "UPDATE OR REPLACE main."+commentTable+" SET COL = ? WHERE REL = ? AND COL = ?", to, rel, from)
}
