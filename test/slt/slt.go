// Package slt reads and runs the tests of SQLite's sqllogictest: records of
// statements that must work or fail and of queries with their expected values.
//
// It owns the format, the way values are written down, and the comparison; how
// a statement reaches a database is the caller's. It keeps none of the
// guarantees itself: it shows, for standbys too, that what answers is SQLite's
// own engine (G6: a query on a standby sees what the primary had committed).
package slt

import (
	"bufio"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Record is one statement or query of a file.
type Record struct {
	Line  int    // of its first line, from 1
	SQL   string // without the final line break
	Query bool
	Fails bool // a statement that must be refused

	// Of queries: a letter for each column (I, R or T), the order of values
	// (nosort, rowsort, valuesort), a name whose queries all have one answer.
	Types, Sort, Label string
	Want               []string // the values, or
	Hash               string   // "N values hashing to MD5"
}

// Parse reads a file as the engine of that name sees it: records marked for
// others are left out, and what follows a halt.
func Parse(r io.Reader, engine string) ([]Record, error) {
	p := parser{sc: bufio.NewScanner(r)}
	p.sc.Buffer(nil, 16<<20)
	var out []Record
	skip := false
	for p.next() {
		f := strings.Fields(p.text)
		if i := slices.IndexFunc(f, func(s string) bool { return s[0] == '#' }); i >= 0 {
			f = f[:i]
		}
		if len(f) == 0 {
			continue
		}
		switch {
		case f[0] == "halt":
			if !skip {
				return out, nil
			}
			skip = false
		case f[0] == "hash-threshold" && len(f) == 2: // of the writer of the file
			skip = false
		case (f[0] == "skipif" || f[0] == "onlyif") && len(f) == 2:
			skip = skip || (f[1] == engine) == (f[0] == "skipif")
		case f[0] == "statement" && len(f) == 2 && (f[1] == "ok" || f[1] == "error"):
			rec := Record{Line: p.line, Fails: f[1] == "error"}
			rec.SQL = p.block("")
			if !skip {
				out = append(out, rec)
			}
			skip = false
		case f[0] == "query" && len(f) >= 2 && len(f) <= 4:
			rec, err := p.query(f)
			if err != nil {
				return nil, err
			}
			if !skip {
				out = append(out, rec)
			}
			skip = false
		default:
			return nil, fmt.Errorf("line %d: not a record: %q", p.line, p.text)
		}
	}
	return out, p.sc.Err()
}

type parser struct {
	sc   *bufio.Scanner
	line int
	text string
}

func (p *parser) next() bool {
	if !p.sc.Scan() {
		return false
	}
	p.line++
	p.text = strings.TrimSuffix(p.sc.Text(), "\r")
	return true
}

// block reads to an empty line, or to one that is end.
func (p *parser) block(end string) string {
	var lines []string
	for p.next() && p.text != "" && (end == "" || p.text != end) {
		lines = append(lines, p.text)
	}
	return strings.Join(lines, "\n")
}

func (p *parser) query(f []string) (Record, error) {
	rec := Record{Line: p.line, Query: true, Types: f[1], Sort: "nosort"}
	if strings.Trim(rec.Types, "IRT") != "" {
		return rec, fmt.Errorf("line %d: column types %q", p.line, rec.Types)
	}
	if len(f) > 2 {
		rec.Sort = f[2]
	}
	if len(f) > 3 {
		rec.Label = f[3]
	}
	if !slices.Contains([]string{"nosort", "rowsort", "valuesort"}, rec.Sort) {
		return rec, fmt.Errorf("line %d: sort mode %q", p.line, rec.Sort)
	}
	rec.SQL = p.block("----")
	if p.text == "----" {
		if b := p.block(""); b != "" {
			rec.Want = strings.Split(b, "\n")
		}
	}
	if len(rec.Want) == 1 && strings.Contains(rec.Want[0], " values hashing to ") {
		rec.Hash, rec.Want = rec.Want[0], nil
	}
	return rec, nil
}

// Value writes a value down as the tests do: typ is the column's letter, text
// the value in PostgreSQL's text format, number that its type is one of
// numbers, null that it is NULL. Booleans are SQLite's 0 and 1.
func Value(typ byte, text string, number, boolean, null bool) string {
	switch {
	case null:
		return "NULL"
	case boolean && text == "t":
		text, number = "1", true
	case boolean && text == "f":
		text, number = "0", true
	}
	switch typ {
	case 'I':
		if i, err := strconv.ParseInt(text, 10, 64); err == nil {
			return strconv.FormatInt(i, 10)
		}
		if f, err := strconv.ParseFloat(text, 64); err == nil && number {
			return strconv.FormatInt(int64(f), 10)
		}
		i, _ := strconv.ParseInt(leading(text, "0123456789"), 10, 64)
		return strconv.FormatInt(i, 10)
	case 'R':
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			f, _ = strconv.ParseFloat(leading(text, "0123456789."), 64)
		}
		return strconv.FormatFloat(f, 'f', 3, 64)
	}
	if text == "" {
		return "(empty)"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '@'
		}
		return r
	}, text)
}

// leading is the number at the start of a text, as SQLite reads one.
func leading(s, digits string) string {
	s = strings.TrimLeft(s, " \t\n")
	i := 0
	if i < len(s) && (s[i] == '-' || s[i] == '+') {
		i++
	}
	for i < len(s) && strings.IndexByte(digits, s[i]) >= 0 {
		i++
	}
	return s[:i]
}

// Compare says how rows differ from what the record wants; "" when not at all.
// It orders the values as the record says. sum is a hash of them, the same for
// all queries of one label.
func (rec *Record) Compare(rows [][]string) (difference, sum string) {
	for _, r := range rows {
		if len(r) != len(rec.Types) {
			return fmt.Sprintf("%d columns, want %d", len(r), len(rec.Types)), ""
		}
	}
	if rec.Sort == "rowsort" {
		slices.SortStableFunc(rows, slices.Compare)
	}
	values := slices.Concat(rows...)
	if rec.Sort == "valuesort" {
		slices.Sort(values)
	}
	h := md5.New()
	for _, v := range values {
		io.WriteString(h, v+"\n")
	}
	sum = hex.EncodeToString(h.Sum(nil))
	if rec.Hash != "" {
		if got := fmt.Sprintf("%d values hashing to %s", len(values), sum); got != rec.Hash {
			return fmt.Sprintf("%s, want %s; the first: %q", got, rec.Hash, values[:min(len(values), 12)]), sum
		}
		return "", sum
	}
	if !slices.Equal(values, rec.Want) {
		return fmt.Sprintf("%q, want %q", clip(values), clip(rec.Want)), sum
	}
	return "", sum
}

func clip(s []string) []string { return s[:min(len(s), 40)] }
