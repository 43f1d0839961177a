// Package cond holds the conditions of manual commands and automatic takeover
// (manual 6.5-6.7, 4.3, 6.9) as data: each function lists every condition with
// whether it holds and why not. The confirm monitor decides by these lists,
// the monitor refuses commands by them and `choose ...` prints them, so that an
// explanation can never differ from the decision.
//
// It owns no state and reads no clock: a View carries what one monitor has
// heard and when. It supports G3 by naming the evidence a takeover needs.
// Durable exclusion between decisions belongs to package confirm, which passes
// it in as further conditions.
package cond

import (
	"fmt"
	"strings"
	"time"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
)

// Cond is one condition and its outcome.
type Cond struct {
	Text string `json:"text"`          // what must hold
	OK   bool   `json:"ok"`            // whether it does
	Why  string `json:"why,omitempty"` // what was seen instead; empty when OK
	// Code is the manual's for its not being met (10.2.8.1); 0: none, or it is.
	Code base.Code `json:"code,omitempty"`
}

// List is the conditions of one decision, in the order the manual names them.
type List []Cond

// Add appends a condition; why is dropped when ok. The result is for Else and
// good until the next Add.
func (l *List) Add(ok bool, text, why string, args ...any) *Cond {
	c := Cond{Text: text, OK: ok}
	if !ok {
		c.Why = fmt.Sprintf(why, args...)
	}
	*l = append(*l, c)
	return &(*l)[len(*l)-1]
}

// Else gives the manual's code for the condition not being met.
func (c *Cond) Else(code base.Code) {
	if !c.OK {
		c.Code = code
	}
}

// Code is that of the first condition that is not met and has one; 0 when none
// is.
func (l List) Code() base.Code {
	for _, c := range l {
		if c.Code != 0 {
			return c.Code
		}
	}
	return 0
}

// OK reports whether every condition holds.
func (l List) OK() bool {
	for _, c := range l {
		if !c.OK {
			return false
		}
	}
	return true
}

// Why joins the reasons of the conditions that do not hold.
func (l List) Why() string {
	var out []string
	for _, c := range l {
		if !c.OK {
			out = append(out, c.Text+": "+c.Why)
		}
	}
	return strings.Join(out, "; ")
}

// Peer is what a monitor knows of one configured watcher and its database.
type Peer struct {
	Addr      string // MON_DW_IP as configured
	Known     bool   // a report was received at some time
	Connected bool   // the connection is up now
	Heard     time.Time
	Status    proto.WatcherStatus // the newest report
}

// Inst is the instance name, "" before the first report.
func (p Peer) Inst() string { return p.Status.Inst.InstName }

// Reign is the ID of the database's last open record: the reign it belongs to.
func (p Peer) Reign() uint64 { return p.Status.Inst.Lineage.Last().ID }

// Arch returns the primary's archive to inst.
func (p Peer) Arch(inst string) (proto.ArchStatus, bool) {
	for _, a := range p.Status.Inst.Archives {
		if a.Inst == inst {
			return a, true
		}
	}
	return proto.ArchStatus{}, false
}

// Remote returns how the peer's watcher sees the watcher of inst.
func (p Peer) Remote(inst string) (proto.RemoteView, bool) {
	for _, r := range p.Status.Remotes {
		if r.Inst == inst {
			return r, true
		}
	}
	return proto.RemoteView{}, false
}

// Link returns the database's own MAL link to inst.
func (p Peer) Link(inst string) (proto.MALLink, bool) {
	for _, l := range p.Status.Inst.Links {
		if l.Inst == inst {
			return l, true
		}
	}
	return proto.MALLink{}, false
}

// View is everything one monitor knows of one group at one moment. Peers are
// in dmmonitor.ini order.
type View struct {
	Group string
	Now   time.Time
	// Default is used for DW_ERROR_TIME until a watcher has reported its own.
	Default time.Duration
	Peers   []Peer
}

// ErrorTime is the group's DW_ERROR_TIME: the largest any watcher reports.
func (v View) ErrorTime() time.Duration {
	var e time.Duration
	for i := range v.Peers { // called often, and a Peer is large
		if p := &v.Peers[i]; p.Known {
			e = max(e, time.Duration(p.Status.Config.ErrorTime)*time.Second)
		}
	}
	if e == 0 {
		e = v.Default
	}
	return e
}

// Alive reports whether the watcher was heard within DW_ERROR_TIME (manual 3.1.2).
func (v View) Alive(p Peer) bool {
	return p.Known && v.Now.Sub(p.Heard) < v.ErrorTime()
}

// InstOK reports whether the watcher is alive and says its instance is.
func (v View) InstOK(p Peer) bool { return v.Alive(p) && p.Status.InstOK }

// State is WSTATUS as `show` prints it: ERROR for a silent watcher.
func (v View) State(p Peer) string {
	if !v.Alive(p) {
		return proto.DWError
	}
	return p.Status.State
}

// Find returns the peer of an instance name, case-insensitively.
func (v View) Find(inst string) (Peer, bool) {
	for i := range v.Peers {
		if p := &v.Peers[i]; p.Known && strings.EqualFold(p.Status.Inst.InstName, inst) {
			return *p, true
		}
	}
	return Peer{}, false
}

// HeardBy returns an instance that runs by the word of p's watcher, which this
// monitor does not hear itself; "" when there is none.
func (v View) HeardBy(p Peer) string {
	if !v.Alive(p) {
		return ""
	}
	for _, r := range p.Status.Remotes {
		if q, ok := v.Find(r.Inst); r.DWLink && r.InstOK && !(ok && v.Alive(q)) {
			return r.Inst
		}
	}
	return ""
}

// Global reports whether the peer is guarded in GLOBAL type.
func Global(p Peer) bool { return p.global() }

func (p *Peer) global() bool { return !strings.EqualFold(p.Status.Config.Type, "LOCAL") }

// Auto reports whether the group runs in automatic switch mode.
func (v View) Auto() bool {
	for i := range v.Peers {
		if p := &v.Peers[i]; p.Known && p.global() && strings.EqualFold(p.Status.Config.Mode, "AUTO") {
			return true
		}
	}
	return false
}

// LastPrimary returns the database that is, or was when last heard, the
// primary: the Primary-mode database of the newest reign. It fails when
// nothing is known or when two databases claim the same reign.
func (v View) LastPrimary() (Peer, error) {
	var best *Peer
	n := 0
	for i := range v.Peers {
		p := &v.Peers[i]
		if !p.Known || p.Status.Inst.Mode != base.ModePrimary || !p.global() {
			continue
		}
		switch r := p.Status.Inst.Lineage.Last().ID; {
		case n == 0 || r > best.Reign():
			best, n = p, 1
		case r == best.Reign():
			n++
		}
	}
	switch {
	case n == 0:
		return Peer{}, fmt.Errorf("no message of a primary has been received")
	case n > 1:
		return Peer{}, fmt.Errorf("more than one database is Primary in reign %d", best.Reign())
	}
	return *best, nil
}

// ActivePrimaries lists the databases that run in Primary mode, Open or Suspend.
func (v View) ActivePrimaries() []Peer {
	var out []Peer
	for i := range v.Peers {
		p := &v.Peers[i]
		st := p.Status.Inst.Status
		if p.Status.Inst.Mode == base.ModePrimary && (st == base.StatusOpen || st == base.StatusSuspend) && p.global() && v.InstOK(*p) {
			out = append(out, *p)
		}
	}
	return out
}

// Standbys lists the GLOBAL databases last heard in Standby mode.
func (v View) Standbys() []Peer {
	var out []Peer
	for i := range v.Peers {
		if p := &v.Peers[i]; p.Known && p.Status.Inst.Mode == base.ModeStandby && p.global() {
			out = append(out, *p)
		}
	}
	return out
}

// commandFree lists no watcher that holds a monitor command or stands in a
// state of one. Silent watchers count by their last report when all is true.
func (v View) commandFree(all bool) (string, bool) {
	for _, p := range v.Peers {
		if !p.Known || (!all && !v.Alive(p)) {
			continue
		}
		if c := p.Status.Cmd; c != nil {
			return fmt.Sprintf("the watcher of %s holds command %s of monitor %s", p.Inst(), c.Kind, c.Mon), false
		}
		switch p.Status.State {
		case proto.DWSwitchover, proto.DWTakeover, proto.DWOpenForce, proto.DWChangeArch:
			return fmt.Sprintf("the watcher of %s is in state %s", p.Inst(), p.Status.State), false
		}
	}
	return "", true
}

func oneOf(s string, in ...string) bool {
	for _, x := range in {
		if s == x {
			return true
		}
	}
	return false
}

func modeStatus(p Peer) string {
	return p.Status.Inst.Mode.String() + "/" + p.Status.Inst.Status.String()
}
