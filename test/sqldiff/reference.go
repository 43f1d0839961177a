package sqldiff

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/ncruces/go-sqlite3"
)

// Reference is plain SQLite with what the documents promise beyond it: a
// failed transaction refuses statements until it is rolled back, several
// statements of one query are one transaction, LIKE knows upper and lower case.
type Reference struct {
	db     *sqlite3.Conn
	begun  bool
	failed bool
}

// Reset starts again with an empty database in memory.
func (r *Reference) Reset(context.Context) (err error) {
	r.Close()
	*r = Reference{}
	if r.db, err = sqlite3.Open(":memory:"); err != nil {
		return err
	}
	for _, o := range []sqlite3.DBConfig{sqlite3.DBCONFIG_DQS_DML, sqlite3.DBCONFIG_DQS_DDL} {
		if _, err := r.db.Config(o, false); err != nil {
			return err
		}
	}
	return r.db.Exec("PRAGMA foreign_keys = ON; PRAGMA case_sensitive_like = ON")
}

// Close ends the connection.
func (r *Reference) Close() {
	if r.db != nil {
		r.db.Close()
		r.db = nil
	}
}

// Run runs a statement or an implicit transaction of several.
func (r *Reference) Run(_ context.Context, s Stmt) (Answer, error) {
	if len(s.SQL) == 1 {
		sql := s.SQL[0]
		if s.Ref != "" {
			sql = s.Ref
		}
		return r.one(sql, s.Args), nil
	}
	implicit := !r.begun
	if implicit {
		if err := r.db.Exec("BEGIN"); err != nil {
			return Answer{}, err
		}
		r.begun = true
	}
	var all Answer
	for _, sql := range s.SQL {
		a := r.one(sql, nil)
		if all.Rows = append(all.Rows, a.Rows...); a.Code != "" {
			all.Code = a.Code
			break
		}
	}
	if implicit {
		end := r.one("COMMIT", nil)
		if all.Code == "" {
			all.Code = end.Code
		}
	}
	if all.Code != "" {
		all.Rows = nil
	}
	return all, nil
}

func (r *Reference) one(sql string, args []any) Answer {
	words := strings.Fields(strings.ToUpper(sql))
	back := words[0] == "ROLLBACK" && len(words) > 1
	switch {
	case r.failed && !back:
		if words[0] != "COMMIT" && words[0] != "ROLLBACK" {
			return Answer{Code: "25P02"}
		}
		return r.end("ROLLBACK")
	case words[0] == "COMMIT" || words[0] == "ROLLBACK" && !back:
		if !r.begun {
			return Answer{} // with a warning
		}
		return r.end(sql)
	case words[0] == "BEGIN":
		if r.begun {
			return Answer{}
		}
		r.begun = true
	case (words[0] == "SAVEPOINT" || words[0] == "RELEASE" || back) && !r.begun:
		return Answer{Code: "25P01"}
	}
	a := r.query(sql, args)
	switch {
	case a.Code != "":
		r.failed = r.begun
	case back:
		r.failed = false
	}
	return a
}

// end ends the transaction. One that cannot be committed is rolled back.
func (r *Reference) end(sql string) Answer {
	a := r.query(sql, nil)
	if a.Code != "" {
		r.query("ROLLBACK", nil)
	}
	r.begun, r.failed = false, false
	return a
}

func (r *Reference) query(sql string, args []any) Answer {
	st, _, err := r.db.Prepare(sql)
	if err != nil {
		return Answer{Code: stateOf(err)}
	}
	defer st.Close()
	for i, v := range args {
		if err := bind(st, i+1, v); err != nil {
			return Answer{Code: "*"}
		}
	}
	var a Answer
	for st.Step() {
		row := make([]Cell, st.ColumnCount())
		for i := range row {
			switch st.ColumnType(i) {
			case sqlite3.INTEGER:
				row[i] = Cell{Kind: Integer, Text: strconv.FormatInt(st.ColumnInt64(i), 10)}
			case sqlite3.FLOAT:
				row[i] = Cell{Kind: Float, Text: strconv.FormatFloat(st.ColumnFloat(i), 'g', -1, 64)}
			case sqlite3.TEXT:
				row[i] = Cell{Kind: TextKind, Text: st.ColumnText(i)}
			case sqlite3.BLOB:
				row[i] = Cell{Kind: Blob, Text: string(st.ColumnRawBlob(i))}
			}
		}
		a.Rows = append(a.Rows, row)
	}
	if err := st.Err(); err != nil {
		return Answer{Code: stateOf(err)}
	}
	switch w := strings.Fields(strings.ToUpper(sql))[0]; w {
	case "INSERT":
		a.Tag = fmt.Sprintf("INSERT 0 %d", r.db.Changes())
	case "UPDATE", "DELETE":
		a.Tag = fmt.Sprintf("%s %d", w, r.db.Changes())
	}
	return a
}

func bind(st *sqlite3.Stmt, i int, v any) error {
	switch v := v.(type) {
	case nil:
		return st.BindNull(i)
	case int64:
		return st.BindInt64(i, v)
	case float64:
		return st.BindFloat(i, v)
	case []byte:
		return st.BindBlob(i, v)
	case string:
		return st.BindText(i, v)
	}
	return fmt.Errorf("argument %T", v)
}

var states = []struct {
	re   *regexp.Regexp
	code string
}{
	{regexp.MustCompile(`no such table: `), "42P01"}, {regexp.MustCompile(`no such view: `), "42P01"},
	{regexp.MustCompile(`no such column: `), "42703"}, {regexp.MustCompile(`has no column named `), "42703"},
	{regexp.MustCompile(`near ".*": syntax error`), "42601"}, {regexp.MustCompile(`already exists`), "42P07"},
	{regexp.MustCompile(`no such savepoint`), "3B001"}, {regexp.MustCompile(`no such function`), "42883"},
	{regexp.MustCompile(`no such (index|trigger)`), "42704"}, {regexp.MustCompile(`integer overflow`), "22003"},
	{regexp.MustCompile(`ambiguous column name`), "42702"}, {regexp.MustCompile(`misuse of aggregate`), "42803"},
	{regexp.MustCompile(`duplicate column name`), "42701"},
}

// stateOf is the SQLSTATE that the documents promise for an error of SQLite.
// The checks of types in Ref have it as their name.
func stateOf(err error) string {
	var x sqlite3.ExtendedErrorCode
	if !errors.As(err, &x) {
		return "*"
	}
	switch x {
	case sqlite3.CONSTRAINT_UNIQUE, sqlite3.CONSTRAINT_PRIMARYKEY, sqlite3.CONSTRAINT_ROWID:
		return "23505"
	case sqlite3.CONSTRAINT_NOTNULL:
		return "23502"
	case sqlite3.CONSTRAINT_FOREIGNKEY:
		return "23503"
	case sqlite3.CONSTRAINT_CHECK:
		if m := regexp.MustCompile(`CHECK constraint failed: (22\w{3})$`).FindStringSubmatch(err.Error()); m != nil {
			return m[1]
		}
		return "23514"
	}
	for _, s := range states {
		if s.re.MatchString(err.Error()) {
			return s.code
		}
	}
	return "*"
}

// equalCells compares SQLite's value with a server's.
func equalCells(ref, got Cell) bool {
	if ref.Kind == Null || got.Kind == Null {
		return ref.Kind == got.Kind
	}
	const boolean, bytea, float4 = 16, 17, 700
	if got.OID == bytea { // a column of bytes may have other values, shown as bytes of their text
		if b, err := hex.DecodeString(strings.TrimPrefix(got.Text, `\x`)); err == nil && strings.HasPrefix(got.Text, `\x`) {
			return ref.Kind == Blob && string(b) == ref.Text || ref.Kind != Blob && equalCells(ref, Cell{TextKind, string(b), 0})
		}
	}
	switch ref.Kind {
	case Integer, Float:
		if got.OID == boolean {
			return ref.Text == "1" && got.Text == "t" || ref.Text == "0" && got.Text == "f"
		}
		if ref.Text == got.Text {
			return true
		}
		r, err1 := strconv.ParseFloat(ref.Text, 64)
		g, err2 := strconv.ParseFloat(got.Text, 64)
		if got.OID == float4 {
			r, g = float64(float32(r)), float64(float32(g))
		}
		return err1 == nil && err2 == nil && r == g && (ref.Kind == Float || float64(int64(r)) == r && r < 1<<53 && r > -1<<53)
	case Blob:
		return got.Text == `\x`+hex.EncodeToString([]byte(ref.Text)) || got.OID != bytea && got.Text == ref.Text
	}
	return ref.Text == got.Text
}
