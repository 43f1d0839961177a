package watcher

import (
	"context"
	"strings"
	"testing"

	guard "datawatch/internal/ha/watcher"
	"datawatch/internal/metrics/admin"
)

func TestMetrics(t *testing.T) {
	path, _ := files(t)
	p, err := Load(path, nil, guard.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ctx, cancel := context.WithCancel(t.Context())
	gone, stop := context.WithCancel(t.Context())
	stop()
	if st := p.health(gone); st.OK || st.Reason == "" {
		t.Errorf("no guard runs: %+v", st)
	}
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	if st := p.health(t.Context()); !st.OK || st.Facts["GRP1"] == nil {
		t.Errorf("%+v", st)
	}
	if st := p.ready(t.Context(), ""); st.OK || !strings.Contains(st.Reason, "GRP1") {
		t.Errorf("the instance does not run: %+v", st)
	}
	all, err := admin.Registry(Metrics, p.collect).Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, f := range all {
		got[f.GetName()] = true
	}
	for _, m := range Metrics {
		if n := m.Name; !got[n] && !strings.HasPrefix(n, "dw_watcher_instance_info") && n != "dw_watcher_instance_pid" && n != "dw_watcher_archive_valid" {
			t.Errorf("%s has no value", n)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
