// Command bench measures fastn beside the baselines that its budgets are
// relative to (DESIGN §12), in one run: ratios of medians, as a table and as
// JSON. Run it with `make bench`, which fails if a budget is not met.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"time"
)

// bench is one run.
type bench struct {
	bin  string // folder of the programs
	rows []row
}

func main() {
	if serve := server(os.Args[1:]); serve != nil {
		if err := serve(); err != nil {
			fmt.Fprintf(os.Stderr, "bench %s: %v\n", os.Args[1], err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// server is what this program does as another process of a measurement.
func server(args []string) func() error {
	switch {
	case len(args) == 3 && args[0] == "raw":
		return func() error { return rawServer(args[1], args[2]) }
	case len(args) == 4 && args[0] == "relay":
		return func() error { return relayServer(args[1], args[2], args[3]) }
	case len(args) == 2 && args[0] == "echo":
		return func() error { return echoServer(args[1]) }
	case len(args) == 2 && args[0] == "sync":
		return func() error { return syncServer(args[1]) }
	}
	return nil
}

func run(ctx context.Context) error {
	b := &bench{}
	flag.StringVar(&b.bin, "bin", "bin", "folder of fastn and fastnd")
	only := flag.String("only", "", "the one part to measure: calls, rates, command, streams, idle, users, peers, cold or messages")
	out := flag.String("json", "", "write the rows to this file too")
	strict := flag.Bool("check", false, "fail if a budget is not met")
	flag.Parse()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()
	for _, part := range []struct {
		name string
		run  func(context.Context, *bench) error
	}{
		{"calls", benchCalls}, {"rates", benchRates}, {"command", benchCommand}, {"streams", benchStreams}, {"idle", benchIdle}, {"users", benchUsers}, {"peers", benchPeers}, {"cold", benchCold}, {"messages", benchMessages},
	} {
		if *only != "" && *only != part.name {
			continue
		}
		fmt.Fprintln(os.Stderr, part.name)
		if err := part.run(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	if *out != "" {
		if err := b.writeJSON(*out); err != nil {
			return err
		}
	}
	if err := b.print(os.Stdout); err != nil {
		return err
	}
	b.tellUnmeasured(os.Stderr)
	if *strict {
		return b.check()
	}
	return nil
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// micros times f in µs, n times.
func micros(n int, f func() error) ([]float64, error) {
	out := make([]float64, 0, n)
	for range n {
		start := time.Now()
		if err := f(); err != nil {
			return nil, err
		}
		out = append(out, float64(time.Since(start).Nanoseconds())/1e3)
	}
	return out, nil
}

// often is how often a second f can be done.
func often(long time.Duration, f func() error) (float64, error) {
	n := 0
	start := time.Now()
	for ; time.Since(start) < long; n++ {
		if err := f(); err != nil {
			return 0, err
		}
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

// interleaved takes rounds of each of fs in turn, so that a change of the
// machine's speed hits all, and returns the median of each one's medians.
func interleaved(rounds int, fs ...func() ([]float64, error)) ([]float64, error) {
	all := make([][]float64, len(fs))
	for range rounds {
		for i, f := range fs {
			x, err := f()
			if err != nil {
				return nil, err
			}
			all[i] = append(all[i], median(x))
		}
	}
	out := make([]float64, len(fs))
	for i, v := range all {
		out[i] = median(v)
	}
	return out, nil
}

// inTurn is interleaved for two.
func inTurn(rounds int, a, b func() ([]float64, error)) (ma, mb float64, err error) {
	m, err := interleaved(rounds, a, b)
	if err != nil {
		return 0, 0, err
	}
	return m[0], m[1], nil
}
