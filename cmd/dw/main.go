// Command dw makes, starts, watches and stops a whole local Datawatch system.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"datawatch/internal/app/dw"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := dw.Main(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
