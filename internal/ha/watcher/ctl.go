package watcher

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// dmwatcher.ctl exists only for a split database (manual 3.5): three lines,
// version, status, and the description between [!!! and !!!].
const ctlVersion = "DMWATCHER CTL 1"

// readCtl reports whether the database is marked Split, and why. A file that
// cannot be understood counts as Split: it was written for that reason only.
func readCtl(path string) (split bool, desc string, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, "", nil
	}
	if err != nil {
		return false, "", fmt.Errorf("control file: %w", err)
	}
	l := strings.SplitN(string(bytes.TrimSpace(b)), "\n", 3)
	if len(l) != 3 || l[0] != ctlVersion || l[1] != "STATUS SPLIT" {
		return true, "the control file " + path + " is damaged or of another version", nil
	}
	return true, strings.TrimSpace(strings.TrimSuffix(strings.TrimPrefix(l[2], "[!!!"), "!!!]")), nil
}

// writeCtl marks the database Split.
func writeCtl(path, desc string) error {
	desc = strings.Join(strings.Fields(desc), " ")
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = fmt.Fprintf(f, "%s\nSTATUS SPLIT\n[!!! %s !!!]\n", ctlVersion, desc)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return errors.Join(d.Sync(), d.Close())
}
