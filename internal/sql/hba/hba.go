// Package hba decides from which addresses a user may log in, by rules in the
// form of PostgreSQL's pg_hba.conf:
//
//	# type     database  user   address       method
//	host       all       all    127.0.0.1/32  scram-sha-256
//	hostssl    all       +app   10.0.0.0/8    scram-sha-256
//	host       all       all    all           reject
//
// The first line that fits decides; without one the login is refused. A file
// that is cut short therefore never lets in more than the whole file does.
//
// It keeps the part of G8 that concerns it: an error names file and line, and
// a file with an error changes nothing. It leaves passwords to the session
// layer and encryption to pgwire.
package hba

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// Method is what a rule says.
type Method uint8

const (
	Reject Method = iota
	Scram         // the password is asked for, by SCRAM-SHA-256
	Trust         // nothing is asked: on loopback addresses only
)

// rule is one line.
type rule struct {
	line      int
	tls       *bool // nil: both
	databases []string
	users     []string // lower case; +role
	prefix    netip.Prefix
	local     bool // samehost
	all       bool
	method    Method
}

// Rules are those of one file. Nil lets everyone in who has a password.
type Rules struct {
	name  string
	rules []rule
}

// Client is who wants to log in.
type Client struct {
	User, Database string
	Addr           string // host:port, or host
	Local          bool   // from the server's own host
	TLS            bool
	Member         func(role string) bool // whether the user is a member of a role; nil: of none
}

// Decision is what the rules say. ByUser: another user might be let in from the
// same place.
type Decision struct {
	Method Method
	ByUser bool
	Reason string // for the log: file and line
}

// Error is a mistake in a file.
type Error struct {
	File string
	Line int
	Msg  string
}

func (e *Error) Error() string { return fmt.Sprintf("%s line %d: %s", e.File, e.Line, e.Msg) }

// Parse reads rules; name is the path, for messages.
func Parse(name string, data []byte) (*Rules, error) {
	r := &Rules{name: name}
	for i, l := range strings.Split(string(data), "\n") {
		l, _, _ = strings.Cut(l, "#")
		f := fields(l)
		if len(f) == 0 {
			continue
		}
		x, msg := parse(f)
		if msg != "" {
			return nil, &Error{name, i + 1, msg}
		}
		x.line = i + 1
		r.rules = append(r.rules, x)
	}
	if len(r.rules) == 0 {
		return nil, &Error{name, 1, "there is no rule: nobody could log in"}
	}
	return r, nil
}

// fields splits at white space, and joins lists written with blanks after the
// comma. Double quotes have no meaning: names have no case.
func fields(l string) []string {
	var out []string
	for _, f := range strings.Fields(strings.ReplaceAll(l, `"`, "")) {
		if n := len(out); n > 0 && (strings.HasSuffix(out[n-1], ",") || strings.HasPrefix(f, ",")) {
			out[n-1] += f
			continue
		}
		out = append(out, f)
	}
	return out
}

func parse(f []string) (x rule, msg string) {
	yes, no := true, false
	switch strings.ToLower(f[0]) {
	case "host":
	case "hostssl":
		x.tls = &yes
	case "hostnossl":
		x.tls = &no
	case "local":
		return x, `type "local": the server has no Unix sockets`
	default:
		return x, fmt.Sprintf("type %q: must be host, hostssl or hostnossl", f[0])
	}
	if len(f) == 6 && net.ParseIP(f[3]) != nil && net.ParseIP(f[4]) != nil {
		return x, "an address with a separate mask: write it as address/bits"
	}
	if len(f) != 5 {
		return x, fmt.Sprintf("%d fields: must be type, database, user, address, method", len(f))
	}
	x.databases = strings.Split(strings.ToLower(f[1]), ",")
	x.users = strings.Split(strings.ToLower(f[2]), ",")
	for _, l := range [][]string{x.databases, x.users} {
		for _, n := range l {
			if n == "" || n == "+" || strings.HasPrefix(n, "@") || strings.HasPrefix(n, "/") {
				return x, fmt.Sprintf("name %q: must be a name, +role or all", n)
			}
		}
	}
	switch a := strings.ToLower(f[3]); {
	case a == "all":
		x.all = true
	case a == "samehost":
		x.local = true
	case strings.Contains(a, "/"):
		p, err := netip.ParsePrefix(a)
		if err != nil {
			return x, fmt.Sprintf("address %q: must be address/bits, an address, all or samehost", f[3])
		}
		if p.Masked() != p {
			return x, fmt.Sprintf("address %q: has bits set beyond its mask; write %s", f[3], p.Masked())
		}
		x.prefix = p
	default:
		ip, err := netip.ParseAddr(a)
		if err != nil {
			return x, fmt.Sprintf("address %q: must be address/bits, an address, all or samehost (host names are not looked up)", f[3])
		}
		x.prefix = netip.PrefixFrom(ip, ip.BitLen())
	}
	switch m := strings.ToLower(f[4]); m {
	case "scram-sha-256":
		x.method = Scram
	case "reject":
		x.method = Reject
	case "trust":
		x.method = Trust
		if !x.local && !(x.prefix.IsValid() && loopbackPrefix(x.prefix)) {
			return x, "trust is accepted for loopback addresses only (samehost, 127.0.0.0/8, ::1)"
		}
	default:
		return x, fmt.Sprintf("method %q: must be scram-sha-256, reject or trust", f[4])
	}
	return x, ""
}

func loopbackPrefix(p netip.Prefix) bool {
	if p.Addr().Is4() {
		return p.Bits() >= 8 && p.Addr().IsLoopback()
	}
	return p.Bits() == 128 && p.Addr().IsLoopback()
}

// Match finds the rule for a client.
func (r *Rules) Match(c Client) Decision {
	if r == nil {
		return Decision{Method: Scram}
	}
	var ip netip.Addr
	if host, _, err := net.SplitHostPort(c.Addr); err == nil {
		ip, _ = netip.ParseAddr(host)
	} else {
		ip, _ = netip.ParseAddr(c.Addr)
	}
	ip = ip.Unmap().WithZone("")
	byUser := false
	for i := range r.rules {
		x := &r.rules[i]
		if x.tls != nil && *x.tls != c.TLS || !listed(x.databases, c.Database, nil) {
			continue
		}
		if !x.all && !(x.local && c.Local) && !(x.prefix.IsValid() && ip.IsValid() && x.prefix.Contains(ip)) {
			continue
		}
		everyone := listed(x.users, "all", nil)
		byUser = byUser || !everyone
		if everyone || listed(x.users, c.User, c.Member) {
			return Decision{x.method, byUser, fmt.Sprintf("%s line %d", r.name, x.line)}
		}
	}
	return Decision{Reject, byUser, r.name + ": no line fits"}
}

// listed looks a name up in a list of names, "all" and +roles.
func listed(list []string, name string, member func(string) bool) bool {
	for _, n := range list {
		switch {
		case n == "all", strings.EqualFold(n, name):
			return true
		case n[0] == '+' && member != nil && member(n[1:]):
			return true
		}
	}
	return false
}
