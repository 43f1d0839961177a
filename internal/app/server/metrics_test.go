package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"datawatch/internal/base"
	"datawatch/internal/metrics/admin"
)

// TestMetrics: a primary and its standby together give every metric that is
// documented, with the values of now.
func TestMetrics(t *testing.T) {
	p := newPair(t)
	scrape := func(s *Server) map[string]float64 {
		t.Helper()
		out := map[string]float64{}
		all, err := admin.Registry(Metrics, s.collect).Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			for _, m := range f.Metric {
				v := m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
				var l []string
				for _, x := range m.Label {
					l = append(l, x.GetValue())
				}
				out[strings.TrimSpace(f.GetName()+" "+strings.Join(l, " "))] = v
			}
		}
		return out
	}
	if st := p.a.ready(t.Context(), ""); st.OK || !strings.Contains(st.Reason, "Mount") {
		t.Errorf("not open yet: %+v", st)
	}
	if !p.a.health(t.Context()).OK {
		t.Error("a database in Mount is in order")
	}
	before := scrape(p.a)
	p.open()
	for i := range 3 {
		p.commit(p.a, byte(i))
	}
	p.until("B has replayed", func() bool { return p.b.eng.Positions().Replay.LSN+1 >= p.a.eng.Hardened() })
	if err := p.a.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	a, b := scrape(p.a), scrape(p.b)
	for _, m := range Metrics {
		found := false
		for n := range a {
			found = found || n == m.Name || strings.HasPrefix(n, m.Name+" ")
		}
		for n := range b {
			found = found || n == m.Name || strings.HasPrefix(n, m.Name+" ")
		}
		if !found && m.Name != "dw_check_end_timestamp_seconds" { // nothing was checked
			t.Errorf("%s has no value on a primary and on a standby", m.Name)
		}
		if !strings.Contains(m.Help, ".") || m.Type != "gauge" && m.Type != "histogram" && !strings.HasSuffix(m.Name, "_total") {
			t.Errorf("%+v", m)
		}
	}
	for n, want := range map[string]float64{"dw_open": 1, "dw_archive_valid B REALTIME": 1, "dw_link_up B": 1, "dw_suspended_seconds": 0,
		"dw_hardened_lsn": float64(p.a.eng.Hardened()), "dw_archive_lag_lsn B": 0, "dw_page_bytes": testPages, "dw_sessions_limit": 2000} {
		if a[n] != want {
			t.Errorf("%s = %v, want %v", n, a[n], want)
		}
	}
	for n, least := range map[string]float64{"dw_package_stage_seconds log": 3, "dw_package_stage_seconds realtime": 3, "dw_archive_sent_bytes_total B": 100,
		"dw_disk_free_bytes " + p.a.cfg.DM.SystemPath + " data": 1, "dw_transactions_total committed": before["dw_transactions_total committed"] + 3} {
		if a[n] < least {
			t.Errorf("%s = %v, want at least %v", n, a[n], least)
		}
	}
	if b["dw_replayed_packages_total"] < 2 || b["dw_received_bytes_total"] < 100 || b["dw_open"] != 1 {
		t.Errorf("standby: %v", b)
	}
	if x := p.a.status().Sends; len(x) != 1 || x[0].Inst != "B" || x[0].TotalCnt < 3 || x[0].MaxLen == 0 || x[0].MaxLSN < x[0].LastLSN || x[0].TotalTime == 0 ||
		x[0].FirstLSN == 0 || x[0].FirstLSN > x[0].LastLSN || x[0].LastStart.IsZero() || x[0].LastEnd.Before(x[0].LastStart) {
		t.Errorf("the watcher of the primary is told %+v", x)
	}
	if x := p.b.status().Applies; x == nil || x.TotalApplyNum < 2 || x.TotalRecvLen < 100 || p.a.status().Applies != nil || p.b.status().Sends != nil {
		t.Errorf("the watcher of the standby is told %+v", x)
	}
	if r := (source{p.a}).ArchSend(); len(r) != 1 || r[0].Dest != "B" || r[0].Type != int(base.ArchRealtime) || r[0].TotalCnt < 3 || r[0].ForRecovery != "N" {
		t.Errorf("V$ARCH_SEND_INFO: %+v", r)
	}
	if r := (source{p.b}).RapplyStat(); len(r) != 1 || r[0].ApplyNum < 2 || r[0].LastCommit.IsZero() || len((source{p.a}).RapplyStat()) != 0 {
		t.Errorf("V$RAPPLY_STAT: %+v", r)
	}
	if _, ok := b["dw_archive_valid A REALTIME"]; ok {
		t.Error("a standby says that its archive is valid, which means nothing")
	}
	for s, roles := range map[*Server]map[string]bool{p.a: {"": true, "primary": true, "standby": false, "x": false}, p.b: {"": true, "primary": false, "standby": true}} {
		for role, want := range roles {
			if st := s.ready(t.Context(), role); st.OK != want || !want && st.Reason == "" {
				t.Errorf("%s, role %q: %+v", s.name, role, st)
			}
		}
	}
	if err := p.a.suspend(t.Context(), "the test"); err != nil {
		t.Fatal(err)
	}
	if st := p.a.ready(t.Context(), ""); st.OK || !strings.Contains(st.Reason, "the test") || !p.a.health(t.Context()).OK {
		t.Errorf("suspended: %+v", st)
	}
	if p.a.eng.Status() != base.StatusSuspend {
		t.Fatal("not suspended")
	}
	p.a.requestStop(stopAbort, "why")
	if st := p.a.health(t.Context()); st.OK || !strings.Contains(st.Reason, "why") {
		t.Errorf("ending: %+v", st)
	}
}

// TestAdminPort: it answers while the instance runs, and is gone with it.
func TestAdminPort(t *testing.T) {
	p := newPair(t)
	_ = p.end(p.b, stopNormal)
	port := freePorts(t, 1)[0]
	ini := filepath.Join(p.dir, "B", "dm.ini")
	text, err := os.ReadFile(ini)
	if err == nil {
		err = os.WriteFile(ini, append(text, fmt.Sprintf("ADMIN_PORT = %d\n", port)...), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := p.start("B")
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ask := func(path string) (int, string, error) {
		req, _ := http.NewRequestWithContext(context.Background(), "GET", fmt.Sprintf("http://127.0.0.1:%d%s", port, path), nil)
		resp, err := c.Do(req)
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b), err
	}
	if code, body, err := ask("/metrics"); err != nil || code != 200 || !strings.Contains(body, `dw_instance_info{instance="B",mode="Standby",status="Mount"`) {
		t.Errorf("%d %v %.300s", code, err, body)
	}
	if code, body, err := ask("/readyz"); err != nil || code != 503 {
		t.Errorf("%d %v %s", code, err, body)
	}
	if code, _, err := ask("/healthz"); err != nil || code != 200 {
		t.Errorf("%d %v", code, err)
	}
	if err := p.end(s, stopNormal); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ask("/healthz"); err == nil {
		t.Error("the port still answers")
	}
}
