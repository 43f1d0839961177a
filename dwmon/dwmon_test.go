package dwmon

import (
	"errors"
	"fmt"
	"testing"

	"datawatch/internal/base"
)

func TestErrorText(t *testing.T) {
	for c := Code(-1); c >= -28; c-- {
		if text, ok := ErrorText(c); !ok || text == "" {
			t.Errorf("code %d has no text", c)
		}
	}
	if _, ok := ErrorText(-99999); ok {
		t.Error("an unknown code has a text")
	}
}

func TestCodeOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		want Code
	}{
		{nil, 0},
		{errors.New("plain"), -1},
		{fmt.Errorf("wrapped: %w", base.Errorf(-14, "two")), CodeTwoConfirm},
	} {
		if got := CodeOf(c.err); got != c.want {
			t.Errorf("CodeOf(%v) = %d, want %d", c.err, got, c.want)
		}
	}
}

func TestOpenWithoutGroups(t *testing.T) {
	if _, err := Open(t.Context(), Config{}); CodeOf(err) != CodeConfig {
		t.Fatalf("error %v", err)
	}
}
