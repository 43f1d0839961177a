// Package dw builds the program dw: one command that makes, starts, watches,
// harms and stops a whole Datawatch system on one machine, every part its own
// process, exactly as an operator would set it up by hand (manual 7.1, 7.2).
//
// It owns the directory of such a system (its layout, its generated
// configuration files and the record dw.json) and the processes it started;
// it decides nothing about primaries and standbys, that is the watchers' and
// monitors' work.
package dw

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Offsets of the other ports from the SQL port of the same instance, so that
// several systems can run side by side with different -port.
const (
	malOffset    = 100
	instDWOffset = 200
	dwOffset     = 300
	adminOffset  = 400 // metrics of the server
	dwAdmin      = 500 // of the watcher
)

// recordVersion is the version of dw.json.
const recordVersion = 1

// Options are what `dw up` can be told.
type Options struct {
	Dir      string // directory of the system
	Standbys int    // 0 to 8
	Mode     string // auto or manual
	Monitors int    // 0 or 1 confirm monitor
	Port     int    // SQL port of the first database
	Archive  string // "" or realtime, or timely: when redo goes to the standbys
	Wait     string // ARCH_WAIT_APPLY, "0" or "1"; "": its default
	TLS      string // "" plain text, "cert" or "key": how links are protected
	Fast     bool   // short error times and small logs, for tests
	LogSize  int    // LOG_SIZE in MB; 0: 128, with Fast 64

	// Machines puts every database on a machine of its own: one entry for each.
	// Start then starts a process, by its name, on the machine where it belongs.
	// `dw up` has neither: everything is on loopback.
	Machines []Machine
	Start    func(process string, cmd *exec.Cmd) error
	// Configured may change the configuration files before they are first used.
	Configured func(*System) error
}

// Machine has the addresses of a machine with two network cards (manual
// 7.2.1), and the one under which dw itself reaches SQL port and watcher.
type Machine struct {
	Inner   string `json:"inner"` // MAL_HOST
	Outer   string `json:"outer"` // MAL_INST_HOST
	Console string `json:"console"`
}

// Database is one instance with its watcher.
type Database struct {
	Name   string `json:"name"`
	Port   int    `json:"port"`
	MAL    int    `json:"mal_port"`
	InstDW int    `json:"inst_dw_port"`
	DW     int    `json:"dw_port"`
	// Ports of /metrics, /healthz and /readyz; 0 in systems made before there were any.
	Admin   int `json:"admin_port,omitempty"`
	DWAdmin int `json:"dw_admin_port,omitempty"`
	// Where it is; nil: here, on loopback.
	Machine *Machine `json:"machine,omitempty"`
}

func (d Database) addrs() Machine {
	if d.Machine == nil {
		return Machine{Inner: loopback, Outer: loopback, Console: loopback}
	}
	return *d.Machine
}

// Host is the address for SQL clients.
func (d Database) Host() string { return d.addrs().Outer }

// ConsoleDW is where a monitor for people reaches its watcher.
func (d Database) ConsoleDW() string { return fmt.Sprintf("%s:%d", d.addrs().Console, d.DW) }

const loopback = "127.0.0.1"

// System is the record of a local system, saved as dw.json in its directory.
type System struct {
	Version  int        `json:"version"`
	Dir      string     `json:"dir"`
	Bin      string     `json:"bin"` // directory of the programs
	Group    string     `json:"group"`
	OGUID    uint32     `json:"oguid"`
	Mode     string     `json:"mode"`
	Monitors int        `json:"monitors"`
	Fast     bool       `json:"fast"`
	TLS      string     `json:"tls,omitempty"`        // "cert" or "key"; SQL clients must use TLS too
	Archive  string     `json:"archive,omitempty"`    // "TIMELY"; empty: REALTIME
	Wait     string     `json:"wait_apply,omitempty"` // ARCH_WAIT_APPLY; empty: its default
	DBs      []Database `json:"databases"`
	Ready    bool       `json:"ready"` // data and configuration are complete
	// Password of the administrator; "" the initial one, which is accepted on
	// loopback only.
	Secret string `json:"password,omitempty"`

	logSize    int                                       // Options.LogSize
	launch     func(process string, cmd *exec.Cmd) error // Options.Start
	configured func(*System) error
}

// newSystem lays out a system; nothing is written yet.
func newSystem(o Options, bin string) (*System, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("-dir %s: %w", o.Dir, err)
	}
	mode := strings.ToUpper(o.Mode)
	switch {
	case mode != "AUTO" && mode != "MANUAL":
		return nil, usageError{fmt.Errorf("-mode %s: must be auto or manual", o.Mode)}
	case o.Standbys < 0 || o.Standbys > 8:
		return nil, usageError{fmt.Errorf("-standbys %d: must be 0 to 8", o.Standbys)}
	case o.Monitors < 0 || o.Monitors > 1:
		return nil, usageError{fmt.Errorf("-monitors %d: must be 0 or 1", o.Monitors)}
	case o.Archive != "" && o.Archive != "realtime" && o.Archive != "timely":
		return nil, usageError{fmt.Errorf("-archive %s: must be realtime or timely", o.Archive)}
	case o.Wait != "" && o.Wait != "0" && o.Wait != "1":
		return nil, usageError{fmt.Errorf("-wait-apply %s: must be 0 or 1", o.Wait)}
	case o.TLS != "" && o.TLS != "cert" && o.TLS != "key":
		return nil, usageError{fmt.Errorf("-tls=%s: must be cert or key", o.TLS)}
	case o.Port < 1024 || o.Port+dwAdmin+o.Standbys > 65534:
		return nil, usageError{fmt.Errorf("-port %d: must be 1024 to %d", o.Port, 65534-dwAdmin-o.Standbys)}
	case o.Machines != nil && len(o.Machines) != o.Standbys+1:
		return nil, usageError{fmt.Errorf("%d machines for %d databases", len(o.Machines), o.Standbys+1)}
	}
	s := &System{Version: recordVersion, Dir: dir, Bin: bin, Group: "GRP1", OGUID: uint32(400000 + o.Port),
		Mode: mode, Monitors: o.Monitors, Fast: o.Fast, TLS: o.TLS, Wait: o.Wait, logSize: o.LogSize, launch: o.Start, configured: o.Configured}
	if o.Archive == "timely" {
		s.Archive = "TIMELY"
	}
	for i := 0; i <= o.Standbys; i++ {
		p := o.Port + i
		s.DBs = append(s.DBs, Database{Name: fmt.Sprintf("GRP1_RT_%02d", i+1), Port: p,
			MAL: p + malOffset, InstDW: p + instDWOffset, DW: p + dwOffset, Admin: p + adminOffset, DWAdmin: p + dwAdmin})
		if o.Machines != nil {
			s.DBs[i].Machine = &o.Machines[i]
		}
	}
	return s, nil
}

// Password is that of the administrator.
func (s *System) Password() string { return cmp.Or(s.Secret, defaultPassword) }

// errState says that the state of the directory forbids what was asked.
var errState = errors.New("refused")

// errUnhealthy is the exit of `dw status` when something is not as it should be.
var errUnhealthy = errors.New("not healthy")

// errNoSystem says that a directory holds no system.
var errNoSystem = errors.New("no system here yet; `dw up` makes one")

// loadSystem reads dw.json.
func loadSystem(dir string) (*System, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(abs, "dw.json")
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", abs, errNoSystem)
	} else if err != nil {
		return nil, err
	}
	var s System
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("%s: not a valid record: %w", path, err)
	}
	if s.Version != recordVersion {
		return nil, fmt.Errorf("%s: version %d, this program knows %d", path, s.Version, recordVersion)
	}
	s.Dir = abs // the directory may have been moved
	return &s, nil
}

func (s *System) save() error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	tmp := filepath.Join(s.Dir, "dw.json.new")
	if err := os.WriteFile(tmp, append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(s.Dir, "dw.json"))
}

func (s *System) program(name string) string      { return filepath.Join(s.Bin, name) }
func (s *System) dbDir(d Database) string         { return filepath.Join(s.Dir, d.Name, "DAMENG") }
func (s *System) ini(d Database, f string) string { return filepath.Join(s.dbDir(d), f) }
func (s *System) logFile(proc string) string      { return filepath.Join(s.Dir, "log", proc+".log") }
func (s *System) pidFile(proc string) string      { return filepath.Join(s.Dir, "pid", proc+".pid") }
func (s *System) monitorIni() string              { return filepath.Join(s.Dir, "MONITOR1", "dmmonitor.ini") }
func watcherName(d Database) string               { return "W_" + d.Name }

const monitorName = "MONITOR1"

// times are the intervals of a generated configuration, in seconds.
type times struct{ malCheck, malFail, dwError, instError, recover int }

func (s *System) times() times {
	if s.Fast {
		return times{malCheck: 1, malFail: 2, dwError: 3, instError: 3, recover: 3}
	}
	return times{malCheck: 3, malFail: 5, dwError: 6, instError: 6, recover: 10}
}

// files returns the configuration files of one database by name, as manual
// 7.2.3 and 7.2.4 write them. dm.ini is dminit's; see dmIniKeys.
func (s *System) files(d Database) map[string]string {
	t := s.times()
	var mal, arch, dw strings.Builder
	fmt.Fprintf(&mal, "# The same on every database of the group.\nMAL_CHECK_INTERVAL = %d\nMAL_CONN_FAIL_INTERVAL = %d\n", t.malCheck, t.malFail)
	if s.TLS != "" {
		fmt.Fprintf(&mal, "MAL_SSL_MODE = %s\nMAL_SSL_PATH = %s\n", strings.ToUpper(s.TLS), s.sslDir())
	} else if d.Machine != nil {
		mal.WriteString("MAL_SSL_MODE = OFF\n") // in plain text, although not on loopback
	}
	for i, x := range s.DBs {
		fmt.Fprintf(&mal, "\n[MAL_INST%d]\n  MAL_INST_NAME = %s\n  MAL_HOST = %s\n  MAL_PORT = %d\n  MAL_INST_HOST = %s\n  MAL_INST_PORT = %d\n  MAL_DW_PORT = %d\n  MAL_INST_DW_PORT = %d\n",
			i+1, x.Name, x.addrs().Inner, x.MAL, x.Host(), x.Port, x.DW, x.InstDW)
	}
	arch.WriteString("# Where this database sends its redo when it is the primary.\n")
	if s.Wait != "" {
		fmt.Fprintf(&arch, "ARCH_WAIT_APPLY = %s\n", s.Wait)
	}
	for i, x := range s.DBs {
		if x.Name != d.Name {
			typ := cmp.Or(s.Archive, "REALTIME")
			fmt.Fprintf(&arch, "\n[ARCHIVE_%s%d]\n  ARCH_TYPE = %s\n  ARCH_DEST = %s\n", typ, i+1, typ, x.Name)
		}
	}
	fmt.Fprintf(&arch, "\n[ARCHIVE_LOCAL1]\n  ARCH_TYPE = LOCAL\n  ARCH_DEST = %s\n  ARCH_FILE_SIZE = 128\n  ARCH_SPACE_LIMIT = 0\n", filepath.Join(s.dbDir(d), "arch"))
	if d.DWAdmin != 0 {
		fmt.Fprintf(&dw, "DW_ADMIN_PORT = %d\n\n", d.DWAdmin)
	}
	typ := "GLOBAL"
	if len(s.DBs) == 1 {
		typ = "LOCAL"
	}
	fmt.Fprintf(&dw, "[%s]\n  DW_TYPE = %s\n  DW_MODE = %s\n  DW_ERROR_TIME = %d\n  INST_ERROR_TIME = %d\n  INST_RECOVER_TIME = %d\n  INST_OGUID = %d\n  INST_INI = %s\n  INST_AUTO_RESTART = 1\n  INST_STARTUP_CMD = %s\n  DW_RECONNECT = 0\n",
		s.Group, typ, s.Mode, t.dwError, t.instError, t.recover, s.OGUID, s.ini(d, "dm.ini"), s.program("dmserver"))
	return map[string]string{"dmmal.ini": mal.String(), "dmarch.ini": arch.String(), "dmwatcher.ini": dw.String()}
}

// dmIniKeys are the changes to the dm.ini that dminit wrote (manual 7.2.3.1).
func (s *System) dmIniKeys(d Database) [][2]string {
	keys := [][2]string{
		{"INSTANCE_NAME", d.Name}, {"PORT_NUM", fmt.Sprint(d.Port)},
		{"DW_INACTIVE_INTERVAL", "60"}, {"ALTER_MODE_STATUS", "0"},
		{"MAL_INI", "1"}, {"ARCH_INI", "1"}, {"RLOG_SEND_APPLY_MON", "64"},
	}
	if d.Admin != 0 {
		keys = append(keys, [2]string{"ADMIN_PORT", fmt.Sprint(d.Admin)})
	}
	if d.Machine != nil {
		keys = append(keys, [2]string{"LISTEN_IP", d.Host()})
		if s.TLS == "" {
			keys = append(keys, [2]string{"SSL_REQUIRE", "NONE"})
		}
	}
	return keys
}

// monitorFile is the dmmonitor.ini of the confirm monitor (manual 7.2.5.1), or
// of a plain one for `dw status`.
func (s *System) monitorFile(confirm bool, logDir string) string {
	var b strings.Builder
	c, name := 0, plainMonitor
	if confirm {
		c, name = 1, monitorName
	}
	if s.TLS != "" {
		fmt.Fprintf(&b, "MON_SSL_MODE = %s\nMON_SSL_PATH = %s\nMON_SSL_NAME = %s\n", strings.ToUpper(s.TLS), s.sslDir(), name)
	} else if s.DBs[0].Machine != nil {
		b.WriteString("MON_SSL_MODE = OFF\n")
	}
	fmt.Fprintf(&b, "MON_DW_CONFIRM = %d\nMON_LOG_PATH = %s\nMON_LOG_INTERVAL = 60\nMON_LOG_FILE_SIZE = 32\nMON_LOG_SPACE_LIMIT = 0\n\n[%s]\n  MON_INST_OGUID = %d\n",
		c, logDir, s.Group, s.OGUID)
	for _, d := range s.DBs {
		fmt.Fprintf(&b, "  MON_DW_IP = %s:%d\n", d.addrs().Inner, d.DW)
	}
	return b.String()
}
