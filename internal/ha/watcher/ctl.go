package watcher

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"datawatch/internal/config"
	"datawatch/internal/vfs"
)

// dmwatcher.ctl exists only for a split database (manual 3.5): three lines,
// version, status, and the description between [!!! and !!!].
const ctlVersion = "DMWATCHER CTL 1"

// readCtl reports whether the database is marked Split, and why. A file that
// cannot be understood counts as Split: it was written for that reason only.
func readCtl(fsys vfs.FS, path string) (split bool, desc string, err error) {
	b, err := config.ReadFrom(fsys)(path)
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
func writeCtl(fsys vfs.FS, path, desc string) error {
	desc = strings.Join(strings.Fields(desc), " ")
	if err := config.SaveFile(fsys, path, fmt.Appendf(nil, "%s\nSTATUS SPLIT\n[!!! %s !!!]\n", ctlVersion, desc)); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// dropCtl removes the mark.
func dropCtl(fsys vfs.FS, path string) error {
	if err := fsys.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	if err := fsys.SyncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}
