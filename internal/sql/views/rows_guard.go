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
