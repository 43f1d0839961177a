package slt

import (
	"archive/zip"
	"bytes"
	"io/fs"
	"os"
	"strings"
)

// Selection is what is kept of the corpus here, relative to this package: the
// small files in full, the first records of the others; `go run
// ./test/slt/select CORPUS test/slt/testdata/selection.zip` writes it.
const Selection = "testdata/selection.zip"

// Corpus opens a directory or a zip file with tests.
func Corpus(path string) (fs.FS, error) {
	if !strings.HasSuffix(path, ".zip") {
		return os.DirFS(path), nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return zip.NewReader(bytes.NewReader(b), int64(len(b)))
}

const (
	refusesLength = "a value longer than its VARCHAR(n) is refused, as PostgreSQL does, where SQLite stores it"
	noValues      = "the file has no expected values"
	emptyTrigger  = "SQLite has no triggers without a statement"
)

// Deviations are the records of the corpus that the server answers
// differently from what the files say.
var Deviations = []Deviation{
	{File: "evidence/slt_lang_aggfunc.test", Line: 478, Answer: "22003", SQLite: "1", Reason: noValues},
	{File: "evidence/slt_lang_aggfunc.test", Line: 482, Answer: "22003", SQLite: "1", Reason: noValues},
	{File: "evidence/slt_lang_aggfunc.test", Line: 489, Answer: "-18446744073709551616.000", SQLite: "-18446744073709551616.000", Reason: noValues},
	{File: "evidence/slt_lang_aggfunc.test", Line: 493, Answer: "-9223372036854775808.000", SQLite: "-9223372036854775808.000", Reason: noValues},
	{File: "evidence/slt_lang_droptrigger.test", Line: 24, Answer: "42601", SQLite: "1", Reason: emptyTrigger},
	{File: "evidence/slt_lang_droptrigger.test", Line: 27, Answer: "42704", SQLite: "1", Reason: emptyTrigger},
	{File: "evidence/slt_lang_droptrigger.test", Line: 44, Answer: "42601", SQLite: "1", Reason: emptyTrigger},
	{File: "evidence/slt_lang_replace.test", Line: 38, Answer: "22001", Reason: refusesLength},
	{File: "evidence/slt_lang_replace.test", Line: 42, Answer: "2 insert", Reason: refusesLength},
	{File: "evidence/slt_lang_replace.test", Line: 58, Answer: "22001", Reason: refusesLength},
	{File: "evidence/slt_lang_replace.test", Line: 62, Answer: "", Reason: refusesLength},
}
