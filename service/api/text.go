package api

import (
	"crypto/rand"
	"fmt"
	"strings"
)

// NewUUID makes a version 4 UUID (RFC 9562 §5.4).
func NewUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// longestShown is how much of a text an error repeats, in bytes.
const longestShown = 64

// Shorten cuts s for an error that repeats it, quoted: it may end within a
// character.
func Shorten(s string) string {
	if len(s) > longestShown {
		return s[:longestShown] + "…"
	}
	return s
}

// Nearest is the one of known that name may be a slip for, or "". Where names have
// dots, a right last part counts as near.
func Nearest(name string, known []string) string {
	if len(name) > longestShown {
		return "" // none is that long, and it would take its time
	}
	best, least := "", max(2, len(name)/3)+1
	for _, k := range known {
		d := min(distance(name, k), distance(lastPart(name), lastPart(k))+1)
		if d < least {
			best, least = k, d
		}
	}
	return best
}

func lastPart(dotted string) string { return dotted[strings.LastIndexByte(dotted, '.')+1:] }

// distance is the number of insertions, deletions, replacements and swaps of
// neighbours that turn a into b (optimal string alignment), ignoring case.
func distance(a, b string) int {
	a, b = strings.ToLower(a), strings.ToLower(b)
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
