package session

import (
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"datawatch/internal/sql/dialect"
	"datawatch/internal/sql/sqlapi"
)

// SlowStatement is a line of the slow-statement log.
type SlowStatement struct {
	Start              time.Time
	Took               time.Duration // to the last row, the wait for locks and for its commit included
	Session            uint32
	Trx                uint64 // 0: none
	User, App, Address string
	SQL                string // no password, shortened; without values unless Limits.SlowParams
	Params             string // "$1=text(12) $2=int", or shortened values
	Tag                string // "SELECT 5"; "" after an error
	Code               string // SQLSTATE, "" when it succeeded
}

const (
	maxSlowSQL   = 4000
	maxSlowParam = 64
	maxSlowList  = 50 // parameters
)

// ticker is a clock that is read without asking the system: statements that are
// quick, which are almost all, must not pay for the log of slow ones. It is late
// by a tick at most.
type ticker struct {
	now  atomic.Int64 // Unix nanoseconds; 0: it does not run
	tick atomic.Int64
	stop chan struct{}
}

// run starts, changes or (0) stops the clock. Under Backend.mu.
func (t *ticker) run(tick time.Duration) {
	if t.stop != nil {
		close(t.stop)
		t.stop = nil
	}
	if t.tick.Store(int64(tick)); tick <= 0 {
		t.now.Store(0)
		return
	}
	t.now.Store(time.Now().UnixNano())
	stop := make(chan struct{})
	t.stop = stop
	go func() {
		k := time.NewTicker(tick)
		defer k.Stop()
		for {
			select {
			case <-stop:
				return
			case x := <-k.C:
				t.now.Store(x.UnixNano())
			}
		}
	}()
}

// slowTick is how exactly the clock must go to find statements slower than d.
func slowTick(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return min(max(d/4, 5*time.Millisecond), 250*time.Millisecond)
}

// maybeSlow reports whether the running statement may have taken as long as the
// limit: two ticks are given away, so that no slow one is missed.
func (s *Session) maybeSlow(limit time.Duration) bool {
	now, tick := s.b.ticker.now.Load(), s.b.ticker.tick.Load()
	return now != 0 && now-s.stmtStart.UnixNano()+2*tick >= int64(limit)
}

// noteSlow writes the statement to the log when it took long. Under mu.
func (s *Session) noteSlow(p *Portal, tag string, err error) {
	l := s.b.limits.Load()
	if l.Slow <= 0 || !s.maybeSlow(l.Slow) {
		return
	}
	took := time.Since(s.stmtStart)
	if took < l.Slow {
		return
	}
	s.b.counts.slow.Add(1)
	if s.b.cfg.SlowLog == nil {
		return
	}
	pr := p.st.p
	sql, secret := dialect.Redact(pr.Text, !l.SlowParams)
	if pr.Kind != dialect.SQL { // what its text may show is known by its kind
		sql = p.st.text()
	}
	if len(sql) > maxSlowSQL {
		sql = cutText(sql, maxSlowSQL) + "..."
	}
	x := SlowStatement{Start: s.stmtStart, Took: took, Session: s.id, Trx: s.tx.id, User: s.info.User, App: s.info.App, Address: s.info.RemoteAddr,
		SQL: sql, Params: showParams(p.params, l.SlowParams && !secret && pr.Kind == dialect.SQL), Tag: tag}
	if err != nil {
		x.Tag, x.Code = "", "XX000"
		if e := new(sqlapi.Error); errors.As(err, &e) {
			x.Code = e.Code
		}
	}
	s.b.cfg.SlowLog(x)
}

func cutText(s string, n int) string {
	for n > 0 && n < len(s) && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:min(n, len(s))]
}

// showParams lists parameters: kinds and lengths, or shortened values.
func showParams(ps []sqlapi.Value, values bool) string {
	var b strings.Builder
	for i, v := range ps {
		if i == maxSlowList {
			b.WriteString(" ...")
			break
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString("$" + strconv.Itoa(i+1) + "=")
		switch v.Kind {
		case sqlapi.Null:
			b.WriteString("null")
		case sqlapi.Integer:
			if values {
				b.WriteString(strconv.FormatInt(v.Int, 10))
			} else {
				b.WriteString("int")
			}
		case sqlapi.Float:
			if values {
				b.WriteString(strconv.FormatFloat(v.Float, 'g', -1, 64))
			} else {
				b.WriteString("float")
			}
		default:
			name := "text"
			if v.Kind == sqlapi.Blob {
				name = "blob"
			}
			if !values || v.Kind == sqlapi.Blob {
				b.WriteString(name + "(" + strconv.Itoa(len(v.Bytes)) + ")")
				continue
			}
			t := string(v.Bytes[:min(len(v.Bytes), maxSlowParam)])
			b.WriteString(strconv.Quote(strings.ToValidUTF8(t, "?")))
			if len(v.Bytes) > maxSlowParam {
				b.WriteString("...(" + strconv.Itoa(len(v.Bytes)) + ")")
			}
		}
	}
	return b.String()
}
