package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"text/tabwriter"
)

// row is one line of the result. Ratio is Value over Baseline; Budget bounds the
// ratio where there is a baseline, else the value. Unmeasured tells why there is
// neither; then Met is false.
type row struct {
	What       string  `json:"what"`
	Value      float64 `json:"value"`
	Unit       string  `json:"unit"`
	Baseline   float64 `json:"baseline,omitempty"`
	Beside     string  `json:"beside,omitempty"`
	Ratio      float64 `json:"ratio,omitempty"`
	Budget     string  `json:"budget"`
	Met        bool    `json:"met"`
	Unmeasured string  `json:"unmeasured,omitempty"`
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

// unmeasured stands for a row that this machine cannot give.
func (r row) unmeasured(why error) row {
	r.Value, r.Baseline, r.Ratio, r.Met, r.Unmeasured = 0, 0, 0, false, why.Error()
	return r
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
		if r.Unmeasured == "" {
			fmt.Fprintf(os.Stderr, "  %s: %.4g %s\n", r.What, r.Value, r.Unit)
		}
	}
	b.rows = append(b.rows, r...)
}

func (b *bench) writeJSON(path string) error {
	data, err := json.MarshalIndent(results{runtime.Version(), runtime.NumCPU(), b.rows}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

func (b *bench) print(to io.Writer) error {
	fmt.Fprintf(to, "%s, %d processors\n", runtime.Version(), runtime.NumCPU())
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WHAT\tVALUE\tBASELINE\tBESIDE\tRATIO\tBUDGET\tMET")
	for _, r := range b.rows {
		value, base, ratio, met := fmt.Sprintf("%.4g %s", r.Value, r.Unit), "", "", "yes"
		if r.Baseline != 0 {
			base, ratio = fmt.Sprintf("%.4g", r.Baseline), fmt.Sprintf("%.2f", r.Ratio)
		}
		switch {
		case r.Unmeasured != "":
			value, met = "", "not measured"
		case !r.Met:
			met = "NO"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.What, value, base, r.Beside, ratio, r.Budget, met)
	}
	return w.Flush()
}

// tellUnmeasured names the rows that say nothing, with the reason.
func (b *bench) tellUnmeasured(to io.Writer) {
	for _, r := range b.rows {
		if r.Unmeasured != "" {
			fmt.Fprintf(to, "not measured: %s: %s\n", r.name(), r.Unmeasured)
		}
	}
}

// check names the rows whose budget was missed. What this machine cannot measure
// is no failure: a run as another user, or without sshd, is of use too.
func (b *bench) check() error {
	var missed []error
	for _, r := range b.rows {
		if r.Met || r.Unmeasured != "" {
			continue
		}
		got := fmt.Sprintf("%.4g %s", r.Value, r.Unit)
		if r.Baseline != 0 {
			got = fmt.Sprintf("%.2f ×", r.Ratio)
		}
		missed = append(missed, fmt.Errorf("budget not met: %s: %s, want %s", r.name(), got, r.Budget))
	}
	return errors.Join(missed...)
}

// name tells a row from others of the same quantity.
func (r row) name() string {
	if r.Beside == "" {
		return r.What
	}
	return r.What + ", beside " + r.Beside
}
