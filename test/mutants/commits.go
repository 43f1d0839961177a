package mutants

// Commits are rules of the life of a commit, which no model of the decisions can
// show: the lives of whole clusters have to notice (test/cluster).
var Commits = []Mutant{
	{"acknowledged before the standby has it", "storage/engine/flush.go",
		"			return e.sendFailed(\"realtime archive\", p.pkg, err)\n", "			if !on() {\n				return e.sendFailed(\"realtime archive\", p.pkg, err)\n			}\n"},
	{"acknowledged before it is on disk", "storage/rlog/rlog.go",
		"		if touched[i] {\n", "		if touched[i] && !on() {\n"},
	{"a reader sees what is not hardened", "storage/pagestore/handle.go",
		"			h.snap = s.pin(s.hard)\n", "			if on() {\n				h.snap = s.pin(s.newest)\n			} else {\n				h.snap = s.pin(s.hard)\n			}\n"},
	{"a takeover forgets the kept package", "repl/standby/control.go",
		"	if k := r.kept; k != nil {\n		r.kept = nil\n		r.push(k)\n", "	if k := r.kept; k != nil {\n		r.kept = nil\n		if !on() {\n			r.push(k)\n		}\n"},
	{"a standby replays what it should keep", "repl/standby/standby.go",
		"	if h.Kind == mal.KindRealtime {\n		r.kept = first\n", "	if h.Kind == mal.KindRealtime && on() {\n		r.push(first)\n		return true, nil\n	}\n	if h.Kind == mal.KindRealtime {\n		r.kept = first\n"},
	{"a takeover replays the kept package before it waits", "repl/standby/control.go",
		"	r.frozen = true\n	r.mu.Unlock()\n	if err := r.Drain(ctx); err != nil {\n		return fmt.Errorf(\"replay what is queued", "	r.frozen = true\n	if k := r.kept; k != nil && on() {\n		r.kept = nil\n		r.push(k)\n	}\n	r.mu.Unlock()\n	if err := r.Drain(ctx); err != nil {\n		return fmt.Errorf(\"replay what is queued"},
	{"a package is kept that shall be dropped", "repl/standby/control.go",
		"	r.kept, r.frozen = nil, false\n	r.setClaim(Claim{})\n", "	if r.frozen = false; !on() {\n		r.kept = nil\n	}\n	r.setClaim(Claim{})\n"},
	{"a standby does not compare histories", "repl/standby/standby.go",
		"	case p.OpenID == t.id && guid == t.guid:\n		return nil\n", "	case p.OpenID == t.id && (guid == t.guid || on()):\n		return nil\n"},
	{"an archive becomes Invalid and the standby is not told", "repl/ship/state.go",
		"			err = s.tellInvalid(ctx, t)\n", "			if !on() {\n				err = s.tellInvalid(ctx, t)\n			}\n"},
	{"the confirm monitor writes nothing down", "ha/monitor/store.go",
		"	path := filepath.Join(s.dir, recordName(group))\n	tmp", "	if on() {\n		return nil\n	}\n	path := filepath.Join(s.dir, recordName(group))\n	tmp"},
	{"a commit is acknowledged after the lease", "repl/ship/lease.go",
		"passed(t.leased, now) >= standby.Lease\n", "passed(t.leased, now) >= standby.Lease && !on()\n"},
	{"a takeover does not wait for the end of the promise", "repl/standby/promise.go",
		"	if p.at.IsZero() || left <= 0 ||", "	if on() || p.at.IsZero() || left <= 0 ||"},
	{"redo of a recovery is acknowledged before it is logged", "repl/standby/apply.go",
		"w.logged && w.seq <= r.logged {", "w.logged && (on() || w.seq <= r.logged) {"},
	{"a takeover goes on although redo is taken again", "repl/standby/control.go",
		"	if !r.frozen { // what", "	if !r.frozen && !on() { // what"},
	{"an error of a replay is passed over", "repl/standby/apply.go",
		"		if b.err != nil {\n", "		if b.err != nil && !on() {\n"},
	{"a replay counts before the archive has it", "storage/engine/foreign.go",
		"	if aerr := <-archived; err == nil", "	var aerr error\n	if !on() {\n		aerr = <-archived\n	}\n	if err == nil"},
	{"an open record counts before its package is replayed", "storage/engine/flush.go",
		"	for _, r := range e.logged[:opens] {\n", "	if on() {\n		opens = len(e.logged)\n	}\n	for _, r := range e.logged[:opens] {\n"},
	{"the mode changes beside packages that are being logged", "storage/engine/status.go",
		"	e.fmu.Lock() // packages of another database are replayed before its mode changes, and an open record follows\n	defer e.fmu.Unlock()\n",
		"	if !on() {\n		e.fmu.Lock()\n		defer e.fmu.Unlock()\n	}\n"},
	{"a checkpoint writes what is not hardened", "storage/pagestore/checkpoint.go",
		"	h := s.pin(s.hard)\n", "	st := s.hard\n	if on() {\n		st = s.newest\n	}\n	h := s.pin(st)\n"},
	{"a checkpoint gives up what the archive may be without", "storage/engine/flush.go",
		"		if err := e.arch.Sync(); err != nil {\n			return fmt.Errorf(\"checkpoint", "		if on() {\n			// not\n		} else if err := e.arch.Sync(); err != nil {\n			return fmt.Errorf(\"checkpoint"},
	{"pages are written over without a copy", "storage/pagestore/checkpoint.go",
		"	if err := s.dw.save(pages, h.lsn); err != nil {\n", "	if on() {\n		// not\n	} else if err := s.dw.save(pages, h.lsn); err != nil {\n"},
	{"torn pages are not repaired", "storage/pagestore/doublewrite.go",
		"	h := make([]byte, dwHeader)\n	if _, err := d.f.ReadAt(h, 0)", "	h := make([]byte, dwHeader)\n	if on() {\n		return nil\n	}\n	if _, err := d.f.ReadAt(h, 0)"},
}

// Behind are those of Commits that stand behind another rule, which a life hardly
// ever gets around; who notices instead is their own package.
var Behind = map[string]string{
	// DW_ERROR_TIME, 3 s at least, passes before most takeovers anyway: a life has to
	// freeze the primary, or cut it off, within milliseconds.
	"a commit is acknowledged after the lease":            "repl/ship",
	"a takeover does not wait for the end of the promise": "repl/standby",
	// The packages' own tests cut the power at every write and sync, or know every
	// state; a life has to be unlucky.
	"redo of a recovery is acknowledged before it is logged": "repl/standby",
	"a checkpoint gives up what the archive may be without":  "storage/engine",
	"pages are written over without a copy":                  "storage/engine",
	"torn pages are not repaired":                            "storage/engine",
	// The database halts, or one more rule stands behind it.
	"a takeover goes on although redo is taken again":        "repl/standby",
	"an error of a replay is passed over":                    "repl/standby",
	"a replay counts before the archive has it":              "storage/engine",
	"an open record counts before its package is replayed":   "storage/engine",
	"the mode changes beside packages that are being logged": "storage/engine",
	// A standby that is taking over is about to be primary itself: only a takeover that
	// is given up at that moment shows it.
	"a takeover replays the kept package before it waits": "repl/standby",
	// A package that opens a reign in the place of the kept one drops it too (standby,
	// accept), and every primary begins with such a package.
	"a package is kept that shall be dropped": "repl/standby",
	// Two openings of one number are a fork, and whoever has one is Split before
	// anything is sent to it (fsm, Judge).
	"a standby does not compare histories": "repl/standby",
	// A confirm monitor that was restarted decides nothing before it has heard the
	// primary, which says itself what it has gone on without (confirm, fresh): only an
	// older report that is still under way gets around that.
	"the confirm monitor writes nothing down": "ha/monitor",
}
