package cluster

import (
	"os"
	"strings"
	"testing"
	"time"

	"datawatch/test/mutants"
)

// TestMutants: with any of the rules broken, some life fails. DW_CLUSTER_MUTANTS is
// how many lives may pass (make mutants), DW_MUTANT a part of the names of the
// rules to break.
func TestMutants(t *testing.T) {
	var limit uint64
	if number(t, "DW_CLUSTER_MUTANTS", &limit); limit == 0 {
		t.Skip("builds a test program and lives for minutes: make mutants")
	}
	const self = "datawatch/test/cluster"
	exe := mutants.Build(t, mutants.Commits, self)[self]
	for _, m := range mutants.Commits {
		if !strings.Contains(m.Name, os.Getenv("DW_MUTANT")) {
			continue
		}
		began := time.Now()
		f := lives(exe, []string{"DW_MUTANT=" + m.Name}, 1, limit, nil)
		if f == nil {
			t.Errorf("%s: no life of %d fails (%s)", m.Name, limit, m.File)
			continue
		}
		t.Logf("%-60s seed %d, %s: %s", m.Name, f.Seed, time.Since(began).Round(100*time.Millisecond), strings.SplitN(f.Faults[0], "\n", 2)[0])
	}
}
