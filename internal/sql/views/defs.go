package views

// where a view says something.
const (
	anywhere   = "any instance"
	onPrimary  = "primary; no meaning on a standby"
	onStandby  = "standby; empty elsewhere"
	onStandby2 = "standby; on a primary, its last position as a standby"
)

// define is the table of all views.
func define() []*View {
	parameter := view("V$PARAMETER", "Parameters of dm.ini with their current values.", anywhere, "", Source.Parameters)
	return []*View{
		view("V$INSTANCE", "The instance: names, versions, mode and status.", anywhere, "2.2.13", Source.Instance),
		view("V$DATABASE", "The database: sizes, mode, status, magic numbers.", anywhere, "", Source.Database),
		view("V$RLOG", "Positions and space of the online log.", anywhere, "2.2.5, 2.2.8, 9.1.2", Source.RLog),
		view("V$RLOG_PKG", "Packages of redo on their way to the logs, oldest first: under way, waiting, being filled.", "primary or normal; empty elsewhere, and when nothing waits", "10.1 #19", Source.LogPkgs),
		view("V$RLOG_PKG_STAT", "What has become of packages since the start.", anywhere, "10.1 #20", Source.LogPkgStat),
		view("V$ARCH_STATUS", "State of every archive target.", onPrimary, "10.1 #8", Source.ArchStatus),
		view("V$ARCH_FILE", "Files of the local archive.", anywhere, "10.1 #7", Source.ArchFiles),
		view("V$DM_ARCH_INI", "Settings of dmarch.ini.", anywhere, "10.1 #10", Source.ArchIni),
		view("V$DM_MAL_INI", "Settings of dmmal.ini.", anywhere, "10.1 #11", Source.MALIni),
		view("V$MAL_LINK_STATUS", "Links from this instance to the others.", anywhere, "10.1 #9", Source.MALLinks),
		view("V$MAL_SYS", "The MAL system of the instance: its links to the others, as a whole.", "any instance with MAL_INI = 1, each its own", "10.1 #14", Source.MALSys),
		view("V$MAL_SITE_INFO", "Traffic with each other instance of dmmal.ini, without the checks of links.", "any instance with MAL_INI = 1", "10.1 #15", Source.MALSites),
		view("V$RAPPLY_SYS", "What replay is doing.", onStandby, "10.1 #5", Source.RapplySys),
		view("V$KEEP_RLOG_PKG", "The package received but not yet replayed.", "standby while its realtime archive is valid; empty elsewhere", "10.1 #4", Source.KeepPkg),
		view("V$RAPPLY_LSN_INFO", "How far a standby has the primary's redo.", onStandby2, "10.1 #18", Source.RapplyLSN),
		view("V$RAPPLY_LOG_TASK", "Packages waiting for replay, oldest first.", onStandby, "10.1 #6", Source.RapplyTasks),
		view("V$RAPPLY_PARALLEL_INFO", "How far parallel replay is.", onStandby, "10.1 #21", Source.RapplyParallel),
		parameter,
		parameter.alias("V$DM_INI"),
		view("SYSOPENHISTORY", "Open records: every opening as primary or normal database, at most 128.", anywhere, "2.1.7, 3.6, 4.4 #10", Source.OpenHistory),
		view("V$SESSIONS", "Sessions of SQL clients.", anywhere, "", Source.Sessions),
		view("V$TRX", "Open transactions, and the single statement that is writing.", anywhere, "", Source.Trx),
		view("V$LOCK", "Who has the write lock of the database, who waits for it, and which transactions keep a snapshot.", anywhere, "", Source.Locks),
		view("V$ARCH_SEND_INFO", "Statistics of sending redo to each realtime or timely standby.", onPrimary, "10.1 #16", Source.ArchSend),
		view("V$RECOVER_STATUS", "Standbys to which the archive is being sent (the watcher's Recovery, manual 3.1.9), and how far that is.", "primary; empty elsewhere, and when nothing is being sent", "10.1 #3", Source.RecoverStatus),
		view("V$RAPPLY_STAT", "Statistics of receiving and replaying redo.", onStandby, "10.1 #17", Source.RapplyStat),
		view("V$DB_CHECK", "The check of the database under way (CHECK DATABASE), or the last one since the start.", anywhere, "", Source.DBCheck),
		view("V$DB_CHECK_PROBLEM", "What that check found, at most 1000.", anywhere, "", Source.DBProblems),
		view("V$UTSK_INFO", "The newest orders of the watcher, oldest first.", anywhere, "10.1 #1", Source.UtskInfo),
		view("V$UTSK_SYS2", "What the instance knows of its watcher.", anywhere, "10.1 #2", Source.UtskSys),
		view("V$DMWATCHER", "The watcher of this instance, as it said last.", "any instance that a watcher has guarded since the start", "10.1 #13", Source.DMWatcher),
		view("V$VERSION", "Versions of server and formats.", anywhere, "", Source.Version),
	}
}
