package session

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"datawatch/internal/sql/hba"
	"datawatch/internal/sql/sqlapi"
)

// handClock is a clock that tests move; sleeping takes no time and is counted.
type handClock struct {
	at    time.Time
	slept time.Duration
}

func (c *handClock) Now() time.Time                                 { return c.at }
func (c *handClock) NewTimer(d time.Duration) *time.Timer           { return time.NewTimer(d) }
func (c *handClock) NewTicker(d time.Duration) *time.Ticker         { return time.NewTicker(d) }
func (c *handClock) Sleep(_ context.Context, d time.Duration) error { c.slept += d; return nil }

type loginEnv struct {
	*env
	clock  *handClock
	policy LoginPolicy
	rules  *hba.Rules
	log    bytes.Buffer
}

func newLoginEnv(t *testing.T, p LoginPolicy) *loginEnv {
	l := &loginEnv{clock: &handClock{at: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}, policy: p}
	l.env = newEnv(t, func(c *Config) {
		c.Clock, c.Login, c.Rules = l.clock, func() LoginPolicy { return l.policy }, func() *hba.Rules { return l.rules }
		c.Log = slog.New(slog.NewTextHandler(&l.log, nil))
	})
	return l
}

func (l *loginEnv) try(t *testing.T, user, password string, local bool, want string) {
	t.Helper()
	err := l.attempt(user, password, local)
	got := "ok"
	if err != nil {
		got = codeOf(t, err)
	}
	if got != want {
		t.Errorf("%s/%s: %s (%v), want %s", user, password, got, err, want)
	}
}

// What an unknown user is told, and how long it takes, is what a known user
// with a wrong password is told, locked or not.
func TestNothingTellsUsersApart(t *testing.T) {
	l := newLoginEnv(t, LoginPolicy{Failures: 3, LockTime: time.Minute, Delay: time.Second})
	admin := l.client()
	admin.exec("create user known password 'right-1'; create user locked password 'right-1' account lock; create user expired password 'right-1' valid until '2029-12-31'; create user nopw; create role nologin password 'right-1'")
	salt := func(user string) string {
		x, err := l.b.Login(sqlapi.LoginInfo{User: user})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, _, n, ok := parts(x.Verifier()); !ok || n != scramIterations {
			t.Errorf("%s: verifier %s", user, x.Verifier())
		}
		return strings.Split(x.Verifier(), "$")[1]
	}
	if salt("ghost") != salt("GHOST") || salt("ghost") == salt("ghost2") || salt("nopw") != salt("NoPw") || len(salt("ghost")) != len(salt("known")) {
		t.Error("the salts of unknown users are not like those of known ones")
	}
	other := New(Config{DB: l.b.cfg.DB}) // another instance, or this one restarted
	x, err := other.Login(sqlapi.LoginInfo{User: "ghost"})
	if err != nil || strings.Split(x.Verifier(), "$")[1] != salt("ghost") {
		t.Error("the salt of an unknown user depends on the instance")
	}
	if err := other.Close(t.Context(), "done"); err != nil {
		t.Error(err)
	}
	texts, waits := map[string]bool{}, map[time.Duration]bool{}
	for _, user := range []string{"ghost", "known", "locked", "expired", "nopw", "nologin"} {
		l.b.guard.hosts = nil
		l.clock.slept = 0
		for range 5 {
			err := l.attempt(user, "wrong", false)
			if err == nil {
				t.Fatalf("%s got in", user)
			}
			texts[strings.ReplaceAll(err.Error(), user, "USER")] = true
		}
		waits[l.clock.slept] = true
	}
	if len(texts) != 1 || len(waits) != 1 || !waits[31*time.Second] {
		t.Errorf("answers %v after %v", texts, waits)
	}
	l.clock.at = l.clock.at.Add(2 * time.Minute)
	l.try(t, "locked", "right-1", false, "28P01") // and the right password tells nothing either
	l.try(t, "expired", "right-1", false, "28P01")
	for _, want := range []string{"there is no such user", "the account is locked", "the password has expired", "wrong password", "user locked after wrong passwords"} {
		if !strings.Contains(l.log.String(), want) {
			t.Errorf("the log does not say %q", want)
		}
	}
	if strings.Contains(l.log.String(), "right-1") || strings.Contains(l.log.String(), "SCRAM-SHA") {
		t.Error("the log has a password or a verifier")
	}
}

func TestLockout(t *testing.T) {
	l := newLoginEnv(t, LoginPolicy{Failures: 3, LockTime: time.Minute})
	admin := l.client()
	admin.exec("alter user sysdba password 'right-1'; create user u password 'right-1'; create user v password 'right-1' limit failed_login_attempts 1, password_lock_time 10; create user w password 'right-1' limit failed_login_attempts unlimited")
	wrong := func(user string, n int, local bool) {
		for range n {
			l.try(t, user, "wrong", local, "28P01")
		}
	}
	wrong("u", 2, false)
	l.try(t, "u", "right-1", false, "ok") // forgets the failures
	wrong("u", 3, false)
	l.try(t, "u", "right-1", false, "28P01")
	l.try(t, "u", "right-1", true, "ok") // the server's own host counts for itself
	l.clock.at = l.clock.at.Add(59 * time.Second)
	l.try(t, "u", "right-1", false, "28P01")
	l.clock.at = l.clock.at.Add(2 * time.Second)
	l.try(t, "u", "right-1", false, "ok")
	wrong("v", 1, false)
	l.clock.at = l.clock.at.Add(9 * time.Minute)
	l.try(t, "v", "right-1", false, "28P01")
	admin.exec("alter user v account unlock")
	l.try(t, "v", "right-1", false, "ok")
	wrong("w", 50, false)
	l.try(t, "w", "right-1", false, "ok")
	// Far from here nobody locks an administrator out of the console.
	wrong("SYSDBA", 20, false)
	l.try(t, "sysdba", "right-1", false, "28P01")
	l.try(t, "sysdba", "right-1", true, "ok")
	wrong("sysdba", 3, true)
	l.try(t, "sysdba", "right-1", true, "28P01")
	l.clock.at = l.clock.at.Add(2 * time.Minute)
	l.try(t, "sysdba", "right-1", true, "ok")
	l.policy.Failures = 0
	wrong("u", 10, false)
	l.try(t, "u", "right-1", false, "ok")
	// Whoever tries many names fills nothing.
	for i := range 3 * maxHosts {
		l.b.guard.failed(string(rune('a'+i%26))+time.Duration(i).String(), time.Second, l.clock.at)
	}
	if n := len(l.b.guard.hosts); n > maxHosts+1 {
		t.Errorf("%d hosts are remembered", n)
	}
}

func TestPasswordPolicy(t *testing.T) {
	l := newLoginEnv(t, LoginPolicy{Policy: 31, MinLen: 8})
	admin := l.client()
	for pw, why := range map[string]string{"short-1A": "", "Aa1-567": "fewer than 8", "lower-123": "upper-case", "UPPER-abc": "no digit", "Upper1234": "punctuation", "": "fewer than 8", "Grüße-12": ""} {
		_, _, err := admin.simpleQ("create user u password '" + pw + "'")
		switch {
		case why == "" && err != nil, why != "" && (err == nil || codeOf(t, err) != "28P01" || !strings.Contains(err.Error(), why)):
			t.Errorf("%q: %v, want %q", pw, err, why)
		case err != nil && pw != "" && strings.Contains(err.Error(), pw):
			t.Errorf("the error shows the password: %v", err)
		case err == nil:
			admin.exec("drop user u")
		}
	}
	l.policy.Policy = 1
	admin.fails("create user abc password 'ABC'", "28P01")
	v, err := makeVerifier("abc")
	if err != nil {
		t.Fatal(err)
	}
	admin.fails("create user abc password '"+v+"'", "28P01") // psql's \password sends it so
	admin.exec("create user def password '" + v + "'")
	l.try(t, "def", "abc", false, "ok")
	for _, bad := range []string{"SCRAM-SHA-256$1:YQ==$YQ==:YQ==", "SCRAM-SHA-256$", "SCRAM-SHA-256$" + "99999999" + v[len("SCRAM-SHA-256$4096"):]} {
		admin.fails("alter user def password '"+bad+"'", "22023")
	}
	admin.fails("alter user def password 'md5"+strings.Repeat("a", 32)+"'", "0A000")
	if rows := admin.exec("select count(*) from v$sessions"); rows == "" {
		t.Error("no row")
	}
	for _, i := range l.b.Sessions() {
		if strings.Contains(i.SQL, "SCRAM") || strings.Contains(i.SQL, "abc'") {
			t.Errorf("V$SESSIONS shows %s", i.SQL)
		}
	}
}

func TestWhoMayLogIn(t *testing.T) {
	l := newLoginEnv(t, LoginPolicy{})
	admin := l.client()
	l.try(t, "SYSDBA", "SYSDBA", true, "ok")
	l.try(t, "SYSDBA", "SYSDBA", false, "28000") // the initial password, from elsewhere
	l.try(t, "SYSDBA", "wrong", false, "28P01")
	admin.exec("create role r password 'x-1'; create user u password 'x-1' valid until '2030-01-02 00:00:00' connection limit 1")
	l.try(t, "r", "x-1", true, "28000")
	l.try(t, "u", "x-1", false, "ok")
	l.clock.at = l.clock.at.Add(48 * time.Hour)
	l.try(t, "u", "x-1", false, "28P01")
	admin.exec("alter user u valid until 'infinity'")
	l.try(t, "u", "x-1", false, "ok")
	u := l.user("u")
	if _, err := l.b.NewSession(t.Context(), sqlapi.Info{User: "U"}, nil); err == nil || codeOf(t, err) != "53300" {
		t.Errorf("beyond CONNECTION LIMIT: %v", err)
	}
	u.exec("alter user u password 'y-2'") // one's own
	u.fails("alter user u password 'y-2' connection limit 5", "42501")
	l.try(t, "u", "x-1", false, "28P01")
	l.try(t, "u", "y-2", false, "ok")
	// An administrator always remains.
	for _, sql := range []string{"alter user sysdba account lock", "alter user sysdba nologin", "alter user sysdba valid until '2020-01-01'", "alter user sysdba password null"} {
		admin.fails(sql, "55000")
	}
	admin.exec("create user boss superuser password 'z-3'; alter user sysdba account lock")
	admin.fails("revoke dba from boss", "55000")
	admin.fails("alter user boss nosuperuser", "55000")
	l.try(t, "SYSDBA", "SYSDBA", true, "28P01")
	l.user("boss").exec("alter user sysdba account unlock; drop user u")
	if _, dba := l.b.CheckPassword("boss", "z-3"); !dba {
		t.Error("boss is no administrator")
	}
	for sql, code := range map[string]string{"create user sysdba": "42710", "create user \"a b\"": "42939", "create user pg_x": "42939", "create role public": "42939", "drop role dba": "42939", "alter role dba nologin": "42939", "drop user sysdba": "42939",
		"create user x in role nosuch": "42704", "alter user boss valid until 'soon'": "22007", "grant nosuch to boss": "42704", "grant dba to public": "0A000"} {
		_, _, err := admin.simpleQ(sql)
		if err == nil || codeOf(t, err) != code {
			t.Errorf("%s: %v, want %s", sql, err, code)
		}
	}
}

func TestAddressRules(t *testing.T) {
	l := newLoginEnv(t, LoginPolicy{})
	admin := l.client()
	admin.exec("create role team; create user inside password 'x-1' in role team; create user outside password 'x-1'; alter user sysdba password 'x-1'")
	set := func(text string) {
		t.Helper()
		r, err := hba.Parse("hba", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		l.rules = r
	}
	set("host all +team 10.0.0.0/8 scram-sha-256\nhost all sysdba samehost trust\n")
	l.try(t, "inside", "x-1", false, "ok")
	l.try(t, "outside", "x-1", false, "28P01") // it depends on the user: only the log says why
	l.try(t, "ghost", "x-1", false, "28P01")
	if !strings.Contains(l.log.String(), "address rule: hba: no line fits") {
		t.Error("the log does not name the rule")
	}
	x, err := l.b.Login(sqlapi.LoginInfo{User: "SYSDBA", RemoteAddr: "127.0.0.1:1", Local: true})
	if err != nil || !x.Trusted() || x.Result(t.Context(), false) != nil {
		t.Errorf("trusted: %v", err)
	}
	x, err = l.b.Login(sqlapi.LoginInfo{User: "outside", RemoteAddr: "127.0.0.1:1", Local: true})
	if err != nil || x.Trusted() {
		t.Errorf("trusted, but another user: %v", err)
	}
	set("host all all 11.0.0.0/8 scram-sha-256\n")
	for _, user := range []string{"inside", "ghost"} {
		l.try(t, user, "x-1", false, "28000") // the address alone
	}
	if ok, _ := l.b.CheckPassword("SYSDBA", "x-1"); !ok {
		t.Error("a monitor's login is refused by an address rule for clients")
	}
}
