// Package views owns the V$ views and SYSOPENHISTORY: the one table of their
// definitions (columns, types, meaning), the typed rows behind them, and their
// registration with SQLite as eponymous virtual tables. docs/views.md is
// generated from the same definitions, and a test compares them with the
// columns the manual gives (10.1).
//
// It keeps the part of G8 that concerns it: nothing a statement does to a view
// changes anything. It leaves the values to the Source, and the SQL types that
// clients see to the session layer (declared types are the manual's).
package views

//go:generate go run ./gendocs -o ../../../docs/views.md

import (
	"fmt"
	"reflect"
	"strings"
)

// A Source gives the current rows of every view. Each method returns a
// snapshot that nobody changes afterwards; methods are called from many
// goroutines at once and must not block on anything a statement may hold. A
// view that has nothing to show returns no rows.
type Source interface {
	Instance() []InstanceRow
	Database() []DatabaseRow
	RLog() []RLogRow
	LogPkgs() []LogPkgRow
	LogPkgStat() []LogPkgStatRow
	ArchStatus() []ArchStatusRow
	ArchFiles() []ArchFileRow
	ArchIni() []ArchIniRow
	MALIni() []MALIniRow
	MALLinks() []MALLinkRow
	MALSys() []MALSysRow
	MALSites() []MALSiteRow
	RapplySys() []RapplySysRow
	KeepPkg() []KeepPkgRow
	RapplyLSN() []RapplyLSNRow
	RapplyTasks() []KeepPkgRow
	UtskInfo() []UtskInfoRow
	UtskSys() []UtskSysRow
	DMWatcher() []DMWatcherRow
	RapplyParallel() []RapplyParallelRow
	Parameters() []ParameterRow
	OpenHistory() []OpenHistoryRow
	Sessions() []SessionRow
	Trx() []TrxRow
	Locks() []LockRow
	ArchSend() []ArchSendRow
	RecoverStatus() []RecoverStatusRow
	RapplyStat() []RapplyStatRow
	DBCheck() []DBCheckRow
	DBProblems() []DBProblemRow
	Version() []VersionRow
}

// Column is one column of a view.
type Column struct {
	Name string
	Type string // as the manual gives it: VARCHAR(256), BIGINT, TIMESTAMP ...
	Doc  string // one sentence
}

// View is the definition of one view.
type View struct {
	Name    string
	Doc     string // what it shows
	Where   string // on which instances it says something
	Manual  string // section of the manual, "" when it is not described there
	Alias   string // name of the view this is another name of, or ""
	Columns []Column

	fields []field
	rows   func(Source) reflect.Value // a slice of the row struct
	decl   string                     // for sqlite3_declare_vtab
}

// All lists every view in the order of the documentation.
func All() []*View { return all }

// Lookup finds a view by name, case-insensitively.
func Lookup(name string) (*View, bool) {
	v, ok := byName[strings.ToUpper(name)]
	return v, ok
}

var (
	all    = define()
	byName = index(all)
)

func index(vs []*View) map[string]*View {
	m := make(map[string]*View, len(vs))
	for _, v := range vs {
		m[v.Name] = v
	}
	return m
}

// field says where a column's value is in the row struct.
type field struct {
	index    int
	zeroNull bool // a zero value is shown as NULL
}

// view builds a definition from the tags of a row struct:
//
//	col:"NAME,TYPE" doc:"what it means" null:"zero"
//
// so that a column, its Go type and its meaning stand in one line. A malformed
// tag is a programming error and panics at start, where every test sees it.
func view[R any](name, doc, where, manual string, rows func(Source) []R) *View {
	v := &View{Name: name, Doc: doc, Where: where, Manual: manual,
		rows: func(s Source) reflect.Value { return reflect.ValueOf(rows(s)) }}
	t := reflect.TypeFor[R]()
	for i := range t.NumField() {
		f := t.Field(i)
		col, typ, ok := strings.Cut(f.Tag.Get("col"), ",")
		if !ok || f.Tag.Get("doc") == "" || !f.IsExported() {
			panic(fmt.Sprintf("views: %s.%s: incomplete column definition", t.Name(), f.Name))
		}
		v.Columns = append(v.Columns, Column{Name: col, Type: typ, Doc: f.Tag.Get("doc")})
		v.fields = append(v.fields, field{i, f.Tag.Get("null") == "zero"})
	}
	var b strings.Builder
	b.WriteString("CREATE TABLE x(")
	for i, c := range v.Columns {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%q %s", c.Name, c.Type)
	}
	b.WriteByte(')')
	v.decl = b.String()
	return v
}

// alias is the same view under another name.
func (v *View) alias(name string) *View {
	a := *v
	a.Name, a.Alias = name, v.Name
	a.Doc = "Another name of " + v.Name + "."
	return &a
}
