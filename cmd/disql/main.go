// Command disql is the SQL command line.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"datawatch/internal/app/tools/disql"
)

func main() {
	// SIGINT cancels statements (disql sees to that), it does not end a dialogue.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	code := disql.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
