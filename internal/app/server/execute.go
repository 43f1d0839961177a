package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
	"datawatch/internal/repl/mal"
)

// Server codes used here (manual 10.2.8.3).
const (
	codeChanging   base.Code = -517 // system is changing state
	codeBadStatus  base.Code = -518 // invalid system state
	codeBadMode    base.Code = -703 // server mode does not match
	codeNoTarget   base.Code = -968 // archive entry of the instance not found
	codeInterupted base.Code = -721 // recovery started by the watcher was interrupted
)

// quiesceTime bounds how long running statements may take to stop.
const quiesceTime = 10 * time.Second

// linkTime bounds the wait for a link that is being dialled; attempts are at
// most a second apart.
const linkTime = 3 * time.Second

// execute performs a watcher's command. Commands that change mode, status or
// archives run one at a time; arch_send runs beside them and is given up when
// the database leaves Open or Suspend, and so does ended, which shortens the
// wait of one. Each command is idempotent.
func (s *Server) execute(ctx context.Context, c proto.InstanceCommand) error {
	if c.Cmd == proto.CmdWatcher { // no order: it says something
		s.dw.told(c.Watcher)
		return nil
	}
	end := s.orders.begin(c)
	err := s.carryOut(ctx, c)
	end(err)
	return err
}

func (s *Server) carryOut(ctx context.Context, c proto.InstanceCommand) error {
	if c.Cmd != proto.CmdNoop {
		s.log.Info("watcher command", "cmd", c.Cmd, "inst", c.Inst, "mode", c.Mode.String(), "state", c.State.String(), "evidence", c.Evidence)
	}
	switch c.Cmd {
	case proto.CmdNoop:
		return nil
	case proto.CmdArchSend:
		return s.archSend(ctx, c.Inst)
	case proto.CmdEnded:
		// Beside the command that waits for it.
		s.recv.Ended(c.Ended...)
		return nil
	case proto.CmdLogin:
		return s.login(c.User, c.Password)
	case proto.CmdShutdown:
		return s.shutdownCommand(c.How)
	}
	s.cmdMu.Lock()
	defer s.cmdMu.Unlock()
	// A command that had to wait is not begun any more when the watcher that
	// ordered it is gone: the next one may have decided otherwise meanwhile, and
	// a late drop_keep or open would undo that. One that has begun is finished:
	// half a role change is what nobody wants.
	if ctx.Err() != nil {
		return base.Errorf(codeInterupted, "%s was not begun: the watcher that ordered it has gone", c.Cmd)
	}
	ctx = context.WithoutCancel(ctx)
	s.running.Store(c.Cmd)
	defer s.running.Store("")
	defer s.dw.changed()
	switch c.Cmd {
	case proto.CmdOpen:
		return s.open(ctx)
	case proto.CmdMount:
		return s.mount(ctx)
	case proto.CmdSuspend:
		return s.suspend(ctx, "the watcher: "+c.Evidence)
	case proto.CmdSetMode:
		return s.setMode(ctx, c.Mode, c.Ended...)
	case proto.CmdSetArch:
		return s.setArch(ctx, c.Inst, c.State, c.Told)
	case proto.CmdApplyKeep:
		return s.recv.ApplyKeep(ctx, c.Ended...)
	case proto.CmdDropKeep:
		s.recv.DropKeep()
		return nil
	case proto.CmdDropSessions:
		s.sess.DropAll("the watcher asked for it")
		return nil
	case proto.CmdSetPara:
		return s.SetPara(ctx, 1, c.Name, c.Value)
	case proto.CmdClearSend:
		s.ship.ClearStats(c.Inst)
		return nil
	case proto.CmdClearApply:
		s.recv.ClearStats()
		return nil
	case proto.CmdRejoin:
		return s.rejoin(ctx, c.Inst)
	}
	return base.Errorf(codeFailed, "unknown instance command %q", c.Cmd)
}

// open: Mount or Suspend -> Open (manual 2.2.4). G5: a primary that opens
// writes its open record first; G1: from Suspend the pending package is sent
// again to every archive still Valid before anything else.
func (s *Server) open(ctx context.Context) error {
	if s.eng.Status() != base.StatusOpen {
		if err := s.eng.OpenDatabase(ctx); err != nil {
			return err
		}
	}
	if s.eng.Mode() == base.ModeStandby {
		s.recv.Thaw() // a takeover that led to nothing is over
	}
	return nil
}

// mount: Open -> Mount; transactions are rolled back, connections stay, and
// everything committed is hardened first.
func (s *Server) mount(ctx context.Context) error {
	if s.eng.Status() == base.StatusMount {
		return nil
	}
	s.cancelSends()
	qctx, cancel := context.WithTimeout(ctx, quiesceTime)
	defer cancel()
	resume, err := s.sess.Quiesce(qctx, "the database goes to Mount")
	if err != nil {
		return err
	}
	defer resume()
	if err := s.eng.MountDatabase(ctx); err != nil {
		return err
	}
	if s.eng.Mode() == base.ModePrimary {
		s.ship.Over(ctx)
	}
	return nil
}

// suspend: Open -> Suspend. It returns when the package under way has arrived
// or failed, so that positions stand still.
func (s *Server) suspend(ctx context.Context, why string) error {
	switch s.eng.Status() {
	case base.StatusOpen:
		s.eng.Suspend(why)
		fallthrough
	case base.StatusSuspend:
		ctx, cancel := context.WithTimeout(ctx, quiesceTime)
		defer cancel()
		if err := s.eng.Quiesce(ctx); err != nil {
			return fmt.Errorf("suspended, but a package is still under way: %w", err)
		}
		return nil
	}
	return base.Errorf(codeBadStatus, "cannot suspend: the database is in status %s", s.eng.Status())
}

func (s *Server) setMode(ctx context.Context, m base.Mode, ended ...string) error {
	if s.eng.Mode() == m {
		return nil
	}
	if s.eng.Status() != base.StatusMount {
		return base.Errorf(codeBadStatus, "the mode can be changed in Mount only, the database is in status %s", s.eng.Status())
	}
	if s.eng.Mode() != base.ModeStandby {
		return s.eng.SetMode(ctx, m)
	}
	// G1: what a standby has acknowledged, the kept package too, is in its log
	// before it is a standby no more (manual 2.2.9).
	// G3: and no old primary can acknowledge anything any more.
	if err := s.recv.ApplyKeep(ctx, ended...); err != nil {
		return err
	}
	if err := s.eng.SetMode(ctx, m); err != nil {
		s.recv.Thaw()
		return err
	}
	s.recv.DropKeep() // with it the claim
	return nil
}

func (s *Server) setArch(ctx context.Context, inst string, st base.ArchState, told bool) error {
	if st != base.ArchValid && st != base.ArchInvalid {
		return base.Errorf(codeFailed, "archive state must be Valid or Invalid")
	}
	if st == base.ArchValid && inst != "" {
		if err := s.awaitLink(ctx, inst); err != nil {
			return err
		}
	}
	set := func() error { return s.ship.SetState(ctx, inst, st) }
	if told && st == base.ArchInvalid {
		set = func() error { return s.ship.Invalidate(ctx, inst) }
	}
	if err := set(); err != nil {
		return fmt.Errorf("archive to %q -> %s: %w", inst, st, err)
	}
	return nil
}

// awaitLink waits until redo can go out to a standby whose archive becomes
// Valid: the standby may have dialled us, which is enough for its watcher to call
// the link connected, while our own next attempt is a back-off away. Opening
// with a Valid archive and no link would suspend the new primary at once.
func (s *Server) awaitLink(ctx context.Context, inst string) error {
	if s.node == nil {
		return errNoMAL
	}
	deadline := s.clock.Now().Add(linkTime)
	for {
		for _, l := range s.node.LinkStates() {
			if l.Data && strings.EqualFold(l.Inst, inst) {
				return nil
			}
		}
		if s.clock.Now().After(deadline) {
			return base.Errorf(mal.CodeLost, "archive to %s cannot become Valid: no link to it within %v", inst, linkTime)
		}
		if err := s.clock.Sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// archSend streams archives to a standby until it has what the primary has
// now. Several run at once, one per standby.
func (s *Server) archSend(ctx context.Context, inst string) error {
	if s.eng.Mode() != base.ModePrimary {
		return base.Errorf(codeBadMode, "archives are sent by a primary; this database is in mode %s", s.eng.Mode())
	}
	if !slices.ContainsFunc(s.ship.States(), func(a proto.ArchStatus) bool { return strings.EqualFold(a.Inst, inst) }) {
		return base.Errorf(codeNoTarget, "no archive to instance %q is configured", inst)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.sendMu.Lock()
	if s.sends == nil {
		s.sends = map[int]context.CancelCauseFunc{}
	}
	s.sendID++
	id := s.sendID
	s.sends[id] = cancel
	s.sendMu.Unlock()
	defer func() {
		s.sendMu.Lock()
		delete(s.sends, id)
		s.sendMu.Unlock()
	}()
	if err := s.ship.CatchUp(ctx, inst); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return base.Errorf(codeInterupted, "archive_send to %s interrupted: %v", inst, cause)
		}
		return err
	}
	return nil
}

func (s *Server) cancelSends() {
	s.sendMu.Lock()
	defer s.sendMu.Unlock()
	for _, c := range s.sends {
		c(fmt.Errorf("the database changes its status"))
	}
}

// shutdownCommand ends the process: normal, or abort, which drops what is not
// hardened and is the only way out of Suspend.
func (s *Server) shutdownCommand(how string) error {
	switch how {
	case "normal", "":
		s.requestStop(stopNormal, "the watcher asked for it")
	case "abort":
		s.requestStop(stopAbort, "the watcher asked for it")
	default:
		return base.Errorf(codeFailed, "shutdown %q: must be normal or abort", how)
	}
	return nil
}

// status is what the watcher is told (manual 3.1.1).
func (s *Server) status() proto.InstanceStatus {
	c := s.eng.Control()
	r := s.recv.Info()
	mode, dbStatus := s.eng.Mode(), s.eng.Status()
	p, lineage := s.eng.State()
	// Mode, status and lineage of one moment: an opening must not be reported
	// with the history from before it.
	for s.eng.Mode() != mode || s.eng.Status() != dbStatus {
		mode, dbStatus = s.eng.Mode(), s.eng.Status()
		p, lineage = s.eng.State()
	}
	// r is read before the positions: what it says was received may since have
	// been logged, never the other way round.
	reason, since := s.eng.SuspendReason()
	st := proto.InstanceStatus{
		Time: time.Now(), PID: s.pid, Incarnation: s.incarnation, InstName: s.name, DBName: c.DBName,
		Mode: mode, Status: dbStatus, OGUID: c.OGUID, PmntMagic: c.PmntMagic, DBMagic: c.DBMagic,
		Version: proto.GlobalVersion, Port: s.cfg.DM.PortNum,
		Cur: p.Cur, File: p.File, Ckpt: p.Ckpt,
		Apply: p.Apply, Stand: p.File, Keep: p.Cur, Replay: p.Replay,
		RedosParallel: s.cfg.DM.RedosParallelNum, Archives: s.ship.States(),
		Lineage: lineage, SuspendedSince: since, SuspendReason: reason,
		ExitingNormal: s.exiting.Load(),
	}
	if s.node != nil {
		st.Links = s.node.Links()
	}
	if s.cert != nil {
		st.SQLCert = (*proto.Ending)(s.cert.Ending())
	}
	if cmd, ok := s.running.Load().(string); ok {
		st.Running = cmd
	}
	if j := s.eng.Rejoining(); j != nil {
		st.Rejoin = &proto.Rejoin{Primary: j.Primary, Fork: j.Fork, Whole: j.Whole, Lineage: j.Lineage}
	}
	if st.Mode == base.ModePrimary {
		st.Sends = s.sendStats()
	}
	if st.Mode == base.ModeStandby {
		if s.cfg.DM.DWArchSpaceCheck {
			st.ArchFull = s.eng.ArchiveFull()
		}
		st.Applies = s.applyStat()
		st.Stand, st.Keep, st.NTask, st.TaskMB = r.Stand, r.Keep, r.NTask, r.TaskMem
		st.ValidClaim, st.ValidClaimFrom, st.ValidClaimID = r.Claim.Valid, r.Claim.From, r.Claim.OpenID
		a := s.recv.Stats()
		st.RecentReplays, st.ReplayTime = a.RecentNum, (a.RecentWaitTime + a.RecentApplyTime).Microseconds()
	}
	return st
}
