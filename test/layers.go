package test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

const module = "datawatch"

// maxLines is the length of a source file that can still be read in one go.
const maxLines = 600

// layer is a set of packages; a package may import its own layer where same
// allows it, and every layer further down.
type layer struct {
	name     string
	prefixes []string // directories
}

// layers from the top down. A package belongs to the layer whose longest prefix
// fits.
var layers = []layer{
	{"programs", []string{"cmd"}},
	{"tests", []string{"test"}},
	{"applications", []string{"internal/app"}},
	{"public packages", []string{"driver", "dwmon"}},
	{"SQL", []string{"internal/sql"}},
	{"high availability", []string{"internal/ha"}},
	{"replication", []string{"internal/repl"}},
	{"storage", []string{"internal/storage"}},
	{"tools of every layer", []string{"internal/config", "internal/event", "internal/wire", "internal/ha/proto", "internal/certs", "internal/secure", "internal/vfs", "internal/clock", "internal/logfile", "internal/metrics"}},
	{"words", []string{"internal/base"}},
}

// reach forbids a package any path of imports to another.
type reach struct {
	from, to, why string
}

var reaches = []reach{
	{"internal/ha/fsm", "net", "watcher decisions are pure: events in, actions out"},
	{"internal/ha/fsm", "os", "watcher decisions are pure: events in, actions out"},
	{"internal/ha/confirm", "net", "monitor decisions are pure: events in, actions out"},
	{"internal/ha/confirm", "os", "monitor decisions are pure: events in, actions out"},
	{"driver", "internal/storage", "clients must not link the storage engine"},
	{"dwmon", "internal/storage", "monitor programs must not link the storage engine"},
	{"internal/storage/pagestore", "github.com/ncruces/go-sqlite3", "the page store stays free of the SQL engine's binding"},
	{"internal/base", "net", "base holds words only"},
}

// use forbids mentioning a function or package in some directories.
type use struct {
	dirs  []string // prefixes; programs (generators) and packages for tests in them are free
	pkg   string   // import path
	names []string // "" element: the import itself
	why   string
}

var injected = []string{"internal/storage", "internal/repl", "internal/ha", "internal/sql"}

var uses = []use{
	{[]string{"internal/ha/fsm", "internal/ha/confirm"}, "time", []string{"Now", "Since", "Until", "Sleep", "After", "NewTimer", "NewTicker", "Tick"}, "decisions take the time as an argument"},
	{[]string{"internal/ha/fsm", "internal/ha/confirm"}, "math/rand", []string{""}, "decisions are repeatable"},
	{[]string{"internal/ha/fsm", "internal/ha/confirm"}, "math/rand/v2", []string{""}, "decisions are repeatable"},
	{[]string{"internal/ha/fsm", "internal/ha/confirm"}, "sync", []string{""}, "decisions run on one goroutine, which the driver owns"},
	{injected, "time", []string{"Now", "Since", "Until", "Sleep", "Tick", "After"}, "time is injected (clock.Clock), so that a cluster runs under virtual time"},
	{injected, "os", []string{"Open", "OpenFile", "Create", "ReadFile", "WriteFile", "Remove", "RemoveAll", "Rename", "Mkdir", "MkdirAll", "ReadDir", "Stat"}, "files are injected (vfs.FS), so that crashes and full disks can be tested"},
	{injected, "net", []string{"Dial", "DialTimeout", "DialTCP", "Listen", "ListenTCP", "Dialer", "ListenConfig"}, "connections are injected, so that networks can be cut in tests"},
}

// defaults are places where a package offers the real thing for programs that
// inject nothing else, or that no simulation has to control: "directory
// package.name", each with its reason.
var defaults = map[string]string{
	"internal/repl/mal net.Dialer":        "used when Config.Dial is nil",
	"internal/repl/mal net.ListenConfig":  "used when Config.Listen is nil",
	"internal/ha/monitor net.Dialer":      "used when Config.Dial is nil",
	"internal/ha/watcher net.Dialer":      "used when Deps.Dial is nil",
	"internal/ha/watcher net.Listen":      "used when Deps.Listen is nil",
	"internal/ha/watcher os.MkdirAll":     "OSProcesses starts real processes",
	"internal/ha/watcher os.OpenFile":     "OSProcesses opens the log of a process",
	"internal/ha/watcher os.ReadFile":     "OSProcesses reads /proc",
	"internal/ha/watcher os.Rename":       "output of a process is put aside",
	"internal/storage/pagestore time.Now": "used when Options.Now is nil",
	"internal/sql/session time.Now":       "times that statements ask for and views show, and the limits of one session",
	"internal/sql/session time.Since":     "how long a commit waits for company, at most 2 ms; how long a slow statement took",
	"internal/sql/session time.Until":     "the limits of one session",
}

// tree is what the rules look at.
type tree struct {
	imports map[string]map[string]string // package directory -> import path -> file:line
	calls   map[string][]mention         // package directory -> qualified names it mentions
	lines   map[string]int               // file -> lines
	mains   map[string]bool              // package directories that are programs
}

type mention struct {
	pkg, name, at string
}

// readTree parses every Go file below root except tests and testdata; names
// are relative to root.
func readTree(root fs.FS) (*tree, error) {
	t := &tree{imports: map[string]map[string]string{}, calls: map[string][]mention{}, lines: map[string]int{}, mains: map[string]bool{}}
	fset := token.NewFileSet()
	err := fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); p != "." && (strings.HasPrefix(n, ".") || n == "testdata" || n == "bin" || n == "run") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		src, err := fs.ReadFile(root, p)
		if err != nil {
			return err
		}
		t.lines[p] = strings.Count(string(src), "\n")
		if strings.HasSuffix(p, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(fset, p, src, parser.SkipObjectResolution)
		if err != nil {
			return fmt.Errorf("parse %s: %w", p, err)
		}
		t.add(path.Dir(p), f, fset)
		return nil
	})
	return t, err
}

func (t *tree) add(dir string, f *ast.File, fset *token.FileSet) {
	at := func(pos token.Pos) string {
		p := fset.Position(pos)
		return filepath.ToSlash(p.Filename) + ":" + strconv.Itoa(p.Line)
	}
	if t.imports[dir] == nil {
		t.imports[dir] = map[string]string{}
	}
	t.mains[dir] = f.Name.Name == "main"
	names := map[string]string{}
	for _, s := range f.Imports {
		ip, _ := strconv.Unquote(s.Path.Value)
		t.imports[dir][ip] = at(s.Pos())
		name := path.Base(ip)
		if name == "v2" {
			name = path.Base(path.Dir(ip))
		}
		if s.Name != nil {
			name = s.Name.Name
		}
		names[name] = ip
		t.calls[dir] = append(t.calls[dir], mention{ip, "", at(s.Pos())})
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if id, ok := sel.X.(*ast.Ident); ok {
				if ip, ok := names[id.Name]; ok {
					t.calls[dir] = append(t.calls[dir], mention{ip, sel.Sel.Name, at(sel.Pos())})
				}
			}
		}
		return true
	})
}

// under says whether p is dir or lies below it.
func under(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

func underAny(p string, dirs []string) bool {
	for _, d := range dirs {
		if under(p, d) {
			return true
		}
	}
	return false
}

// layerOf is the index into layers, -1 for a package that belongs to none.
func layerOf(dir string) int {
	best, longest := -1, -1
	for i, l := range layers {
		for _, p := range l.prefixes {
			if under(dir, p) && len(p) > longest {
				best, longest = i, len(p)
			}
		}
	}
	return best
}

// check returns every violation, each with its place and the reason.
func (t *tree) check() []string {
	var bad []string
	for dir, imps := range t.imports {
		from := layerOf(dir)
		if from < 0 && dir != "." {
			bad = append(bad, fmt.Sprintf("%s: package belongs to no layer; architecture: programs, applications, public packages, SQL, high availability, replication, storage, tools, words", dir))
			continue
		}
		for ip, at := range imps {
			rel, ok := strings.CutPrefix(ip, module+"/")
			if !ok {
				continue
			}
			if to := layerOf(rel); to >= 0 && to < from {
				bad = append(bad, fmt.Sprintf("%s: %s (%s) imports %s (%s): imports go downward only", at, dir, layers[from].name, rel, layers[to].name))
			}
		}
	}
	for _, r := range reaches {
		for dir := range t.imports {
			if !under(dir, r.from) {
				continue
			}
			if chain := t.path(dir, r.to, map[string]bool{}); chain != nil {
				bad = append(bad, fmt.Sprintf("%s reaches %s through %s: %s", dir, r.to, strings.Join(chain, " -> "), r.why))
			}
		}
	}
	for _, u := range uses {
		for dir, ms := range t.calls {
			if !underAny(dir, u.dirs) || t.mains[dir] || strings.HasSuffix(dir, "test") {
				continue
			}
			for _, m := range ms {
				if m.pkg != u.pkg {
					continue
				}
				for _, n := range u.names {
					if n == m.name && defaults[dir+" "+m.pkg+"."+m.name] == "" {
						bad = append(bad, fmt.Sprintf("%s: %s.%s: %s", m.at, m.pkg, m.name, u.why))
					}
				}
			}
		}
	}
	for f, n := range t.lines {
		if n > maxLines {
			bad = append(bad, fmt.Sprintf("%s has %d lines: more than %d cannot be read in one go; split it by subject", f, n, maxLines))
		}
	}
	sort.Strings(bad)
	return bad
}

// path finds a chain of imports from a package of ours to target, through
// packages of ours; nil when there is none.
func (t *tree) path(dir, target string, seen map[string]bool) []string {
	if seen[dir] {
		return nil
	}
	seen[dir] = true
	for ip := range t.imports[dir] {
		rel, ours := strings.CutPrefix(ip, module+"/")
		if ours && under(rel, target) || !ours && under(ip, target) {
			return []string{dir, ip}
		}
		if ours {
			if rest := t.path(rel, target, seen); rest != nil {
				return append([]string{dir}, rest...)
			}
		}
	}
	return nil
}
