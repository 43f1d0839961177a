package monitor

import (
	"bytes"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"datawatch/dwmon"
	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
)

// TestStatTables: every field of the manual (4.4 #41, #42), with its own value.
func TestStatTables(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	s := proto.SendStat{Inst: "B", LastStart: at, LastEnd: at.Add(time.Second), LastTime: 101, FirstLSN: 116, LastLSN: 102, LastLen: 103, LastPTX: 104, RecentCnt: 7, RecentLen: 105, RecentPTX: 106,
		RecentTime: 107, MaxTime: 108, MaxEnd: at.Add(time.Minute), MaxPTX: 109, MaxLen: 110, MaxLSN: 111, TotalCnt: 112, TotalLen: 113, TotalPTX: 114, TotalTime: 115}
	var a proto.ApplyStat
	for v, n := reflect.ValueOf(&a).Elem(), 0; n < v.NumField(); n++ {
		v.Field(n).SetInt(int64(201 + n))
	}
	a.RecentNum = 9
	var b bytes.Buffer
	c := &Console{Out: &b}
	c.sendTables(base.ArchRealtime, false, s, "fine")
	c.applyTables(a)
	for _, want := range []string{"FOR REALTIME SEND", "2026-01-02 03:04:05", "2026-01-02 03:04:06", "2026-01-02 03:05:05", "last 7 sends", "last 9 replays", "fine",
		"SEND START LSN", "SEND CODE", "MAX PTX COUNT", "TOTAL SEND PTX COUNT", "RESPONSE TIME USED", "MAX APPLY LOG LEN", "TOTAL RECEIVED NUM", "TOTAL APPLY TIME ", "TOTAL RESPONSE TIME ", "TOTAL WAIT TIME "} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	for n := 101; n <= 222; n++ {
		if n > 116 && n < 201 || n == 206 { // RecentNum
			continue
		}
		if !strings.Contains(b.String(), " "+strconv.Itoa(n)+" ") {
			t.Errorf("%d is not shown in\n%s", n, b.String())
		}
	}
	for want, f := range map[string]func(){
		" 100 ": func() { c.sendTables(base.ArchRealtime, false, proto.SendStat{}, "") }, " -1 ": func() { c.sendTables(base.ArchTimely, true, s, "") },
		" 100 │ slow":      func() { r := s; r.LastEnd = time.Time{}; c.sendTables(base.ArchRealtime, false, r, "slow") },
		" -1 │ cut":        func() { r := s; r.LastFailed = true; c.sendTables(base.ArchRealtime, false, r, "cut") },
		"FOR RECOVER SEND": func() { r := s; r.ForRecovery = true; c.sendTables(base.ArchRealtime, false, r, "") },
	} {
		b.Reset()
		if f(); !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	p := dwmon.DatabaseSnapshot{Sends: []proto.SendStat{{Inst: "X"}, s}}
	if sendStat(p, "B").TotalCnt != 112 || sendStat(p, "C").TotalCnt != 0 {
		t.Error("statistics of another standby")
	}
}
