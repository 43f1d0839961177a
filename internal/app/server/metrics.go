package server

import (
	"context"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"datawatch/internal/base"
	"datawatch/internal/metrics/admin"
)

// Metrics are what a server says on its ADMIN_PORT.
var Metrics = []admin.Metric{
	{Name: "dw_instance_info", Type: "gauge", Labels: "instance,mode,status,version", Help: "1; mode and status of the instance are labels."},
	{Name: "dw_open", Type: "gauge", Help: "1 when the database is Open: a primary takes writes, a standby answers queries."},
	{Name: "dw_suspended_seconds", Type: "gauge", Help: "How long the database has been suspended; 0 when it is not. Commits wait meanwhile."},
	{Name: "dw_watcher_active", Type: "gauge", Help: "1 while a watcher guards the instance."},

	{Name: "dw_current_lsn", Type: "gauge", Help: "Largest LSN assigned (CLSN)."},
	{Name: "dw_file_lsn", Type: "gauge", Help: "Largest LSN in the online log (FLSN)."},
	{Name: "dw_hardened_lsn", Type: "gauge", Help: "Largest LSN that every required copy holds; readers see no more."},
	{Name: "dw_checkpoint_lsn", Type: "gauge", Help: "Everything up to this LSN is in the data file."},
	{Name: "dw_package_seq", Type: "gauge", Help: "Number of the newest package in the online log (FSEQ)."},
	{Name: "dw_redo_log_bytes", Type: "gauge", Help: "Size of the online log."},
	{Name: "dw_redo_log_free_bytes", Type: "gauge", Help: "Free space of the online log; a full one waits for the checkpoint."},
	{Name: "dw_last_checkpoint_timestamp_seconds", Type: "gauge", Help: "When the last checkpoint ended."},

	{Name: "dw_commit_seconds", Type: "histogram", On: "primary", Help: "From the arrival of the statement that commits until its commit could not be lost any more."},
	{Name: "dw_package_stage_seconds", Type: "histogram", Labels: "stage", On: "primary", Help: "How long packages of redo take: realtime (sent and kept by every standby), log (written and synced), timely, archive."},
	{Name: "dw_transactions_total", Type: "counter", Labels: "outcome", Help: "Transactions of the page store: committed, rolled_back."},

	{Name: "dw_archive_valid", Type: "gauge", Labels: "standby,type", On: "primary", Help: "1 while the archive to a standby is Valid: only then is it a copy that a takeover may use."},
	{Name: "dw_archive_recovering", Type: "gauge", Labels: "standby", On: "primary", Help: "1 while the standby is being brought up to date."},
	{Name: "dw_archive_acknowledged_lsn", Type: "gauge", Labels: "standby", On: "primary", Help: "Last LSN that the standby has acknowledged in this reign."},
	{Name: "dw_archive_lag_lsn", Type: "gauge", Labels: "standby", On: "primary", Help: "How many LSNs (transactions) the standby has acknowledged less than the online log holds."},
	{Name: "dw_archive_sends_total", Type: "counter", Labels: "standby", On: "primary", Help: "Sends of redo to a standby."},
	{Name: "dw_archive_sent_bytes_total", Type: "counter", Labels: "standby", On: "primary", Help: "Redo sent to a standby."},
	{Name: "dw_archive_send_seconds_total", Type: "counter", Labels: "standby", On: "primary", Help: "Time of these sends, to the answer."},
	{Name: "dw_archive_files", Type: "gauge", Help: "Files of the local archive."},
	{Name: "dw_archive_bytes", Type: "gauge", Help: "Their size."},
	{Name: "dw_link_up", Type: "gauge", Labels: "peer", Help: "1 while the link for redo to another instance is up."},

	{Name: "dw_replay_lsn", Type: "gauge", On: "standby", Help: "LSN up to which redo is replayed: what queries on the standby see."},
	{Name: "dw_replay_lag_seconds", Type: "gauge", On: "standby", Help: "Age difference, by the primary's clock, of the newest package received and the newest replayed; 0 when nothing waits."},
	{Name: "dw_replay_waiting_packages", Type: "gauge", On: "standby", Help: "Packages received that wait for replay."},
	{Name: "dw_replay_waiting_bytes", Type: "gauge", On: "standby", Help: "Their memory (limit: REDOS_BUF_SIZE)."},
	{Name: "dw_received_packages_total", Type: "counter", On: "standby", Help: "Packages received."},
	{Name: "dw_received_bytes_total", Type: "counter", On: "standby", Help: "Redo received."},
	{Name: "dw_replayed_packages_total", Type: "counter", On: "standby", Help: "Packages replayed."},
	{Name: "dw_replayed_bytes_total", Type: "counter", On: "standby", Help: "Redo replayed."},
	{Name: "dw_replay_seconds_total", Type: "counter", On: "standby", Help: "Time of replay."},

	{Name: "dw_sessions", Type: "gauge", Labels: "state", Help: "Sessions: all, active, in_transaction, waiting_lock, waiting_commit (the latter are among the former)."},
	{Name: "dw_sessions_limit", Type: "gauge", Help: "MAX_SESSIONS."},
	{Name: "dw_sessions_opened_total", Type: "counter", Help: "Sessions begun."},
	{Name: "dw_sessions_refused_total", Type: "counter", Help: "Sessions refused because there were too many (53300)."},
	{Name: "dw_sessions_timed_out_total", Type: "counter", Help: "Sessions ended because they were idle for too long (25P03, 57P05)."},
	{Name: "dw_sessions_terminated_total", Type: "counter", Help: "Sessions ended by an administrator."},
	{Name: "dw_statements_total", Type: "counter", Help: "Statements run."},
	{Name: "dw_statement_errors_total", Type: "counter", Help: "Statements that failed."},
	{Name: "dw_slow_statements_total", Type: "counter", Help: "Statements that took longer than SLOW_SQL_TIME."},
	{Name: "dw_concurrent_transactions_total", Type: "counter", Labels: "outcome", Help: "Concurrent transactions that wrote: committed; conflict (40001); upgraded, which took the write lock before their COMMIT; busy, which took it with their first statement for want of a connection (CONCURRENT_TRX_NUM)."},
	{Name: "dw_lock_timeouts_total", Type: "counter", Help: "Statements that waited too long for the write lock (55P03)."},
	{Name: "dw_out_of_memory_total", Type: "counter", Help: "Statements that reached their memory limit (53200)."},
	{Name: "dw_write_lock_held", Type: "gauge", Help: "1 while a session holds the write lock."},
	{Name: "dw_oldest_transaction_seconds", Type: "gauge", Help: "Age of the oldest open transaction; 0 when there is none."},
	{Name: "dw_oldest_writer_seconds", Type: "gauge", Help: "Age of the transaction that holds the write lock: other writers wait for it."},

	{Name: "dw_pages", Type: "gauge", Help: "Pages of the database."},
	{Name: "dw_page_bytes", Type: "gauge", Help: "Size of a page."},
	{Name: "dw_page_cache_pages", Type: "gauge", Help: "Clean pages in memory (limit: BUFFER)."},
	{Name: "dw_page_cache_requests_total", Type: "counter", Labels: "result", Help: "Requests to the cache of clean pages: hit, miss."},
	{Name: "dw_page_versions", Type: "gauge", Help: "Page versions: not yet in the data file, or needed by a snapshot."},
	{Name: "dw_page_version_bytes", Type: "gauge", Help: "Their memory; what is more goes to the spill file."},
	{Name: "dw_spill_bytes", Type: "gauge", Help: "Spill file in use: pages of large transactions, and versions beyond the memory for them."},
	{Name: "dw_dirty_pages", Type: "gauge", Help: "Pages that the data file lacks; the checkpoint writes them."},
	{Name: "dw_snapshots", Type: "gauge", Help: "Snapshots that are read from now."},
	{Name: "dw_oldest_snapshot_lag_lsn", Type: "gauge", Help: "How many LSNs the oldest snapshot is behind; what changed since is kept."},
	{Name: "dw_sql_connections", Type: "gauge", Help: "Connections of the SQL engine, each with memory of its own."},
	{Name: "dw_temp_bytes", Type: "gauge", Labels: "where", Help: "Temporary files of sorts, temporary tables and journals: memory, disk (limit: TEMP_SPACE_LIMIT)."},
	{Name: "dw_check_running", Type: "gauge", Help: "1 while CHECK DATABASE runs."},
	{Name: "dw_check_problems", Type: "gauge", Help: "Problems that the last CHECK DATABASE since the start found; more than 0 is damage."},
	{Name: "dw_check_end_timestamp_seconds", Type: "gauge", Help: "When it ended."},
	{Name: "dw_disk_free_bytes", Type: "gauge", Labels: "what,path", Help: "Free space, for the server's user, where data, log and archive are."},
}

// collect gives the values of now.
func (s *Server) collect(e admin.Emit) {
	if !s.up.Load() {
		return // it is recovering
	}
	mode, status := s.eng.Mode(), s.eng.Status()
	e.Value("dw_instance_info", 1, s.name, mode.String(), status.String(), svrVersion())
	e.Bool("dw_open", status == base.StatusOpen)
	since := 0.0
	if _, at := s.eng.SuspendReason(); status == base.StatusSuspend {
		since = s.clock.Now().Sub(at).Seconds()
	}
	e.Value("dw_suspended_seconds", since)
	e.Bool("dw_watcher_active", s.dw.watcherActive(s.para.duration("DW_INACTIVE_INTERVAL")))
	s.collectLog(e)
	s.collectSend(e, mode)
	if mode == base.ModeStandby {
		s.collectReplay(e)
	}
	s.collectSessions(e)
	s.collectStore(e)
	s.collectCheck(e)
	for what, path := range s.disks() {
		var st unix.Statfs_t
		if unix.Statfs(path, &st) == nil {
			e.Value("dw_disk_free_bytes", float64(st.Bavail)*float64(st.Bsize), what, path)
		}
	}
}

// disks are the directories whose space matters.
func (s *Server) disks() map[string]string {
	out := map[string]string{"data": s.cfg.DM.SystemPath}
	if len(s.cfg.DM.LogPath) > 0 {
		out["log"] = filepath.Dir(s.cfg.DM.LogPath[0])
	}
	if s.cfg.Arch != nil {
		if l, ok := s.cfg.Arch.Local(); ok {
			out["archive"] = l.Dest
		}
	}
	return out
}

func (s *Server) collectLog(e admin.Emit) {
	p, l := s.eng.Positions(), s.eng.LogInfo()
	e.Value("dw_current_lsn", float64(p.Cur.LSN))
	e.Value("dw_file_lsn", float64(p.File.LSN))
	e.Value("dw_hardened_lsn", float64(s.eng.Hardened()))
	e.Value("dw_checkpoint_lsn", float64(p.Ckpt))
	e.Value("dw_package_seq", float64(p.File.Seq))
	e.Value("dw_redo_log_bytes", float64(l.Total))
	e.Value("dw_redo_log_free_bytes", float64(l.Free))
	e.Time("dw_last_checkpoint_timestamp_seconds", s.eng.LastCheckpoint())
	realtime, log, timely, archive := s.eng.FlushTimes()
	e.Histogram("dw_package_stage_seconds", realtime, "realtime")
	e.Histogram("dw_package_stage_seconds", log, "log")
	e.Histogram("dw_package_stage_seconds", timely, "timely")
	e.Histogram("dw_package_stage_seconds", archive, "archive")
	e.Histogram("dw_commit_seconds", s.sess.CommitTimes())
	if a := s.eng.Archive(); a != nil {
		files, size := a.Files(), int64(0)
		for _, f := range files {
			size += f.Free
		}
		e.Value("dw_archive_files", float64(len(files)))
		e.Value("dw_archive_bytes", float64(size))
	}
}

func (s *Server) collectSend(e admin.Emit, mode base.Mode) {
	if s.node != nil {
		for _, l := range s.node.LinkStates() {
			e.Bool("dw_link_up", l.Data, l.Inst)
		}
	}
	if mode != base.ModePrimary {
		return
	}
	file := s.eng.Positions().File.LSN
	for _, a := range s.ship.States() {
		e.Bool("dw_archive_valid", a.State == base.ArchValid, a.Inst, a.Type.String())
		e.Bool("dw_archive_recovering", a.Recovering, a.Inst)
		e.Value("dw_archive_acknowledged_lsn", float64(a.Acked.LSN), a.Inst)
		if a.Acked.LSN != 0 {
			e.Value("dw_archive_lag_lsn", max(0, float64(file)-float64(a.Acked.LSN)), a.Inst)
		}
	}
	for _, i := range s.ship.SendInfos() {
		e.Value("dw_archive_sends_total", float64(i.TotalCnt), i.Inst)
		e.Value("dw_archive_sent_bytes_total", float64(i.TotalLen), i.Inst)
		e.Value("dw_archive_send_seconds_total", i.TotalTime.Seconds(), i.Inst)
	}
}

func (s *Server) collectReplay(e admin.Emit) {
	i, st := s.recv.Info(), s.recv.Stats()
	e.Value("dw_replay_lsn", float64(s.eng.Positions().Replay.LSN))
	lag := 0.0
	if i.NTask > 0 && !st.LastCommit.IsZero() && !st.Applied.IsZero() {
		lag = max(0, st.LastCommit.Sub(st.Applied).Seconds())
	}
	e.Value("dw_replay_lag_seconds", lag)
	e.Value("dw_replay_waiting_packages", float64(i.NTask))
	e.Value("dw_replay_waiting_bytes", float64(i.TaskMem))
	e.Value("dw_received_packages_total", float64(st.RecvNum))
	e.Value("dw_received_bytes_total", float64(st.RecvLen))
	e.Value("dw_replayed_packages_total", float64(st.ApplyNum))
	e.Value("dw_replayed_bytes_total", float64(st.ApplyLen))
	e.Value("dw_replay_seconds_total", st.ApplyTime.Seconds())
}

func (s *Server) collectSessions(e admin.Emit) {
	st := s.sess.Stats()
	for state, n := range map[string]int{"all": st.Sessions, "active": st.Active, "in_transaction": st.InTransaction,
		"waiting_lock": st.WaitingLock, "waiting_commit": st.WaitingHarden} {
		e.Value("dw_sessions", float64(n), state)
	}
	e.Value("dw_sessions_limit", float64(st.MaxSessions))
	for name, n := range map[string]int64{"opened": st.Opened, "refused": st.Refused, "timed_out": st.TimedOut, "terminated": st.Terminated} {
		e.Value("dw_sessions_"+name+"_total", float64(n))
	}
	e.Value("dw_statements_total", float64(st.Statements))
	e.Value("dw_statement_errors_total", float64(st.Errors))
	e.Value("dw_slow_statements_total", float64(st.Slow))
	for outcome, n := range map[string]int64{"committed": st.ConcurrentCommits, "conflict": st.Conflicts, "upgraded": st.Upgrades, "busy": st.ConcurrentBusy} {
		e.Value("dw_concurrent_transactions_total", float64(n), outcome)
	}
	e.Value("dw_lock_timeouts_total", float64(st.LockTimeouts))
	e.Value("dw_out_of_memory_total", float64(st.OutOfMemory))
	e.Bool("dw_write_lock_held", st.WriterHeld)
	e.Value("dw_sql_connections", float64(st.Connections))
	e.Value("dw_temp_bytes", float64(st.TempMemory), "memory")
	e.Value("dw_temp_bytes", float64(st.TempDisk), "disk")
	var oldest, writer time.Duration
	for _, t := range s.sess.Transactions() {
		age := time.Since(t.Start)
		if oldest = max(oldest, age); t.Writer {
			writer = max(writer, age)
		}
	}
	e.Value("dw_oldest_transaction_seconds", oldest.Seconds())
	e.Value("dw_oldest_writer_seconds", writer.Seconds())
}

func (s *Server) collectStore(e admin.Emit) {
	st := s.eng.Store().Stats()
	e.Value("dw_transactions_total", float64(st.Published), "committed")
	e.Value("dw_transactions_total", float64(st.RolledBack), "rolled_back")
	e.Value("dw_pages", float64(st.Pages))
	e.Value("dw_page_bytes", float64(s.eng.Store().PageSize()))
	e.Value("dw_page_cache_pages", float64(st.CachePages))
	e.Value("dw_page_cache_requests_total", float64(st.CacheHits), "hit")
	e.Value("dw_page_cache_requests_total", float64(st.CacheMisses), "miss")
	e.Value("dw_page_versions", float64(st.Versions))
	e.Value("dw_page_version_bytes", float64(st.VersionBytes))
	e.Value("dw_spill_bytes", float64(st.SpillBytes))
	e.Value("dw_dirty_pages", float64(st.Dirty))
	e.Value("dw_snapshots", float64(st.Snapshots))
	e.Value("dw_oldest_snapshot_lag_lsn", float64(st.Hardened-min(st.Oldest, st.Hardened)))
}

func (s *Server) collectCheck(e admin.Emit) {
	c := s.sess.LastCheck()
	e.Bool("dw_check_running", c.State == "RUNNING")
	e.Value("dw_check_problems", float64(c.Count()))
	e.Time("dw_check_end_timestamp_seconds", c.End)
}

// health answers /healthz: whether the process does what it is for, or is on
// its way there. A suspended database is in order: it waits for somebody else.
func (s *Server) health(context.Context) admin.State {
	if !s.up.Load() {
		return admin.State{OK: true, Facts: map[string]any{"instance": s.name, "status": base.StatusStartup.String()}}
	}
	st := s.facts()
	select {
	case <-s.stopCh:
		st.OK, st.Reason = false, "the instance is ending: "+s.stopWhy
	default:
	}
	return st
}

func (s *Server) facts() admin.State {
	return admin.State{OK: true, Facts: map[string]any{"instance": s.name, "mode": s.eng.Mode().String(), "status": s.eng.Status().String(),
		"file_lsn": s.eng.Positions().File.LSN, "hardened_lsn": s.eng.Hardened()}}
}

// ready answers /readyz: whether clients are served; with a role, whether those
// are that look for a primary, or for a standby.
func (s *Server) ready(ctx context.Context, role string) admin.State {
	st := s.health(ctx)
	if !s.up.Load() {
		st.OK, st.Reason = false, "the database system is starting up"
		return st
	}
	mode, status := s.eng.Mode(), s.eng.Status()
	fail := func(why string) admin.State {
		st.OK, st.Reason = false, why
		return st
	}
	switch {
	case !st.OK:
		return st
	case status == base.StatusSuspend:
		reason, _ := s.eng.SuspendReason()
		return fail("the database is suspended: " + reason)
	case status != base.StatusOpen:
		return fail("the database is in status " + status.String())
	case s.eng.Rejoining() != nil:
		return fail("the database has rejoined its group and is catching up")
	case role == "primary" && mode == base.ModeStandby, role == "standby" && mode != base.ModeStandby:
		return fail("the database is " + mode.String())
	case role != "" && role != "primary" && role != "standby":
		return fail("unknown role " + role + ": primary or standby")
	}
	return st
}
