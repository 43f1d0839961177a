// Command dminit makes a database.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"datawatch/internal/app/tools/dminit"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := dminit.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
