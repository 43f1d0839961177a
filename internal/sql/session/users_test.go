package session

import (
	"strings"
	"testing"

	"datawatch/internal/base"
	"datawatch/internal/sql/sqlapi"
)

// user is a session of another user.
func (e *env) user(name string) *client {
	e.tb.Helper()
	return e.clientAs(sqlapi.Info{User: name})
}

// attempt is the outcome of a login over the network.
func (e *env) attempt(user, password string, local bool) error {
	e.tb.Helper()
	l, err := e.b.Login(sqlapi.LoginInfo{User: user, Database: "DAMENG", RemoteAddr: "10.0.0.7:4000", Local: local})
	if err != nil {
		return err
	}
	return l.Result(e.tb.Context(), verify(l.Verifier(), password))
}

func TestUsers(t *testing.T) {
	e := newEnv(t)
	if l, err := e.b.Login(sqlapi.LoginInfo{User: "sysdba"}); err != nil || !strings.HasPrefix(l.Verifier(), "SCRAM-SHA-256$4096:") {
		t.Fatalf("login: %v %v", l, err)
	}
	c := e.client()
	c.is(`ALTER USER SYSDBA IDENTIFIED BY "Secret-1"`, "ALTER ROLE")
	for _, i := range e.b.Sessions() {
		if strings.Contains(i.SQL, "Secret") {
			t.Error("a password is shown in the list of sessions")
		}
	}
	if ok, dba := e.b.CheckPassword("SysDba", "Secret-1"); !ok || !dba {
		t.Error("the new password is refused")
	}
	if ok, _ := e.b.CheckPassword("SYSDBA", "SYSDBA"); ok {
		t.Error("the old password is accepted")
	}
	if err := e.attempt("SYSDBA", "Secret-1", false); err != nil {
		t.Error("the password still counts as default:", err)
	}
	c.exec("begin; alter user sysdba with password 'x'; rollback")
	if ok, _ := e.b.CheckPassword("SYSDBA", "Secret-1"); !ok {
		t.Error("a rolled back change of password took effect")
	}
	c.fails("alter user nobody password 'x'", "42704")
	e.db.status.Store(uint32(base.StatusMount))
	if ok, _ := e.b.CheckPassword("SYSDBA", "Secret-1"); !ok {
		t.Error("no login in status Mount")
	}
}

func TestFirst(t *testing.T) {
	e := newEnv(t)
	c := e.client()
	c.exec("create table secret(a int, b text); insert into secret values(1,'x')")
	c.exec("create user app password 'Secret-12'; create view v as select a from secret")
	u := e.user("app")
	u.is("select current_user", "app")
	u.fails("select * from secret", "42501")
	u.fails("select a from v", "42501")
	u.fails("select count(*) from secret", "42501")
	c.exec("grant select on v to app")
	u.is("select a from v", "1")
	u.is("select count(*) from v", "1")
	u.fails("select * from secret", "42501")
	u.fails("with v as (select * from secret) select * from v", "42501")
	c.exec("grant select(a) on secret to app")
	u.is("select a from secret", "1")
	u.fails("select b from secret", "42501")
	c.exec("revoke select on secret from app")
	u.fails("select a from secret", "42501")
	u.fails("create table t(x int)", "42501")
	c.exec("grant resource to app")
	u.exec("create table t(x int); insert into t values(5)")
	c.is("select x from t", "5")
	c.exec("create user b2 password 'Secret-12'")
	e.user("b2").fails("select * from t", "42501")
	u.exec("grant select on t to b2")
	e.user("b2").is("select * from t", "5")
}

// A database of the first version has users only, and each administers. The
// first statement about users makes the tables of today, and loses nobody.
func TestUsersOfTheFirstVersion(t *testing.T) {
	e := newEnv(t)
	old, err := makeVerifier("old-1")
	if err != nil {
		t.Fatal(err)
	}
	c := e.client()
	c.exec("create table t(a int)")
	err = c.manage("test", func(m *manager) error {
		for _, sql := range []string{"DROP TABLE main.SYSUSERS", "DROP TABLE main.SYSMEMBERS", "DROP TABLE main.SYSOWNERS", "DROP TABLE main.SYSGRANTS",
			"CREATE TABLE SYSUSERS(NAME VARCHAR(128) PRIMARY KEY, VERIFIER VARCHAR(512) NOT NULL, IS_DEFAULT INTEGER NOT NULL) WITHOUT ROWID",
			"INSERT INTO SYSUSERS VALUES('SYSDBA', '" + old + "', 0), ('SECOND', '" + old + "', 1)"} {
			if err := m.db.Exec(sql); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.attempt("sysdba", "old-1", false); err != nil {
		t.Error(err)
	}
	second := e.user("second")
	second.is("select count(*) from t", "0")
	second.exec("create table t2(a int); drop table t2; alter table t rename to t3")
	if err := e.attempt("ghost", "old-1", false); err == nil {
		t.Error("an unknown user gets in")
	}
	c.fails("drop user nosuch", "42704") // and is rolled back
	c.exec("create user u password 'x-1'; grant select on t3 to u")
	e.user("u").is("select count(*) from t3", "0")
	second.is("select rolname from pg_roles where rolsuper and rolcanlogin order by 1", "SECOND SYSDBA")
	for user, password := range map[string]string{"SYSDBA": "old-1", "u": "x-1"} {
		if err := e.attempt(user, password, false); err != nil {
			t.Errorf("%s: %v", user, err)
		}
	}
	if err := e.attempt("second", "old-1", false); err == nil || codeOf(t, err) != "28000" {
		t.Errorf("an initial password, from elsewhere: %v", err)
	}
}
