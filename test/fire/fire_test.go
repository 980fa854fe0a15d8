// Package fire puts real daemons, as processes, under hostile clients and peers
// and under the faults of the other side, and measures what everybody else
// notices of it. Short here, long in `make torture`.
package fire

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/fastn-stack/fastnd/test/process"
)

// bin holds the programs under test.
var bin string

func TestMain(m *testing.M) {
	if role := os.Getenv(userRole); role != "" {
		os.Exit(userMain(role))
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if bin = os.Getenv(binOf); bin != "" {
		return m.Run(), nil
	}
	if bin, err = os.MkdirTemp("", "fastn-fire"); err != nil {
		return 1, err
	}
	defer os.RemoveAll(bin)
	if err := process.Build(context.Background(), bin, "./cmd/fastnd", "./cmd/fastn"); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// start runs a daemon until the test ends.
func start(t *testing.T, o process.Options) *process.Daemon {
	t.Helper()
	d, err := process.Start(context.WithoutCancel(t.Context()), bin, o)
	if err != nil {
		t.Fatal(err)
	}
	closeAfter(t, d)
	return d
}

// pair runs two daemons until the test ends; each calls the other "peer".
func pair(t *testing.T, o process.Options) (x, y *process.Daemon) {
	t.Helper()
	x, y = start(t, o), start(t, o)
	if err := process.Join(t.Context(), x, y); err != nil {
		t.Fatal(err)
	}
	return x, y
}

func closeAfter(t *testing.T, d *process.Daemon) {
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestPair(t *testing.T) {
	x, _ := pair(t, process.Options{})
	if _, err := x.Client.Hello(t.Context()); err != nil {
		t.Fatal(err)
	}
}
