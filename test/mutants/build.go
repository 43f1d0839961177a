package mutants

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Mutant is one broken rule: in the file, Old becomes New; on() in that is true when
// the mutant is chosen.
type Mutant struct {
	Name     string
	File     string // below internal
	Old, New string
}

const sw = `package %s

import "os"

var chosen = os.Getenv("DW_MUTANT")

func mutant(name string) bool { return chosen == name }
`

// Broken puts every mutant of a list into the text of the sources, by path. It
// fails when a rule is not where the list says.
func Broken(t testing.TB, list []Mutant) map[string]string {
	t.Helper()
	internal, err := filepath.Abs("../../internal")
	if err != nil {
		t.Fatal(err)
	}
	text := map[string]string{}
	for _, m := range list {
		file := filepath.Join(internal, m.File)
		if text[file] == "" {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text[file] = string(b)
		}
		if n := strings.Count(text[file], m.Old); n != 1 {
			t.Errorf("mutant %q: %s has %d times\n%s", m.Name, m.File, n, m.Old)
			continue
		}
		text[file] = strings.Replace(text[file], m.Old, strings.ReplaceAll(m.New, "on()", fmt.Sprintf("mutant(%q)", m.Name)), 1)
		text[filepath.Join(filepath.Dir(file), "mutant.go")] = fmt.Sprintf(sw, filepath.Base(filepath.Dir(file)))
	}
	if t.Failed() {
		t.FailNow()
	}
	return text
}

// Build compiles the test programs of packages with every mutant of a list in
// them, and returns where each is. DW_MUTANT in their environment chooses one.
func Build(t testing.TB, list []Mutant, pkgs ...string) map[string]string {
	t.Helper()
	dir, text := t.TempDir(), Broken(t, list)
	replace := map[string]string{}
	for file, s := range text {
		replace[file] = filepath.Join(dir, fmt.Sprintf("%d.go", len(replace)))
		if err := os.WriteFile(replace[file], []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlay, b, 0o600); err != nil {
		t.Fatal(err)
	}
	exes := map[string]string{}
	for _, pkg := range pkgs {
		if exes[pkg] != "" {
			continue
		}
		exes[pkg] = filepath.Join(dir, strings.ReplaceAll(pkg, "/", "-"))
		cmd := exec.Command("go", "test", "-c", "-overlay", overlay, "-o", exes[pkg], pkg)
		if b, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd.Args, err, b)
		}
	}
	return exes
}
