package pgwire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"datawatch/internal/sql/sqlapi"
)

// COPY. Data travels line by line: memory holds one line and one buffer of the
// stream, whatever the length of the messages or of the whole.

// copyOf returns how the portal copies, nil when it does not.
func copyOf(p sqlapi.Portal) (sqlapi.Copier, *sqlapi.Copy) {
	if cp, ok := p.(sqlapi.Copier); ok {
		if f := cp.Copy(); f != nil {
			return cp, f
		}
	}
	return nil, nil
}

// runCopy executes a COPY portal.
func (c *conn) runCopy(ctx context.Context, p *portal, cp sqlapi.Copier, f *sqlapi.Copy) error {
	if f.In {
		return c.copyIn(ctx, p, cp, f)
	}
	c.out = appendCopyResponse(c.buf(), 'H', f)
	w := copyWriter{c: c, f: f}
	row := w.row
	switch {
	case f.Binary:
		w.binaryHeader()
		row = w.binaryRow
	case f.Header:
		w.header()
	}
	tag, _, err := p.portal.Run(ctx, 0, row)
	if err != nil {
		return err
	}
	if p.done = true; f.Binary {
		w.binaryEnd()
	}
	c.out = appendComplete(appendEmpty(c.buf(), 'c'), tag)
	return nil
}

func appendCopyResponse(b []byte, typ byte, f *sqlapi.Copy) []byte {
	b, at := begin(b, typ)
	format := byte(0)
	if f.Binary {
		format = 1
	}
	b = append(b, format)
	b = binary.BigEndian.AppendUint16(b, uint16(len(f.Columns)))
	for range f.Columns {
		b = append(b, 0, format)
	}
	return finish(b, at)
}

// copyWriter makes lines of rows.
type copyWriter struct {
	c   *conn
	f   *sqlapi.Copy
	tmp []byte
}

func (w *copyWriter) header() {
	b, at := begin(w.c.buf(), 'd')
	for i := range w.f.Columns {
		if i > 0 {
			b = append(b, w.f.Delimiter)
		}
		b = w.field(b, []byte(w.f.Columns[i].Name))
	}
	w.c.out = finish(append(b, '\n'), at)
}

func (w *copyWriter) row(r sqlapi.Row) error {
	b, at := begin(w.c.buf(), 'd')
	for i := range w.f.Columns {
		if i > 0 {
			b = append(b, w.f.Delimiter)
		}
		if r.Kind(i) == sqlapi.Null {
			b = append(b, w.f.Null...)
			continue
		}
		w.tmp = appendText(w.tmp[:0], r, i, &w.f.Columns[i])
		b = w.field(b, w.tmp)
	}
	w.c.out = finish(append(b, '\n'), at)
	if cap(w.tmp) > keepOut {
		w.tmp = nil
	}
	if len(w.c.out) >= flushAt {
		return w.c.flush()
	}
	return nil
}

func (w *copyWriter) field(b, v []byte) []byte {
	if w.f.CSV {
		return w.csv(b, v)
	}
	for _, ch := range v {
		switch ch {
		case '\b':
			b = append(b, '\\', 'b')
		case '\f':
			b = append(b, '\\', 'f')
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		case '\v':
			b = append(b, '\\', 'v')
		case '\\', w.f.Delimiter:
			b = append(b, '\\', ch)
		default:
			b = append(b, ch)
		}
	}
	return b
}

func (w *copyWriter) csv(b, v []byte) []byte {
	f := w.f
	quote := string(v) == f.Null || len(f.Columns) == 1 && string(v) == `\.`
	for _, ch := range v {
		quote = quote || ch == f.Delimiter || ch == f.Quote || ch == '\n' || ch == '\r'
	}
	if !quote {
		return append(b, v...)
	}
	b = append(b, f.Quote)
	for _, ch := range v {
		if ch == f.Quote || ch == f.Escape {
			b = append(b, f.Escape)
		}
		b = append(b, ch)
	}
	return append(b, f.Quote)
}

// copyIn executes COPY FROM STDIN.
func (c *conn) copyIn(ctx context.Context, p *portal, cp sqlapi.Copier, f *sqlapi.Copy) error {
	r := &copyReader{c: c, f: f}
	tag, err := cp.CopyIn(ctx, r.next)
	if lerr := r.leave(); lerr != nil {
		return lerr
	}
	if err != nil {
		return err
	}
	p.done = true
	c.out = appendComplete(c.buf(), tag)
	return nil
}

// copyReader makes rows of the client's CopyData messages.
type copyReader struct {
	c *conn
	f *sqlapi.Copy

	begun bool
	stop  func() bool
	poked chan struct{}

	buf    []byte // data not consumed yet, from pos on
	pos    int
	scan   int  // how far buf was searched for the end of the line
	quoted bool // CSV: scan is inside quotes
	left   int  // of the message under way
	ended  bool // the client said CopyDone, or wrote \.
	done   bool // CopyDone was read
	lines  int
	start  bool // the header, if any, was read

	vals    []sqlapi.Value
	scratch []byte
}

// next returns the next row: see sqlapi.Copier.
func (r *copyReader) next(ctx context.Context) ([]sqlapi.Value, error) {
	if !r.begun {
		r.begun = true
		r.c.out = appendCopyResponse(r.c.buf(), 'G', r.f)
		r.c.rd.grow(keepRead)
		r.poked = make(chan struct{})
		r.stop = context.AfterFunc(ctx, func() { r.c.poke(); close(r.poked) })
	}
	if r.f.Binary {
		return r.binaryNext(ctx)
	}
	for {
		line, err := r.line(ctx)
		if err != nil {
			return nil, err
		}
		if !r.start {
			r.start = true
			if r.f.Header {
				if r.f.Match {
					if err := r.match(line); err != nil {
						return nil, r.where(err, "")
					}
				}
				continue
			}
		}
		return r.row(line)
	}
}

// where adds the place to an error in the data.
func (r *copyReader) where(err error, column string) error {
	e := *asError(err)
	e.Detail = strings.TrimSpace(fmt.Sprintf("%s COPY, line %d", e.Detail, r.lines))
	if column != "" {
		e.Detail += ", column " + column
	}
	e.Detail += "."
	return &e
}

// line returns the next line without its end; io.EOF after the last.
func (r *copyReader) line(ctx context.Context) ([]byte, error) {
	for {
		if line, ok := r.cut(); ok {
			r.lines++
			if string(line) == `\.` {
				r.ended, r.buf, r.pos, r.scan = true, nil, 0, 0
				return nil, r.drain(ctx)
			}
			return line, nil
		}
		if r.ended {
			if r.pos == len(r.buf) {
				return nil, io.EOF
			}
			line := r.buf[r.pos:]
			r.pos, r.scan = len(r.buf), len(r.buf)
			r.lines++
			if r.quoted {
				return nil, r.where(sqlErr("22P04", "unterminated CSV quoted field"), "")
			}
			if string(line) == `\.` {
				return nil, io.EOF
			}
			return line, nil
		}
		if len(r.buf)-r.pos > r.c.srv.MaxMessage {
			r.lines++
			return nil, r.where(sqlErr("54000", fmt.Sprintf("a line of COPY is longer than %d bytes", r.c.srv.MaxMessage)), "")
		}
		if err := r.fill(ctx); err != nil {
			return nil, err
		}
	}
}

// cut finds the end of the line in what is buffered.
func (r *copyReader) cut() ([]byte, bool) {
	b := r.buf
	i := r.scan
	for i < len(b) {
		ch := b[i]
		if r.f.CSV {
			switch {
			case r.quoted && ch == r.f.Escape && r.f.Escape != r.f.Quote:
				if i+1 == len(b) && !r.ended {
					r.scan = i
					return nil, false
				}
				if i+1 < len(b) && (b[i+1] == r.f.Quote || b[i+1] == r.f.Escape) {
					i++
				}
			case ch == r.f.Quote:
				r.quoted = !r.quoted
			case ch == '\n' && !r.quoted:
				return r.found(i), true
			}
		} else {
			switch ch {
			case '\\':
				if i+1 == len(b) && !r.ended {
					r.scan = i
					return nil, false
				}
				i++
			case '\n':
				return r.found(i), true
			}
		}
		i++
	}
	r.scan = min(i, len(b))
	return nil, false
}

func (r *copyReader) found(i int) []byte {
	line := r.buf[r.pos:i]
	r.pos, r.scan = i+1, i+1
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line
}

// fill reads more of the stream into buf.
func (r *copyReader) fill(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if r.pos > 0 {
		n := copy(r.buf, r.buf[r.pos:])
		r.buf, r.scan, r.pos = r.buf[:n], r.scan-r.pos, 0
		if n == 0 && cap(r.buf) > 4*keepRead {
			r.buf = nil
		}
	}
	rd := &r.c.rd
	for r.left == 0 {
		typ, n, err := r.head(ctx)
		if err != nil {
			return err
		}
		switch typ {
		case 'd':
			r.left = n
			if n == 0 {
				continue
			}
		case 'c':
			r.ended, r.done = true, true
			if len(r.buf) > 0 && !r.f.CSV && r.scan < len(r.buf) {
				r.scan = len(r.buf) // a lone backslash at the very end
			}
			return rd.discard(n)
		case 'f':
			return r.failed(n)
		case 'H', 'S': // allowed, and ignored
			if err := rd.discard(n); err != nil {
				return err
			}
		case 'X':
			return errClose
		default:
			if err := rd.discard(n); err != nil {
				return err
			}
			r.done = true
			return sqlErr("08P01", fmt.Sprintf("unexpected message type 0x%02X during COPY from stdin", typ))
		}
	}
	if err := r.need(ctx, 1); err != nil {
		return err
	}
	n := min(r.left, rd.buffered())
	r.buf = append(r.buf, rd.buf[rd.r:rd.r+n]...)
	rd.r += n
	r.left -= n
	return nil
}

// head reads the head of a message: its type and how long its body is.
func (r *copyReader) head(ctx context.Context) (typ byte, n int, err error) {
	if err := r.need(ctx, 5); err != nil {
		return 0, 0, err
	}
	rd := &r.c.rd
	typ, n = rd.buf[rd.r], int(binary.BigEndian.Uint32(rd.buf[rd.r+1:]))
	if n < 4 || n > maxDiscarded {
		return 0, 0, fatal(errLostFrame, fmt.Sprintf("invalid length %d of message %q", n, typ))
	}
	rd.r += 5
	return typ, n - 4, nil
}

// failed is CopyFail: the client gives up, and says why.
func (r *copyReader) failed(n int) error {
	r.done = true
	if n > maxSmall {
		if err := r.c.rd.discard(n); err != nil {
			return err
		}
		return sqlErr("57014", "COPY from stdin failed")
	}
	rd := &r.c.rd
	if err := rd.need(n); err != nil {
		return err
	}
	m := body{b: rd.buf[rd.r : rd.r+n]}
	rd.r += n
	return sqlErr("57014", "COPY from stdin failed: "+strings.ToValidUTF8(string(m.cstr()), "?"))
}

// need waits for n bytes of the stream; ctx interrupts it.
func (r *copyReader) need(ctx context.Context, n int) error {
	rd := &r.c.rd
	if rd.buffered() >= n {
		return nil
	}
	if err := r.c.flush(); err != nil {
		return err
	}
	for {
		err := rd.need(n)
		var ne net.Error
		switch {
		case err == nil:
			return nil
		case !errors.As(err, &ne) || !ne.Timeout():
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		if e := r.c.terminated(); e != nil {
			return e
		}
		// Woken for something that can wait until the statement ends.
		r.c.nc.SetReadDeadline(time.Time{})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// drain reads what follows \. up to CopyDone; the data end there.
func (r *copyReader) drain(ctx context.Context) error {
	for !r.done {
		if r.left > 0 {
			if err := r.need(ctx, 1); err != nil {
				return err
			}
			n := min(r.left, r.c.rd.buffered())
			r.c.rd.r += n
			r.left -= n
			continue
		}
		if err := r.fill(ctx); err != nil {
			return err
		}
		r.buf = r.buf[:0]
	}
	return io.EOF
}

// leave brings the stream back to where a message starts; what the client
// still sends is skipped by the loop.
func (r *copyReader) leave() error {
	if !r.begun {
		return nil
	}
	if !r.stop() {
		<-r.poked
		r.c.nc.SetReadDeadline(time.Time{})
		if e := r.c.terminated(); e != nil {
			return e
		}
	}
	if r.left > 0 {
		return r.c.rd.discard(r.left)
	}
	return nil
}
