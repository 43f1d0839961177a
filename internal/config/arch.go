package config

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"datawatch/internal/base"
)

// Arch is dmarch.ini (manual 5.3).
type Arch struct {
	Source

	WaitApply   bool          // ARCH_WAIT_APPLY, or its default for the archives that are configured
	ReserveTime time.Duration `ini:"ARCH_RESERVE_TIME"` // 0 for ever
	LocalShare  bool          `ini:"ARCH_LOCAL_SHARE"`

	Entries []ArchEntry // in the order of the file
}

// ArchEntry is one archive of dmarch.ini.
type ArchEntry struct {
	Name         string        // of the section
	Type         base.ArchType `ini:"ARCH_TYPE"`
	Dest         string        `ini:"ARCH_DEST"`           // directory when LOCAL, else instance names joined by "/"
	FileSize     int64         `ini:"ARCH_FILE_SIZE"`      // MB
	SpaceLimit   int64         `ini:"ARCH_SPACE_LIMIT"`    // MB, 0 no limit
	FlushBufSize int           `ini:"ARCH_FLUSH_BUF_SIZE"` // MB, 0 off
	TimerName    string        `ini:"ARCH_TIMER_NAME"`
	IncomingPath string        `ini:"ARCH_INCOMING_PATH"`
	SendDelay    time.Duration `ini:"ARCH_SEND_DELAY"`
}

// Targets are the instance names of ARCH_DEST; nil for a LOCAL archive.
func (e ArchEntry) Targets() []string {
	if e.Type == base.ArchLocal || e.Dest == "" {
		return nil
	}
	var out []string
	for _, t := range strings.Split(e.Dest, "/") {
		out = append(out, strings.Trim(t, blanks))
	}
	return out
}

// OfType lists the archives of one type.
func (a *Arch) OfType(t base.ArchType) []ArchEntry {
	var out []ArchEntry
	for _, e := range a.Entries {
		if e.Type == t {
			out = append(out, e)
		}
	}
	return out
}

// Local is the first local archive.
func (a *Arch) Local() (ArchEntry, bool) {
	if l := a.OfType(base.ArchLocal); len(l) > 0 {
		return l[0], true
	}
	return ArchEntry{}, false
}

// standbyArchive is the name of what standbys archive (manual 2.2.11.3).
const standbyArchive = "STANDBY_ARCHIVE"

// maxTargets is the number of realtime, of timely and of async standbys that a
// database may have (manual 2.2.11, 2.6, 2.8).
const maxTargets = 8

// ParseArch reads dmarch.ini; name is its path.
func ParseArch(name string, data []byte) (*Arch, error) {
	r := &reading{}
	a := &Arch{}
	for _, b := range r.open("dmarch.ini", name, data, func(block) string { return "[ARCH_NAME]" }) {
		if b.line == 0 {
			r.fill(b, a)
			continue
		}
		if strings.EqualFold(b.name, standbyArchive) {
			r.fail(b.line, b.name, "", "", "section name is taken by what standbys archive", "any other name")
		}
		e := ArchEntry{Name: b.name}
		r.fill(b, &e)
		if e.Type == base.ArchLocal && e.Dest != "" && !filepath.IsAbs(e.Dest) {
			e.Dest = filepath.Join(r.dir, e.Dest)
		}
		a.Entries = append(a.Entries, e)
	}
	a.Source = *r.src
	a.check(r)
	if err := r.errs.err(); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *Arch) check(r *reading) {
	if s, _ := a.Get("ARCH_WAIT_APPLY"); s.Set && s.Value != "" {
		a.WaitApply = s.Value == "1"
	} else {
		a.WaitApply = len(a.OfType(base.ArchTimely)) > 0
	}
	count := map[base.ArchType]int{}
	dests := map[string]string{}
	for _, e := range a.Entries {
		at := func(key, value, msg string) { r.fail(a.line(e.Name, key), e.Name, key, value, msg, "") }
		count[e.Type]++
		switch e.Type {
		case base.ArchRealtime, base.ArchTimely, base.ArchAsync:
			if count[e.Type] > maxTargets {
				at("ARCH_TYPE", e.Type.String(), fmt.Sprintf("more than %d archives of this type", maxTargets))
			}
		}
		for _, t := range e.Targets() {
			if e := checkName(t); e != "" {
				at("ARCH_DEST", t, "instance name "+e)
			}
		}
		if e.Dest != "" {
			id := strings.ToUpper(e.Dest)
			if e.Type == base.ArchLocal {
				id = filepath.Clean(e.Dest)
			}
			if other, dup := dests[id]; dup {
				at("ARCH_DEST", e.Dest, "is also the target of ["+other+"]")
			}
			dests[id] = e.Name
		}
		if e.Type == base.ArchRemote && e.IncomingPath == "" {
			at("ARCH_INCOMING_PATH", "", "is needed by a REMOTE archive")
		}
		if e.Type == base.ArchAsync && e.TimerName == "" {
			at("ARCH_TIMER_NAME", "", "is needed by an ASYNC archive")
		}
	}
	if count[base.ArchRealtime] > 0 && count[base.ArchTimely] > 0 {
		for _, e := range a.OfType(base.ArchTimely) {
			r.fail(a.line(e.Name, "ARCH_TYPE"), e.Name, "ARCH_TYPE", "TIMELY", "cannot be combined with REALTIME archives (manual 7.3)", "")
		}
	}
}
