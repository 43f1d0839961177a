package session

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"datawatch/internal/base"
	"datawatch/internal/sql/dialect"
	"datawatch/internal/sql/sqlapi"
	"datawatch/internal/sql/value"
)

// Stmt implements sqlapi.Stmt. It holds no connection.
type Stmt struct {
	s       *Session
	p       *parsed
	cols    []sqlapi.Column
	guessed []int // columns whose type is not known before the first row
	oids    []uint32
	write   bool // it writes something
	main    bool // it writes the database, not only temporary tables
	copy    *sqlapi.Copy
	targets []value.Type // what Bind makes of parameters, by number from 0; OID 0: nothing
	records bool         // it makes, drops or renames tables
}

// Prepare implements sqlapi.Session.
func (s *Session) Prepare(ctx context.Context, sql string, paramOIDs []uint32) (sqlapi.Stmt, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	st, err := s.prepare(sql, paramOIDs)
	if err != nil {
		return nil, s.fail(err, st)
	}
	return st, nil
}

func (s *Session) prepare(sql string, oids []uint32) (*Stmt, error) {
	st := &Stmt{s: s}
	p, err := s.b.parsed.parse(sql)
	if err != nil {
		st.p = &parsed{Statement: &dialect.Statement{Text: sql, SQL: sql}}
		return st, err
	}
	st.p = p
	if s.tx.failed && p.Kind != dialect.Empty && !endsFailed(p.Kind) {
		return st, s.aborted()
	}
	if p.Kind == dialect.Copy {
		return s.prepareCopy(p)
	}
	if p.Kind != dialect.SQL {
		st.cols = s.utilityColumns(p)
		st.oids = make([]uint32, p.n)
		copy(st.oids, oids)
		for i := range st.oids {
			if st.oids[i] == 0 {
				st.oids[i] = dialect.Text
			}
		}
		return st, nil
	}
	c, release, err := s.describeConn(p)
	if err != nil {
		return st, err
	}
	defer release()
	c.fresh()
	if p, st.targets, err = c.adapt(p); err != nil {
		return st, err
	}
	st.p = p
	cs, err := c.prepare(p.SQL)
	if err != nil {
		return st, s.notHere(c, p, err)
	}
	defer c.done(cs)
	st.write, st.records = !cs.readOnly, cs.rec.records()
	st.main = st.write && (cs.rec.main || !cs.rec.temp)
	st.describe(c, cs, oids)
	st.paramTypes(c, cs, oids)
	if s.tx.locked && s.tx.base > 0 && s.b.ddlLSN.Load() > 0 { // the schema as somebody has just made it
		if err := s.b.cfg.DB.WaitHardened(s.ctx, base.LSN(s.b.ddlLSN.Load())); err != nil {
			return st, fmt.Errorf("wait until the schema is secured: %w", err)
		}
	}
	return st, nil
}

// notHere explains an error on the connection without a database.
func (s *Session) notHere(c *conn, p *parsed, err error) error {
	if c.kind == emptyConn && strings.Contains(err.Error(), "no such table") {
		return s.b.notOpen()
	}
	return err
}

// describeConn is a connection on which the statement can be prepared now.
func (s *Session) describeConn(p *parsed) (*conn, func(), error) {
	if s.tx.c != nil {
		return s.tx.c, func() {}, nil
	}
	if !s.b.tables() {
		c, err := s.b.empty.get(s.ctx)
		if err != nil {
			return nil, nil, err
		}
		c.use(s)
		return c, func() { s.giveBack(c) }, nil
	}
	if s.own != nil {
		s.own.use(s)
		return s.own, s.own.unuse, nil
	}
	c, err := s.reader()
	if err != nil {
		return nil, nil, err
	}
	return c, func() { s.giveBack(c) }, nil
}

// describe finds names and types of the result columns.
func (st *Stmt) describe(c *conn, cs *cstmt, oids []uint32) {
	if cs.ncols == 0 {
		return
	}
	st.cols = make([]sqlapi.Column, cs.ncols-st.p.Hidden)
	items := place(st.p.items, len(st.cols))
	resolve := func(table, name string) dialect.Type {
		if n, ok := strings.CutPrefix(name, "$"); ok && table == "" {
			if i, err := strconv.Atoi(n); err == nil && i > 0 && i <= len(oids) {
				return dialect.Type{OID: oids[i-1], Mod: -1}
			}
		}
		all := c.columnTypes(cs, st.p, table, name)
		if len(all) == 0 || slices.ContainsFunc(all, func(t dialect.Type) bool { return t != all[0] }) {
			return dialect.Type{Mod: -1}
		}
		return all[0]
	}
	for i := range st.cols {
		col := &st.cols[i]
		col.Name = cs.s.ColumnName(i)
		t := dialect.TypeOf(cs.s.ColumnDeclType(i))
		if items != nil && items[i] != nil {
			if items[i].Name != "" {
				col.Name = items[i].Name
			}
			// SQLite knows the type of a column, through views and subqueries
			// too, except in RETURNING: without one it is an expression there.
			if t.OID == 0 && (st.p.Rows || !items[i].Column()) {
				t = items[i].Type(resolve)
			}
		} else if t.OID == 0 && st.p.Rows {
			t = resolve("", col.Name)
		}
		if t.OID == dialect.Interval {
			t.OID = dialect.Text
		}
		if t.OID == 0 {
			st.guessed = append(st.guessed, i)
			t = dialect.Type{OID: dialect.Text, Mod: -1}
			if st.p.Tag == "PRAGMA" || st.p.Tag == "EXPLAIN" {
				t.Mod = -1
			}
		}
		col.OID, col.TypeMod, col.Size = t.OID, t.Mod, dialect.SizeOf(t.OID)
		if table := cs.s.ColumnTableName(i); table != "" && cs.s.ColumnDatabaseName(i) == "main" {
			if ti := c.table(table); ti != nil && ti.oid != 0 {
				col.Table, col.Number = ti.oid, ti.number[fold(cs.s.ColumnOriginName(i))]
			}
		}
	}
}

// place assigns select-list items to n columns; one * stands for as many as
// are missing.
func place(items []dialect.Item, n int) []*dialect.Item {
	if len(items) == 0 {
		return nil
	}
	out := make([]*dialect.Item, n)
	star := -1
	for i := range items {
		if items[i].Star {
			if star >= 0 {
				return nil
			}
			star = i
		}
	}
	if star < 0 && len(items) != n || len(items)-1 > n {
		return nil
	}
	for i := range items {
		switch {
		case star < 0 || i < star:
			out[i] = &items[i]
		case i > star:
			out[n-len(items)+i] = &items[i]
		}
	}
	return out
}

// columnTypes looks a column up in the tables that the statement reads: those
// that the text names come before those that foreign keys look into.
func (c *conn) columnTypes(cs *cstmt, p *parsed, table, name string) (all []dialect.Type) {
	add := func(table string) { all = append(all, c.columnType(table, name)) }
	if table != "" {
		add(table)
		return all
	}
	named := p.TableNames()
	for _, want := range []bool{true, false} {
		for _, r := range cs.rec.reads {
			if strings.EqualFold(r.name, name) && containsFold(named, r.table) == want {
				add(r.table)
			}
		}
		if len(all) > 0 {
			return all
		}
	}
	if p.Rows || strings.EqualFold(name, "rowid") {
		for _, table := range named {
			if add(table); all[len(all)-1].OID != 0 { // the first is what is written
				return all[len(all)-1:]
			}
			all = nil
		}
	}
	return all
}

// columnType is the declared type of a column of a table or view; OID 0: there
// is none, or no such column.
func (c *conn) columnType(table, name string) dialect.Type {
	if decl, _, _, _, _, err := c.db.TableColumnMetadata("", table, name); err == nil {
		return dialect.TypeOf(decl)
	}
	if col := c.table(table).column(name, 0); col != nil { // of a view
		return col.typ
	}
	return dialect.Type{Mod: -1}
}

func containsFold(names []string, name string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
}

// paramTypes: what the client said, else what the text shows, else text.
func (st *Stmt) paramTypes(c *conn, cs *cstmt, oids []uint32) {
	n := max(cs.nparams, len(oids))
	if n == 0 {
		return
	}
	st.oids = make([]uint32, n)
	copy(st.oids, oids)
	for i := range st.oids {
		if st.oids[i] != 0 && st.oids[i] != 705 {
			continue
		}
		h := st.p.hints[i+1]
		t := h.Type
		switch {
		case t.OID != 0:
		case h.Table != "":
			t = c.insertType(h)
		case h.Column != "":
			if all := c.columnTypes(cs, st.p, "", h.Column); len(all) > 0 {
				t = all[0]
			}
		}
		if t.OID == dialect.Interval {
			t.OID = dialect.Text
		}
		if h.Array {
			t = dialect.ArrayOf(t)
		}
		if t.OID == 0 {
			t.OID = dialect.Text
		}
		st.oids[i] = t.OID
	}
}

// insertType is the type of the column an INSERT puts a parameter into.
func (c *conn) insertType(h dialect.ParamHint) dialect.Type {
	if h.Column != "" {
		return c.columnType(h.Table, h.Column)
	}
	t := dialect.Type{Mod: -1}
	cs, err := c.prepare("SELECT type FROM pragma_table_info($1) WHERE cid = $2")
	if err != nil {
		return t
	}
	defer c.done(cs)
	cs.bind([]sqlapi.Value{{Kind: sqlapi.Text, Bytes: []byte(h.Table)}, {Kind: sqlapi.Integer, Int: int64(h.Pos - 1)}})
	if more, err := c.step(cs); more && err == nil {
		t = dialect.TypeOf(cs.s.ColumnText(0))
	}
	return t
}

// ParamOIDs implements sqlapi.Stmt.
func (st *Stmt) ParamOIDs() []uint32 {
	if st.copy != nil {
		return nil
	}
	return st.oids
}

// Columns implements sqlapi.Stmt.
func (st *Stmt) Columns() []sqlapi.Column {
	if st.copy != nil {
		return nil
	}
	return st.cols
}

// Empty implements sqlapi.Stmt.
func (st *Stmt) Empty() bool { return st.p.Kind == dialect.Empty }

// Close implements sqlapi.Stmt.
func (st *Stmt) Close() {}

// Bind implements sqlapi.Stmt.
func (st *Stmt) Bind(params []sqlapi.Value) (sqlapi.Portal, error) {
	p := &Portal{st: st, s: st.s}
	if len(params) > 0 {
		p.params = make([]sqlapi.Value, len(params))
		total := 0
		for i := range params {
			total += len(params[i].Bytes)
		}
		buf := make([]byte, 0, total)
		for i, v := range params {
			if v.Bytes != nil {
				at := len(buf)
				buf = append(buf, v.Bytes...)
				v.Bytes = buf[at:len(buf):len(buf)]
			}
			p.params[i] = v
		}
	}
	return st.fitted(p)
}

// BindOwned implements sqlapi.OwnedBinder.
func (st *Stmt) BindOwned(params []sqlapi.Value) (sqlapi.Portal, error) {
	return st.fitted(&Portal{st: st, s: st.s, params: slices.Clone(params)})
}

// fitted brings the parameters to the types of their columns.
func (st *Stmt) fitted(p *Portal) (sqlapi.Portal, error) {
	if err := fit(st.targets, p.params); err != nil {
		return nil, err
	}
	return p, nil
}

// endsFailed: what is allowed in a failed transaction.
func endsFailed(k dialect.Kind) bool {
	return k == dialect.Rollback || k == dialect.Commit || k == dialect.RollbackTo
}

// tag is the command tag after n rows.
func (st *Stmt) tag(n int64) string {
	if st.copy != nil {
		return "COPY " + strconv.FormatInt(n, 10)
	}
	switch st.p.Tag {
	case "SELECT", "EXPLAIN", "PRAGMA":
		return "SELECT " + strconv.FormatInt(n, 10)
	case "INSERT":
		return "INSERT 0 " + strconv.FormatInt(n, 10)
	}
	if st.p.Rows {
		return st.p.Tag + " " + strconv.FormatInt(n, 10)
	}
	return st.p.Tag
}
