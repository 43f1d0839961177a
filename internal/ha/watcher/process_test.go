package watcher

import (
	"os"
	"path/filepath"
	"testing"
)

// TestOutputPutAside: what an instance prints does not grow for ever.
func TestOutputPutAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "A_start.log")
	write := func() {
		t.Helper()
		f, err := openOutput(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString("x"); err != nil {
			t.Fatal(err)
		}
	}
	size := func(p string) int64 {
		fi, err := os.Stat(p)
		if err != nil {
			return -1
		}
		return fi.Size()
	}
	write()
	write()
	if size(path) != 2 {
		t.Errorf("%d bytes, want 2: a small file is continued", size(path))
	}
	if err := os.Truncate(path, maxOutput); err != nil {
		t.Fatal(err)
	}
	write()
	if size(path) != 1 || size(path+".old") != maxOutput {
		t.Errorf("%d bytes, old %d", size(path), size(path+".old"))
	}
}
