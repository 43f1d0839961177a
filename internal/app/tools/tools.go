// Package tools holds what the command line tools share: exit codes, KEY=value
// arguments, version texts. The tools themselves are in its subdirectories:
// dminit, dmrman, disql. It keeps G8 for arguments.
package tools

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// Exit codes of every program.
const (
	ExitOK      = 0 // done
	ExitFailed  = 1 // failed
	ExitUsage   = 2 // bad usage or configuration
	ExitRefused = 3 // refused because of state
)

// ExitError is an error with the exit code it calls for.
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string { return e.Err.Error() }
func (e *ExitError) Unwrap() error { return e.Err }

// Usagef is an error of the command line or a configuration file.
func Usagef(format string, a ...any) error {
	return &ExitError{ExitUsage, fmt.Errorf(format, a...)}
}

// Refusedf is an error that another state would not cause.
func Refusedf(format string, a ...any) error {
	return &ExitError{ExitRefused, fmt.Errorf(format, a...)}
}

// ExitCode is the code of an error: 0 for nil, 1 unless it says otherwise.
func ExitCode(err error) int {
	if err == nil {
		return ExitOK
	}
	var e *ExitError
	if errors.As(err, &e) {
		return e.Code
	}
	return ExitFailed
}

// Version is what "PROGRAM version" prints.
func Version(program string) string {
	out := fmt.Sprintf("%s V8 (Datawatch, %s %s/%s", program, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	if bi, ok := debug.ReadBuildInfo(); ok {
		for _, s := range bi.Settings {
			switch {
			case s.Key == "vcs.revision" && len(s.Value) >= 12:
				out += ", revision " + s.Value[:12]
			case s.Key == "vcs.modified" && s.Value == "true":
				out += " modified"
			}
		}
	}
	return out + ")"
}

// IsHelp and IsVersion recognise the words every program knows.
func IsHelp(arg string) bool {
	switch strings.ToLower(strings.TrimLeft(arg, "-")) {
	case "help", "h", "?":
		return true
	}
	return false
}

// IsVersion recognises "version", "-version", "--version".
func IsVersion(arg string) bool { return strings.EqualFold(strings.TrimLeft(arg, "-"), "version") }

// Args are KEY=value arguments; keys are upper case.
type Args map[string]string

// ParseArgs reads KEY=value arguments in any order, keys in any case. Keys that
// are not known, given twice or without a value are errors.
func ParseArgs(args []string, known ...string) (Args, error) {
	out := Args{}
	for _, a := range args {
		key, value, ok := strings.Cut(a, "=")
		key = strings.ToUpper(strings.TrimSpace(key))
		if !ok {
			return nil, Usagef("argument %q is not KEY=value", a)
		}
		found := false
		for _, k := range known {
			found = found || k == key
		}
		if !found {
			return nil, Usagef("unknown argument %s (known: %s)", key, strings.Join(known, ", "))
		}
		if _, dup := out[key]; dup {
			return nil, Usagef("argument %s is given twice", key)
		}
		out[key] = strings.TrimSpace(value)
	}
	return out, nil
}
