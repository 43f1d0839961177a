// Command dmmonitor is the monitor console (manual 4).
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"datawatch/internal/app/monitor"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(monitor.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
