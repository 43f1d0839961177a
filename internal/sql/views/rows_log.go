package views

import "datawatch/internal/base"

// LogPkgRow is a row of V$RLOG_PKG. A nil pointer is NULL.
type LogPkgRow struct {
	PkgLen      int64      `col:"PKG_LEN,BIGINT" doc:"Length of the package with its header, bytes."`
	DataOff     int64      `col:"DATA_OFF,BIGINT" doc:"Length of the redo in it so far, bytes, before it is compressed."`
	EncLen      *int64     `col:"ENC_LEN,BIGINT" doc:"NULL: redo is not encrypted in logs and archives; links between instances are (MAL_SSL_MODE)."`
	CmprLen     *int64     `col:"CMPR_LEN,BIGINT" doc:"Length of its redo when it has been compressed, bytes; else NULL. That is done when nothing is added any more, and only where it saves something (RLOG_COMPRESS)."`
	HdrSize     int        `col:"HDR_SIZE,INTEGER" doc:"Length of its header, bytes."`
	Magic       int64      `col:"N_MAGIC,BIGINT" doc:"The number that every package begins with."`
	DBMagic     base.Magic `col:"DB_MAGIC,BIGINT" doc:"Magic number of this database."`
	NDSC        int        `col:"N_DSC,INTEGER" doc:"Number of nodes of the database, 1 for a single node."`
	DSCSeqno    int        `col:"DSC_SEQNO,INTEGER" doc:"Node number, 0 for a single node."`
	FromPrimary int        `col:"FROM_PRIMARY,INTEGER" doc:"1 when this database is in Primary mode, 0 when it is Normal; a standby makes no packages."`
	Type        int        `col:"PKG_TYPE,INTEGER" doc:"0 whole transactions, 1 an open record, 2 its end is within a large transaction."`
	EncCmpr     int        `col:"ENC_CMPR,INTEGER" doc:"2 when it is compressed, 0 when it is not (or not yet). 1 and 3 do not occur: redo is not encrypted."`
	LSeqno      base.Seq   `col:"L_SEQNO,BIGINT" doc:"Local package number."`
	GSeqno      base.Seq   `col:"G_SEQNO,BIGINT" doc:"Global package number."`
	MinLSN      base.LSN   `col:"MIN_LSN,BIGINT" doc:"Smallest LSN in it."`
	MaxLSN      base.LSN   `col:"MAX_LSN,BIGINT" doc:"Largest LSN in it so far."`
	PrevLSN     base.LSN   `col:"PREV_LSN,BIGINT" doc:"Largest LSN of the package before."`
	NFixed      int64      `col:"N_FIXED,INTEGER" doc:"Transactions (or parts of large ones) put into it, and those that have reserved their place in it."`
	NFilled     int64      `col:"N_FILLED,INTEGER" doc:"Of these, those that are in it."`
	Stat        int        `col:"PKG_STAT,INTEGER" doc:"0 it is being filled, 2 it is full: on its way, or waiting for the one before. 1 does not occur: transactions are put in one after the other."`
}

// LogPkgStatRow is the row of V$RLOG_PKG_STAT. A nil pointer is NULL.
type LogPkgStatRow struct {
	FlushTo   int64    `col:"N_FLUSH_TO,BIGINT" doc:"Requests to flush: commits, and parts of large transactions."`
	FlushWait int64    `col:"N_FLUSH_WAIT,BIGINT" doc:"Waits of commits and readers until a package was in every log that has to have it."`
	Pushed    int64    `col:"N_PUSHED,BIGINT" doc:"Packages handed to the flusher."`
	CopyWait  int64    `col:"N_COPY_WAIT,BIGINT" doc:"Waits of parts of large transactions for room among what waits for the flusher."`
	ForCkpt   *int64   `col:"N_FOR_CKPT,BIGINT" doc:"NULL: a checkpoint writes no package; its place is in the header of the online log."`
	Discarded *int64   `col:"N_DISCARDED,BIGINT" doc:"NULL: the flusher discards none; one that cannot be sent is kept (Suspend) and sent again."`
	Flushed   int64    `col:"N_FLUSHED,BIGINT" doc:"Packages written to the online log, on a standby those of its primary."`
	Bytes     int64    `col:"BYTES_FLUSHED,BIGINT" doc:"Their length together, bytes."`
	AvgBytes  int64    `col:"PKG_AVG_BYTES,INTEGER" doc:"Their average length, bytes."`
	NextLSeq  base.Seq `col:"NEXT_SEQNO,BIGINT" doc:"Next local package number."`
	AllocWait int64    `col:"N_ALLOC_WAIT,BIGINT" doc:"Waits of commits for room in the redo buffer."`
	NextGSeq  base.Seq `col:"GLOBAL_NEXT_SEQNO,BIGINT" doc:"Next global package number."`
	AvgPtx    int64    `col:"PKG_AVG_PLL,INTEGER" doc:"How many transactions the packages written had on the average."`
	FlushList int      `col:"N_FLUSH_LST,INTEGER" doc:"Packages that are not in every log yet (V$RLOG_PKG)."`
}
