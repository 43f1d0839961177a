package config

import (
	"path/filepath"
	"testing"
	"time"

	"datawatch/internal/base"
)

// The files of manual 7.2, comments and indentation as printed there.
func TestManual72(t *testing.T) {
	dir := filepath.Join("testdata", "manual72")
	w, insts, err := LoadWatcherAll(filepath.Join(dir, "dmwatcher.ini"))
	if err != nil {
		t.Fatal(err)
	}
	g, inst := w.Groups[0], insts[0]
	if g.Name != "GRP1" || g.Type != "GLOBAL" || g.Mode != "AUTO" || g.DWErrorTime != 10*time.Second || g.OGUID != 453331 || !g.AutoRestart || g.StartupCmd != "/dm/bin/dmserver" || !g.Reconnect || !g.FailoverForce {
		t.Errorf("group: %+v", g)
	}
	dm := inst.DM
	if dm.InstanceName != "GRP1_RT_01" || dm.PortNum != 32141 || dm.AlterModeStatus || dm.RedosBufSize != 1024 || dm.SessFreeInSuspend != time.Minute || dm.CtlPath != filepath.Join(dir, "dm.ctl") {
		t.Errorf("dm.ini: %+v", dm)
	}
	if inst.Self.Port != 61141 || inst.DWPort != 33141 || len(inst.MAL.Entries) != 2 || inst.MAL.ConnFailInterval != 5*time.Second {
		t.Errorf("dmmal.ini: %+v", inst.MAL)
	}
	local, ok := inst.Arch.Local()
	if rt := inst.Arch.OfType(base.ArchRealtime); !ok || local.FileSize != 128 || local.Dest != "/dm/data/DAMENG/arch" || len(rt) != 1 || rt[0].Targets()[0] != "GRP1_RT_02" || inst.Arch.WaitApply {
		t.Errorf("dmarch.ini: %+v", inst.Arch)
	}
	m, err := LoadMonitor(filepath.Join(dir, "dmmonitor.ini"))
	if err != nil {
		t.Fatal(err)
	}
	if !m.Confirm || len(m.Groups[0].Watchers) != 2 || m.Groups[0].Watchers[1][0] != (Addr{"192.168.0.142", 52142}) {
		t.Errorf("dmmonitor.ini: %+v", m)
	}
	if err := CheckMonitor(m, g, inst.MAL); err != nil {
		t.Error(err)
	}
	names := map[string]bool{}
	for _, s := range inst.NotEffective() {
		names[s.Param.Name] = true
	}
	if len(names) != 1 || !names["ENABLE_OFFLINE_TS"] {
		t.Errorf("not effective: %v", names)
	}
}
