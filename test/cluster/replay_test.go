package cluster

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// What the Go runtime decides by chance is made to follow from the seed of a
// life: lives run in a program whose package runtime has the changes below. They
// are made in copies of this Go's files. Only package runtime is compiled again,
// and linked with everything else as it is.
//
// Other packages refer to symbols of runtime by number, so a change may not add
// any: what is new has a linkname and no arguments. That is checked: with and
// without the changes the package has the same fingerprint, which is a hash of
// all that others can know. Where a change does not fit (another version of Go)
// or the fingerprint differs, lives run as always, and TestSeeds says so.

// madeFor is the version of Go that the changes are made for: there they must fit.
const madeFor = "go1.26"

// change replaces a text that is in a file of package runtime once.
type change struct{ file, old, new string }

var changes = []change{
	// Seeds of maps, their iterators, math/rand and hash/maphash.
	{"rand.go", "	mp := getg().m\n	c := &mp.chacha8\n",
		"	mp := getg().m; if mp.curg != nil && mp.curg.bubble != nil { return lifeRand() }\n	c := &mp.chacha8\n"},
	// The seed of every hash, and where the heap lies: pointers are keys of maps.
	{"rand.go", "	globalRand.state.Init(*seed)\n", "	clear(seed[:]); seed[0] = 1; globalRand.state.Init(*seed)\n"},
	// Which ready case a select takes.
	{"select.go", "j := cheaprandn(uint32(norder + 1))",
		"j := cheaprandn(uint32(norder + 1)); if gp.bubble != nil { j = uint32(uint64(uint32(lifeRand())) * uint64(norder+1) >> 32) }"},
	// The order of timers of the same instant.
	{"time.go", "t.rand = cheaprand()", "t.rand = uint32(lifeRand())"},
	// A sync.Mutex is handed over when somebody has waited for a millisecond.
	{"sema.go", "func internal_sync_nanotime() int64 {\n	return nanotime()",
		"func internal_sync_nanotime() int64 {\n	if b := getg().bubble; b != nil { return b.now }; return nanotime()"},
	// Nobody is interrupted because 10 ms have passed, and nobody else goes on
	// during a system call (the first local time reads a file): that would also
	// start a thread, whose stack lies in the heap and moves what comes later.
	{"proc.go", "func retake(now int64) uint32 {\n	n := 0\n", "func retake(now int64) uint32 {\n	n := 0; if sched.maxmcount > 0 { return 0 }\n"},
	// A life begins.
	{"synctest.go", "	gp.bubble = bubble\n	defer func() {\n		gp.bubble = nil\n	}()\n\n	// This is newproc,",
		"	gp.bubble = bubble; lifeBegins()\n	defer func() {\n		gp.bubble = nil\n	}()\n\n	// This is newproc,"},
}

// added is a file of package runtime: one generator (splitmix64) for all of a
// bubble, which begins with the seed of the life. Every 61st turn of the
// scheduler is different from others, so turns are counted from there on.
const added = `package runtime

import _ "unsafe"

//go:linkname lifeState datawatch.lifeState
var lifeState uint64

//go:linkname lifeBegins datawatch.lifeBegins
func lifeBegins() {
	lifeState = 0
	for _, c := range []byte(gogetenv("DW_CLUSTER_LIFE")) {
		lifeState = lifeState*31 + uint64(c)
	}
	getg().m.p.ptr().schedtick = 0
}

//go:nosplit
//go:linkname lifeRand datawatch.lifeRand
func lifeRand() uint64 {
	lifeState += 0x9e3779b97f4a7c15
	x := lifeState
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
`

// program returns the program that lives lives, and why they do not repeat
// themselves exactly, nil when they do.
var program = sync.OnceValues(func() (exe string, why error) {
	sweep(os.TempDir())
	// The name has the same length each time: it lies in the memory of the program.
	exe = filepath.Join(os.TempDir(), fmt.Sprintf("%s%010d", lifeName, os.Getpid()))
	remove = func() { os.Remove(exe) }
	if err := link(exe); err != nil {
		return os.Args[0], err
	}
	return exe, nil
})

var errRace = errors.New("the race detector has its own order of goroutines")

// lifeName begins the names of what program makes in the temporary directory; the
// number of the process follows.
const lifeName = "datawatch-life-"

// sweep removes what was made in dir by processes that are gone: one that is
// killed, or runs out of its time, removes nothing.
func sweep(dir string) {
	made, err := filepath.Glob(filepath.Join(dir, lifeName+"*"))
	if err != nil {
		return
	}
	for _, file := range made {
		number, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(file), lifeName), ".")
		pid, err := strconv.Atoi(number)
		if err == nil && pid > 0 && syscall.Kill(pid, 0) == syscall.ESRCH {
			os.RemoveAll(file)
		}
	}
}

func TestSweep(t *testing.T) {
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	name := func(pid int, more string) string { return fmt.Sprintf("%s%010d%s", lifeName, pid, more) }
	stay := []string{name(os.Getpid(), ""), name(os.Getppid(), ".7"), lifeName + "x", name(0, ""), "other"}
	for _, n := range append(stay, name(gone.Process.Pid, ""), name(gone.Process.Pid, ".123")) {
		if err := os.MkdirAll(filepath.Join(dir, n, "in"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	sweep(dir)
	var left []string
	all, _ := os.ReadDir(dir)
	for _, e := range all {
		left = append(left, e.Name())
	}
	slices.Sort(stay)
	if !slices.Equal(left, stay) {
		t.Errorf("left: %q, want %q", left, stay)
	}
}

// remove removes what program made.
var remove = func() {}

func TestMain(m *testing.M) {
	code := m.Run()
	remove()
	os.Exit(code)
}

// link makes this test program with the changed runtime.
func link(exe string) error {
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, s := range b.Settings {
			if s.Key == "-race" && s.Value == "true" {
				return errRace
			}
		}
	}
	dir, err := os.MkdirTemp("", fmt.Sprintf("%s%010d.", lifeName, os.Getpid()))
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	changed, err := changedRuntime(dir)
	if err != nil {
		return err
	}
	list, err := goTool("list", "-test", "-deps", "-export", "-f", "{{if .Export}}{{.ImportPath}}={{.Export}}{{end}}", ".")
	if err != nil {
		return err
	}
	const this = "datawatch/test/cluster"
	var main string
	var b strings.Builder
	for l := range strings.Lines(list) {
		path, file, _ := strings.Cut(strings.TrimSpace(l), "=")
		switch path {
		case "runtime":
			file = changed
		case this + ".test":
			main = file
		}
		if path != this { // it comes again, with its tests
			fmt.Fprintf(&b, "packagefile %s=%s\n", strings.TrimSuffix(path, " ["+this+".test]"), file)
		}
	}
	cfg := filepath.Join(dir, "importcfg")
	if err := os.WriteFile(cfg, []byte(b.String()), 0o600); err != nil {
		return err
	}
	_, err = goTool("tool", "link", "-s", "-w", "-buildmode=exe", "-X=testing.testBinary=1", "-importcfg="+cfg, "-o="+exe, main)
	return err
}

// changedRuntime makes the changed package runtime below dir.
func changedRuntime(dir string) (string, error) {
	root, err := goTool("env", "GOROOT")
	if err != nil {
		return "", err
	}
	was, now := map[string]string{}, map[string]string{}
	for _, c := range changes {
		if was[c.file] == "" {
			b, err := os.ReadFile(filepath.Join(root, "src", "runtime", c.file))
			if err != nil {
				return "", err
			}
			// Files that an overlay replaces are known by other names.
			was[c.file], now[c.file] = string(b)+"// Not changed.\n", string(b)
		}
		if n := strings.Count(now[c.file], c.old); n != 1 {
			return "", fmt.Errorf("%s: %s of package runtime has %d times\n%s", runtime.Version(), c.file, n, c.old)
		}
		now[c.file] = strings.Replace(now[c.file], c.old, c.new, 1)
	}
	now["zlife.go"] = added
	var pkg [2][]byte
	for i, text := range []map[string]string{was, now} {
		file, err := compile(keepDir(dir), root, text)
		if err != nil {
			return "", err
		}
		if pkg[i], err = os.ReadFile(file); err != nil {
			return "", err
		}
	}
	real, err := goTool("list", "-export", "-f", "{{.Export}}", "runtime")
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile(real)
	if err != nil {
		return "", err
	}
	p, q, r := fingerprint(b), fingerprint(pkg[0]), fingerprint(pkg[1])
	if p == nil || q == nil || r == nil || !bytes.Equal(q, r) {
		return "", fmt.Errorf("%s: with the changes package runtime is another one to others, %x, not %x", runtime.Version(), r, q)
	}
	copy(r, p)
	file := filepath.Join(dir, "runtime.a")
	return file, os.WriteFile(file, pkg[1], 0o600)
}

// fingerprint is the one in the header of an object file of Go.
func fingerprint(pkg []byte) []byte {
	const magic = "\x00go120ld"
	i := bytes.Index(pkg, []byte(magic))
	if i < 0 {
		return nil
	}
	return pkg[i+len(magic):][:8]
}

// compile compiles package runtime with other text in some files. They lie
// where the next run has them too, so that Go finds what it has compiled.
func compile(keep, root string, text map[string]string) (string, error) {
	h := sha256.New()
	for _, name := range sortedKeys(text) {
		fmt.Fprintf(h, "%q", text[name])
	}
	dir := filepath.Join(keep, fmt.Sprintf("runtime-%x", h.Sum(nil)[:8]))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	replace := map[string]string{}
	for name, s := range text {
		replace[filepath.Join(root, "src", "runtime", name)] = filepath.Join(dir, name)
		if err := put(filepath.Join(dir, name), []byte(s)); err != nil {
			return "", err
		}
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	if err := put(overlay, b); err != nil {
		return "", err
	}
	return goTool("list", "-export", "-overlay="+overlay, "-f", "{{.Export}}", "runtime")
}

// keepDir is where what is compiled is kept, or dir where that cannot be: on a
// machine without a home, or with one that cannot be written to.
func keepDir(dir string) string {
	cache, err := os.UserCacheDir()
	if err != nil {
		return dir
	}
	keep := filepath.Join(cache, "datawatch")
	if os.MkdirAll(keep, 0o700) != nil {
		return dir
	}
	f, err := os.CreateTemp(keep, "")
	if err != nil {
		return dir
	}
	f.Close()
	os.Remove(f.Name())
	return keep
}

// put writes a file unless it is there: somebody else may be reading it.
func put(file string, b []byte) error {
	if was, err := os.ReadFile(file); err == nil && bytes.Equal(was, b) {
		return nil
	}
	tmp := fmt.Sprintf("%s.%d", file, os.Getpid())
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, file)
}

// goTool runs go and returns what it prints.
func goTool(args ...string) (string, error) {
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var out, bad bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &bad
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%v: %w\n%s", cmd.Args, err, &bad)
	}
	return strings.TrimSpace(out.String()), nil
}

// TestReplay: the life of a seed comes again, to the last byte of its trace. It may
// take another try: where a thread of the runtime began at another moment, things
// lie at other addresses, and maps that have pointers as keys another order (one
// of 40 seeds, on a machine with fifteen processes for each processor). With the
// runtime as it is no two lives are equal. DW_REPLAY says how many seeds are tried.
func TestReplay(t *testing.T) {
	exe, why := program()
	if why != nil {
		if strings.HasPrefix(runtime.Version(), madeFor) && !errors.Is(why, errRace) {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	last := uint64(3)
	number(t, "DW_REPLAY", &last)
	for seed := uint64(1); seed <= last; seed++ {
		traces := map[string]int{}
		again := false
		for n := 0; n < 4 && !again; n++ {
			r := lived(exe, nil, seed)
			if r.Trace == "" || len(r.Faults) > 0 {
				t.Fatalf("seed %d: %v", seed, r.Faults)
			}
			traces[r.Trace]++
			again = traces[r.Trace] == 2
		}
		if !again {
			t.Errorf("seed %d: four lives, and none came again: %v", seed, traces)
		} else if len(traces) > 1 {
			t.Logf("seed %d: it came again, after others: %v", seed, traces)
		}
	}
}
