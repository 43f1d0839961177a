package session

import (
	"bytes"
	"encoding/json"
	"math"

	"github.com/ncruces/go-sqlite3"

	"datawatch/internal/sql/sqlapi"
)

// Aggregates that SQLite lacks. They may be windows whose frame only grows.

type boolAgg struct {
	and  bool
	n    int
	hits int
}

func (b *boolAgg) Step(_ sqlite3.Context, a ...sqlite3.Value) {
	if a[0].Type() != sqlite3.NULL {
		b.n++
		if a[0].Bool() {
			b.hits++
		}
	}
}

func (b *boolAgg) Value(ctx sqlite3.Context) {
	if b.n > 0 {
		ctx.ResultBool(b.and && b.hits == b.n || !b.and && b.hits > 0)
	}
}

// jsonAgg is json_agg: objects and arrays as they are, everything else quoted.
type jsonAgg struct{ b bytes.Buffer }

func (j *jsonAgg) Step(ctx sqlite3.Context, a ...sqlite3.Value) {
	if j.b.Len() == 0 {
		j.b.WriteByte('[')
	} else {
		j.b.WriteString(", ")
	}
	if a[0].Type() == sqlite3.NULL {
		j.b.WriteString("null")
		return
	}
	v, err := toJSON([]sqlapi.Value{fromSQLite(a[0])})
	if err == nil && j.b.Len()+len(v.Bytes) > maxText {
		err = errTooLong
	}
	if err != nil {
		ctx.ResultError(err)
		return
	}
	if v.Kind == sqlapi.Text && !json.Valid(v.Bytes) {
		v.Bytes, _ = json.Marshal(string(v.Bytes))
	}
	j.b.Write(v.Bytes)
}

func (j *jsonAgg) Value(ctx sqlite3.Context) {
	if j.b.Len() > 0 {
		ctx.ResultText(j.b.String() + "]")
	}
}

// variance follows Welford, which loses no digits to large means.
type variance struct {
	root    bool
	sample  float64
	n       float64
	mean, s float64
}

func (v *variance) Step(ctx sqlite3.Context, a ...sqlite3.Value) {
	if a[0].Type() == sqlite3.NULL {
		return
	}
	x, err := numberOf(fromSQLite(a[0]))
	if err != nil {
		ctx.ResultError(coded(err))
		return
	}
	v.n++
	d := x - v.mean
	v.mean += d / v.n
	v.s += d * (x - v.mean)
}

func (v *variance) Value(ctx sqlite3.Context) {
	if v.n <= v.sample {
		return
	}
	r := v.s / (v.n - v.sample)
	if v.root {
		r = math.Sqrt(r)
	}
	ctx.ResultFloat(r)
}
