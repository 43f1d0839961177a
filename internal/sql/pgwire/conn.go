package pgwire

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xdg-go/scram"

	"datawatch/internal/sql/sqlapi"
)

// flushAt is how much output is gathered before it is written in the middle
// of a result; keepOut is the largest buffer that goes back to the pool.
const (
	flushAt = 32 << 10
	keepOut = 128 << 10
)

// outPool holds output buffers. A connection has one only while it answers.
var outPool = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

// conn is one client. Everything is owned by the goroutine of serve, except
// what is atomic or guarded by mu.
type conn struct {
	srv *Server
	nc  net.Conn // the TLS connection once there is one
	rd  reader

	pid, secret uint32
	running     atomic.Bool // a cancel request finds something to interrupt

	mu   sync.Mutex
	sess sqlapi.Session
	term *sqlapi.Error // set by terminate

	outBuf *[]byte // from outPool while out is in use
	out    []byte
	werr   error // first write error: the client is gone

	user    string
	binding scram.ChannelBinding // of the TLS connection, for SCRAM

	// extended protocol
	skip     bool // an error happened: ignore everything up to Sync
	series   bool // messages since the last ReadyForQuery
	stmts    map[string]*prepared
	portals  map[string]*portal
	unnamed  *prepared
	uportal  *portal
	spare    *portal // a closed portal kept for reuse
	vals     []sqlapi.Value
	pformats []int16
	scratch  []byte

	cur   *portal // whose rows sendRow sends
	rowFn func(sqlapi.Row) error
}

// Errors a connection says by itself.
var (
	errTooMany   = sqlapi.Error{Severity: "FATAL", Code: "53300", Message: "sorry, too many clients already", Hint: "MAX_SESSIONS of dm.ini is the limit."}
	errStarting  = sqlapi.Error{Severity: "FATAL", Code: "57P03", Message: "the database system is starting up"}
	errShutdown  = sqlapi.Error{Severity: "FATAL", Code: "57P01", Message: "terminating connection due to administrator command"}
	errLostFrame = "08P01"
)

// errClose ends the connection without another word.
var errClose = errors.New("close")

func fatal(code, msg string) *sqlapi.Error {
	return &sqlapi.Error{Severity: "FATAL", Code: code, Message: msg}
}

func sqlErr(code, msg string) *sqlapi.Error { return &sqlapi.Error{Code: code, Message: msg} }

// asError finds what to tell the client about err.
func asError(err error) *sqlapi.Error {
	var e *sqlapi.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return sqlErr("57014", "canceling statement: "+err.Error())
	}
	return sqlErr("XX000", err.Error())
}

// ends reports whether an error ends the connection.
func ends(e *sqlapi.Error) bool { return e.Severity == "FATAL" || e.Severity == "PANIC" }

// serve runs the connection to its end.
func (c *conn) serve(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer func() { c.nc.Close() }()
	c.rd.nc = c.nc
	c.rowFn = c.sendRow
	c.nc.SetDeadline(c.srv.Clock.Now().Add(c.srv.AuthTimeout))
	if !c.startup(ctx) {
		c.linger()
		return
	}
	defer func() {
		c.srv.sessions.Add(-1)
		c.srv.unregister(c)
		c.closeAll()
		c.sess.Close()
		c.srv.Log.Debug("SQL client gone", "pid", c.pid, "user", c.user)
	}()
	ended := make(chan struct{})
	var watch sync.WaitGroup
	watch.Add(1)
	go func() {
		defer watch.Done()
		select {
		case <-c.sess.Done():
			c.wake()
		case <-ended:
		}
	}()
	err := c.loop(ctx)
	close(ended)
	watch.Wait()
	if e := (*sqlapi.Error)(nil); errors.As(err, &e) {
		c.send(e)
		c.flush()
		c.linger()
	}
}

// linger lets the client read our last words: closing a socket with unread
// input resets the connection and may destroy them.
func (c *conn) linger() {
	cw, ok := c.nc.(interface{ CloseWrite() error })
	if !ok || c.werr != nil || c.srv.draining.Load() || cw.CloseWrite() != nil {
		return
	}
	c.nc.SetReadDeadline(c.srv.Clock.Now().Add(300 * time.Millisecond))
	c.rd.discard(256 << 10)
}

// wake unblocks a read, so that the loop looks at why, and bounds a write.
func (c *conn) wake() {
	c.nc.SetWriteDeadline(c.srv.Clock.Now().Add(closeGrace))
	c.poke()
}

// poke unblocks a read.
func (c *conn) poke() { c.conn().SetReadDeadline(time.Unix(1, 0)) }

// conn is nc for other goroutines: startup may replace it by a TLS one.
func (c *conn) conn() net.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nc
}

// terminate ends the connection from outside: the running statement is
// interrupted, the client is told e.
func (c *conn) terminate(e *sqlapi.Error) {
	c.mu.Lock()
	if c.term == nil {
		c.term = e
	}
	sess, nc := c.sess, c.nc
	c.mu.Unlock()
	if sess != nil {
		sess.Terminate(e)
	}
	nc.SetWriteDeadline(c.srv.Clock.Now().Add(closeGrace))
	nc.SetReadDeadline(time.Unix(1, 0))
}

func (c *conn) terminated() *sqlapi.Error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.term
}

// why says what ended or interrupted a read: an error for the client, or nil
// when reading should go on.
func (c *conn) why(ctx context.Context) error {
	if e := c.terminated(); e != nil {
		return e
	}
	select {
	case <-c.sess.Done():
		// The next call of the session returns what it was ended with.
		e := *asError(cmpErr(c.sess.Sync(ctx, true), &errShutdown))
		e.Severity = "FATAL"
		return &e
	default:
	}
	if c.srv.draining.Load() && c.sess.TxStatus() == sqlapi.TxIdle {
		return &errShutdown
	}
	return nil
}

func cmpErr(err, def error) error {
	if err == nil {
		return def
	}
	return err
}

// loop serves messages until the connection ends; an *sqlapi.Error is to be
// sent as the last message.
func (c *conn) loop(ctx context.Context) error {
	for {
		if c.rd.buffered() == 0 && !c.series {
			c.release()
			if c.srv.draining.Load() {
				if err := c.why(ctx); err != nil {
					return err
				}
			}
		}
		typ, b, err := c.rd.message(c.limit)
		if err != nil {
			if err = c.readError(ctx, err); err != nil {
				return err
			}
			continue
		}
		if c.skip && typ != 'S' && typ != 'X' {
			continue
		}
		c.running.Store(true)
		err = c.handle(ctx, typ, body{b: b})
		c.running.Store(false)
		if err == nil {
			err = c.werr
		}
		if err != nil {
			return err
		}
	}
}

// limit is the longest body of each message after authentication.
func (c *conn) limit(typ byte) int {
	switch typ {
	case 'Q', 'P', 'B', 'F':
		return c.srv.MaxMessage
	case 'C', 'D', 'E', 'H', 'S', 'X', 'c', 'f':
		return maxSmall
	case 'd':
		return 0 // outside of COPY: skipped without being kept
	}
	return -1
}

// readError decides what a failed read means; nil: go on.
func (c *conn) readError(ctx context.Context, err error) error {
	var long *tooLong
	var proto *protoError
	var ne net.Error
	switch {
	case errors.As(err, &long):
		if derr := c.rd.discard(long.n); derr != nil {
			return derr
		}
		if c.skip || long.typ == 'd' {
			return nil
		}
		e := sqlErr("54000", long.Error()+" is longer than this server accepts")
		if long.typ == 'Q' || long.typ == 'F' {
			return c.simpleError(ctx, e)
		}
		return c.extendedError(e)
	case errors.As(err, &proto):
		c.srv.Log.Warn("SQL client broke the protocol", "pid", c.pid, "user", c.user, "err", err)
		return fatal(errLostFrame, err.Error())
	case errors.As(err, &ne) && ne.Timeout():
		if err := c.why(ctx); err != nil {
			return err
		}
		// Draining while a transaction is open: let it end. The deadline is
		// lifted before the reasons are looked at again, so no poke is lost.
		c.nc.SetReadDeadline(time.Time{})
		return c.why(ctx)
	}
	if e := c.terminated(); e != nil {
		return e
	}
	return err
}

func (c *conn) handle(ctx context.Context, typ byte, m body) error {
	c.series = true
	switch typ {
	case 'Q':
		return c.query(ctx, m)
	case 'P':
		return c.parse(ctx, m)
	case 'B':
		return c.bind(m)
	case 'D':
		return c.describe(m)
	case 'E':
		return c.execute(ctx, m)
	case 'C':
		return c.closeMsg(m)
	case 'H':
		return c.flush()
	case 'S':
		return c.sync(ctx)
	case 'F':
		return c.simpleError(ctx, sqlErr("0A000", "function calls by message are not supported"))
	case 'X':
		return errClose
	}
	// CopyDone, CopyFail outside of COPY: the client may still be sending
	// what a failed COPY no longer reads. PostgreSQL ignores them too.
	return nil
}

// buf makes sure there is an output buffer.
func (c *conn) buf() []byte {
	if c.outBuf == nil {
		c.outBuf = outPool.Get().(*[]byte)
		c.out = (*c.outBuf)[:0]
	}
	return c.out
}

// release gives the output buffer back: an idle connection has none.
func (c *conn) release() {
	if c.outBuf == nil || len(c.out) > 0 {
		return
	}
	if cap(c.out) <= keepOut {
		*c.outBuf = c.out
		outPool.Put(c.outBuf)
	}
	c.outBuf, c.out = nil, nil
}

// flush writes everything gathered so far with one call.
func (c *conn) flush() error {
	if c.werr != nil {
		return c.werr
	}
	if len(c.out) == 0 {
		return nil
	}
	if _, err := c.nc.Write(c.out); err != nil {
		c.werr = err
	}
	if c.out = c.out[:0]; cap(c.out) > keepOut {
		c.out = make([]byte, 0, flushAt)
	}
	return c.werr
}

// send appends an ErrorResponse.
func (c *conn) send(e *sqlapi.Error) { c.out = appendError(c.buf(), 'E', e) }

// ready ends a series: ReadyForQuery and one write.
func (c *conn) ready() error {
	st := c.sess.TxStatus()
	if st == sqlapi.TxIdle && (len(c.portals) > 0 || c.uportal != nil) {
		c.closePortals()
	}
	c.out = appendReady(c.buf(), st)
	c.skip, c.series = false, false
	return c.flush()
}

// Notice sends a notice (sqlapi.Notify); called within a Session method.
func (c *conn) Notice(e *sqlapi.Error) { c.out = appendError(c.buf(), 'N', e) }

// ParameterChanged sends a changed run-time parameter (sqlapi.Notify).
func (c *conn) ParameterChanged(name, value string) {
	c.out = appendParameterStatus(c.buf(), name, value)
}
