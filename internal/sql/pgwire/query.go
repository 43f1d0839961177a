package pgwire

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf8"

	"datawatch/internal/sql/sqlapi"
)

const (
	// What one connection may keep prepared or open: its memory is bounded.
	maxPrepared = 16384
	maxPortals  = 4096
)

// prepared is a statement under a name. Portals may outlive its name.
type prepared struct {
	stmt    sqlapi.Stmt
	oids    []uint32
	refs    int
	dropped bool
}

func (p *prepared) drop() {
	p.dropped = true
	p.unref(0)
}

func (p *prepared) unref(n int) {
	if p.refs -= n; p.refs == 0 && p.dropped && p.stmt != nil {
		p.stmt.Close()
		p.stmt = nil
	}
}

// portal is a bound statement.
type portal struct {
	from    *prepared
	portal  sqlapi.Portal
	cols    []sqlapi.Column
	formats []int16
	done    bool // ran to its end
}

func errInvalid(what string) error {
	return sqlErr("08P01", "invalid format of "+what+" message")
}

func errUTF8(what string) error {
	return sqlErr("22021", "invalid byte sequence for encoding \"UTF8\" in "+what)
}

// query is a simple query: every statement, then Sync and ReadyForQuery.
func (c *conn) query(ctx context.Context, m body) error {
	b := m.cstr()
	if !m.end() {
		return c.simpleError(ctx, errInvalid("Query"))
	}
	if !utf8.Valid(b) {
		return c.simpleError(ctx, errUTF8("the statement"))
	}
	c.closeUnnamed()
	sql := string(b)
	parts, err := c.sess.Split(sql)
	if err != nil {
		return c.simpleError(ctx, err)
	}
	if len(parts) == 0 {
		c.out = appendEmpty(c.buf(), 'I')
	}
	off := 0
	for _, part := range parts {
		if i := strings.Index(sql[off:], part); i >= 0 {
			off += i
		}
		if err := c.queryOne(ctx, part); err != nil {
			if c.werr != nil {
				return c.werr
			}
			e := asError(err)
			if e.Position > 0 && off > 0 {
				moved := *e
				moved.Position += utf8.RuneCountInString(sql[:off])
				e = &moved
			}
			return c.simpleError(ctx, e)
		}
		off += min(len(part), len(sql)-off)
	}
	if err := c.sess.Sync(ctx, false); err != nil {
		e := asError(err)
		if ends(e) {
			return e
		}
		c.send(e)
	}
	return c.ready()
}

func (c *conn) queryOne(ctx context.Context, sql string) error {
	st, err := c.sess.Prepare(ctx, sql, nil)
	if err != nil {
		return err
	}
	defer st.Close()
	if st.Empty() {
		c.out = appendEmpty(c.buf(), 'I')
		return nil
	}
	if n := len(st.ParamOIDs()); n > 0 {
		return sqlErr("42P02", "there is no parameter $1: a simple query has none")
	}
	p, err := st.Bind(nil)
	if err != nil {
		return err
	}
	defer p.Close()
	cur := portal{portal: p, cols: p.Columns()}
	if cur.cols != nil {
		c.out = appendRowDescription(c.buf(), cur.cols, nil)
	}
	_, err = c.run(ctx, &cur, 0)
	return err
}

// run executes a portal and appends its rows and how it ended.
func (c *conn) run(ctx context.Context, p *portal, maxRows int) (suspended bool, err error) {
	if cp, f := copyOf(p.portal); f != nil {
		return false, c.runCopy(ctx, p, cp, f)
	}
	c.cur = p
	tag, suspended, err := p.portal.Run(ctx, maxRows, c.rowFn)
	c.cur = nil
	switch {
	case err != nil:
		return false, err
	case suspended:
		c.out = appendEmpty(c.buf(), 's')
	default:
		p.done = true
		c.out = appendComplete(c.buf(), tag)
	}
	return suspended, nil
}

// sendRow appends one DataRow straight from the storage engine's memory.
func (c *conn) sendRow(r sqlapi.Row) error {
	p := c.cur
	b, at := begin(c.buf(), 'D')
	b = binary.BigEndian.AppendUint16(b, uint16(len(p.cols)))
	for i := range p.cols {
		if r.Kind(i) == sqlapi.Null {
			b = append(b, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		pos := len(b)
		b = append(b, 0, 0, 0, 0)
		var err error
		if b, err = appendValue(b, r, i, &p.cols[i], format(p.formats, i)); err != nil {
			c.out = b[:at]
			return err
		}
		binary.BigEndian.PutUint32(b[pos:], uint32(len(b)-pos-4))
	}
	c.out = finish(b, at)
	if len(c.out) >= flushAt {
		return c.flush()
	}
	return nil
}

// simpleError ends a simple query (or a message answered like one) with err.
func (c *conn) simpleError(ctx context.Context, err error) error {
	e := asError(err)
	if ends(e) {
		return e
	}
	c.send(e)
	if serr := c.sess.Sync(ctx, true); serr != nil {
		if e := asError(serr); ends(e) {
			return e
		}
		c.srv.Log.Warn("end of a failed query", "pid", c.pid, "err", serr)
	}
	return c.ready()
}

// extendedError reports err; everything up to Sync is ignored.
func (c *conn) extendedError(err error) error {
	if c.werr != nil {
		return c.werr
	}
	e := asError(err)
	if ends(e) {
		return e
	}
	c.send(e)
	c.skip, c.series = true, true
	// The client may be waiting for it behind a Flush that will be ignored.
	return c.flush()
}

// parse prepares a statement.
func (c *conn) parse(ctx context.Context, m body) error {
	name, sql := m.cstr(), m.cstr()
	n := m.int16()
	if m.bad || len(m.b) != 4*n {
		return c.extendedError(errInvalid("Parse"))
	}
	var oids []uint32
	if n > 0 {
		oids = make([]uint32, n)
		for i := range oids {
			oids[i] = uint32(m.int32())
		}
	}
	switch {
	case !utf8.Valid(sql) || !utf8.Valid(name):
		return c.extendedError(errUTF8("the statement"))
	case len(name) == 0:
		if c.unnamed != nil {
			c.unnamed.drop()
			c.unnamed = nil
		}
	case c.stmts[string(name)] != nil:
		return c.extendedError(sqlErr("42P05", fmt.Sprintf("prepared statement %q already exists", name)))
	case len(c.stmts) >= maxPrepared:
		return c.extendedError(&sqlapi.Error{Code: "53400", Message: fmt.Sprintf("more than %d prepared statements in one session", maxPrepared), Hint: "Close those that are no longer used."})
	}
	st, err := c.sess.Prepare(ctx, string(sql), oids)
	if err != nil {
		return c.extendedError(err)
	}
	p := &prepared{stmt: st, oids: st.ParamOIDs()}
	if len(name) == 0 {
		c.unnamed = p
	} else {
		if c.stmts == nil {
			c.stmts = make(map[string]*prepared)
		}
		c.stmts[string(name)] = p
	}
	c.out = appendEmpty(c.buf(), '1')
	return nil
}

func (c *conn) stmt(name []byte) (*prepared, error) {
	p := c.unnamed
	if len(name) > 0 {
		p = c.stmts[string(name)]
	}
	if p == nil {
		if len(name) == 0 {
			return nil, sqlErr("26000", "unnamed prepared statement does not exist")
		}
		return nil, sqlErr("26000", fmt.Sprintf("prepared statement %q does not exist", name))
	}
	return p, nil
}

func (c *conn) portal(name []byte) (*portal, error) {
	p := c.uportal
	if len(name) > 0 {
		p = c.portals[string(name)]
	}
	if p == nil {
		return nil, sqlErr("34000", fmt.Sprintf("portal %q does not exist", name))
	}
	return p, nil
}

// formatCodes reads a counted list of format codes into dst.
func formatCodes(m *body, dst []int16) ([]int16, error) {
	n := m.int16()
	if 2*n > len(m.b) {
		m.fail()
		return dst, nil
	}
	for range n {
		f := m.int16()
		if f > 1 {
			return dst, sqlErr("22023", fmt.Sprintf("unsupported format code: %d", f))
		}
		dst = append(dst, int16(f))
	}
	return dst, nil
}

// bind makes a portal of a prepared statement and its parameters.
func (c *conn) bind(m body) error {
	pname, sname := m.cstr(), m.cstr()
	var ferr error
	c.pformats, ferr = formatCodes(&m, c.pformats[:0])
	n := m.int16()
	if m.bad {
		return c.extendedError(errInvalid("Bind"))
	}
	if ferr != nil {
		return c.extendedError(ferr)
	}
	from, err := c.stmt(sname)
	if err != nil {
		return c.extendedError(err)
	}
	switch nf := len(c.pformats); {
	case nf > 1 && nf != n:
		return c.extendedError(sqlErr("08P01", fmt.Sprintf("bind message has %d parameter formats but %d parameters", nf, n)))
	case n != len(from.oids):
		return c.extendedError(sqlErr("08P01", fmt.Sprintf("bind message supplies %d parameters, but prepared statement %q requires %d", n, sname, len(from.oids))))
	}
	c.vals, c.scratch = c.vals[:0], c.scratch[:0]
	for i := range n {
		var v sqlapi.Value
		if l := m.int32(); l != -1 {
			raw := m.bytes(int(l))
			if m.bad {
				return c.extendedError(errInvalid("Bind"))
			}
			if v, c.scratch, err = decodeValue(c.scratch, from.oids[i], format(c.pformats, i), raw); err != nil {
				e := *asError(err)
				e.Detail = strings.TrimSpace(fmt.Sprintf("Parameter $%d. %s", i+1, e.Detail))
				return c.extendedError(&e)
			}
		}
		c.vals = append(c.vals, v)
	}
	p := c.spare
	if c.spare = nil; p == nil {
		p = new(portal)
	}
	*p = portal{from: from, formats: p.formats[:0]}
	p.formats, ferr = formatCodes(&m, p.formats)
	switch nf, nc := len(p.formats), len(from.stmt.Columns()); {
	case !m.end():
		return c.extendedError(errInvalid("Bind"))
	case ferr != nil:
		return c.extendedError(ferr)
	case nf > 1 && nf != nc:
		return c.extendedError(sqlErr("08P01", fmt.Sprintf("bind message has %d result formats but query has %d columns", nf, nc)))
	}
	switch {
	case len(pname) == 0:
		c.closePortal(c.uportal)
		c.uportal = nil
	case c.portals[string(pname)] != nil:
		return c.extendedError(sqlErr("42P03", fmt.Sprintf("portal %q already exists", pname)))
	case len(c.portals) >= maxPortals:
		return c.extendedError(sqlErr("53400", fmt.Sprintf("more than %d open portals in one session", maxPortals)))
	}
	size := 0
	for i := range c.vals {
		size += len(c.vals[i].Bytes)
	}
	own, ok := from.stmt.(sqlapi.OwnedBinder)
	if ok = ok && size >= largeMessage; ok {
		p.portal, err = own.BindOwned(c.vals)
		c.rd.give()
		c.scratch = nil
	} else {
		p.portal, err = from.stmt.Bind(c.vals)
	}
	clear(c.vals) // they point into the input
	if cap(c.scratch) > keepRead {
		c.scratch = nil
	}
	if err != nil {
		return c.extendedError(err)
	}
	p.cols = p.portal.Columns()
	from.refs++
	if len(pname) == 0 {
		c.uportal = p
	} else {
		if c.portals == nil {
			c.portals = make(map[string]*portal)
		}
		c.portals[string(pname)] = p
	}
	c.out = appendEmpty(c.buf(), '2')
	return nil
}

// describe answers for a statement or a portal.
func (c *conn) describe(m body) error {
	kind, name := m.byte(), m.cstr()
	if !m.end() || kind != 'S' && kind != 'P' {
		return c.extendedError(errInvalid("Describe"))
	}
	var cols []sqlapi.Column
	var formats []int16
	if kind == 'S' {
		p, err := c.stmt(name)
		if err != nil {
			return c.extendedError(err)
		}
		c.out = appendParameterDescription(c.buf(), p.oids)
		cols = p.stmt.Columns()
	} else {
		p, err := c.portal(name)
		if err != nil {
			return c.extendedError(err)
		}
		cols, formats = p.cols, p.formats
	}
	if cols == nil {
		c.out = appendEmpty(c.buf(), 'n')
	} else {
		c.out = appendRowDescription(c.buf(), cols, formats)
	}
	return nil
}

// execute runs a portal, or goes on with it.
func (c *conn) execute(ctx context.Context, m body) error {
	name := m.cstr()
	limit := m.int32()
	if !m.end() {
		return c.extendedError(errInvalid("Execute"))
	}
	p, err := c.portal(name)
	if err != nil {
		return c.extendedError(err)
	}
	switch {
	case p.from.stmt.Empty():
		c.out = appendEmpty(c.buf(), 'I')
		return nil
	case p.done && p.cols != nil:
		c.out = appendComplete(c.buf(), "SELECT 0")
		return nil
	case p.done:
		return c.extendedError(sqlErr("55000", fmt.Sprintf("portal %q cannot be run", name)))
	}
	if c.rd.next() == 'S' { // the usual series of a driver: one statement
		c.sess.Final()
	}
	if _, err = c.run(ctx, p, int(max(limit, 0))); err != nil {
		p.done = true
		return c.extendedError(err)
	}
	return nil
}

// closeMsg closes a statement, and the portals made of it, or a portal.
// Closing what does not exist is no error.
func (c *conn) closeMsg(m body) error {
	kind, name := m.byte(), m.cstr()
	if !m.end() || kind != 'S' && kind != 'P' {
		return c.extendedError(errInvalid("Close"))
	}
	switch p, _ := c.stmt(name); {
	case kind == 'P' && len(name) == 0:
		c.closePortal(c.uportal)
		c.uportal = nil
	case kind == 'P':
		c.closePortal(c.portals[string(name)])
		delete(c.portals, string(name))
	case p != nil:
		if c.uportal != nil && c.uportal.from == p {
			c.closePortal(c.uportal)
			c.uportal = nil
		}
		for n, q := range c.portals {
			if q.from == p {
				c.closePortal(q)
				delete(c.portals, n)
			}
		}
		p.drop()
		if len(name) == 0 {
			c.unnamed = nil
		} else {
			delete(c.stmts, string(name))
		}
	}
	c.out = appendEmpty(c.buf(), '3')
	return nil
}

// sync ends an extended series.
func (c *conn) sync(ctx context.Context) error {
	if err := c.sess.Sync(ctx, c.skip); err != nil {
		e := asError(err)
		if ends(e) {
			return e
		}
		c.send(e)
	}
	return c.ready()
}

func (c *conn) closePortal(p *portal) {
	if p == nil {
		return
	}
	p.portal.Close()
	p.from.unref(1)
	*p = portal{formats: p.formats[:0]}
	c.spare = p
}

// closePortals closes every portal: none outlives its transaction.
func (c *conn) closePortals() {
	c.closePortal(c.uportal)
	c.uportal = nil
	for n, p := range c.portals {
		c.closePortal(p)
		delete(c.portals, n)
	}
}

// closeUnnamed forgets the unnamed statement and portal, as a simple query does.
func (c *conn) closeUnnamed() {
	c.closePortal(c.uportal)
	c.uportal = nil
	if c.unnamed != nil {
		c.unnamed.drop()
		c.unnamed = nil
	}
}

func (c *conn) closeAll() {
	c.closePortals()
	c.closeUnnamed()
	for _, p := range c.stmts {
		p.drop()
	}
	c.stmts = nil
}
