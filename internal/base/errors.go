package base

import (
	"errors"
	"fmt"
	"strings"
)

// Code is an error code of the manual (10.2.8), negative; 0 is success, and
// positive values (100 ...) are notices. Packages define the codes they use.
type Code int

// Error is an error that carries a code of the manual. Wrap it with %w to say
// what was attempted.
type Error struct {
	Code Code
	Msg  string
}

func (e *Error) Error() string { return fmt.Sprintf("%s [code %d]", e.Msg, e.Code) }

// Errorf makes an Error.
func Errorf(c Code, format string, a ...any) error {
	return &Error{Code: c, Msg: fmt.Sprintf(format, a...)}
}

// CodeOf returns the code an error carries, or def when it carries none.
func CodeOf(err error, def Code) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return def
}

// TextOf is the text of an error without the code it carries at its end, for
// answers in which the code travels beside the text.
func TextOf(err error) string {
	text := err.Error()
	var e *Error
	if errors.As(err, &e) {
		text = strings.TrimSuffix(text, fmt.Sprintf(" [code %d]", e.Code))
	}
	return text
}
