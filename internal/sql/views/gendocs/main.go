// Command gendocs writes docs/views.md from the definitions of package views.
package main

import (
	"flag"
	"fmt"
	"os"

	"datawatch/internal/sql/views"
)

func main() {
	out := flag.String("o", "views.md", "file to write")
	flag.Parse()
	if err := os.WriteFile(*out, []byte(views.Markdown()), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, "gendocs:", err)
		os.Exit(1)
	}
}
