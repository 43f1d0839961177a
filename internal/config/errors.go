package config

import (
	"fmt"
	"sort"
	"strings"
)

// Error is one fault in a configuration file.
type Error struct {
	File    string // as it was given to the loader
	Line    int    // 1-based; 0 when no line is to blame (a missing key)
	Section string // without brackets; "" outside sections
	Key     string // "" when no key is concerned
	Value   string // as written; "" when there is none
	Msg     string // what is wrong
	Allowed string // what is allowed; "" when Msg says it
	Err     error  // cause, such as fs.ErrNotExist; often nil
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	b.WriteString(": ")
	if e.Section != "" {
		fmt.Fprintf(&b, "[%s] ", e.Section)
	}
	if e.Key != "" {
		b.WriteString(e.Key)
		if e.Value != "" {
			fmt.Fprintf(&b, " = %s", clip(e.Value))
		}
		b.WriteString(": ")
	}
	b.WriteString(e.Msg)
	if e.Allowed != "" {
		fmt.Fprintf(&b, " (allowed: %s)", e.Allowed)
	}
	return b.String()
}

// clip keeps a hostile value from filling the screen.
func clip(s string) string {
	q := fmt.Sprintf("%q", s)
	q = strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(q[1 : len(q)-1])
	if len(q) > 120 {
		q = q[:117] + "..."
	}
	return q
}

// Errors is every fault found, in the order of file and line.
type Errors []*Error

func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap makes errors.As find a single *Error.
func (es Errors) Unwrap() []error {
	out := make([]error, len(es))
	for i, e := range es {
		out[i] = e
	}
	return out
}

// err returns es as an error, nil when there is none, sorted by file and line.
func (es Errors) err() error {
	if len(es) == 0 {
		return nil
	}
	order := map[string]int{}
	for _, e := range es {
		if _, ok := order[e.File]; !ok {
			order[e.File] = len(order)
		}
	}
	sort.SliceStable(es, func(i, j int) bool {
		if es[i].File != es[j].File {
			return order[es[i].File] < order[es[j].File]
		}
		return es[i].Line < es[j].Line
	})
	return es
}
