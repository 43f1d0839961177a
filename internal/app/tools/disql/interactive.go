package disql

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/reeflective/readline"
)

// words that Tab completes.
var words = strings.Fields(`SELECT FROM WHERE INSERT INTO VALUES UPDATE SET DELETE CREATE TABLE INDEX VIEW TRIGGER DROP
	ALTER DATABASE MOUNT OPEN SUSPEND PRIMARY STANDBY NORMAL BEGIN COMMIT ROLLBACK ORDER GROUP BY LIMIT JOIN
	BACKUP BACKUPSET FULL SP_SET_OGUID SP_SET_PARA_VALUE V$INSTANCE V$DATABASE V$RLOG V$RLOG_PKG V$RLOG_PKG_STAT
	V$ARCH_STATUS V$ARCH_FILE V$DM_ARCH_INI V$DM_MAL_INI V$MAL_LINK_STATUS V$MAL_SYS V$MAL_SITE_INFO V$RAPPLY_SYS V$KEEP_RLOG_PKG
	V$RAPPLY_LSN_INFO V$RAPPLY_LOG_TASK V$RAPPLY_PARALLEL_INFO V$PARAMETER V$DM_INI SYSOPENHISTORY V$SESSIONS V$TRX V$LOCK
	V$ARCH_SEND_INFO V$RECOVER_STATUS V$RAPPLY_STAT V$DB_CHECK V$DB_CHECK_PROBLEM V$UTSK_INFO V$UTSK_SYS2 V$DMWATCHER V$VERSION
	exit quit conn login logout help`)

// interactive reads statements with line editing until the user leaves.
func (p *program) interactive(ctx context.Context) error {
	fmt.Fprintln(p.out, `disql: statements end with ";", \? shows help, exit leaves.`)
	sh := readline.NewShell()
	if dir, err := os.UserHomeDir(); err == nil {
		sh.History.AddFromFile("disql", filepath.Join(dir, ".disql_history"))
	}
	var s splitter
	lines := 0
	sh.Prompt.Primary(func() string {
		if s.Pending() {
			return fmt.Sprintf("%4d ", lines+1)
		}
		return "SQL> "
	})
	sh.Completer = complete
	for {
		line, err := sh.Readline()
		switch {
		case errors.Is(err, readline.ErrInterrupt):
			s.Reset()
			lines = 0
			continue
		case errors.Is(err, io.EOF):
			fmt.Fprintln(p.out)
			return nil
		case err != nil:
			return fmt.Errorf("read the terminal: %w", err)
		case ctx.Err() != nil:
			return nil
		}
		for _, part := range strings.Split(line, "\n") {
			if !s.Pending() && isCommand(part) {
				if err := p.command(ctx, part); errors.Is(err, errQuit) {
					return nil
				} else if err != nil {
					p.report(err)
				}
				continue
			}
			for _, st := range s.Feed(part) {
				if err := p.statement(ctx, st); errors.Is(err, errQuit) {
					return nil
				} else if err != nil {
					p.report(err)
				}
			}
		}
		p.failed = false // the exit status of a dialogue is that of its end
		if lines++; !s.Pending() {
			lines = 0
		}
	}
}

// complete offers the words that begin with what stands before the cursor.
func complete(line []rune, cursor int) readline.Completions {
	start := cursor
	for start > 0 && !strings.ContainsRune(" \t(,;", line[start-1]) {
		start--
	}
	prefix := string(line[start:cursor])
	var fit []string
	for _, w := range words {
		if len(prefix) > 0 && strings.HasPrefix(strings.ToUpper(w), strings.ToUpper(prefix)) {
			fit = append(fit, w)
		}
	}
	return readline.CompleteValues(fit...)
}

// asker asks questions on a terminal, without echo for secrets; elsewhere it
// fails, so that a script never waits for an answer.
func asker(in *os.File, out io.Writer) func(string, bool) (string, error) {
	return func(prompt string, secret bool) (string, error) {
		if !isTerminal(in) {
			return "", errors.New("not a terminal")
		}
		fmt.Fprint(out, prompt)
		if secret {
			restore, err := noEcho(in)
			if err == nil {
				defer func() { restore(); fmt.Fprintln(out) }()
			}
		}
		v, err := bufio.NewReader(in).ReadString('\n')
		if err != nil {
			return "", err
		}
		return strings.TrimRight(v, "\r\n"), nil
	}
}
