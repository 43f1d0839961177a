package session

import (
	"strings"

	"github.com/ncruces/go-sqlite3"

	"datawatch/internal/sql/sqlapi"
)

// authRecord is what a statement was seen to touch while it was prepared.
type authRecord struct {
	main   bool // writes the database
	temp   bool // writes temporary tables
	schema bool // changes the schema
	reads  []column
	denied *sqlapi.Error
}

type column struct{ table, name string }

// systemTable reports the server's own tables.
func systemTable(name string) bool {
	return strings.EqualFold(name, userTable) || strings.EqualFold(name, seqTable)
}

// userTable keeps the users; only the server itself reads or writes it.
const userTable = "SYSUSERS"

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

func (c *conn) authorize(action sqlite3.AuthorizerActionCode, name3, name4, schema, inner string) sqlite3.AuthorizerReturnCode {
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
		switch name3 {
		case "sqlite_master", "sqlite_temp_master", "sqlite_schema", "sqlite_temp_schema":
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
	switch action {
	case sqlite3.AUTH_READ:
		if systemTable(name3) {
			return deny("42501", "permission denied for table "+strings.ToUpper(name3))
		}
		if inner == "" && len(c.rec.reads) < 64 { // what a view reads has other names outside
			c.rec.reads = append(c.rec.reads, column{name3, name4})
		}
	case sqlite3.AUTH_INSERT, sqlite3.AUTH_UPDATE, sqlite3.AUTH_DELETE, sqlite3.AUTH_DROP_TABLE,
		sqlite3.AUTH_CREATE_TABLE, sqlite3.AUTH_DROP_VIEW:
		if systemTable(name3) {
			return deny("42501", "permission denied for table "+strings.ToUpper(name3))
		}
	case sqlite3.AUTH_ALTER_TABLE, sqlite3.AUTH_CREATE_INDEX, sqlite3.AUTH_CREATE_TRIGGER, sqlite3.AUTH_CREATE_TEMP_TRIGGER,
		sqlite3.AUTH_DROP_INDEX, sqlite3.AUTH_DROP_TRIGGER:
		if systemTable(name4) {
			return deny("42501", "permission denied for table "+strings.ToUpper(name4))
		}
	case sqlite3.AUTH_ATTACH, sqlite3.AUTH_DETACH:
		return deny("0A000", "ATTACH and DETACH are not supported: a commit over two databases would not be atomic")
	case sqlite3.AUTH_CREATE_VTABLE, sqlite3.AUTH_DROP_VTABLE:
		return deny("0A000", "virtual tables are not supported")
	case sqlite3.AUTH_FUNCTION:
		switch strings.ToLower(name4) {
		case "load_extension", "fts3_tokenizer", "writefile", "readfile", "edit":
			return deny("42501", "permission denied for function "+name4)
		}
	case sqlite3.AUTH_TRANSACTION, sqlite3.AUTH_SAVEPOINT:
		return deny("0A000", "this form of transaction control is not supported")
	case sqlite3.AUTH_PRAGMA:
		p := strings.ToLower(name3)
		if readPragmas[p] || bareReadPragmas[p] && name4 == "" {
			if (p == "user_version" || p == "application_id") && name4 != "" || p == "optimize" {
				c.rec.main = true
			}
			return sqlite3.AUTH_OK
		}
		return deny("42501", "PRAGMA "+name3+" is not permitted")
	}
	return sqlite3.AUTH_OK
}
