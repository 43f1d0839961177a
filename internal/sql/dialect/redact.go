package dialect

import "strings"

// Redact hides what must not be shown of a statement: passwords always, and,
// with literals, every string. What cannot be cut into tokens is hidden as a
// whole where it might hold a password. hidden says that there was a password.
func Redact(sql string, literals bool) (shown string, hidden bool) {
	secret := mayHoldPassword(sql)
	if !secret && !literals {
		return sql, false
	}
	toks, err := lex(sql)
	if err != nil {
		if secret {
			return "(a statement with a password)", true
		}
		i := strings.IndexByte(sql, '\'')
		if i < 0 {
			i = len(sql)
		}
		return sql[:i] + "...", false
	}
	var b strings.Builder
	from := 0
	hide := func(t token, with string) {
		b.WriteString(sql[from:t.start])
		b.WriteString(with)
		from = t.end
	}
	for i, t := range toks {
		switch {
		case secret && passwordAt(toks, i):
			hide(t, "'***'")
			hidden = true
		case literals && t.kind == tString:
			hide(t, "'?'")
		}
	}
	b.WriteString(sql[from:])
	return b.String(), hidden
}

// mayHoldPassword is quick: almost no statement has one of these words.
func mayHoldPassword(sql string) bool {
	return containsFold(sql, "identified") || containsFold(sql, "passw") || containsFold(sql, "pwd")
}

// containsFold reports whether s contains the lower-case ASCII word.
func containsFold(s, word string) bool {
	for i := 0; i+len(word) <= len(s); i++ {
		if s[i]|0x20 == word[0] && strings.EqualFold(s[i:i+len(word)], word) {
			return true
		}
	}
	return false
}

// passwordAt reports whether token i is the password after IDENTIFIED BY x,
// REPLACE x (the old one), PASSWORD x, or a name such as passwd with = between.
func passwordAt(toks []token, i int) bool {
	t := toks[i]
	if i == 0 || t.kind != tString && t.kind != tQuoted && t.kind != tIdent && t.kind != tNumber {
		return false
	}
	prev := toks[i-1]
	if prev.is("BY") && i > 1 && toks[i-2].is("IDENTIFIED") || prev.is("REPLACE") && i > 2 && toks[i-3].is("BY") {
		return true
	}
	if t.kind == tIdent || t.kind == tQuoted {
		return prev.is("PASSWORD") && toks[0].in("CREATE", "ALTER")
	}
	if prev.in("=", ":=") && i > 1 {
		prev = toks[i-2]
	}
	if !prev.isName() {
		return false
	}
	n := strings.ToLower(prev.val)
	return strings.Contains(n, "passw") || strings.Contains(n, "pwd")
}
