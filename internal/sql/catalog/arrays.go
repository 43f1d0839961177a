package catalog

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/ncruces/go-sqlite3"
)

// Elements takes PostgreSQL's text form of an array of one dimension apart,
// {a,"b c",NULL}, or that of a vector, "1 2". nil is NULL.
func Elements(s string) []*string {
	s = strings.TrimSpace(s)
	var out []*string
	if len(s) < 2 || s[0] != '{' || s[len(s)-1] != '}' {
		for _, f := range strings.Fields(s) {
			out = append(out, &f)
		}
		return out
	}
	for i, end := 1, len(s)-1; i < end; i++ {
		var b strings.Builder
		quoted := s[i] == '"'
		if quoted {
			i++
		}
		for ; i < end; i++ {
			if s[i] == '\\' && i+1 < end {
				i++
			} else if quoted && s[i] == '"' {
				i++
				break
			} else if !quoted && s[i] == ',' {
				break
			}
			b.WriteByte(s[i])
		}
		v := b.String()
		if !quoted {
			v = strings.TrimSpace(v)
		}
		if !quoted && strings.EqualFold(v, "NULL") {
			out = append(out, nil)
		} else {
			out = append(out, &v)
		}
		for i < end && s[i] != ',' {
			i++
		}
	}
	return out
}

// FormatArray is the text form of an array.
func FormatArray(elems []*string) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, e := range elems {
		if i > 0 {
			b.WriteByte(',')
		}
		switch {
		case e == nil:
			b.WriteString("NULL")
		case *e == "" || strings.ContainsAny(*e, "{}\",\\ \t\n") || strings.EqualFold(*e, "NULL"):
			b.WriteString(`"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(*e) + `"`)
		default:
			b.WriteString(*e)
		}
	}
	b.WriteByte('}')
	return b.String()
}

// toJSON makes a JSON array for json_each; what looks like an integer is one.
func toJSON(s string) string {
	out := []any{}
	for _, e := range Elements(s) {
		if e == nil {
			out = append(out, nil)
		} else if n, err := strconv.ParseInt(*e, 10, 64); err == nil && strconv.FormatInt(n, 10) == *e {
			out = append(out, n)
		} else {
			out = append(out, *e)
		}
	}
	b, err := json.Marshal(out)
	if err != nil {
		return "[]"
	}
	return string(b)
}

func element(a sqlite3.Value) *string {
	if a.Type() == sqlite3.NULL {
		return nil
	}
	t := a.Text()
	return &t
}

func makeArray(ctx sqlite3.Context, a ...sqlite3.Value) {
	elems := make([]*string, len(a))
	for i := range a {
		elems[i] = element(a[i])
	}
	ctx.ResultText(FormatArray(elems))
}

// arrayAgg is array_agg, and ARRAY(SELECT ...), which is empty and not NULL
// for no rows.
type arrayAgg struct{ elems []*string }

func (g *arrayAgg) Step(_ sqlite3.Context, a ...sqlite3.Value) {
	g.elems = append(g.elems, element(a[0]))
}
func (g *arrayAgg) Value(ctx sqlite3.Context) { ctx.ResultText(FormatArray(g.elems)) }
