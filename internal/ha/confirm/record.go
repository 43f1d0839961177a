package confirm

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"sort"
	"time"

	"datawatch/internal/base"
)

// RecordVersion is the newest file format this package reads and writes.
const RecordVersion = 1

// Record is what a confirm monitor must not forget about one group.
type Record struct {
	// Term numbers the decisions, from 1; it never repeats.
	Term uint64 `json:"term"`
	// Seen is the newest reign an open primary was seen with when the record
	// was last written.
	Seen uint64 `json:"seen"`
	// Dropped lists standbys a granted Failover may have cut off, by name.
	Dropped []Drop `json:"dropped,omitempty"`
	// Taken is the newest granted takeover, nil when there was none.
	Taken *Taken `json:"taken,omitempty"`
}

// Drop is a granted Failover, one per standby.
type Drop struct {
	Inst    string `json:"inst"`
	Primary string `json:"primary"`
	Reign   uint64 `json:"reign"`
	Term    uint64 `json:"term"`
	// AskInc and AskSeq identify the watcher's report in the request; only later
	// reports may lift the exclusion.
	AskInc string `json:"ask_incarnation"`
	AskSeq uint64 `json:"ask_seq"`
}

// Taken is a granted takeover of a reign.
type Taken struct {
	Reign      uint64        `json:"reign"`
	OldPrimary string        `json:"old_primary"`
	Candidate  string        `json:"candidate"`
	Term       uint64        `json:"term"`
	MinKeep    base.Position `json:"min_keep"`
	Manual     bool          `json:"manual,omitempty"` // by command rather than by decision
	Time       time.Time     `json:"time"`
}

func (r Record) clone() Record {
	r.Dropped = append([]Drop(nil), r.Dropped...)
	if r.Taken != nil {
		t := *r.Taken
		r.Taken = &t
	}
	return r
}

func (r Record) dropped(inst string) (Drop, bool) {
	for _, d := range r.Dropped {
		if d.Inst == inst {
			return d, true
		}
	}
	return Drop{}, false
}

// withDrop adds or replaces the entry of d.Inst; the list stays sorted.
func (r Record) withDrop(d Drop) Record {
	r = r.without(d.Inst)
	r.Dropped = append(r.Dropped, d)
	sort.Slice(r.Dropped, func(i, j int) bool { return r.Dropped[i].Inst < r.Dropped[j].Inst })
	return r
}

func (r Record) without(inst string) Record {
	r = r.clone()
	out := r.Dropped[:0]
	for _, d := range r.Dropped {
		if d.Inst != inst {
			out = append(out, d)
		}
	}
	r.Dropped = out
	return r
}

type fileBody struct {
	Group  string `json:"group"`
	OGUID  uint32 `json:"oguid"`
	Record Record `json:"record"`
}

type fileFrame struct {
	Version int             `json:"version"`
	CRC32C  string          `json:"crc32c"` // of Body's bytes, 8 hex digits
	Body    json.RawMessage `json:"body"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode makes the bytes of a record file:
// {"version":1,"crc32c":"<8 hex digits>","body":{"group":..,"oguid":..,"record":..}}
// where the checksum covers the bytes of body as written.
func Encode(group string, oguid uint32, r Record) ([]byte, error) {
	body, err := json.Marshal(fileBody{group, oguid, r})
	if err != nil {
		return nil, fmt.Errorf("encoding the record of group %s: %w", group, err)
	}
	return json.Marshal(fileFrame{RecordVersion, fmt.Sprintf("%08x", crc32.Checksum(body, castagnoli)), body})
}

// Decode reads what Encode wrote and refuses newer versions, damage, and the
// record of another group (G8, G9).
func Decode(b []byte, group string, oguid uint32) (Record, error) {
	var f fileFrame
	if err := json.Unmarshal(b, &f); err != nil {
		return Record{}, fmt.Errorf("record file is damaged: %w", err)
	}
	if f.Version < 1 || f.Version > RecordVersion {
		return Record{}, fmt.Errorf("record file has version %d; this program reads 1 to %d", f.Version, RecordVersion)
	}
	if s := fmt.Sprintf("%08x", crc32.Checksum(f.Body, castagnoli)); s != f.CRC32C {
		return Record{}, fmt.Errorf("record file is damaged: checksum %s, computed %s", f.CRC32C, s)
	}
	var body fileBody
	if err := json.Unmarshal(f.Body, &body); err != nil {
		return Record{}, fmt.Errorf("record file is damaged: %w", err)
	}
	if body.Group != group || body.OGUID != oguid {
		return Record{}, fmt.Errorf("record file belongs to group %s, OGUID %d, not to %s, %d", body.Group, body.OGUID, group, oguid)
	}
	return body.Record, nil
}
