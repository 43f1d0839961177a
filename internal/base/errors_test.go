package base

import (
	"errors"
	"fmt"
	"testing"
)

func TestErrorText(t *testing.T) {
	e := Errorf(-16, "no database %q", "X")
	for _, c := range []struct {
		err        error
		full, text string
		code       Code
	}{
		{e, `no database "X" [code -16]`, `no database "X"`, -16},
		{fmt.Errorf("switchover: %w", e), `switchover: no database "X" [code -16]`, `switchover: no database "X"`, -16},
		{fmt.Errorf("%w; try again", e), `no database "X" [code -16]; try again`, `no database "X" [code -16]; try again`, -16},
		{errors.New("plain"), "plain", "plain", -1},
	} {
		if c.err.Error() != c.full || TextOf(c.err) != c.text || CodeOf(c.err, -1) != c.code {
			t.Errorf("%q, %q, %d; want %q, %q, %d", c.err, TextOf(c.err), CodeOf(c.err, -1), c.full, c.text, c.code)
		}
	}
}
