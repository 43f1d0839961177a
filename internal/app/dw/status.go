package dw

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"datawatch/dwmon"

	"github.com/jedib0t/go-pretty/v6/table"
)

// ProcStatus is one process of a system, as `dw status -json` prints it.
type ProcStatus struct {
	Name    string `json:"name"`
	Kind    string `json:"kind"` // server, watcher or monitor
	PID     int    `json:"pid"`  // 0 when it does not run
	Ports   []int  `json:"ports,omitempty"`
	Mode    string `json:"mode,omitempty"`
	Status  string `json:"status,omitempty"`
	Watcher string `json:"watcher,omitempty"` // watcher state
	Archive string `json:"archive,omitempty"` // archive state towards this database
	LSN     uint64 `json:"lsn,omitempty"`     // newest LSN it has on disk
	Lag     int64  `json:"lag"`               // LSNs behind the primary
	Why     string `json:"why,omitempty"`     // what it waits for
}

// SystemStatus is the whole answer of `dw status`.
type SystemStatus struct {
	Dir       string       `json:"dir"`
	Healthy   bool         `json:"healthy"`
	Why       string       `json:"why,omitempty"` // why it is not
	Processes []ProcStatus `json:"processes"`
	// Of certificates that end soon or have ended, and what to type.
	Certificates []string `json:"certificates,omitempty"`
}

// monitor opens a short-lived monitor on the system's watchers.
func (s *System) monitor(ctx context.Context) (*dwmon.Monitor, error) {
	g := dwmon.Group{Name: s.Group, OGUID: s.OGUID}
	for _, d := range s.DBs {
		g.Addrs = append(g.Addrs, d.ConsoleDW())
	}
	return dwmon.Open(ctx, dwmon.Config{Groups: []dwmon.Group{g}, TLS: s.MonitorTLS()})
}

// Status asks the watchers once.
func (s *System) Status(ctx context.Context) (SystemStatus, error) {
	st := SystemStatus{Dir: s.Dir}
	var snap *dwmon.GroupSnapshot
	ended := false
	if s.anyRunning(kindWatcher) {
		m, err := s.monitor(ctx)
		if err != nil {
			return st, err
		}
		defer m.Close()
		wctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		_ = m.WaitReady(wctx) // a dead watcher is simply not reported
		cancel()
		snap = group(m.Snapshot())
		st.Certificates, ended = m.Endings()
	}
	s.fill(&st, snap)
	if ended {
		st.Healthy = false
		st.Why = strings.TrimPrefix(st.Why+"; a certificate has expired", "; ")
	}
	return st, nil
}

func group(s dwmon.Snapshot) *dwmon.GroupSnapshot {
	if len(s.Groups) == 0 {
		return nil
	}
	return &s.Groups[0]
}

// fill joins processes and what the watchers report, and judges health.
func (s *System) fill(st *SystemStatus, g *dwmon.GroupSnapshot) {
	byName := map[string]dwmon.DatabaseSnapshot{}
	var head uint64
	if g != nil {
		for _, d := range g.Databases {
			byName[d.Name] = d
			if d.Mode == "Primary" {
				head = max(head, uint64(d.File.LSN))
			}
		}
	}
	var bad []string
	primaries := 0
	for _, p := range s.processes() {
		ps := ProcStatus{Name: p.name, Kind: string(p.kind), PID: s.pid(p)}
		if ps.PID == 0 {
			bad = append(bad, p.name+" does not run")
		}
		d, known := byName[p.db.Name]
		switch p.kind {
		case kindServer:
			ps.Ports = withPort([]int{p.db.Port, p.db.MAL, p.db.InstDW}, p.db.Admin)
			if !known {
				bad = append(bad, p.name+" is not reported by its watcher")
				break
			}
			ps.Mode, ps.Status, ps.Archive, ps.LSN = d.Mode, d.Status, d.RStat, uint64(d.File.LSN)
			if d.Mode == "Standby" && head > 0 {
				ps.LSN = uint64(d.Keep.LSN)
				ps.Lag = max(0, int64(head)-int64(d.Keep.LSN))
			}
			if d.Mode == "Primary" && d.Status == "Open" {
				primaries++
			}
			if !strings.EqualFold(d.InstOK, "OK") || d.Status != "Open" {
				bad = append(bad, strings.TrimSuffix(fmt.Sprintf("%s is %s (%s): %s", p.name, d.Status, d.InstOK, d.Suspended), ": "))
			}
			if d.Silent > 0 {
				bad = append(bad, fmt.Sprintf("%s has been silent for %d s", p.name, d.Silent))
			}
			if !strings.EqualFold(d.RStat, "Valid") && !strings.EqualFold(d.WType, "LOCAL") {
				bad = append(bad, fmt.Sprintf("the archive to %s is %s", p.name, d.RStat))
			}
		case kindWatcher:
			ps.Ports = withPort([]int{p.db.DW}, p.db.DWAdmin)
			if known {
				ps.Watcher, ps.Why = d.WStatus, strings.Join(d.Why, "; ")
				if !strings.EqualFold(d.WStatus, "OPEN") {
					bad = append(bad, fmt.Sprintf("%s is in state %s", p.name, d.WStatus))
				}
			}
		case kindMonitor:
			if g != nil && !confirmSeen(*g) && s.Mode == "AUTO" {
				bad = append(bad, "no confirm monitor is connected to every watcher")
			}
		}
		st.Processes = append(st.Processes, ps)
	}
	if g != nil && primaries != 1 {
		bad = append(bad, fmt.Sprintf("%d databases are Primary and Open", primaries))
	}
	st.Healthy, st.Why = len(bad) == 0, strings.Join(bad, "; ")
	if !slices.ContainsFunc(st.Processes, func(p ProcStatus) bool { return p.PID != 0 }) {
		st.Why = "nothing runs; `dw up` starts it"
	}
}

// confirmSeen reports whether every watcher has a confirm monitor.
func confirmSeen(g dwmon.GroupSnapshot) bool {
	for _, d := range g.Databases {
		ok := false
		for _, m := range d.Monitors {
			ok = ok || m.Confirm
		}
		if !ok {
			return false
		}
	}
	return true
}

// WaitHealthy waits until exactly one primary is open, everything runs, every
// watcher is in state Open and every archive is Valid. The error says what was
// missing last.
func (s *System) WaitHealthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 120*time.Second)
	defer cancel()
	m, err := s.monitor(ctx)
	if err != nil {
		return err
	}
	defer m.Close()
	return poll(ctx, 50*time.Millisecond, func() (bool, string) {
		var st SystemStatus
		s.fill(&st, group(m.Snapshot()))
		return st.Healthy, fmt.Sprintf("a healthy system: %s (logs in %s)", st.Why, filepath.Join(s.Dir, "log"))
	})
}

func printStatus(out io.Writer, st SystemStatus) {
	t := table.NewWriter()
	t.SetOutputMirror(out)
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"name", "kind", "pid", "ports", "mode", "status", "watcher", "archive", "lsn", "lag"})
	for _, p := range st.Processes {
		ports := make([]string, len(p.Ports))
		for i, n := range p.Ports {
			ports[i] = fmt.Sprint(n)
		}
		pid, lsn, lag := "-", "", ""
		if p.PID != 0 {
			pid = fmt.Sprint(p.PID)
		}
		if p.LSN != 0 {
			lsn = fmt.Sprint(p.LSN)
		}
		if p.Mode == "Standby" {
			lag = fmt.Sprint(p.Lag)
		}
		t.AppendRow(table.Row{p.Name, p.Kind, pid, strings.Join(ports, " "), p.Mode, p.Status, p.Watcher, p.Archive, lsn, lag})
	}
	t.Render()
	defer func() {
		for _, l := range st.Certificates {
			fmt.Fprintln(out, "  "+l)
		}
	}()
	if st.Healthy {
		fmt.Fprintln(out, "healthy")
		return
	}
	fmt.Fprintf(out, "not healthy: %s\n", st.Why)
	for _, p := range st.Processes {
		if p.Why != "" {
			fmt.Fprintf(out, "  %s: %s\n", p.Name, p.Why)
		}
	}
}

// stopGroup has the watchers stop the group in order (manual 6.4).
func (s *System) stopGroup(ctx context.Context) error {
	return s.withLogin(ctx, func(m *dwmon.Monitor) error { return m.StopGroup(ctx, s.Group) })
}

func (s *System) withLogin(ctx context.Context, f func(*dwmon.Monitor) error) error {
	m, err := s.monitor(ctx)
	if err != nil {
		return err
	}
	defer m.Close()
	wctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	_ = m.WaitReady(wctx)
	cancel()
	if err := m.Login(ctx, defaultUser, s.Password()); err != nil {
		return err
	}
	return f(m)
}

// stopOne ends one process. A database is stopped through its watcher, which
// would start it again otherwise; a standby is detached first (manual 6.18).
func (s *System) stopOne(ctx context.Context, p process, out io.Writer) error {
	if p.kind != kindServer || s.pid(process{watcherName(p.db), kindWatcher, p.db}) == 0 {
		if err := s.stop(ctx, p); err != nil {
			return err
		}
		fmt.Fprintf(out, "%s is stopped\n", p.name)
		return nil
	}
	err := s.withLogin(ctx, func(m *dwmon.Monitor) error {
		if g := group(m.Snapshot()); g != nil && g.Primary != "" && !strings.EqualFold(g.Primary, p.name) {
			if err := m.Detach(ctx, s.Group, p.name); err != nil {
				return err
			}
		}
		return m.StopDatabase(ctx, s.Group, p.name)
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s is stopped; its watcher leaves it alone until `dw start %s`\n", p.name, p.name)
	return nil
}

func (s *System) startOne(ctx context.Context, p process, out io.Writer) error {
	if p.kind != kindServer || s.pid(process{watcherName(p.db), kindWatcher, p.db}) == 0 {
		if err := s.start(p); err != nil {
			return err
		}
		if p.kind == kindServer {
			if err := s.waitServer(ctx, p); err != nil {
				return err
			}
		}
		fmt.Fprintf(out, "%s is started\n", p.name)
		return nil
	}
	err := s.withLoginOrNot(ctx, func(m *dwmon.Monitor) error {
		// INST_AUTO_RESTART is on: turning the guarding on again starts it.
		// Code 100: it is on already, and the watcher starts it by itself.
		if err := m.StartupWatch(ctx, s.Group, p.name); err != nil && dwmon.CodeOf(err) != 100 {
			return err
		}
		if g := group(m.Snapshot()); g != nil && g.Primary != "" && !strings.EqualFold(g.Primary, p.name) && m.LoggedIn() != "" {
			return m.Attach(ctx, s.Group, p.name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := s.waitServer(ctx, p); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s is started\n", p.name)
	return nil
}

// withLoginOrNot logs in when some database can check the password.
func (s *System) withLoginOrNot(ctx context.Context, f func(*dwmon.Monitor) error) error {
	m, err := s.monitor(ctx)
	if err != nil {
		return err
	}
	defer m.Close()
	wctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	_ = m.WaitReady(wctx)
	cancel()
	_ = m.Login(ctx, defaultUser, s.Password())
	return f(m)
}

// MonitorIni makes the configuration of a monitor for people, on a machine of
// the inner network, and returns its path.
func (s *System) MonitorIni() string { return s.plainMonitorIni() }

// plainMonitorIni makes the configuration of a monitor for people and returns
// its path.
func (s *System) plainMonitorIni() string {
	dir := filepath.Join(s.Dir, "monitor")
	path := filepath.Join(dir, "dmmonitor.ini")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return s.monitorIni()
	}
	if err := os.WriteFile(path, []byte(s.monitorFile(false, dir)), 0o644); err != nil {
		return s.monitorIni()
	}
	return path
}

func versionLine() string {
	v := dwmon.Version
	if b, ok := debug.ReadBuildInfo(); ok {
		v += " (" + b.GoVersion + ")"
	}
	return "dw, for " + v
}

// withPort adds a port, if there is one.
func withPort(ports []int, p int) []int {
	if p == 0 {
		return ports
	}
	return append(ports, p)
}
