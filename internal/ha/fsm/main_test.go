package fsm_test

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
	set := func(name, value string) {
		if err := flag.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	checks := flag.Lookup("rapid.checks").Value.String()
	defer func() {
		set("rapid.seed", "0")
		set("rapid.checks", checks)
	}()
	set("rapid.checks", "25")
	for _, seed := range walkSeeds {
		set("rapid.seed", seed)
		t.Run("seed "+seed, func(t *testing.T) { rapid.Check(t, f) })
	}
}
