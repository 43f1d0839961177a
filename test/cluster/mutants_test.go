package cluster

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datawatch/test/mutants"
)

// stories runs the tests of a package that are no lives with a rule broken, and
// names one that fails.
func stories(t *testing.T, exe, pkg, rule string) string {
	t.Helper()
	cmd := exec.Command(exe, "-test.skip=^(TestSeeds|TestLives|TestMutants)$", "-test.failfast", "-test.timeout=10m")
	cmd.Dir = filepath.Join("../..", strings.TrimPrefix(pkg, "datawatch/"))
	cmd.Env = append(os.Environ(), "DW_MUTANT="+rule)
	out, err := cmd.CombinedOutput()
	if err == nil {
		return ""
	}
	if _, name, ok := strings.Cut(string(out), "--- FAIL: "); ok {
		name, _, _ = strings.Cut(name, " ")
		return name
	}
	t.Fatalf("%s: %v\n%s", rule, err, out)
	return ""
}

// TestMutants: with any of the rules broken, some story or some life fails. DW_CLUSTER_MUTANTS is
// how many lives may pass (make mutants), DW_MUTANT a part of the names of the
// rules to break.
func TestMutants(t *testing.T) {
	var limit uint64
	if number(t, "DW_CLUSTER_MUTANTS", &limit); limit == 0 {
		t.Skip("builds a test program and lives for minutes: make mutants")
	}
	const self = "datawatch/test/cluster"
	const internal = "datawatch/internal/"
	pkgs := []string{self}
	for _, pkg := range mutants.Behind {
		pkgs = append(pkgs, internal+pkg)
	}
	exes := mutants.Build(t, mutants.Commits, pkgs...)
	exe := exes[self]
	for pkg, exe := range exes {
		if test := stories(t, exe, pkg, ""); test != "" {
			t.Fatalf("%s of %s fails without any mutant", test, pkg)
		}
	}
	for _, m := range mutants.Commits {
		if !strings.Contains(m.Name, os.Getenv("DW_MUTANT")) {
			continue
		}
		began := time.Now()
		test, pkg := stories(t, exe, self, m.Name), mutants.Behind[m.Name]
		if test == "" && pkg != "" {
			if test = stories(t, exes[internal+pkg], internal+pkg, m.Name); test == "" {
				t.Errorf("%s: no test of %s fails", m.Name, pkg)
				continue
			}
		}
		if test != "" {
			t.Logf("%-60s %s, %s", m.Name, test, time.Since(began).Round(100*time.Millisecond))
			continue
		}
		f := lives(exe, []string{"DW_MUTANT=" + m.Name}, 1, limit, nil)
		if f == nil {
			t.Errorf("%s: no life of %d fails (%s)", m.Name, limit, m.File)
			continue
		}
		t.Logf("%-60s seed %d, %s: %s", m.Name, f.Seed, time.Since(began).Round(100*time.Millisecond), strings.SplitN(f.Faults[0], "\n", 2)[0])
	}
}
