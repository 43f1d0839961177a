// Package redo owns the form of redo: records of page changes, physical
// transactions (PTX, manual 2.2.6) made of them and packages (RLOG_PKG, manual
// 2.2.7) made of those. It is pure: bytes in, bytes out. FORMAT.md has the
// byte tables.
//
// It keeps its part of
//   - G5: a package names its predecessor (GSEQ, PrevLSN) and its producer's
//     lineage (OpenID), all under the checksum;
//   - G8 and G9: decoding never panics, believes no length before it has
//     checked it and allocates only for bytes that are there or decompress one
//     block at a time; damage is ErrCorrupt, a newer format ErrVersion.
//
// Where redo is kept, in what order, and when it may be applied is left to
// rlog, arch, pagestore and engine.
package redo

import (
	"errors"
	"fmt"
	"hash/crc32"
)

var (
	// ErrCorrupt means bytes that are not what was encoded.
	ErrCorrupt = errors.New("redo is damaged")
	// ErrShort means that the bytes end before the package does; it is also ErrCorrupt.
	ErrShort = fmt.Errorf("%w: ends too early", ErrCorrupt)
	// ErrVersion means redo written by a newer program.
	ErrVersion = errors.New("redo format is newer than this program")
	// ErrTooLarge means more redo than a package can hold.
	ErrTooLarge = errors.New("too much redo for one package")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func corrupt(format string, a ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, a...))
}
