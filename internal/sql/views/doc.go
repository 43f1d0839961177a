package views

import (
	"fmt"
	"strings"
)

// Markdown is docs/views.md.
func Markdown() string {
	var b strings.Builder
	b.WriteString(`# Views

<!-- Generated from internal/sql/views by "go generate ./internal/sql/views"; do not edit. -->

What the server says about itself, as tables. Names are case-insensitive and need no quotes:
` + "`select name, status$, mode$ from v$instance`" + `. The views can be read in every status from Mount on and on
every instance; columns of time are in the server's time zone; a value that does not apply is NULL.
`)
	for _, v := range all {
		section(&b, v)
	}
	b.WriteString(`
# Stand-ins for PostgreSQL's catalog

As much as drivers look up while they connect and resolve types; with or without the qualifier ` + "`pg_catalog.`" + `.
`)
	for _, v := range catalog {
		section(&b, v)
	}
	return b.String()
}

func section(b *strings.Builder, v *View) {
	fmt.Fprintf(b, "\n## %s\n\n%s", v.Name, v.Doc)
	if v.Alias != "" {
		b.WriteByte('\n')
		return
	}
	fmt.Fprintf(b, " On: %s.", v.Where)
	if v.Manual != "" {
		fmt.Fprintf(b, " Manual %s.", v.Manual)
	}
	b.WriteString("\n\n| column | type | meaning |\n|---|---|---|\n")
	for _, c := range v.Columns {
		fmt.Fprintf(b, "| %s | %s | %s |\n", c.Name, c.Type, c.Doc)
	}
}
