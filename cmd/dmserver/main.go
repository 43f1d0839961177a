// Command dmserver runs a Datawatch instance.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"datawatch/internal/app/server"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := server.Main(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
