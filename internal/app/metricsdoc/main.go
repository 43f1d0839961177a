// Command metricsdoc writes docs/metrics.md from the tables of metrics of the
// daemons.
package main

import (
	"fmt"
	"os"

	"datawatch/internal/app/server"
	"datawatch/internal/app/watcher"
	"datawatch/internal/metrics/admin"
)

//go:generate go run . ../../../docs/metrics.md

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: metricsdoc FILE")
		os.Exit(2)
	}
	if err := os.WriteFile(os.Args[1], []byte(document()), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func document() string {
	return `# Metrics and health

<!-- Generated from the tables in internal/app/*/metrics.go by "go generate ./internal/app/metricsdoc"; do not edit. -->

ADMIN_PORT in dm.ini and DW_ADMIN_PORT in dmwatcher.ini (docs/parameters.md) make a server and a watcher serve, over HTTP and
without a login, on loopback unless ADMIN_IP / DW_ADMIN_IP says otherwise:

| path | answers |
|---|---|
| ` + "`/metrics`" + ` | the metrics below, for Prometheus, and those of the Go runtime and the process (` + "`go_*`, `process_*`" + `: memory, descriptors, CPU) |
| ` + "`/healthz`" + ` | 200 while the process does what it is for, or starts or waits for somebody else; 503 with the reason when it is ending. For restarting |
| ` + "`/readyz`" + ` | 200 while clients are served: the database is Open. 503 with the reason otherwise. ` + "`?role=primary`" + ` asks for a database that takes writes, ` + "`?role=standby`" + ` for one that answers queries only. For load balancers. A watcher's: its instances answer and it is in state OPEN |

Answers to the last two are JSON: ` + "`ok`, `reason`, `facts`" + `.

What to be woken for: dw_archive_valid 0 (no second copy), dw_suspended_seconds > 10 (commits hang), dw_disk_free_bytes low,
dw_oldest_writer_seconds > 60 (somebody blocks all writers), dw_watcher_confirm_monitors 0 in AUTO mode (nobody would take over),
dw_watcher_split 1, dw_check_problems > 0 (damage). See docs/operations.md.

## Server

` + admin.Markdown(server.Metrics) + `
## Watcher

` + admin.Markdown(watcher.Metrics)
}
