package mutants

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

const internal = "datawatch/internal/"

// suites are the test programs that have to notice, and how they are run. The
// seeds come last: they take longest.
var suites = []struct{ name, pkg, skip, run string }{
	{"base", "base", "", ""},
	{"cond", "ha/cond", "", ""},
	{"confirm", "ha/confirm", "", ""},
	{"stories", "ha/fsm", "^(TestSeeds|TestRandomWalks|TestTimelyWalks|TestPausedHost|TestDocs)$", ""},
	{"seeds", "ha/fsm", "", "^TestSeeds$"},
}

// TestMutantsAreCurrent: every rule that is to be broken is where the list says.
func TestMutantsAreCurrent(t *testing.T) {
	Broken(t, Decisions)
	Broken(t, Commits)
}

// caught runs the suites until one fails, and names it.
func caught(t *testing.T, exes map[string]string, m Mutant, seeds int, only string) (suite, how string) {
	t.Helper()
	for _, s := range suites {
		if only != "" && s.name != only || strings.Contains(m.File, "/fsm/") && s.pkg != "ha/fsm" ||
			strings.Contains(m.File, "ha/") && s.name == "base" {
			continue
		}
		args := []string{"-test.failfast", "-test.timeout=5m"}
		if s.skip != "" {
			args = append(args, "-test.skip="+s.skip)
		}
		if s.pkg == "ha/fsm" || s.pkg == "ha/confirm" {
			args = append(args, "-rapid.nofailfile")
		}
		if s.run != "" {
			args = append(args, "-test.run="+s.run)
		}
		cmd := exec.Command(exes[internal+s.pkg], args...)
		cmd.Dir = filepath.Join("../../internal", s.pkg)
		cmd.Env = append(os.Environ(), "DW_MUTANT="+m.Name, "DW_SIM_SEEDS="+strconv.Itoa(seeds), "DW_SIM_FILE=", "DW_SIM_SEED=")
		b, err := cmd.CombinedOutput()
		if err == nil {
			continue
		}
		if _, ok := err.(*exec.ExitError); !ok {
			t.Fatal(err)
		}
		return s.name, string(b)
	}
	return "", ""
}

// TestMutants: every broken rule is noticed. DW_MUTANT_SEEDS is how many lives
// may pass before it must be, DW_MUTANT_SUITE the only suite that may notice,
// DW_MUTANT a part of the names of those to try.
func TestMutants(t *testing.T) {
	s := os.Getenv("DW_MUTANT_SEEDS")
	if s == "" {
		t.Skip("DW_MUTANT_SEEDS is not set: make mutants")
	}
	seeds, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("DW_MUTANT_SEEDS: %v", err)
	}
	var pkgs []string
	for _, s := range suites {
		pkgs = append(pkgs, internal+s.pkg)
	}
	exes := Build(t, Decisions, pkgs...)
	only, part := os.Getenv("DW_MUTANT_SUITE"), os.Getenv("DW_MUTANT")
	if suite, how := caught(t, exes, Mutant{}, 20, only); suite != "" {
		t.Fatalf("%s fails without any mutant:\n%s", suite, how)
	}
	for _, m := range Decisions {
		if !strings.Contains(m.Name, part) {
			continue
		}
		start := time.Now()
		suite, how := caught(t, exes, m, seeds, only)
		if suite == "" {
			t.Errorf("%s: nobody notices (%s)", m.Name, m.File)
			continue
		}
		seed := ""
		if i := strings.Index(how, "seed "); suite == "seeds" && i >= 0 {
			seed = " " + how[i:i+strings.IndexAny(how[i:]+"\n", ":\n")]
		}
		t.Logf("%-70s %s%s, %s", m.Name, suite, seed, time.Since(start).Round(100*time.Millisecond))
	}
}
