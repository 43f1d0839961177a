package server

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datawatch/internal/config"
	"datawatch/internal/sql/session"
)

// TestLogFiles: the log goes on under its name after an outside tool has moved
// it; slow statements have a file of their own.
func TestLogFiles(t *testing.T) {
	dir := t.TempDir()
	var errw bytes.Buffer
	l, err := openLog(&config.DM{InstanceName: "A", SvrLogDir: dir, SvrLogFileSize: 1, SvrLogLevel: "WARN"}, &errw)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	l.log.Info("not logged")
	l.log.Warn("first")
	if err := os.Rename(l.main.Path(), filepath.Join(dir, "away")); err != nil {
		t.Fatal(err)
	}
	l.reopen()
	l.log.Warn("second")
	l.slowStatement(session.SlowStatement{Took: 1234567 * time.Microsecond, Session: 7, User: "U", SQL: "select '?'", Params: "$1=text(3)", Tag: "SELECT 1"})
	l.slowStatement(session.SlowStatement{Took: time.Second, SQL: "x", Trx: 9, Code: "57014"})
	read := func(name string) string { b, _ := os.ReadFile(name); return string(b) }
	if a, b := read(filepath.Join(dir, "away")), read(l.main.Path()); !strings.Contains(a, "first") || strings.Contains(a, "second") || !strings.Contains(b, "second") ||
		strings.Contains(a, "not logged") {
		t.Errorf("moved: %q, now: %q", a, b)
	}
	slow := read(l.slow.Path())
	for _, want := range []string{"ms=1234.567", "sess=7", "user=U", `sql="select '?'"`, `params="$1=text(3)"`, `tag="SELECT 1"`, "trx=9 sqlstate=57014"} {
		if !strings.Contains(slow, want) {
			t.Errorf("slow log lacks %s:\n%s", want, slow)
		}
	}
	if !strings.HasPrefix(filepath.Base(l.slow.Path()), "slow_A_20") || !strings.Contains(errw.String(), "second") {
		t.Errorf("%s, stderr %q", l.slow.Path(), errw.String())
	}
}

// TestLimitsFollowParameters: a changed parameter counts for the sessions that
// are there, a reset one has its default again, a static one changes the file only.
func TestLimitsFollowParameters(t *testing.T) {
	s := newPair(t).a
	want := func(what string, get func(session.Limits) time.Duration, d time.Duration) {
		t.Helper()
		if got := get(s.sess.Limits()); got != d {
			t.Errorf("%s: %v, want %v", what, got, d)
		}
	}
	idle := func(l session.Limits) time.Duration { return l.Idle }
	want("at start", idle, 0)
	want("at start", func(l session.Limits) time.Duration { return l.Lock }, 30*time.Second)
	want("at start", func(l session.Limits) time.Duration { return l.IdleInWrite }, time.Minute)
	ctx := context.Background()
	for _, x := range []struct {
		scope       int
		name, value string
	}{{0, "idle_session_timeout", "7"}, {1, "STATEMENT_TIMEOUT", "1500"}, {0, "LOCK_TIMEOUT", "0"}, {0, "CONCURRENT_TRX", "1"}, {0, "SLOW_SQL_TIME", "20"}} {
		if err := s.SetPara(ctx, x.scope, x.name, x.value); err != nil {
			t.Fatal(err)
		}
	}
	want("changed", idle, 7*time.Second)
	want("changed", func(l session.Limits) time.Duration { return l.Statement }, 1500*time.Millisecond)
	want("changed", func(l session.Limits) time.Duration { return l.Lock }, 0)
	want("changed", func(l session.Limits) time.Duration { return l.Slow }, 20*time.Millisecond)
	if !s.sess.Limits().Concurrent {
		t.Error("CONCURRENT_TRX is not in effect")
	}
	if err := s.SetPara(ctx, 0, "LOCK_TIMEOUT", ""); err != nil {
		t.Fatal(err)
	}
	want("reset", func(l session.Limits) time.Duration { return l.Lock }, 30*time.Second)
	if err := s.SetPara(ctx, 1, "MAX_SESSIONS", "5"); err == nil {
		t.Error("MAX_SESSIONS of a running server was changed")
	}
	if err := s.SetPara(ctx, 2, "IDLE_SESSION_TIMEOUT", "9"); err != nil {
		t.Fatal(err)
	}
	want("changed in the file only", idle, 7*time.Second)
}
