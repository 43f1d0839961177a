package config

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// Monitor is dmmonitor.ini (manual 5.5).
type Monitor struct {
	Source

	Confirm          bool          `ini:"MON_DW_CONFIRM"`
	LogPath          string        `ini:"MON_LOG_PATH"` // directory; that of the file when not given
	LogInterval      int           `ini:"MON_LOG_INTERVAL"`
	LogFileSize      int           `ini:"MON_LOG_FILE_SIZE"`   // MB
	LogSpaceLimit    int           `ini:"MON_LOG_SPACE_LIMIT"` // MB, 0 no limit
	TakeoverShutdown time.Duration `ini:"MON_TAKEOVER_SHUTDOWN"`
	MessageCheck     bool          `ini:"MON_MESSAGE_CHECK"`
	MID              int           `ini:"MON_MID"` // 0 when not given
	ID               int           `ini:"MON_ID"`  // 0 when not given
	InstNum          int           // MON_INST_NUM: 1, 3 or 5
	HBInterval       time.Duration `ini:"MON_HB_INTERVAL"`
	BroInterval      time.Duration `ini:"MON_BRO_INTERVAL"`
	VoteInterval     time.Duration `ini:"MON_VOTE_INTERVAL"`
	SSLMode          string        `ini:"MON_SSL_MODE"` // AUTO, OFF, CERT or KEY
	SSLPath          string        `ini:"MON_SSL_PATH"` // directory
	SSLName          string        `ini:"MON_SSL_NAME"`

	Groups []MonitorGroup // at least one
	Insts  []MonitorInst  // the monitors of a monitor system; empty for a single one
}

// MonitorGroup is one group of dmmonitor.ini.
type MonitorGroup struct {
	Name  string   // of the section
	OGUID uint32   `ini:"MON_INST_OGUID"`
	DWIP  []string `ini:"MON_DW_IP"` // as written, one per database
	// Watchers are the addresses of DWIP: one list per database, with one
	// address unless the database is a DSC cluster.
	Watchers [][]Addr
}

// MonitorInst is one monitor of a monitor system.
type MonitorInst struct {
	Name string // of the section
	ID   int    `ini:"MON_INST_ID"`
	Host string `ini:"MON_HOST"`
	Port int    `ini:"MON_PORT"`
}

// monitorKind tells group and monitor sections apart: the first item decides
// (manual 7.2.5.2).
func monitorKind(b block) string {
	for _, e := range b.entries {
		if p, ok := Lookup("dmmonitor.ini", e.Key); ok && p.Section != "" {
			return p.Section
		}
	}
	return "[GROUP_NAME]"
}

// ParseMonitor reads dmmonitor.ini; name is its path.
func ParseMonitor(name string, data []byte) (*Monitor, error) {
	r := &reading{}
	m := &Monitor{}
	for _, b := range r.open("dmmonitor.ini", name, data, monitorKind) {
		switch {
		case b.line == 0:
			r.fill(b, m)
		case b.kind == "[INST_NAME]":
			i := MonitorInst{Name: b.name}
			r.fill(b, &i)
			m.Insts = append(m.Insts, i)
		default:
			g := MonitorGroup{Name: b.name}
			r.fill(b, &g)
			for _, v := range g.DWIP {
				if a, err := ParseAddrs(v); err == nil {
					g.Watchers = append(g.Watchers, a)
				}
			}
			m.Groups = append(m.Groups, g)
		}
	}
	m.Source = *r.src
	if m.LogPath == "" {
		m.LogPath = filepath.Dir(name)
	}
	m.InstNum = 1
	if s, ok := m.Get("MON_INST_NUM"); ok {
		fmt.Sscanf(s.Value, "%d", &m.InstNum)
	}
	m.BroInterval = min(m.BroInterval, m.VoteInterval) // manual 7.2.5.2
	m.check(r)
	if err := r.errs.err(); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Monitor) check(r *reading) {
	if len(m.Groups) == 0 {
		r.fail(0, "", "", "", "no group is configured: a section [GROUP_NAME] is needed", "")
	}
	oguids, addrs := map[uint32]string{}, map[Addr]string{}
	for _, g := range m.Groups {
		if line := m.line(g.Name, "MON_INST_OGUID"); line > 0 {
			if other, dup := oguids[g.OGUID]; dup {
				r.fail(line, g.Name, "MON_INST_OGUID", fmt.Sprint(g.OGUID), "is also the number of group ["+other+"]", "")
			}
			oguids[g.OGUID] = g.Name
		}
		// One watcher may serve several groups, but not two databases of one.
		own := map[Addr]bool{}
		for _, db := range g.Watchers {
			for _, a := range db {
				if own[a] {
					r.fail(m.line(g.Name, "MON_DW_IP"), g.Name, "MON_DW_IP", a.String(), "is given twice", "")
				}
				own[a] = true
			}
		}
	}
	ids := map[int]string{}
	for _, i := range m.Insts {
		if i.ID > 0 {
			if other, dup := ids[i.ID]; dup {
				r.fail(m.line(i.Name, "MON_INST_ID"), i.Name, "MON_INST_ID", itoa(i.ID), "is also the number of ["+other+"]", "")
			}
			ids[i.ID] = i.Name
		}
		a := Addr{strings.ToUpper(i.Host), i.Port}
		if other, dup := addrs[a]; dup && i.Port > 0 {
			r.fail(m.line(i.Name, "MON_PORT"), i.Name, "MON_PORT", itoa(i.Port), "address is also that of ["+other+"]", "")
		}
		addrs[a] = i.Name
	}
	if len(m.Insts) == 0 && m.InstNum == 1 {
		return
	}
	if len(m.Insts) != m.InstNum {
		r.fail(m.line("", "MON_INST_NUM"), "", "MON_INST_NUM", itoa(m.InstNum), fmt.Sprintf("but %d monitor sections are configured", len(m.Insts)), "")
	}
	if _, ok := ids[m.ID]; !ok {
		r.fail(m.line("", "MON_ID"), "", "MON_ID", itoa(m.ID), "is not the MON_INST_ID of any monitor section", "")
	}
	if m.MID == 0 && m.InstNum > 1 {
		r.fail(0, "", "MON_MID", "", "is missing: several monitors need one", "1-2147483647")
	}
}
