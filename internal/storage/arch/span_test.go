package arch

import (
	"errors"
	"testing"

	"datawatch/internal/base"
	"datawatch/internal/storage/redo"
	"datawatch/internal/storage/twin"
	"datawatch/internal/vfs"
)

// TestSpan: how much there is from one package to another, to the byte, whatever
// is known of the files; and what was walked over for it need not be again.
func TestSpan(t *testing.T) {
	for name, c := range map[string]struct {
		fileSize    int64
		n, size     int
		first, step int
	}{
		"small files": {twin.Size + 8000, 60, 700, 40, 1},
		"one file":    {1 << 30, 60, 60_000, 1, 7},
	} {
		t.Run(name, func(t *testing.T) {
			fsys, cfg := &readFS{Mem: vfs.NewMem()}, config()
			cfg.FileSize, cfg.FlushBuf = c.fileSize, 3000
			a, m := open(t, fsys, cfg), newMaker(1)
			m.pos = base.Position{Seq: base.Seq(c.first - 1), LSN: 400}
			all := fill(t, a, m, c.n, c.size)
			check := func() {
				t.Helper()
				for i := 0; i < len(all); i += c.step {
					for j := len(all) - 1; j >= i; j -= c.step {
						want := 0
						for _, p := range all[i : j+1] {
							want += p.EncodedLen()
						}
						files := 0
						for _, f := range a.Files() {
							if f.FirstSeq <= all[j].GSEQ && f.LastSeq >= all[i].GSEQ {
								files++
							}
						}
						bytes, n, err := a.Span(t.Context(), all[i].GSEQ, all[j].GSEQ)
						if err != nil || bytes != int64(want) || n != files {
							t.Fatalf("%d to %d: %d bytes in %d files, %v; want %d in %d", all[i].GSEQ, all[j].GSEQ, bytes, n, err, want, files)
						}
					}
				}
			}
			check()
			last := all[len(all)-1].GSEQ
			whole, _, _ := a.Span(t.Context(), all[0].GSEQ, last)
			if more, _, err := a.Span(t.Context(), all[0].GSEQ, last+5); err != nil || more != whole {
				t.Fatalf("beyond the end: %d bytes, %v; want %d", more, err, whole)
			}
			if n, files, err := a.Span(t.Context(), last+1, last+5); n != 0 || files != 0 || err != nil {
				t.Fatalf("behind the end: %d bytes in %d files, %v", n, files, err)
			}
			if c.first > 1 {
				if _, _, err := a.Span(t.Context(), 1, last); !errors.Is(err, ErrGone) {
					t.Fatalf("before the beginning: %v", err)
				}
			}
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
			a = open(t, fsys, cfg) // it knows no places in files now
			mid := all[len(all)/2].GSEQ
			rest, _, err := a.Span(t.Context(), mid, last)
			if err != nil {
				t.Fatal(err)
			}
			fsys.bytes = 0
			if err := a.Scan(t.Context(), mid, func(*redo.Package) error { return nil }); err != nil || fsys.bytes > rest+indexEvery+readChunk {
				t.Fatalf("%d bytes read for %d after they have been measured, %v", fsys.bytes, rest, err)
			}
			check()
		})
	}
}
