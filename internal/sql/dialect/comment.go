package dialect

import "strings"

// comment is COMMENT ON TABLE | VIEW | COLUMN | SEQUENCE name IS 'text' | NULL.
func (p *parser) comment() (*Statement, error) {
	if !p.accept("ON") {
		return nil, p.err()
	}
	kind := p.peek()
	if !kind.in("TABLE", "VIEW", "COLUMN", "SEQUENCE") {
		if kind.kind != tIdent {
			return nil, p.err()
		}
		return unsupported("COMMENT ON " + kind.up), nil
	}
	p.i++
	st := &Statement{Kind: Comment, Tag: "COMMENT", Verb: kind.up}
	var path []string
	for {
		n, err := p.name()
		if err != nil {
			return nil, err
		}
		path = append(path, n)
		if !p.accept(".") {
			break
		}
	}
	most := 2 // schema.table
	if kind.up == "COLUMN" {
		if most++; len(path) < 2 {
			return nil, &SyntaxError{"column name must be qualified", kind.start}
		}
		st.Value, path = path[len(path)-1], path[:len(path)-1]
		most--
	}
	if len(path) > most || len(path) == 2 && !inSchema(path[0]) {
		return nil, &SyntaxError{"improper qualified name: " + strings.Join(path, "."), kind.start}
	}
	st.Name = path[len(path)-1]
	if !p.accept("IS") {
		return nil, p.err()
	}
	if p.accept("NULL") {
		st.Default = true
		return p.end(st)
	}
	text, err := p.str()
	if err != nil {
		return nil, err
	}
	st.Tables = []string{text}
	return p.end(st)
}

// inSchema reports the names of the one schema there is.
func inSchema(name string) bool {
	return strings.EqualFold(name, "public") || strings.EqualFold(name, "sysdba") || strings.EqualFold(name, "main")
}
