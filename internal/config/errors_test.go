package config

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite golden files")

func parseAny(file, name string, data []byte) error {
	var err error
	switch file {
	case "dm.ini":
		_, err = ParseDM(name, data)
	case "dmmal.ini":
		_, err = ParseMAL(name, data)
	case "dmarch.ini":
		_, err = ParseArch(name, data)
	case "dmwatcher.ini":
		_, err = ParseWatcher(name, data)
	case "dmmonitor.ini":
		_, err = ParseMonitor(name, data)
	case "dmtimer.ini":
		_, err = ParseTimers(name, data)
	case "dmmpp.ini":
		_, err = ParseMPP(name, data)
	case "dmdcr.ini":
		_, err = ParseDCR(name, data)
	case "dm_svc.conf":
		_, err = ParseSVC(name, data)
	default:
		panic(file)
	}
	return err
}

// All faults of a file are reported, worded as in testdata/errors/*.golden.
func TestErrors(t *testing.T) {
	for _, file := range []string{"dm.ini", "dmmal.ini", "dmarch.ini", "dmwatcher.ini", "dmmonitor.ini", "dmtimer.ini", "dm_svc.conf"} {
		t.Run(file, func(t *testing.T) {
			path := filepath.Join("testdata", "errors", file)
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			err = parseAny(file, file, data)
			var es Errors
			if !errors.As(err, &es) {
				t.Fatalf("not a list of errors: %v", err)
			}
			for _, e := range es {
				if e.File != file {
					t.Errorf("error without file: %v", e)
				}
			}
			got := err.Error() + "\n"
			if *update {
				if err := os.WriteFile(path+".golden", []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path + ".golden")
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// base72 are the files of manual 7.2; each case breaks one of them.
func base72(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, f := range []string{"dm.ini", "dmmal.ini", "dmarch.ini", "dmwatcher.ini", "dmmonitor.ini"} {
		b, err := os.ReadFile(filepath.Join("testdata", "manual72", f))
		if err != nil {
			t.Fatal(err)
		}
		files[f] = string(b)
	}
	return files
}

func reader(files map[string]string) ReadFunc {
	return func(path string) ([]byte, error) {
		s, ok := files[path]
		if !ok {
			return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		}
		return []byte(s), nil
	}
}

// Files that are right by themselves and do not fit together (manual 5.7).
func TestCrossChecks(t *testing.T) {
	for _, c := range []struct{ name, file, old, new, want string }{
		{"all is well", "dm.ini", "", "", ""},
		{"client port differs", "dm.ini", "PORT_NUM    = 32141", "PORT_NUM = 32140", "dmmal.ini:8: [MAL_INST1] MAL_INST_PORT = 32141: differs from PORT_NUM = 32140 of dm.ini"},
		{"instance not in dmmal.ini", "dm.ini", "GRP1_RT_01", "GRP1_RT_03", "no section has INSTANCE_NAME GRP1_RT_03"},
		{"both watcher ports, different", "dm.ini", "MAL_INI ", "DW_PORT = 4444\nMAL_INI ", "MAL_INST_DW_PORT = 33141: differs from DW_PORT = 4444"},
		{"MAL_PORT equals PORT_NUM", "dmmal.ini", "61141", "32141", "is also [MAL_INST1] MAL_PORT on host"},
		{"listen address differs", "dm.ini", "MAL_INI ", "LISTEN_IP = 10.0.0.1\nMAL_INI ", "MAL_INST_HOST = 192.168.1.131: differs from LISTEN_IP"},
		{"archive to itself", "dmarch.ini", "GRP1_RT_02", "GRP1_RT_01", "dmarch.ini:3: [ARCHIVE_REALTIME] ARCH_DEST = GRP1_RT_01: is this instance itself"},
		{"archive to a stranger", "dmarch.ini", "GRP1_RT_02", "GRP1_RT_09", "is not an instance of dmmal.ini"},
		{"no local archive", "dmarch.ini", "[ARCHIVE_LOCAL1]\nARCH_TYPE     = LOCAL #local\nARCH_DEST     = /dm/data/DAMENG/arch", "[X]\nARCH_TYPE = ASYNC\nARCH_TIMER_NAME = T\nARCH_DEST = GRP1_RT_09", "no LOCAL archive"},
		{"GLOBAL without a remote archive", "dmarch.ini", "[ARCHIVE_REALTIME]\nARCH_TYPE     = REALTIME  #realtime\nARCH_DEST     = GRP1_RT_02", "[L2]\nARCH_TYPE = LOCAL\nARCH_DEST = /elsewhere", "needs a REALTIME or TIMELY archive"},
		{"GLOBAL without links", "dm.ini", "MAL_INI     = 1", "MAL_INI     = 0", "needs MAL_INI = 1"},
		{"no port for the watcher", "dmmal.ini", "MAL_INST_DW_PORT  = 33141", "", "instance has no port for its watcher"},
		{"watchers out of reach", "dmmal.ini", "MAL_DW_PORT   = 52142", "", "MAL_DW_PORT: is missing"},
		{"dm.ini is not there", "dmwatcher.ini", "= dm.ini", "= other.ini", "other.ini: cannot be read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := base72(t)
			if c.old != "" && !strings.Contains(files[c.file], c.old) {
				t.Fatalf("%s does not hold %q", c.file, c.old)
			}
			files[c.file] = strings.Replace(files[c.file], c.old, c.new, 1)
			_, _, err := LoadWatcherFrom(reader(files), "dmwatcher.ini")
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v\nwant ... %s ...", err, c.want)
			}
		})
	}
	t.Run("switched on, file missing", func(t *testing.T) {
		files := base72(t)
		delete(files, "dmarch.ini")
		_, err := LoadInstanceFrom(reader(files), "dm.ini")
		if err == nil || !strings.Contains(err.Error(), "ARCH_INI = 1: but dmarch.ini does not exist") {
			t.Error(err)
		}
	})
	t.Run("monitor disagrees", func(t *testing.T) {
		files := base72(t)
		w, insts, err := LoadWatcherFrom(reader(files), "dmwatcher.ini")
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Replace(strings.Replace(files["dmmonitor.ini"], "453331", "453332", 1), "142:52142", "142:52143", 1)
		m, err := ParseMonitor("dmmonitor.ini", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		err = CheckMonitor(m, w.Groups[0], insts[0].MAL)
		if err == nil || !strings.Contains(err.Error(), "differs from INST_OGUID = 453331") || !strings.Contains(err.Error(), "lacks 192.168.0.142:52142") {
			t.Error(err)
		}
	})
	t.Run("missing file keeps its cause", func(t *testing.T) {
		if _, err := LoadDM(filepath.Join(t.TempDir(), "dm.ini")); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	})
}

// TLS that is asked of everybody needs a certificate.
func TestSSLRequire(t *testing.T) {
	_, err := ParseDM("dm.ini", []byte("INSTANCE_NAME = A\nSSL_REQUIRE = ALL\n"))
	if err == nil || !strings.Contains(err.Error(), "dm.ini:2: SSL_REQUIRE") || !strings.Contains(err.Error(), "needs SSL_CERT and SSL_KEY") {
		t.Error(err)
	}
	if _, err := ParseDM("dm.ini", []byte("INSTANCE_NAME = A\nSSL_REQUIRE = ALL\nSSL_CERT = a\nSSL_KEY = b\n")); err != nil {
		t.Error(err)
	}
}
