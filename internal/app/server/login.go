package server

import (
	"context"
	"path/filepath"

	"datawatch/internal/base"
	"datawatch/internal/sql/session"
	"datawatch/internal/storage/backup"
)

// codeLogin: user or password is wrong, or the user has no DBA role.
const codeLogin base.Code = -2501

// login checks the credentials of a monitor (manual 4.4 #13).
func (s *Server) login(user, password string) error {
	ok, dba := s.sess.CheckPassword(user, password)
	switch {
	case !ok:
		return base.Errorf(codeLogin, "invalid user name or password")
	case !dba:
		return base.Errorf(codeLogin, "user %s has no DBA role", user)
	}
	return nil
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
