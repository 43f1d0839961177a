package session

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"datawatch/internal/sql/sqlapi"
)

var update = flag.Bool("update", false, "rewrite docs/sql-supported.md")

const supportedDoc = "../../../docs/sql-supported.md"

// supportedRow is a row of the document: what it says is what happens.
type supportedRow struct{ sql, want string } // want "!12345": that SQLSTATE

type supportedSection struct {
	title string
	setup string
	rows  []supportedRow
}

// TestSupported runs every row of docs/sql-supported.md and checks that the
// document is that of the rows.
func TestSupported(t *testing.T) {
	var b strings.Builder
	b.WriteString(`# Supported SQL

Every row is a test: the statement is executed as it stands here, in the order of its section, and has the result beside it. Rows are
separated by spaces, columns by bars, booleans are 1 and 0; a result that is a SQLSTATE means that the statement is refused.
Made by ` + "`go test ./internal/sql/session -run TestSupported -update`" + `; what is behind it is told in [sql.md](sql.md).
`)
	total := 0
	for _, s := range supported {
		t.Run(s.title, func(t *testing.T) {
			e := newEnv(t)
			c := e.client()
			if s.setup != "" {
				c.exec(s.setup)
			}
			fmt.Fprintf(&b, "\n## %s\n\n", s.title)
			if s.setup != "" {
				fmt.Fprintf(&b, "After `%s`:\n\n", s.setup)
			}
			b.WriteString("| statement | result |\n|---|---|\n")
			for _, r := range s.rows {
				total++
				got := c.outcome(r.sql)
				if got != r.want {
					t.Errorf("%s: %q, want %q", r.sql, got, r.want)
				}
				want := "`" + strings.ReplaceAll(r.want, "|", `\|`) + "`"
				if code, refused := strings.CutPrefix(r.want, "!"); refused {
					want = "refused, " + code
				}
				fmt.Fprintf(&b, "| `%s` | %s |\n", strings.ReplaceAll(r.sql, "|", `\|`), want)
			}
		})
	}
	if total < 200 {
		t.Errorf("only %d rows", total)
	}
	path := filepath.FromSlash(supportedDoc)
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if doc, err := os.ReadFile(path); err != nil || string(doc) != b.String() {
		t.Errorf("%s is out of date (%v): go test ./internal/sql/session -run TestSupported -update", supportedDoc, err)
	}
}

// outcome runs statements: their rows as the text that a client sees, or the last
// tag, or ! and the SQLSTATE. A transaction that failed is rolled back.
func (c *client) outcome(sql string) string {
	var out []string
	tag := ""
	parts, err := c.Split(sql)
	for _, p := range parts {
		var st sqlapi.Stmt
		if st, err = c.Prepare(c.tb.Context(), p, nil); err != nil {
			break
		}
		var po sqlapi.Portal
		if po, err = st.Bind(nil); err != nil {
			break
		}
		n := len(po.Columns())
		tag, _, err = po.Run(c.tb.Context(), 0, func(r sqlapi.Row) error {
			out = append(out, strings.ReplaceAll(rowText(r, n), "\n", `\n`))
			return nil
		})
		po.Close()
		if err != nil {
			break
		}
	}
	if serr := c.Sync(c.tb.Context(), err != nil); err == nil {
		err = serr
	}
	switch {
	case err != nil:
		code := codeOf(c.tb, err)
		if c.TxStatus() != sqlapi.TxIdle {
			c.exec("rollback")
		}
		return "!" + code
	case len(out) == 0:
		return tag
	}
	return strings.Join(out, " ")
}
