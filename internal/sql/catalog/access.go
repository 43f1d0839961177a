package catalog

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"unicode"

	"github.com/ncruces/go-sqlite3"
)

// Access is who may do what, as the session layer decides it.
type Access struct {
	Roles   []Role       // by number
	Members []Membership // by role
	Grants  []Grant      // by table
	Me      int64        // whose rights the session has

	Owner func(rel string) int64
	// May reports a privilege of a role on a table; col "" is the whole table, "*"
	// any column. option: the right to grant it.
	May func(role int64, rel, col, priv string, option bool) bool
	// Member reports membership of any depth; usage: without SET ROLE.
	Member func(id, role int64, usage bool) bool
}

// Role is a user or role.
type Role struct {
	ID                    int64
	Name                  string
	Super, Inherit, Login bool
	ConnLimit             int
	ValidUntil            any // nil or text
}

// Membership: Member is in Role.
type Membership struct {
	Role, Member, Grantor int64
	Admin                 bool
}

// Grant is a privilege that was granted on a table or a column. The schema
// public is SchemaPublic.
type Grant struct {
	Rel, Col         string // lower case
	Grantee, Grantor int64  // Grantee 0: everybody
	Priv             string // upper case
	Option           bool
}

// SchemaPublic is the Rel of grants on the schema.
const SchemaPublic = ".public"

func (s *snapshot) role(id int64) *Role {
	for i := range s.acc.Roles {
		if s.acc.Roles[i].ID == id {
			return &s.acc.Roles[i]
		}
	}
	return nil
}

func (s *snapshot) roleName(id int64) string {
	if r := s.role(id); r != nil {
		return r.Name
	}
	return "unknown (OID=" + strconv.FormatInt(id, 10) + ")"
}

// owner is whose the database and its schemas are.
func (s *snapshot) owner() string { return s.roleName(ownerOID) }

// ownerID is the owner of a relation: that of its table for an index; temporary
// tables are the session's.
func (s *snapshot) ownerID(r *relation) int64 {
	switch {
	case r.parent != nil:
		return s.ownerID(r.parent)
	case r.schema == "temp":
		return s.acc.Me
	}
	return s.acc.Owner(strings.ToLower(r.name))
}

func (s *snapshot) ownerName(r *relation) string { return s.roleName(s.ownerID(r)) }

var privLetters = map[string]string{"INSERT": "a", "SELECT": "r", "UPDATE": "w", "DELETE": "d", "TRUNCATE": "D", "REFERENCES": "x", "CREATE": "C", "USAGE": "U"}

const allLetters = "arwdDxCU"

// acl is the list of privileges on a table or column as PostgreSQL writes it;
// nil when nothing was granted.
func (s *snapshot) acl(rel, col string, owner int64, all string) any {
	type key struct{ grantee, grantor int64 }
	m := map[key]map[string]string{}
	var keys []key
	for _, g := range s.acc.Grants {
		if g.Rel != rel || g.Col != col {
			continue
		}
		k := key{g.Grantee, g.Grantor}
		if m[k] == nil {
			m[k] = map[string]string{}
			keys = append(keys, k)
		}
		l := privLetters[g.Priv]
		m[k][l] = l
		if g.Option {
			m[k][l] = l + "*"
		}
	}
	if len(keys) == 0 {
		return nil
	}
	sort.Slice(keys, func(i, j int) bool {
		return keys[i].grantee < keys[j].grantee || keys[i].grantee == keys[j].grantee && keys[i].grantor < keys[j].grantor
	})
	var out []string
	if all != "" {
		out = append(out, aclName(s.roleName(owner))+"="+all+"/"+aclName(s.roleName(owner)))
	}
	for _, k := range keys {
		to := ""
		if k.grantee != 0 {
			to = aclName(s.roleName(k.grantee))
		}
		letters := ""
		for _, l := range allLetters {
			letters += m[k][string(l)]
		}
		out = append(out, to+"="+letters+"/"+aclName(s.roleName(k.grantor)))
	}
	return "{" + strings.Join(out, ",") + "}"
}

// aclName quotes a name in a list of privileges where it must be.
func aclName(n string) string {
	if strings.ContainsFunc(n, func(c rune) bool { return c != '_' && !unicode.IsLetter(c) && !unicode.IsDigit(c) }) {
		return `\"` + n + `\"`
	}
	return n
}

func (s *snapshot) relACL(r *relation) any {
	switch {
	case r.schema == "temp" || r.kind == "i":
		return nil
	case r.kind == "S":
		return s.acl(strings.ToLower(r.name), "", s.ownerID(r), "rwU")
	}
	return s.acl(strings.ToLower(r.name), "", s.ownerID(r), "arwdDx")
}

func (s *snapshot) columnACL(r *relation, col string) any {
	if r.schema == "temp" || r.kind == "i" {
		return nil
	}
	return s.acl(strings.ToLower(r.name), strings.ToLower(col), s.ownerID(r), "")
}

func pgNamespace(s *snapshot) [][]any {
	o := aclName(s.owner())
	acl := "{" + o + "=UC/" + o + ",=U/" + o
	if more, ok := s.acl(SchemaPublic, "", ownerOID, "").(string); ok {
		acl += "," + strings.Trim(more, "{}")
	}
	return [][]any{row(nsCatalog, "pg_catalog", ownerOID, nil), row(nsPublic, "public", ownerOID, acl+"}"),
		row(nsInfo, "information_schema", ownerOID, nil), row(nsTemp, "pg_temp", ownerOID, nil)}
}

func pgRoles(s *snapshot) (out [][]any) {
	for _, r := range s.acc.Roles {
		out = append(out, row(r.ID, r.Name, r.Super, r.Inherit, r.Super, r.Super, r.Login, false, r.ConnLimit, "********", r.ValidUntil, r.Super, nil))
	}
	return out
}

func pgUser(s *snapshot) (out [][]any) {
	for _, r := range s.acc.Roles {
		if r.Login {
			out = append(out, row(r.Name, r.ID, r.Super, r.Super, false, r.Super, "********", r.ValidUntil, nil))
		}
	}
	return out
}

func pgAuthMembers(s *snapshot) (out [][]any) {
	for _, m := range s.acc.Members {
		out = append(out, row(m.Role, m.Member, m.Grantor, m.Admin))
	}
	return out
}

// visible reports a relation on which the session has any privilege: the
// information schema shows no others.
func (s *snapshot) visible(r *relation) bool {
	if r.schema == "temp" {
		return true
	}
	for _, p := range []string{"SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "USAGE"} {
		if s.acc.May(s.acc.Me, strings.ToLower(r.name), "*", p, false) {
			return true
		}
	}
	return false
}

// infoGrants lists privileges on tables: those of owners, which need no grant,
// and those granted.
func infoGrants(s *snapshot) (out [][]any) {
	add := func(grantor, grantee int64, r *relation, priv string, option bool) {
		if grantee == 0 || s.acc.Member(s.acc.Me, grantee, true) || s.acc.Member(s.acc.Me, grantor, true) || s.acc.Member(s.acc.Me, s.ownerID(r), true) {
			to := "PUBLIC"
			if grantee != 0 {
				to = s.roleName(grantee)
			}
			out = append(out, row(s.roleName(grantor), to, s.database, "public", r.name, priv, yes(option), yes(priv == "SELECT")))
		}
	}
	for _, r := range s.rels {
		if r.schema == "temp" || r.kind != "r" && r.kind != "v" {
			continue
		}
		o := s.ownerID(r)
		for _, p := range []string{"INSERT", "SELECT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES"} {
			add(o, o, r, p, true)
		}
		for _, g := range s.acc.Grants {
			if g.Col == "" && strings.EqualFold(g.Rel, r.name) {
				add(g.Grantor, g.Grantee, r, g.Priv, g.Option)
			}
		}
	}
	return out
}

func infoColumnGrants(s *snapshot) (out [][]any) {
	for _, r := range s.rels {
		for _, g := range s.acc.Grants {
			if g.Col == "" || !strings.EqualFold(g.Rel, r.name) || r.schema == "temp" || r.number(g.Col) == 0 {
				continue
			}
			if g.Grantee == 0 || s.acc.Member(s.acc.Me, g.Grantee, true) || s.acc.Member(s.acc.Me, s.ownerID(r), true) {
				to := "PUBLIC"
				if g.Grantee != 0 {
					to = s.roleName(g.Grantee)
				}
				out = append(out, row(s.roleName(g.Grantor), to, s.database, "public", r.name, r.columns[r.number(g.Col)-1].name, g.Priv, yes(g.Option)))
			}
		}
	}
	return out
}

func infoApplicable(s *snapshot) (out [][]any) {
	for _, m := range s.acc.Members {
		if s.acc.Member(s.acc.Me, m.Member, false) {
			out = append(out, row(s.roleName(m.Member), s.roleName(m.Role), yes(m.Admin)))
		}
	}
	return out
}

func infoEnabled(s *snapshot) (out [][]any) {
	for _, r := range s.acc.Roles {
		if s.acc.Member(s.acc.Me, r.ID, true) {
			out = append(out, row(r.Name))
		}
	}
	return out
}

// who reads a role given by name or number.
func (s *snapshot) who(v sqlite3.Value) (int64, error) {
	if v.Type() == sqlite3.INTEGER {
		return v.Int64(), nil
	}
	if strings.EqualFold(v.Text(), "public") {
		return 0, nil
	}
	for _, r := range s.acc.Roles {
		if strings.EqualFold(r.Name, v.Text()) {
			return r.ID, nil
		}
	}
	return 0, fmt.Errorf("role %q does not exist", v.Text())
}

// rel reads a relation given by name or number.
func (s *snapshot) rel(v sqlite3.Value) (*relation, error) {
	if v.Type() == sqlite3.INTEGER {
		return s.byOID[v.Int64()], nil
	}
	name := v.Text()
	for _, prefix := range []string{"public.", `"public".`, "main."} {
		name = strings.TrimPrefix(name, prefix)
	}
	if len(name) > 1 && name[0] == '"' && name[len(name)-1] == '"' {
		name = strings.ReplaceAll(name[1:len(name)-1], `""`, `"`)
	}
	for _, r := range s.rels {
		if strings.EqualFold(r.name, name) && r.kind != "i" {
			return r, nil
		}
	}
	return nil, fmt.Errorf("no such table: %s", v.Text())
}

// privilege is one of the has_..._privilege functions; n is the number of
// arguments without the user, who may come first.
func (s *state) privilege(n int, check func(snap *snapshot, who int64, a []sqlite3.Value, priv string, option bool) (any, error)) sqlite3.ScalarFunction {
	return func(ctx sqlite3.Context, a ...sqlite3.Value) {
		for _, v := range a {
			if v.Type() == sqlite3.NULL {
				return
			}
		}
		snap, err := s.get()
		if err == nil && len(a) != n && len(a) != n+1 {
			err = fmt.Errorf("wrong number of arguments to a function that checks privileges: %d", len(a))
		}
		var who int64
		if err == nil {
			if who = snap.acc.Me; len(a) > n {
				who, err = snap.who(a[0])
				a = a[1:]
			}
		}
		if err != nil {
			ctx.ResultError(err)
			return
		}
		var out any = false
		for _, p := range strings.Split(a[n-1].Text(), ",") {
			p, option := strings.CutSuffix(strings.ToUpper(strings.TrimSpace(p)), " WITH GRANT OPTION")
			v, err := check(snap, who, a, strings.TrimSpace(p), option)
			if err != nil {
				ctx.ResultError(err)
				return
			}
			if v == nil {
				return
			}
			if v == true {
				out = true
			}
		}
		result(ctx, out)
	}
}

func badPrivilege(p string) error { return fmt.Errorf("unrecognized privilege type: %q", p) }

// onRelation checks a privilege on a relation; col as in Access.May.
func onRelation(snap *snapshot, who int64, rel sqlite3.Value, col, priv string, option bool) (any, error) {
	if privLetters[priv] == "" && priv != "TRIGGER" {
		return nil, badPrivilege(priv)
	}
	r, err := snap.rel(rel)
	if err != nil || r == nil {
		return nil, err
	}
	if r.schema == "temp" {
		return who == snap.acc.Me, nil
	}
	if priv == "TRIGGER" {
		return snap.acc.Member(who, snap.ownerID(r), true), nil
	}
	return snap.acc.May(who, strings.ToLower(r.name), strings.ToLower(col), priv, option), nil
}

// privilegeFunctions are has_table_privilege and its like.
func (s *state) privilegeFunctions() map[string]sqlite3.ScalarFunction {
	table := s.privilege(2, func(n *snapshot, who int64, a []sqlite3.Value, p string, option bool) (any, error) {
		return onRelation(n, who, a[0], "", p, option)
	})
	return map[string]sqlite3.ScalarFunction{
		"has_table_privilege": table, "has_sequence_privilege": table,
		"has_any_column_privilege": s.privilege(2, func(n *snapshot, who int64, a []sqlite3.Value, p string, option bool) (any, error) {
			return onRelation(n, who, a[0], "*", p, option)
		}),
		"has_column_privilege": s.privilege(3, func(n *snapshot, who int64, a []sqlite3.Value, p string, option bool) (any, error) {
			col := a[1].Text()
			r, err := n.rel(a[0])
			if err != nil || r == nil {
				return nil, err
			}
			if a[1].Type() == sqlite3.INTEGER {
				i := a[1].Int64()
				if i < 1 || i > int64(len(r.columns)) {
					return nil, nil
				}
				col = r.columns[i-1].name
			} else if r.number(col) == 0 {
				return nil, fmt.Errorf("no such column: %s", col)
			}
			return onRelation(n, who, a[0], col, p, option)
		}),
		"has_schema_privilege": s.privilege(2, func(n *snapshot, who int64, a []sqlite3.Value, p string, option bool) (any, error) {
			switch p {
			case "USAGE":
				return true, nil
			case "CREATE":
				if name := a[0].Text(); name != "public" && name != strconv.Itoa(nsPublic) {
					return false, nil
				}
				return n.acc.May(who, SchemaPublic, "", "CREATE", option), nil
			}
			return nil, badPrivilege(p)
		}),
		"has_database_privilege": s.privilege(2, func(n *snapshot, who int64, _ []sqlite3.Value, p string, _ bool) (any, error) {
			switch p {
			case "CONNECT", "TEMP", "TEMPORARY":
				return true, nil
			case "CREATE":
				return n.acc.Member(who, ownerOID, true), nil
			}
			return nil, badPrivilege(p)
		}),
		"pg_has_role": s.privilege(2, func(n *snapshot, who int64, a []sqlite3.Value, p string, _ bool) (any, error) {
			role, err := n.who(a[0])
			if err != nil {
				return nil, err
			}
			switch p {
			case "MEMBER":
				return n.acc.Member(who, role, false), nil
			case "USAGE", "SET":
				return n.acc.Member(who, role, p == "USAGE"), nil
			}
			return nil, badPrivilege(p)
		}),
	}
}
