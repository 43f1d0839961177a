package config

import (
	"encoding"
	"fmt"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Setting is one parameter with its value in a file, or its default.
type Setting struct {
	Param   *Param
	Section string // name of the section it stands in
	Value   string
	Set     bool // it stands in the file
	Line    int  // where; 0 when not set
}

// Source says where a configuration came from and what it sets.
type Source struct {
	Path     string
	Settings []Setting // in the order of the documentation, section by section
	warnings []string
}

// NotEffective lists the parameters that the file sets although nothing acts on
// them yet. A program names them at start.
func (s *Source) NotEffective() []Setting {
	if s == nil {
		return nil
	}
	var out []Setting
	for _, v := range s.Settings {
		if v.Set && v.Value != "" && !v.Param.effective(v.Value) {
			out = append(out, v)
		}
	}
	return out
}

// Warnings words what the file sets in vain: parameters without effect yet and
// items in the wrong kind of section.
func (s *Source) Warnings() []string {
	if s == nil {
		return nil
	}
	out := append([]string(nil), s.warnings...)
	for _, v := range s.NotEffective() {
		out = append(out, fmt.Sprintf("%s:%d: %s = %s has no effect yet", s.Path, v.Line, v.Param.Name, clip(v.Value)))
	}
	return out
}

// Get returns the value, or the default, of a parameter outside sections.
func (s *Source) Get(name string) (Setting, bool) {
	for _, v := range s.Settings {
		if v.Param.Section == "" && strings.EqualFold(v.Param.Name, name) {
			return v, true
		}
	}
	return Setting{}, false
}

// line finds where a key of a section was set, or 0.
func (s *Source) line(section, key string) int {
	for _, v := range s.Settings {
		if v.Set && strings.EqualFold(v.Section, section) && strings.EqualFold(v.Param.Name, key) {
			return v.Line
		}
	}
	return 0
}

func (p *Param) effective(value string) bool {
	if !p.Effective {
		return false
	}
	for _, v := range p.notYet {
		if strings.EqualFold(v, value) {
			return false
		}
	}
	return true
}

// block is the part of a file under one header.
type block struct {
	name    string // "" before the first header
	kind    string // Section of its parameters: "" or "[MAL_NAME]" ...
	line    int
	entries []Entry
}

// reading is the work of checking one file.
type reading struct {
	file string // "dm.ini"
	src  *Source
	dir  string
	errs Errors
}

// open parses the text and cuts it into blocks; kindOf names the kind of a
// section from its entries.
func (r *reading) open(file, name string, data []byte, kindOf func(block) string) []block {
	r.file, r.dir = file, filepath.Dir(name)
	r.src = &Source{Path: name}
	d, err := ParseDoc(name, data)
	if err != nil {
		r.errs = append(r.errs, err.(Errors)...)
	}
	if d == nil {
		return nil
	}
	blocks := []block{{}}
	for _, l := range d.lines {
		switch l.kind {
		case lineSection:
			blocks = append(blocks, block{name: l.name, line: l.no})
		case lineKey:
			b := &blocks[len(blocks)-1]
			b.entries = append(b.entries, Entry{b.name, l.name, l.value, l.no})
		}
	}
	seen := map[string]int{}
	for i := range blocks {
		b := &blocks[i]
		if b.line == 0 {
			continue
		}
		key := strings.ToUpper(b.name)
		if first, dup := seen[key]; dup {
			r.errs = append(r.errs, &Error{File: name, Line: b.line, Section: b.name, Msg: fmt.Sprintf("section was already opened in line %d", first)})
		} else {
			seen[key] = b.line
		}
		if kindOf != nil {
			b.kind = kindOf(*b)
		}
	}
	return blocks
}

func (r *reading) fail(line int, section, key, value, msg, allowed string) {
	r.errs = append(r.errs, &Error{File: r.src.Path, Line: line, Section: section, Key: key, Value: value, Msg: msg, Allowed: allowed})
}

// fill checks the entries of a block against the table and stores them in the
// tagged fields of dst (a pointer to a struct).
func (r *reading) fill(b block, dst any) {
	params := map[string]*Param{}
	for _, p := range Params(r.file) {
		if p.Section != b.kind {
			continue
		}
		if p.Kind == KindName {
			if e := p.Check(b.name); e != nil {
				r.fail(b.line, b.name, "", "", "section name is too long", p.Allowed())
			}
			continue
		}
		params[strings.ToUpper(p.Name)] = p
	}
	values := map[*Param][]Entry{}
	for _, e := range b.entries {
		p := params[strings.ToUpper(e.Key)]
		if p == nil {
			r.unknown(b, e, params)
			continue
		}
		if prev := values[p]; len(prev) > 0 && !p.Repeat {
			r.fail(e.Line, b.name, e.Key, e.Value, fmt.Sprintf("was already given in line %d", prev[0].Line), "")
			continue
		}
		if bad := p.Check(e.Value); bad != nil {
			r.fail(e.Line, b.name, e.Key, e.Value, bad.Msg, bad.Allowed)
		}
		values[p] = append(values[p], e)
	}
	v := reflect.ValueOf(dst).Elem()
	for _, p := range Params(r.file) {
		if p.Section != b.kind || p.Kind == KindName {
			continue
		}
		es := values[p]
		if len(es) == 0 {
			if p.Required {
				r.fail(b.line, b.name, p.Name, "", "is missing", p.Allowed())
			}
			r.src.Settings = append(r.src.Settings, Setting{p, b.name, p.Default, false, 0})
			r.store(v, p, p.Default)
			continue
		}
		for _, e := range es {
			value := e.Value
			if value == "" {
				value = p.Default
			}
			r.src.Settings = append(r.src.Settings, Setting{p, b.name, value, true, e.Line})
			if p.Check(value) == nil {
				r.store(v, p, value)
			}
		}
	}
}

// unknown reports a key that the section cannot have, saying where it belongs
// or what was perhaps meant.
func (r *reading) unknown(b block, e Entry, params map[string]*Param) {
	if p, ok := Lookup(r.file, e.Key); ok {
		if p.Section == "" {
			r.fail(e.Line, b.name, e.Key, e.Value, "belongs before the first section", "")
		} else if b.kind == "" {
			r.fail(e.Line, b.name, e.Key, e.Value, "belongs in a section "+p.Section, "")
		} else {
			// A group and a monitor in one section: the first item decides,
			// what does not fit is ignored (manual 7.2.5.2).
			r.src.warnings = append(r.src.warnings, fmt.Sprintf("%s:%d: [%s] %s is ignored: the section is a %s, not a %s", r.src.Path, e.Line, b.name, e.Key, b.kind, p.Section))
		}
		return
	}
	for _, f := range Files() {
		if _, ok := Lookup(f, e.Key); ok && f != "dminit" && f != "dm_svc.conf" {
			r.fail(e.Line, b.name, e.Key, e.Value, "is a parameter of "+f+", not of "+r.file, "")
			return
		}
	}
	msg := "unknown parameter"
	best, dist := "", 3
	for name, p := range params {
		if d := distance(strings.ToUpper(e.Key), name); d < dist || d == dist && best != "" && p.Name < best {
			best, dist = p.Name, d
		}
	}
	if best != "" {
		msg += "; did you mean " + best + "?"
	}
	r.fail(e.Line, b.name, e.Key, e.Value, msg, "")
}

// distance is the number of edits between two names, at most 3 told apart.
func distance(a, b string) int {
	if len(a)-len(b) > 2 || len(b)-len(a) > 2 {
		return 3
	}
	prev := make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur := make([]int, len(b)+1)
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
		}
		prev = cur
	}
	return min(prev[len(b)], 3)
}

var durationType = reflect.TypeOf(time.Duration(0))

var units = map[string]time.Duration{"ms": time.Millisecond, "s": time.Second, "min": time.Minute}

// store puts a checked value into the field tagged with the parameter's name;
// a parameter without a field is only in Settings.
func (r *reading) store(v reflect.Value, p *Param, value string) {
	f, ok := field(v, p.Name)
	if !ok || value == "" {
		return
	}
	if p.Kind == KindPath && !filepath.IsAbs(value) {
		value = filepath.Join(r.dir, value)
	}
	if p.Kind == KindEnum {
		value = strings.ToUpper(value)
	}
	if u, ok := f.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if err := u.UnmarshalText([]byte(value)); err != nil {
			r.fail(0, "", p.Name, value, err.Error(), p.Allowed())
		}
		return
	}
	switch {
	case f.Type() == durationType:
		n, _ := strconv.ParseInt(value, 10, 64)
		unit := units[p.Unit]
		if n > int64(1<<63-1)/int64(unit) {
			n = int64(1<<63-1) / int64(unit)
		}
		f.SetInt(n * int64(unit))
	case f.Kind() == reflect.Bool:
		f.SetBool(value == "1")
	case f.CanInt():
		n, _ := strconv.ParseInt(value, 10, 64)
		f.SetInt(n)
	case f.CanUint():
		n, _ := strconv.ParseUint(value, 10, 64)
		f.SetUint(n)
	case f.Kind() == reflect.String:
		f.SetString(value)
	case f.Kind() == reflect.Slice:
		f.Set(reflect.Append(f, reflect.ValueOf(value)))
	default:
		panic("config: field for " + p.Name + " has an unusable type")
	}
}

// field finds the struct field with the tag ini:"NAME".
func field(v reflect.Value, name string) (reflect.Value, bool) {
	t := v.Type()
	for i := range t.NumField() {
		if t.Field(i).Tag.Get("ini") == name {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}
