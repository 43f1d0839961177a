package e2e

import (
	"datawatch/internal/app/dw"
	"testing"
	"time"
)

func TestLabTry(t *testing.T) {
	if !inLab(t) {
		return
	}
	l := newLab(t, labOptions{Options: dw.Options{Standbys: 1, Mode: "auto", Monitors: 1, Fast: true}})
	mustExec(t, l.sys, loadTable)
	ld := newLoad(l.sys, 6, 2)
	ld.start(t.Context())
	t.Cleanup(ld.stop)
	ld.flows(t, 20*time.Second)
	pause(t.Context(), 3*time.Second)
	for _, how := range []cut{unplugged, silent, disabled} {
		at := time.Now()
		prim := primary(t, l.sys)
		rep := l.of(prim).inner.fail(t, how)
		t.Logf("%s: next ack %v", how, ld.flows(t, 20*time.Second))
		t.Log(primary(t, l.sys))
		rep()
		healthy(t, l.sys)
		t.Log(timeline(l.sys, at, time.Now()))
	}
	ld.stop()
	ld.check(t, 3)
}
