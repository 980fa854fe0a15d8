package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes, written in the file as "256MiB" or as a bare
// number of bytes. It is never negative.
type Size int64

// Units of Size.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
	TiB Size = 1 << 40
)

type unit[T ~int64] struct {
	name string
	size T
}

// sizeUnits is ordered from large to small.
func sizeUnits() []unit[Size] {
	return []unit[Size]{{"TiB", TiB}, {"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB}, {"B", 1}}
}

// ParseSize reads a whole number followed by B, KiB, MiB, GiB or TiB; a number
// without a unit is bytes.
func ParseSize(s string) (Size, error) {
	digits, name := splitUnit(s)
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s is not a size: write a whole number and B, KiB, MiB, GiB or TiB", show(s))
	}
	if name == "" {
		return Size(n), nil
	}
	for _, u := range sizeUnits() {
		if u.name != name {
			continue
		}
		if n > math.MaxInt64/int64(u.size) {
			return 0, fmt.Errorf("%s is too large", show(s))
		}
		return Size(n) * u.size, nil
	}
	return 0, fmt.Errorf("%s is not a size: the unit must be B, KiB, MiB, GiB or TiB", show(s))
}

// String is the shortest exact form, such as "1GiB".
func (s Size) String() string {
	for _, u := range sizeUnits() {
		if s >= u.size && s%u.size == 0 {
			return strconv.FormatInt(int64(s/u.size), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// Duration is a length of time, written as "7d", "36h" or "1d12h".
type Duration time.Duration

// Day is 24 hours, whatever the clocks do.
const Day = Duration(24 * time.Hour)

// Std is d as the standard library has it.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// ParseDuration reads what [time.ParseDuration] reads, optionally after a
// whole number of days: "7d", "1d12h". Negative values are errors.
func ParseDuration(s string) (Duration, error) {
	var total Duration
	rest := s
	if digits, after, ok := strings.Cut(s, "d"); ok {
		days, err := strconv.ParseUint(digits, 10, 32)
		if err != nil || Duration(days) > math.MaxInt64/Day {
			return 0, errNotDuration(s)
		}
		total, rest = Duration(days)*Day, after
		if rest == "" {
			return total, nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || Duration(d) > math.MaxInt64-total {
		return 0, errNotDuration(s)
	}
	return total + Duration(d), nil
}

// String is the form the file uses: whole days as "7d", then the rest.
func (d Duration) String() string {
	if d == 0 {
		return "0s"
	}
	var b strings.Builder
	if days := d / Day; days > 0 {
		fmt.Fprintf(&b, "%dd", days)
		d -= days * Day
	}
	if d != 0 {
		text := time.Duration(d).String()
		if strings.HasSuffix(text, "m0s") {
			text = strings.TrimSuffix(text, "0s")
		}
		if strings.HasSuffix(text, "h0m") {
			text = strings.TrimSuffix(text, "0m")
		}
		b.WriteString(text)
	}
	return b.String()
}

func errNotDuration(s string) error {
	return errors.New(show(s) + ` is not a length of time: write it as "7d", "36h" or "90s"`)
}

// splitUnit cuts s after its leading decimal digits.
func splitUnit(s string) (digits, name string) {
	end := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		return s, ""
	}
	return s[:end], strings.TrimPrefix(s[end:], " ")
}

// show quotes a value for a message and bounds it, so that a file of another
// kind given by mistake does not flood the terminal.
func show(s string) string {
	const most = 64
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strconv.Quote(s)
}
