package session

import (
	"strconv"

	"github.com/ncruces/go-sqlite3"

	"datawatch/internal/sql/sqlapi"
)

// stmtRow is the current row of a prepared statement.
type stmtRow struct{ cs *cstmt }

func (r stmtRow) Kind(i int) sqlapi.Kind { return kindOf(r.cs.s.ColumnType(i)) }
func (r stmtRow) Int64(i int) int64      { return r.cs.s.ColumnInt64(i) }
func (r stmtRow) Float64(i int) float64  { return r.cs.s.ColumnFloat(i) }
func (r stmtRow) Bytes(i int) (b []byte) {
	if r.cs.s.ColumnType(i) == sqlite3.BLOB {
		b = r.cs.s.ColumnRawBlob(i)
	} else {
		b = r.cs.s.ColumnRawText(i)
	}
	if len(b) > wornValue {
		r.cs.large = true
	}
	return b
}

func kindOf(t sqlite3.Datatype) sqlapi.Kind {
	switch t {
	case sqlite3.INTEGER:
		return sqlapi.Integer
	case sqlite3.FLOAT:
		return sqlapi.Float
	case sqlite3.TEXT:
		return sqlapi.Text
	case sqlite3.BLOB:
		return sqlapi.Blob
	}
	return sqlapi.Null
}

// valueRow is a row kept in memory.
type valueRow []sqlapi.Value

func (r valueRow) Kind(i int) sqlapi.Kind { return r[i].Kind }
func (r valueRow) Int64(i int) int64      { return r[i].Int }
func (r valueRow) Float64(i int) float64  { return r[i].Float }
func (r valueRow) Bytes(i int) []byte {
	if r[i].Kind == sqlapi.Integer {
		return strconv.AppendInt(nil, r[i].Int, 10)
	}
	return r[i].Bytes
}

// copyRow keeps the current row of st.
func copyRow(st *sqlite3.Stmt, n int) valueRow {
	row := make(valueRow, n)
	for i := range row {
		v := &row[i]
		switch v.Kind = kindOf(st.ColumnType(i)); v.Kind {
		case sqlapi.Integer:
			v.Int = st.ColumnInt64(i)
		case sqlapi.Float:
			v.Float = st.ColumnFloat(i)
			v.Bytes = append([]byte(nil), st.ColumnRawText(i)...)
		case sqlapi.Text:
			v.Bytes = append([]byte{}, st.ColumnRawText(i)...)
		case sqlapi.Blob:
			v.Bytes = append([]byte{}, st.ColumnRawBlob(i)...)
		}
	}
	return row
}
