package session

import (
	"slices"
	"strings"

	"github.com/ncruces/go-sqlite3"

	"datawatch/internal/sql/sqlapi"
)

// authRecord is what a statement was seen to touch while it was prepared.
// Nothing in it depends on who asked: that is judged afterwards (permit.go), so
// that sessions of different users share prepared statements.
type authRecord struct {
	main   bool // writes the database
	temp   bool // writes temporary tables
	schema bool // changes the schema
	reads  []column
	denied *sqlapi.Error

	uses     []use
	unsteady bool     // it uses a function whose value may be another the next time
	state    bool     // or one that tells, or changes, the state of the connection or session
	inner    bool     // something was touched inside a view or trigger
	modifies bool     // rows of the database
	always   bool     // to be judged at every execution
	alters   bool     // ALTER TABLE or a DROP, which tidy SQLite's own tables up
	created  []string // tables and views made
	dropped  []string
	altered  []string
}

type column struct{ table, name string }

// useOp is what a statement does with an object.
type useOp uint8

const (
	useRead   useOp = iota // a column, "" for the rows alone
	useInsert              //
	useUpdate              // a column
	useDelete              //
	useOwn                 // what only the owner of a table may do
	useCreate              // a table or view
	useSeq                 // a sequence, by a function
	useAdmin               // what only an administrator may do; table says what
)

// use is one thing a statement does. inner is the view, trigger or WITH query
// that does it, as SQLite names it; "" for the statement itself.
type use struct {
	op                        useOp
	table, col, schema, inner string
}

// Pragmas that only tell something, and those that may be given an argument
// (the name of a table or index, mostly).
var readPragmas = map[string]bool{
	"table_info": true, "table_xinfo": true, "table_list": true, "index_list": true, "index_info": true,
	"index_xinfo": true, "foreign_key_list": true, "foreign_key_check": true, "integrity_check": true,
	"quick_check": true, "function_list": true, "collation_list": true, "database_list": true, "module_list": true,
	"pragma_list": true, "compile_options": true, "optimize": true, "user_version": true, "application_id": true,
}
var bareReadPragmas = map[string]bool{
	"schema_version": true, "page_count": true, "freelist_count": true, "page_size": true, "encoding": true,
	"foreign_keys": true, "journal_mode": true, "synchronous": true, "temp_store": true, "cache_size": true,
	"auto_vacuum": true, "data_version": true, "secure_delete": true, "recursive_triggers": true,
}

// ofSQLite begins what an error says of SQLite's own tables.
const ofSQLite = "table "

// administrative functions are for administrators only.
var administrative = map[string]bool{"pg_reload_conf": true, "pg_rotate_logfile": true, "pg_read_file": true, "pg_read_binary_file": true, "pg_ls_dir": true}

// schemaTable reports SQLite's tables of the schema: changed by DDL only (the
// connections are defensive), and readable by everyone, as a catalog is.
func schemaTable(name string) bool {
	switch name {
	case "sqlite_master", "sqlite_temp_master", "sqlite_schema", "sqlite_temp_schema":
		return true
	}
	return false
}

func (c *conn) authorize(action sqlite3.AuthorizerActionCode, name3, name4, schema, inner string) sqlite3.AuthorizerReturnCode {
	if c.running != nil && !c.internal && action != sqlite3.AUTH_PRAGMA {
		return c.recompiling(action, name3, name4, schema, inner)
	}
	if schema == "temp" {
		switch action {
		case sqlite3.AUTH_INSERT, sqlite3.AUTH_UPDATE, sqlite3.AUTH_DELETE:
			c.rec.temp = true
		}
	} else {
		switch action {
		case sqlite3.AUTH_INSERT, sqlite3.AUTH_UPDATE, sqlite3.AUTH_DELETE, sqlite3.AUTH_ALTER_TABLE, sqlite3.AUTH_REINDEX, sqlite3.AUTH_ANALYZE:
			c.rec.main = true
		}
	}
	switch action {
	case sqlite3.AUTH_INSERT, sqlite3.AUTH_UPDATE, sqlite3.AUTH_DELETE:
		if schemaTable(name3) {
			c.rec.schema = true
		}
	case sqlite3.AUTH_ALTER_TABLE:
		c.rec.schema = true
	}
	if c.internal {
		return sqlite3.AUTH_OK
	}
	deny := func(code, msg string) sqlite3.AuthorizerReturnCode {
		if c.rec.denied == nil {
			c.rec.denied = &sqlapi.Error{Code: code, Message: msg}
		}
		return sqlite3.AUTH_DENY
	}
	if systemTable(name3) || systemTable(name4) {
		switch action {
		case sqlite3.AUTH_FUNCTION, sqlite3.AUTH_PRAGMA, sqlite3.AUTH_SELECT:
		default:
			name := name3
			if !systemTable(name) {
				name = name4
			}
			return deny("42501", "permission denied for table "+strings.ToUpper(name))
		}
	}
	switch action {
	case sqlite3.AUTH_ALTER_TABLE, sqlite3.AUTH_DROP_TABLE, sqlite3.AUTH_DROP_VIEW, sqlite3.AUTH_DROP_INDEX, sqlite3.AUTH_DROP_TRIGGER:
		c.rec.alters = true
	}
	switch action {
	case sqlite3.AUTH_READ:
		if inner == "" && len(c.rec.reads) < 64 { // what a view reads has other names outside
			c.rec.reads = append(c.rec.reads, column{name3, name4})
		}
		c.note(use{useRead, name3, name4, schema, inner})
	case sqlite3.AUTH_INSERT:
		c.note(use{useInsert, name3, "", schema, inner})
	case sqlite3.AUTH_UPDATE:
		c.note(use{useUpdate, name3, name4, schema, inner})
	case sqlite3.AUTH_DELETE:
		c.note(use{useDelete, name3, "", schema, inner})
	case sqlite3.AUTH_CREATE_TABLE, sqlite3.AUTH_CREATE_VIEW:
		c.note(use{op: useCreate, table: name3})
		c.rec.created = append(c.rec.created, name3)
	case sqlite3.AUTH_DROP_TABLE, sqlite3.AUTH_DROP_VIEW:
		c.note(use{op: useOwn, table: name3})
		c.rec.dropped = append(c.rec.dropped, name3)
	case sqlite3.AUTH_CREATE_INDEX, sqlite3.AUTH_DROP_INDEX, sqlite3.AUTH_CREATE_TRIGGER, sqlite3.AUTH_CREATE_TEMP_TRIGGER, sqlite3.AUTH_DROP_TRIGGER:
		c.note(use{op: useOwn, table: name4})
	case sqlite3.AUTH_ALTER_TABLE:
		if name3 != "temp" {
			c.note(use{op: useOwn, table: name4})
			c.rec.altered = append(c.rec.altered, name4)
		}
	case sqlite3.AUTH_ANALYZE:
		if schema != "temp" {
			c.note(use{op: useOwn, table: name3})
		}
	case sqlite3.AUTH_REINDEX:
		c.note(use{op: useAdmin, table: "REINDEX"})
	case sqlite3.AUTH_ATTACH, sqlite3.AUTH_DETACH:
		return deny("0A000", "ATTACH and DETACH are not supported: a commit over two databases would not be atomic")
	case sqlite3.AUTH_CREATE_VTABLE, sqlite3.AUTH_DROP_VTABLE:
		return deny("0A000", "virtual tables are not supported")
	case sqlite3.AUTH_FUNCTION:
		f := strings.ToLower(name4)
		c.rec.unsteady = c.rec.unsteady || unsteady[f]
		c.rec.state = c.rec.state || stateful[f]
		switch {
		case f == "load_extension" || f == "fts3_tokenizer" || f == "writefile" || f == "readfile" || f == "edit":
			return deny("42501", "permission denied for function "+name4)
		case f == "nextval" || f == "currval" || f == "setval":
			c.note(use{op: useSeq, table: f, inner: inner})
		case administrative[f]:
			c.rec.always = true
			c.note(use{op: useAdmin, table: "function " + f})
		}
	case sqlite3.AUTH_TRANSACTION, sqlite3.AUTH_SAVEPOINT:
		return deny("0A000", "this form of transaction control is not supported")
	case sqlite3.AUTH_PRAGMA:
		p := strings.ToLower(name3)
		if readPragmas[p] || bareReadPragmas[p] && name4 == "" {
			if (p == "user_version" || p == "application_id") && name4 != "" || p == "optimize" {
				c.rec.main = true
				c.note(use{op: useAdmin, table: "PRAGMA " + p})
			}
			return sqlite3.AUTH_OK
		}
		return deny("42501", "PRAGMA "+name3+" is not permitted")
	}
	return sqlite3.AUTH_OK
}

// recompiling answers while SQLite compiles a running statement again. It does
// so for another value of a parameter, which changes nothing here, and for
// another schema: then step has to do it, and ask again who may execute it.
func (c *conn) recompiling(action sqlite3.AuthorizerActionCode, name3, name4, schema, inner string) sqlite3.AuthorizerReturnCode {
	cs := c.running
	if !c.again && c.h != nil {
		v, err := c.cookie()
		c.again = err != nil || v != cs.cookie
	}
	op, ok := map[sqlite3.AuthorizerActionCode]useOp{sqlite3.AUTH_READ: useRead, sqlite3.AUTH_INSERT: useInsert, sqlite3.AUTH_UPDATE: useUpdate, sqlite3.AUTH_DELETE: useDelete}[action]
	if ok && !c.again && !schemaTable(name3) && !strings.HasPrefix(name3, "sqlite_") {
		u := use{op, name3, "", schema, inner}
		if op == useRead || op == useUpdate {
			u.col = name4
		}
		c.again = !slices.Contains(cs.rec.uses, u)
	}
	if c.again {
		return sqlite3.AUTH_DENY
	}
	return sqlite3.AUTH_OK
}

// note remembers a use, once if it comes in a row or among the last few.
func (c *conn) note(u use) {
	r := &c.rec
	for i := len(r.uses) - 1; i >= 0 && i >= len(r.uses)-8; i-- {
		if r.uses[i] == u {
			return
		}
	}
	switch u.op {
	case useRead, useInsert, useUpdate, useDelete:
		if schemaTable(u.table) {
			return
		}
		if strings.HasPrefix(u.table, "sqlite_") && u.schema != "temp" { // statistics, with samples of values
			u = use{op: useAdmin, table: ofSQLite + u.table}
		} else if u.op != useRead && u.schema != "temp" {
			r.modifies = true
		}
	}
	if u.inner != "" {
		r.inner = true
	}
	r.uses = append(r.uses, u)
}
