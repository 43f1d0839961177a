package monitor

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"datawatch/internal/ha/cond"
	"datawatch/internal/ha/proto"
)

// tipEnding says of a certificate that it ends soon, or has ended, and returns
// the step to take: who renews it in time notices nothing else.
func (m *Monitor) tipEnding(whose string, e *proto.Ending, say func(string, ...any)) (step string, bad bool) {
	bad = !m.clk.Now().Before(e.At)
	if bad {
		say("%s %s expired on %s: whoever checks it refuses it", whose, e.File, e.At.Format(time.DateOnly))
	} else {
		say("%s %s ends on %s", whose, e.File, e.At.Format(time.DateOnly))
	}
	switch name := strings.TrimSuffix(filepath.Base(e.File), ".crt"); {
	case !e.Ours:
		return "put a new certificate in the place of " + e.File, bad
	case e.Authority:
		return "its authority ends with it: dw certs ca -next where ca.key is, and the steps that it says", bad
	default:
		return fmt.Sprintf("dw certs renew %s where ca.key is, then copy %s.crt and %s.key to where %s is", name, name, name, e.File), bad
	}
}

// Endings are the lines of Tip about certificates, with the steps to take; bad:
// one has ended.
func (m *Monitor) Endings() (lines []string, bad bool) {
	say := func(f string, a ...any) { lines = append(lines, strings.TrimLeft(fmt.Sprintf(f, a...), " ")) }
	var steps []string
	if e := (*proto.Ending)(m.sec.Ending()); e != nil {
		var t string
		t, bad = m.tipEnding("this monitor's certificate", e, say)
		steps = append(steps, t)
	}
	for _, g := range m.groups {
		v := m.view(g)
		for _, p := range v.Peers {
			if p.Known {
				t, b := m.tipEndings(v, p, say)
				steps, bad = append(steps, t...), bad || b
			}
		}
	}
	for _, t := range steps {
		say("next: %s", t)
	}
	return lines, bad
}

// refusedStep is what to do about a watcher that was reached and refused, or
// refused this monitor, by what was said; "" when that was not the reason.
func refusedStep(why string) string {
	switch {
	case !strings.HasPrefix(why, " (we refuse ") && !strings.HasPrefix(why, " (refused by "):
		return ""
	case strings.Contains(why, "`dw certs renew`"):
		return "dw certs renew where ca.key is, then copy each NAME.crt and NAME.key to its host"
	}
	return "mend what is refused: docs/operations.md, A link does not come up"
}

// tipEndings does so for what a watcher says of its own and its instance's.
func (m *Monitor) tipEndings(v cond.View, p cond.Peer, say func(string, ...any)) (steps []string, bad bool) {
	look := func(what string, e *proto.Ending) {
		if e == nil {
			return
		}
		t, b := m.tipEnding("  "+p.Inst()+": its certificate"+what, e, say)
		steps, bad = append(steps, t), bad || b
	}
	if v.Alive(p) {
		look("", p.Status.Cert)
		if s := p.Status.Inst.SQLCert; s != nil && (p.Status.Cert == nil || p.Status.Cert.File != s.File) && v.InstOK(p) {
			look(" for SQL clients", s)
		}
	}
	return steps, bad
}
