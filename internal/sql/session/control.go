package session

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/ncruces/go-sqlite3"

	"datawatch/internal/sql/sqlapi"
)

// errTerminated is what a session is told that an administrator ends.
var errTerminated = &sqlapi.Error{Severity: "FATAL", Code: "57P01", Message: "terminating connection due to administrator command"}

func (b *Backend) session(id uint32) *Session {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sessions[id]
}

// Terminate ends one session; false when there is none with that number.
func (b *Backend) Terminate(id uint32, e *sqlapi.Error) bool {
	s := b.session(id)
	if s == nil {
		return false
	}
	b.counts.terminated.Add(1)
	s.Terminate(e)
	return true
}

// CancelSession interrupts the running statement of one session.
func (b *Backend) CancelSession(id uint32) bool {
	s := b.session(id)
	if s == nil {
		return false
	}
	s.Cancel()
	return true
}

// control interrupts or ends a session for another one; found is false when
// there is none with that number. Everybody may do it to sessions of his own
// user, administrators to all.
func (s *Session) control(id int64, end bool) (found bool, err error) {
	if id <= 0 || id > 1<<32-1 {
		return false, nil
	}
	t := s.b.session(uint32(id))
	if t == nil {
		return false, nil
	}
	if !strings.EqualFold(t.info.User, s.info.User) && !s.b.administrator(s.info.User) {
		return true, &sqlapi.Error{Code: "42501", Message: fmt.Sprintf("permission denied to control session %d of another user", id)}
	}
	if end {
		return s.b.Terminate(t.id, errTerminated), nil
	}
	return s.b.CancelSession(t.id), nil
}

// control is pg_cancel_backend or pg_terminate_backend.
func (c *conn) control(end bool) sqlite3.ScalarFunction {
	return func(ctx sqlite3.Context, a ...sqlite3.Value) {
		s := c.sess.Load()
		if s == nil || a[0].Type() == sqlite3.NULL {
			ctx.ResultNull()
			return
		}
		found, err := s.control(a[0].Int64(), end)
		if err != nil {
			ctx.ResultError(functionError{err.Error()})
			return
		}
		if !found {
			s.warn("01000", "PID "+strconv.FormatInt(a[0].Int64(), 10)+" is not a session of this server")
		}
		ctx.ResultBool(found)
	}
}

// blocking is pg_blocking_pids: the session that holds the write lock another
// one waits for, as an array.
func (c *conn) blocking(ctx sqlite3.Context, a ...sqlite3.Value) {
	out := "{}"
	for _, l := range c.b.Locks() {
		if int64(l.Session) == a[0].Int64() && l.Blocked && l.Blocker != 0 {
			out = "{" + strconv.FormatUint(uint64(l.Blocker), 10) + "}"
		}
	}
	ctx.ResultText(out)
}
