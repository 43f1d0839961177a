package disql

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// page is the number of rows that share one table; more rows make more tables,
// so that a result of any size needs little memory.
const page = 1000

// style is how results are shown.
type style struct {
	table    bool // tables, counts and timing; otherwise values between tabs
	expanded bool // one line per value (\x)
	timing   bool
}

// show writes one result and returns the number of its rows.
func (st style) show(w io.Writer, r *pgconn.ResultReader) (int, error) {
	fields := r.FieldDescriptions()
	if len(fields) == 0 {
		for r.NextRow() {
			continue
		}
		return 0, nil
	}
	var t table.Writer
	rows := 0
	for r.NextRow() {
		rows++
		values := r.Values()
		switch {
		case !st.table:
			writeTabs(w, values)
		case st.expanded:
			fmt.Fprintf(w, "-[ row %d ]-\n", rows)
			width := 0
			for _, f := range fields {
				width = max(width, utf8.RuneCountInString(f.Name))
			}
			for i, v := range values {
				fmt.Fprintf(w, "%-*s | %s\n", width, f(fields, i), cell(v))
			}
		default:
			if t == nil {
				t = newTable(w, fields)
			}
			row := make(table.Row, len(values))
			for i, v := range values {
				row[i] = cell(v)
			}
			t.AppendRow(row)
			if rows%page == 0 {
				t.Render()
				t = nil
			}
		}
	}
	if t == nil && rows == 0 && st.table && !st.expanded {
		if _, err := r.Close(); err == nil { // nothing of a query that failed
			t = newTable(w, fields)
		}
	}
	if t != nil {
		t.Render()
	}
	return rows, nil
}

func f(fields []pgconn.FieldDescription, i int) string { return fields[i].Name }

// newTable has the columns of a result, numbers to the right.
func newTable(w io.Writer, fields []pgconn.FieldDescription) table.Writer {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	s := table.StyleLight
	s.Format.Header = text.FormatDefault
	t.SetStyle(s)
	header := make(table.Row, len(fields))
	configs := make([]table.ColumnConfig, 0, len(fields))
	for i, f := range fields {
		header[i] = f.Name
		switch f.DataTypeOID {
		case 20, 21, 23, 26, 700, 701, 1700: // integers, oid, floats, numeric
			configs = append(configs, table.ColumnConfig{Number: i + 1, Align: text.AlignRight})
		}
	}
	t.SetColumnConfigs(configs)
	t.AppendHeader(header)
	return t
}

// cell is a value as a table shows it: NULL by name, control characters
// escaped, so that data cannot drive the terminal.
func cell(v []byte) string {
	if v == nil {
		return "NULL"
	}
	s := string(v)
	if !utf8.ValidString(s) {
		return fmt.Sprintf("0x%x", v)
	}
	if strings.IndexFunc(s, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x7f }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f {
			fmt.Fprintf(&b, "\\x%02x", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

var tabEscape = strings.NewReplacer("\\", `\\`, "\t", `\t`, "\n", `\n`, "\r", `\r`)

// writeTabs writes a row for scripts: values between tabs, NULL as \N, tab,
// line end and backslash escaped, as COPY does.
func writeTabs(w io.Writer, values [][]byte) {
	parts := make([]string, len(values))
	for i, v := range values {
		if v == nil {
			parts[i] = `\N`
		} else {
			parts[i] = tabEscape.Replace(string(v))
		}
	}
	fmt.Fprintln(w, strings.Join(parts, "\t"))
}

// footer is the line after a result.
func (st style) footer(tag string, rows int, isQuery bool, took time.Duration) string {
	s := tag
	if isQuery {
		s = fmt.Sprintf("%d rows", rows)
		if rows == 1 {
			s = "1 row"
		}
	}
	if st.timing {
		s += fmt.Sprintf("   used time: %.3f ms", float64(took.Microseconds())/1000)
	}
	return s
}

// describeError words a server error with everything it says.
func describeError(err *pgconn.PgError) string {
	s := fmt.Sprintf("%s: %s (SQLSTATE %s)", err.Severity, err.Message, err.Code)
	if err.Position > 0 {
		s += fmt.Sprintf(" at character %d", err.Position)
	}
	if err.Detail != "" {
		s += "\n  detail: " + err.Detail
	}
	if err.Hint != "" {
		s += "\n  hint: " + err.Hint
	}
	return s
}
