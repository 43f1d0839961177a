package confirm

import (
	"flag"
	"os"
	"testing"
)

// TestMain walks the same random walks in every run, so that a change is judged
// by what it changes; DW_WALKS=random, or -rapid.seed, walks others.
func TestMain(m *testing.M) {
	flag.Parse()
	given := os.Getenv("DW_WALKS") == "random"
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.seed" || f.Name == "rapid.failfile" })
	if !given {
		if err := flag.Set("rapid.seed", "1"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
