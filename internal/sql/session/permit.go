package session

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"datawatch/internal/sql/sqlapi"
)

// Judging what a statement touches. The rules:
//
//   - What a statement names itself it does with the rights of the session's
//     role. What a view reads, and a trigger does, is done with the rights of
//     the owner of the view, or of the trigger's table, whoever uses it: an
//     administrator's rights are of no use to somebody else's trigger.
//   - SQLite tells in which view or trigger something happens by a name, which a
//     WITH query, a temporary object or a trigger and a view of one name can
//     imitate, and after flattening a subquery it tells nothing. Where the name
//     does not decide, the words do: a table can only have been named by a text
//     that holds its name. Then everyone who may have named it must have the
//     right.
//   - A table that nobody named is touched by a foreign key.

// access is who may do what, as the connection's next statement will find it.
// Without full it may lack owners and privileges.
func (c *conn) access(full bool) (*access, error) {
	switch {
	case c.kind == emptyConn:
		return c.b.access()
	case c.dirty: // changes that only this transaction sees
		if c.mine == nil {
			a, err := c.load(nil, full)
			if err != nil {
				return nil, err
			}
			c.mine = a
		} else if c.mine.relations == nil && full {
			a, err := c.load(c.mine.roles, true)
			if err != nil {
				return nil, err
			}
			c.mine = a
		}
		return c.mine, nil
	}
	cookie, err := c.cookie()
	if err != nil {
		return nil, err
	}
	if c.known == nil || c.known.cookie != cookie {
		if a := c.b.shared.Load(); a != nil && a.cookie == cookie {
			c.known = a
			return a, nil
		}
		a, err := c.load(nil, true)
		if err != nil {
			return nil, err
		}
		c.known = a
		if old := c.b.shared.Load(); old == nil || int32(a.cookie-old.cookie) > 0 {
			c.b.shared.Store(a)
			c.b.dropStrangers(a)
		}
	}
	return c.known, nil
}

// changed notes that the transaction under way has changed the schema. Roles
// only change by statements about them, which forget everything.
func (c *conn) changed() {
	var r *roles
	if c.mine != nil {
		r = c.mine.roles
	} else if !c.dirty && c.known != nil {
		r = c.known.roles
	}
	c.ddl, c.dirty, c.mine = true, true, nil
	if r != nil {
		c.mine = &access{roles: r}
	}
}

// load reads the tables, on one snapshot.
func (c *conn) load(known *roles, full bool) (a *access, err error) {
	rec, was := c.rec, c.internal
	defer func() { c.rec, c.internal = rec, was }()
	c.internal = true
	if c.db.GetAutocommit() {
		if err := c.db.Exec("BEGIN"); err != nil {
			return nil, fmt.Errorf("read users: %w", err)
		}
		defer func() {
			if e := c.db.Exec("COMMIT"); err == nil && e != nil {
				err = fmt.Errorf("read users: %w", e)
			}
		}()
	}
	a = &access{roles: known}
	version, err := rowsOf(c.db, "PRAGMA main.schema_version")
	if err == nil && a.roles == nil {
		a.roles, err = loadRoles(c.db)
	}
	if err == nil && full {
		a.relations, err = loadRelations(c.db)
	}
	if err != nil {
		return nil, fmt.Errorf("read users: %w", err)
	}
	var n int32
	fmt.Sscan(version[0][0], &n)
	a.cookie = uint32(n)
	return a, nil
}

// access is the newest that is hardened.
func (b *Backend) access() (*access, error) {
	c, err := b.readers.get(context.Background())
	if err != nil {
		return nil, err
	}
	defer b.readers.put(c)
	return c.access(true)
}

// subject is the role whose rights a session has: the one of SET ROLE, as long
// as its user is a member of it, or its user.
func (a *access) subject(who uint64) (int64, error) {
	user, as := int64(who>>32), int64(who&0xffffffff)
	if a.byID[user] == nil {
		return 0, &sqlapi.Error{Code: "42501", Message: "the user of this session does not exist any more"}
	}
	if as == 0 {
		return user, nil
	}
	if a.byID[as] == nil || !a.dba(user) && !a.memberOf(user, as) {
		return 0, &sqlapi.Error{Code: "42501", Message: fmt.Sprintf("permission denied: %q is no longer a member of the role that it set", a.nameOf(user))}
	}
	return as, nil
}

// permit refuses a statement that the connection's session may not execute. A
// statement that was permitted once is permitted until it is compiled again.
func (c *conn) permit(cs *cstmt) error {
	s := c.sess.Load()
	if s == nil {
		return &sqlapi.Error{Code: "XX000", Message: "internal: a statement of no session"}
	}
	who := s.who.Load()
	if cs.who == who && !cs.rec.always {
		return nil
	}
	a, err := c.access(false)
	if err != nil {
		return err
	}
	id, err := a.subject(who)
	if err != nil {
		return err
	}
	cs.sequences = nil
	if !a.dba(id) || cs.rec.inner {
		if a.relations == nil {
			if a, err = c.access(true); err != nil {
				return err
			}
		}
		j := judge{access: a, id: id, cs: cs}
		if c.kind == writerConn && s.own == c {
			if err := j.temporary(c); err != nil {
				return err
			}
		}
		if err := j.all(); err != nil {
			return err
		}
	}
	cs.who = who
	return nil
}

// maySequence decides about nextval and the like while they run: the name of
// the sequence is a value.
func (c *conn) maySequence(function, name string) error {
	cs := c.running
	if cs == nil || len(cs.sequences) == 0 {
		return nil
	}
	a, err := c.access(true)
	if err != nil {
		return err
	}
	if _, ok := a.sequences[lower(name)]; !ok {
		return nil // there is none
	}
	want := map[string]privs{"nextval": privUsage | privUpdate, "currval": privUsage | privSelect, "setval": privUpdate}[function]
	for _, id := range cs.sequences {
		if a.granted(id, lower(name))&want != 0 || a.sequences[lower(name)] != "" && function != "setval" && a.grantedAny(id, a.sequences[lower(name)])&privInsert != 0 {
			continue // the sequence of a column serves whoever may fill the column
		}
		return &sqlapi.Error{Code: "42501", Message: "permission denied for sequence " + name}
	}
	return nil
}

// judge decides about one statement.
type judge struct {
	*access
	id    int64
	cs    *cstmt
	text  *words // what the session wrote: the statement, temporary views and triggers
	temps map[string]bool
	extra []string // definitions of temporary objects
	reach []*definition
	flat  bool // rows were read through a view that SQLite does not name
}

// temporary looks at the session's temporary objects.
func (j *judge) temporary(c *conn) error {
	rec, was := c.rec, c.internal
	c.internal = true
	defer func() { c.rec, c.internal = rec, was }()
	found, err := rowsOf(c.db, "SELECT name, type, CASE WHEN type IN ('view', 'trigger') THEN sql ELSE '' END FROM temp.sqlite_temp_schema WHERE type <> 'index'")
	if err != nil {
		return err
	}
	j.temps = map[string]bool{}
	for _, f := range found {
		j.temps[lower(f[0])] = true
		j.extra = append(j.extra, f[2])
	}
	return nil
}

func (j *judge) words() *words {
	if j.text == nil {
		j.text = wordsOf(append([]string{j.cs.sql}, j.extra...)...)
	}
	return j.text
}

func (j *judge) all() error {
	rec := &j.cs.rec
	for i := range rec.uses {
		if err := j.one(&rec.uses[i]); err != nil {
			return err
		}
	}
	if rec.inner || j.flat {
		if err := j.hiddenViews(); err != nil {
			return err
		}
	}
	if len(rec.created)+len(rec.altered) > 0 && !j.dba(j.id) {
		return j.references(j.words(), rec.created)
	}
	return nil
}

// denied is PostgreSQL's answer.
func (j *judge) denied(rel string) error {
	kind := "table"
	if j.views[rel] != nil {
		kind = "view"
	}
	name := j.names[rel]
	if name == "" {
		name = rel
	}
	return &sqlapi.Error{Code: "42501", Message: "permission denied for " + kind + " " + name}
}

func (a *access) notOwner(rel string) error {
	kind := "table"
	if a.views[rel] != nil {
		kind = "view"
	}
	return &sqlapi.Error{Code: "42501", Message: "must be owner of " + kind + " " + a.names[rel]}
}

func (j *judge) one(u *use) error {
	rel := lower(u.table)
	switch u.op {
	case useAdmin:
		if u.table == "REINDEX" && len(j.cs.rec.uses) > 1 { // of CREATE INDEX
			return nil
		}
		if j.cs.rec.alters && strings.HasPrefix(u.table, ofSQLite) {
			return nil
		}
		if !j.dba(j.id) {
			return &sqlapi.Error{Code: "42501", Message: "permission denied for " + u.table}
		}
		return nil
	case useSeq:
		if d := j.definition(lower(u.inner)); u.inner != "" && d != nil && d.words.has(u.table) {
			j.cs.sequences = append(j.cs.sequences, j.definitionOwner(d))
			return nil
		}
		if j.words().has(u.table) || u.inner != "" {
			j.cs.sequences = append(j.cs.sequences, j.id)
		}
		for i := range j.cs.rec.uses { // the default of a column: with the rights of the table's owner
			if t := &j.cs.rec.uses[i]; t.op == useInsert && u.inner == "" {
				owner := j.id
				if t.schema != "temp" {
					owner = j.owner(lower(t.table))
				}
				j.cs.sequences = append(j.cs.sequences, owner)
			}
		}
		for _, d := range j.reachable() {
			if u.inner != "" && d.words.has(u.table) {
				j.cs.sequences = append(j.cs.sequences, j.definitionOwner(d))
			}
		}
		return nil
	case useCreate:
		if !j.mayCreate(j.id) && !j.dba(j.id) {
			return &sqlapi.Error{Code: "42501", Message: "permission denied for schema public",
				Hint: "Tables and views are made by members of RESOURCE or DBA, or after GRANT CREATE ON SCHEMA public."}
		}
		return nil
	case useOwn:
		if j.names[rel] != "" && !j.owns(j.id, rel) {
			return j.notOwner(rel)
		}
		return nil
	}
	if u.schema == "temp" || u.schema == "" && j.temps[rel] {
		return nil
	}
	if j.names[rel] == "" && slices.ContainsFunc(j.cs.rec.created, func(n string) bool { return lower(n) == rel }) {
		return nil // the checks of the table being made
	}
	for _, id := range j.subjects(u, rel) {
		if j.names[rel] == "" {
			if !j.mayRead(id, rel) {
				return &sqlapi.Error{Code: "42501", Message: "permission denied for view " + u.table}
			}
		} else if !j.may(id, u, rel) {
			return j.denied(rel)
		}
	}
	return nil
}

// mayRead decides about tables that are no tables: V$ views, catalogs, functions.
func (a *access) mayRead(id int64, name string) bool {
	switch name {
	case "v$instance", "v$database", "v$version", "generate_series", "json_each", "json_tree", "jsonb_each", "jsonb_tree":
		return true
	case "pg_stat_activity", "pg_locks", "pg_hba_file_rules", "pg_stat_statements", "pg_stat_replication":
		return a.dba(id) || a.has(id)[vtiID]
	case "pg_authid", "pg_shadow":
		return a.dba(id)
	}
	if strings.HasPrefix(name, "pg_") || strings.HasPrefix(name, "information_schema.") || strings.HasPrefix(name, "pragma_") {
		return true
	}
	return a.dba(id) || a.has(id)[vtiID]
}

// subjects are the roles that must all have the right to a use.
func (j *judge) subjects(u *use, rel string) []int64 {
	if u.inner == "" {
		if j.words().has(rel) {
			return []int64{j.id}
		}
	} else if d := j.definition(lower(u.inner)); d != nil && d.words.has(rel) {
		return []int64{j.definitionOwner(d)}
	}
	var out []int64
	if j.words().has(rel) {
		out = append(out, j.id)
	}
	for _, d := range j.reachable() {
		if d.words.has(rel) {
			out = append(out, j.definitionOwner(d))
			j.flat = j.flat || u.inner == ""
		}
	}
	if out == nil && !j.cs.rec.modifies {
		out = []int64{j.id}
	}
	return out
}

// definition is the view or trigger of a name, if nothing else can have it.
func (j *judge) definition(name string) *definition {
	v, t := j.views[name], j.triggers[name]
	if v != nil && t != nil || j.ctes[name] || j.temps[name] || j.words().ctes[name] {
		return nil
	}
	if v != nil {
		return v
	}
	return t
}

// reachable are the views and triggers that the statement may run.
func (j *judge) reachable() []*definition {
	if j.reach != nil {
		return j.reach
	}
	seen := map[*definition]bool{}
	add := func(d *definition) {
		if !seen[d] {
			seen[d] = true
			j.reach = append(j.reach, d)
		}
	}
	named := func(w *words) {
		for n := range w.all {
			if v := j.views[n]; v != nil {
				add(v)
			}
		}
	}
	named(j.words())
	for i := range j.cs.rec.uses {
		if u := &j.cs.rec.uses[i]; u.op == useInsert || u.op == useUpdate || u.op == useDelete {
			for _, t := range j.byTable[lower(u.table)] {
				add(t)
			}
		}
	}
	for i := 0; i < len(j.reach); i++ {
		named(j.reach[i].words)
	}
	return j.reach
}

// may decides about a table.
func (j *judge) may(id int64, u *use, rel string) bool {
	switch u.op {
	case useRead:
		if u.col == "" {
			return j.grantedAny(id, rel)&privSelect != 0
		}
		return j.grantedColumn(id, rel, lower(u.col))&privSelect != 0
	case useUpdate:
		return j.grantedColumn(id, rel, lower(u.col))&privUpdate != 0 && j.mayReplace(id, u, rel)
	case useDelete:
		if u.inner == "" && isTruncate(j.cs.sql, j.words()) {
			return j.granted(id, rel)&privTruncate != 0
		}
		return j.granted(id, rel)&privDelete != 0
	}
	if !j.mayReplace(id, u, rel) {
		return false
	}
	if j.granted(id, rel)&privInsert != 0 {
		return true
	}
	table, cols := j.words().insertColumns()
	if u.inner != "" || table != rel || len(cols) == 0 {
		return false
	}
	for _, c := range cols {
		if j.grantedColumn(id, rel, c)&privInsert == 0 {
			return false
		}
	}
	return true
}

// mayReplace: whoever replaces rows deletes them.
func (j *judge) mayReplace(id int64, u *use, rel string) bool {
	if u.inner != "" || j.granted(id, rel)&privDelete != 0 {
		return true
	}
	return !strings.Contains(strings.ToUpper(j.cs.sql), "REPLACE") || !j.words().replaces()
}

// truncateMark is how the dialect writes TRUNCATE.
const truncateMark = "DELETE /* TRUNCATE */ FROM "

func isTruncate(sql string, w *words) bool {
	return strings.Contains(sql, truncateMark) && (len(w.list) == 3 || len(w.list) == 5 && w.list[3] == ".")
}

// hiddenViews finds the views that SQLite did not report as read, because no
// column of theirs is used, and asks for the right to read them.
func (j *judge) hiddenViews() error {
	reported := map[string]bool{}
	for i := range j.cs.rec.uses {
		reported[lower(j.cs.rec.uses[i].table)] = true
	}
	var hidden []string
	for i := range j.cs.rec.uses {
		hidden = append(hidden, lower(j.cs.rec.uses[i].inner))
	}
	if j.flat {
		for _, d := range j.reachable() {
			hidden = append(hidden, d.name)
		}
	}
	for _, v := range hidden {
		if v == "" || reported[v] || j.views[v] == nil || j.temps[v] {
			continue
		}
		reported[v] = true
		if err := j.viewUse(v); err != nil {
			return err
		}
	}
	return nil
}

func (j *judge) viewUse(v string) error {
	if j.words().has(v) && j.grantedAny(j.id, v)&privSelect == 0 {
		return j.denied(v)
	}
	for _, d := range j.reachable() {
		if d.name != v && d.words.has(v) && j.grantedAny(j.definitionOwner(d), v)&privSelect == 0 {
			return j.denied(v)
		}
	}
	return nil
}

// references asks for the right to refer to other tables by foreign keys.
func (a *judge) references(w *words, created []string) error {
	return a.mayRefer(a.id, w, created)
}

func (a *access) mayRefer(id int64, w *words, created []string) error {
	for _, r := range w.references() {
		own := false
		for _, c := range created {
			own = own || lower(c) == r.table
		}
		switch {
		case own:
			continue
		case a.names[r.table] == "":
			return &sqlapi.Error{Code: "42P01", Message: fmt.Sprintf("relation %q does not exist", r.table)}
		case a.granted(id, r.table)&privReferences != 0, len(r.cols) == 0 && a.grantedAny(id, r.table)&privReferences != 0:
			continue
		}
		for _, c := range r.cols {
			if a.grantedColumn(id, r.table, c)&privReferences == 0 {
				return &sqlapi.Error{Code: "42501", Message: "permission denied for table " + a.names[r.table]}
			}
		}
		if len(r.cols) == 0 {
			return &sqlapi.Error{Code: "42501", Message: "permission denied for table " + a.names[r.table]}
		}
	}
	return nil
}
