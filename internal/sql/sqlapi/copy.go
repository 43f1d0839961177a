package sqlapi

import "context"

// Copy says that a portal is COPY, and how its data looks.
type Copy struct {
	In      bool     // FROM STDIN; otherwise TO STDOUT
	Columns []Column // of a line of data, in order

	Binary        bool // everything below is for the others
	CSV           bool
	Delimiter     byte
	Null          string
	Header, Match bool // a first line with the names, and whether they must be those of Columns
	Quote, Escape byte // CSV only
}

// Copier is implemented by portals that may be COPY. COPY TO STDOUT is run by
// Portal.Run, whose rows have Copy().Columns; COPY FROM STDIN by CopyIn.
type Copier interface {
	// Copy is nil for a portal that is not COPY.
	Copy() *Copy
	// CopyIn stores the rows that next returns, all or none of them, until
	// next returns io.EOF (the tag is "COPY n") or another error, which becomes
	// that of the statement. Rows are valid until the following call. next
	// must return when its context ends: the client cancelled, the session is
	// terminated, a limit was reached.
	CopyIn(ctx context.Context, next func(ctx context.Context) ([]Value, error)) (tag string, err error)
}
