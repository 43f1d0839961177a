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
		"	if k := r.kept; k != nil && r.frozen {\n		r.kept = nil\n		r.push(k)\n", "	if k := r.kept; k != nil && r.frozen {\n		r.kept = nil\n		if !on() {\n			r.push(k)\n		}\n"},
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
}

// Behind are those of Commits that stand behind another rule, which a life hardly
// ever gets around; who notices instead is their own package.
var Behind = map[string]string{
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
