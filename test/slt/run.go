package slt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// DB is a database to run records on.
type DB interface {
	// Run runs one statement; types are the letters of the columns wanted of a
	// query, "" for a statement. A *Refused is an answer, any other error ends
	// the run.
	Run(ctx context.Context, sql, types string) (rows [][]string, err error)
}

// Refused is a statement that the database answered with an error.
type Refused struct {
	Code string // SQLSTATE, or what the database has instead
	Err  error
}

func (r *Refused) Error() string { return r.Err.Error() }
func (r *Refused) Unwrap() error { return r.Err }

// Deviation is a record that is answered differently, on purpose.
type Deviation struct {
	File   string // path below the corpus
	Line   int    // of the record
	Answer string // SQLSTATE, or the values with spaces between
	SQLite string // not "": plain SQLite differs from the file as well, and answers this
	Reason string
}

// Counts are the records of a run.
type Counts struct {
	Files, Statements, Queries, Standby, Deviations int
}

// Add sums up.
func (c *Counts) Add(d Counts) {
	c.Files += d.Files
	c.Statements += d.Statements
	c.Queries += d.Queries
	c.Standby += d.Standby
	c.Deviations += d.Deviations
}

// Runner runs files on a primary and their queries also on a standby.
type Runner struct {
	Primary DB
	Standby DB // may be nil
	// CaughtUp waits until the standby shows what the primary has committed.
	CaughtUp   func(context.Context) error
	Deviations []Deviation
	Errorf     func(format string, args ...any)
}

// Files are the paths of all tests of a corpus, in order.
func Files(corpus fs.FS) ([]string, error) {
	var out []string
	err := fs.WalkDir(corpus, ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(p, ".test") {
			out = append(out, p)
		}
		return err
	})
	return out, err
}

// Run runs one file; differences go to Errorf. A deviation that is listed for
// the file and not met is a difference, too.
func (r *Runner) Run(ctx context.Context, corpus fs.FS, file string) (Counts, error) {
	n := Counts{Files: 1}
	f, err := corpus.Open(file)
	if err != nil {
		return n, err
	}
	defer f.Close()
	records, err := Parse(f, "sqlite")
	if err != nil {
		return n, fmt.Errorf("%s: %w", file, err)
	}
	run := fileRun{Runner: r, file: file, labels: map[string]string{}, deviations: map[int]Deviation{}}
	for _, d := range r.Deviations {
		if d.File == file {
			run.deviations[d.Line] = d
		}
	}
	n.Deviations = len(run.deviations)
	changed := true
	for i := range records {
		rec := &records[i]
		n.Statements, n.Queries = n.Statements+1, n.Queries+1
		if rec.Query {
			n.Statements--
		} else {
			n.Queries--
		}
		if err := run.record(ctx, r.Primary, "", rec); err != nil {
			return n, err
		}
		// Temporary things exist in one session: a standby's makes its own.
		temporary := strings.HasPrefix(rec.SQL, "CREATE TEMP")
		changed = changed || !rec.Query
		if r.Standby == nil || !rec.Query && !temporary {
			continue
		}
		if changed {
			if err := r.CaughtUp(ctx); err != nil {
				return n, err
			}
			changed = false
		}
		if rec.Query {
			n.Standby++
		}
		if err := run.record(ctx, r.Standby, " on the standby", rec); err != nil {
			return n, err
		}
	}
	for line := range run.deviations {
		if !run.met[line] {
			r.Errorf("%s:%d is listed as a deviation and is none", file, line)
		}
	}
	return n, nil
}

type fileRun struct {
	*Runner
	file       string
	labels     map[string]string // the answer of all queries of a label
	deviations map[int]Deviation // by line
	met        map[int]bool
}

func (r *fileRun) record(ctx context.Context, db DB, where string, rec *Record) error {
	rows, err := db.Run(ctx, rec.SQL, rec.Types)
	var refused *Refused
	if err != nil && !errors.As(err, &refused) {
		return fmt.Errorf("%s:%d%s: %w", r.file, rec.Line, where, err)
	}
	answer, difference := "", ""
	switch {
	case refused != nil:
		if answer = refused.Code; !rec.Fails {
			difference = refused.Error()
		}
	case rec.Fails:
		difference = "was accepted"
	case rec.Query:
		answer, difference = r.query(rec, rows)
	}
	dev, listed := r.deviations[rec.Line]
	switch {
	case difference == "":
		return nil
	case listed && dev.Answer == answer:
		if r.met == nil {
			r.met = map[int]bool{}
		}
		r.met[rec.Line] = true
		return nil
	}
	r.Errorf("%s:%d%s: %s\n%s", r.file, rec.Line, where, rec.SQL, difference)
	return nil
}

func (r *fileRun) query(rec *Record, rows [][]string) (answer, difference string) {
	difference, sum := rec.Compare(rows)
	if difference == "" && rec.Label != "" {
		if first, ok := r.labels[rec.Label]; !ok {
			r.labels[rec.Label] = sum
		} else if first != sum {
			difference = "differs from an earlier query of label " + rec.Label
		}
	}
	if difference != "" {
		for _, row := range rows {
			answer += strings.Join(row, " ") + " "
		}
	}
	return strings.TrimSuffix(answer, " "), difference
}
