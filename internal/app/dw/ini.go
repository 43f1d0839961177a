package dw

import (
	"datawatch/internal/config"
	"datawatch/internal/vfs"
)

// setKeys changes keys of a dm.ini, keeping its comments.
func setKeys(path string, keys [][2]string) error {
	for _, kv := range keys {
		if err := config.SetParam(vfs.OS{}, path, "dm.ini", "", kv[0], kv[1]); err != nil {
			return err
		}
	}
	return nil
}
