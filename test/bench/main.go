// Command bench measures fastn beside the baselines that its budgets are
// relative to (DESIGN §12), in one run: ratios of medians, as a table and as
// JSON. Run it with `make bench`.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"
)

// row is one line of the result. Ratio is Value over Baseline; Budget bounds the
// ratio where there is a baseline, else the value.
type row struct {
	What     string  `json:"what"`
	Value    float64 `json:"value"`
	Unit     string  `json:"unit"`
	Baseline float64 `json:"baseline,omitempty"`
	Beside   string  `json:"beside,omitempty"`
	Ratio    float64 `json:"ratio,omitempty"`
	Budget   string  `json:"budget"`
	Met      bool    `json:"met"`
}

func atMost(what string, value float64, unit string, baseline float64, beside string, budget float64) row {
	r := row{What: what, Value: value, Unit: unit, Baseline: baseline, Beside: beside, Budget: fmt.Sprintf("≤ %g ×", budget)}
	r.Ratio = value / baseline
	r.Met = r.Ratio <= budget
	return r
}

func atLeast(what string, value float64, unit string, baseline float64, beside string, budget float64) row {
	r := atMost(what, value, unit, baseline, beside, budget)
	r.Budget = fmt.Sprintf("≥ %g ×", budget)
	r.Met = r.Ratio >= budget
	return r
}

// beside is shown with a baseline that no budget is relative to.
func beside(what string, value float64, unit string, baseline float64, beside string) row {
	return row{What: what, Value: value, Unit: unit, Baseline: baseline, Beside: beside, Ratio: value / baseline, Budget: "shown", Met: true}
}

func under(what string, value float64, unit string, limit float64) row {
	return row{What: what, Value: value, Unit: unit, Budget: fmt.Sprintf("≤ %g %s", limit, unit), Met: value <= limit}
}

func shown(what string, value float64, unit string) row {
	return row{What: what, Value: value, Unit: unit, Budget: "shown", Met: true}
}

// bench is one run.
type bench struct {
	bin  string // folder of the programs
	rows []row
}

// results is the JSON: what two runs on one machine can be compared by. It has no
// date.
type results struct {
	Go         string `json:"go"`
	Processors int    `json:"processors"`
	Rows       []row  `json:"rows"`
}

func (b *bench) add(r ...row) {
	for _, r := range r {
		fmt.Fprintf(os.Stderr, "  %s: %.4g %s\n", r.What, r.Value, r.Unit)
	}
	b.rows = append(b.rows, r...)
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
	case len(args) == 2 && args[0] == "raw":
		return func() error { return rawServer(args[1]) }
	case len(args) == 3 && args[0] == "relay":
		return func() error { return relayServer(args[1], args[2]) }
	}
	return nil
}

func run(ctx context.Context) error {
	b := &bench{}
	flag.StringVar(&b.bin, "bin", "bin", "folder of fastn and fastnd")
	only := flag.String("only", "", "the one part to measure: calls, rates, command, streams, idle, peers, cold or messages")
	out := flag.String("json", "", "write the rows to this file too")
	flag.Parse()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()
	for _, part := range []struct {
		name string
		run  func(context.Context, *bench) error
	}{
		{"calls", benchCalls}, {"rates", benchRates}, {"command", benchCommand}, {"streams", benchStreams}, {"idle", benchIdle}, {"peers", benchPeers}, {"cold", benchCold}, {"messages", benchMessages},
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
		data, err := json.MarshalIndent(results{runtime.Version(), runtime.NumCPU(), b.rows}, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(*out, append(data, '\n'), 0o644); err != nil {
			return err
		}
	}
	return b.print()
}

func (b *bench) print() error {
	fmt.Printf("%s, %d processors\n", runtime.Version(), runtime.NumCPU())
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WHAT\tVALUE\tBASELINE\tBESIDE\tRATIO\tBUDGET\tMET")
	for _, r := range b.rows {
		base, ratio, met := "", "", "yes"
		if r.Baseline != 0 {
			base, ratio = fmt.Sprintf("%.4g", r.Baseline), fmt.Sprintf("%.2f", r.Ratio)
		}
		if !r.Met {
			met = "NO"
		}
		fmt.Fprintf(w, "%s\t%.4g %s\t%s\t%s\t%s\t%s\t%s\n", r.What, r.Value, r.Unit, base, r.Beside, ratio, r.Budget, met)
	}
	return w.Flush()
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
