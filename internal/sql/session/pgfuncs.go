package session

import (
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/ncruces/go-sqlite3"
)

// maxText caps what a function makes, as SQLite caps values.
const maxText = 1 << 28

var errTooLong = errors.New("string or blob too big")

// pgFunctions registers functions of PostgreSQL that SQLite lacks and that
// applications commonly use. NULL in, NULL out, but for GREATEST and LEAST.
func (c *conn) pgFunctions() error {
	const det = sqlite3.INNOCUOUS | sqlite3.DETERMINISTIC
	strict := func(f func(ctx sqlite3.Context, a []sqlite3.Value)) sqlite3.ScalarFunction {
		return func(ctx sqlite3.Context, a ...sqlite3.Value) {
			for _, v := range a {
				if v.Type() == sqlite3.NULL {
					ctx.ResultNull()
					return
				}
			}
			f(ctx, a)
		}
	}
	text := func(f func(a []sqlite3.Value) string) sqlite3.ScalarFunction {
		return strict(func(ctx sqlite3.Context, a []sqlite3.Value) { ctx.ResultText(f(a)) })
	}
	pad := func(left bool) sqlite3.ScalarFunction {
		return strict(func(ctx sqlite3.Context, a []sqlite3.Value) {
			fill := " "
			if len(a) > 2 {
				fill = a[2].Text()
			}
			s, err := padText(a[0].Text(), a[1].Int64(), fill, left)
			if err != nil {
				ctx.ResultError(err)
				return
			}
			ctx.ResultText(s)
		})
	}
	best := func(sign int) sqlite3.ScalarFunction {
		return func(ctx sqlite3.Context, a ...sqlite3.Value) {
			at := -1
			for i, v := range a {
				if v.Type() != sqlite3.NULL && (at < 0 || compare(v, a[at])*sign > 0) {
					at = i
				}
			}
			if at < 0 {
				ctx.ResultNull()
				return
			}
			ctx.ResultValue(a[at])
		}
	}
	for _, d := range []struct {
		name string
		n    int
		fn   sqlite3.ScalarFunction
	}{
		{"greatest", -1, best(1)}, {"least", -1, best(-1)},
		{"repeat", 2, strict(func(ctx sqlite3.Context, a []sqlite3.Value) {
			s, n := a[0].Text(), max(a[1].Int64(), 0)
			if n > maxText || int64(len(s))*n > maxText {
				ctx.ResultError(errTooLong)
				return
			}
			ctx.ResultText(strings.Repeat(s, int(n)))
		})},
		{"left", 2, text(func(a []sqlite3.Value) string { l, _ := cut(a[0].Text(), a[1].Int64()); return l })},
		{"right", 2, text(func(a []sqlite3.Value) string {
			n := a[1].Int64()
			if n == 0 {
				return ""
			}
			_, r := cut(a[0].Text(), -n)
			return r
		})},
		{"lpad", 2, pad(true)}, {"lpad", 3, pad(true)}, {"rpad", 2, pad(false)}, {"rpad", 3, pad(false)},
		{"reverse", 1, text(func(a []sqlite3.Value) string {
			r := []rune(a[0].Text())
			for i, j := 0, len(r)-1; i < j; i, j = i+1, j-1 {
				r[i], r[j] = r[j], r[i]
			}
			return string(r)
		})},
		{"split_part", 3, strict(func(ctx sqlite3.Context, a []sqlite3.Value) {
			s, err := splitPart(a[0].Text(), a[1].Text(), a[2].Int64())
			if err != nil {
				ctx.ResultError(err)
				return
			}
			ctx.ResultText(s)
		})},
		{"strpos", 2, strict(func(ctx sqlite3.Context, a []sqlite3.Value) {
			s := a[0].Text()
			i := strings.Index(s, a[1].Text())
			if i >= 0 {
				i = utf8.RuneCountInString(s[:i])
			}
			ctx.ResultInt(i + 1)
		})},
		{"md5", 1, text(func(a []sqlite3.Value) string {
			sum := md5.Sum(a[0].RawText())
			return hex.EncodeToString(sum[:])
		})},
	} {
		if err := c.db.CreateFunction(d.name, d.n, det, d.fn); err != nil {
			return fmt.Errorf("register function %s: %w", d.name, err)
		}
	}
	if err := c.register(timeFunctions); err != nil {
		return err
	}
	return c.textFunctions()
}

// compare orders two values as SQLite does: numbers before text before blobs.
func compare(a, b sqlite3.Value) int {
	class := func(v sqlite3.Value) int {
		switch v.Type() {
		case sqlite3.INTEGER, sqlite3.FLOAT:
			return 0
		case sqlite3.TEXT:
			return 1
		}
		return 2
	}
	ca, cb := class(a), class(b)
	switch {
	case ca != cb:
		return ca - cb
	case ca > 0:
		return strings.Compare(string(a.RawBlob()), string(b.RawBlob()))
	case a.Type() == sqlite3.INTEGER && b.Type() == sqlite3.INTEGER:
		switch x, y := a.Int64(), b.Int64(); {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	}
	switch x, y := a.Float(), b.Float(); {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

// cut splits s after n characters, or before the last -n.
func cut(s string, n int64) (l, r string) {
	chars := int64(utf8.RuneCountInString(s))
	if n < 0 {
		n += chars
	}
	n = min(max(n, 0), chars)
	for i := range s {
		if n == 0 {
			return s[:i], s[i:]
		}
		n--
	}
	return s, ""
}

func padText(s string, n int64, fill string, left bool) (string, error) {
	if n > maxText/4 {
		return "", errTooLong
	}
	have := int64(utf8.RuneCountInString(s))
	if n <= have || fill == "" {
		l, _ := cut(s, max(n, 0))
		return l, nil
	}
	chars := int64(utf8.RuneCountInString(fill))
	more, _ := cut(strings.Repeat(fill, int((n-have)/chars+1)), n-have)
	if left {
		return more + s, nil
	}
	return s + more, nil
}

// splitPart is field n of s, counted from the end when n is negative.
func splitPart(s, by string, n int64) (string, error) {
	if n == 0 {
		return "", errors.New("field position must not be zero")
	}
	parts := []string{s}
	if by != "" {
		parts = strings.Split(s, by)
	}
	if n < 0 {
		n += int64(len(parts)) + 1
	}
	if n < 1 || n > int64(len(parts)) {
		return "", nil
	}
	return parts[n-1], nil
}
