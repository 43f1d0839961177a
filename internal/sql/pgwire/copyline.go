package pgwire

import (
	"bytes"
	"fmt"
	"strings"

	"datawatch/internal/sql/sqlapi"
)

// row makes values of a line.
func (r *copyReader) row(line []byte) ([]sqlapi.Value, error) {
	r.vals, r.scratch = r.vals[:0], r.scratch[:0]
	cols := r.f.Columns
	err := r.fields(line, func(raw []byte, null bool) error {
		i := len(r.vals)
		if i == len(cols) {
			return r.where(sqlErr("22P04", "extra data after last expected column"), "")
		}
		if null {
			r.vals = append(r.vals, sqlapi.Value{})
			return nil
		}
		v, scratch, err := decodeValue(r.scratch, cols[i].OID, 0, raw)
		if err != nil {
			return r.where(err, cols[i].Name)
		}
		r.vals, r.scratch = append(r.vals, v), scratch
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case len(r.vals) < len(cols):
		return nil, r.where(sqlErr("22P04", fmt.Sprintf("missing data for column %q", cols[len(r.vals)].Name)), "")
	}
	return r.vals, nil
}

// match compares the header with the names of the columns.
func (r *copyReader) match(line []byte) error {
	i := 0
	err := r.fields(line, func(raw []byte, null bool) error {
		if i < len(r.f.Columns) && (null || !strings.EqualFold(string(raw), r.f.Columns[i].Name)) {
			return sqlErr("22P04", fmt.Sprintf("column name mismatch in header line field %d: got %q, expected %q", i+1, raw, r.f.Columns[i].Name))
		}
		i++
		return nil
	})
	if err == nil && i != len(r.f.Columns) {
		err = sqlErr("22P04", fmt.Sprintf("wrong number of fields in header line: got %d, expected %d", i, len(r.f.Columns)))
	}
	return err
}

// fields calls fn for each field of a line. What had to be unescaped is in
// scratch, everything else in the line itself.
func (r *copyReader) fields(line []byte, fn func(raw []byte, null bool) error) error {
	if len(r.f.Columns) == 0 && len(line) == 0 {
		return nil
	}
	if r.f.CSV {
		return r.csvFields(line, fn)
	}
	for {
		end, escaped := len(line), false
		for i := 0; i < len(line); i++ {
			if line[i] == '\\' {
				escaped = true
				i++
			} else if line[i] == r.f.Delimiter {
				end = i
				break
			}
		}
		raw := line[:end]
		null := string(raw) == r.f.Null
		if escaped && !null {
			raw = r.unescape(raw)
		}
		if err := fn(raw, null); err != nil {
			return err
		}
		if end == len(line) {
			return nil
		}
		line = line[end+1:]
	}
}

// unescape resolves the backslashes of the text format.
func (r *copyReader) unescape(raw []byte) []byte {
	at := len(r.scratch)
	out := r.scratch
	for i := 0; i < len(raw); i++ {
		ch := raw[i]
		if ch != '\\' || i+1 == len(raw) {
			out = append(out, ch)
			continue
		}
		i++
		switch ch = raw[i]; ch {
		case 'b':
			ch = '\b'
		case 'f':
			ch = '\f'
		case 'n':
			ch = '\n'
		case 'r':
			ch = '\r'
		case 't':
			ch = '\t'
		case 'v':
			ch = '\v'
		case '0', '1', '2', '3', '4', '5', '6', '7':
			n := 0
			for k := 0; k < 3 && i < len(raw) && raw[i] >= '0' && raw[i] <= '7'; k++ {
				n = n<<3 | int(raw[i]-'0')
				i++
			}
			i--
			ch = byte(n)
		case 'x':
			n, used := 0, 0
			for used < 2 && i+1+used < len(raw) {
				d := bytes.IndexByte([]byte("0123456789abcdef"), raw[i+1+used]|0x20)
				if d < 0 {
					break
				}
				n, used = n<<4|d, used+1
			}
			if used > 0 {
				ch = byte(n)
				i += used
			}
		}
		out = append(out, ch)
	}
	r.scratch = out
	return out[at:]
}

func (r *copyReader) csvFields(line []byte, fn func(raw []byte, null bool) error) error {
	f := r.f
	for i := 0; ; {
		start, quoted := i, false
		for i < len(line) && line[i] != f.Delimiter && line[i] != f.Quote {
			i++
		}
		raw := line[start:i]
		if i < len(line) && line[i] == f.Quote {
			at := len(r.scratch)
			out := append(r.scratch, raw...)
			in := false
			for ; i < len(line) && (in || line[i] != f.Delimiter); i++ {
				ch := line[i]
				switch {
				case in && ch == f.Escape && i+1 < len(line) && (line[i+1] == f.Quote || line[i+1] == f.Escape):
					i++
					out = append(out, line[i])
					continue
				case ch == f.Quote:
					in, quoted = !in, true
					continue
				}
				out = append(out, ch)
			}
			if in {
				return r.where(sqlErr("22P04", "unterminated CSV quoted field"), "")
			}
			r.scratch, raw = out, out[at:]
		}
		if err := fn(raw, !quoted && string(raw) == f.Null); err != nil {
			return err
		}
		if i >= len(line) {
			return nil
		}
		i++ // the delimiter
	}
}
