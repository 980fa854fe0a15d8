// Command fastnd is the fastn daemon: it alone holds the keys and the
// connections to other machines. See fastnd(8).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/fastn-stack/fastnd/internal/daemon"
)

// version is set by the linker.
var version = "0.1.0-dev"

const (
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o := daemon.Options{Version: version, Stderr: stderr}
	flags := flag.NewFlagSet("fastnd", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: fastnd [--config FILE] [--home DIR] [--check-config | --restore FILE]")
		flags.PrintDefaults()
	}
	flags.StringVar(&o.ConfigPath, "config", "", "configuration `FILE` (default /etc/fastn/fastn.toml, or DIR/fastn.toml with --home)")
	flags.StringVar(&o.Home, "home", "", "run for one user, with everything under `DIR`")
	check := flags.Bool("check-config", false, "read the configuration, say what is wrong with it, and exit")
	backup := flags.String("restore", "", "make the keys and data anew from what fastn daemon backup wrote to `FILE`, and exit")
	showVersion := flags.Bool("version", false, "print the version and exit")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return exitUsage
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "fastnd: unexpected argument %q\nhint: see fastnd --help\n", flags.Arg(0))
		return exitUsage
	}
	var err error
	switch {
	case *showVersion:
		fmt.Fprintln(stdout, "fastnd", version)
	case *check:
		err = daemon.CheckConfig(o)
	case *backup != "":
		err = restore(ctx, o, *backup, stdout)
	default:
		err = serve(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(stderr, "fastnd:", err)
		if hint := daemon.Hint(err); hint != "" {
			fmt.Fprintln(stderr, "hint:", hint)
		}
		return exitFailed
	}
	return 0
}

func restore(ctx context.Context, o daemon.Options, backup string, stdout io.Writer) error {
	r, err := daemon.Restore(ctx, o, backup)
	if err == nil {
		_, err = fmt.Fprintf(stdout, "restored node %s in %s, as it was on %s\n", r.Node, r.Dir, r.Created.Local().Format(time.DateTime))
	}
	return err
}

func serve(ctx context.Context, o daemon.Options) error {
	if err := daemon.Harden(); err != nil {
		return err
	}
	defer daemon.CollectSeldom()()
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	d, err := daemon.New(ctx, o)
	if err != nil {
		return err
	}
	return errors.Join(d.Run(ctx, reload), d.Close())
}
