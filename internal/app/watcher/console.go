package watcher

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"datawatch/internal/base"
	"datawatch/internal/ha/proto"
	guard "datawatch/internal/ha/watcher"
)

func terminal(in io.Reader) bool {
	f, ok := in.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

const helpText = `help                     this text
exit                     end the watcher; the databases go on
status                   state of the watcher, by group
show                     the local databases of all groups
show group GROUP_NAME    the local database of one group
show version             version of the watcher
show monitor config      a dmmonitor.ini for the groups known here
show link                connections with instances, watchers and monitors
`

// Console reads commands until exit, the end of input or the end of ctx.
func (p *Program) Console(ctx context.Context, in io.Reader, out io.Writer) {
	sc := bufio.NewScanner(in)
	for {
		fmt.Fprint(out, "dmwatcher> ")
		if !sc.Scan() || ctx.Err() != nil {
			return
		}
		if p.Do(ctx, sc.Text(), out) {
			return
		}
	}
}

// Do runs one command line (manual 3.7); it reports whether it was exit.
func (p *Program) Do(ctx context.Context, line string, out io.Writer) (exit bool) {
	f := strings.Fields(strings.TrimSuffix(strings.TrimSpace(line), ";"))
	typed := strings.Join(f, " ")
	switch cmd := strings.ToLower(typed); {
	case cmd == "":
	case cmd == "help":
		fmt.Fprint(out, helpText)
	case cmd == "exit", cmd == "quit":
		return true
	case cmd == "status":
		p.each(ctx, out, "", printStatus)
	case cmd == "show":
		p.each(ctx, out, "", printShow)
	case cmd == "show group":
		fmt.Fprintln(out, "error: usage: show group GROUP_NAME")
	case len(f) == 3 && strings.HasPrefix(cmd, "show group "):
		if p.each(ctx, out, f[2], printShow) == 0 {
			fmt.Fprintf(out, "error: there is no group %s\n", f[2])
		}
	case cmd == "show version":
		fmt.Fprintln(out, Version())
	case cmd == "show monitor config":
		p.monitorConfig(out)
	case cmd == "show link":
		p.each(ctx, out, "", printLinks)
	default:
		fmt.Fprintf(out, "error: unknown command %q; help lists the commands\n", typed)
	}
	return false
}

func (p *Program) each(ctx context.Context, out io.Writer, group string, f func(io.Writer, Info, guard.Snapshot)) int {
	n := 0
	for i, g := range p.Guards {
		if group != "" && !strings.EqualFold(group, p.Infos[i].Group) {
			continue
		}
		n++
		c, cancel := context.WithTimeout(ctx, 5*time.Second)
		s, err := g.Snapshot(c)
		cancel()
		if err != nil {
			fmt.Fprintf(out, "error: the guard of group %s does not answer: %v\n", p.Infos[i].Group, err)
			continue
		}
		f(out, p.Infos[i], s)
	}
	return n
}

// row prints names over values in columns.
func row(out io.Writer, pairs ...any) {
	var head, vals strings.Builder
	for i := 0; i+1 < len(pairs); i += 2 {
		h, v := fmt.Sprint(pairs[i]), fmt.Sprint(pairs[i+1])
		w := max(len(h), len(v)) + 2
		fmt.Fprintf(&head, "%-*s", w, h)
		fmt.Fprintf(&vals, "%-*s", w, v)
	}
	fmt.Fprintln(out, strings.TrimRight(head.String(), " "))
	fmt.Fprintln(out, strings.TrimRight(vals.String(), " "))
}

func upperBool(b bool) string { return strings.ToUpper(fmt.Sprint(b)) }

func sub(s string) string {
	if s == "" {
		return "NONE"
	}
	return s
}

func printStatus(out io.Writer, in Info, s guard.Snapshot) {
	row(out, "GROUP_NAME", in.Group, "DW_STATUS", s.Status.State, "DW_SUB_STATUS", sub(s.Status.SubState))
	for _, w := range s.Status.Why {
		fmt.Fprintln(out, "  "+w)
	}
}

func printShow(out io.Writer, in Info, s guard.Snapshot) {
	st := s.Status
	ctl := "Invalid" // as the manual and the monitor write it
	switch {
	case st.Config.Type == "LOCAL":
		ctl = "NULL"
	case st.CtlStatus == proto.CtlValid:
		ctl = "Valid"
	case st.CtlStatus == proto.CtlSplit:
		ctl = "Split"
	}
	row(out, "GROUP_NAME", in.Group, "TYPE", st.Config.Type, "MODE", st.Config.Mode, "OGUID", st.OGUID, "MPP_FLAG", upperBool(in.MPP),
		"AUTO_RESTART", upperBool(st.Config.AutoRestart), "DW_STATUS", st.State, "DW_SUB_STATUS", sub(st.SubState), "DW_CTL_STATUS", ctl)
	ok := "Error"
	if st.InstOK {
		ok = "Ok"
	}
	i := st.Inst
	running := i.Running
	if running == "" {
		running = "NONE"
	}
	row(out, "INST_OK", ok, "NAME", in.Inst, "SVR_MODE", i.Mode, "SYS_STATUS", i.Status, "RTYPE", in.RType, "FSEQ", i.File.Seq, "FLSN", i.File.LSN,
		"CSEQ", i.Cur.Seq, "CLSN", i.Cur.LSN, "DW_STAT_FLAG", running)
	if i.Mode == base.ModeStandby && i.Incarnation != "" {
		row(out, "REDOS_PARALLEL_NUM", i.RedosParallel, "DSC_SEQNO", 0, "SSEQ", i.Stand.Seq, "SLSN", i.Stand.LSN, "KSEQ", i.Keep.Seq, "KLSN", i.Keep.LSN,
			"RSEQ", i.Replay.Seq, "RLSN", i.Replay.LSN, "N_TSK", i.NTask, "TSK_MEM_USE", i.TaskMB, "REDO_LSN_ARR", redoLSNs(i))
	}
	for _, w := range st.Why {
		fmt.Fprintln(out, "  "+w)
	}
}

// redoLSNs has the LSN of each replayer; they finish each batch together.
func redoLSNs(i proto.InstanceStatus) string {
	one := fmt.Sprint(i.Replay.LSN)
	return "(" + strings.Join(slices.Repeat([]string{one}, max(i.RedosParallel, 1)), ",") + ")"
}

func printLinks(out io.Writer, _ Info, s guard.Snapshot) {
	for _, l := range s.Links {
		row(out, "FROM_FLAG", l.From, "FROM_INAME", sub(l.Inst), "HANDLE", l.Handle, "MID", sub(l.MonID), "N_FIX", 1, "MON_ADDR", l.Addr,
			"MON_CONFIRM", upperBool(l.Confirm), "CONN_TIME", l.Since.Format(time.DateTime))
	}
}

// monitorConfig prints a dmmonitor.ini (manual 3.7 #7). It covers the targets
// of the local archives only, so it can be incomplete.
func (p *Program) monitorConfig(out io.Writer) {
	fmt.Fprintln(out, "# dmmonitor.ini; only the archive targets known here are listed")
	fmt.Fprintln(out, "MON_DW_CONFIRM       = 0\nMON_LOG_PATH         = ../log\nMON_LOG_INTERVAL     = 60\nMON_LOG_FILE_SIZE    = 32\nMON_LOG_SPACE_LIMIT  = 0")
	for _, in := range p.Infos {
		fmt.Fprintf(out, "\n[%s]\nMON_INST_OGUID       = %d\n", in.Group, in.OGUID)
		for _, w := range in.Watchers {
			fmt.Fprintf(out, "MON_DW_IP            = %s\n", w)
		}
	}
}
