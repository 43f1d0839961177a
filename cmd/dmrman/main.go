// Command dmrman backs up, restores and recovers stopped databases.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"datawatch/internal/app/tools/dmrman"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := dmrman.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
