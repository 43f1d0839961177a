package server

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
	"datawatch/internal/repl/ship"
	"datawatch/internal/sql/views"
)

// codeUnderWay is the code of an order that is being carried out (manual 10.1 #1).
const codeUnderWay base.Code = 100

// maxOrders is how many orders of the watcher V$UTSK_INFO shows.
const maxOrders = 32

// order is one order of the watcher.
type order struct {
	seq       int64
	cmd, inst string
	code      base.Code
}

// orders are the newest of them, oldest first.
type orders struct {
	mu   sync.Mutex
	seq  int64
	last base.Code // of the newest that has ended
	list []order
}

// begin notes an order; the result is to be called with its outcome.
func (o *orders) begin(c proto.InstanceCommand) (end func(error)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seq++
	seq := o.seq
	o.list = append(o.list, order{seq, c.Cmd, c.Inst, codeUnderWay})
	if len(o.list) > maxOrders {
		o.list = slices.Delete(o.list, 0, 1)
	}
	return func(err error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		code := base.Code(0)
		if err != nil {
			code = base.CodeOf(err, codeFailed)
		}
		o.last = code
		for i := range o.list {
			if o.list[i].seq == seq {
				o.list[i].code = code
			}
		}
	}
}

func (o *orders) snapshot() (list []order, last base.Code) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.list), o.last
}

func (v source) UtskSys() []views.UtskSysRow {
	list, last := v.s.orders.snapshot()
	auto, heard := v.s.dw.guarded()
	return []views.UtskSysRow{{Running: slices.ContainsFunc(list, func(o order) bool { return o.code == codeUnderWay }), Break: last == codeInterupted,
		AutoSwitch: auto, MaxWait: int64(v.s.cfg.DM.DWMaxSvrWaitTime / time.Second), LastMsg: heard.Truncate(time.Second), Version: proto.GuardVersion}}
}

func (v source) DMWatcher() []views.DMWatcherRow {
	i, heard, there := v.s.dw.watcher()
	if i == nil {
		return nil
	}
	r := views.DMWatcherRow{Groups: i.Groups, Group: i.Group, Inst: v.s.name, Type: i.Type, Mode: i.Mode, State: i.State, SubState: i.SubState, LastMsg: heard,
		Switches: i.Switches, Ctls: i.Ctls, Insts: i.Insts, MaxConns: i.MaxConns}
	if i.AutoRestart {
		r.AutoRestart = 1
	}
	if !there {
		r.State, r.SubState = proto.DWError, ""
	}
	return []views.DMWatcherRow{r}
}

func (v source) RecoverStatus() []views.RecoverStatusRow {
	var out []views.RecoverStatusRow
	for _, p := range v.s.ship.Recoveries() {
		out = append(out, recoverRow(v.s.name, v.s.eng.Positions().File.LSN, p))
	}
	return out
}

// recoverRow counts a begun kilobyte as one, so that 0 is left only when all is sent.
func recoverRow(primary string, lsn base.LSN, p ship.Progress) views.RecoverStatusRow {
	r := views.RecoverStatusRow{Primary: primary, Standby: p.Inst, PrimLSN: lsn}
	if !p.Known {
		return r
	}
	total, left := (p.Total+1023)>>10, (p.Total-p.Done+1023)>>10
	r.SendLSN, r.Total, r.Left, r.Files, r.Percent = ptr(int64(p.Sent)), ptr(total), ptr(left), ptr(int64(p.Files)), "100%"
	if total > 0 {
		r.Percent = strconv.FormatInt(100*(total-left)/total, 10) + "%"
	}
	return r
}

func (v source) UtskInfo() []views.UtskInfoRow {
	list, _ := v.s.orders.snapshot()
	sent := map[string]base.LSN{}
	for _, a := range v.s.ship.States() {
		sent[strings.ToUpper(a.Inst)] = a.Sent.LSN
	}
	var out []views.UtskInfoRow
	for n, o := range list {
		r := views.UtskInfoRow{Code: int64(o.code), Nth: int64(n), Cmd: o.cmd, Inst: o.inst, DSeq2: o.seq}
		if o.cmd == proto.CmdArchSend {
			r.SendLSN = sent[strings.ToUpper(o.inst)]
			r.MaxSendLSN = r.SendLSN
		}
		out = append(out, r)
	}
	return out
}
