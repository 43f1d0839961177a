package session

import (
	"fmt"
	"strings"
	"time"

	"datawatch/internal/sql/dialect"
	"datawatch/internal/sql/sqlapi"
)

// identity is who a session is: the user that logged in, the one of SET SESSION
// AUTHORIZATION, and the role of SET ROLE. Only their numbers decide.
type identity struct {
	login   int64
	session int64
	role    int64 // 0: none
	names   map[int64]string
	ids     map[string]int64 // by the values of the variables role and session_authorization
}

// identify makes the session its user's.
func (s *Session) identify() error {
	a, err := s.b.access()
	if err != nil {
		return err
	}
	r := a.find(s.info.User)
	if r == nil || !r.login {
		return &sqlapi.Error{Severity: "FATAL", Code: "28000", Message: fmt.Sprintf("role %q does not exist, or may not log in", s.info.User)}
	}
	s.info.User, s.vars.user = r.name, r.name
	s.me = identity{login: r.id, session: r.id, names: map[int64]string{r.id: r.name}, ids: map[string]int64{r.name: r.id}}
	s.me.set(s)
	s.connLimit = r.connLimit
	return nil
}

// set publishes the numbers for permit.
func (m *identity) set(s *Session) { s.who.Store(uint64(m.session)<<32 | uint64(m.role)) }

// currentUser is current_user: whose rights the session has.
func (s *Session) currentUser() string {
	if s.me.role != 0 {
		return s.me.names[s.me.role]
	}
	return s.me.names[s.me.session]
}

// subject is the role whose rights the session has.
func (s *Session) subject(a *access) (int64, error) { return a.subject(s.who.Load()) }

// rights are the session's, by what is hardened, or by what its transaction
// has changed.
func (s *Session) rights() (*access, int64, error) {
	var a *access
	var err error
	if c := s.tx.c; c != nil && c.kind != emptyConn {
		a, err = c.access(true)
	} else {
		a, err = s.b.access()
	}
	if err != nil {
		return nil, 0, err
	}
	id, err := s.subject(a)
	return a, id, err
}

// mustAdminister refuses what only administrators may do.
func (s *Session) mustAdminister(what string) error {
	a, id, err := s.rights()
	if err != nil {
		return err
	}
	if !a.dba(id) {
		return &sqlapi.Error{Code: "42501", Message: "permission denied: " + what + " needs the role DBA"}
	}
	return nil
}

// mustOwn refuses what only the owner of a table may do.
func (s *Session) mustOwn(table string) error {
	a, id, err := s.rights()
	if err != nil {
		return err
	}
	if rel := lower(table); a.names[rel] != "" && !a.owns(id, rel) {
		return a.notOwner(rel)
	}
	return nil
}

// administrator reports whether a user has the role DBA.
func (b *Backend) administrator(user string) bool {
	a, err := b.access()
	if err != nil {
		return strings.EqualFold(user, DefaultUser) // the database cannot be read: somebody must look at it
	}
	r := a.find(user)
	return r != nil && a.dba(r.id)
}

// assume checks a new value of role or session_authorization and returns it as
// it is to be kept; "none" or "" go back.
func (s *Session) assume(name, value string, reset bool) (string, error) {
	a, _, err := s.rights()
	if err != nil && a == nil {
		return "", err
	}
	if name == "role" && (reset || strings.EqualFold(value, "none")) {
		return "none", nil
	}
	if name == "session_authorization" && reset {
		return s.me.names[s.me.login], nil
	}
	r := a.find(value)
	if r == nil {
		return "", &sqlapi.Error{Code: "22023", Message: fmt.Sprintf("role %q does not exist", value)}
	}
	switch {
	case name == "role" && !a.dba(s.me.session) && !a.memberOf(s.me.session, r.id):
		return "", &sqlapi.Error{Code: "42501", Message: fmt.Sprintf("permission denied to set role %q", r.name)}
	case name != "role" && r.id != s.me.login && !a.dba(s.me.login):
		return "", &sqlapi.Error{Code: "42501", Message: "permission denied to set session authorization"}
	}
	s.me.ids[r.name], s.me.names[r.id] = r.id, r.name
	return r.name, nil
}

// assumed follows the variables, also where a transaction took them back.
func (s *Session) assumed() {
	m := &s.me
	before := *m
	m.session, m.role = m.login, 0
	if v := s.vars.get("session_authorization"); v != "" && m.ids[v] != 0 {
		m.session = m.ids[v]
	}
	if v := s.vars.get("role"); v != "none" {
		m.role = m.ids[v]
	}
	s.vars.user = m.names[m.session]
	m.set(s)
	if before.session != m.session || before.role != m.role {
		s.b.log.Info("audit", "action", "set role", "login", m.names[m.login], "session", m.names[m.session], "role", s.currentUser())
	}
}

// superuser is is_superuser.
func (s *Session) superuser() string {
	a, id, err := s.rights()
	return onOff(err == nil && a.dba(id))
}

// tellSuperuser reports is_superuser to the client's driver.
func (s *Session) tellSuperuser() {
	if s.notify != nil {
		s.notify.ParameterChanged("is_superuser", s.superuser())
	}
}

// crowded refuses a session beyond the user's CONNECTION LIMIT. Under b.mu.
func (b *Backend) crowded(s *Session) error {
	if s.connLimit < 0 {
		return nil
	}
	n := 0
	for _, o := range b.sessions {
		if o.me.login == s.me.login {
			n++
		}
	}
	if n >= s.connLimit {
		return &sqlapi.Error{Severity: "FATAL", Code: "53300", Message: fmt.Sprintf("too many connections for role %q", s.info.User)}
	}
	return nil
}

// dropStrangers ends the sessions of users that are gone.
func (b *Backend) dropStrangers(a *access) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.sessions {
		if a.byID[s.me.login] == nil {
			s.Terminate(&sqlapi.Error{Severity: "FATAL", Code: "57P01", Message: "terminating connection: the user was dropped"})
		}
	}
}

// parseUntil reads VALID UNTIL.
func parseUntil(v string) (time.Time, error) {
	for _, l := range []string{"2006-01-02 15:04:05.999999999-07:00", "2006-01-02 15:04:05.999999999-07", "2006-01-02 15:04:05.999999999 MST", time.RFC3339Nano,
		"2006-01-02 15:04:05.999999999", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.Parse(l, strings.TrimSpace(v)); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("invalid input syntax for type timestamp: %q", v)
}

// mayCall decides about administration.
func (s *Session) mayCall(st *parsed) error {
	switch {
	case st.Kind != dialect.Call:
		return s.mustAdminister(st.Tag)
	case strings.HasPrefix(st.Name, "SF_GET_PARA_"), st.Name == "SP_CLOSE_SESSION", st.Name == "SP_CANCEL_SESSION_OPERATION":
		return nil // of one's own sessions; those of others are checked where they are found
	}
	return s.mustAdminister(st.Name)
}

// mayLock: LOCK TABLE wants a right to the table.
func (s *Session) mayLock(table string) error {
	a, id, err := s.rights()
	if err != nil {
		return err
	}
	rel := lower(table)
	if a.names[rel] != "" && a.grantedAny(id, rel)&(privInsert|privUpdate|privDelete|privTruncate) == 0 {
		return &sqlapi.Error{Code: "42501", Message: "permission denied for table " + a.names[rel]}
	}
	return nil
}
