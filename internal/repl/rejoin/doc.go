// Package rejoin brings a database back into its group that has redo which the
// new primary is without, by fetching only the pages which that redo touched
// (docs/decisions/0008). Run is the side that rejoins, Donor the primary's.
//
// It keeps its part of
//   - G5: where the histories part follows from both open histories, and is
//     believed only when the packages around that place say the same, by digest;
//     nothing is fetched or given up on a guess;
//   - G9: everything is on disk, redo given up and pages, before the control file
//     says that the database is another; up to there it is as it was.
//
// What is done to the files is package graft's, that nobody reads or follows
// another history too early package engine's, when it may be done the watcher's.
package rejoin

import (
	"context"
	"crypto/sha256"

	"datawatch/internal/base"
	"datawatch/internal/repl/mal"
	"datawatch/internal/storage/redo"
)

// Transport sends requests to instances; *mal.Node is one.
type Transport interface {
	Call(ctx context.Context, inst string, typ uint16, parts ...[]byte) ([]byte, error)
}

// digest of a package.
func digest(p *redo.Package) (mal.Digest, error) {
	raw, err := p.Raw()
	if err != nil {
		return mal.Digest{}, err
	}
	return mal.Digest{GSEQ: p.GSEQ, PrevLSN: p.PrevLSN, MinLSN: p.MinLSN, MaxLSN: p.MaxLSN, OpenID: p.OpenID, SrcDBMagic: p.SrcDBMagic,
		NPTX: p.NPTX, RawLen: p.RawLen, Sum: sha256.Sum256(raw)}, nil
}

// refuse is an error that trying again does not change.
func refuse(format string, a ...any) error { return base.Errorf(mal.CodeRejoin, format, a...) }
