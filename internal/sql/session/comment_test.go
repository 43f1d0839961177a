package session

import (
	"testing"

	"datawatch/internal/sql/sqlapi"
)

// TestComments: COMMENT ON, where it is shown, and that it follows what it is about.
func TestComments(t *testing.T) {
	e := newEnv(t)
	c := e.client()
	c.exec("create table t(id int primary key, a int, b int); create view v as select a from t; create sequence s")
	c.fails("comment on table nothing is 'x'", "42P01")
	c.fails("comment on view t is 'x'", "42809")
	c.fails("comment on column t.x is 'x'", "42703")
	c.fails("comment on column t is 'x'", "42601")
	c.fails("comment on table sysusers is 'x'", "42501")
	c.fails("comment on index i is 'x'", "0A000")
	c.fails("comment on table x.t is 'x'", "42601")
	c.is("comment on table t is null", "COMMENT")
	for _, x := range []string{"table public.t is 'the ''table'''", "column t.A is 'first'", "column public.t.b is 'second'", "view v is 'view'", "column v.a is 'of a view'", "sequence s is 'numbers'"} {
		c.is("comment on "+x, "COMMENT")
	}
	all := "select c.relname || '.' || d.objsubid || '=' || d.description from pg_description d join pg_class c on c.oid = d.objoid order by 1"
	c.is(all, "s.0=numbers t.0=the 'table' t.2=first t.3=second v.0=view v.1=of a view")
	c.is("select obj_description('t'::regclass, 'pg_class'), col_description('t'::regclass, 3), col_description('t'::regclass, 1), obj_description('s'::regclass)", "the 'table'|second|NULL|numbers")
	c.exec("comment on column t.a is 'changed'; comment on column t.b is ''; comment on sequence s is null; drop view v")
	c.is(all, "t.0=the 'table' t.2=changed")
	c.exec("alter table t rename column a to z; alter table t rename to u; alter table u alter column b type bigint")
	c.is(all, "u.0=the 'table' u.2=changed")
	c.exec("begin; comment on table u is 'undone'; rollback; alter table u drop column z")
	c.is(all, "u.0=the 'table'")
	c.exec("drop table u; create table u(id int)")
	c.is(all, "SELECT 0")
	c.exec("create user other identified by 'Secret_12345'")
	o := e.clientAs(sqlapi.Info{User: "OTHER"})
	o.fails("comment on table u is 'x'", "42501")
	o.fails("select * from syscomments", "42501")
}
