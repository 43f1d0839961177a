package session

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/ncruces/go-sqlite3"

	"datawatch/internal/sql/dialect"
	"datawatch/internal/sql/sqlapi"
	"datawatch/internal/sql/sqlitevfs"
	"datawatch/internal/storage/engine"
	"datawatch/internal/storage/pagestore"
)

// What clients are told about a database that changes its status or role. The
// codes are those that drivers and pools act upon. PostgreSQL's own for a server
// that ends or is not up yet, class 57P: HikariCP and Npgsql throw a connection
// away on them (Npgsql's retrying strategy runs 57P03 again), Spring and
// SQLAlchemy take them for a lost resource. pgx, node-postgres, lib/pq and psycopg
// look at the severity only: FATAL closes a connection, any other error leaves it
// in the pool. So a session that is of no more use to a client that writes is
// ended with FATAL (demoted), and a switchover costs every pool one
// error a connection. 55000 means a mistake of the application to all of them,
// and 57014 that somebody asked for it; both are repeated by none.
const (
	codeNotNow = "57P03" // cannot_connect_now: the database is not open; later, or elsewhere
	codeEnded  = "57P01" // admin_shutdown: statement, transaction or session are over; again on another connection
)

// constraintCodes maps SQLite's constraint kinds.
var constraintCodes = map[sqlite3.ExtendedErrorCode]string{
	sqlite3.CONSTRAINT_UNIQUE: "23505", sqlite3.CONSTRAINT_PRIMARYKEY: "23505", sqlite3.CONSTRAINT_ROWID: "23505",
	sqlite3.CONSTRAINT_NOTNULL: "23502", sqlite3.CONSTRAINT_FOREIGNKEY: "23503", sqlite3.CONSTRAINT_CHECK: "23514",
	sqlite3.CONSTRAINT_TRIGGER: "P0001", sqlite3.CONSTRAINT_DATATYPE: "42804",
}

// rule maps a message of SQLite to a SQLSTATE and PostgreSQL's wording ($1 is
// the group of the pattern; "" keeps SQLite's).
type rule struct {
	re   *regexp.Regexp
	code string
	msg  string
}

var rules = func() []rule {
	var out []rule
	for _, r := range [][3]string{
		{`^no such table: (?:main\.)?(.+)$`, "42P01", `relation "$1" does not exist`},
		{`^no such view: (?:main\.)?(.+)$`, "42P01", `view "$1" does not exist`},
		{`^no such column: (.+)$`, "42703", `column "$1" does not exist`},
		{`^table (.+) has no column named (.+)$`, "42703", `column "$2" of relation "$1" does not exist`},
		{`^near "(.*)": syntax error$`, "42601", `syntax error at or near "$1"`},
		{`^incomplete input$`, "42601", `syntax error at end of input`},
		{`^unrecognized token`, "42601", ""},
		{`^(?:table|view|index|trigger) "?([^"]+?)"? already exists$`, "42P07", `relation "$1" already exists`},
		{`^there is already (?:an index|a table|another table or index with this name):?.* named:? "?([^"]+?)"?$`, "42P07", `relation "$1" already exists`},
		{`^there is already`, "42P07", ""},
		{`^no such index: (.+)$`, "42704", `index "$1" does not exist`},
		{`^no such trigger: (.+)$`, "42704", `trigger "$1" does not exist`},
		{`^no such collation sequence: (.+)$`, "42704", `collation "$1" does not exist`},
		{`^no such function: (.+)$`, "42883", `function $1 does not exist`},
		{`^wrong number of arguments to function (.+)$`, "42883", `wrong number of arguments to function $1`},
		{`^no such table-valued function: (.+)$`, "42883", `function $1 does not exist`},
		{`^ambiguous column name: (.+)$`, "42702", `column reference "$1" is ambiguous`},
		{`^duplicate column name: (.+)$`, "42701", `column "$1" specified more than once`},
		{`has \d+ columns but \d+ values were supplied$`, "42601", ""},
		{`^\d+ values for \d+ columns$`, "42601", ""},
		{`^sub-select returns \d+ columns`, "42601", ""},
		{`^SELECTs to the left and right of`, "42601", ""},
		{`^all VALUES must have the same number`, "42601", ""},
		{`^misuse of aggregate`, "42803", ""},
		{`^misuse of window function`, "42P20", ""},
		{`^a GROUP BY clause is required`, "42803", ""},
		{`^aggregate functions are not allowed`, "42803", ""},
		{`ORDER BY term .* does not match|ORDER BY term out of range|GROUP BY term out of range`, "42P10", ""},
		{`ON CONFLICT clause does not match any`, "42P10", "there is no unique or exclusion constraint matching the ON CONFLICT specification"},
		{`^no such savepoint: (.+)$`, "3B001", `savepoint "$1" does not exist`},
		{`^cannot (?:modify|UPDATE|INSERT INTO|DELETE).* because it is a view`, "42809", ""},
		{`^use DROP (?:VIEW|TABLE) to delete`, "42809", ""},
		{`may not be (?:dropped|altered|modified|indexed)|reserved for internal use`, "42501", ""},
		{`^table "?(\S+?)"? has more than one primary key`, "42P16", `multiple primary keys for table "$1" are not allowed`},
		{`^foreign key mismatch`, "42830", ""},
		{`^integer overflow`, "22003", ""},
		{`^malformed JSON|^JSON`, "22P02", ""},
		{`^datatype mismatch`, "42804", ""},
		{`^too many (?:columns|terms|levels|attached|arguments|SQL variables|FROM clause)`, "54000", ""},
		{`^parser stack overflow|^Expression tree is too large`, "54001", "statement too complex"},
		{`^string or blob too big`, "54000", ""},
		{`^permission denied`, "42501", ""},
		{`^not authorized|prohibited`, "42501", ""},
		{`^(?:hex literal too big|invalid literal)`, "42601", ""},
		{`^Cannot add|^cannot drop|^default value of column|^error in `, "42601", ""},
		{`^unable to use function`, "42809", ""},
		{`^circular reference: (.+)$`, "42P19", ""},
		{`^table (\S+) already exists`, "42P07", `relation "$1" already exists`},
		{`^no tables specified`, "42601", ""},
		{`^row value misused`, "42601", ""},
		{`^RAISE\(\) may only be used`, "42601", ""},
		{`^(?:the )?NOT NULL`, "42601", ""},
	} {
		out = append(out, rule{regexp.MustCompile(r[0]), r[1], r[2]})
	}
	return out
}()

// syntaxError maps an error of the dialect.
func syntaxError(sql string, err error) error {
	var se *dialect.SyntaxError
	if errors.As(err, &se) {
		return &sqlapi.Error{Code: "42601", Message: se.Msg, Position: utf8.RuneCountInString(sql[:min(se.Offset, len(sql))]) + 1}
	}
	return err
}

// mapError makes the error that the client sees.
func (s *Session) mapError(err error, st *Stmt) error {
	var e *sqlapi.Error
	if errors.As(err, &e) {
		return e
	}
	sql, offset := "", func(n int) int { return n }
	if st != nil && st.p != nil {
		sql, offset = st.p.Text, st.p.Offset
	}
	var se *dialect.SyntaxError
	if errors.As(err, &se) {
		return syntaxError(sql, err)
	}
	var ve *dialect.ValueError
	if errors.As(err, &ve) {
		x := *ve.Err
		x.Position = utf8.RuneCountInString(sql[:min(ve.Offset, len(sql))]) + 1
		return &x
	}
	if errors.Is(err, sqlite3.INTERRUPT) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		if c := context.Cause(s.ctx); errors.As(c, &e) {
			return e
		}
		return errCancelled
	}
	msg := message(err)
	var x sqlite3.ExtendedErrorCode
	coded := errors.As(err, &x)
	if coded && x == sqlitevfs.TempLimit {
		return &sqlapi.Error{Code: "53400", Message: "temporary files are larger than TEMP_SPACE_LIMIT allows",
			Hint: "TEMP_SPACE_LIMIT of dm.ini is the limit for all sessions together."}
	}
	if !coded {
		if errors.Is(err, errPoolClosed) {
			return &sqlapi.Error{Severity: "FATAL", Code: codeEnded, Message: err.Error()}
		}
		if errors.Is(err, syscall.ENOSPC) {
			return &sqlapi.Error{Code: "53100", Message: err.Error()}
		}
		return &sqlapi.Error{Code: "XX000", Message: err.Error()}
	}
	switch x.Code() {
	case sqlite3.CONSTRAINT:
		return constraintError(x, msg)
	case sqlite3.BUSY, sqlite3.LOCKED:
		return &sqlapi.Error{Code: "40001", Message: "could not serialize access due to concurrent update", Detail: msg}
	case sqlite3.READONLY:
		where := ""
		if s.b.standby() {
			where = "standby"
		}
		return readOnlyError(where, "this statement")
	case sqlite3.FULL:
		return &sqlapi.Error{Code: "53100", Message: "the database or disk is full"}
	case sqlite3.NOMEM:
		return &sqlapi.Error{Code: "53200", Message: "out of memory"}
	case sqlite3.IOERR, sqlite3.CANTOPEN:
		code := "58030"
		if errors.Is(err, syscall.ENOSPC) {
			code = "53100"
		}
		if se := storeCause(err); se != nil {
			switch {
			case errors.Is(se, engine.ErrNotOpen):
				return s.b.notOpen()
			case errors.Is(se, pagestore.ErrNotWhole):
				return &sqlapi.Error{Code: codeNotNow, Message: se.Error()}
			case errors.Is(se, engine.ErrReadOnly):
				return readOnlyError("standby", "this statement")
			case errors.Is(se, engine.ErrClosed):
				code = codeEnded
			case errors.Is(se, engine.ErrTooLarge):
				code = "54000"
			case errors.Is(se, pagestore.ErrDamaged):
				return &sqlapi.Error{Code: "XX001", Message: se.Error(), Hint: "CHECK DATABASE tells what is damaged; docs/operations.md, what to do then."}
			case errors.Is(se, context.Canceled) && context.Cause(s.ctx) != nil:
				if errors.As(context.Cause(s.ctx), &e) {
					return e
				}
			}
			return &sqlapi.Error{Code: code, Message: se.Error()}
		}
		return &sqlapi.Error{Code: code, Message: "input/output error", Detail: msg}
	case sqlite3.CORRUPT, sqlite3.NOTADB:
		return &sqlapi.Error{Code: "XX001", Message: "the database is damaged: " + msg}
	case sqlite3.TOOBIG:
		return &sqlapi.Error{Code: "54000", Message: "string or blob too big"}
	case sqlite3.MISMATCH:
		return &sqlapi.Error{Code: "42804", Message: "datatype mismatch"}
	case sqlite3.RANGE:
		return &sqlapi.Error{Code: "42P02", Message: "there is no such parameter"}
	case sqlite3.AUTH:
		return &sqlapi.Error{Code: "42501", Message: "permission denied: " + msg}
	}
	if e := decoded(msg); e != nil {
		return e
	}
	out := &sqlapi.Error{Code: "42000", Message: msg}
	for _, r := range rules {
		if m := r.re.FindStringSubmatchIndex(msg); m != nil {
			out.Code = r.code
			if r.msg != "" {
				out.Message = string(r.re.ExpandString(nil, r.msg, msg, m))
			}
			break
		}
	}
	if out.Code == "42000" && x.Code() != sqlite3.ERROR {
		out.Code = "XX000"
	}
	if tail, ok := errorTail(err); ok && st != nil && strings.HasSuffix(st.p.SQL, tail) {
		n := offset(len(st.p.SQL) - len(tail))
		out.Position = utf8.RuneCountInString(sql[:min(n, len(sql))]) + 1
	} else if out.Code == "42601" && strings.HasSuffix(out.Message, "end of input") {
		out.Position = utf8.RuneCountInString(sql) + 1
	}
	return out
}

// errorTail is the statement from the offending token on.
func errorTail(err error) (string, bool) {
	var se *sqlite3.Error
	if errors.As(err, &se) && se.SQL() != "" {
		return se.SQL(), true
	}
	return "", false
}

// storeCause is the error of the storage layer behind an I/O error.
func storeCause(err error) error {
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		if l := j.Unwrap(); len(l) == 2 {
			return l[1]
		}
	}
	var se *sqlite3.Error
	if errors.As(err, &se) {
		return se.Unwrap()
	}
	return nil
}

// message is SQLite's message without the name of the code before it.
func message(err error) string {
	var se *sqlite3.Error
	if !errors.As(err, &se) {
		return strings.TrimPrefix(err.Error(), "sqlite3: ")
	}
	m := strings.TrimPrefix(se.Error(), "sqlite3: ")
	for _, p := range []string{"SQL logic error: ", "constraint failed: "} {
		m = strings.TrimPrefix(m, p)
	}
	return m
}

func constraintError(x sqlite3.ExtendedErrorCode, msg string) *sqlapi.Error {
	code := constraintCodes[x]
	if code == "" {
		code = "23000"
	}
	_, what, _ := strings.Cut(msg, "constraint failed: ")
	if i := strings.LastIndex(msg, "constraint failed: "); i >= 0 {
		what = msg[i+len("constraint failed: "):]
	}
	switch code {
	case "23505":
		table, _, _ := strings.Cut(what, ".")
		return &sqlapi.Error{Code: code, Message: "duplicate key value violates unique constraint on " + what, Detail: "Table " + table + "."}
	case "23502":
		table, col, _ := strings.Cut(what, ".")
		return &sqlapi.Error{Code: code, Message: `null value in column "` + col + `" of relation "` + table + `" violates not-null constraint`}
	case "23503":
		return &sqlapi.Error{Code: code, Message: "the statement violates a foreign key constraint"}
	case "23514":
		return &sqlapi.Error{Code: code, Message: "new row violates check constraint " + what}
	}
	return &sqlapi.Error{Code: code, Message: msg}
}
