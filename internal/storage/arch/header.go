package arch

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/storage/twin"
)

// fileKind identifies archive files.
var fileKind = twin.Kind{Magic: [8]byte{'D', 'W', 'A', 'R', 'C', 'H', 0, 0}, Version: 1}

const (
	headerLen = 96

	flagStandby = 1 << 0 // written by a standby
	flagClosed  = 1 << 1 // nothing will be added
)

// header is the payload of the header block of an archive file.
type header struct {
	pmnt, db, src base.Magic
	node          uint16
	flags         uint16
	created       int64 // Unix nanoseconds
	closed        int64 // 0 while flagClosed is not set
	first         base.Seq
	firstLSN      base.LSN
	prevLSN       base.LSN
	// The last package known to be on disk when the header was written; on an
	// open file more may follow. last is first-1 when there is none.
	last     base.Seq
	lastLSN  base.LSN
	end      int64 // offset behind it
	lastOff  int64 // offset of it
	lastTime int64 // Unix nanoseconds
}

func (h *header) marshal() []byte {
	b := make([]byte, headerLen)
	le := binary.LittleEndian
	le.PutUint32(b[0:], uint32(h.pmnt))
	le.PutUint32(b[4:], uint32(h.db))
	le.PutUint32(b[8:], uint32(h.src))
	le.PutUint16(b[12:], h.node)
	le.PutUint16(b[14:], h.flags)
	le.PutUint64(b[16:], uint64(h.created))
	le.PutUint64(b[24:], uint64(h.closed))
	le.PutUint64(b[32:], uint64(h.first))
	le.PutUint64(b[40:], uint64(h.firstLSN))
	le.PutUint64(b[48:], uint64(h.prevLSN))
	le.PutUint64(b[56:], uint64(h.last))
	le.PutUint64(b[64:], uint64(h.lastLSN))
	le.PutUint64(b[72:], uint64(h.end))
	le.PutUint64(b[80:], uint64(h.lastOff))
	le.PutUint64(b[88:], uint64(h.lastTime))
	return b
}

func (h *header) unmarshal(b []byte) error {
	if len(b) != headerLen {
		return fmt.Errorf("%w: header of %d bytes, %d expected", ErrDamaged, len(b), headerLen)
	}
	le := binary.LittleEndian
	*h = header{
		pmnt: base.Magic(le.Uint32(b[0:])), db: base.Magic(le.Uint32(b[4:])), src: base.Magic(le.Uint32(b[8:])),
		node: le.Uint16(b[12:]), flags: le.Uint16(b[14:]), created: int64(le.Uint64(b[16:])), closed: int64(le.Uint64(b[24:])),
		first: base.Seq(le.Uint64(b[32:])), firstLSN: base.LSN(le.Uint64(b[40:])), prevLSN: base.LSN(le.Uint64(b[48:])),
		last: base.Seq(le.Uint64(b[56:])), lastLSN: base.LSN(le.Uint64(b[64:])), end: int64(le.Uint64(b[72:])),
		lastOff: int64(le.Uint64(b[80:])), lastTime: int64(le.Uint64(b[88:])),
	}
	empty := h.last+1 == h.first
	switch {
	case h.flags&^(flagStandby|flagClosed) != 0:
		return fmt.Errorf("%w: unknown flags %#x", ErrVersion, h.flags)
	case h.first == 0 || h.last+1 < h.first || h.last+1 == 0:
		return fmt.Errorf("%w: packages %d to %d", ErrDamaged, h.first, h.last)
	case h.end < twin.Size || h.lastOff < twin.Size || h.lastOff > h.end || empty != (h.end == twin.Size):
		return fmt.Errorf("%w: packages %d to %d end at offset %d, the last begins at %d", ErrDamaged, h.first, h.last, h.end, h.lastOff)
	}
	return nil
}

func (h *header) isClosed() bool { return h.flags&flagClosed != 0 }

// StandbyName is the name part of the files that a standby writes; it cannot
// be the name of an archive (manual 2.2.11.3).
const StandbyName = "STANDBY_ARCHIVE"

// fileName is the manual's form, ARCHIVE_LOCAL1_0x567891[0]_2019-03-20_10-35-34.log:
// name, DB_MAGIC of the database that produced the redo, its node, and when the
// file was made.
func fileName(name string, src base.Magic, node uint16, created time.Time) string {
	return fmt.Sprintf("%s_%v[%d]_%s.log", name, src, node, created.Format("2006-01-02_15-04-05"))
}

var namePattern = regexp.MustCompile(`^.+_0x[0-9a-f]{1,8}\[\d{1,5}\]_\d{4}-\d{2}-\d{2}_\d{2}-\d{2}-\d{2}\.log$`)
