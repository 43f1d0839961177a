package server

import (
	"context"
	"path/filepath"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/config"
	"datawatch/internal/sql/hba"
	"datawatch/internal/sql/session"
	"datawatch/internal/storage/backup"
	"datawatch/internal/vfs"
)

// codeLogin: user or password is wrong, or the user has no DBA role.
const codeLogin base.Code = -2501

// login checks the credentials of a monitor (manual 4.4 #13).
func (s *Server) login(user, password string) error {
	if s.loginBy != nil {
		return s.loginBy(user, password)
	}
	ok, dba := s.sess.CheckPassword(user, password)
	switch {
	case !ok:
		return base.Errorf(codeLogin, "invalid user name or password")
	case !dba:
		return base.Errorf(codeLogin, "user %s has no DBA role", user)
	}
	return nil
}

// loginDelay is what the first wrong password of a host costs.
const loginDelay = 100 * time.Millisecond

// loginPolicy is what the parameters say now about passwords.
func (s *Server) loginPolicy() session.LoginPolicy {
	return session.LoginPolicy{Policy: int(s.para.number("PWD_POLICY")), MinLen: int(s.para.number("PWD_MIN_LEN")),
		Failures: int(s.para.number("FAILED_LOGIN_ATTEMPTS")), LockTime: time.Duration(s.para.number("PASSWORD_LOCK_TIME")) * time.Minute, Delay: loginDelay}
}

// addressRules opens the file of address rules.
func (s *Server) addressRules() (*hba.File, error) {
	path, must := s.cfg.DM.HBAFile, true
	if path == "" {
		path, must = filepath.Join(filepath.Dir(s.cfg.DM.Path), "dm_hba.conf"), false
	}
	read := config.ReadFrom(s.fs)
	if _, ok := s.fs.(vfs.OS); ok {
		read = config.ReadOS // the file need not be the server's to write
	}
	return hba.Open(hba.Source{Read: read, Stat: s.fs.Stat}, path, must, s.log)
}

// backup takes an online full backup (manual 7.1.2). A relative directory, or
// none, is under BAK_PATH.
func (s *Server) backup(ctx context.Context, b session.BackupStmt) error {
	dir := b.Dir
	if dir == "" {
		dir = b.Name
	}
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(s.cfg.DM.BakPath, dir)
	}
	m, err := backup.Online(ctx, s.fs, s.eng, backup.Options{Dir: dir, Name: b.Name, Online: true, WithoutLog: b.WithoutLog, Created: s.clock.Now()})
	if err != nil {
		return err
	}
	s.log.Info("backup taken", "dir", dir, "position", m.Position.String())
	return nil
}
