package config

import (
	"bytes"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// Every parameter of the manual is declared with the manual's range, default,
// unit and run-time changeability (testdata/manual_params.tsv).
func TestTableMatchesManual(t *testing.T) {
	b, err := os.ReadFile("testdata/manual_params.tsv")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")[1:]
	if len(lines) < 130 {
		t.Fatalf("only %d parameters in the list", len(lines))
	}
	for _, l := range lines {
		f := strings.Split(l, "\t")
		file, name, rng, def, unit, dynamic := f[0], f[1], f[2], f[3], f[4], f[5]
		var p *Param
		for _, q := range Params(file) {
			if strings.EqualFold(q.Name, name) {
				p = q
			}
		}
		if p == nil {
			t.Errorf("%s %s is not declared", file, name)
			continue
		}
		if lo, hi, ok := strings.Cut(rng, "-"); ok {
			min, err1 := strconv.ParseInt(strings.TrimPrefix(lo, "0 or "), 10, 64)
			max, err2 := strconv.ParseInt(hi, 10, 64)
			if err1 == nil && err2 == nil && p.Kind == KindInt && (p.Min != min || p.Max != max) {
				t.Errorf("%s %s: range %d-%d, manual %s", file, name, p.Min, p.Max, rng)
			}
		}
		if _, err := strconv.Atoi(def); err == nil && p.Default != def {
			t.Errorf("%s %s: default %q, manual %q", file, name, p.Default, def)
		}
		switch unit {
		case "s", "min", "MB", "KB", "ms", "percent":
			if p.Unit != unit {
				t.Errorf("%s %s: unit %q, manual %q", file, name, p.Unit, unit)
			}
		}
		if dynamic == "yes" && !p.Dynamic {
			t.Errorf("%s %s: the manual changes it at run time", file, name)
		}
	}
}

// The declarations themselves make sense, and every parameter of a file with a
// struct reaches a field of it.
func TestTableIsSound(t *testing.T) {
	structs := map[string]any{
		"dm.ini ": DM{}, "dmmal.ini ": MAL{}, "dmmal.ini [MAL_NAME]": MALEntry{},
		"dmarch.ini ": Arch{}, "dmarch.ini [ARCH_NAME]": ArchEntry{}, "dmwatcher.ini [GROUP_NAME]": WatcherGroup{},
		"dmmonitor.ini ": Monitor{}, "dmmonitor.ini [GROUP_NAME]": MonitorGroup{}, "dmmonitor.ini [INST_NAME]": MonitorInst{},
		"dmtimer.ini [TIMER_NAME]": Timer{}, "dmmpp.ini [SERVICE_NAME]": MPPNode{}, "dmdcr.ini ": DCR{},
	}
	special := map[string]bool{"ARCH_WAIT_APPLY": true, "MON_INST_NUM": true, "CSS_ASM_RESTART_INTERVAL": true, "CSS_DB_RESTART_INTERVAL": true}
	for _, file := range Files() {
		seen := map[string]bool{}
		for _, p := range Params(file) {
			id := p.Section + " " + p.Name
			if seen[id] {
				t.Errorf("%s %s is declared twice", file, p.Name)
			}
			seen[id] = true
			if p.Doc == "" || !p.Ours && p.Manual == "" {
				t.Errorf("%s %s lacks a description or a section of the manual", file, p.Name)
			}
			if p.Required && p.Default != "" {
				t.Errorf("%s %s is required and has a default", file, p.Name)
			}
			if p.Default != "" {
				if e := p.Check(p.Default); e != nil {
					t.Errorf("%s %s: default: %v", file, p.Name, e)
				}
			}
			s, ok := structs[file+" "+p.Section]
			if !ok || p.Kind == KindName || special[p.Name] {
				continue
			}
			if _, ok := field(reflect.ValueOf(s), p.Name); !ok {
				t.Errorf("%s %s has no field in %T", file, p.Name, s)
			}
		}
	}
	for key, s := range structs {
		file, section, _ := strings.Cut(key, " ")
		typ := reflect.TypeOf(s)
		for i := range typ.NumField() {
			if tag := typ.Field(i).Tag.Get("ini"); tag != "" {
				if p, ok := lookupIn(file, section, tag); !ok || p == nil {
					t.Errorf("%T has a field for %s, which %s does not declare", s, tag, file)
				}
			}
		}
	}
}

func lookupIn(file, section, name string) (*Param, bool) {
	for _, p := range Params(file) {
		if p.Section == section && p.Name == name {
			return p, true
		}
	}
	return nil, false
}

func TestParametersDocumentIsCurrent(t *testing.T) {
	have, err := os.ReadFile("../../docs/parameters.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, Markdown()) {
		t.Error("docs/parameters.md is out of date: run go generate ./internal/config")
	}
}
