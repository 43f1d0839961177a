// Package clock injects time. Product code asks a Clock, never time.Now, for
// anything that decides or waits; Go's testing/synctest bubbles give virtual
// time to whatever uses Real.
package clock

import (
	"context"
	"time"
)

// Clock tells time and waits.
type Clock interface {
	Now() time.Time
	// NewTimer returns a timer whose channel fires once after d.
	NewTimer(d time.Duration) *time.Timer
	NewTicker(d time.Duration) *time.Ticker
	// Sleep waits d or until ctx is done, whose error it then returns.
	Sleep(ctx context.Context, d time.Duration) error
}

// Real is the system clock (inside a synctest bubble: the bubble's).
type Real struct{}

func (Real) Now() time.Time                         { return time.Now() }
func (Real) NewTimer(d time.Duration) *time.Timer   { return time.NewTimer(d) }
func (Real) NewTicker(d time.Duration) *time.Ticker { return time.NewTicker(d) }
func (Real) Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
