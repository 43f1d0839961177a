package slt

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/ncruces/go-sqlite3"
)

// Server is a connection over the PostgreSQL protocol.
type Server struct{ *pgconn.PgConn }

// Run sends statements by the simple protocol, queries by the extended one.
func (s Server) Run(ctx context.Context, sql, types string) ([][]string, error) {
	if types == "" {
		_, err := s.Exec(ctx, sql).ReadAll()
		return nil, refusedBy(err)
	}
	res := s.ExecParams(ctx, sql, nil, nil, nil, nil)
	fields := res.FieldDescriptions()
	var rows [][]string
	for res.NextRow() {
		row := make([]string, len(fields))
		for i, v := range res.Values() {
			letter := byte('T')
			if i < len(types) {
				letter = types[i]
			}
			number := slices.Contains(numbers, fields[i].DataTypeOID)
			row[i] = Value(letter, string(v), number, fields[i].DataTypeOID == 16, v == nil)
		}
		rows = append(rows, row)
	}
	_, err := res.Close()
	return rows, refusedBy(err)
}

// numbers are PostgreSQL's types whose text is a number: int2, int4, int8,
// oid, float4, float8, numeric.
var numbers = []uint32{20, 21, 23, 26, 700, 701, 1700}

func refusedBy(err error) error {
	var pe *pgconn.PgError
	if errors.As(err, &pe) && pe.Severity != "FATAL" {
		return &Refused{pe.Code, err}
	}
	return err
}

// SQLite is a database of plain SQLite, without any of the server's parts.
type SQLite struct{ *sqlite3.Conn }

// Run runs one statement; refusals have SQLite's number as their code.
func (s SQLite) Run(_ context.Context, sql, types string) (rows [][]string, err error) {
	st, _, err := s.Prepare(sql)
	if err != nil {
		return nil, refusedBySQLite(err)
	}
	defer st.Close()
	for st.Step() {
		row := make([]string, st.ColumnCount())
		for i := range row {
			letter := byte('T')
			if i < len(types) {
				letter = types[i]
			}
			kind := st.ColumnType(i)
			row[i] = Value(letter, st.ColumnText(i), kind == sqlite3.INTEGER || kind == sqlite3.FLOAT, false, kind == sqlite3.NULL)
		}
		rows = append(rows, row)
	}
	return rows, refusedBySQLite(st.Err())
}

func refusedBySQLite(err error) error {
	var code sqlite3.ExtendedErrorCode
	if errors.As(err, &code) {
		return &Refused{strconv.Itoa(int(code.Code())), err}
	}
	return err
}
