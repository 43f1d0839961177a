package e2e

import (
	"testing"

	"datawatch/internal/app/dw"
)

// TestProof compares answers with those of plain SQLite.
func TestProof(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real processes")
	}
	sys := up(t, dw.Options{Standbys: 1, Mode: "auto", Monitors: 1, Fast: true})
	t.Run("sqllogictest", func(t *testing.T) { sqlLogic(t, sys) })
	t.Run("differential", func(t *testing.T) { sqlDifferential(t, sys) })
	t.Run("isolation", func(t *testing.T) { isolation(t, sys) })
	noPanics(t, sys)
}
