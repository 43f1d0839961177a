package session

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/ncruces/go-sqlite3"
	"github.com/xdg-go/stringprep"

	"datawatch/internal/sql/sqlapi"
)

// DefaultUser is the administrator that every database has, and its password
// until someone chooses one.
const (
	DefaultUser     = "SYSDBA"
	DefaultPassword = "SYSDBA"
)

const scramIterations = 4096

// Version 2 of the system tables. The first version had SYSUSERS with NAME,
// VERIFIER and IS_DEFAULT only; it is read as it is, and made anew by the first
// statement about users, roles or privileges.
var systemTables = []string{
	"CREATE TABLE main." + userTable + `(ID INTEGER PRIMARY KEY AUTOINCREMENT, NAME VARCHAR(128) NOT NULL, LOGIN INTEGER NOT NULL, INHERIT INTEGER NOT NULL,
		VERIFIER VARCHAR(512) NOT NULL, IS_DEFAULT INTEGER NOT NULL, CONN_LIMIT INTEGER NOT NULL, VALID_UNTIL VARCHAR(64) NOT NULL, LOCKED INTEGER NOT NULL,
		UNLOCKS INTEGER NOT NULL, FAILED_LIMIT INTEGER NOT NULL, LOCK_MINUTES INTEGER NOT NULL)`,
	"CREATE TABLE main." + memberTable + "(ROLE INTEGER, MEMBER INTEGER, GRANTOR INTEGER NOT NULL, ADMIN INTEGER NOT NULL, PRIMARY KEY(ROLE, MEMBER)) WITHOUT ROWID",
	"CREATE TABLE main." + ownerTable + "(REL VARCHAR(256) PRIMARY KEY, OWNER INTEGER NOT NULL) WITHOUT ROWID",
	"CREATE TABLE main." + grantTable + `(REL VARCHAR(256), COL VARCHAR(256), GRANTEE INTEGER, PRIV VARCHAR(16), GRANTOR INTEGER, OPT INTEGER NOT NULL,
		PRIMARY KEY(REL, COL, GRANTEE, PRIV, GRANTOR)) WITHOUT ROWID`,
}

// makeTables makes the system tables with SYSDBA and the roles that every
// database has, and takes over the users of the first version.
func makeTables(db *sqlite3.Conn, users []*role) error {
	steps := systemTables
	if len(users) > 0 {
		steps = append([]string{"DROP TABLE main." + userTable}, steps...)
	}
	for _, sql := range steps {
		if err := db.Exec(sql); err != nil {
			return err
		}
	}
	for _, r := range append(builtinRoles(), users...) {
		if r.id == dbaID {
			// What the salts of unknown users are made of: the same on every
			// database of a group, and of no use for anything else.
			r.verifier = rand.Text()
		}
		if err := insertRole(db, r); err != nil {
			return err
		}
	}
	// Numbers are never used again: a session of a dropped user must not become
	// one of the next user.
	return db.Exec("UPDATE main.sqlite_sequence SET seq = max(seq, " + strconv.Itoa(firstID-1) + ") WHERE name = '" + userTable + "'")
}

func insertRole(db *sqlite3.Conn, r *role) error {
	var id any
	if r.id != 0 {
		id = r.id
	}
	return exec(db, "INSERT INTO main."+userTable+" VALUES(?,?,?,?,?,?,?,?,?,?,?,?)", id, r.name, r.login, r.inherit, r.verifier, r.isDefault, r.connLimit,
		r.validUntil, r.locked, r.unlocks, r.failedLimit, r.lockMinutes)
}

// exec runs a statement of the server with parameters.
func exec(db *sqlite3.Conn, sql string, args ...any) error {
	st, _, err := db.Prepare(sql)
	if err != nil {
		return err
	}
	defer st.Close()
	for i, a := range args {
		switch x := a.(type) {
		case nil:
			err = st.BindNull(i + 1)
		case int:
			err = st.BindInt(i+1, x)
		case int64:
			err = st.BindInt64(i+1, x)
		case bool:
			err = st.BindBool(i+1, x)
		case string:
			err = st.BindText(i+1, x)
		default:
			err = fmt.Errorf("parameter of type %T", a)
		}
		if err != nil {
			return err
		}
	}
	return st.Exec()
}

// InitSchema makes the system tables of a new database, which must be open and
// take writes, with one administrator. It returns when that is hardened.
func InitSchema(ctx context.Context, db Database, user, password string) error {
	verifier, err := makeVerifier(password)
	if err != nil {
		return err
	}
	b := New(Config{DB: db})
	defer b.files.Close()
	c, err := b.open(writerConn)
	if err != nil {
		return fmt.Errorf("create system tables: %w", err)
	}
	defer c.close()
	if err := db.LockWrite(ctx, c.h); err != nil {
		return fmt.Errorf("create system tables: %w", err)
	}
	c.internal = true
	err = c.db.Exec("BEGIN IMMEDIATE")
	if err == nil {
		err = makeTables(c.db, nil)
	}
	if err == nil {
		err = insertRole(c.db, &role{id: sysdbaID, name: strings.ToUpper(user), login: true, inherit: true, verifier: verifier, isDefault: password == DefaultPassword,
			connLimit: -1, failedLimit: -1, lockMinutes: -1})
	}
	if err == nil {
		err = c.db.Exec("COMMIT")
	}
	if err != nil {
		c.rollback()
	}
	lsn := c.h.LastCommit()
	db.UnlockWrite(c.h)
	if err != nil {
		return fmt.Errorf("create system tables: %w", err)
	}
	if err := db.WaitHardened(ctx, lsn); err != nil {
		return fmt.Errorf("create system tables: %w", err)
	}
	return nil
}

// makeVerifier is PostgreSQL's form: SCRAM-SHA-256$iterations:salt$stored:server.
func makeVerifier(password string) (string, error) {
	if password == "" {
		return "", &sqlapi.Error{Code: "28P01", Message: "the password must not be empty"}
	}
	salt := make([]byte, 16)
	rand.Read(salt)
	stored, server, err := keys(password, salt, scramIterations)
	if err != nil {
		return "", err
	}
	return verifierText(salt, stored, server), nil
}

func verifierText(salt, stored, server []byte) string {
	e := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", scramIterations, e(salt), e(stored), e(server))
}

// mockVerifier is what an unknown user proves a password against: always the
// same, and nothing matches it.
func mockVerifier(secret, user string) string {
	h := func(what string) []byte {
		m := hmac.New(sha256.New, []byte(secret))
		m.Write([]byte(what + "\x00" + lower(user)))
		return m.Sum(nil)
	}
	return verifierText(h("salt")[:16], h("stored"), h("server"))
}

func keys(password string, salt []byte, n int) (stored, server []byte, err error) {
	if p, err := stringprep.SASLprep.Prepare(password); err == nil {
		password = p
	}
	salted, err := pbkdf2.Key(sha256.New, password, salt, n, sha256.Size)
	if err != nil {
		return nil, nil, fmt.Errorf("derive SCRAM keys: %w", err)
	}
	mac := func(key []byte, s string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(s))
		return h.Sum(nil)
	}
	client := sha256.Sum256(mac(salted, "Client Key"))
	return client[:], mac(salted, "Server Key"), nil
}

// parts takes a verifier apart; ok is false for anything else. Other
// iterations than ours are accepted, as psql's \password may make them, up to
// what a login can afford.
func parts(verifier string) (salt, stored, server []byte, n int, ok bool) {
	rest, found := strings.CutPrefix(verifier, "SCRAM-SHA-256$")
	f := strings.Split(rest, "$")
	if !found || len(f) != 2 {
		return nil, nil, nil, 0, false
	}
	iter, salt64, _ := strings.Cut(f[0], ":")
	stored64, server64, _ := strings.Cut(f[1], ":")
	n, err := strconv.Atoi(iter)
	salt, err2 := base64.StdEncoding.DecodeString(salt64)
	stored, err3 := base64.StdEncoding.DecodeString(stored64)
	server, err4 := base64.StdEncoding.DecodeString(server64)
	ok = errors.Join(err, err2, err3, err4) == nil && n >= scramIterations && n <= 1<<20 && len(salt) > 0 && len(stored) == sha256.Size && len(server) == sha256.Size
	return salt, stored, server, n, ok
}

func verify(verifier, password string) bool {
	salt, want, _, n, ok := parts(verifier)
	if !ok {
		return false
	}
	stored, _, err := keys(password, salt, n)
	return err == nil && subtle.ConstantTimeCompare(stored, want) == 1
}
