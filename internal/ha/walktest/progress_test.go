package walktest

import (
	"os"
	"path/filepath"
	"testing"
)

// TestProgress: what is done up to the first seed that is not is not done again by
// the next run, also when the one before did not come to its end.
func TestProgress(t *testing.T) {
	file := filepath.Join(t.TempDir(), "seeds")
	begin := func(want uint64) *Progress {
		t.Helper()
		p, err := Begin(file)
		if err != nil {
			t.Fatal(err)
		}
		if p.Next() != want {
			t.Fatalf("it begins with seed %d, want %d", p.Next(), want)
		}
		return p
	}
	done := func(p *Progress, from, to uint64) {
		t.Helper()
		for s := to; s >= from; s-- {
			if err := p.Done(s); err != nil {
				t.Fatal(err)
			}
		}
	}
	p := begin(1)
	done(p, 1, every/2)
	begin(1) // not worth a write yet
	done(p, every/2+2, 3*every)
	begin(1) // one is missing
	done(p, every/2+1, every/2+1)
	p = begin(3*every + 1) // cut off
	done(p, 3*every+1, 3*every+7)
	if err := p.End(); err != nil {
		t.Fatal(err)
	}
	begin(3*every + 8)
	if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Begin(file); err == nil {
		t.Error("a file without a number is no error")
	}
	p, err := Begin("")
	if err != nil || p.Next() != 1 || p.Done(1) != nil || p.End() != nil || p.Next() != 2 {
		t.Errorf("without a file: %v, %d", err, p.Next())
	}
}
