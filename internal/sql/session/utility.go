package session

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"datawatch/internal/sql/dialect"
	"datawatch/internal/sql/sqlapi"
)

// valued are the procedures that return a value, with its type.
var valued = map[string]uint32{
	"SF_GET_PARA_STRING_VALUE": dialect.Text, "SF_GET_PARA_VALUE": dialect.Int8, "SF_GET_PARA_DOUBLE_VALUE": dialect.Float8,
	"SP_DB_CHECK": dialect.Int8,
}

func textColumn(name string) sqlapi.Column {
	return sqlapi.Column{Name: name, OID: dialect.Text, Size: -1, TypeMod: -1}
}

// utilityColumns are the result columns of what SQLite does not execute.
func (s *Session) utilityColumns(p *parsed) []sqlapi.Column {
	switch p.Kind {
	case dialect.Show:
		if p.Name == "ALL" {
			return []sqlapi.Column{textColumn("name"), textColumn("setting"), textColumn("description")}
		}
		return []sqlapi.Column{textColumn(strings.ToLower(p.Name))}
	case dialect.Execute:
		if st := s.prepared[fold(p.Name)]; st != nil {
			return st.cols
		}
	case dialect.Fetch:
		if c := s.named[fold(p.Cursor.Name)]; c != nil && p.Verb == "FETCH" {
			return c.p.st.cols
		}
	case dialect.Call:
		if p.Tag == "CHECK DATABASE" {
			return checkColumns
		}
		name := strings.ToLower(p.Name)
		if oid := valued[p.Name]; oid != 0 {
			return []sqlapi.Column{{Name: name, OID: oid, Size: dialect.SizeOf(oid), TypeMod: -1}}
		}
		if p.Select {
			return []sqlapi.Column{{Name: name, OID: dialect.Int4, Size: 4, TypeMod: -1}}
		}
	}
	return nil
}

func textRow(vals ...string) valueRow {
	r := make(valueRow, len(vals))
	for i, v := range vals {
		r[i] = sqlapi.Value{Kind: sqlapi.Text, Bytes: []byte(v)}
	}
	return r
}

// utility executes what is not SQLite's.
func (s *Session) utility(p *Portal, row func(sqlapi.Row) error) (tag string, err error) {
	st := p.st.p
	switch st.Kind {
	case dialect.Begin:
		if s.tx.active && !s.tx.implicit {
			s.warn("25001", "there is already a transaction in progress")
			return st.Tag, nil
		}
		if s.tx.active {
			s.tx.implicit = false // what the series did so far belongs to it
			m := st.Modes
			if m.Concurrent && s.tx.ran { // with the lock that it has, or before it could
				m.Concurrent, m.Isolation = false, serializable
			}
			s.setModes(m)
			s.setStatus()
			return st.Tag, nil
		}
		s.begin(st.Modes, false)
		return st.Tag, nil
	case dialect.Commit:
		return s.commitStmt(st)
	case dialect.Rollback:
		if !s.tx.active || s.tx.implicit {
			s.warn("25P01", "there is no transaction in progress")
		}
		modes := s.chain(st)
		s.rollbackTx()
		if st.Chain {
			s.begin(modes, false)
		}
		return st.Tag, nil
	case dialect.Savepoint, dialect.Release, dialect.RollbackTo:
		if !s.tx.active || s.tx.implicit {
			verb := map[dialect.Kind]string{dialect.Savepoint: "SAVEPOINT", dialect.Release: "RELEASE SAVEPOINT", dialect.RollbackTo: "ROLLBACK TO SAVEPOINT"}[st.Kind]
			return "", &sqlapi.Error{Code: "25P01", Message: verb + " can only be used in transaction blocks"}
		}
		switch st.Kind {
		case dialect.Savepoint:
			return st.Tag, s.savepoint(st.Name)
		case dialect.Release:
			return st.Tag, s.release(st.Name)
		}
		return st.Tag, s.rollbackTo(st.Name)
	case dialect.SetTransaction:
		if !s.tx.active || s.tx.implicit {
			s.warn("25P01", "SET TRANSACTION can only be used in transaction blocks")
			return st.Tag, nil
		}
		if s.tx.ran && st.Modes.Isolation != "" && st.Modes.Isolation != s.tx.iso {
			return "", &sqlapi.Error{Code: "25001", Message: "SET TRANSACTION ISOLATION LEVEL must be called before any query"}
		}
		if s.tx.ran && st.Modes.ReadOnly != nil && !*st.Modes.ReadOnly && s.tx.readOnly {
			return "", &sqlapi.Error{Code: "25001", Message: "transaction read-write mode must be set before any query"}
		}
		s.setModes(st.Modes)
		return st.Tag, nil
	case dialect.SetCharacteristics:
		if st.Modes.Isolation != "" {
			s.vars.set("default_transaction_isolation", st.Modes.Isolation, false)
		}
		if st.Modes.ReadOnly != nil {
			s.vars.set("default_transaction_read_only", onOff(*st.Modes.ReadOnly), false)
		}
		return st.Tag, nil
	case dialect.Set:
		return st.Tag, s.set(st)
	case dialect.Reset:
		if st.Name == "ALL" {
			if err := s.steady("all"); err != nil {
				return "", err
			}
			s.vars.resetAll(s.changed)
			return st.Tag, nil
		}
		return st.Tag, s.assign(st.Name, "", true, false)
	case dialect.Show:
		if st.Name == "ALL" {
			for _, n := range s.vars.names() {
				if err := row(textRow(n, s.show(n), "")); err != nil {
					return "", err
				}
			}
			return st.Tag, nil
		}
		v, ok := s.lookup(st.Name)
		if !ok {
			return "", unrecognized(st.Name)
		}
		return st.Tag, row(textRow(v))
	case dialect.Discard:
		if s.inBlock() && st.Tag == "DISCARD ALL" {
			return "", notInBlock(st.Tag)
		}
		if st.Tag == "DISCARD ALL" || strings.HasPrefix(st.Tag, "DISCARD TEMP") {
			s.dropTemp()
		}
		if st.Tag == "DISCARD ALL" {
			s.vars.resetAll(s.changed)
			s.prepared, s.seqs, s.lastSeq = nil, nil, ""
		}
		return st.Tag, nil
	case dialect.Prepare:
		return st.Tag, s.prepareNamed(st)
	case dialect.Deallocate: // prepared statements of the protocol have names of their own
		return s.deallocate(st)
	case dialect.Declare:
		return st.Tag, s.declare(st)
	case dialect.Fetch:
		return s.fetchNamed(st, row)
	case dialect.CloseCursor:
		return s.closeNamed(st)
	case dialect.NoOp:
		return st.Tag, nil
	case dialect.Unsupported:
		return "", &sqlapi.Error{Code: "0A000", Message: st.Name + " is not supported"}
	case dialect.Batch:
		return st.Tag, s.batch(st)
	case dialect.AlterTable:
		return st.Tag, s.alterTable(st)
	case dialect.Sequence:
		return st.Tag, s.sequenceStmt(st)
	case dialect.Role:
		return st.Tag, s.roleStmt(st)
	case dialect.Grant:
		return st.Tag, s.grantStmt(st)
	case dialect.Reassign:
		return st.Tag, s.reassign(st)
	case dialect.AlterOwner:
		return st.Tag, s.alterOwner(st)
	case dialect.Comment:
		return st.Tag, s.comment(st)
	case dialect.LockTable:
		return st.Tag, s.lockTable(st)
	case dialect.Vacuum, dialect.Analyze:
		return st.Tag, s.vacuum(st)
	case dialect.Call:
		if st.Name == "SP_DB_CHECK" {
			return s.checkStmt(p, row)
		}
	}
	return s.admin(p, row)
}

func (s *Session) commitStmt(st *parsed) (string, error) {
	if !s.tx.active || s.tx.implicit {
		s.warn("25P01", "there is no transaction in progress")
	}
	if !s.tx.active {
		return st.Tag, nil
	}
	modes := s.chain(st)
	tag := st.Tag
	var err error
	switch {
	case s.tx.reason != "" && !s.tx.told:
		err = s.aborted()
		s.rollbackTx()
	case s.tx.failed:
		tag = "ROLLBACK"
		s.rollbackTx()
	default:
		err = s.commit()
	}
	if st.Chain && err == nil {
		s.begin(modes, false)
	}
	return tag, err
}

// chain is how the next transaction of AND CHAIN begins.
func (s *Session) chain(st *parsed) dialect.Modes {
	ro := s.tx.readOnly
	return dialect.Modes{Isolation: s.tx.iso, ReadOnly: &ro, Concurrent: s.tx.begun}
}

func (s *Session) inBlock() bool { return s.tx.active && !s.tx.implicit }

func notInBlock(what string) error {
	return &sqlapi.Error{Code: "25001", Message: what + " cannot run inside a transaction block"}
}

func (s *Session) notice(code, msg string) {
	if s.notify != nil {
		s.notify.Notice(&sqlapi.Error{Severity: "NOTICE", Code: code, Message: msg})
	}
}

func (s *Session) warn(code, msg string) {
	if s.notify != nil {
		s.notify.Notice(&sqlapi.Error{Severity: "WARNING", Code: code, Message: msg})
	}
}

// dropTemp gives up the session's own connection and its temporary objects.
func (s *Session) dropTemp() {
	if s.own != nil && s.tx.c != s.own {
		s.closeCursors()
		s.own.close()
		s.own = nil
	}
}

func (s *Session) lockTable(st *parsed) error {
	if !s.inBlock() {
		return &sqlapi.Error{Code: "25P01", Message: "LOCK TABLE can only be used in transaction blocks"}
	}
	if s.b.standby() {
		return readOnlyError("standby", "LOCK TABLE")
	}
	if s.tx.readOnly {
		return readOnlyError("", "LOCK TABLE")
	}
	if !s.b.tables() {
		return s.b.notOpen()
	}
	c, err := s.writeTx(st.NoWait)
	if err != nil {
		return err
	}
	for _, t := range st.Tables {
		if systemTable(t) {
			return &sqlapi.Error{Code: "42501", Message: "permission denied for table " + strings.ToUpper(t)}
		}
		if err := s.mayLock(t); err != nil {
			return err
		}
		if _, _, _, _, _, err := c.db.TableColumnMetadata("", t, ""); err != nil {
			return &sqlapi.Error{Code: "42P01", Message: fmt.Sprintf("relation %q does not exist", t)}
		}
	}
	return nil
}

// vacuum: a plain VACUUM has nothing to do, free pages are used again at once;
// VACUUM FULL rewrites the database; ANALYZE gathers statistics.
func (s *Session) vacuum(st *parsed) error {
	if st.Kind == dialect.Vacuum && s.inBlock() {
		return notInBlock("VACUUM")
	}
	if s.b.standby() {
		return readOnlyError("standby", st.Tag)
	}
	if s.tx.active && s.tx.readOnly {
		return readOnlyError("", st.Tag)
	}
	if !s.b.tables() {
		return s.b.notOpen()
	}
	if st.Name != "" {
		if systemTable(st.Name) {
			return &sqlapi.Error{Code: "42501", Message: "permission denied for table " + strings.ToUpper(st.Name)}
		}
		if err := s.haveTable(st.Name); err != nil {
			return err
		}
		if err := s.mustOwn(st.Name); err != nil {
			return err
		}
	}
	full := st.Kind == dialect.Vacuum && st.Verb == "FULL" && st.Name == ""
	analyze := "ANALYZE"
	if st.Name != "" {
		analyze += " " + dialect.QuoteName(st.Name)
	}
	if st.Kind == dialect.Vacuum && !full && !st.Analyze {
		return nil
	}
	if st.Name == "" {
		if err := s.mustAdminister(st.Tag + " of the whole database"); err != nil {
			return err
		}
	}
	if s.tx.active { // ANALYZE in a transaction, or a series
		if full {
			return notInBlock("VACUUM FULL")
		}
		c, err := s.writeTx(false)
		if err != nil {
			return err
		}
		return c.run(analyze)
	}
	c, err := s.lockWrite(s.own, false)
	if err != nil {
		return err
	}
	if full {
		if err = c.run("VACUUM"); err != nil && c.file != nil {
			err = s.storeError(c, err)
		}
		c.old = c == s.b.writer
	}
	if err == nil && (st.Analyze || st.Kind == dialect.Analyze) {
		err = c.run(analyze)
	}
	lsn := s.unlockWrite(c)
	if err != nil {
		return err
	}
	return s.waitHardened(lsn)
}

// haveTable reports 42P01 for a table that does not exist.
func (s *Session) haveTable(name string) error {
	c, release, err := s.describeConn(nil)
	if err != nil {
		return err
	}
	defer release()
	c.fresh()
	if _, _, _, _, _, err := c.db.TableColumnMetadata("", name, ""); err != nil {
		return &sqlapi.Error{Code: "42P01", Message: fmt.Sprintf("relation %q does not exist", name)}
	}
	return nil
}

// admin executes administration.
func (s *Session) admin(p *Portal, row func(sqlapi.Row) error) (string, error) {
	st := p.st.p
	if s.tx.active && !s.tx.implicit && (st.Kind == dialect.AlterDatabase || st.Kind == dialect.Backup) {
		return "", notInBlock(st.Tag)
	}
	a := s.b.cfg.Admin
	if err := s.mayCall(st); err != nil {
		return "", err
	}
	if a == nil {
		return "", &sqlapi.Error{Code: "0A000", Message: st.Tag + " is not supported here"}
	}
	if s.tx.active && s.tx.implicit && st.Kind == dialect.AlterDatabase {
		if err := s.commit(); err != nil {
			return "", err
		}
	}
	s.setWaiting(waitAdmin)
	defer s.setWaiting("")
	switch st.Kind {
	case dialect.AlterDatabase:
		if st.Verb == "MOUNT" {
			resume, err := s.b.quiesceFor(s, "ALTER DATABASE MOUNT")
			if err != nil {
				return "", err
			}
			defer resume()
		}
		return st.Tag, adminError(a.AlterDatabase(s.ctx, st.Verb))
	case dialect.AddArchiveLog:
		return st.Tag, adminError(a.AddArchiveLog(s.ctx, st.Value))
	case dialect.Backup:
		return st.Tag, adminError(a.Backup(s.ctx, st.Backup))
	case dialect.Checkpoint:
		return st.Tag, adminError(a.Checkpoint(s.ctx))
	case dialect.Call:
		v, err := s.call(s.ctx, a, p)
		if err != nil {
			return "", err
		}
		tag := st.Tag
		if p.st.cols != nil {
			if err := row(valueRow{v}); err != nil {
				return "", err
			}
			if tag == "SELECT" || tag == "CALL" && valued[st.Name] != 0 {
				tag = "SELECT 1"
			}
		}
		return tag, nil
	}
	return "", &sqlapi.Error{Code: "XX000", Message: fmt.Sprintf("unhandled statement kind %d", st.Kind)}
}

// quiesceFor is Quiesce for a statement of s itself.
func (b *Backend) quiesceFor(s *Session, reason string) (func(), error) {
	ctx, cancel := context.WithTimeoutCause(s.ctx, b.cfg.LockTimeout,
		&sqlapi.Error{Code: "55P03", Message: "running statements did not stop in time"})
	defer cancel()
	return b.Quiesce(ctx, reason)
}

// adminError makes an error of the server fit for clients.
func adminError(err error) error {
	if err == nil {
		return nil
	}
	var e *sqlapi.Error
	if errors.As(err, &e) {
		return e
	}
	return &sqlapi.Error{Code: "55000", Message: err.Error()}
}

// call executes SP_ and SF_ procedures.
func (s *Session) call(ctx context.Context, a Admin, p *Portal) (sqlapi.Value, error) {
	st := p.st.p
	var args []string
	for _, x := range st.Args {
		t := x.Text
		if x.Param > 0 {
			if x.Param > len(p.params) {
				return sqlapi.Value{}, &sqlapi.Error{Code: "42P02", Message: fmt.Sprintf("there is no parameter $%d", x.Param)}
			}
			switch v := p.params[x.Param-1]; v.Kind {
			case sqlapi.Integer:
				t = strconv.FormatInt(v.Int, 10)
			case sqlapi.Float:
				t = strconv.FormatFloat(v.Float, 'g', -1, 64)
			default:
				t = string(v.Bytes)
			}
		}
		args = append(args, t)
	}
	zero := sqlapi.Value{Kind: sqlapi.Integer}
	want := func(n int) error {
		if len(args) != n {
			return &sqlapi.Error{Code: "42883", Message: fmt.Sprintf("%s takes %d arguments, not %d", st.Name, n, len(args))}
		}
		return nil
	}
	integer := func(i int, lo, hi int64) (int64, error) {
		n, err := strconv.ParseInt(strings.TrimSpace(args[i]), 10, 64)
		if err != nil || n < lo || n > hi {
			return 0, &sqlapi.Error{Code: "22023", Message: fmt.Sprintf("%s: argument %d is %q, not a number from %d to %d", st.Name, i+1, args[i], lo, hi)}
		}
		return n, nil
	}
	switch st.Name {
	case "SP_SET_OGUID":
		if err := want(1); err != nil {
			return zero, err
		}
		n, err := integer(0, 0, 1<<31-1)
		if err != nil {
			return zero, err
		}
		return zero, adminError(a.SetOGUID(ctx, uint32(n)))
	case "SP_SET_PARA_VALUE", "SP_SET_PARA_STRING_VALUE", "SP_SET_PARA_DOUBLE_VALUE":
		if err := want(3); err != nil {
			return zero, err
		}
		scope, err := integer(0, 0, 2)
		if err != nil {
			return zero, err
		}
		return zero, adminError(a.SetPara(ctx, int(scope), args[1], args[2]))
	case "SF_GET_PARA_VALUE", "SF_GET_PARA_STRING_VALUE", "SF_GET_PARA_DOUBLE_VALUE":
		if err := want(2); err != nil {
			return zero, err
		}
		v, ok := a.GetPara(args[1])
		if !ok {
			return zero, &sqlapi.Error{Code: "42704", Message: fmt.Sprintf("unknown parameter %q", args[1])}
		}
		switch valued[st.Name] {
		case dialect.Int8:
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				return zero, &sqlapi.Error{Code: "22P02", Message: fmt.Sprintf("parameter %s is not a number: use SF_GET_PARA_STRING_VALUE", args[1])}
			}
			return sqlapi.Value{Kind: sqlapi.Integer, Int: n, Bytes: []byte(v)}, nil
		case dialect.Float8:
			f, err := strconv.ParseFloat(v, 64)
			if err != nil {
				return zero, &sqlapi.Error{Code: "22P02", Message: fmt.Sprintf("parameter %s is not a number: use SF_GET_PARA_STRING_VALUE", args[1])}
			}
			return sqlapi.Value{Kind: sqlapi.Float, Float: f, Bytes: []byte(v)}, nil
		}
		return sqlapi.Value{Kind: sqlapi.Text, Bytes: []byte(v)}, nil
	case "SP_SET_ARCH_STATUS":
		if err := want(2); err != nil {
			return zero, err
		}
		n, err := integer(1, 0, 1)
		if err != nil {
			return zero, err
		}
		if args[0] == "" {
			return zero, &sqlapi.Error{Code: "22023", Message: "SP_SET_ARCH_STATUS: the instance name is empty"}
		}
		return zero, adminError(a.SetArchStatus(ctx, args[0], int(n)))
	case "SP_SET_ALL_ARCH_STATUS":
		if err := want(1); err != nil {
			return zero, err
		}
		n, err := integer(0, 0, 1)
		if err != nil {
			return zero, err
		}
		return zero, adminError(a.SetArchStatus(ctx, "", int(n)))
	case "CHECKPOINT":
		return zero, adminError(a.Checkpoint(ctx))
	case "SP_CLOSE_SESSION", "SP_CANCEL_SESSION_OPERATION":
		if err := want(1); err != nil {
			return zero, err
		}
		n, err := integer(0, 1, 1<<32-1)
		if err != nil {
			return zero, err
		}
		ok, err := s.control(n, st.Name == "SP_CLOSE_SESSION")
		if err != nil {
			return zero, err
		}
		if !ok {
			return zero, &sqlapi.Error{Code: "42704", Message: fmt.Sprintf("there is no session %d", n)}
		}
		return zero, nil
	}
	return zero, &sqlapi.Error{Code: "42883", Message: "procedure " + st.Name + " does not exist"}
}
