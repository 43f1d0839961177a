package config

import (
	"fmt"
	"strconv"
	"time"
)

// Timers is dmtimer.ini (manual 5.6).
type Timers struct {
	Source
	Timers []Timer
}

// Timer is one timer. Dates are local; zero when empty.
type Timer struct {
	Name           string // of the section
	Type           int    `ini:"TYPE"`
	Interval       int    `ini:"FREQ_MONTH_WEEK_INTERVAL"`
	SubInterval    int    `ini:"FREQ_SUB_INTERVAL"`
	MinuteInterval int    `ini:"FREQ_MINUTE_INTERVAL"`
	Repeat         string `ini:"REPEAT_INTERVAL"`
	StartTime      string `ini:"START_TIME"` // hh:mm:ss
	EndTime        string `ini:"END_TIME"`
	StartDate      string `ini:"DURING_START_DATE"`
	EndDate        string `ini:"DURING_END_DATE"`
	NoEndDate      bool   `ini:"NO_END_DATE_FLAG"`
	Describe       string `ini:"DESCRIBE"`
	Valid          bool   `ini:"IS_VALID"`
}

// Find returns a timer by name, ignoring case.
func (t *Timers) Find(name string) (Timer, bool) {
	for _, x := range t.Timers {
		if equalFold(x.Name, name) {
			return x, true
		}
	}
	return Timer{}, false
}

// ParseTimers reads dmtimer.ini; name is its path.
func ParseTimers(name string, data []byte) (*Timers, error) {
	r := &reading{}
	t := &Timers{}
	for _, b := range r.open("dmtimer.ini", name, data, func(block) string { return "[TIMER_NAME]" }) {
		if b.line == 0 {
			r.fill(b, &struct{}{})
			continue
		}
		x := Timer{Name: b.name}
		r.fill(b, &x)
		t.Timers = append(t.Timers, x)
	}
	t.Source = *r.src
	t.check(r)
	if err := r.errs.err(); err != nil {
		return nil, err
	}
	return t, nil
}

func (t *Timers) check(r *reading) {
	for _, x := range t.Timers {
		in := func(key string, v, lo, hi int) {
			if v < lo || v > hi {
				r.fail(t.line(x.Name, key), x.Name, key, itoa(v), "out of range for TYPE "+itoa(x.Type), fmt.Sprintf("%d-%d", lo, hi))
			}
		}
		switch x.Type {
		case 2:
			in("FREQ_MONTH_WEEK_INTERVAL", x.Interval, 1, 100)
		case 3:
			in("FREQ_MONTH_WEEK_INTERVAL", x.Interval, 1, 1<<31-1)
			in("FREQ_SUB_INTERVAL", x.SubInterval, 1, 127)
		case 4:
			in("FREQ_MONTH_WEEK_INTERVAL", x.Interval, 1, 1<<31-1)
			in("FREQ_SUB_INTERVAL", x.SubInterval, 1, 31)
		case 5, 6, 7, 8, 9:
			in("FREQ_MONTH_WEEK_INTERVAL", x.Interval, 1, 1<<31-1)
			in("FREQ_SUB_INTERVAL", x.SubInterval, 1, 7)
		case 10:
			if x.Repeat == "" {
				r.fail(t.line(x.Name, "TYPE"), x.Name, "REPEAT_INTERVAL", "", "is needed with TYPE 10", "")
			}
		}
		start, err1 := ParseDateTime(x.StartDate)
		end, err2 := ParseDateTime(x.EndDate)
		if err1 == nil && err2 == nil && !end.After(start) {
			r.fail(t.line(x.Name, "DURING_END_DATE"), x.Name, "DURING_END_DATE", x.EndDate, "is not after DURING_START_DATE", "")
		}
	}
}

// MPP is dmmpp.ini (manual 7.4.3.4).
type MPP struct {
	Source
	Nodes []MPPNode // in the order of the file
}

// MPPNode is one node of an MPP system.
type MPPNode struct {
	Name     string // of the section
	SeqNo    int    `ini:"MPP_SEQ_NO"`
	InstName string `ini:"MPP_INST_NAME"`
}

// ParseMPP reads dmmpp.ini; name is its path.
func ParseMPP(name string, data []byte) (*MPP, error) {
	r := &reading{}
	m := &MPP{}
	for _, b := range r.open("dmmpp.ini", name, data, func(block) string { return "[SERVICE_NAME]" }) {
		if b.line == 0 {
			r.fill(b, &struct{}{})
			continue
		}
		n := MPPNode{Name: b.name}
		r.fill(b, &n)
		m.Nodes = append(m.Nodes, n)
	}
	m.Source = *r.src
	seqs, insts := map[int]string{}, map[string]string{}
	for _, n := range m.Nodes {
		if other, dup := seqs[n.SeqNo]; dup {
			r.fail(m.line(n.Name, "MPP_SEQ_NO"), n.Name, "MPP_SEQ_NO", itoa(n.SeqNo), "is also the number of ["+other+"]", "")
		}
		if n.SeqNo >= len(m.Nodes) {
			r.fail(m.line(n.Name, "MPP_SEQ_NO"), n.Name, "MPP_SEQ_NO", itoa(n.SeqNo), "leaves a gap", fmt.Sprintf("0-%d", len(m.Nodes)-1))
		}
		seqs[n.SeqNo] = n.Name
		if other, dup := insts[upper(n.InstName)]; dup && n.InstName != "" {
			r.fail(m.line(n.Name, "MPP_INST_NAME"), n.Name, "MPP_INST_NAME", n.InstName, "is also the instance of ["+other+"]", "")
		}
		insts[upper(n.InstName)] = n.Name
	}
	if err := r.errs.err(); err != nil {
		return nil, err
	}
	return m, nil
}

// DCR holds the parameters of dmdcr.ini that the manual names (7.5.10).
type DCR struct {
	Source
	SeqNo              int           `ini:"DMDCR_SEQNO"`
	DBRestartInterval  time.Duration `ini:"DMDCR_DB_RESTART_INTERVAL"`
	DBStartupCmd       string        `ini:"DMDCR_DB_STARTUP_CMD"`
	ASMRestartInterval time.Duration `ini:"DMDCR_ASM_RESTART_INTERVAL"`
}

// ParseDCR reads dmdcr.ini; name is its path. The CSS_ names of the restart
// intervals count when the DMDCR_ names are absent.
func ParseDCR(name string, data []byte) (*DCR, error) {
	r := &reading{}
	d := &DCR{}
	for _, b := range r.open("dmdcr.ini", name, data, nil) {
		if b.line > 0 {
			r.fail(b.line, b.name, "", "", "dmdcr.ini has no sections", "")
			continue
		}
		r.fill(b, d)
	}
	d.Source = *r.src
	for _, alias := range []struct {
		name, other string
		to          *time.Duration
	}{
		{"DMDCR_DB_RESTART_INTERVAL", "CSS_DB_RESTART_INTERVAL", &d.DBRestartInterval},
		{"DMDCR_ASM_RESTART_INTERVAL", "CSS_ASM_RESTART_INTERVAL", &d.ASMRestartInterval},
	} {
		a, _ := d.Get(alias.name)
		if b, ok := d.Get(alias.other); ok && b.Set && !a.Set {
			n, _ := strconv.Atoi(b.Value)
			*alias.to = time.Duration(n) * time.Second
		}
	}
	if err := r.errs.err(); err != nil {
		return nil, err
	}
	return d, nil
}
