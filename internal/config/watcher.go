package config

import (
	"fmt"
	"strings"
	"time"
)

// Watcher is dmwatcher.ini (manual 5.4).
type Watcher struct {
	Source
	LogFileSize   int64          `ini:"DW_LOG_FILE_SIZE"`   // MB
	LogSpaceLimit int64          `ini:"DW_LOG_SPACE_LIMIT"` // MB, 0 no limit
	AdminPort     int            `ini:"DW_ADMIN_PORT"`      // 0 not served
	AdminIP       string         `ini:"DW_ADMIN_IP"`
	Groups        []WatcherGroup // in the order of the file, at least one
}

// WatcherGroup is one group of dmwatcher.ini.
type WatcherGroup struct {
	Name               string        // of the section
	Type               string        `ini:"DW_TYPE"` // LOCAL or GLOBAL
	Mode               string        `ini:"DW_MODE"` // MANUAL or AUTO
	DWErrorTime        time.Duration `ini:"DW_ERROR_TIME"`
	InstErrorTime      time.Duration `ini:"INST_ERROR_TIME"`
	OGUID              uint32        `ini:"INST_OGUID"`
	InstIni            string        `ini:"INST_INI"`
	DCRIni             string        `ini:"DCR_INI"`
	AutoRestart        bool          `ini:"INST_AUTO_RESTART"`
	StartupCmd         string        `ini:"INST_STARTUP_CMD"`
	RecoverTime        time.Duration `ini:"INST_RECOVER_TIME"` // as written; below 3 s acts as 3 s
	ServiceIPCheck     bool          `ini:"INST_SERVICE_IP_CHECK"`
	RlogSendThreshold  time.Duration `ini:"RLOG_SEND_THRESHOLD"`  // 0 off
	RlogApplyThreshold time.Duration `ini:"RLOG_APPLY_THRESHOLD"` // 0 off
	Reconnect          bool          `ini:"DW_RECONNECT"`
	FailoverForce      bool          `ini:"DW_FAILOVER_FORCE"`
	Rejoin             bool          `ini:"DW_REJOIN"`
	DCSStartupCmd      string        `ini:"DCS_STARTUP_CMD"`
	DCSIni             string        `ini:"DCS_INI"`
	DCSPort            int           `ini:"DCS_PORT"`
}

// ParseWatcher reads dmwatcher.ini; name is its path.
func ParseWatcher(name string, data []byte) (*Watcher, error) {
	r := &reading{}
	w := &Watcher{}
	for _, b := range r.open("dmwatcher.ini", name, data, func(block) string { return "[GROUP_NAME]" }) {
		if b.line == 0 {
			r.fill(b, w)
			continue
		}
		g := WatcherGroup{Name: b.name}
		r.fill(b, &g)
		w.Groups = append(w.Groups, g)
	}
	w.Source = *r.src
	w.check(r)
	if err := r.errs.err(); err != nil {
		return nil, err
	}
	return w, nil
}

func (w *Watcher) check(r *reading) {
	if len(w.Groups) == 0 {
		r.fail(0, "", "", "", "no group is configured: a section [GROUP_NAME] is needed", "")
	}
	oguids, inis := map[uint32]string{}, map[string]string{}
	for _, g := range w.Groups {
		at := func(key, value, msg string) { r.fail(w.line(g.Name, key), g.Name, key, value, msg, "") }
		if w.line(g.Name, "INST_OGUID") > 0 {
			if other, dup := oguids[g.OGUID]; dup {
				at("INST_OGUID", fmt.Sprint(g.OGUID), "is also the number of group ["+other+"]")
			}
			oguids[g.OGUID] = g.Name
		}
		if g.InstIni != "" {
			if other, dup := inis[g.InstIni]; dup {
				at("INST_INI", g.InstIni, "is also guarded by group ["+other+"]")
			}
			inis[g.InstIni] = g.Name
		}
		if g.AutoRestart && g.StartupCmd == "" && g.DCRIni == "" {
			at("INST_AUTO_RESTART", "1", "needs INST_STARTUP_CMD")
		}
		if strings.HasPrefix(g.StartupCmd, "/") && strings.ContainsAny(g.StartupCmd, " \t") {
			at("INST_STARTUP_CMD", g.StartupCmd, "a program path must not hold blanks (the paths of dm.ini and 'mount' are added)")
		}
	}
}
