package walktest

import (
	"os"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestSameWalks: every call of Run walks the same, not the first of a process only.
func TestSameWalks(t *testing.T) {
	if os.Getenv("DW_WALKS") == "random" || given("rapid.seed") || given("rapid.failfile") {
		t.Skip("other walks were asked for")
	}
	var walks [2][]uint64
	for i := range walks {
		Run(t, 10, func(rt *rapid.T) { walks[i] = append(walks[i], rapid.Uint64().Draw(rt, "n")) })
	}
	if len(walks[0]) < len(seeds) || !slices.Equal(walks[0], walks[1]) {
		t.Fatalf("first %v, then %v", walks[0], walks[1])
	}
}
