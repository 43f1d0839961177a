package views

import (
	"net"
	"strconv"
	"strings"
	"time"

	"datawatch/internal/base"
)

// SessionRow is a row of V$SESSIONS.
type SessionRow struct {
	ID         int64     `col:"SESS_ID,BIGINT" doc:"Id of the session (SP_CLOSE_SESSION takes it)."`
	SQL        string    `col:"SQL_TEXT,VARCHAR(1000)" null:"zero" doc:"Statement running, or the last one."`
	State      string    `col:"STATE,VARCHAR(8)" doc:"ACTIVE while a statement runs, else IDLE."`
	User       string    `col:"USER_NAME,VARCHAR(128)" doc:"User."`
	TrxState   string    `col:"TRX_STATE,VARCHAR(8)" doc:"IDLE, ACTIVE or FAILED."`
	TrxStart   time.Time `col:"TRX_START_TIME,TIMESTAMP" null:"zero" doc:"Start of the transaction; NULL outside of one."`
	HoldsWrite bool      `col:"WRITER,VARCHAR(8)" doc:"Whether the session holds the write lock: TRUE or FALSE."`
	WaitWrite  bool      `col:"WAITING,VARCHAR(8)" doc:"Whether it waits for the write lock or for its commit: TRUE or FALSE."`
	CreateTime time.Time `col:"CREATE_TIME,TIMESTAMP" null:"zero" doc:"When the client connected."`
	LastRecv   time.Time `col:"LAST_RECV_TIME,TIMESTAMP" null:"zero" doc:"When its last statement came."`
	ClientIP   string    `col:"CLNT_IP,VARCHAR(128)" null:"zero" doc:"Address and port of the client."`
	AppName    string    `col:"APPNAME,VARCHAR(128)" null:"zero" doc:"application_name the client gave."`
	TrxID      uint64    `col:"TRX_ID,BIGINT" null:"zero" doc:"Its transaction (V$TRX.ID); NULL outside of one."`
	WaitEvent  string    `col:"WAIT_EVENT,VARCHAR(32)" null:"zero" doc:"What it waits for: write lock, hardened (its commit), earlier commits (those its rows depend on), connection, administration; NULL: nothing."`
	NStmt      uint64    `col:"N_STMT,BIGINT" doc:"Statements it has run."`
	NErr       uint64    `col:"N_ERR,BIGINT" doc:"Statements of these that failed."`
	Database   string    `col:"DB_NAME,VARCHAR(128)" doc:"Database the client asked for."`
}

// TrxRow is a row of V$TRX.
type TrxRow struct {
	ID        uint64    `col:"ID,BIGINT" doc:"Number of the transaction; 0 for a single statement that is writing."`
	Status    string    `col:"STATUS,VARCHAR(8)" doc:"ACTIVE while a statement runs, IDLE between statements, FAILED after an error until it is rolled back."`
	Isolation string    `col:"ISOLATION,VARCHAR(32)" doc:"read committed, repeatable read or serializable."`
	ReadOnly  bool      `col:"READ_ONLY,VARCHAR(8)" doc:"TRUE or FALSE."`
	SessID    int64     `col:"SESS_ID,BIGINT" doc:"Its session."`
	User      string    `col:"USER_NAME,VARCHAR(128)" doc:"User."`
	Start     time.Time `col:"START_TIME,TIMESTAMP" null:"zero" doc:"When it began."`
	Seconds   int64     `col:"SECONDS,BIGINT" doc:"How long ago that was."`
	Writer    bool      `col:"WRITER,VARCHAR(8)" doc:"Whether it holds the write lock, so that other writers wait for it: TRUE or FALSE."`
	Waiting   string    `col:"WAITING,VARCHAR(32)" null:"zero" doc:"What it waits for (V$SESSIONS.WAIT_EVENT); NULL: nothing."`
	Kind      string    `col:"KIND,VARCHAR(12)" doc:"CONCURRENT: a concurrent transaction that does without the write lock until its COMMIT; LOCKING: any other."`
}

// LockRow is a row of V$LOCK.
type LockRow struct {
	TrxID   uint64    `col:"TRX_ID,BIGINT" null:"zero" doc:"Transaction; NULL for a single statement."`
	LType   string    `col:"LTYPE,VARCHAR(10)" doc:"WRITE: the write lock of the database; SNAPSHOT: a state that a transaction reads from start to end, which keeps old versions of pages in memory."`
	LMode   string    `col:"LMODE,VARCHAR(4)" doc:"X for WRITE, S for SNAPSHOT."`
	Blocked int       `col:"BLOCKED,INTEGER" doc:"1 while it waits, 0 when it has the lock."`
	SessID  int64     `col:"SESS_ID,BIGINT" doc:"Session."`
	Blocker int64     `col:"BLOCK_SESS_ID,BIGINT" null:"zero" doc:"Session that has the lock it waits for."`
	Since   time.Time `col:"SINCE,TIMESTAMP" null:"zero" doc:"Start of the transaction, or of the statement that waits."`
}

// ArchSendRow is a row of V$ARCH_SEND_INFO; the MAX_ figures belong to the
// longest send. Times are microseconds.
type ArchSendRow struct {
	Dest        string    `col:"ARCH_DEST,VARCHAR(256)" doc:"Target instance."`
	Type        int       `col:"ARCH_TYPE,INTEGER" doc:"Archive type: 1 local, 2 remote, 3 realtime, 4 timely, 5 async."`
	ForRecovery string    `col:"FOR_RECOVERY,CHAR" doc:"Y when the last send was part of a recovery, else N."`
	RecentCnt   int       `col:"RECNT_SEND_CNT,INTEGER" doc:"Number of most recent sends counted, at most RLOG_SEND_APPLY_MON."`
	TotalCnt    int64     `col:"TOTAL_SEND_CNT,BIGINT" doc:"Number of sends."`
	TotalLen    int64     `col:"TOTAL_SEND_LEN,BIGINT" doc:"Length sent, bytes."`
	TotalPTX    int64     `col:"TOTAL_PTX_CNT,BIGINT" doc:"PTX sent."`
	TotalTime   int64     `col:"TOTAL_SEND_TIME,BIGINT" doc:"Send time, microseconds."`
	MaxTime     int64     `col:"MAX_SEND_TIME,BIGINT" doc:"Longest send, microseconds."`
	MaxEnd      time.Time `col:"MAX_END_TIME,TIMESTAMP" null:"zero" doc:"End of the longest send."`
	MaxPTX      int64     `col:"MAX_PTX_CNT,INTEGER" doc:"PTX of the longest send."`
	MaxLen      int64     `col:"MAX_SEND_LEN,INTEGER" doc:"Length of the longest send, bytes."`
	MaxLSN      base.LSN  `col:"MAX_SEND_LSN,BIGINT" doc:"End LSN of the longest send."`
	LastLen     int64     `col:"LAST_SEND_LEN,INTEGER" doc:"Length of the last send, bytes."`
	LastPTX     int64     `col:"LAST_SEND_PTX,INTEGER" doc:"PTX of the last send."`
	LastLSN     base.LSN  `col:"LAST_SEND_LSN,BIGINT" doc:"End LSN of the last send."`
	LastTime    int64     `col:"LAST_SEND_TIME,BIGINT" doc:"Duration of the last send, microseconds."`
	LastStart   time.Time `col:"LAST_START_TIME,TIMESTAMP" null:"zero" doc:"Start of the last send."`
	LastEnd     time.Time `col:"LAST_END_TIME,TIMESTAMP" null:"zero" doc:"End of the last send."`
	RecentLen   int64     `col:"RECNT_SEND_LEN,BIGINT" doc:"Length of the recent sends, bytes."`
	RecentPTX   int64     `col:"RECNT_SEND_PTX,BIGINT" doc:"PTX of the recent sends."`
	RecentTime  int64     `col:"RECNT_SEND_TIME,BIGINT" doc:"Duration of the recent sends, microseconds."`
}

// RapplyStatRow is a row of V$RAPPLY_STAT. Times are microseconds.
type RapplyStatRow struct {
	RecentNum       int       `col:"RECNT_APPLY_NUM,INTEGER" doc:"Number of most recent replays counted, at most RLOG_SEND_APPLY_MON."`
	TaskMem         int64     `col:"TSK_MEM_USED,BIGINT" doc:"Memory of redo waiting for replay, bytes."`
	TaskStart       time.Time `col:"TSK_START_TIME,TIMESTAMP" null:"zero" doc:"Start of the replay under way; NULL when there is none."`
	RecvNum         int64     `col:"TOTAL_RECVED_NUM,BIGINT" doc:"Packages received."`
	RecvLen         int64     `col:"TOTAL_RECVED_LEN,BIGINT" doc:"Redo received, bytes."`
	RecvTime        int64     `col:"TOTAL_RECVED_TIME,BIGINT" doc:"Time to answer the primary, microseconds."`
	ApplyNum        int64     `col:"TOTAL_APPLY_NUM,BIGINT" doc:"Packages replayed."`
	ApplyLen        int64     `col:"TOTAL_APPLY_LEN,BIGINT" doc:"Redo replayed, bytes."`
	ApplyTime       int64     `col:"TOTAL_APPLY_TIME,BIGINT" doc:"Replay time, microseconds."`
	WaitTime        int64     `col:"TOTAL_WAIT_TIME,BIGINT" doc:"Time between receipt and replay, microseconds."`
	RecvMax         int64     `col:"MAX_RECVED_TIME,BIGINT" doc:"Longest time to answer, microseconds."`
	WaitMax         int64     `col:"MAX_WAIT_TIME,BIGINT" doc:"Longest wait, microseconds."`
	ApplyMax        int64     `col:"MAX_APPLY_TIME,BIGINT" doc:"Longest replay, microseconds."`
	ApplyMaxLen     int64     `col:"MAX_APPLY_LEN,BIGINT" doc:"Length of the redo in the longest replay, bytes."`
	LastRecvLen     int64     `col:"LAST_RECVED_LEN,BIGINT" doc:"Redo received last, bytes."`
	LastRecvTime    int64     `col:"LAST_RECVED_TIME,BIGINT" doc:"Last time to answer, microseconds."`
	RecentRecvLen   int64     `col:"RECNT_RECVED_LEN,BIGINT" doc:"Redo received in the recent ones, bytes."`
	RecentRecvTime  int64     `col:"RECNT_RECVED_TIME,BIGINT" doc:"Time to answer of the recent ones, microseconds."`
	LastWaitTime    int64     `col:"LAST_WAIT_TIME,BIGINT" doc:"Last wait, microseconds."`
	RecentWaitTime  int64     `col:"RECNT_WAIT_TIME,BIGINT" doc:"Wait of the recent ones, microseconds."`
	LastApplyLen    int64     `col:"LAST_APPLY_LEN,BIGINT" doc:"Length of the last replay, bytes."`
	LastApplyTime   int64     `col:"LAST_APPLY_TIME,BIGINT" doc:"Last replay, microseconds."`
	RecentApplyLen  int64     `col:"RECNT_APPLY_LEN,BIGINT" doc:"Redo replayed in the recent ones, bytes."`
	RecentApplyTime int64     `col:"RECNT_APPLY_TIME,BIGINT" doc:"Replay time of the recent ones, microseconds."`
	Seqno           int       `col:"SEQNO,INTEGER" doc:"Number of the primary's node, 0 for a single node."`
	LastCommit      time.Time `col:"LAST_CMT_TIME,DATETIME(6)" null:"zero" doc:"Time stamp, by the primary's clock, of the newest package received."`
	Applied         time.Time `col:"APPLY_CMT_TIME,DATETIME(6)" null:"zero" doc:"The same of the newest package replayed."`
}

// PGActivityRow is a row of pg_stat_activity.
type PGActivityRow struct {
	DatID         int64     `col:"datid,BIGINT" doc:"1."`
	DatName       string    `col:"datname,NAME" doc:"Database the client asked for."`
	PID           int64     `col:"pid,INTEGER" doc:"Session: pg_cancel_backend and pg_terminate_backend take it."`
	LeaderPID     *int64    `col:"leader_pid,INTEGER" doc:"NULL."`
	UseSysID      int64     `col:"usesysid,BIGINT" doc:"10."`
	UseName       string    `col:"usename,NAME" doc:"User."`
	AppName       string    `col:"application_name,TEXT" doc:"application_name the client gave."`
	Addr          string    `col:"client_addr,TEXT" null:"zero" doc:"Address of the client."`
	Host          *string   `col:"client_hostname,TEXT" doc:"NULL."`
	Port          int64     `col:"client_port,INTEGER" null:"zero" doc:"Port of the client."`
	BackendStart  time.Time `col:"backend_start,TIMESTAMP" null:"zero" doc:"When the client connected."`
	XactStart     time.Time `col:"xact_start,TIMESTAMP" null:"zero" doc:"Start of the transaction; NULL outside of one."`
	QueryStart    time.Time `col:"query_start,TIMESTAMP" null:"zero" doc:"Start of the statement running, or of the last one."`
	StateChange   time.Time `col:"state_change,TIMESTAMP" null:"zero" doc:"The same."`
	WaitEventType string    `col:"wait_event_type,TEXT" null:"zero" doc:"Lock for the write lock, IPC for commits, Client while the client is silent."`
	WaitEvent     string    `col:"wait_event,TEXT" null:"zero" doc:"As V$SESSIONS.WAIT_EVENT."`
	State         string    `col:"state,TEXT" doc:"active, idle, idle in transaction, idle in transaction (aborted)."`
	XID           uint64    `col:"backend_xid,BIGINT" null:"zero" doc:"Transaction (V$TRX.ID)."`
	Xmin          *int64    `col:"backend_xmin,BIGINT" doc:"NULL."`
	QueryID       *int64    `col:"query_id,BIGINT" doc:"NULL."`
	Query         string    `col:"query,TEXT" doc:"Statement running, or the last one, shortened."`
	BackendType   string    `col:"backend_type,TEXT" doc:"client backend."`
}

// PGLockRow is a row of pg_locks.
type PGLockRow struct {
	LockType  string    `col:"locktype,TEXT" doc:"database: the write lock; virtualxid: a snapshot."`
	Database  int64     `col:"database,BIGINT" doc:"1."`
	Relation  *int64    `col:"relation,BIGINT" doc:"NULL: there are no locks of tables."`
	Page      *int64    `col:"page,INTEGER" doc:"NULL."`
	Tuple     *int64    `col:"tuple,SMALLINT" doc:"NULL."`
	VirtXID   *string   `col:"virtualxid,TEXT" doc:"NULL."`
	XID       uint64    `col:"transactionid,BIGINT" null:"zero" doc:"Transaction (V$TRX.ID)."`
	ClassID   *int64    `col:"classid,BIGINT" doc:"NULL."`
	ObjID     *int64    `col:"objid,BIGINT" doc:"NULL."`
	ObjSubID  *int64    `col:"objsubid,SMALLINT" doc:"NULL."`
	VirtTrx   string    `col:"virtualtransaction,TEXT" doc:"Session and transaction."`
	PID       int64     `col:"pid,INTEGER" doc:"Session."`
	Mode      string    `col:"mode,TEXT" doc:"ExclusiveLock or AccessShareLock."`
	Granted   string    `col:"granted,BOOLEAN" doc:"f while it waits."`
	Fastpath  string    `col:"fastpath,BOOLEAN" doc:"f."`
	WaitStart time.Time `col:"waitstart,TIMESTAMP" null:"zero" doc:"Since when it waits."`
}

func pgActivity(s Source) []PGActivityRow {
	var rows []PGActivityRow
	for _, x := range s.Sessions() {
		r := PGActivityRow{DatID: 1, DatName: x.Database, PID: x.ID, UseSysID: 10, UseName: x.User, AppName: x.AppName, BackendStart: x.CreateTime,
			XactStart: x.TrxStart, QueryStart: x.LastRecv, StateChange: x.LastRecv, WaitEvent: x.WaitEvent, State: "idle", XID: x.TrxID,
			Query: x.SQL, BackendType: "client backend"}
		if host, port, err := net.SplitHostPort(x.ClientIP); err == nil {
			r.Addr = host
			r.Port, _ = strconv.ParseInt(port, 10, 64)
		}
		switch {
		case x.State == "ACTIVE":
			r.State = "active"
		case x.TrxState == "ACTIVE":
			r.State = "idle in transaction"
		case x.TrxState == "FAILED":
			r.State = "idle in transaction (aborted)"
		}
		switch {
		case x.WaitEvent == "write lock":
			r.WaitEventType = "Lock"
		case x.WaitEvent != "":
			r.WaitEventType = "IPC"
		case x.State != "ACTIVE":
			r.WaitEventType, r.WaitEvent = "Client", "ClientRead"
		}
		rows = append(rows, r)
	}
	return rows
}

func pgLocks(s Source) []PGLockRow {
	var rows []PGLockRow
	for _, l := range s.Locks() {
		r := PGLockRow{LockType: "database", Database: 1, XID: l.TrxID, PID: l.SessID, Mode: "ExclusiveLock", Granted: "t", Fastpath: "f",
			VirtTrx: strconv.FormatInt(l.SessID, 10) + "/" + strconv.FormatUint(l.TrxID, 10)}
		if strings.EqualFold(l.LType, "SNAPSHOT") {
			r.LockType, r.Mode = "virtualxid", "AccessShareLock"
		}
		if l.Blocked != 0 {
			r.Granted, r.WaitStart = "f", l.Since
		}
		rows = append(rows, r)
	}
	return rows
}

// DBCheckRow is a row of V$DB_CHECK.
type DBCheckRow struct {
	State    string    `col:"STATE,VARCHAR(16)" doc:"RUNNING, OK, DAMAGED, CANCELLED or FAILED."`
	Phase    string    `col:"PHASE,VARCHAR(16)" doc:"pages: checksums of the data file; structure: tables, indexes and constraints."`
	Percent  int       `col:"PROGRESS,INTEGER" doc:"How much of the phase is done, percent."`
	Done     int64     `col:"PAGES_DONE,BIGINT" doc:"Pages read in the phase."`
	Total    int64     `col:"PAGES_TOTAL,BIGINT" doc:"Pages to read in it."`
	Problems int       `col:"N_PROBLEMS,INTEGER" doc:"Problems found; V$DB_CHECK_PROBLEM lists them."`
	Start    time.Time `col:"START_TIME,TIMESTAMP" null:"zero" doc:"When it began."`
	End      time.Time `col:"END_TIME,TIMESTAMP" null:"zero" doc:"When it ended; NULL while it runs."`
	LSN      base.LSN  `col:"LSN,BIGINT" doc:"Snapshot whose structure was checked."`
	SessID   int64     `col:"SESS_ID,BIGINT" doc:"Session that runs it."`
	User     string    `col:"USER_NAME,VARCHAR(128)" doc:"Its user."`
	Error    string    `col:"ERROR,VARCHAR(1024)" null:"zero" doc:"Why it failed."`
}

// DBProblemRow is a row of V$DB_CHECK_PROBLEM.
type DBProblemRow struct {
	What   string `col:"WHAT,VARCHAR(16)" doc:"page or structure."`
	Object string `col:"OBJECT,VARCHAR(128)" null:"zero" doc:"Table or index, where it is known."`
	Page   int64  `col:"PAGE,BIGINT" null:"zero" doc:"Number of the page, from 1."`
	Offset *int64 `col:"FILE_OFFSET,BIGINT" doc:"Its place in the data file, bytes."`
	Text   string `col:"MESSAGE,VARCHAR(1024)" doc:"What is wrong."`
}
