package session

import (
	"github.com/ncruces/go-sqlite3"

	"datawatch/internal/sql/catalog"
)

// catalog registers the stand-ins for PostgreSQL's catalog.
func (c *conn) catalog() error {
	return catalog.Register(c.db, catalog.Host{
		Stamp: func() uint64 {
			s := c.sess.Load()
			if s == nil {
				return 0
			}
			s.smu.Lock()
			defer s.smu.Unlock()
			return uint64(s.id)<<40 | s.statements&(1<<40-1)
		},
		Internal: func(fn func() error) error {
			rec, was := c.rec, c.internal
			c.internal = true
			defer func() { c.rec, c.internal = rec, was }()
			return fn()
		},
		Database: func() string { return c.b.cfg.DatabaseName },
		Users:    userNames,
		Hidden:   systemTable,
	})
}

// userNames lists the users, the first administrator first.
func userNames(db *sqlite3.Conn) []string {
	names := []string{DefaultUser}
	st, _, err := db.Prepare("SELECT NAME FROM main." + userTable + " WHERE NAME <> '" + DefaultUser + "' ORDER BY NAME")
	if err != nil {
		return names // without a database
	}
	defer st.Close()
	for st.Step() {
		names = append(names, st.ColumnText(0))
	}
	return names
}
