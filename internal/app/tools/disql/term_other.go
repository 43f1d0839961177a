//go:build !linux

package disql

import (
	"errors"
	"os"
)

func isTerminal(f *os.File) bool {
	fi, err := f.Stat()
	return err == nil && fi.Mode()&os.ModeCharDevice != 0
}

func noEcho(*os.File) (func(), error) { return nil, errors.ErrUnsupported }
