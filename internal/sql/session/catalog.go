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
		Users:    c.userNames,
		Hidden:   systemTable,
	})
}

// userNames lists the users, the first administrator first.
func (c *conn) userNames(*sqlite3.Conn) []string {
	names := []string{DefaultUser}
	a, err := c.access(false)
	if err != nil {
		return names
	}
	for _, r := range a.byID {
		if r.id != sysdbaID {
			names = append(names, r.name)
		}
	}
	return names
}
