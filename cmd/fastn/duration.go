package main

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// period is a time.Duration on the command line: as Go's, and with days, "7d".
type period time.Duration

// UnmarshalText is how the parser reads one.
func (p *period) UnmarshalText(text []byte) error {
	s := string(text)
	d, err := parsePeriod(s)
	if err != nil {
		return err
	}
	if d < 0 || strings.HasPrefix(s, "-") {
		return errors.New(strconv.Quote(s) + " is less than nothing")
	}
	*p = period(d)
	return nil
}

// String gives it as it may be typed, with days.
func (p period) String() string {
	const day = 24 * time.Hour
	d := time.Duration(p)
	days, rest := d/day, d%day
	switch {
	case days == 0:
		return d.String()
	case rest == 0:
		return strconv.Itoa(int(days)) + "d"
	}
	return strconv.Itoa(int(days)) + "d" + rest.String()
}

func parsePeriod(s string) (time.Duration, error) {
	days, rest, found := strings.Cut(s, "d")
	if !found {
		days, rest = "0", s
	}
	n, err := strconv.ParseFloat(days, 64)
	d := time.Duration(0)
	if err == nil && (rest != "" || !found) {
		d, err = time.ParseDuration(rest)
	}
	total := n*float64(24*time.Hour) + float64(d)
	if err != nil || !(math.Abs(total) < math.MaxInt64) {
		return 0, errors.New(strconv.Quote(s) + " is no time: give it as 500ms, 30s, 2m, 24h or 7d")
	}
	if !found {
		return d, nil // to the nanosecond
	}
	return time.Duration(total), nil
}
