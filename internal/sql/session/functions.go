package session

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/ncruces/go-sqlite3"

	"datawatch/internal/sql/sqlapi"
	"datawatch/internal/sql/value"
)

// timeLayout is how times are stored and shown; it sorts, and SQLite's date
// functions and CURRENT_TIMESTAMP use the same form.
const timeLayout = "2006-01-02 15:04:05.999999"

// versionText is what version() answers: drivers look for the first two words.
const versionText = "PostgreSQL " + serverVersion + " (Datawatch, on SQLite)"

// functions registers PostgreSQL's functions that clients ask for. Those that
// depend on the session look it up on the connection.
func (c *conn) functions() error {
	type f = sqlite3.ScalarFunction
	text := func(get func(s *Session) string) f {
		return func(ctx sqlite3.Context, _ ...sqlite3.Value) {
			if s := c.sess.Load(); s != nil {
				ctx.ResultText(get(s))
			} else {
				ctx.ResultText("")
			}
		}
	}
	user := text(func(s *Session) string { return s.currentUser() })
	sessionUser := text(func(s *Session) string { return s.vars.user })
	database := text(func(s *Session) string { return s.b.cfg.DatabaseName })
	now := text(func(s *Session) string { return s.now().UTC().Format(timeLayout) })
	at := func(layout string) f { // SQLite's own are of the statement
		return func(ctx sqlite3.Context, _ ...sqlite3.Value) {
			t := time.Now()
			if s := c.sess.Load(); s != nil {
				t = s.now()
			}
			ctx.ResultText(t.UTC().Format(layout))
		}
	}
	length := func(ctx sqlite3.Context, a ...sqlite3.Value) {
		if a[0].Type() == sqlite3.NULL {
			ctx.ResultNull()
			return
		}
		ctx.ResultInt(len([]rune(a[0].Text())))
	}
	const inn, det = sqlite3.INNOCUOUS, sqlite3.INNOCUOUS | sqlite3.DETERMINISTIC
	for _, d := range []struct {
		name string
		n    int
		flag sqlite3.FunctionFlag
		fn   f
	}{
		{"current_user", 0, inn, user}, {"session_user", 0, inn, sessionUser}, {"current_role", 0, inn, user},
		{"current_database", 0, inn, database}, {"current_catalog", 0, inn, database},
		{"current_schema", 0, inn, func(ctx sqlite3.Context, _ ...sqlite3.Value) { ctx.ResultText("public") }},
		{"version", 0, det, func(ctx sqlite3.Context, _ ...sqlite3.Value) { ctx.ResultText(versionText) }},
		{"age", 1, inn, func(ctx sqlite3.Context, a ...sqlite3.Value) {
			if a[0].Type() == sqlite3.NULL {
				return
			}
			t, err := value.ReadStamp(a[0].RawText())
			if err != nil {
				ctx.ResultError(coded(err))
				return
			}
			now := time.Now().UTC()
			if s := c.sess.Load(); s != nil {
				now = s.now().UTC()
			}
			midnight := value.Stamp{Days: value.DaysOf(int64(now.Year()), int64(now.Month()), int64(now.Day())), HasDate: true}
			ctx.ResultText(midnight.Age(t).String())
		}},
		{"now", 0, inn, now}, {"transaction_timestamp", 0, inn, now}, {"statement_timestamp", 0, inn, now},
		{"clock_timestamp", 0, inn, c.drawn("clock_timestamp", func() string { return time.Now().UTC().Format(timeLayout) })},
		{"current_timestamp", 0, inn, at(time.DateTime)}, {"current_date", 0, inn, at(time.DateOnly)}, {"current_time", 0, inn, at(time.TimeOnly)},
		{"pg_is_in_recovery", 0, inn, func(ctx sqlite3.Context, _ ...sqlite3.Value) { ctx.ResultBool(c.b.standby()) }},
		{"pg_backend_pid", 0, inn, func(ctx sqlite3.Context, _ ...sqlite3.Value) {
			if s := c.sess.Load(); s != nil {
				ctx.ResultInt64(int64(s.id))
			}
		}},
		{"pg_cancel_backend", 1, sqlite3.DIRECTONLY, c.control(false)}, {"pg_terminate_backend", 1, sqlite3.DIRECTONLY, c.control(true)},
		{"pg_terminate_backend", 2, sqlite3.DIRECTONLY, c.control(true)}, {"pg_blocking_pids", 1, inn, c.blocking},
		{"pg_postmaster_start_time", 0, inn, func(ctx sqlite3.Context, _ ...sqlite3.Value) {
			ctx.ResultText(c.b.started.UTC().Format(timeLayout))
		}},
		{"current_setting", 1, inn, c.currentSetting}, {"current_setting", 2, inn, c.currentSetting},
		{"set_config", 3, sqlite3.DIRECTONLY, c.setConfig},
		{"pg_sleep", 1, sqlite3.DIRECTONLY, c.sleep},
		{"char_length", 1, det, length}, {"character_length", 1, det, length},
		{"gen_random_uuid", 0, inn, c.drawn("gen_random_uuid", randomUUID)},
		{"dw_assign", 3, det, sqlFunction(assign)}, {"dw_check", 3, det, sqlFunction(checkType)}, {"dw_cast", 3, det, sqlFunction(castTo)},
	} {
		if err := c.db.CreateFunction(d.name, d.n, d.flag, d.fn); err != nil {
			return fmt.Errorf("register function %s: %w", d.name, err)
		}
	}
	if err := c.sequenceFunctions(); err != nil {
		return err
	}
	if c.kind == privateConn {
		if err := c.traps(); err != nil {
			return err
		}
	}
	return c.pgFunctions()
}

func randomUUID() string {
	var u [16]byte
	rand.Read(u[:])
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	h := hex.EncodeToString(u[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// drawn makes a function of what cannot be foretold: see draw.
func (c *conn) drawn(name string, fresh func() string) sqlite3.ScalarFunction {
	return func(ctx sqlite3.Context, _ ...sqlite3.Value) {
		v, err := c.draw(name, func() (sqlapi.Value, error) { return textValue(fresh()), nil })
		if err != nil {
			ctx.ResultError(err)
			return
		}
		ctx.ResultRawText(v.Bytes)
	}
}

// traps replaces SQLite's random functions on a private connection. Where a
// default or a trigger uses them in a statement that is recorded, which nobody
// saw when it was prepared, the statement is to be executed with the lock.
func (c *conn) traps() error {
	trap := func(fn func(n int64) any) sqlite3.ScalarFunction {
		return func(ctx sqlite3.Context, a ...sqlite3.Value) {
			if s := c.sess.Load(); s != nil && s.tx.rec != nil && s.tx.rec.now != nil {
				c.trapped = true
				ctx.ResultError(errTrapped)
				return
			}
			n := int64(8)
			if len(a) > 0 {
				n = min(max(a[0].Int64(), 1), maxText)
			}
			switch v := fn(n).(type) {
			case int64:
				ctx.ResultInt64(v)
			case []byte:
				ctx.ResultBlob(v)
			}
		}
	}
	bytes := func(n int64) []byte { b := make([]byte, n); rand.Read(b); return b }
	for _, f := range []struct {
		name string
		n    int
		fn   sqlite3.ScalarFunction
	}{
		{"random", 0, trap(func(int64) any { return int64(binary.LittleEndian.Uint64(bytes(8))) })},
		{"randomblob", 1, trap(func(n int64) any { return bytes(n) })},
	} {
		if err := c.db.CreateFunction(f.name, f.n, sqlite3.INNOCUOUS, f.fn); err != nil {
			return fmt.Errorf("register function %s: %w", f.name, err)
		}
	}
	return nil
}

func (c *conn) currentSetting(ctx sqlite3.Context, a ...sqlite3.Value) {
	s := c.sess.Load()
	if s == nil {
		return
	}
	v, ok := s.lookup(a[0].Text())
	switch {
	case ok:
		ctx.ResultText(v)
	case len(a) > 1 && a[1].Bool():
		ctx.ResultNull()
	default:
		ctx.ResultError(functionError{unrecognized(a[0].Text()).Error()})
	}
}

// functionError is an error that becomes the statement's message.
type functionError struct{ msg string }

func (e functionError) Error() string { return e.msg }

func (c *conn) setConfig(ctx sqlite3.Context, a ...sqlite3.Value) {
	s := c.sess.Load()
	if s == nil {
		return
	}
	if err := s.assign(a[0].Text(), a[1].Text(), false, a[2].Bool()); err != nil {
		ctx.ResultError(functionError{err.Error()})
		return
	}
	ctx.ResultText(s.show(a[0].Text()))
}

// sleep is pg_sleep: it can be interrupted.
func (c *conn) sleep(ctx sqlite3.Context, a ...sqlite3.Value) {
	t := time.NewTimer(time.Duration(a[0].Float() * float64(time.Second)))
	defer t.Stop()
	select {
	case <-t.C:
		ctx.ResultText("")
	case <-c.db.GetInterrupt().Done():
		ctx.ResultError(sqlite3.INTERRUPT)
	}
}
