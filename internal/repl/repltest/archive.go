package repltest

import (
	"context"

	"datawatch/internal/base"
)

// Span counts everything as one file.
func (a archive) Span(_ context.Context, from, to base.Seq) (bytes int64, files int, err error) {
	for _, p := range a.log() {
		if from <= p.GSEQ && p.GSEQ <= to {
			bytes, files = bytes+int64(p.EncodedLen()), 1
		}
	}
	return bytes, files, nil
}
