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
	"datawatch/internal/storage/engine"
	"datawatch/internal/storage/redo"
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

// TestLogPackageViews: V$RLOG_PKG has the package that waits for its standby, and
// V$RLOG_PKG_STAT counts it when it is written, here and there (manual 10.1 #19,
// #20).
func TestLogPackageViews(t *testing.T) {
	p := newPair(t)
	p.open()
	p.commit(p.a, 1)
	if r, n := row(t, p.a, "V$RLOG_PKG"); n != 0 {
		t.Fatalf("nothing waits: %v", r)
	}
	before, _ := row(t, p.a, "V$RLOG_PKG_STAT")
	if n := before["N_FLUSHED"].(int64); n < 2 || before["PKG_AVG_BYTES"] != before["BYTES_FLUSHED"].(int64)/n || before["PKG_AVG_PLL"] != int64(1) ||
		before["N_FLUSH_LST"] != int64(0) || before["GLOBAL_NEXT_SEQNO"] != int64(p.a.eng.Positions().File.Seq)+1 || before["N_FOR_CKPT"] != nil {
		t.Errorf("V$RLOG_PKG_STAT: %v", before)
	}
	if err := p.a.suspend(t.Context(), "the test"); err != nil {
		t.Fatal(err)
	}
	lsn := p.publish(p.a, 2)
	r, n := row(t, p.a, "V$RLOG_PKG")
	s, _ := row(t, p.a, "V$RLOG_PKG_STAT")
	if n != 1 || r["MAX_LSN"] != int64(lsn) || r["G_SEQNO"] != before["GLOBAL_NEXT_SEQNO"] || r["L_SEQNO"] != before["NEXT_SEQNO"] || r["PKG_STAT"] != int64(0) ||
		r["N_FILLED"] != int64(1) || r["N_FIXED"] != int64(1) || r["FROM_PRIMARY"] != int64(1) || r["PREV_LSN"] != int64(lsn)-1 || r["PKG_TYPE"] != int64(0) ||
		r["PKG_LEN"] != r["DATA_OFF"].(int64)+r["HDR_SIZE"].(int64) || r["DB_MAGIC"] != int64(p.a.eng.Control().DBMagic) || r["CMPR_LEN"] != nil {
		t.Errorf("%d rows of V$RLOG_PKG, %v; commit %d", n, r, lsn)
	}
	if s["N_FLUSH_LST"] != int64(1) || s["N_FLUSHED"] != before["N_FLUSHED"] || s["N_FLUSH_TO"] != before["N_FLUSH_TO"].(int64)+1 {
		t.Errorf("in Suspend: %v, before %v", s, before)
	}
	there, _ := row(t, p.b, "V$RLOG_PKG_STAT")
	p.order(p.a, proto.InstanceCommand{Cmd: proto.CmdOpen})
	p.until("it is written", func() bool {
		x, _ := row(t, p.a, "V$RLOG_PKG_STAT")
		y, _ := row(t, p.b, "V$RLOG_PKG_STAT") // the package before it: the newest is kept
		return x["N_FLUSHED"] == before["N_FLUSHED"].(int64)+1 && x["N_FLUSH_LST"] == int64(0) && x["N_PUSHED"] == before["N_PUSHED"].(int64)+1 &&
			x["BYTES_FLUSHED"].(int64) > before["BYTES_FLUSHED"].(int64) && y["N_FLUSHED"].(int64) > there["N_FLUSHED"].(int64)
	})
	if r, n := row(t, p.b, "V$RLOG_PKG"); n != 0 {
		t.Errorf("on the standby: %v", r)
	}
	x := engine.LogPackage{Full: true, Kind: engine.PackageOpen, Reserved: 2, Header: redo.Header{Flags: redo.FlagS2, HeaderLen: 128, RawLen: 900, DataLen: 300, NPTX: 5}}
	if r := logPkgRow(x, base.ModeNormal); r.Stat != 2 || r.Type != 1 || r.NFixed != 7 || r.NFilled != 5 || *r.CmprLen != 300 || r.EncCmpr != 2 || r.PkgLen != 428 || r.DataOff != 900 || r.FromPrimary != 0 {
		t.Errorf("%+v", r)
	}
}

// TestRapplyLSNOfAPrimary: V$RAPPLY_LSN_INFO has, on a primary that was a standby,
// how far it had its primary's redo then (manual 10.1 #18).
func TestRapplyLSNOfAPrimary(t *testing.T) {
	p := newPair(t)
	p.open()
	p.commit(p.a, 1)
	if r, n := row(t, p.a, "V$RAPPLY_LSN_INFO"); n != 0 {
		t.Errorf("it was never a standby: %v", r)
	}
	if err := p.end(p.a, stopNormal); err != nil {
		t.Fatal(err)
	}
	for _, c := range []proto.InstanceCommand{{Cmd: proto.CmdApplyKeep, Ended: []string{p.a.incarnation}}, {Cmd: proto.CmdMount},
		{Cmd: proto.CmdSetMode, Mode: base.ModePrimary, Ended: []string{p.a.incarnation}}, {Cmd: proto.CmdSetArch, State: base.ArchInvalid}} {
		p.order(p.b, c)
	}
	end := p.b.eng.Positions().File
	for range 2 {
		p.order(p.b, proto.InstanceCommand{Cmd: proto.CmdOpen})
		p.commit(p.b, 2)
		r, n := row(t, p.b, "V$RAPPLY_LSN_INFO")
		if n != 1 || r["P_DB_MAGIC"] != int64(p.a.eng.Control().DBMagic) || r["PKG_SEQ_ARR"] != fmt.Sprintf("(%d)", end.Seq) || r["APPLY_LSN_ARR"] != fmt.Sprintf("(%d)", end.LSN) {
			t.Errorf("%d rows, %v; it had %v", n, r, end)
		}
		p.order(p.b, proto.InstanceCommand{Cmd: proto.CmdMount}) // another opening changes nothing
	}
}
