package base

import "fmt"

// Lineage is a database's open history, oldest first, at most MaxOpenRecords.
type Lineage []OpenRecord

// Relation says how a remote lineage stands to a local one (manual 3.6).
type Relation uint8

const (
	Equal           Relation = iota // the same records
	RemoteContained                 // remote is a proper prefix of local
	LocalContained                  // local is a proper prefix of remote
	Forked                          // neither contains the other
)

func (r Relation) String() string {
	return [...]string{"equal", "remote contained in local", "local contained in remote", "forked"}[min(r, 3)]
}

// Compare relates remote to local and returns the number of records of the
// longer list that lie beyond the common part. Records are matched by ID and
// TGUID, so lists from which old records were dropped (the 128 limit) compare
// by what both still have; lists with no record in common are Forked unless
// one of them is empty.
func (local Lineage) Compare(remote Lineage) (Relation, int) {
	if len(local) == 0 && len(remote) == 0 {
		return Equal, 0
	}
	if len(remote) == 0 {
		if local[0].ID > 1 {
			return Forked, 0
		}
		return RemoteContained, len(local)
	}
	if len(local) == 0 {
		if remote[0].ID > 1 {
			return Forked, 0
		}
		return LocalContained, len(remote)
	}
	if len(local) == len(remote) && &local[0] == &remote[0] {
		return Equal, 0
	}
	common := uint64(0)
	for i, j := 0, 0; i < len(local) && j < len(remote); {
		switch l, r := &local[i], &remote[j]; {
		case l.ID < r.ID:
			i++
		case l.ID > r.ID:
			j++
		case l.TGUID != r.TGUID:
			return Forked, 0
		default:
			common = l.ID
			i, j = i+1, j+1
		}
	}
	if common == 0 {
		return Forked, 0
	}
	ll, lr := local[len(local)-1].ID, remote[len(remote)-1].ID
	switch {
	case ll == lr:
		return Equal, 0
	case ll > lr:
		if common != lr {
			return Forked, 0
		}
		return RemoteContained, int(ll - lr)
	default:
		if common != ll {
			return Forked, 0
		}
		return LocalContained, int(lr - ll)
	}
}

// Last returns the newest record, or a zero record for an empty lineage.
func (l Lineage) Last() OpenRecord {
	if len(l) == 0 {
		return OpenRecord{}
	}
	return l[len(l)-1]
}

// Append returns the lineage with r added and the oldest records dropped
// beyond MaxOpenRecords. The receiver is not changed.
func (l Lineage) Append(r OpenRecord) Lineage {
	out := append(append(Lineage(nil), l...), r)
	if len(out) > MaxOpenRecords {
		out = out[len(out)-MaxOpenRecords:]
	}
	return out
}

// Common returns the ID of the last record that both lists have, 0 for none.
// Records of equal ID but another TGUID end what is in common.
func (local Lineage) Common(remote Lineage) (id uint64) {
	at := make(map[uint64]string, len(local))
	for _, r := range local {
		at[r.ID] = r.TGUID
	}
	for _, r := range remote {
		g, ok := at[r.ID]
		switch {
		case ok && g != r.TGUID:
			return id
		case ok:
			id = r.ID
		}
	}
	return id
}

// Fork returns where two histories part: the last position that both have, when
// local reaches localEnd and remote reaches remoteEnd, by the open records alone.
// The error says why they cannot tell.
func (local Lineage) Fork(localEnd Position, remote Lineage, remoteEnd Position) (Position, error) {
	id := local.Common(remote)
	if id == 0 {
		return Position{}, fmt.Errorf("the open histories have no record in common")
	}
	var begun Position // where the last common reign began
	for _, r := range local {
		if r.ID == id && len(r.Apply) == 1 {
			begun = r.Apply[0]
		}
	}
	a, err := local.leaves(id, localEnd)
	if err != nil {
		return Position{}, err
	}
	b, err := remote.leaves(id, remoteEnd)
	if err != nil {
		return Position{}, err
	}
	if b.Less(a) {
		a = b
	}
	if !begun.Less(a) {
		return Position{}, fmt.Errorf("open record %d was written at %v, and the histories would part at %v", id, begun, a)
	}
	return a, nil
}

// leaves is where the reign with this ID ends.
func (l Lineage) leaves(id uint64, end Position) (Position, error) {
	for _, r := range l {
		if r.ID <= id {
			continue
		}
		if r.ID != id+1 || len(r.Apply) != 1 {
			return Position{}, fmt.Errorf("open record %d does not say where reign %d ended", r.ID, id)
		}
		return r.Apply[0], nil
	}
	return end, nil
}
