package session

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ncruces/go-sqlite3"

	"datawatch/internal/sql/dialect"
	"datawatch/internal/sql/sqlapi"
)

// Statements that are one for the client and several for SQLite.

// atomic runs fn with the write lock in a transaction: that of the session, or
// one of its own. A failure undoes what fn did only with the transaction, as
// for every statement that fails.
func (s *Session) atomic(what string, fn func(c *conn) error) error {
	switch {
	case s.b.standby():
		return readOnlyError("standby", what)
	case s.tx.active && s.tx.readOnly, !s.tx.active && s.vars.get("default_transaction_read_only") == "on":
		return readOnlyError("", what)
	case !s.b.tables():
		return s.b.notOpen()
	}
	own := !s.tx.active
	if own {
		s.begin(dialect.Modes{}, true)
	}
	c, err := s.writeTx(false)
	if err == nil {
		c.use(s)
		s.tx.ran = true
		err = fn(c)
	}
	switch {
	case !own:
		return err
	case err != nil:
		s.rollbackTx()
		return err
	}
	return s.commit()
}

// batch executes the statements that a list of tables stands for.
func (s *Session) batch(p *parsed) error {
	return s.atomic(p.Tag, func(c *conn) error {
		for _, sql := range p.Tables {
			st, err := s.prepare(sql, nil)
			if err != nil {
				return s.mapError(err, st)
			}
			if st.p.Kind == dialect.AlterTable {
				if err := s.alterTable(st.p); err != nil {
					return s.mapError(err, st)
				}
				continue
			}
			if st.p.Kind != dialect.SQL {
				return &sqlapi.Error{Code: "0A000", Message: sql + " is not supported"}
			}
			if _, _, err := (&Portal{st: st, s: s}).withSequences(c); err != nil {
				return s.mapError(err, st)
			}
		}
		return nil
	})
}

// alterTable adds a constraint: the table is made anew with it, its rows are
// copied, and its indexes and triggers are made again, all in one transaction.
func (s *Session) alterTable(p *parsed) error {
	if systemTable(p.Name) {
		return &sqlapi.Error{Code: "42501", Message: "permission denied for table " + strings.ToUpper(p.Name)}
	}
	return s.atomic(p.Tag, func(c *conn) error {
		a, id, err := s.rights()
		if err != nil {
			return err
		}
		if rel := lower(p.Name); a.names[rel] != "" && !a.owns(id, rel) {
			return a.notOwner(rel)
		}
		if !a.dba(id) {
			if err := a.mayRefer(id, wordsOf(p.Value), []string{p.Name}); err != nil {
				return err
			}
		}
		if a := p.Alter; a != nil && (a.Kind == dialect.AddIfNotExists || a.Kind == dialect.DropIfExists) {
			return s.alterIf(c, p)
		}
		c.internal = true
		defer func() { c.internal = false }()
		c.flush()
		err = guard(func() error { return rebuild(c.db, p) })
		c.changed()
		c.flush()
		s.b.schemaGen.Add(1)
		if err != nil && c.file != nil {
			err = s.storeError(c, err)
		}
		return err
	})
}

// rows reads the result of an internal query as text.
func rowsOf(db *sqlite3.Conn, sql string, args ...string) (out [][]string, err error) {
	st, _, err := db.Prepare(sql)
	if err != nil {
		return nil, err
	}
	defer st.Close()
	for i, a := range args {
		if err := st.BindText(i+1, a); err != nil {
			return nil, err
		}
	}
	for st.Step() {
		r := make([]string, st.ColumnCount())
		for i := range r {
			r[i] = st.ColumnText(i)
		}
		out = append(out, r)
	}
	return out, st.Err()
}

func rebuild(db *sqlite3.Conn, p *parsed) error {
	found, err := rowsOf(db, "SELECT name, sql FROM main.sqlite_schema WHERE type = 'table' AND lower(name) = lower(?1)", p.Name)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		if p.IfExists {
			return nil
		}
		return &sqlapi.Error{Code: "42P01", Message: fmt.Sprintf("relation %q does not exist", p.Name)}
	}
	name, create := found[0][0], found[0][1]
	cols, err := rowsOf(db, "SELECT name, hidden, pk FROM pragma_table_xinfo(?1, 'main')", name)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	var list []string
	for _, c := range cols {
		known[strings.ToLower(c[0])] = true
		if c[1] == "0" {
			list = append(list, dialect.QuoteName(c[0]))
		}
		if c[2] != "0" && p.Tables != nil {
			return &sqlapi.Error{Code: "42P16", Message: fmt.Sprintf("multiple primary keys for table %q are not allowed", name)}
		}
	}
	for _, k := range p.Tables {
		if !known[strings.ToLower(k)] {
			return &sqlapi.Error{Code: "42703", Message: fmt.Sprintf("column %q of relation %q does not exist", k, name)}
		}
	}
	if refs, err := rowsOf(db, `SELECT m.name FROM main.sqlite_schema m, pragma_foreign_key_list(m.name, 'main') f
		WHERE m.type = 'table' AND lower(f."table") = lower(?1) LIMIT 1`, name); err != nil {
		return err
	} else if len(refs) > 0 {
		return &sqlapi.Error{Code: "0A000", Message: fmt.Sprintf("this ALTER TABLE on a table that foreign keys refer to (here those of %q) is not supported", refs[0][0])}
	}
	const temporary = "dw_rebuild"
	made, ok := "", true
	columns := strings.Join(list, ", ")
	values := columns
	if p.Alter != nil {
		expr, missing := "", ""
		if made, expr, missing, err = dialect.Altered(create, temporary, p.Alter); err != nil {
			return alterError(err)
		}
		switch {
		case missing != "" && p.Alter.Using == "IF EXISTS":
			return nil
		case missing != "" && p.Alter.Kind == dialect.DropConstraint:
			return &sqlapi.Error{Code: "42704", Message: fmt.Sprintf("%s of relation %q does not exist", missing, name), Hint: "Only constraints that were given a name can be dropped."}
		case missing != "":
			return &sqlapi.Error{Code: "42703", Message: fmt.Sprintf("%s of relation %q does not exist", missing, name)}
		}
		if expr != "" {
			for i, n := range list {
				if strings.EqualFold(n, dialect.QuoteName(p.Alter.Column)) {
					list[i] = expr
				}
			}
			values = strings.Join(list, ", ")
		}
	} else if made, ok = dialect.WithConstraint(create, temporary, p.Value, p.Tables); !ok {
		return &sqlapi.Error{Code: "0A000", Message: "ALTER TABLE ... ADD CONSTRAINT on a table made this way is not supported"}
	}
	again, err := rowsOf(db, "SELECT sql FROM main.sqlite_schema WHERE type IN ('index', 'trigger') AND lower(tbl_name) = lower(?1) AND sql IS NOT NULL ORDER BY rowid", name)
	if err != nil {
		return err
	}
	steps := []string{made,
		"INSERT INTO main." + temporary + "(" + columns + ") SELECT " + values + " FROM main." + dialect.QuoteName(name),
		"DROP TABLE main." + dialect.QuoteName(name),
		"ALTER TABLE main." + temporary + " RENAME TO " + dialect.QuoteName(name)}
	for _, r := range again {
		steps = append(steps, r[0])
	}
	// Views of the table name it, and are not to be followed while it is away.
	if err := db.Exec("PRAGMA legacy_alter_table = ON"); err != nil {
		return err
	}
	for _, sql := range steps {
		if err = db.Exec(sql); err != nil {
			break
		}
	}
	return errors.Join(err, db.Exec("PRAGMA legacy_alter_table = OFF"))
}

// alterError is an error in the text of a change.
func alterError(err error) error {
	var ve *dialect.ValueError
	if errors.As(err, &ve) {
		return ve.Err
	}
	var se *dialect.SyntaxError
	if errors.As(err, &se) {
		return &sqlapi.Error{Code: "42601", Message: se.Msg}
	}
	return &sqlapi.Error{Code: "0A000", Message: "this ALTER TABLE is not supported: " + err.Error()}
}

// alterIf executes ADD COLUMN IF NOT EXISTS and DROP COLUMN IF EXISTS.
func (s *Session) alterIf(c *conn, p *parsed) error {
	t := c.table(p.Name)
	if t == nil {
		if p.IfExists {
			return nil
		}
		return &sqlapi.Error{Code: "42P01", Message: fmt.Sprintf("relation %q does not exist", p.Name)}
	}
	if has := t.column(p.Alter.Column, 0) != nil; has == (p.Alter.Kind == dialect.AddIfNotExists) {
		what := map[bool]string{true: "already exists", false: "does not exist"}[has]
		s.notice("42701", fmt.Sprintf("column %q of relation %q %s, skipping", p.Alter.Column, p.Name, what))
		return nil
	}
	st, err := s.prepare(p.Alter.SQL, nil)
	if err == nil && st.p.Kind != dialect.SQL {
		err = &sqlapi.Error{Code: "0A000", Message: "this ALTER TABLE is not supported"}
	}
	if err == nil {
		_, _, err = (&Portal{st: st, s: s}).withSequences(c)
	}
	if err != nil {
		return s.mapError(err, st)
	}
	return nil
}
