package server

import (
	"context"
	"testing"
	"time"

	"datawatch/internal/sql/session"
)

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
	}{{0, "idle_session_timeout", "7"}, {1, "STATEMENT_TIMEOUT", "1500"}, {0, "LOCK_TIMEOUT", "0"}, {0, "SLOW_SQL_TIME", "20"}} {
		if err := s.SetPara(ctx, x.scope, x.name, x.value); err != nil {
			t.Fatal(err)
		}
	}
	want("changed", idle, 7*time.Second)
	want("changed", func(l session.Limits) time.Duration { return l.Statement }, 1500*time.Millisecond)
	want("changed", func(l session.Limits) time.Duration { return l.Lock }, 0)
	want("changed", func(l session.Limits) time.Duration { return l.Slow }, 20*time.Millisecond)
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
