// Package walktest runs the random walks of the decision packages in their tests, and
// remembers how far the seeds of simulations have got.
// It keeps none of G1-G9 itself; what a walk checks is left to its caller.
package walktest

import (
	"flag"
	"os"
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

// seeds are the seeds of the random walks of every run, so that a change is
// judged by what it changes; DW_WALKS=random, or -rapid.seed, walks others.
var seeds = []string{"1", "2", "3"}

// Run checks f over all of them, so many walks of each.
func Run(t *testing.T, walks int, f func(*rapid.T)) {
	t.Helper()
	if os.Getenv("DW_WALKS") == "random" || given("rapid.seed") || given("rapid.failfile") {
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
	set("rapid.checks", strconv.Itoa(walks))
	for _, seed := range seeds {
		set("rapid.seed", seed)
		t.Run("seed "+seed, func(t *testing.T) { rapid.Check(t, f) })
	}
}

// given tells whether a flag was set on the command line: by its value, for Run
// sets flags too, and puts them back.
func given(name string) bool {
	f := flag.Lookup(name)
	return f.Value.String() != f.DefValue
}
