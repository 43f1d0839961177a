// Command select makes testdata/selection.zip from a corpus of sqllogictest:
// small files whole, of the others the first records.
package main

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"strings"
	"time"

	"datawatch/test/slt"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: go run ./test/slt/select CORPUS ZIP")
	}
	if err := write(os.DirFS(os.Args[1]), os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func write(corpus fs.FS, path string) error {
	files, err := slt.Files(corpus)
	if err != nil {
		return err
	}
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.BestCompression) })
	for _, f := range files {
		b, err := fs.ReadFile(corpus, f)
		if err != nil {
			return err
		}
		w, err := z.CreateHeader(&zip.FileHeader{Name: f, Method: zip.Deflate, Modified: time.Unix(1e9, 0).UTC()})
		if err != nil {
			return err
		}
		if _, err := io.WriteString(w, first(f, string(b))); err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.WriteFile(path, buf.Bytes(), 0o644)
}

// first is what is kept of a file: statements are slower than queries, for the
// standby is waited for after them.
func first(file, text string) string {
	const whole, bytes, statements = 64 << 10, 56 << 10, 110
	if len(text) <= whole {
		return text
	}
	var out strings.Builder
	n := 0
	for _, rec := range strings.SplitAfter(text, "\n\n") {
		n += strings.Count("\n"+rec, "\nstatement")
		if out.Len()+len(rec) > bytes || n > statements {
			break
		}
		out.WriteString(rec)
	}
	return out.String()
}
