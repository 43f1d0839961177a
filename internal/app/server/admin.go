package server

import (
	"context"
	"fmt"
	"strings"

	"datawatch/internal/base"
	"datawatch/internal/sql/session"
	"datawatch/internal/sql/sqlapi"
	"datawatch/internal/sql/views"
)

// Refusals of changes by hand, as SQL clients see them.
const (
	sqlstateState  = "55000" // object not in prerequisite state
	sqlstateRefuse = "42501" // insufficient privilege: the watcher's business
)

// errChanging refuses a change by hand while another change is being made.
var errChanging = &sqlapi.Error{Code: sqlstateState, Message: "the database is changing its mode or status; try again"}

// mayAlter applies the manual's rule for changing mode, status and OGUID by
// hand (5.1): refused while a watcher is active, and otherwise only with
// ALTER_MODE_STATUS = 1. A Normal database may always change its mode
// (7.2.4.7).
func (s *Server) mayAlter(what string) error {
	if s.dw.watcherActive(s.para.duration("DW_INACTIVE_INTERVAL")) {
		return &sqlapi.Error{Code: sqlstateRefuse, Message: what + " is refused while a watcher guards this instance",
			Hint: "Use the monitor; or stop the watcher and wait DW_INACTIVE_INTERVAL."}
	}
	if !s.para.bool("ALTER_MODE_STATUS") {
		return &sqlapi.Error{Code: sqlstateRefuse, Message: what + " is refused: ALTER_MODE_STATUS is 0",
			Hint: "SP_SET_PARA_VALUE(1, 'ALTER_MODE_STATUS', 1) allows it."}
	}
	return nil
}

// AlterDatabase executes ALTER DATABASE (manual 2.2.3, 2.2.4).
func (s *Server) AlterDatabase(ctx context.Context, verb string) error {
	// The change is finished even when the client goes away half way.
	ctx = context.WithoutCancel(ctx)
	verb = strings.ToUpper(verb)
	s.cmdMu.Lock()
	defer s.cmdMu.Unlock()
	normalMode := s.eng.Mode() == base.ModeNormal
	modeVerb := verb == "PRIMARY" || verb == "STANDBY" || verb == "NORMAL"
	if !(normalMode && modeVerb && !s.dw.watcherActive(s.para.duration("DW_INACTIVE_INTERVAL"))) {
		if err := s.mayAlter("ALTER DATABASE " + verb); err != nil {
			return err
		}
	}
	var err error
	switch verb {
	case "MOUNT":
		err = s.mount(ctx)
	case "OPEN", "OPEN FORCE":
		if !normalMode && verb == "OPEN" {
			err = base.Errorf(codeBadStatus, "a database in mode %s is opened by its watcher, or with ALTER DATABASE OPEN FORCE", s.eng.Mode())
			break
		}
		if verb == "OPEN FORCE" && s.eng.Mode() == base.ModePrimary && s.eng.Status() == base.StatusMount {
			// Manual 6.3: every archive is Invalid before a forced open.
			if err = s.ship.SetState(ctx, "", base.ArchInvalid); err != nil {
				break
			}
		}
		err = s.open(ctx)
	case "SUSPEND":
		err = s.suspend(ctx, "ALTER DATABASE SUSPEND")
	case "PRIMARY":
		err = s.setMode(ctx, base.ModePrimary)
	case "STANDBY":
		err = s.setMode(ctx, base.ModeStandby)
	case "NORMAL":
		err = s.setMode(ctx, base.ModeNormal)
	default:
		err = fmt.Errorf("unknown ALTER DATABASE %s", verb)
	}
	return stateError(err)
}

// stateError gives plain errors the SQLSTATE of a wrong state.
func stateError(err error) error {
	if err == nil {
		return nil
	}
	return &sqlapi.Error{Code: sqlstateState, Message: err.Error()}
}

// AddArchiveLog is ALTER DATABASE ADD ARCHIVELOG (manual 7.8.4), which a
// running instance does not do yet.
func (s *Server) AddArchiveLog(context.Context, string) error {
	return &sqlapi.Error{Code: "0A000", Message: "ALTER DATABASE ADD ARCHIVELOG is not supported yet",
		Hint: "Add the archive to dmarch.ini and restart the instance."}
}

// SetOGUID is SP_SET_OGUID (manual 2.2.13).
func (s *Server) SetOGUID(_ context.Context, oguid uint32) error {
	if !s.cmdMu.TryLock() { // not waiting: a Mount under way waits for this statement to end
		return errChanging
	}
	defer s.cmdMu.Unlock()
	if err := s.mayAlter("SP_SET_OGUID"); err != nil {
		return err
	}
	if oguid > 1<<31-1 {
		return &sqlapi.Error{Code: "22003", Message: fmt.Sprintf("OGUID %d is out of range 0 to 2147483647", oguid)}
	}
	if s.eng.Status() != base.StatusMount {
		return stateError(base.Errorf(codeBadStatus, "the OGUID can be set in Mount only, the database is in status %s", s.eng.Status()))
	}
	if err := s.eng.SetOGUID(oguid); err != nil {
		return stateError(err)
	}
	s.changed()
	return nil
}

// SetPara is SP_SET_PARA_VALUE: scope 1 memory and file, 0 memory only, 2
// file only.
func (s *Server) SetPara(_ context.Context, scope int, name, value string) error {
	if err := s.para.set(scope, name, value); err != nil {
		return &sqlapi.Error{Code: "22023", Message: err.Error()}
	}
	if scope != 2 {
		s.sess.SetLimits(s.limits())
	}
	s.log.Info("parameter changed", "name", name, "value", value, "scope", scope)
	return nil
}

// GetPara is SF_GET_PARA_*_VALUE.
func (s *Server) GetPara(name string) (string, bool) { return s.para.get(name) }

// Checkpoint is CHECKPOINT.
func (s *Server) Checkpoint(ctx context.Context) error { return s.eng.Checkpoint(ctx) }

// SetArchStatus is SP_SET_ARCH_STATUS: 0 Valid, 1 Invalid (manual 9.1.2).
func (s *Server) SetArchStatus(ctx context.Context, inst string, status int) error {
	if !s.cmdMu.TryLock() { // not waiting: a Mount under way waits for this statement to end
		return errChanging
	}
	defer s.cmdMu.Unlock()
	if err := s.mayAlter("SP_SET_ARCH_STATUS"); err != nil {
		return err
	}
	st := base.ArchValid
	if status == 1 {
		st = base.ArchInvalid
	} else if status != 0 {
		return &sqlapi.Error{Code: "22023", Message: fmt.Sprintf("archive status %d: must be 0 (valid) or 1 (invalid)", status)}
	}
	if st == base.ArchInvalid && s.eng.Status() == base.StatusOpen {
		// Commits go on without the standby at once: it must know (G3). From
		// Suspend or Mount it is an operator's decision to go on without it.
		return stateError(s.ship.Invalidate(ctx, inst))
	}
	return stateError(s.ship.SetState(ctx, inst, st))
}

// Backup is BACKUP DATABASE ... BACKUPSET 'dir' on the running database
// (manual 7.1.2).
func (s *Server) Backup(ctx context.Context, b session.BackupStmt) error {
	return s.backup(ctx, b)
}

var _ session.Admin = (*Server)(nil)
var _ views.Source = source{}
