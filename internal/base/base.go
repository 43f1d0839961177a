// Package base holds the words every layer shares: log positions, magic
// numbers, database modes and statuses, archive types and states, open records
// and errors with the manual's codes. It imports the standard library only and
// keeps no state. It keeps no guarantee itself; it makes the others writable.
package base

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// LSN numbers physical transactions (PTX): one PTX, one LSN, increasing by one
// (manual 2.2.5). 0 means "none".
type LSN uint64

// Seq is a package sequence number, global (GSEQ) or local (LSEQ) by context
// (manual 2.2.8). 0 means "none".
type Seq uint64

func (l LSN) String() string { return strconv.FormatUint(uint64(l), 10) }
func (s Seq) String() string { return strconv.FormatUint(uint64(s), 10) }

// Position is a place in the log: a package and the largest LSN in it.
type Position struct {
	Seq Seq `json:"seq"`
	LSN LSN `json:"lsn"`
}

// Less reports whether p lies before q. GSEQ decides; LSN breaks ties.
func (p Position) Less(q Position) bool {
	if p.Seq != q.Seq {
		return p.Seq < q.Seq
	}
	return p.LSN < q.LSN
}

// String has the form "GSEQ:LSN".
func (p Position) String() string { return fmt.Sprintf("%d:%d", p.Seq, p.LSN) }

// Magic identifies a database: PMNT_MAGIC is common to a group and never
// changes, DB_MAGIC differs per database (manual 2.2.11.3).
type Magic uint32

// String is the manual's spelling, 0x567891.
func (m Magic) String() string { return fmt.Sprintf("0x%x", uint32(m)) }

// Mode is the database mode (manual 2.2.3).
type Mode uint8

const (
	ModeNormal  Mode = 0
	ModePrimary Mode = 1
	ModeStandby Mode = 2
	ModeUnknown Mode = 255
)

func (m Mode) String() string {
	switch m {
	case ModeNormal:
		return "Normal"
	case ModePrimary:
		return "Primary"
	case ModeStandby:
		return "Standby"
	}
	return "Unknown"
}

// ParseMode accepts the names of String, case-insensitively.
func ParseMode(s string) (Mode, error) {
	for _, m := range []Mode{ModeNormal, ModePrimary, ModeStandby} {
		if strings.EqualFold(s, m.String()) {
			return m, nil
		}
	}
	return ModeUnknown, fmt.Errorf("unknown database mode %q (Normal, Primary or Standby)", s)
}

// MarshalText and UnmarshalText make modes readable in control messages.
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }
func (m *Mode) UnmarshalText(b []byte) error {
	if string(b) == "Unknown" {
		*m = ModeUnknown
		return nil
	}
	v, err := ParseMode(string(b))
	*m = v
	return err
}

// Status is the database status (manual 2.2.4).
type Status uint8

const (
	StatusStartup Status = iota + 1
	StatusAfterRedo
	StatusOpen
	StatusMount
	StatusSuspend
	StatusShutdown
)

var statusNames = [...]string{"Unknown", "Startup", "After Redo", "Open", "Mount", "Suspend", "Shutdown"}

func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return "Unknown"
}
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
func (s *Status) UnmarshalText(b []byte) error {
	for i, n := range statusNames {
		if strings.EqualFold(n, string(b)) {
			*s = Status(i)
			return nil
		}
	}
	return fmt.Errorf("unknown database status %q", b)
}

// ArchType is the type of an archive (manual 2.2.11).
type ArchType uint8

const (
	ArchLocal ArchType = iota + 1
	ArchRemote
	ArchRealtime
	ArchTimely
	ArchAsync
)

var archTypeNames = [...]string{"NONE", "LOCAL", "REMOTE", "REALTIME", "TIMELY", "ASYNC"}

func (t ArchType) String() string {
	if int(t) < len(archTypeNames) {
		return archTypeNames[t]
	}
	return "NONE"
}
func (t ArchType) MarshalText() ([]byte, error) { return []byte(t.String()), nil }
func (t *ArchType) UnmarshalText(b []byte) error {
	for i, n := range archTypeNames {
		if strings.EqualFold(n, string(b)) {
			*t = ArchType(i)
			return nil
		}
	}
	return fmt.Errorf("unknown archive type %q", b)
}

// ArchState is the state of an archive (manual 2.2.11.8).
type ArchState uint8

const (
	ArchUnknown ArchState = iota
	ArchValid
	ArchInvalid
)

func (s ArchState) String() string { return [...]string{"Unknown", "Valid", "Invalid"}[min(s, 2)] }
func (s ArchState) MarshalText() ([]byte, error) {
	return []byte(s.String()), nil
}
func (s *ArchState) UnmarshalText(b []byte) error {
	switch strings.ToLower(string(b)) {
	case "valid":
		*s = ArchValid
	case "invalid":
		*s = ArchInvalid
	case "unknown", "":
		*s = ArchUnknown
	default:
		return fmt.Errorf("unknown archive state %q", b)
	}
	return nil
}

// MaxOpenRecords is how many open records a database keeps, used cyclically
// (manual 3.6).
const MaxOpenRecords = 128

// OpenRecord is one row of SYSOPENHISTORY: written, as the first redo of its
// reign, each time a Primary or Normal database opens (manual 3.6, 4.4 #10).
// The list of them is the lineage of a database. TGUID makes records
// comparable: two records are the same record when their TGUIDs are equal.
type OpenRecord struct {
	ID         uint64    `json:"id"`    // ordinal, from 1, never reused
	TGUID      string    `json:"tguid"` // random, 32 hex digits
	OpenTime   time.Time `json:"open_time"`
	SysMode    Mode      `json:"sys_mode"`
	SrcDBMagic Magic     `json:"src_db_magic"` // DB_MAGIC of the database that wrote the redo before this opening
	DBMagic    Magic     `json:"db_magic"`     // DB_MAGIC of the database that opened
	CurInst    string    `json:"cur_inst"`     // the instance that did the opening
	// Apply is the position before this opening, by node (length 1 today):
	// APPLY_LSN_ARR and PKG_SEQNO_ARR of the manual.
	Apply []Position `json:"apply"`
}
