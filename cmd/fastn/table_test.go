package main

import (
	"slices"
	"strings"
	"testing"
)

func TestTextWidth(t *testing.T) {
	for text, want := range map[string]int{"": 0, "hello": 5, "größe": 5, "漢字": 4, "e\u0301": 1, "한국 ok": 7, "🙂": 2, "שלום": 4} {
		if got := textWidth(text); got != want {
			t.Errorf("%q takes %d columns, got %d", text, want, got)
		}
	}
}

func TestFoldColumns(t *testing.T) {
	for _, c := range []struct {
		widths []int
		width  int
		want   []bool
	}{
		{[]int{8, 5, 20}, 0, []bool{false, false, false}},
		{[]int{8, 5, 20}, 37, []bool{false, false, false}},
		{[]int{8, 5, 20}, 36, []bool{false, false, true}},
		{[]int{8, 50, 5, 4}, 40, []bool{false, true, true, false}},
	} {
		if got := foldColumns(c.widths, c.width); !slices.Equal(got, c.want) {
			t.Errorf("%v in %d: %v, want %v", c.widths, c.width, got, c.want)
		}
	}
}

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  string
	}{
		{"one two three", 0, "one two three"},
		{"one two three", 13, "one two three"},
		{"one two three", 8, "one two|three"},
		{"one two three", 7, "one two|three"},
		{"abcdefgh", 3, "abc|def|gh"},
		{"漢字漢字", 5, "漢字|漢字"},
		{"漢", 1, "漢"},
		{"", 5, ""},
		{"      x", 3, "   |  x"},
	} {
		got := wrap(c.text, c.width)
		if strings.Join(got, "|") != c.want {
			t.Errorf("%q in %d columns: %q, want %q", c.text, c.width, got, c.want)
		}
	}
}

// Whatever stands in it, a wrapped text fits.
func FuzzWrap(f *testing.F) {
	f.Add("one two three", 4)
	f.Add("  漢字\u0301 \u202e\x1b[2J", 7)
	f.Fuzz(func(t *testing.T, text string, width int) {
		text, width = visible(text), 2+(width%200+200)%200
		for _, line := range wrap(text, width) {
			if textWidth(line) > width {
				t.Errorf("%q is wider than %d", line, width)
			}
		}
		if clipped := clip(text, width); textWidth(clipped) > width {
			t.Errorf("%q is wider than %d", clipped, width)
		}
	})
}

// A text is cut to the room beside the other columns; one that comes last and finds
// too little there has the line below.
func TestFitText(t *testing.T) {
	text := strings.Repeat("x", 100)
	for _, c := range []struct {
		header []string
		width  int
		want   int
	}{
		{[]string{"ID", "TEXT"}, 0, 100},
		{[]string{"ID", "TEXT"}, 200, 100},
		{[]string{"ID", "TEXT"}, 80, 80 - len("12345678") - 2},
		{[]string{"ID", "TEXT"}, 28, 28 - len(foldIndent)},
		{[]string{"TEXT", "ID"}, 80, 80 - len("12345678") - 2},
		{[]string{"TEXT", "ID"}, 28, leastText},
	} {
		row := []string{"12345678", "12345678"}
		row[slices.Index(c.header, "TEXT")] = text
		fitText(c.header, [][]string{row}, c.width)
		if got := textWidth(row[slices.Index(c.header, "TEXT")]); got != c.want {
			t.Errorf("%v in %d columns: %d of the text, want %d", c.header, c.width, got, c.want)
		}
	}
}
