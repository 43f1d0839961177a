package cluster

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// mutant is a broken rule: in the file, old becomes new; on() in it is true when
// the mutant is chosen.
type mutant struct {
	name     string
	file     string // below internal
	old, new string
}

// mutants of what no model of the decisions can show: the life of a commit.
var mutants = []mutant{
	{"acknowledged before the standby has it", "storage/engine/flush.go",
		"			return e.sendFailed(\"realtime archive\", p.pkg, err)\n", "			if !on() {\n				return e.sendFailed(\"realtime archive\", p.pkg, err)\n			}\n"},
	{"acknowledged before it is on disk", "storage/rlog/rlog.go",
		"		if touched[i] {\n", "		if touched[i] && !on() {\n"},
	{"a reader sees what is not hardened", "storage/pagestore/handle.go",
		"			h.snap = s.pin(s.hard)\n", "			if on() {\n				h.snap = s.pin(s.newest)\n			} else {\n				h.snap = s.pin(s.hard)\n			}\n"},
	{"a takeover forgets the kept package", "repl/standby/control.go",
		"	if k := r.kept; k != nil {\n		r.kept = nil\n		r.push(k)\n", "	if k := r.kept; k != nil {\n		r.kept = nil\n		if !on() {\n			r.push(k)\n		}\n"},
	{"a standby replays what it should keep", "repl/standby/standby.go",
		"	if h.Kind == mal.KindRealtime {\n		r.kept = first\n", "	if h.Kind == mal.KindRealtime && on() {\n		r.push(first)\n		return true, nil\n	}\n	if h.Kind == mal.KindRealtime {\n		r.kept = first\n"},
	{"a package is kept that shall be dropped", "repl/standby/control.go",
		"	r.kept, r.frozen = nil, false\n	r.setClaim(Claim{})\n", "	if r.frozen = false; !on() {\n		r.kept = nil\n	}\n	r.setClaim(Claim{})\n"},
	{"a standby does not compare histories", "repl/standby/standby.go",
		"	case p.OpenID == t.id && guid == t.guid:\n		return nil\n", "	case p.OpenID == t.id && (guid == t.guid || on()):\n		return nil\n"},
	{"an archive becomes Invalid and the standby is not told", "repl/ship/state.go",
		"			err = s.tellInvalid(ctx, t)\n", "			if !on() {\n				err = s.tellInvalid(ctx, t)\n			}\n"},
	{"the confirm monitor writes nothing down", "ha/monitor/store.go",
		"	path := filepath.Join(s.dir, recordName(group))\n	tmp", "	if on() {\n		return nil\n	}\n	path := filepath.Join(s.dir, recordName(group))\n	tmp"},
}

const sw = `package %s

import "os"

var chosen = os.Getenv("DW_MUTANT")

func mutant(name string) bool { return chosen == name }
`

// TestMutantsFit: the rules are where the list says.
func TestMutantsFit(t *testing.T) { broken(t) }

// broken returns the sources with every mutant in them, by path.
func broken(t *testing.T) map[string]string {
	t.Helper()
	internal, err := filepath.Abs("../../internal")
	if err != nil {
		t.Fatal(err)
	}
	text := map[string]string{}
	for _, m := range mutants {
		file := filepath.Join(internal, m.file)
		if text[file] == "" {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text[file] = string(b)
		}
		if n := strings.Count(text[file], m.old); n != 1 {
			t.Fatalf("mutant %q: %s has %d times\n%s", m.name, m.file, n, m.old)
		}
		text[file] = strings.Replace(text[file], m.old, strings.ReplaceAll(m.new, "on()", fmt.Sprintf("mutant(%q)", m.name)), 1)
		text[filepath.Join(filepath.Dir(file), "mutant.go")] = fmt.Sprintf(sw, filepath.Base(filepath.Dir(file)))
	}
	return text
}

// build compiles this package from them.
func build(t *testing.T) (exe string) {
	t.Helper()
	dir, text := t.TempDir(), broken(t)
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
	exe = filepath.Join(dir, "mutants")
	cmd := exec.Command("go", "test", "-c", "-overlay", overlay, "-o", exe, ".")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, b)
	}
	return exe
}

// TestMutants: with any of the rules broken, some life fails. DW_CLUSTER_MUTANTS is
// how many lives may pass (make mutants), DW_MUTANT a part of the names of the
// rules to break.
func TestMutants(t *testing.T) {
	var limit uint64
	if number(t, "DW_CLUSTER_MUTANTS", &limit); limit == 0 {
		t.Skip("builds a test program and lives for minutes: make mutants")
	}
	exe := build(t)
	for _, m := range mutants {
		if !strings.Contains(m.name, os.Getenv("DW_MUTANT")) {
			continue
		}
		began := time.Now()
		f := lives(exe, []string{"DW_MUTANT=" + m.name}, 1, limit, nil)
		if f == nil {
			t.Errorf("%s: no life of %d fails (%s)", m.name, limit, m.file)
			continue
		}
		t.Logf("%-60s seed %d, %s: %s", m.name, f.Seed, time.Since(began).Round(100*time.Millisecond), strings.SplitN(f.Faults[0], "\n", 2)[0])
	}
}
