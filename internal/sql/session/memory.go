package session

import (
	"fmt"

	"datawatch/internal/sql/sqlapi"
)

// Memory of one statement. SQLite's part, on the connection it runs on, is
// bounded by SQLite itself (conn.use); rows that must be kept before they can go
// out, by a keeper. What sorts and temporary tables need beyond some memory is on
// disk (sqlitevfs).

// maxKept bounds the rows of a statement without a limit of its own, bytes.
const maxKept = 1 << 30

// keeper collects rows up to the limit.
type keeper struct {
	rows      []valueRow
	size, max int64
}

func (b *Backend) keep() keeper {
	if l := b.limits.Load().Memory; l > 0 {
		return keeper{max: l}
	}
	return keeper{max: maxKept}
}

func (k *keeper) add(r valueRow) error {
	k.size += 24 + int64(len(r))*int64(valueSize)
	for i := range r {
		k.size += int64(cap(r[i].Bytes))
	}
	if k.size > k.max {
		n := len(k.rows)
		k.rows = nil
		return &sqlapi.Error{Code: "53200", Message: "out of memory: the result is too large to be kept",
			Detail: fmt.Sprintf("After %d rows it takes more than %d MB.", n, k.max>>20), Hint: "STMT_MEM_LIMIT of dm.ini is the limit. Fetch in smaller parts."}
	}
	k.rows = append(k.rows, r)
	return nil
}

// valueSize is the size of an sqlapi.Value.
const valueSize = 56

// undo ends a writing statement in its middle so that it changes nothing:
// SQLite would commit what it has done so far. In a transaction it is the
// transaction that is undone, by whoever gets the error.
func (c *conn) undo(cs *cstmt) {
	if !c.db.GetAutocommit() {
		c.done(cs)
		c.old = true // a common transaction must not be committed
		return
	}
	c.db.CommitHook(func() bool { return false })
	c.done(cs)
	c.db.CommitHook(nil)
}
