package mutants

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// suites are the test programs that have to notice, and how they are run. The
// seeds come last: they take longest.
var suites = []struct{ name, pkg, skip, run string }{
	{"base", "base", "", ""},
	{"cond", "ha/cond", "", ""},
	{"confirm", "ha/confirm", "", ""},
	{"stories", "ha/fsm", "^(TestSeeds|TestRandomWalks|TestTimelyWalks|TestPausedHost|TestDocs)$", ""},
	{"seeds", "ha/fsm", "", "^TestSeeds$"},
}

const sw = `package %s

import "os"

var chosen = os.Getenv("DW_MUTANT")

func mutant(name string) bool { return chosen == name }
`

// breakAll puts every mutant into the text of the sources, by file.
func breakAll(t *testing.T) map[string]string {
	t.Helper()
	internal, err := filepath.Abs("../../internal")
	if err != nil {
		t.Fatal(err)
	}
	text := map[string]string{}
	for _, m := range list {
		file := filepath.Join(internal, m.file)
		if text[file] == "" {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text[file] = string(b)
		}
		if n := strings.Count(text[file], m.old); n != 1 {
			t.Errorf("mutant %q: %s has %d times\n%s", m.name, m.file, n, m.old)
			continue
		}
		text[file] = strings.Replace(text[file], m.old, strings.ReplaceAll(m.new, "on()", fmt.Sprintf("mutant(%q)", m.name)), 1)
		text[filepath.Join(filepath.Dir(file), "mutant.go")] = fmt.Sprintf(sw, filepath.Base(filepath.Dir(file)))
	}
	if t.Failed() {
		t.FailNow()
	}
	return text
}

// TestMutantsAreCurrent: every rule that is to be broken is where the list says.
func TestMutantsAreCurrent(t *testing.T) { breakAll(t) }

// build compiles the test programs with every mutant in them.
func build(t *testing.T) (dir string) {
	t.Helper()
	text := breakAll(t)
	dir = t.TempDir()
	replace := map[string]string{}
	for file, s := range text {
		to := filepath.Join(dir, fmt.Sprintf("%d.go", len(replace)))
		if err := os.WriteFile(to, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[file] = to
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, s := range suites {
		out := filepath.Join(dir, strings.ReplaceAll(s.pkg, "/", "-"))
		if _, err := os.Stat(out); err == nil {
			continue
		}
		cmd := exec.Command("go", "test", "-c", "-overlay", filepath.Join(dir, "overlay.json"), "-o", out, "datawatch/internal/"+s.pkg)
		if b, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd.Args, err, b)
		}
	}
	return dir
}

// caught runs the suites until one fails, and names it.
func caught(t *testing.T, dir string, m mutant, seeds int, only string) (suite, how string) {
	t.Helper()
	for _, s := range suites {
		if only != "" && s.name != only || strings.Contains(m.file, "/fsm/") && s.pkg != "ha/fsm" ||
			strings.Contains(m.file, "ha/") && s.name == "base" {
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
		cmd := exec.Command(filepath.Join(dir, strings.ReplaceAll(s.pkg, "/", "-")), args...)
		cmd.Dir = filepath.Join("../../internal", s.pkg)
		cmd.Env = append(os.Environ(), "DW_MUTANT="+m.name, "DW_SIM_SEEDS="+strconv.Itoa(seeds), "DW_SIM_FILE=", "DW_SIM_SEED=")
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
	dir := build(t)
	only, part := os.Getenv("DW_MUTANT_SUITE"), os.Getenv("DW_MUTANT")
	if suite, how := caught(t, dir, mutant{}, 20, only); suite != "" {
		t.Fatalf("%s fails without any mutant:\n%s", suite, how)
	}
	for _, m := range list {
		if !strings.Contains(m.name, part) {
			continue
		}
		start := time.Now()
		suite, how := caught(t, dir, m, seeds, only)
		if suite == "" {
			t.Errorf("%s: nobody notices (%s)", m.name, m.file)
			continue
		}
		seed := ""
		if i := strings.Index(how, "seed "); suite == "seeds" && i >= 0 {
			seed = " " + how[i:i+strings.IndexAny(how[i:]+"\n", ":\n")]
		}
		t.Logf("%-70s %s%s, %s", m.name, suite, seed, time.Since(start).Round(100*time.Millisecond))
	}
}
