package views

import (
	"time"

	"datawatch/internal/base"
)

// UtskSysRow is the row of V$UTSK_SYS2.
type UtskSysRow struct {
	Running    bool      `col:"RUNNING,VARCHAR(64)" doc:"Whether an order of the watcher is being carried out: TRUE or FALSE."`
	Break      bool      `col:"BREAK_FLAG,VARCHAR(64)" doc:"Whether the watcher's last order was interrupted: TRUE or FALSE."`
	AutoSwitch string    `col:"AUTO_SWITCH,VARCHAR(64)" null:"zero" doc:"DW_MODE as the watcher says: TRUE for AUTO, FALSE for MANUAL; NULL before one has connected."`
	MaxWait    int64     `col:"MAX_WAIT_TIME,INTEGER" doc:"DW_MAX_SVR_WAIT_TIME of dm.ini, seconds."`
	LastMsg    time.Time `col:"LAST_MSG_TIME,TIMESTAMP(0)" null:"zero" doc:"When the watcher was last heard; it speaks when it connects, when it gives an order, and every second."`
	Version    string    `col:"DW_VERSION,VARCHAR(64)" doc:"Guard version, equal in server, watchers and monitors."`
}

// UtskInfoRow is a row of V$UTSK_INFO.
type UtskInfoRow struct {
	Running      string   `col:"RUNNING,VARCHAR(64)" null:"zero" doc:"NULL: see V$UTSK_SYS2."`
	DSeq         int64    `col:"DSEQ,INTEGER" doc:"0: see DSEQ2."`
	Code         int64    `col:"CODE,INTEGER" doc:"100 while it is being carried out, 0 done, below 0 failed."`
	SendLSN      base.LSN `col:"SEND_LSN,BIGINT" null:"zero" doc:"Of arch_send: LSN up to which redo has been sent to the standby; else NULL."`
	RecoverBreak string   `col:"RECOVER_BREAK,VARCHAR(64)" null:"zero" doc:"NULL: see V$UTSK_SYS2."`
	AutoSwitch   string   `col:"AUTO_SWITCH,VARCHAR(64)" null:"zero" doc:"NULL: see V$UTSK_SYS2."`
	Nth          int64    `col:"NTH,INTEGER" doc:"Place in the list, 0 for the oldest that is kept."`
	Cmd          string   `col:"CMD,VARCHAR(64)" doc:"The order: open, mount, suspend, set_mode, set_arch, apply_keep, drop_keep, arch_send, rejoin and so on."`
	Inst         string   `col:"INST_NAME,VARCHAR(64)" null:"zero" doc:"Other instance it concerns: of arch_send the standby that is recovered."`
	MaxSendLSN   base.LSN `col:"MAX_SEND_LSN,BIGINT" null:"zero" doc:"As SEND_LSN."`
	DSeq2        int64    `col:"DSEQ2,BIGINT" doc:"Number of the order since the server has started."`
}

// RecoverStatusRow is a row of V$RECOVER_STATUS; amounts are NULL until the
// standby has said how far it is.
type RecoverStatusRow struct {
	Primary string   `col:"PRIMARY_NAME,VARCHAR(256)" doc:"Primary instance."`
	Standby string   `col:"STANDBY_NAME,VARCHAR(256)" doc:"Standby that is being recovered."`
	PrimLSN base.LSN `col:"PRIM_LSN,BIGINT" doc:"Largest LSN in the primary's online log now (FLSN). What is written after the start is sent by the next turn of the recovery."`
	SendLSN *int64   `col:"SEND_LSN,BIGINT" doc:"Largest LSN sent that the standby has acknowledged; NULL until it has said how far it is."`
	Total   *int64   `col:"KBYTES_TOTAL,BIGINT" doc:"Redo to send, from where the standby was at the start to where the primary was, kilobytes (the manual says bytes, against its name); NULL as above."`
	Left    *int64   `col:"KBYTES_TO_RECOVER,BIGINT" doc:"What of it the standby has not acknowledged yet, kilobytes; 0: all of it is sent, and it is writing the last of it to its log."`
	Files   *int64   `col:"FILES_TO_RECOVER,INTEGER" doc:"Number of archive files in which the redo to send is."`
	Percent string   `col:"RECOVER_PERCENT,VARCHAR(64)" null:"zero" doc:"(KBYTES_TOTAL - KBYTES_TO_RECOVER) / KBYTES_TOTAL, 100% when there is nothing to send."`
}

// DMWatcherRow is the row of V$DMWATCHER.
type DMWatcherRow struct {
	Groups      int       `col:"N_GROUP,INTEGER" doc:"Number of groups in the dmwatcher.ini of the watcher program."`
	Group       string    `col:"GROUP_NAME,VARCHAR(128)" doc:"Group of this instance."`
	Inst        string    `col:"INST_NAME,VARCHAR(128)" doc:"Name of this instance."`
	Type        string    `col:"DW_TYPE,VARCHAR(32)" doc:"DW_TYPE: LOCAL or GLOBAL."`
	Mode        string    `col:"DW_MODE,VARCHAR(32)" doc:"DW_MODE: MANUAL or AUTO."`
	AutoRestart int       `col:"AUTO_RESTART,INTEGER" doc:"INST_AUTO_RESTART: 1 when the watcher starts this instance, else 0."`
	State       string    `col:"DW_STATUS,VARCHAR(64)" doc:"State of the watcher (manual 3.4); ERROR when it is not connected or has been silent for DW_ERROR_TIME."`
	SubState    string    `col:"DW_SUB_STATUS,VARCHAR(64)" null:"zero" doc:"Where it is in that state; NULL when there is nothing to say."`
	LastMsg     time.Time `col:"LAST_MSG_TIME,DATETIME" null:"zero" doc:"When it was last heard; it speaks every second at least."`
	Switches    int64     `col:"SWITCH_COUNT,INTEGER" doc:"Changes of primary that the watcher program has seen since its start, in all its groups: switchovers, takeovers and forced ones."`
	Ctls        int       `col:"CTL_NUM,INTEGER" doc:"Other watchers of the group that have told it the state of their control file."`
	Insts       int       `col:"INST_NUM,INTEGER" doc:"Other instances of the group that it has heard of."`
	MaxConns    int       `col:"MAX_CONN_NUM,INTEGER" doc:"Most connections that it has had at one time: with this instance, other watchers and monitors."`
}
