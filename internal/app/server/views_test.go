package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"strconv"
	"testing"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
	"datawatch/internal/repl/mal"
	"datawatch/internal/repl/ship"
	"datawatch/internal/sql/views"
	"datawatch/internal/wire"
)

// row is the first row of a view by column, and how many rows it has.
func row(t *testing.T, s *Server, name string) (map[string]any, int) {
	t.Helper()
	v, ok := views.Lookup(name)
	if !ok {
		t.Fatalf("no view %s", name)
	}
	rows := v.Rows(source{s})
	if len(rows) == 0 {
		return nil, 0
	}
	m := map[string]any{}
	for i, c := range v.Columns {
		m[c.Name] = rows[0][i]
	}
	return m, len(rows)
}

// held is a connection whose large messages wait at a gate.
type held struct {
	net.Conn
	gate chan struct{}
}

func (h held) Write(b []byte) (int, error) {
	if len(b) > 4<<10 {
		<-h.gate
	}
	return h.Conn.Write(b)
}

// TestRecoverStatus: V$RECOVER_STATUS has the standby to which the archive is being
// sent, how much that is and how much of it is left (manual 10.1 #3).
func TestRecoverStatus(t *testing.T) {
	p := newPair(t)
	if err := p.end(p.a, stopAbort); err != nil {
		t.Fatal(err)
	}
	gate := make(chan struct{})
	p.net = func(ctx context.Context, addr string) (net.Conn, error) {
		c, err := mal.DialTCP(ctx, addr)
		return held{c, gate}, err
	}
	p.a = p.start("A")
	p.net = nil
	p.open()
	p.commit(p.a, 0)
	at := p.b.recv.Info().Stand
	p.order(p.a, proto.InstanceCommand{Cmd: proto.CmdSetArch, Inst: "B", State: base.ArchInvalid})
	for i := range 60 {
		p.commit(p.a, byte(i+1))
	}
	if r, n := row(t, p.a, "V$RECOVER_STATUS"); n != 0 {
		t.Fatalf("nothing is being sent: %v", r)
	}
	done := make(chan error, 1)
	go func() {
		done <- p.a.execute(t.Context(), proto.InstanceCommand{Cmd: proto.CmdArchSend, Inst: "B"})
	}()
	p.until("the amount is known", func() bool { r, n := row(t, p.a, "V$RECOVER_STATUS"); return n == 1 && r["KBYTES_TOTAL"] != nil })
	r, _ := row(t, p.a, "V$RECOVER_STATUS")
	if total := r["KBYTES_TOTAL"].(int64); total < 5 || r["KBYTES_TO_RECOVER"] != total || r["RECOVER_PERCENT"] != "0%" || r["FILES_TO_RECOVER"] != int64(1) ||
		r["PRIMARY_NAME"] != "A" || r["STANDBY_NAME"] != "B" || r["PRIM_LSN"] != int64(p.a.eng.Positions().File.LSN) || r["SEND_LSN"].(int64) < int64(at.LSN) {
		t.Errorf("at the start: %v", r)
	}
	if r, n := row(t, p.b, "V$RECOVER_STATUS"); n != 0 {
		t.Errorf("on the standby: %v", r)
	}
	close(gate)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if r, n := row(t, p.a, "V$RECOVER_STATUS"); n != 0 {
		t.Errorf("at the end: %v", r)
	}
}

func TestRecoverRow(t *testing.T) {
	n := func(p *int64) string {
		if p == nil {
			return "NULL"
		}
		return fmt.Sprint(*p)
	}
	for want, p := range map[string]ship.Progress{
		"NULL NULL NULL ": {},
		"7 0 0 100%":      {Known: true, Sent: 7},
		"7 10 10 0%":      {Known: true, Sent: 7, Total: 10 << 10},
		"7 10 4 60%":      {Known: true, Sent: 7, Total: 10<<10 - 5, Done: 6<<10 + 1},
		"7 100000 1 99%":  {Known: true, Sent: 7, Total: 100000 << 10, Done: 100000<<10 - 1},
		"7 100000 0 100%": {Known: true, Sent: 7, Total: 100000 << 10, Done: 100000 << 10},
	} {
		if r := recoverRow("A", 9, p); fmt.Sprintf("%s %s %s %s", n(r.SendLSN), n(r.Total), n(r.Left), r.Percent) != want || r.PrimLSN != 9 {
			t.Errorf("%+v: %+v, want %s", p, r, want)
		}
	}
}

// TestMALViews: V$MAL_SYS and V$MAL_SITE_INFO follow the links and what goes over
// them (manual 10.1 #14, #15).
func TestMALViews(t *testing.T) {
	p := newPair(t)
	p.open()
	p.until("nothing is under way", func() bool {
		r, _ := row(t, p.a, "V$MAL_SITE_INFO")
		return r["FREE_LINK_NUM"] == int64(2) && r["SEND_LETTER_NUM"] == int64(0)
	})
	s, _ := row(t, p.a, "V$MAL_SYS")
	before, n := row(t, p.a, "V$MAL_SITE_INFO")
	other, _ := row(t, p.b, "V$MAL_SITE_INFO")
	if s["SYS_STATUS"] != int64(0) || s["MAL_PORT"] != int64(p.ports["A"][1]) || s["N_SITE"] != int64(2) || s["MAL_SEQ_NO"] != int64(0) ||
		s["MAL_CHECK_INTERVAL"] != int64(1) || s["MAL_CONN_FAIL_INTERVAL"] != int64(2) || s["MAL_BUF_SIZE"] != int64(100) || s["STMT_ID"] != nil || s["MAL_TEMP_PATH"] != nil {
		t.Errorf("V$MAL_SYS: %v", s)
	}
	if n != 1 || before["SRC_SITE_SEQ"] != int64(0) || before["DEST_SITE_SEQ"] != int64(1) || before["MAL_PORT_NUM"] != int64(1) || before["TOTAL_LINK_NUM"] != int64(2) ||
		other["SRC_SITE_SEQ"] != int64(1) || other["DEST_SITE_SEQ"] != int64(0) {
		t.Errorf("V$MAL_SITE_INFO: %v and %v", before, other)
	}
	p.commit(p.a, 1)
	p.until("the package is counted", func() bool {
		r, _ := row(t, p.a, "V$MAL_SITE_INFO")
		o, _ := row(t, p.b, "V$MAL_SITE_INFO")
		x, _ := row(t, p.a, "V$MAL_SYS")
		return r["BUILD_TIME"].(int64) > before["BUILD_TIME"].(int64) && r["LBTAPFDS"].(int64) > before["LBTAPFDS"].(int64) &&
			o["LBTAPFDS"].(int64) > other["LBTAPFDS"].(int64) && x["NEXT_MAL_ID"].(int64) > s["NEXT_MAL_ID"].(int64)
	})
	if err := p.end(p.b, stopAbort); err != nil {
		t.Fatal(err)
	}
	p.until("the link is down", func() bool {
		r, _ := row(t, p.a, "V$MAL_SITE_INFO")
		return r["MAL_PORT_NUM"] == int64(0) && r["TOTAL_LINK_NUM"] == int64(0)
	})
	if s, _ := row(t, p.b, "V$MAL_SYS"); s["SYS_STATUS"] != int64(2) {
		t.Errorf("V$MAL_SYS after the end: %v", s)
	}
}

// TestDMWatcher: V$DMWATCHER has what the watcher said last, and ERROR when it is
// not there (manual 10.1 #13).
func TestDMWatcher(t *testing.T) {
	p := newPair(t)
	p.open()
	if r, n := row(t, p.a, "V$DMWATCHER"); n != 0 {
		t.Fatalf("before a watcher has come: %v", r)
	}
	nc, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p.ports["A"][2])))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	w, r := wire.NewWriter(nc), wire.NewReader(bufio.NewReader(nc), wire.MaxControl)
	say := func(typ uint16, v any) {
		t.Helper()
		b, err := json.Marshal(v)
		if err == nil {
			err = w.Write(typ, 0, b)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	say(proto.TypeHello, proto.Hello{Role: proto.RoleWatcher, GuardVersion: proto.GuardVersion, Name: "A", OGUID: p.a.eng.Control().OGUID, Auto: true})
	info := proto.WatcherInfo{Groups: 2, Group: "GRP1", Type: "GLOBAL", Mode: "AUTO", AutoRestart: true, ErrorTime: 3600, State: proto.DWRecovery, SubState: "B: send archives",
		Switches: 3, Ctls: 1, Insts: 4, MaxConns: 7}
	orders := len(source{p.a}.UtskInfo())
	said := func(state string) map[string]any {
		t.Helper()
		say(proto.TypeInstCmd, proto.InstanceCommand{Cmd: proto.CmdWatcher, Watcher: &info})
		p.until("the view says "+state, func() bool { r, _ := row(t, p.a, "V$DMWATCHER"); return r["DW_STATUS"] == state })
		x, _ := row(t, p.a, "V$DMWATCHER")
		return x
	}
	want := map[string]any{"N_GROUP": int64(2), "GROUP_NAME": "GRP1", "INST_NAME": "A", "DW_TYPE": "GLOBAL", "DW_MODE": "AUTO", "AUTO_RESTART": int64(1), "DW_STATUS": "RECOVERY",
		"DW_SUB_STATUS": "B: send archives", "SWITCH_COUNT": int64(3), "CTL_NUM": int64(1), "INST_NUM": int64(4), "MAX_CONN_NUM": int64(7)}
	x := said(proto.DWRecovery)
	first := x["LAST_MSG_TIME"].(string)
	delete(x, "LAST_MSG_TIME")
	if !maps.Equal(x, want) {
		t.Errorf("%v, want %v", x, want)
	}
	info.State, info.SubState, info.AutoRestart, info.Mode = proto.DWOpen, "", false, "MANUAL"
	if x = said(proto.DWOpen); x["DW_SUB_STATUS"] != nil || x["AUTO_RESTART"] != int64(0) || x["DW_MODE"] != "MANUAL" || x["LAST_MSG_TIME"].(string) <= first {
		t.Errorf("it has said something new since %s: %v", first, x)
	}
	info.ErrorTime = 0 // silent for longer
	said(proto.DWError)
	info.ErrorTime = 3600
	said(proto.DWOpen)
	if n := len(source{p.a}.UtskInfo()); n != orders {
		t.Errorf("V$UTSK_INFO has %d orders of before and %d now", orders, n)
	}
	// It is answered to orders only.
	b, _ := json.Marshal(proto.InstanceCommand{Cmd: proto.CmdNoop})
	if err := w.Write(proto.TypeInstCmd, 9, b); err != nil {
		t.Fatal(err)
	}
	for {
		f, err := r.Read()
		if err != nil {
			t.Fatal(err)
		}
		if f.Type == proto.TypeInstReply {
			if f.ID != 9 {
				t.Errorf("an answer to %d", f.ID)
			}
			break
		}
	}
	nc.Close()
	p.until("the watcher has gone", func() bool { r, _ := row(t, p.a, "V$DMWATCHER"); return r["DW_STATUS"] == "ERROR" })
}
