package sqldiff

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// Server is a connection over the PostgreSQL protocol.
type Server struct {
	*pgconn.PgConn
	Empty func(context.Context) error // empties the database
	types *pgtype.Map
}

// Reset ends a transaction that is open and empties the database. Aggregates over
// small tables go to the server's own executor, too.
func (s *Server) Reset(ctx context.Context) error {
	if _, err := s.Exec(ctx, "ROLLBACK; SET enable_aggscan = always").ReadAll(); err != nil {
		return err
	}
	return s.Empty(ctx)
}

// Run sends a statement the way it asks for.
func (s *Server) Run(ctx context.Context, st Stmt) (Answer, error) {
	if st.Way == Simple {
		sql := st.SQL[0]
		for _, x := range st.SQL[1:] {
			sql += "; " + x
		}
		return s.simple(ctx, sql)
	}
	values := make([][]byte, len(st.Args))
	oids, formats := make([]uint32, len(st.Args)), make([]int16, len(st.Args))
	for i, a := range st.Args {
		oids[i], formats[i], values[i] = argument(a, st.Way == Binary)
	}
	result := int16(0)
	if st.Way == Binary {
		result = 1
	}
	res := s.ExecParams(ctx, st.SQL[0], values, oids, formats, []int16{result})
	a := Answer{}
	for res.NextRow() {
		row := make([]Cell, len(res.Values()))
		for i, v := range res.Values() {
			if v == nil {
				continue
			}
			c, err := s.cell(res.FieldDescriptions()[i], v)
			if err != nil {
				res.Close()
				return a, err
			}
			row[i] = c
		}
		a.Rows = append(a.Rows, row)
	}
	tag, err := res.Close()
	a.Tag = tag.String()
	return a.with(err)
}

func (s *Server) simple(ctx context.Context, sql string) (Answer, error) {
	res := s.Exec(ctx, sql)
	a := Answer{}
	for res.NextResult() {
		r := res.ResultReader()
		for r.NextRow() {
			row := make([]Cell, len(r.Values()))
			for i, v := range r.Values() {
				if v != nil {
					row[i] = Cell{TextKind, string(v), r.FieldDescriptions()[i].DataTypeOID}
				}
			}
			a.Rows = append(a.Rows, row)
		}
		tag, _ := r.Close() // the error is that of the whole query, too
		a.Tag = tag.String()
	}
	return a.with(res.Close())
}

func (a Answer) with(err error) (Answer, error) {
	var pe *pgconn.PgError
	if errors.As(err, &pe) && pe.Severity == "ERROR" {
		return Answer{Code: pe.Code}, nil
	}
	return a, err
}

// argument is the type, format and value of a parameter.
func argument(v any, bin bool) (oid uint32, format int16, b []byte) {
	switch v := v.(type) {
	case int64:
		if bin {
			return 20, 1, binary.BigEndian.AppendUint64(nil, uint64(v))
		}
		return 20, 0, strconv.AppendInt(nil, v, 10)
	case float64:
		if bin {
			return 701, 1, binary.BigEndian.AppendUint64(nil, math.Float64bits(v))
		}
		return 701, 0, strconv.AppendFloat(nil, v, 'g', -1, 64)
	case []byte:
		if bin {
			return 17, 1, append([]byte{}, v...)
		}
		return 17, 0, hex.AppendEncode([]byte(`\x`), v)
	case string:
		return 25, int16(map[bool]int{true: 1}[bin]), []byte(v)
	}
	return 25, 0, nil
}

// cell decodes a value by its type.
func (s *Server) cell(f pgconn.FieldDescription, v []byte) (Cell, error) {
	if f.Format == 0 {
		return Cell{TextKind, string(v), f.DataTypeOID}, nil
	}
	if s.types == nil {
		s.types = pgtype.NewMap()
	}
	t, ok := s.types.TypeForOID(f.DataTypeOID)
	if !ok {
		return Cell{}, fmt.Errorf("column of unknown type %d", f.DataTypeOID)
	}
	x, err := t.Codec.DecodeValue(s.types, f.DataTypeOID, f.Format, v)
	if err != nil {
		return Cell{}, fmt.Errorf("binary value %x of type %s: %w", v, t.Name, err)
	}
	c := Cell{TextKind, "", f.DataTypeOID}
	switch x := x.(type) {
	case bool:
		c.Text = map[bool]string{true: "t", false: "f"}[x]
	case []byte:
		c.Text = `\x` + hex.EncodeToString(x)
	case float64:
		c.Text = strconv.FormatFloat(x, 'g', -1, 64)
	case float32:
		c.Text = strconv.FormatFloat(float64(x), 'g', -1, 32)
	case pgtype.Numeric:
		d, err := x.Value()
		if err != nil {
			return c, err
		}
		c.Text = fmt.Sprint(d)
	default:
		c.Text = fmt.Sprint(x)
	}
	return c, nil
}
