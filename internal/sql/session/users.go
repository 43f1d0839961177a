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

	"github.com/xdg-go/stringprep"

	"datawatch/internal/sql/dialect"
	"datawatch/internal/sql/sqlapi"
)

// DefaultUser is the administrator that every database has, and its password
// until someone chooses one.
const (
	DefaultUser     = "SYSDBA"
	DefaultPassword = "SYSDBA"
)

const scramIterations = 4096

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
	err = c.run("BEGIN IMMEDIATE")
	for _, sql := range []string{
		"CREATE TABLE IF NOT EXISTS " + userTable + "(NAME VARCHAR(128) PRIMARY KEY, VERIFIER VARCHAR(512) NOT NULL, IS_DEFAULT INTEGER NOT NULL) WITHOUT ROWID",
		"INSERT OR REPLACE INTO " + userTable + " VALUES(" + literal(strings.ToUpper(user)) + "," + literal(verifier) + "," + isDefault(password) + ")",
		"COMMIT",
	} {
		if err == nil {
			err = c.run(sql)
		}
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

func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func isDefault(password string) string {
	if password == DefaultPassword {
		return "1"
	}
	return "0"
}

// Verifier implements sqlapi.Backend. It reads the page store directly and so
// answers in every status from Mount on.
func (b *Backend) Verifier(user string) (verifier string, isDefault, ok bool) {
	ctx := context.Background()
	c, err := b.readers.get(ctx)
	if err != nil {
		b.log.Error("read users", "err", err)
		return "", false, false
	}
	defer b.readers.put(c)
	// Until the end: SQLite prepares the statement again, and asks the
	// authorizer again, when the schema has changed since.
	c.internal = true
	defer func() { c.internal = false }()
	cs, err := c.prepare("SELECT VERIFIER, IS_DEFAULT FROM " + userTable + " WHERE NAME = $1")
	if err != nil {
		b.log.Error("read users", "err", err)
		return "", false, false
	}
	defer c.done(cs)
	if err := cs.bind([]sqlapi.Value{{Kind: sqlapi.Text, Bytes: []byte(strings.ToUpper(user))}}); err != nil {
		return "", false, false
	}
	more, err := c.step(cs)
	if err != nil {
		b.log.Error("read users", "err", err)
	}
	if !more {
		return "", false, false
	}
	return cs.s.ColumnText(0), cs.s.ColumnBool(1), true
}

// CheckPassword reports whether the password is the user's; for logins that
// are not SQL sessions (monitors). dba tells whether the user is an
// administrator, which the only user there is always is.
func (b *Backend) CheckPassword(user, password string) (ok, dba bool) {
	v, _, found := b.Verifier(user)
	if !found {
		v = dummyVerifier
	}
	same := verify(v, password)
	return found && same, found && same
}

// administrator reports whether a user may use the sessions that are kept for
// administrators, and see and end those of others.
func (b *Backend) administrator(user string) bool { return strings.EqualFold(user, "SYSDBA") }

var dummyVerifier = func() string { v, _ := makeVerifier(rand.Text()); return v }()

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
	e := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", scramIterations, e(salt), e(stored), e(server)), nil
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

func verify(verifier, password string) bool {
	f := strings.Split(strings.TrimPrefix(verifier, "SCRAM-SHA-256$"), "$")
	if len(f) != 2 {
		return false
	}
	iter, salt64, _ := strings.Cut(f[0], ":")
	stored64, _, _ := strings.Cut(f[1], ":")
	n, err := strconv.Atoi(iter)
	salt, err2 := base64.StdEncoding.DecodeString(salt64)
	want, err3 := base64.StdEncoding.DecodeString(stored64)
	if errors.Join(err, err2, err3) != nil {
		return false
	}
	stored, _, err := keys(password, salt, n)
	return err == nil && subtle.ConstantTimeCompare(stored, want) == 1
}

// alterUser changes a password. It is a writing statement like any other.
func (s *Session) alterUser(name, password string) error {
	if s.b.standby() {
		return readOnlyError("standby", "ALTER USER")
	}
	if s.tx.active && s.tx.readOnly {
		return readOnlyError("", "ALTER USER")
	}
	if !s.b.tables() {
		return s.b.notOpen()
	}
	if _, _, ok := s.b.Verifier(name); !ok {
		return &sqlapi.Error{Code: "42704", Message: fmt.Sprintf("user %q does not exist", name)}
	}
	v, err := makeVerifier(password)
	if err != nil {
		return err
	}
	sql := "UPDATE " + userTable + " SET VERIFIER = " + literal(v) + ", IS_DEFAULT = " + isDefault(password) +
		" WHERE NAME = " + literal(strings.ToUpper(name))
	if s.tx.active || s.simple != 1 {
		if !s.tx.active {
			s.begin(dialect.Modes{}, true)
		}
		c, err := s.writeTx(false)
		if err != nil {
			return err
		}
		return c.run(sql)
	}
	c, err := s.lockWrite(s.own, false)
	if err != nil {
		return err
	}
	err = c.run(sql)
	lsn := s.unlockWrite(c)
	if err != nil {
		return err
	}
	return s.waitHardened(lsn)
}
