package cond

import (
	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
)

// Reach is how far the history of a database goes and by which open records. Of
// one that has rejoined and is not whole that is where its pages are from: its
// log ends before, but it can follow that history only.
func Reach(in proto.InstanceStatus) (base.Lineage, base.Position) {
	end := in.File
	if in.Mode == base.ModeStandby {
		end = in.Apply
	}
	if r := in.Rejoin; r != nil {
		return r.Lineage, r.Whole
	}
	return in.Lineage, end
}

// Surplus tells whether a database has redo that the primary is without, so that
// it is split from its group, and where the histories part.
func Surplus(in, primary proto.InstanceStatus) (fork, end base.Position, ok bool) {
	l, end := Reach(in)
	pl, pe := Reach(primary)
	fork, err := l.Fork(end, pl, pe)
	return fork, end, err == nil && fork.Less(end)
}

// Rejoin lists the conditions under which a split database rejoins its group by
// giving up the redo that the primary is without and fetching the pages which
// that touched (docs/decisions/0008). permit says who allowed it, "" nobody;
// refused why the instance cannot, as it said itself.
func Rejoin(in, primary proto.InstanceStatus, primaryOK bool, permit, refused string) List {
	var l List
	pn := primary.InstName
	l.Add(primaryOK && primary.Mode == base.ModePrimary && primary.Status == base.StatusOpen, "there is a new primary, Open",
		"%s is %s/%s, OK %v", pn, primary.Mode, primary.Status, primaryOK)
	l.Add(in.PmntMagic == primary.PmntMagic, "both are of one PERMANENT_MAGIC", "it is %v here, %v at %s", in.PmntMagic, primary.PmntMagic, pn)
	lin, end := Reach(in)
	pl, pe := Reach(primary)
	fork, err := lin.Fork(end, pl, pe)
	why := ""
	if err != nil {
		why = err.Error()
	}
	l.Add(err == nil, "the open histories say where they part", "%s", why)
	if err == nil {
		l.Add(fork.Less(end), "it has redo that the new primary is without", "the redo here ends at %s, and is that of %s up to %s", end, pn, fork)
	}
	whole := base.Position{}
	from := ""
	if in.Rejoin != nil {
		whole, from = in.Rejoin.Whole, in.Rejoin.Primary
	}
	l.Add(in.Rejoin == nil, "it is whole", "it has pages of %s as of %s from the rejoin before, and has not replayed up to there: rebuild it from a backup", from, whole)
	l.Add(refused == "", "the instance can", "it was tried: %s", refused)
	l.Add(permit != "", "it is allowed, by DW_REJOIN = 1 or by command", "DW_REJOIN is 0: set it, or give the command rejoin database")
	return l
}

// notWhole adds a condition that a standby which has rejoined does not meet.
func (l *List) notWhole(p Peer) {
	if r := p.Status.Inst.Rejoin; r != nil {
		l.Add(false, "the standby is whole", "%s rejoined with pages of %s and has not replayed up to %s", p.Inst(), r.Primary, r.Whole)
	}
}
