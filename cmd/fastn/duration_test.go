package main

import (
	"testing"
	"time"
)

func TestPeriod(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{"1d": day, "30d": 30 * day, "1.5d": 36 * time.Hour,
		"1d12h": 36 * time.Hour, "90s": 90 * time.Second, "0s": 0, "1m30s": 90 * time.Second,
		"-1s": -1, "-1d": -1, "": -1, "d": -1, "1": -1, "1e300d": -1, "nand": -1, "infd": -1, "1w": -1} {
		var p period
		err := p.UnmarshalText([]byte(text))
		if want < 0 && err == nil || want >= 0 && (err != nil || time.Duration(p) != want) {
			t.Errorf("%q is %v, %v", text, time.Duration(p), err)
		}
	}
}

// What is refused is shown as it was typed, or as it might be.
func TestPeriodIsShownInDays(t *testing.T) {
	for _, text := range []string{"31d", "1d12h0m0s", "1s", "36m0s", "0s"} {
		var p period
		if err := p.UnmarshalText([]byte(text)); err != nil || p.String() != text {
			t.Errorf("%q is shown as %q, %v", text, p, err)
		}
	}
}
