// Command caractrl views and changes a Cara cluster. It shows the result of a push. Package cli implements it; this package
// only connects the process's streams and signals.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/caravanserai/cara/cli"
)

var version = "dev" // set by the linker

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(cli.Run(ctx, os.Args[1:], version, cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
