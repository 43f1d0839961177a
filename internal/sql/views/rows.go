package views

import (
	"time"

	"datawatch/internal/base"
)

// InstanceRow is the row of V$INSTANCE.
type InstanceRow struct {
	Name           string      `col:"NAME,VARCHAR(128)" doc:"Instance name (INSTANCE_NAME of dm.ini)."`
	InstanceName   string      `col:"INSTANCE_NAME,VARCHAR(128)" doc:"Instance name; equal to NAME."`
	InstanceNumber int         `col:"INSTANCE_NUMBER,INTEGER" doc:"Number of the instance; 1 for a single node."`
	HostName       string      `col:"HOST_NAME,VARCHAR(128)" doc:"Name of the host."`
	SvrVersion     string      `col:"SVR_VERSION,VARCHAR(128)" doc:"Server version and build."`
	DBVersion      string      `col:"DB_VERSION,VARCHAR(64)" doc:"Version of the database format."`
	StartTime      time.Time   `col:"START_TIME,TIMESTAMP" null:"zero" doc:"Start of the server process."`
	Status         base.Status `col:"STATUS$,VARCHAR(128)" doc:"Database status: STARTUP, AFTER REDO, MOUNT, OPEN, SUSPEND or SHUTDOWN (manual 2.2.4)."`
	Mode           base.Mode   `col:"MODE$,VARCHAR(128)" doc:"Database mode: NORMAL, PRIMARY or STANDBY (manual 2.2.3)."`
	OGUID          uint32      `col:"OGUID,BIGINT" doc:"Id of the guard group; 0 when none has been set (manual 2.2.13)."`
	DSCSeqno       int         `col:"DSC_SEQNO,INTEGER" doc:"Node number in a shared-storage group, 0 for a single node."`
	DSCRole        string      `col:"DSC_ROLE,VARCHAR(32)" null:"zero" doc:"Role of the node in a shared-storage group, NULL for a single node."`
	PortNum        int         `col:"PORT_NUM,INTEGER" doc:"Port for SQL clients."`
	PID            int         `col:"PID,INTEGER" doc:"Process id of the server."`
}

// DatabaseRow is the row of V$DATABASE.
type DatabaseRow struct {
	Name            string     `col:"NAME,VARCHAR(128)" doc:"Name of the database."`
	CreateTime      time.Time  `col:"CREATE_TIME,TIMESTAMP" null:"zero" doc:"When the database was created."`
	ArchMode        string     `col:"ARCH_MODE,CHAR(1)" doc:"Y when archiving is on (ARCH_INI = 1), else N."`
	LastCkptTime    time.Time  `col:"LAST_CKPT_TIME,TIMESTAMP" null:"zero" doc:"When the last checkpoint ended."`
	Status          int        `col:"STATUS$,INTEGER" doc:"Database status: 1 startup, 2 after redo, 3 open, 4 mount, 5 suspend, 6 shutdown."`
	Role            int        `col:"ROLE$,INTEGER" doc:"Database mode: 0 normal, 1 primary, 2 standby."`
	TotalSize       int64      `col:"TOTAL_SIZE,BIGINT" doc:"Size of the data files, pages."`
	PageSize        int        `col:"PAGE_SIZE,INTEGER" doc:"Size of a page, bytes."`
	DSCNodes        int        `col:"DSC_NODES,INTEGER" doc:"Number of nodes of a shared-storage group, 1 for a single node."`
	OpenCount       int64      `col:"OPEN_COUNT,INTEGER" doc:"How often the database was opened as primary or normal (newest open record)."`
	StartupTime     time.Time  `col:"LAST_STARTUP_TIME,TIMESTAMP" null:"zero" doc:"When the server process started."`
	PmntMagic       base.Magic `col:"PMNT_MAGIC,BIGINT" doc:"Permanent magic number, equal in all databases of a group."`
	DBMagic         base.Magic `col:"DB_MAGIC,BIGINT" doc:"Magic number of this database."`
	SuspendedSince  time.Time  `col:"SUSPENDED_SINCE,TIMESTAMP" null:"zero" doc:"Since when the database is suspended; NULL when it is not."`
	SuspendedReason string     `col:"SUSPEND_REASON,VARCHAR(512)" null:"zero" doc:"Why it is suspended; NULL when it is not."`
}

// RLogRow is the row of V$RLOG.
type RLogRow struct {
	CkptLSN       base.LSN   `col:"CKPT_LSN,BIGINT" doc:"Everything up to this LSN is in the data files."`
	FileLSN       base.LSN   `col:"FILE_LSN,BIGINT" doc:"Largest LSN written to the online log (FLSN)."`
	FlushLSN      base.LSN   `col:"FLUSH_LSN,BIGINT" doc:"Largest LSN handed to the flusher."`
	CurLSN        base.LSN   `col:"CUR_LSN,BIGINT" doc:"Largest LSN assigned (CLSN)."`
	HardenedLSN   base.LSN   `col:"HARDENED_LSN,BIGINT" doc:"Largest LSN that every required copy holds; readers see no more than this."`
	NextSeq       base.Seq   `col:"NEXT_SEQ,BIGINT" doc:"Next local package number (LSEQ)."`
	GlobalNextSeq base.Seq   `col:"GLOBAL_NEXT_SEQ,BIGINT" doc:"Next global package number (GSEQ); a standby in step has replayed this minus 1."`
	FileSeq       base.Seq   `col:"FILE_SEQ,BIGINT" doc:"Largest global package number written to the online log (FSEQ)."`
	CurSeq        base.Seq   `col:"CUR_SEQ,BIGINT" doc:"Largest global package number assigned (CSEQ)."`
	CkptFile      int        `col:"CKPT_FILE,INTEGER" doc:"Online log file in which recovery would start."`
	CkptOffset    int64      `col:"CKPT_OFFSET,BIGINT" doc:"Offset in that file, bytes."`
	CurFile       int        `col:"CUR_FILE,INTEGER" doc:"Online log file being written."`
	CurOffset     int64      `col:"CUR_OFFSET,BIGINT" doc:"Write offset in that file, bytes."`
	NFiles        int        `col:"N_FILES,INTEGER" doc:"Number of online log files."`
	FreeSpace     int64      `col:"FREE_SPACE,BIGINT" doc:"Free space of the online log, bytes."`
	TotalSpace    int64      `col:"TOTAL_SPACE,BIGINT" doc:"Size of the online log, bytes."`
	DBMagic       base.Magic `col:"DB_MAGIC,BIGINT" doc:"Magic number of this database."`
	PmntMagic     base.Magic `col:"PMNT_MAGIC,BIGINT" doc:"Permanent magic number, equal in all databases of a group."`
}

// ArchStatusRow is a row of V$ARCH_STATUS.
type ArchStatusRow struct {
	Type   base.ArchType  `col:"ARCH_TYPE,VARCHAR(256)" doc:"Archive type: LOCAL, REMOTE, REALTIME, TIMELY or ASYNC."`
	Dest   string         `col:"ARCH_DEST,VARCHAR(256)" doc:"Target: a path for local and remote archives, else an instance."`
	Status base.ArchState `col:"ARCH_STATUS,VARCHAR(256)" doc:"Valid or Invalid; of the local archive: Invalid while it cannot be written, as on a full disk."`
	Src    string         `col:"ARCH_SRC,VARCHAR(256)" doc:"Source instance of a remote archive, else the local instance."`
}

// ArchFileRow is a row of V$ARCH_FILE.
type ArchFileRow struct {
	DBMagic       base.Magic `col:"DB_MAGIC,BIGINT" doc:"Magic number of the database that wrote the file."`
	Status        string     `col:"STATUS,VARCHAR(64)" doc:"ACTIVE while it is written to, else INACTIVE."`
	Len           int64      `col:"LEN,BIGINT" doc:"Length of the log, bytes."`
	Free          int64      `col:"FREE,BIGINT" doc:"Write offset, bytes."`
	ArchLSN       base.LSN   `col:"ARCH_LSN,BIGINT" doc:"First LSN of the file."`
	CLSN          base.LSN   `col:"CLSN,BIGINT" doc:"Largest LSN archived."`
	ArchSeq       base.Seq   `col:"ARCH_SEQ,INTEGER" doc:"First package number of the file."`
	NextSeq       base.Seq   `col:"NEXT_SEQ,INTEGER" doc:"Largest package number archived."`
	CreateTime    time.Time  `col:"CREAT_TIME,TIMESTAMP" null:"zero" doc:"When the file was created."`
	CloseTime     time.Time  `col:"CLOSE_TIME,TIMESTAMP" null:"zero" doc:"When it was closed; NULL while it is written to."`
	Path          string     `col:"PATH,VARCHAR(256)" doc:"Path with file name."`
	PmntMagic     base.Magic `col:"PMNT_MAGIC,BIGINT" doc:"Permanent magic number of the database."`
	DSCSeqno      int        `col:"DSC_SEQNO,INTEGER" doc:"Node number, 0 for a single node."`
	CRCCheck      int        `col:"CRC_CHECK,INTEGER" doc:"1 when packages carry a checksum."`
	LastPkgOff    int64      `col:"LAST_PKG_OFF,BIGINT" doc:"Offset of the last valid package in the file, bytes."`
	PrevLSN       base.LSN   `col:"PREV_LSN,BIGINT" doc:"Largest LSN archived in the file before."`
	GlobalNextSeq base.Seq   `col:"GLOBAL_NEXT_SEQ,BIGINT" doc:"Largest global package number archived."`
	SrcDBMagic    base.Magic `col:"SRC_DB_MAGIC,BIGINT" doc:"Magic number of the database that produced the redo."`
}

// ArchIniRow is a row of V$DM_ARCH_INI. A nil pointer is NULL.
type ArchIniRow struct {
	Name         string        `col:"ARCH_NAME,VARCHAR(128)" doc:"Name of the archive (the section of dmarch.ini)."`
	Type         base.ArchType `col:"ARCH_TYPE,VARCHAR(128)" doc:"Archive type."`
	Dest         string        `col:"ARCH_DEST,VARCHAR(512)" doc:"Path of a local archive, else the target instance."`
	FileSize     *int64        `col:"ARCH_FILE_SIZE,INTEGER" doc:"Size of an archive file, MB."`
	SpaceLimit   *int64        `col:"ARCH_SPACE_LIMIT,INTEGER" doc:"Space limit, MB; 0 for none."`
	HangFlag     *int64        `col:"ARCH_HANG_FLAG,INTEGER" doc:"1 for local and remote archives, else NULL; no further meaning."`
	TimerName    string        `col:"ARCH_TIMER_NAME,VARCHAR(128)" null:"zero" doc:"Timer of an asynchronous archive, else NULL."`
	IsValid      string        `col:"ARCH_IS_VALID,CHAR(1)" doc:"Y when the archive is valid, else N."`
	WaitApply    *int64        `col:"ARCH_WAIT_APPLY,INTEGER" doc:"0 high performance, 1 consistent; NULL for a local archive."`
	IncomingPath string        `col:"ARCH_INCOMING_PATH,VARCHAR(256)" null:"zero" doc:"Directory for archives received from a remote node, else NULL."`
	CurrDest     string        `col:"ARCH_CURR_DEST,VARCHAR(256)" null:"zero" doc:"Current target instance; the standby itself when it is a single node."`
	SendDelay    *int64        `col:"ARCH_SEND_DELAY,INTEGER" doc:"Delay of sending to an asynchronous standby, minutes, 0 to 1440."`
}

// MALIniRow is a row of V$DM_MAL_INI.
type MALIniRow struct {
	Name       string `col:"MAL_NAME,VARCHAR(128)" doc:"Name of the entry (the section of dmmal.ini)."`
	InstName   string `col:"MAL_INST_NAME,VARCHAR(256)" doc:"Instance name."`
	Host       string `col:"MAL_HOST,VARCHAR(30)" doc:"Address for instances and watchers."`
	Port       int    `col:"MAL_PORT,INTEGER" doc:"Port for other instances."`
	InstHost   string `col:"MAL_INST_HOST,VARCHAR(256)" doc:"Address for SQL clients."`
	InstPort   int    `col:"MAL_INST_PORT,INTEGER" doc:"Port for SQL clients."`
	DWPort     int    `col:"MAL_DW_PORT,INTEGER" doc:"Port on which the watcher of this instance listens for watchers and monitors."`
	LinkMagic  int    `col:"MAL_LINK_MAGIC,INTEGER" doc:"Id of the network segment."`
	InstDWPort int    `col:"MAL_INST_DW_PORT,INTEGER" doc:"Port on which the instance listens for its watcher."`
}

// MALLinkRow is a row of V$MAL_LINK_STATUS.
type MALLinkRow struct {
	Src  string `col:"SRC_SITE,VARCHAR(256)" doc:"Source instance."`
	Dest string `col:"DEST_SITE,VARCHAR(256)" doc:"Target instance."`
	Ctl  Linked `col:"CTL_LINK_STATUS,VARCHAR(256)" doc:"Control link: CONNECTED or DISCONNECT."`
	Data Linked `col:"DATA_LINK_STATUS,VARCHAR(256)" doc:"Data link: CONNECTED or DISCONNECT."`
}

// Linked is the state of a link.
type Linked bool

// String is the manual's spelling.
func (l Linked) String() string {
	if l {
		return "CONNECTED"
	}
	return "DISCONNECT"
}

// RapplySysRow is a row of V$RAPPLY_SYS; times are durations in milliseconds
// where the column is a number.
type RapplySysRow struct {
	Applying         bool      `col:"APPLYING,VARCHAR(64)" doc:"Whether replay is working: TRUE or FALSE."`
	SSeq             base.Seq  `col:"SSEQ,BIGINT" doc:"Largest package number that may be replayed."`
	SLSN             base.LSN  `col:"SLSN,BIGINT" doc:"Largest LSN that may be replayed."`
	KSeq             base.Seq  `col:"KSEQ,BIGINT" doc:"Package number received and kept without replay."`
	KLSN             base.LSN  `col:"KLSN,BIGINT" doc:"Largest LSN received and kept without replay."`
	TaskNum          int       `col:"TASK_NUM,INTEGER" doc:"Number of packages waiting for replay."`
	PrimaryName      string    `col:"PRIMARY_NAME,VARCHAR(128)" null:"zero" doc:"Primary instance; NULL while none is known."`
	HasKeepPkg       bool      `col:"HAS_KEEP_PKG,VARCHAR(64)" doc:"Whether there is a kept package: TRUE or FALSE."`
	TaskMemUsed      int64     `col:"TASK_MEM_USED,BIGINT" doc:"Memory of redo waiting for replay, bytes."`
	TaskStartTime    time.Time `col:"TASK_START_TIME,TIMESTAMP" null:"zero" doc:"Start of the replay of the current package; NULL when there is none."`
	LastRedoTime     int64     `col:"LAST_REDO_TIME,BIGINT" doc:"Duration of the last replay, milliseconds."`
	TaskNumApplied   int64     `col:"TASK_NUM_APPLIED,BIGINT" doc:"Number of packages replayed."`
	AppliedTotalTime int64     `col:"APPLIED_TOTAL_TIME,BIGINT" doc:"Total time of replay, milliseconds."`
	Seqno            int       `col:"SEQNO,INTEGER" doc:"Number of the primary's node, 0 for a single node."`
	RRecType         string    `col:"RREC_TYPE,VARCHAR(64)" doc:"RTYPE_NONE: replay changes pages in memory, and the checkpoint extends the data file; it works on no file itself."`
}

// KeepPkgRow is a row of V$KEEP_RLOG_PKG and of V$RAPPLY_LOG_TASK.
type KeepPkgRow struct {
	Type     base.ArchType `col:"TYPE,VARCHAR(64)" doc:"How the package came: REALTIME, TIMELY, or ASYNC (from the primary's archive, while this database catches up)."`
	MinLSN   base.LSN      `col:"MIN_LSN,BIGINT" doc:"Smallest LSN in the package."`
	MaxLSN   base.LSN      `col:"MAX_LSN,BIGINT" doc:"Largest LSN in it."`
	PTXOff   int           `col:"PTX_OFF,SMALLINT" doc:"Offset of the first PTX in it, bytes."`
	LogSize  int64         `col:"LOG_SIZE,INTEGER" doc:"Valid length of its redo, bytes."`
	DSCSeqno int           `col:"DSC_SEQNO,INTEGER" doc:"Number of the primary's node, 0 for a single node."`
	DBMagic  base.Magic    `col:"DB_MAGIC,BIGINT" doc:"Magic number of the producing database."`
	PkgType  int           `col:"PKG_TYPE,INTEGER" doc:"0: the header of a package that was received does not say what is in it."`
	PkgSeqno base.Seq      `col:"PKG_SEQNO,BIGINT" doc:"Global package number."`
	PrevLSN  base.LSN      `col:"PREV_LSN,BIGINT" doc:"Largest LSN of the package before."`
	PkgLen   int64         `col:"PKG_LEN,BIGINT" doc:"Length of the package, bytes."`
}

// RapplyLSNRow is a row of V$RAPPLY_LSN_INFO; the arrays are by node of the
// primary, of length 1 for a single node, shown as "(4426)".
type RapplyLSNRow struct {
	PDBMagic     base.Magic `col:"P_DB_MAGIC,BIGINT" doc:"Magic number of the primary."`
	NEP          int        `col:"N_EP,BIGINT" doc:"Number of nodes of the primary."`
	PkgSeq       []base.Seq `col:"PKG_SEQ_ARR,VARCHAR(2048)" doc:"Original package numbers in the online log, by node of the primary."`
	ApplyLSN     []base.LSN `col:"APPLY_LSN_ARR,VARCHAR(2048)" doc:"Original LSNs in the online log, by node of the primary."`
	CkptPDBMagic base.Magic `col:"CKPT_P_DB_MAGIC,BIGINT" doc:"Reserved; equal to P_DB_MAGIC."`
	CkptNEP      int        `col:"CKPT_N_EP,INTEGER" doc:"Reserved; equal to N_EP."`
	CkptPkgSeq   []base.Seq `col:"CKPT_PKG_SEQ_ARR,VARCHAR(2048)" doc:"Reserved; equal to PKG_SEQ_ARR."`
	CkptApplyLSN []base.LSN `col:"CKPT_APPLY_LSN_ARR,VARCHAR(2048)" doc:"Reserved; equal to APPLY_LSN_ARR."`
}

// RapplyParallelRow is a row of V$RAPPLY_PARALLEL_INFO. The replayers finish each
// batch together, so that all of them are at the LSN that readers see.
type RapplyParallelRow struct {
	DSCSeqno    int        `col:"DSC_SEQNO,INTEGER" doc:"Number of the primary's node, 0 for a single node."`
	ApplyPkgSeq base.Seq   `col:"APPLY_PKG_SEQ,BIGINT" doc:"Original package number in the online log."`
	ApplyLSN    base.LSN   `col:"APPLY_LSN,BIGINT" doc:"Original LSN in the online log."`
	ParallelNum int        `col:"REDOS_PARALLEL_NUM,INTEGER" doc:"Number of replayers."`
	RedoLSN     []base.LSN `col:"REDO_LSN_ARR,VARCHAR(2048)" doc:"LSN that each replayer has replayed."`
	RpkgSeq     base.Seq   `col:"RPKG_SEQ,BIGINT" doc:"Package number replayed."`
	RpkgLSN     base.LSN   `col:"RPKG_LSN,BIGINT" doc:"LSN replayed."`
}

// NewRapplyLSNRow fills the reserved columns from the others.
func NewRapplyLSNRow(primary base.Magic, apply ...base.Position) RapplyLSNRow {
	seqs, lsns := splitPositions(apply)
	return RapplyLSNRow{primary, len(apply), seqs, lsns, primary, len(apply), seqs, lsns}
}

func splitPositions(ps []base.Position) (seqs []base.Seq, lsns []base.LSN) {
	for _, p := range ps {
		seqs, lsns = append(seqs, p.Seq), append(lsns, p.LSN)
	}
	return seqs, lsns
}

// ParameterRow is a row of V$PARAMETER.
type ParameterRow struct {
	Name     string `col:"NAME,VARCHAR(64)" doc:"Name of the parameter of dm.ini."`
	Type     string `col:"TYPE,VARCHAR(200)" doc:"READ ONLY: fixed in dm.ini; IN FILE: takes effect at the next start; SYS: changed in the running server; SESSION: changed for one session too."`
	Value    string `col:"VALUE,VARCHAR(4000)" null:"zero" doc:"Value of the session, or of the server."`
	SysValue string `col:"SYS_VALUE,VARCHAR(4000)" null:"zero" doc:"Value of the server."`
	FileVal  string `col:"FILE_VALUE,VARCHAR(4000)" null:"zero" doc:"Value in dm.ini; NULL when the file does not name it."`
	Default  string `col:"DEFAULT_VALUE,VARCHAR(4000)" null:"zero" doc:"Value when the file does not name it."`
	Doc      string `col:"DESCRIPTION,VARCHAR(4000)" doc:"What it does."`
}

// OpenHistoryRow is a row of SYSOPENHISTORY.
type OpenHistoryRow struct {
	TGUID      string     `col:"TGUID,VARCHAR(64)" doc:"Unique id of the open record."`
	RowID      uint64     `col:"ROWID,BIGINT" doc:"Ordinal of the record, from 1, never reused."`
	OpenTime   time.Time  `col:"OPEN_TIME,TIMESTAMP" null:"zero" doc:"When the database opened."`
	SysMode    base.Mode  `col:"SYS_MODE,VARCHAR(32)" doc:"Mode at that time: PRIMARY or NORMAL."`
	PriInst    string     `col:"PRI_INST_NAME,VARCHAR(128)" doc:"Instance that was primary before this opening; the opening one itself when there was none."`
	CurInst    string     `col:"CUR_INST_NAME,VARCHAR(128)" doc:"Instance that opened."`
	PriDBMagic base.Magic `col:"PRI_DB_MAGIC,BIGINT" doc:"Magic number of the database that wrote the redo before this opening."`
	CurDBMagic base.Magic `col:"CUR_DB_MAGIC,BIGINT" doc:"Magic number of the database that opened."`
	NEP        int        `col:"N_EP,INTEGER" doc:"Number of nodes, 1 for a single node."`
	PkgSeqno   []base.Seq `col:"PKG_SEQNO_ARR,VARCHAR(2048)" doc:"Package numbers in the online log at that time, by node."`
	ApplyLSN   []base.LSN `col:"APPLY_LSN_ARR,VARCHAR(2048)" doc:"LSNs replayed at that time, by node."`
}

// OpenHistoryRows turns a database's open history into rows.
func OpenHistoryRows(l base.Lineage) []OpenHistoryRow {
	rows := make([]OpenHistoryRow, 0, len(l))
	for i, r := range l {
		seqs, lsns := splitPositions(r.Apply)
		pri := r.CurInst
		if i > 0 && l[i-1].DBMagic == r.SrcDBMagic {
			pri = l[i-1].CurInst
		}
		rows = append(rows, OpenHistoryRow{TGUID: r.TGUID, RowID: r.ID, OpenTime: r.OpenTime,
			SysMode: r.SysMode, PriInst: pri, CurInst: r.CurInst, PriDBMagic: r.SrcDBMagic,
			CurDBMagic: r.DBMagic, NEP: max(1, len(r.Apply)), PkgSeqno: seqs, ApplyLSN: lsns})
	}
	return rows
}

// VersionRow is a row of V$VERSION.
type VersionRow struct {
	Banner string `col:"BANNER,VARCHAR(128)" doc:"One line of version information."`
}
