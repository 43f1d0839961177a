package catalog

import (
	"strings"

	"datawatch/internal/sql/dialect"
)

// table is a catalog table: its columns "name type, ..." and its rows as nil,
// int64, bool and string. An empty catalog of PostgreSQL has rows == nil.
type table struct {
	name, columns string
	rows          func(*snapshot) [][]any
}

// Names lists the tables, for documentation and tests.
func Names() []string {
	var out []string
	for _, t := range tables {
		out = append(out, t.name)
	}
	return out
}

var tables = []table{
	{"pg_class", `oid bigint, relname name, relnamespace bigint, reltype bigint, reloftype bigint, relowner bigint, relam bigint,
	relfilenode bigint, reltablespace bigint, relpages int, reltuples real, relallvisible int, reltoastrelid bigint, relhasindex boolean,
	relisshared boolean, relpersistence char(1), relkind char(1), relnatts smallint, relchecks smallint, relhasrules boolean,
	relhastriggers boolean, relhassubclass boolean, relrowsecurity boolean, relforcerowsecurity boolean, relispopulated boolean,
	relreplident char(1), relispartition boolean, relrewrite bigint, relfrozenxid bigint, relminmxid bigint, relacl text,
	reloptions text, relpartbound text`, pgClass},
	{"pg_attribute", `attrelid bigint, attname name, atttypid bigint, attstattarget int, attlen smallint, attnum smallint,
	attndims int, attcacheoff int, atttypmod int, attbyval boolean, attalign char(1), attstorage char(1), attcompression char(1),
	attnotnull boolean, atthasdef boolean, atthasmissing boolean, attidentity char(1), attgenerated char(1), attisdropped boolean,
	attislocal boolean, attinhcount int, attcollation bigint, attacl text, attoptions text, attfdwoptions text, attmissingval text`, pgAttribute},
	{"pg_attrdef", "oid bigint, adrelid bigint, adnum smallint, adbin text, adsrc text", pgAttrdef},
	{"pg_index", `indexrelid bigint, indrelid bigint, indnatts smallint, indnkeyatts smallint, indisunique boolean,
	indnullsnotdistinct boolean, indisprimary boolean, indisexclusion boolean, indimmediate boolean, indisclustered boolean,
	indisvalid boolean, indcheckxmin boolean, indisready boolean, indislive boolean, indisreplident boolean, indkey text,
	indcollation text, indclass text, indoption text, indexprs text, indpred text`, pgIndex},
	{"pg_constraint", `oid bigint, conname name, connamespace bigint, contype char(1), condeferrable boolean, condeferred boolean,
	convalidated boolean, conrelid bigint, contypid bigint, conindid bigint, conparentid bigint, confrelid bigint, confupdtype char(1),
	confdeltype char(1), confmatchtype char(1), conislocal boolean, coninhcount int, connoinherit boolean, conkey text, confkey text,
	conpfeqop text, conppeqop text, conffeqop text, confdelsetcols text, conexclop text, conbin text`, pgConstraint},
	{"pg_namespace", "oid bigint, nspname name, nspowner bigint, nspacl text", pgNamespace},
	{"pg_database", `oid bigint, datname name, datdba bigint, encoding int, datlocprovider char(1), datistemplate boolean,
	datallowconn boolean, datconnlimit int, datfrozenxid bigint, datminmxid bigint, dattablespace bigint, datcollate text, datctype text,
	daticulocale text, datcollversion text, datacl text`, func(s *snapshot) [][]any {
		return [][]any{row(FirstOID, s.database, ownerOID, 6, "c", false, true, -1, 0, 0, 1663, "C", "C", nil, nil, nil)}
	}},
	{"pg_roles", `oid bigint, rolname name, rolsuper boolean, rolinherit boolean, rolcreaterole boolean, rolcreatedb boolean,
	rolcanlogin boolean, rolreplication boolean, rolconnlimit int, rolpassword text, rolvaliduntil timestamptz, rolbypassrls boolean,
	rolconfig text`, pgRoles},
	{"pg_user", `usename name, usesysid bigint, usecreatedb boolean, usesuper boolean, userepl boolean, usebypassrls boolean,
	passwd text, valuntil timestamptz, useconfig text`, pgUser},
	{"pg_am", "oid bigint, amname name, amhandler text, amtype char(1)", fixed(
		row(amHeap, "heap", "heap_tableam_handler", "t"), row(amBtree, "btree", "bthandler", "i"))},
	{"pg_collation", `oid bigint, collname name, collnamespace bigint, collowner bigint, collprovider char(1), collisdeterministic boolean,
	collencoding int, collcollate text, collctype text, colliculocale text, collversion text`, fixed(
		row(100, "default", nsCatalog, ownerOID, "d", true, -1, nil, nil, nil, nil), row(950, "C", nsCatalog, ownerOID, "c", true, -1, "C", "C", nil, nil))},
	{"pg_tablespace", "oid bigint, spcname name, spcowner bigint, spcacl text, spcoptions text", fixed(row(1663, "pg_default", ownerOID, nil, nil))},
	{"pg_tables", `schemaname name, tablename name, tableowner name, tablespace name, hasindexes boolean, hasrules boolean,
	hastriggers boolean, rowsecurity boolean`, func(s *snapshot) (out [][]any) {
		for _, r := range s.kind("r") {
			out = append(out, row(schemaName(r.schema), r.name, s.ownerName(r), nil, len(r.indexes) > 0, false, r.trigger > 0, false))
		}
		return out
	}},
	{"pg_views", "schemaname name, viewname name, viewowner name, definition text", func(s *snapshot) (out [][]any) {
		for _, r := range s.kind("v") {
			out = append(out, row(schemaName(r.schema), r.name, s.ownerName(r), r.viewDef()))
		}
		return out
	}},
	{"pg_indexes", "schemaname name, tablename name, indexname name, tablespace name, indexdef text", func(s *snapshot) (out [][]any) {
		for _, r := range s.kind("i") {
			out = append(out, row(schemaName(r.schema), r.parent.name, r.name, nil, r.indexDef()))
		}
		return out
	}},
	{"pg_trigger", `oid bigint, tgrelid bigint, tgparentid bigint, tgname name, tgfoid bigint, tgtype smallint, tgenabled char(1),
	tgisinternal boolean, tgconstrrelid bigint, tgconstrindid bigint, tgconstraint bigint, tgdeferrable boolean, tginitdeferred boolean,
	tgnargs smallint, tgattr text, tgargs text, tgqual text, tgoldtable name, tgnewtable name`, func(s *snapshot) (out [][]any) {
		for _, t := range s.triggers {
			out = append(out, row(t.oid, t.rel.oid, 0, t.name, 0, 5, "O", false, 0, 0, 0, false, false, 0, "", "", nil, nil, nil))
		}
		return out
	}},
	{"information_schema.schemata", "catalog_name text, schema_name text, schema_owner text", func(s *snapshot) [][]any {
		return [][]any{row(s.database, "public", s.owner()), row(s.database, "information_schema", s.owner()), row(s.database, "pg_catalog", s.owner())}
	}},
	{"information_schema.tables", `table_catalog text, table_schema text, table_name text, table_type text,
	self_referencing_column_name text, reference_generation text, user_defined_type_catalog text, user_defined_type_schema text,
	user_defined_type_name text, is_insertable_into text, is_typed text, commit_action text`, infoTables},
	{"information_schema.views", "table_catalog text, table_schema text, table_name text, view_definition text, check_option text, is_updatable text, is_insertable_into text",
		func(s *snapshot) (out [][]any) {
			for _, r := range s.kind("v") {
				out = append(out, row(s.database, schemaName(r.schema), r.name, r.viewDef(), "NONE", "NO", "NO"))
			}
			return out
		}},
	{"information_schema.columns", `table_catalog text, table_schema text, table_name text, column_name text, ordinal_position int,
	column_default text, is_nullable text, data_type text, character_maximum_length int, character_octet_length int,
	numeric_precision int, numeric_precision_radix int, numeric_scale int, datetime_precision int, udt_catalog text, udt_schema text,
	udt_name text, is_identity text, identity_generation text, is_generated text, generation_expression text, is_updatable text`, infoColumns},
	{"information_schema.table_constraints", `constraint_catalog text, constraint_schema text, constraint_name text, table_catalog text,
	table_schema text, table_name text, constraint_type text, is_deferrable text, initially_deferred text, enforced text`, infoConstraints},
	{"information_schema.key_column_usage", `constraint_catalog text, constraint_schema text, constraint_name text, table_catalog text,
	table_schema text, table_name text, column_name text, ordinal_position int, position_in_unique_constraint int`, infoKeys},
	{"information_schema.referential_constraints", `constraint_catalog text, constraint_schema text, constraint_name text,
	unique_constraint_catalog text, unique_constraint_schema text, unique_constraint_name text, match_option text, update_rule text,
	delete_rule text`, infoReferences},

	{"information_schema.sequences", `sequence_catalog text, sequence_schema text, sequence_name text, data_type text, numeric_precision int,
	numeric_precision_radix int, numeric_scale int, start_value text, minimum_value text, maximum_value text, increment text, cycle_option text`, infoSequences},
	{"pg_sequence", "seqrelid bigint, seqtypid bigint, seqstart bigint, seqincrement bigint, seqmax bigint, seqmin bigint, seqcache bigint, seqcycle boolean", pgSequence},
	{"pg_sequences", `schemaname name, sequencename name, sequenceowner name, data_type text, start_value bigint, min_value bigint, max_value bigint,
	increment_by bigint, cycle boolean, cache_size bigint, last_value bigint`, pgSequences},
	{"pg_depend", "classid bigint, objid bigint, objsubid int, refclassid bigint, refobjid bigint, refobjsubid int, deptype char(1)", pgDepend},

	{"information_schema.table_privileges", "grantor text, grantee text, table_catalog text, table_schema text, table_name text, privilege_type text, is_grantable text, with_hierarchy text", infoGrants},
	{"information_schema.role_table_grants", "grantor text, grantee text, table_catalog text, table_schema text, table_name text, privilege_type text, is_grantable text, with_hierarchy text", infoGrants},
	{"information_schema.column_privileges", "grantor text, grantee text, table_catalog text, table_schema text, table_name text, column_name text, privilege_type text, is_grantable text", infoColumnGrants},
	{"information_schema.applicable_roles", "grantee text, role_name text, is_grantable text", infoApplicable},
	{"information_schema.enabled_roles", "role_name text", infoEnabled},

	// What there is none of.
	{"pg_inherits", "inhrelid bigint, inhparent bigint, inhseqno int, inhdetachpending boolean", nil},
	{"pg_partitioned_table", "partrelid bigint, partstrat char(1), partnatts smallint, partdefid bigint, partattrs text, partexprs text", nil},
	{"pg_policy", "oid bigint, polname name, polrelid bigint, polcmd char(1), polpermissive boolean, polroles text, polqual text, polwithcheck text", nil},
	{"pg_statistic_ext", "oid bigint, stxrelid bigint, stxname name, stxnamespace bigint, stxowner bigint, stxstattarget int, stxkeys text, stxkind text, stxexprs text", nil},
	{"pg_publication", "oid bigint, pubname name, pubowner bigint, puballtables boolean, pubinsert boolean, pubupdate boolean, pubdelete boolean, pubtruncate boolean, pubviaroot boolean", nil},
	{"pg_publication_rel", "oid bigint, prpubid bigint, prrelid bigint, prqual text, prattrs text", nil},
	{"pg_publication_namespace", "oid bigint, pnpubid bigint, pnnspid bigint", nil},
	{"pg_subscription", "oid bigint, subname name, subowner bigint, subenabled boolean, subpublications text", nil},
	{"pg_rewrite", "oid bigint, rulename name, ev_class bigint, ev_type char(1), ev_enabled char(1), is_instead boolean", nil},
	{"pg_proc", "oid bigint, proname name, pronamespace bigint, proowner bigint, prolang bigint, prokind char(1), prorettype bigint, proargtypes text, proargnames text, prosrc text, proretset boolean, provolatile char(1), pronargs smallint", nil},
	{"pg_language", "oid bigint, lanname name", nil},
	{"pg_extension", "oid bigint, extname name, extowner bigint, extnamespace bigint, extversion text", nil},
	{"pg_description", "objoid bigint, classoid bigint, objsubid int, description text", pgDescription},
	{"pg_shdescription", "objoid bigint, classoid bigint, description text", nil},
	{"pg_auth_members", "roleid bigint, member bigint, grantor bigint, admin_option boolean", pgAuthMembers},
	{"pg_db_role_setting", "setdatabase bigint, setrole bigint, setconfig text", nil},
	{"pg_range", "rngtypid bigint, rngsubtype bigint, rngmultitypid bigint", nil},
	{"pg_enum", "oid bigint, enumtypid bigint, enumsortorder real, enumlabel name", nil},
	{"pg_foreign_table", "ftrelid bigint, ftserver bigint, ftoptions text", nil},
	{"pg_foreign_server", "oid bigint, srvname name", nil},
	{"pg_matviews", "schemaname name, matviewname name, matviewowner name, definition text", nil},
	{"pg_prepared_xacts", "xid bigint, gid text, prepared timestamptz, owner name, database name", nil},
}

func row(v ...any) []any { return v }

func fixed(rows ...[]any) func(*snapshot) [][]any {
	return func(*snapshot) [][]any { return rows }
}

func (s *snapshot) kind(k string) (out []*relation) {
	for _, r := range s.rels {
		if r.kind == k {
			out = append(out, r)
		}
	}
	return out
}

func pgClass(s *snapshot) (out [][]any) {
	for _, r := range s.rels {
		am, persist, natts := amHeap, "p", len(r.columns)
		switch r.kind {
		case "i":
			am, natts = amBtree, len(r.keys)
		case "v", "S":
			am = 0
		}
		if r.schema == "temp" {
			persist = "t"
		}
		checks, triggers := 0, r.trigger > 0
		for _, c := range s.cons {
			if c.rel == r && c.kind == "c" {
				checks++
			}
			// PostgreSQL keeps foreign keys by triggers, and clients know.
			triggers = triggers || c.kind == "f" && (c.rel == r || c.ref == r)
		}
		out = append(out, row(r.oid, r.name, namespace(r.schema), 0, 0, s.ownerID(r), am, r.oid, 0, 0, -1.0, 0, 0, len(r.indexes) > 0,
			false, persist, r.kind, natts, checks, r.kind == "v", triggers, false, false, false, true, map[bool]string{true: "d", false: "n"}[r.kind == "r"],
			false, 0, 0, 0, s.relACL(r), nil, nil))
	}
	return out
}

func pgAttribute(s *snapshot) (out [][]any) {
	for _, r := range s.rels {
		cols := r.columns
		if r.kind == "i" {
			cols = nil
			for n, name := range r.keyNames() {
				c := column{name: name, typ: dialect.Type{OID: dialect.Text, Mod: -1}}
				if a := r.keys[n].att; a > 0 {
					c.typ = r.parent.columns[a-1].typ
				}
				cols = append(cols, c)
			}
		}
		for n, c := range cols {
			identity, generated, collation := "", "", 0
			if r.kind == "r" && r.identity(n) {
				identity = "d"
			}
			if c.generated {
				generated = "s"
			}
			switch c.typ.OID {
			case dialect.Text, dialect.VarChar, dialect.BPChar, dialect.Name:
				collation = 100
			}
			out = append(out, row(r.oid, c.name, c.typ.OID, -1, dialect.SizeOf(c.typ.OID), n+1, 0, -1, c.typ.Mod, dialect.SizeOf(c.typ.OID) > 0, "i", "p", "",
				c.notNull, c.def != nil || c.generated, false, identity, generated, false, true, 0, collation, s.columnACL(r, c.name), nil, nil, nil))
		}
	}
	return out
}

// identity reports the column that gets its number from SQLite when none is given.
func (r *relation) identity(n int) bool {
	c := r.columns[n]
	if c.pk != 1 || !strings.EqualFold(c.decl, "INTEGER") || strings.Contains(strings.ToUpper(r.sql), "WITHOUT ROWID") {
		return false
	}
	for i, o := range r.columns {
		if i != n && o.pk > 0 {
			return false
		}
	}
	return true
}

func pgAttrdef(s *snapshot) (out [][]any) {
	for _, r := range s.kind("r") {
		for n, c := range r.columns {
			if c.def != nil {
				out = append(out, row(conOID+keyOID/2+int64(len(out)), r.oid, n+1, *c.def, *c.def))
			} else if c.generated {
				out = append(out, row(conOID+keyOID/2+int64(len(out)), r.oid, n+1, "generated", "generated"))
			}
		}
	}
	return out
}

func pgIndex(s *snapshot) (out [][]any) {
	for _, i := range s.kind("i") {
		var keys, zeros, opts []int64
		for _, k := range i.keys {
			o := int64(0)
			if k.desc {
				o = 3
			}
			keys, zeros, opts = append(keys, k.att), append(zeros, 0), append(opts, o)
		}
		var exprs, pred any
		for n, k := range i.keys {
			if k.att == 0 {
				exprs = i.keyNames()[n]
			}
		}
		if at := strings.LastIndex(strings.ToUpper(i.sql), "WHERE"); i.partial && at > 0 {
			pred = strings.TrimSpace(i.sql[at+5:])
		}
		out = append(out, row(i.oid, i.parent.oid, len(keys), len(keys), i.unique, false, i.primary, false, true, false, true, false, true, true,
			false, vector(keys), vector(zeros), vector(zeros), vector(opts), exprs, pred))
	}
	return out
}

func pgConstraint(s *snapshot) (out [][]any) {
	action := map[string]string{"CASCADE": "c", "SET NULL": "n", "SET DEFAULT": "d", "RESTRICT": "r"}
	act := func(a string) string {
		if x := action[a]; x != "" {
			return x
		}
		return "a"
	}
	for _, c := range s.cons {
		index, ref := int64(0), int64(0)
		upd, del, match := " ", " ", " "
		if c.index != nil {
			index = c.index.oid
		}
		if c.ref != nil {
			ref, upd, del, match = c.ref.oid, act(c.onUpd), act(c.onDel), "s"
		}
		var bin any
		if c.kind == "c" {
			bin = strings.TrimPrefix(c.def, "CHECK ")
		}
		out = append(out, row(c.oid, c.name, namespace(c.rel.schema), c.kind, false, false, true, c.rel.oid, 0, index, 0, ref, upd, del, match,
			true, 0, true, array(c.cols), array(c.refCols), nil, nil, nil, nil, nil, bin))
	}
	return out
}
