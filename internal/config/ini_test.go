package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"datawatch/internal/vfs"
)

// Setting a value changes that value and nothing else.
func TestSet(t *testing.T) {
	for _, c := range []struct{ name, in, section, key, value, want string }{
		{"in place, comment kept", "A = 1 #one\nB=2\n", "", "a", "7", "A = 7 #one\nB=2\n"},
		{"no blanks around =", "A=1\r\nB=2\r\n", "", "B", "3", "A=1\r\nB= 3\r\n"},
		{"empty value before a comment", "A = #one\n", "", "A", "x", "A = x #one\n"},
		{"quoted", "A = \"x y\" # c\n", "", "A", "z", "A = z # c\n"},
		{"needs quotes", "A = 1\n", "", "A", "a #b", "A = \"a #b\"\n"},
		{"new key, no sections", "# top\nA = 1\n# end\n", "", "C", "3", "# top\nA = 1\nC = 3\n# end\n"},
		{"new key before the sections", "# top\n\n[S]\nA = 1\n", "", "C", "3", "# top\n\nC = 3\n[S]\nA = 1\n"},
		{"new key in a section", "[S]\nA = 1\n\n[T]\nA = 2\n", "s", "B", "3", "[S]\nA = 1\nB = 3\n\n[T]\nA = 2\n"},
		{"key of another section stays", "A = 0\n[S]\nA = 1\n[T]\nA = 2\n", "T", "A", "3", "A = 0\n[S]\nA = 1\n[T]\nA = 3\n"},
		{"new section, no line end", "A = 0", "S", "A", "1", "A = 0\n[S]\nA = 1\n"},
		{"empty file", "", "", "A", "1", "A = 1\n"},
		{"byte order mark", "\xef\xbb\xbfA = 1\n", "", "A", "2", "\xef\xbb\xbfA = 2\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := ParseDoc("x.ini", []byte(c.in))
			if err != nil {
				t.Fatal(err)
			}
			if string(d.Bytes()) != c.in {
				t.Fatalf("unchanged text came back as %q", d.Bytes())
			}
			if err := d.Set(c.section, c.key, c.value); err != nil {
				t.Fatal(err)
			}
			if string(d.Bytes()) != c.want {
				t.Errorf("got %q, want %q", d.Bytes(), c.want)
			}
			if v, ok := d.Get(c.section, c.key); !ok || v != c.value {
				t.Errorf("reads back as %q", v)
			}
		})
	}
}

func TestSetRefuses(t *testing.T) {
	for _, c := range []struct{ section, key, value string }{
		{"", "A", "two\nlines"}, {"", "A", `" both "`}, {"", "A=B", "1"}, {"", "", "1"}, {"a]b", "A", "1"}, {"", "A", "\x00"}, {"", "A", "\xff"},
	} {
		d, _ := ParseDoc("x.ini", []byte("A = 1\n"))
		if err := d.Set(c.section, c.key, c.value); err == nil {
			t.Errorf("Set(%q, %q, %q) was accepted: %q", c.section, c.key, c.value, d.Bytes())
		}
		if string(d.Bytes()) != "A = 1\n" {
			t.Errorf("Set(%q, %q, %q) was refused and changed the text", c.section, c.key, c.value)
		}
	}
}

func TestSetParamSaves(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dm.ini")
	text := "INSTANCE_NAME = A # name\nALTER_MODE_STATUS = 1 # by hand\n"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	fsys := vfs.OS{}
	if err := SetParam(fsys, path, "dm.ini", "", "alter_mode_status", "2"); err == nil {
		t.Error("a bad value was saved")
	}
	if err := SetParam(fsys, path, "dm.ini", "", "NO_SUCH", "2"); err == nil {
		t.Error("an unknown parameter was saved")
	}
	if err := SetParam(fsys, path, "dm.ini", "", "alter_mode_status", "0"); err != nil {
		t.Fatal(err)
	}
	got, err := ReadFrom(fsys)(path)
	if want := strings.Replace(text, "= 1 #", "= 0 #", 1); err != nil || string(got) != want {
		t.Errorf("got %q, %v", got, err)
	}
	left, _ := filepath.Glob(path + "*")
	if len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestLimits(t *testing.T) {
	if _, err := ParseDoc("x", make([]byte, MaxFileSize+1)); err == nil {
		t.Error("a file above the limit was read")
	}
	if _, err := ParseDoc("x", []byte("A = \xff\n")); err == nil {
		t.Error("a value that is not UTF-8 was accepted")
	}
	// Comments in another encoding do no harm.
	if _, err := ParseDoc("x", []byte("# \xca\xb5\xc0\xfd\xc3\xfb\nA = 1 #\xca\xb5\n")); err != nil {
		t.Error(err)
	}
}

func TestServices(t *testing.T) {
	s, err := ParseSVC("dm_svc.conf", []byte("dw_svc=(192.168.1.131:5236,[fe80::1%3]:5237,db3)\nLOGIN_MODE =(1)\nSWITCH_TIME=(3)\nSWITCH_INTERVAL=(1000)\n[dw_svc]\nRW_SEPARATE=(1)\n"))
	if err != nil {
		t.Fatal(err)
	}
	v, ok := s.Find("DW_SVC")
	if !ok || len(v.Addrs) != 3 || v.Addrs[1] != (Addr{"fe80::1%3", 5237}) || v.Addrs[2] != (Addr{"db3", 0}) || v.LoginMode != 1 || v.SwitchInterval != 1000 || !v.RWSeparate || v.RWPercent != 25 {
		t.Errorf("%+v", v)
	}
}

// Whatever the bytes: no panic, the text survives, and a value that was set
// reads back.
func FuzzDoc(f *testing.F) {
	for _, pattern := range []string{"testdata/manual72/*.ini", "testdata/errors/*.ini"} {
		names, _ := filepath.Glob(pattern)
		for _, n := range names {
			b, err := os.ReadFile(n)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b, "PORT_NUM", "77 #x")
		}
	}
	f.Add([]byte("A= #c\n"), "A", "")
	f.Fuzz(func(t *testing.T, data []byte, key, value string) {
		for _, file := range Files() {
			if file != "dminit" {
				if err := parseAny(file, "f", data); err != nil && err.Error() == "" {
					t.Fatal("an error without text")
				}
			}
		}
		d, err := ParseDoc("f", data)
		if err != nil {
			return
		}
		if string(d.Bytes()) != string(data) {
			t.Fatalf("text changed: %q", d.Bytes())
		}
		before := d.Entries()
		if d.Set("", key, value) != nil {
			return
		}
		again, err := ParseDoc("f", d.Bytes())
		if err != nil {
			t.Fatalf("after Set(%q, %q): %v in %q", key, value, err, d.Bytes())
		}
		if v, ok := again.Get("", key); !ok || v != value {
			t.Fatalf("Set(%q, %q) reads back as %q in %q", key, value, v, d.Bytes())
		}
		if n := len(again.Entries()); n != len(before) && n != len(before)+1 {
			t.Fatalf("%d entries became %d", len(before), n)
		}
	})
}
