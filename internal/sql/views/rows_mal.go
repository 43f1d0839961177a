package views

// MALSysRow is the row of V$MAL_SYS. A nil pointer is NULL.
type MALSysRow struct {
	State         int    `col:"SYS_STATUS,INTEGER" doc:"0 open, 1 being shut down, 2 shut down."`
	StmtID        *int64 `col:"STMT_ID,INTEGER" doc:"NULL: no statement runs on several instances (as in MPP systems), so messages belong to none."`
	NextID        int64  `col:"NEXT_MAL_ID,BIGINT" doc:"Number of the next request of this instance to another, from 1 at its start."`
	Port          int    `col:"MAL_PORT,INTEGER" doc:"Port on which it listens for other instances."`
	Sites         int    `col:"N_SITE,INTEGER" doc:"Instances in dmmal.ini, this one among them."`
	Num           int    `col:"MAL_NUM,INTEGER" doc:"Mailboxes: requests of this instance that wait for their answers."`
	SeqNo         int    `col:"MAL_SEQ_NO,INTEGER" doc:"Number of this instance: its place in dmmal.ini, from 0."`
	EmptyLetters  *int64 `col:"EMPTY_LET_NUM,INTEGER" doc:"NULL: there is no stock of empty letters; a message is written from the memory of who sends it."`
	CheckInterval int64  `col:"MAL_CHECK_INTERVAL,INTEGER" doc:"MAL_CHECK_INTERVAL of dmmal.ini, seconds; 0: links are not checked."`
	FailInterval  int64  `col:"MAL_CONN_FAIL_INTERVAL,INTEGER" doc:"MAL_CONN_FAIL_INTERVAL of dmmal.ini, seconds."`
	CompressLevel int    `col:"MAL_COMPRESS_LEVEL,INTEGER" doc:"MAL_COMPRESS_LEVEL of dmmal.ini, equal in all instances."`
	BufSize       int    `col:"MAL_BUF_SIZE,INTEGER" doc:"MAL_BUF_SIZE of dmmal.ini, MB. It limits nothing yet, nor do the three that follow: messages are not kept in buffers of their own."`
	SysBufSize    int    `col:"MAL_SYS_BUF_SIZE,INTEGER" doc:"MAL_SYS_BUF_SIZE of dmmal.ini, MB."`
	VPoolSize     int    `col:"MAL_VPOOL_SIZE,INTEGER" doc:"MAL_VPOOL_SIZE of dmmal.ini, MB."`
	TempPath      string `col:"MAL_TEMP_PATH,VARCHAR(256)" null:"zero" doc:"MAL_TEMP_PATH of dmmal.ini; NULL when it is not there."`
}

// MALSiteRow is a row of V$MAL_SITE_INFO.
type MALSiteRow struct {
	Src         int    `col:"SRC_SITE_SEQ,INTEGER" doc:"Number of this instance (V$MAL_SYS.MAL_SEQ_NO)."`
	Dest        int    `col:"DEST_SITE_SEQ,INTEGER" doc:"Number of the other: its place in dmmal.ini, from 0."`
	PortNum     int    `col:"MAL_PORT_NUM,INTEGER" doc:"1 while the data link to it stands, else 0."`
	BuildTime   int64  `col:"BUILD_TIME,BIGINT" doc:"Number of the next message to it, from 1 at the start of this instance."`
	Handled     int64  `col:"LBTAPFDS,BIGINT" doc:"Number of the last message of it that has been handled, counted from the start of this instance."`
	CurLetters  *int64 `col:"CUR_LETTER_NUM,INTEGER" doc:"NULL: messages come by one connection in each direction, so none is ahead of its turn and has to be kept."`
	MaxLetters  *int64 `col:"MAX_LETTER_NUM,INTEGER" doc:"NULL, likewise."`
	TotalLinks  int    `col:"TOTAL_LINK_NUM,INTEGER" doc:"Links that stand: the one this instance has dialled and the one the other has, 0 to 2."`
	FreeLinks   int    `col:"FREE_LINK_NUM,INTEGER" doc:"Of these, links by which no request is under way."`
	SendLetters int    `col:"SEND_LETTER_NUM,INTEGER" doc:"Requests to it under way: sent and not answered."`
}
