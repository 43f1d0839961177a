package config

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"datawatch/internal/base"
)

// Instance is everything that configures one database: dm.ini and, where it
// switches them on, dmmal.ini and dmarch.ini from CONFIG_PATH.
type Instance struct {
	DM   *DM
	MAL  *MAL     // nil when MAL_INI = 0
	Arch *Arch    // nil when ARCH_INI = 0
	Self MALEntry // this instance's entry of dmmal.ini; zero without MAL
	// DWPort is the port for the watcher: MAL_INST_DW_PORT or DW_PORT (manual
	// 5.7); 0 when neither is given.
	DWPort int
}

// Warnings lists what the files set in vain; see Source.Warnings.
func (i *Instance) Warnings() []string {
	out := i.DM.Warnings()
	if i.MAL != nil {
		out = append(out, i.MAL.Warnings()...)
	}
	if i.Arch != nil {
		out = append(out, i.Arch.Warnings()...)
	}
	return out
}

// NotEffective lists the parameters of all files that are set and not yet
// effective.
func (i *Instance) NotEffective() []Setting {
	out := i.DM.NotEffective()
	if i.MAL != nil {
		out = append(out, i.MAL.NotEffective()...)
	}
	if i.Arch != nil {
		out = append(out, i.Arch.NotEffective()...)
	}
	return out
}

// LoadInstance reads dm.ini and the files it refers to and checks them against
// each other (manual 5.7).
func LoadInstance(dmIni string) (*Instance, error) { return LoadInstanceFrom(ReadOS, dmIni) }

// LoadInstanceFrom is LoadInstance with another way to read files.
func LoadInstanceFrom(read ReadFunc, dmIni string) (*Instance, error) {
	dm, err := load(read, dmIni, ParseDM)
	if err != nil {
		return nil, err
	}
	inst := &Instance{DM: dm}
	var errs Errors
	var other error // a file that cannot be read at all
	get := func(sw, file string, parse func(path string) error) {
		path := filepath.Join(dm.ConfigPath, file)
		err := parse(path)
		var es Errors
		switch {
		case err == nil:
		case errors.As(err, &es):
			errs = append(errs, es...)
		case errors.Is(err, fs.ErrNotExist):
			errs = append(errs, &Error{File: dmIni, Line: dm.line("", sw), Key: sw, Value: "1", Msg: "but " + path + " does not exist"})
		default:
			other = errors.Join(other, err)
		}
	}
	if dm.MALIni {
		get("MAL_INI", "dmmal.ini", func(p string) (err error) { inst.MAL, err = load(read, p, ParseMAL); return err })
	}
	if dm.ArchIni {
		get("ARCH_INI", "dmarch.ini", func(p string) (err error) { inst.Arch, err = load(read, p, ParseArch); return err })
	}
	if other != nil {
		return nil, other
	}
	if inst.MAL != nil {
		errs = append(errs, inst.checkMAL()...)
	}
	if inst.Arch != nil {
		errs = append(errs, inst.checkArch()...)
	}
	if inst.DWPort == 0 {
		inst.DWPort = dm.DWPort
	}
	if err := errs.err(); err != nil {
		return nil, err
	}
	return inst, nil
}

// checkMAL compares dm.ini with this instance's entry of dmmal.ini.
func (i *Instance) checkMAL() (errs Errors) {
	dm, mal := i.DM, i.MAL
	self, ok := mal.Entry(dm.InstanceName)
	if !ok {
		return append(errs, &Error{File: mal.Path, Key: "MAL_INST_NAME", Msg: "no section has INSTANCE_NAME " + dm.InstanceName + " of " + dm.Path})
	}
	i.Self, i.DWPort = self, self.InstDWPort
	at := func(key, value, msg string) {
		errs = append(errs, &Error{File: mal.Path, Line: mal.line(self.Name, key), Section: self.Name, Key: key, Value: value, Msg: msg})
	}
	if self.InstPort != 0 && self.InstPort != dm.PortNum {
		at("MAL_INST_PORT", itoa(self.InstPort), fmt.Sprintf("differs from PORT_NUM = %d of %s", dm.PortNum, dm.Path))
	}
	if self.InstHost != "" && dm.ListenIP != "" && !equalFold(self.InstHost, dm.ListenIP) {
		at("MAL_INST_HOST", self.InstHost, fmt.Sprintf("differs from LISTEN_IP = %s of %s", dm.ListenIP, dm.Path))
	}
	if self.InstDWPort != 0 && dm.DWPort != 0 && self.InstDWPort != dm.DWPort {
		at("MAL_INST_DW_PORT", itoa(self.InstDWPort), fmt.Sprintf("differs from DW_PORT = %d of %s", dm.DWPort, dm.Path))
	}
	for _, p := range []struct {
		key  string
		port int
	}{{"MAL_PORT", self.Port}, {"MAL_DW_PORT", self.DWPort}, {"MAL_INST_DW_PORT", self.InstDWPort}} {
		if p.port == dm.PortNum {
			at(p.key, itoa(p.port), "equals PORT_NUM of "+dm.Path)
		}
		if p.port == dm.DWPort && p.port != 0 && p.key != "MAL_INST_DW_PORT" {
			at(p.key, itoa(p.port), "equals DW_PORT of "+dm.Path)
		}
	}
	return errs
}

// checkArch compares the targets of dmarch.ini with dmmal.ini.
func (i *Instance) checkArch() (errs Errors) {
	local := false
	for _, e := range i.Arch.Entries {
		at := func(key, value, msg string) {
			errs = append(errs, &Error{File: i.Arch.Path, Line: i.Arch.line(e.Name, key), Section: e.Name, Key: key, Value: value, Msg: msg})
		}
		if e.Type == base.ArchLocal {
			local = true
			continue
		}
		if !i.DM.MALIni {
			at("ARCH_TYPE", e.Type.String(), "needs MAL_INI = 1 in "+i.DM.Path)
		}
		for _, t := range e.Targets() {
			if strings.EqualFold(t, i.DM.InstanceName) {
				at("ARCH_DEST", t, "is this instance itself")
			} else if i.MAL != nil {
				if _, ok := i.MAL.Entry(t); !ok {
					at("ARCH_DEST", t, "is not an instance of "+i.MAL.Path)
				}
			}
		}
	}
	if !local {
		errs = append(errs, &Error{File: i.Arch.Path, Key: "ARCH_TYPE", Msg: "no LOCAL archive is configured: standbys could never catch up (manual 7.1)"})
	}
	return errs
}

// LoadWatcherAll reads dmwatcher.ini and, for each of its groups, the instance
// of INST_INI; the instances are in the order of the groups.
func LoadWatcherAll(path string) (*Watcher, []*Instance, error) {
	return LoadWatcherFrom(ReadOS, path)
}

// LoadWatcherFrom is LoadWatcherAll with another way to read files.
func LoadWatcherFrom(read ReadFunc, path string) (*Watcher, []*Instance, error) {
	w, err := load(read, path, ParseWatcher)
	if err != nil {
		return nil, nil, err
	}
	var errs Errors
	insts := make([]*Instance, len(w.Groups))
	for n, g := range w.Groups {
		at := func(key, value, msg string) {
			errs = append(errs, &Error{File: path, Line: w.line(g.Name, key), Section: g.Name, Key: key, Value: value, Msg: msg})
		}
		inst, err := LoadInstanceFrom(read, g.InstIni)
		var es Errors
		switch {
		case err == nil:
		case errors.As(err, &es):
			errs = append(errs, es...)
			continue
		default:
			at("INST_INI", g.InstIni, err.Error())
			continue
		}
		insts[n] = inst
		if inst.DWPort == 0 {
			at("INST_INI", g.InstIni, "instance has no port for its watcher: MAL_INST_DW_PORT in dmmal.ini (or DW_PORT in dm.ini) is needed")
		}
		if g.Type != "GLOBAL" {
			continue
		}
		if inst.MAL == nil || inst.Arch == nil {
			at("DW_TYPE", g.Type, "needs MAL_INI = 1 and ARCH_INI = 1 in "+inst.DM.Path)
			continue
		}
		if len(inst.Arch.OfType(base.ArchRealtime))+len(inst.Arch.OfType(base.ArchTimely)) == 0 {
			at("DW_TYPE", g.Type, "needs a REALTIME or TIMELY archive in "+inst.Arch.Path)
		}
		for _, e := range inst.MAL.Entries {
			if e.DWPort == 0 {
				errs = append(errs, &Error{File: inst.MAL.Path, Section: e.Name, Key: "MAL_DW_PORT", Msg: "is missing: a GLOBAL watcher must be reachable"})
			}
		}
	}
	if err := errs.err(); err != nil {
		return nil, nil, err
	}
	return w, insts, nil
}

// CheckMonitor compares dmmonitor.ini with the group it watches: the OGUID and
// one MON_DW_IP for every watcher of dmmal.ini (manual 5.7).
func CheckMonitor(m *Monitor, g WatcherGroup, mal *MAL) error {
	var errs Errors
	fail := func(line int, section, key, value, msg string) {
		errs = append(errs, &Error{File: m.Path, Line: line, Section: section, Key: key, Value: value, Msg: msg})
	}
	for _, mg := range m.Groups {
		if !equalFold(mg.Name, g.Name) {
			continue
		}
		if mg.OGUID != g.OGUID {
			fail(m.line(mg.Name, "MON_INST_OGUID"), mg.Name, "MON_INST_OGUID", fmt.Sprint(mg.OGUID), fmt.Sprintf("differs from INST_OGUID = %d of the group's watchers", g.OGUID))
		}
		have := map[string]bool{}
		for _, db := range mg.Watchers {
			for _, a := range db {
				have[upper(a.String())] = true
			}
		}
		for _, e := range mal.Entries {
			if a := (Addr{e.Host, e.DWPort}); e.DWPort != 0 && !have[upper(a.String())] {
				fail(m.line(mg.Name, "MON_DW_IP"), mg.Name, "MON_DW_IP", "", "lacks "+a.String()+", the watcher of "+e.InstName)
			}
		}
		return errs.err()
	}
	fail(0, g.Name, "", "", "group is not configured")
	return errs.err()
}
