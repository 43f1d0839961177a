// Command dmwatcher guards the databases of dmwatcher.ini (manual 3).
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"datawatch/internal/app/watcher"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(watcher.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
