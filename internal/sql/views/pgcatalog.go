package views

import (
	"reflect"
	"strings"
)

// The stand-ins for those of PostgreSQL's catalogs that do not depend on the
// schema: what drivers look up while they connect and resolve types. SQLite
// has no schema pg_catalog; the session layer drops that qualifier before it
// prepares a statement. The other catalogs are the catalog package's.

// PGTypeRow is a row of pg_type.
type PGTypeRow struct {
	OID       int64  `col:"oid,BIGINT" doc:"Number of the type in the protocol."`
	Name      string `col:"typname,NAME" doc:"Name."`
	Namespace int64  `col:"typnamespace,BIGINT" doc:"Schema: pg_catalog."`
	Len       int64  `col:"typlen,SMALLINT" doc:"Length in bytes, -1 for variable."`
	Type      string `col:"typtype,CHAR(1)" doc:"b: base type."`
	Category  string `col:"typcategory,CHAR(1)" doc:"Category, as in PostgreSQL."`
	Delim     string `col:"typdelim,CHAR(1)" doc:"Delimiter in arrays."`
	RelID     int64  `col:"typrelid,BIGINT" doc:"0: not a row type."`
	Elem      int64  `col:"typelem,BIGINT" doc:"Element type of an array, else 0."`
	Array     int64  `col:"typarray,BIGINT" doc:"Array type of this type, 0 when there is none."`
	BaseType  int64  `col:"typbasetype,BIGINT" doc:"0: not a domain."`
	NotNull   string `col:"typnotnull,BOOLEAN" doc:"f."`
	TypMod    int64  `col:"typtypmod,INTEGER" doc:"-1."`
	Owner     int64  `col:"typowner,BIGINT" doc:"10."`
	Collation int64  `col:"typcollation,BIGINT" doc:"100 for text, else 0."`
	ByVal     string `col:"typbyval,BOOLEAN" doc:"t for types of a fixed length."`
	Defined   string `col:"typisdefined,BOOLEAN" doc:"t."`
	Preferred string `col:"typispreferred,BOOLEAN" doc:"f."`
	Input     string `col:"typinput,TEXT" doc:"Name of the input function: array_in for arrays."`
	NDims     int64  `col:"typndims,INTEGER" doc:"0."`
	Default   string `col:"typdefault,TEXT" null:"zero" doc:"NULL."`
	ACL       string `col:"typacl,TEXT" null:"zero" doc:"NULL."`
}

// PGSettingRow is a row of pg_settings.
type PGSettingRow struct {
	Name    string `col:"name,TEXT" doc:"Name of the parameter, lower case."`
	Setting string `col:"setting,TEXT" doc:"Value."`
	Unit    string `col:"unit,TEXT" null:"zero" doc:"NULL."`
	Cat     string `col:"category,TEXT" doc:"dm.ini."`
	Doc     string `col:"short_desc,TEXT" doc:"What it does."`
	Context string `col:"context,TEXT" doc:"internal, postmaster, sighup or user."`
	VarType string `col:"vartype,TEXT" doc:"string."`
	Source  string `col:"source,TEXT" doc:"configuration file or default."`
	Boot    string `col:"boot_val,TEXT" null:"zero" doc:"Value when dm.ini does not name it."`
	Reset   string `col:"reset_val,TEXT" null:"zero" doc:"Value of the server."`
}

// PGKeywordRow is a row of pg_get_keywords().
type PGKeywordRow struct {
	Word string `col:"word,TEXT" doc:"The word, lower case."`
	Code string `col:"catcode,TEXT" doc:"R: reserved."`
	Desc string `col:"catdesc,TEXT" doc:"reserved."`
}

var pgKeywords = func() (rows []PGKeywordRow) {
	for _, w := range strings.Fields("analyze array glob ilike indexed isnull limit notnull offset pragma reindex replace returning top vacuum") {
		rows = append(rows, PGKeywordRow{w, "R", "reserved"})
	}
	return rows
}()

const pgCatalog = 11

var pgTypes = func() []PGTypeRow {
	type t struct {
		oid, arr int64
		name     string
		len      int64
		cat      string
	}
	base := []t{
		{16, 1000, "bool", 1, "B"}, {17, 1001, "bytea", -1, "U"}, {18, 1002, "char", 1, "Z"},
		{19, 1003, "name", 64, "S"}, {20, 1016, "int8", 8, "N"}, {21, 1005, "int2", 2, "N"},
		{23, 1007, "int4", 4, "N"}, {25, 1009, "text", -1, "S"}, {26, 1028, "oid", 4, "N"},
		{114, 199, "json", -1, "U"}, {700, 1021, "float4", 4, "N"}, {701, 1022, "float8", 8, "N"},
		{705, 0, "unknown", -2, "X"}, {1042, 1014, "bpchar", -1, "S"}, {1043, 1015, "varchar", -1, "S"},
		{1082, 1182, "date", 4, "D"}, {1083, 1183, "time", 8, "D"}, {1114, 1115, "timestamp", 8, "D"},
		{1184, 1185, "timestamptz", 8, "D"}, {1186, 1187, "interval", 16, "T"},
		{1700, 1231, "numeric", -1, "N"}, {2278, 0, "void", 4, "P"}, {2950, 2951, "uuid", 16, "U"},
		{3802, 3807, "jsonb", -1, "U"},
	}
	var rows []PGTypeRow
	for _, b := range base {
		r := PGTypeRow{OID: b.oid, Name: b.name, Namespace: pgCatalog, Len: b.len, Type: "b",
			Category: b.cat, Delim: ",", Array: b.arr, NotNull: "f", TypMod: -1,
			Owner: 10, ByVal: "f", Defined: "t", Preferred: "f", Input: b.name + "in"}
		if b.cat == "S" {
			r.Collation = 100
		}
		if b.len > 0 {
			r.ByVal = "t"
		}
		if b.cat == "P" || b.cat == "X" {
			r.Type = "p"
		}
		rows = append(rows, r)
		if b.arr != 0 {
			rows = append(rows, PGTypeRow{OID: b.arr, Name: "_" + b.name, Namespace: pgCatalog, Len: -1,
				Type: "b", Category: "A", Delim: ",", Elem: b.oid, NotNull: "f", TypMod: -1,
				Owner: 10, ByVal: "f", Defined: "t", Preferred: "f", Input: "array_in"})
		}
	}
	return rows
}()

func pgSettings(s Source) []PGSettingRow {
	context := map[string]string{"READ ONLY": "internal", "IN FILE": "postmaster", "SYS": "sighup", "SESSION": "user"}
	rows := []PGSettingRow{
		{Name: "max_index_keys", Setting: "32", Cat: "Preset Options", Doc: "Columns of a key that drivers look at.", Context: "internal", VarType: "integer", Source: "default", Boot: "32", Reset: "32"},
		{Name: "max_identifier_length", Setting: "63", Cat: "Preset Options", Doc: "Length of names, as drivers believe.", Context: "internal", VarType: "integer", Source: "default", Boot: "63", Reset: "63"},
	}
	for _, p := range s.Parameters() {
		r := PGSettingRow{Name: strings.ToLower(p.Name), Setting: p.Value, Cat: "dm.ini", Doc: p.Doc,
			Context: context[p.Type], VarType: "string", Source: "default", Boot: p.Default, Reset: p.SysValue}
		if p.FileVal != "" {
			r.Source = "configuration file"
		}
		rows = append(rows, r)
	}
	return rows
}

// Catalog lists the stand-ins for PostgreSQL's catalog.
func Catalog() []*View { return catalog }

var catalog = defineCatalog()

func defineCatalog() []*View {
	fixed := func(v *View, rows any) *View {
		r := reflect.ValueOf(rows)
		v.rows = func(Source) reflect.Value { return r }
		return v
	}
	return []*View{
		fixed(view[PGTypeRow]("pg_type", "Types of the protocol.", anywhere, "", nil), pgTypes),
		view("pg_stat_activity", "Sessions, under PostgreSQL's column names.", anywhere, "", pgActivity),
		view("pg_locks", "Locks, under PostgreSQL's column names.", anywhere, "", pgLocks),
		fixed(view[PGKeywordRow]("pg_get_keywords", "Words that drivers quote as names.", anywhere, "", nil), pgKeywords),
		view("pg_settings", "Parameters of dm.ini under PostgreSQL's column names.", anywhere, "", pgSettings),
	}
}
