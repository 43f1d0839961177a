package catalog

import (
	"strings"

	"github.com/ncruces/go-sqlite3"
)

// CommentTable keeps what COMMENT ON says: REL and COL in lower case, COL empty
// for the table itself, and TEXT.
const CommentTable = "SYSCOMMENTS"

// relCol names a table, or one of its columns, in lower case.
type relCol struct{ rel, col string }

// loadComments reads the comments; a database without any has no table.
func (s *snapshot) loadComments(db *sqlite3.Conn) error {
	have := false
	err := each(db, "SELECT 1 FROM main.sqlite_schema WHERE name = '"+CommentTable+"'", func(*sqlite3.Stmt) { have = true })
	if err != nil || !have {
		return err
	}
	s.comments = map[relCol]string{}
	return each(db, "SELECT REL, COL, TEXT FROM main."+CommentTable, func(st *sqlite3.Stmt) {
		s.comments[relCol{st.ColumnText(0), st.ColumnText(1)}] = st.ColumnText(2)
	})
}

// pgDescription is pg_description.
func pgDescription(s *snapshot) (out [][]any) {
	if len(s.comments) == 0 {
		return nil
	}
	for _, r := range s.rels {
		if !strings.Contains("rvS", r.kind) {
			continue
		}
		for n := 0; n <= len(r.columns); n++ {
			if text := s.comment(r, int64(n)); text != nil {
				out = append(out, row(r.oid, classOID, n, text))
			}
		}
	}
	return out
}

// comment is that of a relation, or of its column n from 1; nil: there is none.
func (s *snapshot) comment(r *relation, n int64) any {
	if r == nil || r.schema != "main" || n < 0 || n > int64(len(r.columns)) || r.kind == "i" {
		return nil
	}
	col := ""
	if n > 0 {
		col = strings.ToLower(r.columns[n-1].name)
	}
	if text, ok := s.comments[relCol{strings.ToLower(r.name), col}]; ok {
		return text
	}
	return nil
}
