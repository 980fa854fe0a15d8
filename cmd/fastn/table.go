package main

import (
	"bytes"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/term"
)

// foldIndent is what stands before the further lines of one row, or of one line
// of a text, so that they are not taken for the next.
const foldIndent = "    "

// columns is the width of the terminal, 0 where standard output is none.
func (a *app) columns() int {
	if !isTerminal(a.std.Out) {
		return 0
	}
	width, _, err := term.GetSize(int(a.std.Out.Fd()))
	if err != nil || width < 2*len(foldIndent) {
		return 0
	}
	return width
}

// table appends rows in aligned columns under a header. Cells are made visible;
// an empty one is shown as "-". On a terminal that is too narrow the last columns
// stand on lines of their own below each row; elsewhere a row is a line.
func (a *app) table(b *bytes.Buffer, header []string, rows [][]string) {
	widths := make([]int, len(header))
	for i, h := range header {
		widths[i] = len(h)
	}
	for _, row := range rows {
		for i, cell := range row {
			if cell == "" {
				cell = "-"
			}
			row[i] = visible(cell)
			widths[i] = max(widths[i], textWidth(row[i]))
		}
	}
	breaks := foldColumns(widths, a.columns())
	for _, line := range a.tableLines(header, widths, breaks) {
		b.WriteString(a.style(a.outTTY, "1", line) + "\n")
	}
	for _, row := range rows {
		for _, line := range a.tableLines(row, widths, breaks) {
			b.WriteString(line + "\n")
		}
	}
}

// foldColumns tells before which columns a line ends, so that none is wider than
// width, if a column alone is not; width 0 is without bound.
func foldColumns(widths []int, width int) (breaks []bool) {
	breaks = make([]bool, len(widths))
	used := 0
	for i, w := range widths {
		if i > 0 && width > 0 && used+2+w > width {
			breaks[i] = true
			used = len(foldIndent) + w
			continue
		}
		used += w
		if i > 0 {
			used += 2
		}
	}
	return breaks
}

// leastText is how much of a text, in columns, is worth to stand beside the rest.
const leastText = 20

// fitText cuts the texts to what the rest of a row leaves of a terminal, or to the
// line below it where a text that comes last has no room beside it.
// Width 0 is without bound.
func fitText(header []string, rows [][]string, width int) {
	if width == 0 {
		return
	}
	text, room := slices.Index(header, "TEXT"), width
	for i, name := range header {
		widest := textWidth(name)
		for _, row := range rows {
			widest = max(widest, textWidth(visible(row[i])))
		}
		if i != text {
			room -= widest + 2
		}
	}
	if room < leastText {
		if room = leastText; text == len(header)-1 {
			room = width - len(foldIndent)
		}
	}
	for _, row := range rows {
		row[text] = clip(visible(row[text]), room)
	}
}

// tableLines is one row; a cell that is wider than the terminal goes on below.
func (a *app) tableLines(cells []string, widths []int, breaks []bool) (lines []string) {
	var s strings.Builder
	for i, cell := range cells {
		last := i == len(cells)-1 || breaks[i+1]
		if breaks[i] {
			s.WriteString(foldIndent)
			if last && cell == "-" { // not worth a line
				s.Reset()
				continue
			}
			if last { // alone, or at the end: it may be too long
				wrapped := wrap(cell, a.columns()-len(foldIndent))
				lines = append(lines, foldIndent+strings.Join(wrapped, "\n"+foldIndent))
				s.Reset()
				continue
			}
		}
		s.WriteString(cell)
		if last {
			lines = append(lines, s.String())
			s.Reset()
			continue
		}
		s.WriteString(strings.Repeat(" ", widths[i]-textWidth(cell)+2))
	}
	return lines
}

// wrap breaks text, which is visible, into lines of at most width columns, at
// spaces where there are any; width 0 or less is without bound.
func wrap(text string, width int) (lines []string) {
	if width <= 0 {
		return []string{text}
	}
	for textWidth(text) > width {
		cut, used := 0, 0
		for i, r := range text {
			used += runeWidth(r)
			if used > width {
				cut = i
				break
			}
		}
		if cut == 0 { // not even one character fits
			break
		}
		rest := text[cut:]
		if space := strings.LastIndexByte(text[:cut], ' '); space > 0 && rest[0] != ' ' {
			cut, rest = space, text[space+1:]
		}
		lines = append(lines, text[:cut])
		text = strings.TrimPrefix(rest, " ")
	}
	return append(lines, text)
}

// clip is text, which is visible, cut to width columns, the last of them "…".
func clip(text string, width int) string {
	if textWidth(text) <= width {
		return text
	}
	used := 0
	for i, r := range text {
		used += runeWidth(r)
		if used > width-1 {
			return text[:i] + "…"
		}
	}
	return text
}

// textWidth is how many columns of a terminal text takes.
func textWidth(text string) (width int) {
	if plainText(text) {
		return len(text)
	}
	for _, r := range text {
		width += runeWidth(r)
	}
	return width
}

// wide are the characters that take two columns: East Asian Wide and Fullwidth
// (Unicode Standard Annex #11), and emoji, by their blocks.
var wide = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x1100, Hi: 0x115f, Stride: 1}, {Lo: 0x2e80, Hi: 0xa4cf, Stride: 1}, {Lo: 0xac00, Hi: 0xd7a3, Stride: 1},
		{Lo: 0xf900, Hi: 0xfaff, Stride: 1}, {Lo: 0xfe30, Hi: 0xfe6f, Stride: 1}, {Lo: 0xff00, Hi: 0xff60, Stride: 1},
		{Lo: 0xffe0, Hi: 0xffe6, Stride: 1},
	},
	R32: []unicode.Range32{{Lo: 0x1f300, Hi: 0x1f64f, Stride: 1}, {Lo: 0x1f680, Hi: 0x1faff, Stride: 1}, {Lo: 0x20000, Hi: 0x3fffd, Stride: 1}},
}

// runeWidth is how many columns r takes: two if it is wide, none if it stands on
// the character before.
func runeWidth(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	case unicode.Is(wide, r):
		return 2
	}
	return 1
}
