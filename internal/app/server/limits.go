package server

import (
	"strconv"
	"time"

	"datawatch/internal/sql/session"
)

// number reads a numeric parameter; its value has been checked.
func (p *params) number(name string) int64 {
	v, _ := p.get(name)
	n, _ := strconv.ParseInt(v, 10, 64)
	return n
}

// limits are the limits of sessions as the parameters have them now; 0 is no
// limit in both.
func (s *Server) limits() session.Limits {
	in := func(name string, unit time.Duration) time.Duration { return time.Duration(s.para.number(name)) * unit }
	return session.Limits{
		Statement:   in("STATEMENT_TIMEOUT", time.Millisecond),
		Lock:        in("LOCK_TIMEOUT", time.Millisecond),
		IdleInWrite: in("IDLE_IN_TRAN_TIMEOUT", time.Second),
		Idle:        in("IDLE_SESSION_TIMEOUT", time.Second),
		Concurrent:  s.para.bool("CONCURRENT_TRX"),
		Memory:      s.para.number("STMT_MEM_LIMIT") << 20,
		TempSpace:   s.para.number("TEMP_SPACE_LIMIT") << 20,
		Slow:        in("SLOW_SQL_TIME", time.Millisecond),
		SlowParams:  s.para.bool("SLOW_SQL_PARAMS"),
	}
}

// concurrentTrx is CONCURRENT_TRX_NUM as package session takes it, where 0 is the
// default.
func concurrentTrx(n int) int {
	if n == 0 {
		return -1
	}
	return n
}
