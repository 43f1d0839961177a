package session

import (
	"errors"
	"regexp"

	"github.com/ncruces/go-sqlite3"

	"datawatch/internal/sql/sqlapi"
	"datawatch/internal/sql/value"
)

// sqlFunction adapts a function over values. Its *sqlapi.Error keeps code and
// message on the way through SQLite.
func sqlFunction(f func(a []sqlapi.Value) (sqlapi.Value, error)) sqlite3.ScalarFunction {
	return func(ctx sqlite3.Context, a ...sqlite3.Value) {
		var buf [8]sqlapi.Value
		in := buf[:0]
		for _, v := range a {
			in = append(in, fromSQLite(v))
		}
		out, err := f(in)
		if err != nil {
			ctx.ResultError(coded(err))
			return
		}
		toSQLite(ctx, out)
	}
}

// fromSQLite is an argument as a value; its bytes are valid during the call.
func fromSQLite(v sqlite3.Value) sqlapi.Value {
	switch v.Type() {
	case sqlite3.INTEGER:
		return sqlapi.Value{Kind: sqlapi.Integer, Int: v.Int64()}
	case sqlite3.FLOAT:
		return sqlapi.Value{Kind: sqlapi.Float, Float: v.Float()}
	case sqlite3.TEXT:
		return sqlapi.Value{Kind: sqlapi.Text, Bytes: v.RawText()}
	case sqlite3.BLOB:
		return sqlapi.Value{Kind: sqlapi.Blob, Bytes: v.RawBlob()}
	}
	return sqlapi.Value{}
}

func toSQLite(ctx sqlite3.Context, v sqlapi.Value) {
	switch v.Kind {
	case sqlapi.Integer:
		ctx.ResultInt64(v.Int)
	case sqlapi.Float:
		ctx.ResultFloat(v.Float)
	case sqlapi.Text:
		ctx.ResultRawText(v.Bytes)
	case sqlapi.Blob:
		ctx.ResultBlob(v.Bytes)
	default:
		ctx.ResultNull()
	}
}

// codedError carries a SQLSTATE through SQLite, which passes on only the text.
type codedError struct{ e *sqlapi.Error }

func (c codedError) Error() string {
	text := "[" + c.e.Code + "] " + c.e.Message
	if c.e.Detail != "" {
		text += "\n" + c.e.Detail
	}
	return text
}

func coded(err error) error {
	var e *sqlapi.Error
	if errors.As(err, &e) {
		return codedError{e}
	}
	return err
}

var codedText = regexp.MustCompile(`(?s)^\[([0-9A-Z]{5})\] ([^\n]*)(?:\n(.*))?$`)

// decoded is the error that a function put into a message.
func decoded(msg string) *sqlapi.Error {
	m := codedText.FindStringSubmatch(msg)
	if m == nil {
		return nil
	}
	return &sqlapi.Error{Code: m[1], Message: m[2], Detail: m[3]}
}

func typeArg(a []sqlapi.Value) value.Type {
	return value.Type{OID: uint32(a[0].Int), Mod: int32(a[1].Int)}
}

// assign is dw_assign(oid, modifier, x): x as a column of the type stores it.
func assign(a []sqlapi.Value) (sqlapi.Value, error) { return value.Assign(typeArg(a), a[2]) }

// checkType is dw_check(oid, modifier, x): the last word of the CHECK constraint
// of a declared type; true or an error.
func checkType(a []sqlapi.Value) (sqlapi.Value, error) {
	return sqlapi.Value{Kind: sqlapi.Integer, Int: 1}, value.Fits(typeArg(a), a[2])
}

// castTo is dw_cast(oid, modifier, x): x::type. Longer text is cut, as a cast to
// varchar(n) does, where an assignment refuses it.
func castTo(a []sqlapi.Value) (sqlapi.Value, error) { return value.Cast(typeArg(a), a[2]) }
