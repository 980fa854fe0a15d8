// Command fastn is the command line of the fastn daemon: it holds no key and
// no connection of its own, and asks the daemon over its socket.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// version is replaced by -ldflags "-X main.version=…".
var version = "0.1.0-dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
	stop()
	os.Exit(code)
}
