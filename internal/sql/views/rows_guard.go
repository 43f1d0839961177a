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
	LastMsg    time.Time `col:"LAST_MSG_TIME,TIMESTAMP(0)" null:"zero" doc:"When the watcher was last heard; it speaks when it connects and when it gives an order."`
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
