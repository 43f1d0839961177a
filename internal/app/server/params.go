package server

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"datawatch/internal/config"
	"datawatch/internal/sql/views"
	"datawatch/internal/vfs"
)

// params are the values of dm.ini in memory and the way to change them
// (SP_SET_PARA_VALUE). Dynamic ones take effect at once, others at the next
// start.
type params struct {
	fs   vfs.FS
	path string

	mu   sync.Mutex
	mem  map[string]string // by upper-case name
	file map[string]string // as in the file; missing when it does not name it
	all  []config.Setting
}

func newParams(dm *config.DM, fs vfs.FS) *params {
	p := &params{fs: fs, path: dm.Path, mem: map[string]string{}, file: map[string]string{}, all: dm.Settings}
	for _, s := range dm.Settings {
		n := strings.ToUpper(s.Param.Name)
		p.mem[n] = s.Value
		if s.Set {
			p.file[n] = s.Value
		}
	}
	return p
}

func (p *params) get(name string) (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	v, ok := p.mem[strings.ToUpper(name)]
	return v, ok
}

func (p *params) bool(name string) bool {
	v, _ := p.get(name)
	return v == "1"
}

// duration reads a parameter in seconds; the values have been checked.
func (p *params) duration(name string) time.Duration {
	v, _ := p.get(name)
	var n int64
	_, _ = fmt.Sscan(v, &n)
	return time.Duration(n) * time.Second
}

// set changes a parameter: scope 0 memory, 1 memory and file, 2 file.
func (p *params) set(scope int, name, value string) error {
	par, ok := config.Lookup("dm.ini", name)
	if !ok {
		return fmt.Errorf("unknown parameter %q of dm.ini", name)
	}
	if value == "" { // ALTER SYSTEM RESET
		value = par.Default
	}
	if e := par.Check(value); e != nil {
		e.File = p.path
		return e
	}
	if scope < 0 || scope > 2 {
		return fmt.Errorf("scope %d: must be 0 (memory), 1 (memory and file) or 2 (file)", scope)
	}
	if scope != 2 && !par.Dynamic {
		return fmt.Errorf("%s is static: only scope 2 (the file, in effect after a restart) is possible", par.Name)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	n := strings.ToUpper(par.Name)
	if scope != 0 {
		if err := config.SetParam(p.fs, p.path, "dm.ini", "", par.Name, value); err != nil {
			return err
		}
		p.file[n] = value
	}
	if scope != 2 {
		p.mem[n] = value
	}
	return nil
}

func (p *params) rows() []views.ParameterRow {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []views.ParameterRow
	for _, s := range p.all {
		n := strings.ToUpper(s.Param.Name)
		typ := "IN FILE"
		if s.Param.Dynamic {
			typ = "SYS"
		}
		out = append(out, views.ParameterRow{Name: s.Param.Name, Type: typ, Value: p.mem[n], SysValue: p.mem[n], FileVal: p.file[n],
			Default: s.Param.Default, Doc: s.Param.Doc})
	}
	return out
}
