package fsm

import (
	"fmt"

	"datawatch/internal/base"
	"datawatch/internal/ha/cond"
	"datawatch/internal/ha/proto"
)

// Verdict says how a remote database stands to the local one (manual 3.6).
type Verdict uint8

const (
	// RemoteJoins: the remote can be a standby of the local database.
	RemoteJoins Verdict = iota
	// LocalJoins: the local database can be a standby of the remote.
	LocalJoins
	// EitherJoins: their open records and positions are equal.
	EitherJoins
	// Split: no redo makes them equal.
	Split
	// Unknown: nothing is known of one of them.
	Unknown
)

func (v Verdict) String() string {
	return [...]string{"remote can join", "local can join", "equal", "split", "unknown"}[min(v, 4)]
}

// end is how far a database's own log reaches: what Apply means on a standby
// and File on a primary.
func end(in proto.InstanceStatus) base.Position {
	if in.Mode == base.ModeStandby {
		return in.Apply
	}
	return in.File
}

// reach makes of a database that has rejoined and is not whole what it can join:
// the history that its pages are of.
func reach(in proto.InstanceStatus) proto.InstanceStatus {
	if in.Rejoin != nil {
		l, end := cond.Reach(in)
		in.Lineage, in.File, in.Apply = l, end, end
	}
	return in
}

func running(in proto.InstanceStatus, ok bool) bool {
	return ok && in.Mode == base.ModePrimary && (in.Status == base.StatusOpen || in.Status == base.StatusSuspend)
}

// Judge compares two databases: the open records first, then mode, state and
// whether they are OK, then the positions (manual 3.6). The text is evidence.
func Judge(local, remote proto.InstanceStatus, localOK, remoteOK bool) (Verdict, string) {
	if remote.Incarnation == "" || local.Incarnation == "" {
		return Unknown, "its database has not been heard of"
	}
	if local.PmntMagic != 0 && remote.PmntMagic != 0 && local.PmntMagic != remote.PmntMagic {
		return Split, fmt.Sprintf("permanent magic %s against %s: they are different databases", local.PmntMagic, remote.PmntMagic)
	}
	local, remote = reach(local), reach(remote)
	rel, n := local.Lineage.Compare(remote.Lineage)
	switch rel {
	case base.Equal:
		switch lr, rr := running(local, localOK), running(remote, remoteOK); {
		case lr && !rr:
			return RemoteJoins, "equal open records, the local database is the running primary"
		case rr && !lr:
			return LocalJoins, "equal open records, the remote database is the running primary"
		}
		return byPosition(local, remote)
	case base.RemoteContained:
		at, ok := forkPosition(local.Lineage, n)
		if !ok {
			return Split, "the open records after the common ones are gone"
		}
		if at.Less(end(remote)) {
			return Split, fmt.Sprintf("remote open records are contained, but its log reaches %s beyond %s where the local ones go on", end(remote), at)
		}
		return RemoteJoins, fmt.Sprintf("remote open records are contained, its log reaches %s, the local ones go on at %s", end(remote), at)
	case base.LocalContained:
		at, ok := forkPosition(remote.Lineage, n)
		if !ok {
			return Split, "the open records after the common ones are gone"
		}
		if at.Less(end(local)) {
			return Split, fmt.Sprintf("local open records are contained, but the log reaches %s beyond %s where the remote ones go on", end(local), at)
		}
		return LocalJoins, fmt.Sprintf("local open records are contained, the log reaches %s, the remote ones go on at %s", end(local), at)
	}
	return Split, "the open records have forked"
}

// byPosition chooses among databases with equal open records none of which
// (or both of which) run as primary.
func byPosition(local, remote proto.InstanceStatus) (Verdict, string) {
	le, re := end(local), end(remote)
	text := fmt.Sprintf("equal open records, local log at %s, remote at %s", le, re)
	lp, rp := local.Mode == base.ModePrimary, remote.Mode == base.ModePrimary
	switch {
	case lp && !rp:
		if le.Less(re) {
			return Split, text + ": the standby is beyond the primary"
		}
		return RemoteJoins, text
	case rp && !lp:
		if re.Less(le) {
			return Split, text + ": the standby is beyond the primary"
		}
		return LocalJoins, text
	case re.Less(le):
		return RemoteJoins, text
	case le.Less(re):
		return LocalJoins, text
	}
	return EitherJoins, text
}

// prefix reports whether the log of a is a part of that of b, whatever their
// modes: b's log goes on where a's ends. Equal logs are prefixes of each other.
func prefix(a, b proto.InstanceStatus) bool {
	if a.PmntMagic != 0 && b.PmntMagic != 0 && a.PmntMagic != b.PmntMagic {
		return false
	}
	a, b = reach(a), reach(b)
	rel, n := a.Lineage.Compare(b.Lineage)
	switch rel {
	case base.Equal:
		return !end(b).Less(end(a))
	case base.LocalContained:
		at, ok := forkPosition(b.Lineage, n)
		return ok && !at.Less(end(a))
	}
	return false
}

// goesFirst chooses between databases with equal logs: the one that made the
// last opening, or the first by name.
func goesFirst(a, b proto.InstanceStatus) bool {
	last := a.Lineage.Last().CurInst
	if (a.InstName == last) != (b.InstName == last) {
		return a.InstName == last
	}
	return a.InstName < b.InstName
}

// forkPosition is the position recorded by the first of the last n records.
func forkPosition(l base.Lineage, n int) (base.Position, bool) {
	if n <= 0 || n > len(l) {
		return base.Position{}, false
	}
	r := l[len(l)-n]
	if len(r.Apply) == 0 {
		return base.Position{}, false
	}
	return r.Apply[0], true
}

// judge compares our database with that of n.
func (x *m) judge(n string) (Verdict, string) {
	return Judge(x.In.Status, x.remote(n).LastInst, x.In.OK, x.instOK(n, x.now))
}

// answers: the remote watcher was heard lately and can be asked now.
// A watcher that has not heard its own instance yet cannot answer for it.
func (x *m) answers(n string) bool {
	r := x.remote(n)
	return x.alive(n, x.now) && r.Link && r.Status.Inst.Incarnation != ""
}

// newerReign names a database that is known, dead or alive, to have opened
// after ours; "" when there is none. Ours must not go on as primary.
func (x *m) newerReign() string {
	for _, n := range x.names() {
		li := x.remote(n).LastInst
		if li.Incarnation == "" {
			continue
		}
		// The record of our own opening, which we have not hardened yet, is no reign
		// of another.
		if rel, _ := x.In.Status.Lineage.Compare(li.Lineage); rel == base.LocalContained && li.Lineage.Last().CurInst != x.Cfg.Name {
			return n
		}
	}
	return ""
}

// commandElsewhere names a live remote that is in the hands of a command or a
// takeover; "" when there is none.
func (x *m) commandElsewhere() string {
	for _, n := range x.names() {
		if !x.alive(n, x.now) {
			continue
		}
		st := x.remote(n).Status
		if st.Cmd != nil {
			return fmt.Sprintf("the watcher of %s serves command %s", n, st.Cmd.Kind)
		}
		if w, ok := stateOf(st.State); ok && (w == Takeover || w == Switchover || w == OpenForce) {
			return fmt.Sprintf("the watcher of %s is in state %s", n, st.State)
		}
	}
	return ""
}

// outranked returns a live remote primary that our database must give way to:
// Open, of a lineage that contains ours and goes on (or, in Mount, one that is
// the better of two primaries of equal lineage). split tells that we cannot
// even join it.
func (x *m) outranked() (name string, split bool, why string) {
	in := x.In.Status
	for _, n := range x.names() {
		if !x.instOK(n, x.now) {
			continue
		}
		ri := x.remote(n).Status.Inst
		if ri.Mode != base.ModePrimary {
			continue
		}
		v, text := x.judge(n)
		open := ri.Status == base.StatusOpen || ri.Status == base.StatusSuspend
		switch v {
		case LocalJoins:
			rel, _ := in.Lineage.Compare(ri.Lineage)
			if in.Mode == base.ModeStandby {
				continue
			}
			if open || rel == base.LocalContained || !running(in, x.In.OK) {
				return n, false, n + " is " + ri.Mode.String() + "/" + ri.Status.String() + ": " + text
			}
		case EitherJoins:
			// Both are Primary in Mount: the one that was being switched to
			// goes on, the one that made the last opening gives way; among
			// others that mean to lead, the first by name goes on.
			last := in.Lineage.Last().CurInst
			if in.Mode == base.ModePrimary && in.Status == base.StatusMount && ri.InstName != last &&
				(in.InstName == last || ri.InstName < in.InstName) {
				return n, false, n + " is Primary too: " + text
			}
		case Split:
			if open && ri.Status == base.StatusOpen {
				return n, true, n + " is Primary/Open: " + text
			}
			if rel, _ := in.Lineage.Compare(ri.Lineage); rel == base.LocalContained && running(in, x.In.OK) {
				return n, false, n + " has opened after it: " + text
			}
		}
	}
	return "", false, ""
}
