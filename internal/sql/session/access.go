package session

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ncruces/go-sqlite3"
)

// Who may do what, as it is in the database at one moment. It lives in four
// tables that only the server reads and writes, and so it is replicated, backed
// up and recovered like any data:
//
//	SYSUSERS   users and roles
//	SYSMEMBERS who is a member of which role
//	SYSOWNERS  owners of tables and views; SYSDBA's have no row
//	SYSGRANTS  privileges
//
// Every change to them changes the schema cookie as well, in the same
// transaction. SQLite compares the cookie whenever a statement starts on a
// snapshot, on a primary as on a standby: a statement that was permitted before
// a REVOKE is compiled, and asked for, again on the first snapshot that has
// the REVOKE.
const (
	userTable   = "SYSUSERS"
	memberTable = "SYSMEMBERS"
	ownerTable  = "SYSOWNERS"
	grantTable  = "SYSGRANTS"
)

// systemTable reports the server's own tables.
func systemTable(name string) bool {
	switch strings.ToUpper(name) {
	case userTable, memberTable, ownerTable, grantTable, seqTable, commentTable:
		return true
	}
	return false
}

// Numbers of the roles that every database has. Others count from firstID.
const (
	publicID   = 0 // everybody
	sysdbaID   = 10
	dbaID      = 11 // may do everything
	resourceID = 12 // may create tables and views
	vtiID      = 13 // may read every V$ view
	firstID    = 16384
)

// privs is a set of privileges on a table, or on the schema.
type privs uint16

const (
	privSelect privs = 1 << iota
	privInsert
	privUpdate
	privDelete
	privTruncate
	privReferences
	privCreate // on the schema
	privUsage  // on the schema

	tablePrivs  = privSelect | privInsert | privUpdate | privDelete | privTruncate | privReferences
	columnPrivs = privSelect | privInsert | privUpdate | privReferences
	schemaPrivs = privCreate | privUsage
)

// privNames are the privileges in the order of their bits.
var privNames = []string{"SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "CREATE", "USAGE"}

func (p privs) names() (out []string) {
	for i, n := range privNames {
		if p&(1<<i) != 0 {
			out = append(out, n)
		}
	}
	return out
}

func privOf(name string) privs {
	for i, n := range privNames {
		if n == name {
			return 1 << i
		}
	}
	return 0
}

// schemaRel is what SYSGRANTS calls the schema public.
const schemaRel = ".public"

// role is a user or role.
type role struct {
	id          int64
	name        string
	login       bool
	inherit     bool
	verifier    string
	isDefault   bool // the password is the initial one
	connLimit   int  // -1: none
	validUntil  string
	locked      bool
	unlocks     int64 // how often it was unlocked
	failedLimit int   // -1: FAILED_LOGIN_ATTEMPTS of dm.ini
	lockMinutes int   // -1: PASSWORD_LOCK_TIME of dm.ini
}

// expired reports a password whose VALID UNTIL has passed.
func (r *role) expired(now time.Time) bool {
	if r.validUntil == "" || r.validUntil == "infinity" {
		return false
	}
	t, err := parseUntil(r.validUntil)
	return err != nil || !now.Before(t)
}

// membership: member is in role; with admin it may let others in.
type membership struct {
	role, member, grantor int64
	admin                 bool
}

// grant is one privilege that one role gave another.
type grant struct {
	rel, col         string // lower case; col "" for the whole table
	grantee, grantor int64
	priv             privs
	option           bool
}

// definition is a view or trigger: code that runs with its owner's rights.
type definition struct {
	name  string
	table string // of a trigger
	words *words
}

// roles are users and memberships.
type roles struct {
	byID    map[int64]*role
	byName  map[string]*role // lower case
	members []membership
	legacy  bool // of the first version: there are no owners yet

	mu      sync.Mutex
	closure map[int64]map[int64]bool // roles whose privileges one has, itself among them
}

// access is the whole of it.
type access struct {
	cookie uint32
	*roles
	*relations
}

// relations are owners, privileges and definitions.
type relations struct {
	owners    map[string]int64              // without SYSDBA's
	grants    []grant                       //
	byRel     map[string]map[int64]*privSet //
	names     map[string]string             // tables and views: lower case -> as written
	views     map[string]*definition
	triggers  map[string]*definition
	byTable   map[string][]*definition // triggers
	sequences map[string]string        // by name: the table whose column each belongs to, or ""
	ctes      map[string]bool          // names of WITH queries in definitions
	comments  bool                     // there is a table of comments
}

// privSet is what one role was granted on one table.
type privSet struct {
	table, option privs
	cols          map[string]privs
	colOption     map[string]privs
}

// load reads everything. The connection is in a transaction, and internal.
func loadRoles(db *sqlite3.Conn) (*roles, error) {
	r := &roles{byID: map[int64]*role{}, byName: map[string]*role{}, closure: map[int64]map[int64]bool{}}
	add := func(x *role) { r.byID[x.id], r.byName[lower(x.name)] = x, x }
	legacy, err := legacyUsers(db)
	if err != nil {
		return nil, err
	}
	if r.legacy = legacy; legacy {
		// Of a database made before there were roles: every user administers.
		found, err := rowsOf(db, "SELECT NAME, VERIFIER, IS_DEFAULT FROM main."+userTable+" ORDER BY NAME")
		if err != nil {
			return nil, err
		}
		for _, x := range builtinRoles() {
			add(x)
		}
		for i, u := range found {
			id := int64(firstID + i)
			if u[0] == DefaultUser {
				id = sysdbaID
			}
			add(&role{id: id, name: u[0], login: true, inherit: true, verifier: u[1], isDefault: u[2] == "1", connLimit: -1, failedLimit: -1, lockMinutes: -1})
			r.members = append(r.members, membership{role: dbaID, member: id, grantor: sysdbaID, admin: true})
		}
		return r, nil
	}
	found, err := rowsOf(db, "SELECT ID, NAME, LOGIN, INHERIT, VERIFIER, IS_DEFAULT, CONN_LIMIT, VALID_UNTIL, LOCKED, UNLOCKS, FAILED_LIMIT, LOCK_MINUTES FROM main."+userTable)
	if err != nil {
		return nil, err
	}
	for _, u := range found {
		n := func(i int) int64 { v, _ := strconv.ParseInt(u[i], 10, 64); return v }
		add(&role{id: n(0), name: u[1], login: n(2) != 0, inherit: n(3) != 0, verifier: u[4], isDefault: n(5) != 0, connLimit: int(n(6)),
			validUntil: u[7], locked: n(8) != 0, unlocks: n(9), failedLimit: int(n(10)), lockMinutes: int(n(11))})
	}
	found, err = rowsOf(db, "SELECT ROLE, MEMBER, GRANTOR, ADMIN FROM main."+memberTable+" ORDER BY 1, 2")
	if err != nil {
		return nil, err
	}
	for _, m := range found {
		n := func(i int) int64 { v, _ := strconv.ParseInt(m[i], 10, 64); return v }
		r.members = append(r.members, membership{role: n(0), member: n(1), grantor: n(2), admin: n(3) != 0})
	}
	return r, nil
}

// legacyUsers reports a table of users of the first format.
func legacyUsers(db *sqlite3.Conn) (bool, error) {
	found, err := rowsOf(db, "SELECT name FROM pragma_table_xinfo(?1, 'main')", userTable)
	if err != nil {
		return false, err
	}
	for _, f := range found {
		if f[0] == "ID" {
			return false, nil
		}
	}
	if len(found) == 0 {
		return false, fmt.Errorf("the table %s is missing: this database was not made by dminit", userTable)
	}
	return true, nil
}

func builtinRoles() []*role {
	var out []*role
	for id, name := range map[int64]string{dbaID: "DBA", resourceID: "RESOURCE", vtiID: "VTI"} {
		out = append(out, &role{id: id, name: name, inherit: true, connLimit: -1, failedLimit: -1, lockMinutes: -1})
	}
	return out
}

func loadRelations(db *sqlite3.Conn) (*relations, error) {
	r := &relations{owners: map[string]int64{}, byRel: map[string]map[int64]*privSet{}, names: map[string]string{}, views: map[string]*definition{},
		triggers: map[string]*definition{}, byTable: map[string][]*definition{}, ctes: map[string]bool{}, sequences: map[string]string{}}
	found, err := rowsOf(db, "SELECT type, name, tbl_name, CASE WHEN type IN ('view', 'trigger') THEN sql END FROM main.sqlite_schema WHERE type <> 'index'")
	if err != nil {
		return nil, err
	}
	have := map[string]bool{}
	for _, f := range found {
		n := lower(f[1])
		if f[0] == "table" || f[0] == "view" {
			r.names[n] = f[1]
			have[strings.ToUpper(f[1])] = true
		}
		if f[0] == "table" {
			continue
		}
		d := &definition{name: n, table: lower(f[2]), words: wordsOf(f[3])}
		for c := range d.words.ctes {
			r.ctes[c] = true
		}
		if f[0] == "view" {
			r.views[n] = d
		} else {
			r.triggers[n] = d
			r.byTable[d.table] = append(r.byTable[d.table], d)
		}
	}
	r.comments = have[commentTable]
	if have[seqTable] {
		if found, err = rowsOf(db, "SELECT NAME, coalesce(OWNER_TABLE, '') FROM main."+seqTable); err != nil {
			return nil, err
		}
		for _, f := range found {
			r.sequences[lower(f[0])] = lower(f[1])
		}
	}
	if !have[ownerTable] {
		return r, nil
	}
	if found, err = rowsOf(db, "SELECT REL, OWNER FROM main."+ownerTable); err != nil {
		return nil, err
	}
	for _, f := range found {
		r.owners[f[0]], _ = strconv.ParseInt(f[1], 10, 64)
	}
	if found, err = rowsOf(db, "SELECT REL, COL, GRANTEE, GRANTOR, PRIV, OPT FROM main."+grantTable+" ORDER BY 1, 2, 3, 4, 5"); err != nil {
		return nil, err
	}
	for _, f := range found {
		n := func(i int) int64 { v, _ := strconv.ParseInt(f[i], 10, 64); return v }
		r.addGrant(grant{rel: f[0], col: f[1], grantee: n(2), grantor: n(3), priv: privOf(f[4]), option: n(5) != 0})
	}
	return r, nil
}

func (r *relations) addGrant(g grant) {
	r.grants = append(r.grants, g)
	m := r.byRel[g.rel]
	if m == nil {
		m = map[int64]*privSet{}
		r.byRel[g.rel] = m
	}
	s := m[g.grantee]
	if s == nil {
		s = &privSet{cols: map[string]privs{}, colOption: map[string]privs{}}
		m[g.grantee] = s
	}
	if g.col != "" {
		s.cols[g.col] |= g.priv
		if g.option {
			s.colOption[g.col] |= g.priv
		}
		return
	}
	s.table |= g.priv
	if g.option {
		s.option |= g.priv
	}
}

// owner of a table, view or trigger.
func (r *relations) owner(rel string) int64 {
	if id, ok := r.owners[rel]; ok {
		return id
	}
	if t := r.sequences[rel]; t != "" {
		return r.owner(t)
	}
	return sysdbaID
}

// definitionOwner is whose rights a view or trigger has.
func (r *relations) definitionOwner(d *definition) int64 {
	if r.views[d.name] == d {
		return r.owner(d.name)
	}
	return r.owner(d.table)
}

// has is every role whose privileges id has: itself, and what it inherits.
func (r *roles) has(id int64) map[int64]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.closure[id]; c != nil {
		return c
	}
	c := map[int64]bool{}
	if r.byID[id] != nil {
		r.collect(id, c, true)
	}
	r.closure[id] = c
	return c
}

// collect adds id and the roles above it; inherited: only those whose
// privileges need no SET ROLE.
func (r *roles) collect(id int64, into map[int64]bool, inherited bool) {
	if into[id] {
		return
	}
	into[id] = true
	if x := r.byID[id]; inherited && (x == nil || !x.inherit) {
		return
	}
	for _, m := range r.members {
		if m.member == id {
			r.collect(m.role, into, inherited)
		}
	}
}

// memberOf reports membership of any depth, inherited or not.
func (r *roles) memberOf(id, of int64) bool {
	c := map[int64]bool{}
	r.collect(id, c, false)
	return c[of]
}

// dba reports an administrator: SYSDBA, and whoever has the role DBA.
func (r *roles) dba(id int64) bool {
	return id == sysdbaID && r.byID[id] != nil || r.has(id)[dbaID]
}

// find is a role by name.
func (r *roles) find(name string) *role { return r.byName[lower(name)] }

func (r *roles) nameOf(id int64) string {
	if x := r.byID[id]; x != nil {
		return x.name
	}
	if id == publicID {
		return "PUBLIC"
	}
	return fmt.Sprintf("unknown (OID=%d)", id)
}

// granted is what id may do with a table as a whole.
func (a *access) granted(id int64, rel string) (may privs) {
	if a.owns(id, rel) {
		return tablePrivs | schemaPrivs // USAGE is of sequences, too
	}
	for g, s := range a.byRel[rel] {
		if g == publicID || a.has(id)[g] {
			may |= s.table
		}
	}
	return may
}

// grantedColumn is what id may do with a column.
func (a *access) grantedColumn(id int64, rel, col string) (may privs) {
	for g, s := range a.byRel[rel] {
		if g == publicID || a.has(id)[g] {
			may |= s.cols[col]
		}
	}
	return may | a.granted(id, rel)
}

// grantedAny is what id may do with at least one column.
func (a *access) grantedAny(id int64, rel string) (may privs) {
	for g, s := range a.byRel[rel] {
		if g == publicID || a.has(id)[g] {
			for _, p := range s.cols {
				may |= p
			}
		}
	}
	return may | a.granted(id, rel)
}

// owns reports an owner, a member of the owner, or an administrator.
func (a *access) owns(id int64, rel string) bool {
	if a.dba(id) {
		return true
	}
	return rel != schemaRel && a.has(id)[a.owner(rel)]
}

// mayCreate reports the right to create tables and views.
func (a *access) mayCreate(id int64) bool {
	return a.has(id)[resourceID] || a.granted(id, schemaRel)&privCreate != 0
}
