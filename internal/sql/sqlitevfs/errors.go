package sqlitevfs

import "datawatch/internal/storage/pagestore"

// Errors of the store that SQLite has numbers of its own for.
var (
	ErrBusySnapshot = pagestore.ErrBusySnapshot
	ErrBusy         = pagestore.ErrBusy
	ErrReadOnly     = pagestore.ErrReadOnly
	ErrNotOwner     = pagestore.ErrNotOwner
	ErrShortRead    = pagestore.ErrShortRead
)

var _ Handle = (*pagestore.Handle)(nil)
