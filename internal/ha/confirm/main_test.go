package confirm

import (
	"flag"
	"os"
	"testing"

	"pgregory.net/rapid"
)

// walkSeeds are the seeds of the random walks of every run, so that a change is
// judged by what it changes; DW_WALKS=random, or -rapid.seed, walks others.
var walkSeeds = []string{"1", "2", "3"}

// walks checks f over all of them.
func walks(t *testing.T, f func(*rapid.T)) {
	t.Helper()
	given := os.Getenv("DW_WALKS") == "random"
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.seed" || f.Name == "rapid.failfile" })
	if given {
		rapid.Check(t, f)
		return
	}
	defer func() {
		if err := flag.Set("rapid.seed", "0"); err != nil {
			t.Error(err)
		}
	}()
	for _, seed := range walkSeeds {
		if err := flag.Set("rapid.seed", seed); err != nil {
			t.Fatal(err)
		}
		t.Run("seed "+seed, func(t *testing.T) { rapid.Check(t, f) })
	}
}
