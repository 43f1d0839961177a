package session

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
	"unicode"

	"datawatch/internal/sql/hba"
	"datawatch/internal/sql/sqlapi"
	"datawatch/internal/storage/pagestore"
)

// Logging in: address rules, passwords, locks. What a client learns before it
// has proved a password is the same for every user name: salts of unknown users
// are made up, a locked or expired user looks like one with a wrong password,
// and a wrong password costs the same time. The log says what it was.
//
// A user locks itself for a while after too many wrong passwords, on this
// instance; the count of logins from the server's own host is another, so that
// nobody can lock an administrator out from afar.

// LoginPolicy is what dm.ini says about passwords and failures. Zero values: no
// rule, no lock, no delay.
type LoginPolicy struct {
	Policy   int // PWD_POLICY, bits
	MinLen   int // PWD_MIN_LEN
	Failures int // FAILED_LOGIN_ATTEMPTS
	LockTime time.Duration
	Delay    time.Duration // after the first wrong password; doubled up to 16 times
}

// Bits of PWD_POLICY.
const (
	pwdNotName = 1 << iota
	pwdLength
	pwdUpper
	pwdDigit
	pwdPunct
)

// check refuses a password that the policy forbids.
func (p LoginPolicy) check(user, password string) error {
	var upper, digit, punct bool
	n := 0
	for _, r := range password {
		n++
		upper, digit = upper || unicode.IsUpper(r), digit || unicode.IsDigit(r)
		punct = punct || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsSpace(r)
	}
	why := ""
	switch {
	case p.Policy&pwdNotName != 0 && strings.EqualFold(user, password):
		why = "it is the name of the user"
	case p.Policy&pwdLength != 0 && n < p.MinLen:
		why = fmt.Sprintf("it has fewer than %d characters", p.MinLen)
	case p.Policy&pwdUpper != 0 && !upper:
		why = "it has no upper-case letter"
	case p.Policy&pwdDigit != 0 && !digit:
		why = "it has no digit"
	case p.Policy&pwdPunct != 0 && !punct:
		why = "it has no punctuation character"
	default:
		return nil
	}
	return &sqlapi.Error{Code: "28P01", Message: "the password is refused: " + why, Hint: "PWD_POLICY and PWD_MIN_LEN of dm.ini say what is asked for."}
}

func (b *Backend) policy() LoginPolicy {
	if b.cfg.Login == nil {
		return LoginPolicy{}
	}
	return b.cfg.Login()
}

// login is one attempt.
type login struct {
	b        *Backend
	info     sqlapi.LoginInfo
	role     *role // nil: unknown
	dba      bool
	verifier string
	trusted  bool
	refused  string // by an address rule that depends on the user: why
}

// Login implements sqlapi.Backend. It reads the page store directly and so
// answers in every status from Mount on.
func (b *Backend) Login(info sqlapi.LoginInfo) (sqlapi.Login, error) {
	l, err := b.login(info)
	if err != nil {
		return nil, err
	}
	return l, nil
}

func (b *Backend) login(info sqlapi.LoginInfo) (*login, error) {
	l := &login{b: b, info: info}
	a, err := b.access()
	if w, ok := b.cfg.DB.(interface{ Readable() bool }); err != nil && ok && !w.Readable() {
		return nil, &sqlapi.Error{Severity: "FATAL", Code: codeNotNow, Message: pagestore.ErrNotWhole.Error()}
	}
	if err != nil {
		b.log.Error("login refused: users cannot be read", "err", err)
		return nil, &sqlapi.Error{Severity: "FATAL", Code: "XX000", Message: "the users of the database cannot be read"}
	}
	l.role = a.find(info.User)
	// Made for everyone, so that it takes the same time for everyone.
	l.verifier = mockVerifier(a.byID[dbaID].verifier, info.User)
	if l.role != nil {
		l.dba = a.dba(l.role.id)
		if _, _, _, _, ok := parts(l.role.verifier); ok {
			l.verifier = l.role.verifier
		}
	}
	return l, l.rules(a)
}

// rules applies the address rules. What depends on the user only shows after
// the password.
func (l *login) rules(a *access) error {
	if l.b.cfg.Rules == nil || l.info.Internal {
		return nil
	}
	d := l.b.cfg.Rules().Match(hba.Client{User: l.info.User, Database: l.info.Database, Addr: l.info.RemoteAddr, Local: l.info.Local, TLS: l.info.TLS,
		Member: func(name string) bool {
			r := a.find(name)
			return r != nil && l.role != nil && a.memberOf(l.role.id, r.id)
		}})
	l.trusted = d.Method == hba.Trust && l.role != nil
	if d.Method != hba.Reject {
		return nil
	}
	secure := "no encryption"
	if l.info.TLS {
		secure = "TLS"
	}
	if d.ByUser {
		l.refused = d.Reason
		return nil
	}
	l.b.log.Warn("login refused by the address rules", "user", l.info.User, "remote", l.info.RemoteAddr, "rule", d.Reason)
	return &sqlapi.Error{Severity: "FATAL", Code: "28000",
		Message: fmt.Sprintf("no address rule lets host %q, user %q, database %q, %s in", hostOf(l.info.RemoteAddr), l.info.User, l.info.Database, secure)}
}

func hostOf(addr string) string {
	if h, _, err := net.SplitHostPort(addr); err == nil {
		return h
	}
	return addr
}

// Verifier implements sqlapi.Login.
func (l *login) Verifier() string { return l.verifier }

// Trusted implements sqlapi.Login.
func (l *login) Trusted() bool { return l.trusted }

// Result implements sqlapi.Login.
func (l *login) Result(ctx context.Context, proved bool) error {
	wait, err := l.judge(proved, l.b.cfg.Clock.Now())
	if wait > 0 {
		_ = l.b.cfg.Clock.Sleep(ctx, wait)
	}
	return err
}

// judge decides; wait is how long the answer has to wait.
func (l *login) judge(proved bool, now time.Time) (wait time.Duration, err error) {
	b, r := l.b, l.role
	p := b.policy()
	fail := func(why string) (time.Duration, error) {
		b.log.Warn("login failed", "user", l.info.User, "remote", l.info.RemoteAddr, "why", why)
		return b.guard.failed(hostOf(l.info.RemoteAddr), p.Delay, now),
			&sqlapi.Error{Severity: "FATAL", Code: "28P01", Message: fmt.Sprintf("password authentication failed for user %q", l.info.User)}
	}
	if r == nil {
		return fail("there is no such user")
	}
	attempts, minutes := p.Failures, p.LockTime
	if r.failedLimit >= 0 {
		attempts = r.failedLimit
	}
	if r.lockMinutes >= 0 {
		minutes = time.Duration(r.lockMinutes) * time.Minute
	}
	if !l.trusted {
		locked, first := b.guard.try(r, l.info.Local, proved, attempts, minutes, now)
		switch {
		case first:
			b.log.Warn("user locked after wrong passwords", "user", r.name, "remote", l.info.RemoteAddr, "failures", attempts, "for", minutes, "local", l.info.Local)
			return fail("wrong password")
		case locked:
			return fail("locked after wrong passwords")
		case !proved:
			return fail("wrong password")
		case r.verifier == "":
			return fail("the user has no password")
		}
	}
	switch {
	case l.refused != "":
		return fail("address rule: " + l.refused)
	case r.locked:
		return fail("the account is locked")
	case r.expired(now) && !l.trusted:
		return fail("the password has expired")
	case !r.login:
		b.log.Warn("login refused", "user", r.name, "remote", l.info.RemoteAddr, "why", "NOLOGIN")
		return 0, &sqlapi.Error{Severity: "FATAL", Code: "28000", Message: fmt.Sprintf("role %q is not permitted to log in", r.name)}
	case r.isDefault && !l.info.Local:
		b.log.Warn("login refused", "user", r.name, "remote", l.info.RemoteAddr, "why", "the password is still the initial one")
		return 0, &sqlapi.Error{Severity: "FATAL", Code: "28000",
			Message: fmt.Sprintf("the password of user %q is still the initial one, which is accepted from the server's own host only", r.name),
			Hint:    "Log in there and change it: ALTER USER " + r.name + " IDENTIFIED BY \"...\";"}
	}
	if r.isDefault {
		if _, told := b.toldDefault.LoadOrStore(r.id, true); !told {
			b.log.Warn("a user's password is still the initial one", "user", r.name)
		}
	}
	if l.trusted {
		b.log.Warn("login without a password, by an address rule", "user", r.name, "remote", l.info.RemoteAddr)
	}
	return 0, nil
}

// CheckPassword reports whether the password is the user's; for logins that
// are not SQL sessions (monitors). dba tells whether the user is an
// administrator.
func (b *Backend) CheckPassword(user, password string) (ok, dba bool) {
	l, err := b.login(sqlapi.LoginInfo{User: user, RemoteAddr: "monitor", Local: true, Internal: true})
	if err != nil {
		return false, false
	}
	_, err = l.judge(verify(l.verifier, password), b.cfg.Clock.Now())
	return err == nil, err == nil && l.dba
}

// loginGuard counts failures. Its memory is bounded by the number of users and
// by maxHosts.
type loginGuard struct {
	mu    sync.Mutex
	users map[guardKey]*failures
	hosts map[string]*failures
}

type guardKey struct {
	id    int64
	local bool
}

type failures struct {
	n       int
	last    time.Time
	until   time.Time // locked
	unlocks int64     // role.unlocks then
}

const (
	maxHosts   = 4096
	forgetHost = time.Minute
	otherHosts = "" // when there are too many to count each
)

// try counts an attempt of a user; locked: no password is accepted now; first:
// because of this attempt.
func (g *loginGuard) try(r *role, local, proved bool, limit int, lock time.Duration, now time.Time) (locked, first bool) {
	if limit <= 0 || lock <= 0 {
		return false, false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	k := guardKey{r.id, local}
	f := g.users[k]
	if f != nil && (f.unlocks != r.unlocks || !f.until.IsZero() && !now.Before(f.until) || f.until.IsZero() && now.Sub(f.last) > lock) {
		delete(g.users, k)
		f = nil
	}
	if f != nil && !f.until.IsZero() {
		return true, false
	}
	if proved {
		delete(g.users, k)
		return false, false
	}
	if f == nil {
		f = &failures{unlocks: r.unlocks}
		if g.users == nil {
			g.users = map[guardKey]*failures{}
		}
		g.users[k] = f
	}
	f.n, f.last = f.n+1, now
	if f.n >= limit {
		f.until = now.Add(lock)
		return true, true
	}
	return false, false
}

// failed counts a failure of a host and returns how long the answer waits.
func (g *loginGuard) failed(host string, delay time.Duration, now time.Time) time.Duration {
	if delay <= 0 {
		return 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	f := g.hosts[host]
	if f == nil {
		if len(g.hosts) >= maxHosts {
			for h, x := range g.hosts {
				if now.Sub(x.last) > forgetHost {
					delete(g.hosts, h)
				}
			}
			if len(g.hosts) >= maxHosts {
				host = otherHosts
			}
		}
		if f = g.hosts[host]; f == nil {
			f = &failures{}
			if g.hosts == nil {
				g.hosts = map[string]*failures{}
			}
			g.hosts[host] = f
		}
	}
	if now.Sub(f.last) > forgetHost {
		f.n = 0
	}
	f.n, f.last = f.n+1, now
	return delay << min(f.n-1, 4)
}
