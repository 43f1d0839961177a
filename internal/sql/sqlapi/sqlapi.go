// Package sqlapi is the contract between the PostgreSQL protocol (pgwire) and
// whatever executes statements (session): neither imports the other.
package sqlapi

import "context"

// Column describes one result column with PostgreSQL type numbers.
type Column struct {
	Name    string
	OID     uint32 // PostgreSQL type OID; 25 (text) when nothing better is known
	Size    int16  // -1 for variable length
	TypeMod int32  // -1 for none
	// Table is the number in pg_class of the table that the column is of, Number
	// its number there, from 1; 0 and 0 for an expression or a view's column.
	Table  uint32
	Number uint16
}

// Kind is the storage class of a value.
type Kind uint8

const (
	Null Kind = iota
	Integer
	Float
	Text
	Blob
)

// Row gives access to the current result row without copying. Text and Blob
// results are valid until the row function returns.
type Row interface {
	Kind(i int) Kind
	Int64(i int) int64
	Float64(i int) float64
	Bytes(i int) []byte // Text or Blob; also the text form of a number
}

// Value is a bound parameter. Exactly the field named by Kind is meaningful.
type Value struct {
	Kind  Kind
	Int   int64
	Float float64
	Bytes []byte // Text or Blob
}

// TxStatus is the byte of ReadyForQuery.
type TxStatus byte

const (
	TxIdle   TxStatus = 'I'
	TxActive TxStatus = 'T'
	TxFailed TxStatus = 'E'
)

// Error is a statement error as PostgreSQL clients see it. Every error a
// Session returns is, or wraps, one of these.
type Error struct {
	Severity string // ERROR, FATAL or PANIC; "" means ERROR
	Code     string // SQLSTATE, five characters
	Message  string
	Detail   string
	Hint     string
	Position int // 1-based character in the statement, 0 unknown
}

func (e *Error) Error() string { return e.Message + " (SQLSTATE " + e.Code + ")" }

// Info identifies a client at session start.
type Info struct {
	User       string
	Database   string
	App        string
	RemoteAddr string
	Params     map[string]string // all startup parameters
}

// Backend makes sessions and answers for users before there is one.
type Backend interface {
	// Login begins to authenticate a user. An error means that the address is
	// refused whoever the user is; everything that depends on the user comes
	// with Login.Result. User names are case-insensitive.
	Login(info LoginInfo) (Login, error)
	// NewSession makes a session; the error may be an *Error (53300 too many
	// connections, 57P03 cannot connect now ...).
	NewSession(ctx context.Context, info Info, notify Notify) (Session, error)
}

// LoginInfo says who wants to log in, and from where.
type LoginInfo struct {
	User, Database string
	RemoteAddr     string
	Local          bool // from the server's own host
	TLS            bool
	Internal       bool // not from the network: no address rule applies
}

// Login is one attempt to log in.
type Login interface {
	// Trusted: no password is asked for.
	Trusted() bool
	// Verifier is what the client is to prove a password against, in
	// PostgreSQL's form "SCRAM-SHA-256$iter:salt$stored:server". Unknown users
	// have one too, which nothing matches.
	Verifier() string
	// Result ends the attempt: proved says whether the client has proved the
	// password. Nil lets it in; otherwise the *Error is the answer. It may take
	// its time, so that passwords cannot be tried quickly.
	Result(ctx context.Context, proved bool) error
}

// Notify receives what the server says besides results: notices and changed
// run-time parameters (ParameterStatus). Called from within Session methods.
type Notify interface {
	Notice(e *Error)
	ParameterChanged(name, value string)
}

// Session is one client's state. Methods are called from one goroutine at a
// time; Cancel and Terminate from any.
type Session interface {
	// Split cuts a simple-query string into statements, comments kept with
	// the statement they precede; empty statements are dropped.
	Split(sql string) ([]string, error)
	// Prepare parses and describes one statement; sql may be empty (an empty
	// query). paramOIDs may be shorter than the number of parameters or hold
	// zeros: those types are inferred.
	Prepare(ctx context.Context, sql string, paramOIDs []uint32) (Stmt, error)
	// Final says that Sync follows the next Run at once: outside a transaction
	// that statement may commit by itself. A hint; Sync is called all the same.
	Final()
	// TxStatus is the status for ReadyForQuery.
	TxStatus() TxStatus
	// Sync ends an extended-protocol series: an implicit transaction is
	// committed, or rolled back when failed is true.
	Sync(ctx context.Context, failed bool) error
	// Parameters are the run-time parameters to report at start (server_version,
	// client_encoding, DateStyle, TimeZone, in_hot_standby,
	// default_transaction_read_only ...).
	Parameters() map[string]string
	// Cancel interrupts the running statement (57014).
	Cancel()
	// Terminate ends the session from outside with the given error, which
	// the running or next call returns; Done is closed then.
	Terminate(e *Error)
	Done() <-chan struct{}
	Close()
}

// Stmt is a prepared statement of one session.
type Stmt interface {
	ParamOIDs() []uint32
	// Columns is nil for a statement without a result.
	Columns() []Column
	// CopyIn and CopyOut tell that executing it switches to COPY; handled by
	// Portal.CopyIn / rows delivered as COPY text lines. False for most.
	Empty() bool
	// Bind makes a portal. Values are copied.
	Bind(params []Value) (Portal, error)
	Close()
}

// OwnedBinder is a Stmt that can take over the memory of values instead of copying
// it: a large value is in memory often enough.
type OwnedBinder interface {
	// BindOwned is Bind for values whose bytes nobody else changes any more. The
	// slice itself stays the caller's.
	BindOwned(params []Value) (Portal, error)
}

// Portal is a bound statement, perhaps half executed.
type Portal interface {
	// Run executes or continues it, calling row for each row, at most maxRows
	// (0: all). When rows remain, suspended is true and tag empty; otherwise
	// tag is the command tag ("INSERT 0 1", "SELECT 5", "BEGIN" ...). For a
	// writing statement outside a transaction Run returns only when the
	// commit is hardened (guarantees G1, G2).
	Run(ctx context.Context, maxRows int, row func(Row) error) (tag string, suspended bool, err error)
	// Columns may be more exact after binding; same length as Stmt.Columns.
	Columns() []Column
	Close()
}
