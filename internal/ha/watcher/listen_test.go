package watcher

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"datawatch/internal/clock"
)

// TestPortTaken: a watcher that was killed a moment ago may still hold the port;
// one that stays taken is an error, and so is any other failure at once.
func TestPortTaken(t *testing.T) {
	taken := &net.OpError{Op: "listen", Err: syscall.EADDRINUSE}
	for _, c := range []struct {
		name  string
		after time.Duration // until the port is free
		err   error
		want  time.Duration // until listen returns
	}{
		{"free", 0, nil, 0},
		{"for a moment", 250 * time.Millisecond, nil, 300 * time.Millisecond},
		{"for good", time.Hour, syscall.EADDRINUSE, 5 * time.Second},
		{"another error", time.Hour, syscall.EACCES, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				begun := time.Now()
				_, err := listen("127.0.0.1:1", Deps{Clock: clock.Real{}, Log: slog.New(slog.NewTextHandler(&log, nil)),
					Listen: func(string) (net.Listener, error) {
						if time.Since(begun) >= c.after {
							return nil, nil
						}
						if c.err == syscall.EACCES {
							return nil, c.err
						}
						return nil, taken
					}})
				if d := time.Since(begun); !errors.Is(err, c.err) || d != c.want {
					t.Errorf("%v after %v, want %v after %v", err, d, c.err, c.want)
				}
				if n := strings.Count(log.String(), "trying again"); n != min(int(c.want), 1) {
					t.Errorf("said %d times that it tries again:\n%s", n, &log)
				}
			})
		})
	}
}
