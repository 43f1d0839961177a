package session

import (
	"cmp"
	"slices"
	"strings"

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
		Access:   c.catalogAccess,
		Hidden:   systemTable,
	})
}

// catalogAccess shows the catalog who may do what.
func (c *conn) catalogAccess() (*catalog.Access, error) {
	a, err := c.access(true)
	if err != nil {
		return nil, err
	}
	out := &catalog.Access{Owner: a.owner, May: a.mayGrantable, Member: a.inRole}
	if s := c.sess.Load(); s != nil {
		if out.Me, err = s.subject(a); err != nil {
			return nil, err
		}
	}
	for _, r := range a.byID {
		x := catalog.Role{ID: r.id, Name: r.name, Super: a.dba(r.id), Inherit: r.inherit, Login: r.login, ConnLimit: r.connLimit}
		if r.validUntil != "" {
			x.ValidUntil = r.validUntil
		}
		out.Roles = append(out.Roles, x)
	}
	slices.SortFunc(out.Roles, func(x, y catalog.Role) int { return cmp.Compare(x.ID, y.ID) })
	for _, m := range a.members {
		out.Members = append(out.Members, catalog.Membership{Role: m.role, Member: m.member, Grantor: m.grantor, Admin: m.admin})
	}
	for _, g := range a.grants {
		out.Grants = append(out.Grants, catalog.Grant{Rel: g.rel, Col: g.col, Grantee: g.grantee, Grantor: g.grantor, Priv: strings.Join(g.priv.names(), ""), Option: g.option})
	}
	return out, nil
}

// mayGrantable is catalog.Access.May.
func (a *access) mayGrantable(id int64, rel, col, priv string, option bool) bool {
	p := privOf(priv)
	if a.owns(id, rel) {
		return true
	}
	if !option {
		switch col {
		case "":
			return a.granted(id, rel)&p != 0
		case "*":
			return a.grantedAny(id, rel)&p != 0
		}
		return a.grantedColumn(id, rel, col)&p != 0
	}
	for g, s := range a.byRel[rel] {
		if !a.has(id)[g] {
			continue
		}
		if s.option&p != 0 || s.colOption[col]&p != 0 {
			return true
		}
	}
	return false
}

// inRole is catalog.Access.Member.
func (a *access) inRole(id, role int64, usage bool) bool {
	if usage {
		return a.has(id)[role] || a.dba(id)
	}
	return a.memberOf(id, role) || a.dba(id)
}
