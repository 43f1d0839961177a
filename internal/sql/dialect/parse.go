package dialect

import "strings"

// Kind says who executes a statement.
type Kind uint8

const (
	Empty              Kind = iota
	SQL                     // SQLite, with the text of Statement.SQL
	Begin                   // Modes
	Commit                  // Chain
	Rollback                // Chain
	Savepoint               // Name
	Release                 // Name
	RollbackTo              // Name
	Set                     // Name, Value, Default, Local
	Reset                   // Name ("ALL": every parameter)
	Show                    // Name ("ALL": every parameter)
	SetTransaction          // Modes
	SetCharacteristics      // Modes
	Discard                 // Name: ALL, PLANS, TEMP ...
	Deallocate              // Name ("ALL": every statement)
	LockTable               // NoWait, Tables
	Vacuum                  // Name: table or ""; Analyze; Verb "FULL"
	Analyze                 // Name: table or ""
	AlterDatabase           // Verb: MOUNT, OPEN, OPEN FORCE, SUSPEND, PRIMARY, STANDBY, NORMAL
	AddArchiveLog           // Value: the description
	Call                    // Name (upper case), Args, Select
	Backup                  // Backup
	Checkpoint              //
	Role                    // Role; Verb: CREATE USER ..., which a message may show
	Grant                   // Grant
	Reassign                // Tables: the owners of now; Name: the new one
	AlterOwner              // Name; Value: the new owner
	Comment                 // Verb: TABLE, VIEW, COLUMN, SEQUENCE; Name; Value: the column; Tables: the text; Default: none
	Unsupported             // Name: the feature
	NoOp                    // Tag: accepted, does nothing
	Copy                    // Copy
	Batch                   // Tables: statements executed as one; Name, Value: a table that is dropped or renamed by them, and its new name
	AlterTable              // Name; Value: the constraint to add; Tables: columns of a primary key
	Prepare                 // Name, Types, Value: the statement
	Execute                 // Name, Tables: the arguments, as expressions
	Declare                 // Cursor
	Fetch                   // Verb: FETCH or MOVE; Cursor
	CloseCursor             // Cursor
	Sequence                // Verb: CREATE, ALTER or DROP; Sequence
)

// Modes are the options of BEGIN and SET TRANSACTION; "" and nil: not given.
type Modes struct {
	Isolation  string // "read committed", "serializable" ...
	ReadOnly   *bool
	Concurrent bool // BEGIN CONCURRENT
}

// Arg is an argument of a procedure call. Exactly one of Param > 0 ($n), Null,
// or Text is meaningful; String tells 'x' from x.
type Arg struct {
	Param  int
	Null   bool
	String bool
	Text   string
}

// BackupSpec is BACKUP DATABASE (manual 7.1.2.2 and others).
type BackupSpec struct {
	Full       bool
	Name       string // TO name
	Dir        string // BACKUPSET 'dir'
	WithoutLog bool
}

// Statement is one recognised statement.
type Statement struct {
	Kind Kind
	Tag  string // command tag, without counts
	Text string // the statement as written

	Name, Value    string
	Verb           string
	Tables         []string
	Args           []Arg
	Modes          Modes
	Backup         BackupSpec
	Copy           *CopySpec
	Sequence       *SequenceSpec
	Types          []Type
	Cursor         *CursorSpec
	Alter          *AlterSpec      // AlterTable, when it is not a constraint to add
	Sequences      []*SequenceSpec // to be made with the table
	Renamed        *Rename
	Moves          bool // it drops or renames tables or columns, which sequences may belong to
	Role           *RoleSpec
	Grant          *GrantSpec
	Default, Local bool
	IfExists       bool
	Chain, Analyze bool
	NoWait         bool
	Select         bool // Call: written as SELECT F(...), so it returns a row

	SQL       string // Kind SQL: what SQLite gets
	ForUpdate bool   // the statement had FOR UPDATE: it takes the write lock
	Temp      bool   // it creates a temporary object
	Hidden    int    // the last columns of the result, which the client does not get
	Rows      bool   // INSERT, UPDATE ...: the tag ends with a count
	toks      []token
	edits     []edit
	sorted    []edit // as SQL was made of them
	late      []edit // that go around others at the same place
	expanded  string // the argument of _pg_expandarray
	casts     map[int]cast
	refused   string // found while rewriting: the feature that is not supported
}

// parser walks the tokens of one statement.
type parser struct {
	s    string
	toks []token
	i    int
}

func (p *parser) more() bool { return p.i < len(p.toks) }
func (p *parser) peek() token {
	if p.more() {
		return p.toks[p.i]
	}
	return token{kind: tOp, start: len(p.s), end: len(p.s)}
}
func (p *parser) accept(words ...string) bool {
	for k, w := range words {
		if p.i+k >= len(p.toks) || !p.toks[p.i+k].is(w) {
			return false
		}
	}
	p.i += len(words)
	return true
}
func (p *parser) any(words ...string) string {
	for _, w := range words {
		if p.accept(w) {
			return w
		}
	}
	return ""
}
func (p *parser) err() error { return unexpected(p.s, p.toks, p.i) }
func (p *parser) end(st *Statement) (*Statement, error) {
	if p.more() {
		return nil, p.err()
	}
	return st, nil
}
func (p *parser) name() (string, error) {
	if t := p.peek(); t.isName() {
		p.i++
		return t.name(), nil
	}
	return "", p.err()
}
func (p *parser) str() (string, error) {
	if t := p.peek(); t.kind == tString {
		p.i++
		return t.val, nil
	}
	return "", p.err()
}

// Parse recognises one statement, without the semicolon. The error is a
// *SyntaxError.
func Parse(s string) (*Statement, error) {
	toks, err := lex(s)
	if err != nil {
		return nil, err
	}
	for len(toks) > 0 && toks[len(toks)-1].is(";") {
		toks = toks[:len(toks)-1]
	}
	if len(toks) == 0 {
		return &Statement{Kind: Empty}, nil
	}
	p := &parser{s: s, toks: toks}
	st, err := p.parse()
	if err != nil {
		return nil, err
	}
	st.Text, st.toks = s, toks
	if st.Kind == SQL {
		if err := st.rewrite(); err != nil {
			return nil, err
		}
		if st.refused != "" {
			return unsupported(st.refused), nil
		}
	}
	return st, nil
}

func (p *parser) parse() (*Statement, error) {
	first := p.peek()
	if first.kind != tIdent {
		return p.sql()
	}
	p.i++
	switch first.up {
	case "BEGIN":
		p.any("TRANSACTION", "WORK", "DEFERRED", "IMMEDIATE", "EXCLUSIVE")
		p.any("TRANSACTION")
		return p.begin(&Statement{Kind: Begin, Tag: "BEGIN"})
	case "START":
		if !p.accept("TRANSACTION") {
			return nil, p.err()
		}
		return p.begin(&Statement{Kind: Begin, Tag: "START TRANSACTION"})
	case "COMMIT", "END":
		if p.peek().is("PREPARED") {
			return unsupported("two-phase commit (COMMIT PREPARED)"), nil
		}
		return p.finish(&Statement{Kind: Commit, Tag: "COMMIT"})
	case "ABORT":
		return p.finish(&Statement{Kind: Rollback, Tag: "ROLLBACK"})
	case "ROLLBACK":
		if p.peek().is("PREPARED") {
			return unsupported("two-phase commit (ROLLBACK PREPARED)"), nil
		}
		p.any("TRANSACTION", "WORK")
		if p.accept("TO") {
			p.accept("SAVEPOINT")
			return p.named(&Statement{Kind: RollbackTo, Tag: "ROLLBACK"})
		}
		return p.finish(&Statement{Kind: Rollback, Tag: "ROLLBACK"})
	case "SAVEPOINT":
		return p.named(&Statement{Kind: Savepoint, Tag: "SAVEPOINT"})
	case "RELEASE":
		p.accept("SAVEPOINT")
		return p.named(&Statement{Kind: Release, Tag: "RELEASE"})
	case "SET":
		return p.set()
	case "RESET":
		return p.reset()
	case "SHOW":
		return p.show()
	case "DISCARD":
		return p.named(&Statement{Kind: Discard, Tag: "DISCARD ALL"})
	case "DEALLOCATE":
		p.accept("PREPARE")
		return p.named(&Statement{Kind: Deallocate, Tag: "DEALLOCATE"})
	case "LOCK":
		return p.lock()
	case "VACUUM":
		return p.vacuum()
	case "ANALYZE", "ANALYSE":
		return p.analyze()
	case "CHECKPOINT":
		if !p.more() {
			return &Statement{Kind: Checkpoint, Tag: "CHECKPOINT"}, nil
		}
		return p.call(first, "CALL", false)
	case "CHECK":
		return p.check()
	case "BACKUP":
		return p.backup()
	case "CALL", "EXEC", "EXECUTE":
		t := p.peek()
		if !t.isName() {
			return nil, p.err()
		}
		if first.up == "EXECUTE" && !procedure(t) {
			return p.executeStmt()
		}
		p.i++
		return p.call(t, "CALL", false)
	case "SELECT":
		if t := p.peek(); procedure(t) && p.i+1 < len(p.toks) && p.toks[p.i+1].is("(") {
			if st := p.selectCall(); st != nil {
				return st, nil
			}
			p.i = 1
		}
	case "ALTER":
		switch {
		case p.accept("DATABASE"):
			return p.alterDatabase()
		case p.peek().in("USER", "ROLE"):
			return p.role("ALTER")
		case p.accept("VIEW"):
			if st := p.alterView(); st != nil {
				return st, nil
			}
		case p.accept("SYSTEM"):
			return p.alterSystem()
		case p.peek().is("SEQUENCE"):
			return p.sequence("ALTER")
		case p.accept("TABLE"):
			if st := p.alterTable(); st != nil {
				return st, nil
			}
		}
	case "COPY":
		return p.copyStmt()
	case "PREPARE":
		return p.prepareStmt()
	case "DECLARE":
		return p.declare()
	case "FETCH", "MOVE":
		return p.fetch(first.up)
	case "CLOSE":
		return p.closeCursor()
	case "LISTEN", "UNLISTEN", "NOTIFY", "CLUSTER", "MERGE", "SECURITY", "DO", "IMPORT", "REFRESH", "LOAD":
		return unsupported(first.up), nil
	case "COMMENT":
		return p.comment()
	case "ATTACH", "DETACH":
		return unsupported(first.up + " DATABASE"), nil
	case "GRANT", "REVOKE":
		return p.grant(first.up)
	case "REASSIGN":
		return p.reassign()
	case "CREATE", "DROP":
		if p.peek().in("USER", "ROLE") {
			return p.role(first.up)
		}
		if st, err := p.sequence(first.up); st != nil || err != nil {
			return st, err
		}
		if st := p.createDrop(first.up); st != nil {
			return st, nil
		}
	default:
		if procedure(first) && (p.peek().is("(") || !p.more()) {
			return p.call(first, "CALL", false)
		}
	}
	if l := p.list(); l != nil {
		tag := first.up + " " + strings.TrimSuffix(p.toks[1].up, ",")
		if first.up == "TRUNCATE" {
			tag = "TRUNCATE TABLE"
		}
		return &Statement{Kind: Batch, Tag: tag, Tables: l}, nil
	}
	p.i = 0
	return p.sql()
}

// createDrop refuses, by name, what SQLite would call a syntax error.
func (p *parser) createDrop(verb string) *Statement {
	switch w := p.peek(); {
	case w.in("GROUP", "SCHEMA", "DATABASE", "TABLESPACE", "FUNCTION", "PROCEDURE",
		"EXTENSION", "DOMAIN", "TYPE", "AGGREGATE", "OPERATOR", "RULE", "PUBLICATION", "SUBSCRIPTION", "POLICY",
		"CAST", "COLLATION", "CONVERSION", "LANGUAGE", "SERVER", "STATISTICS", "HUGE", "CLUSTER"):
		return unsupported(verb + " " + w.up)
	case w.is("MATERIALIZED"):
		return unsupported(verb + " MATERIALIZED VIEW")
	case w.is("VIRTUAL"):
		return unsupported(verb + " VIRTUAL TABLE")
	}
	return nil
}

func unsupported(feature string) *Statement { return &Statement{Kind: Unsupported, Name: feature} }

func (p *parser) named(st *Statement) (*Statement, error) {
	n, err := p.name()
	if err != nil {
		return nil, err
	}
	st.Name = n
	if st.Kind == Deallocate || st.Kind == Discard {
		if strings.EqualFold(n, "ALL") {
			st.Name = "ALL"
		}
		if st.Kind == Discard {
			st.Tag = "DISCARD " + strings.ToUpper(n)
		}
	}
	return p.end(st)
}

// finish parses the rest of COMMIT and ROLLBACK.
func (p *parser) finish(st *Statement) (*Statement, error) {
	p.any("TRANSACTION", "WORK")
	if p.accept("AND") {
		st.Chain = !p.accept("NO")
		if !p.accept("CHAIN") {
			return nil, p.err()
		}
	}
	return p.end(st)
}

// begin parses the options of BEGIN.
func (p *parser) begin(st *Statement) (*Statement, error) {
	if st.Modes.Concurrent = p.accept("CONCURRENT"); st.Modes.Concurrent {
		p.any("TRANSACTION") // SQLite's place for the word
	}
	return p.modes(st)
}

func (p *parser) modes(st *Statement) (*Statement, error) {
	yes, no := true, false
	for p.more() {
		switch {
		case p.accept("ISOLATION", "LEVEL", "READ", "COMMITTED"):
			st.Modes.Isolation = "read committed"
		case p.accept("ISOLATION", "LEVEL", "READ", "UNCOMMITTED"):
			st.Modes.Isolation = "read uncommitted"
		case p.accept("ISOLATION", "LEVEL", "REPEATABLE", "READ"):
			st.Modes.Isolation = "repeatable read"
		case p.accept("ISOLATION", "LEVEL", "SERIALIZABLE"):
			st.Modes.Isolation = "serializable"
		case p.accept("READ", "ONLY"):
			st.Modes.ReadOnly = &yes
		case p.accept("READ", "WRITE"):
			st.Modes.ReadOnly = &no
		case p.accept("DEFERRABLE"), p.accept("NOT", "DEFERRABLE"), p.accept(","):
		default:
			return nil, p.err()
		}
	}
	return st, nil
}
