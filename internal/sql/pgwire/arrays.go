package pgwire

import (
	"strings"

	"datawatch/internal/sql/sqlapi"
)

// Arrays are text in PostgreSQL's form; columns cannot have them, parameters
// can: x = ANY ($1).

func isArray(oid uint32) bool {
	switch oid {
	case 1000, 1001, 1005, 1007, 1016, 1009, 1015, 1014, 1021, 1022, 1231, 1115, 1185, 1182, 2951:
		return true
	}
	return false
}

// decodeArray makes text of a binary array of one dimension.
func decodeArray(scratch, raw []byte) (sqlapi.Value, []byte, error) {
	bad := func() (sqlapi.Value, []byte, error) {
		return sqlapi.Value{}, scratch, sqlErr("22P03", "incorrect binary data format of an array")
	}
	m := body{b: raw}
	dims := m.int32()
	m.int32() // whether there are nulls
	elem := uint32(m.int32())
	at := len(scratch)
	out := append(scratch, '{')
	switch {
	case m.bad || dims < 0:
		return bad()
	case dims > 1:
		return sqlapi.Value{}, scratch, sqlErr("0A000", "arrays of several dimensions are not supported")
	case dims == 1:
		n := int(m.int32())
		m.int32() // lower bound
		if m.bad || n < 0 || n > len(m.b)/4 {
			return bad()
		}
		var tmp []byte
		for i := range n {
			if i > 0 {
				out = append(out, ',')
			}
			l := m.int32()
			if l == -1 {
				out = append(out, "NULL"...)
				continue
			}
			b := m.bytes(int(l))
			if m.bad {
				return bad()
			}
			v, t, err := decodeBinary(tmp[:0], elem, b)
			if err != nil {
				return sqlapi.Value{}, scratch, err
			}
			tmp = t
			text := appendText(nil, valueRow{v}, 0, &sqlapi.Column{OID: elem, TypeMod: -1})
			out = append(out, '"')
			out = append(out, arrayEscape.Replace(string(text))...)
			out = append(out, '"')
			if v.Kind == sqlapi.Integer { // a number is one without quotes only
				out = append(out[:len(out)-len(text)-2], text...)
			}
		}
	}
	if !m.end() {
		return bad()
	}
	out = append(out, '}')
	return sqlapi.Value{Kind: sqlapi.Text, Bytes: out[at:]}, out, nil
}

var arrayEscape = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// valueRow shows one value as a row.
type valueRow struct{ v sqlapi.Value }

func (r valueRow) Kind(int) sqlapi.Kind { return r.v.Kind }
func (r valueRow) Int64(int) int64      { return r.v.Int }
func (r valueRow) Float64(int) float64  { return r.v.Float }
func (r valueRow) Bytes(int) []byte     { return r.v.Bytes }
