package watcher

import (
	"encoding/json"
	"strings"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
)

// infoEvery is how often the instance is told of its watcher when nothing changes.
const infoEvery = time.Second

// info is what the instance is told of its watcher, and what that is made of.
type info struct {
	told     proto.WatcherInfo
	toldAt   time.Time
	deaf     bool            // the instance does not know the order
	ctls     map[string]bool // watchers that have told the state of their control file
	insts    map[string]bool // whose instances we have heard of
	maxConns int
	opened   base.OpenRecord // the newest known
}

// heardOf notes what a watcher has told.
func (i *info) heardOf(name string, st proto.WatcherStatus) {
	if st.CtlStatus != "" {
		i.ctls[name] = true
	}
	if st.Inst.Incarnation != "" {
		i.insts[name] = true
	}
}

// switches counts the openings by another instance than the one before in what is
// new of a history. The first that is heard counts nothing.
func (i *info) switches(l base.Lineage) (n int64) {
	old := i.opened
	for _, r := range l {
		if r.ID <= i.opened.ID {
			continue
		}
		if old.ID != 0 && r.SysMode == base.ModePrimary && !strings.EqualFold(r.CurInst, i.opened.CurInst) {
			n++
		}
		i.opened = r
	}
	return n
}

// tellInst tells the instance of its watcher.
func (g *Guard) tellInst(st proto.WatcherStatus) {
	i := &g.info
	if g.inst == nil || i.deaf {
		return
	}
	now := g.deps.Clock.Now()
	x := proto.WatcherInfo{Groups: g.cfg.Groups, Group: st.Group, Type: st.Config.Type, Mode: st.Config.Mode, AutoRestart: st.Config.AutoRestart,
		ErrorTime: st.Config.ErrorTime, State: st.State, SubState: st.SubState, Switches: g.cfg.Switches.Load(), Ctls: len(i.ctls), Insts: len(i.insts), MaxConns: i.maxConns}
	if x == i.told && now.Sub(i.toldAt) < infoEvery {
		return
	}
	b, err := json.Marshal(proto.InstanceCommand{Cmd: proto.CmdWatcher, Watcher: &x})
	if err != nil {
		g.deps.Log.Error("state of the watcher", "error", err)
		return
	}
	i.told, i.toldAt = x, now
	g.inst.sendRaw(proto.TypeInstCmd, 0, b, true)
}
