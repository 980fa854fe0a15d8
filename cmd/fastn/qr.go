package main

import (
	"bytes"
	"errors"
)

// Tables for error correction level L of ISO/IEC 18004, by version from 1.
const (
	qrEccPerBlock = "\x07\x0a\x0f\x14\x1a\x12\x14\x18\x1e\x12\x14\x18\x1a\x1e\x16\x18\x1c\x1e\x1c\x1c" +
		"\x1c\x1c\x1e\x1e\x1a\x1c\x1e\x1e\x1e\x1e\x1e\x1e\x1e\x1e\x1e\x1e\x1e\x1e\x1e\x1e"
	qrBlocks = "\x01\x01\x01\x01\x01\x02\x02\x02\x02\x04\x04\x04\x04\x04\x06\x06\x06\x06\x07\x08" +
		"\x08\x09\x09\x0a\x0c\x0c\x0c\x0d\x0e\x0f\x10\x11\x12\x13\x13\x14\x15\x16\x18\x19"
)

// qrCode is a square of modules; true is dark.
type qrCode struct {
	size int
	dark []bool
	used []bool // modules of the patterns, which carry no data
}

// newQR encodes data in byte mode, level L, in the smallest version that holds
// it. The mask is always 0: readers take any, and tickets look random.
func newQR(data []byte) (*qrCode, error) {
	for version := 1; version <= 40; version++ {
		ecc, blocks := int(qrEccPerBlock[version-1]), int(qrBlocks[version-1])
		raw := qrRawModules(version) / 8
		if room := raw - ecc*blocks; len(data)+qrHeader(version) <= room {
			q := &qrCode{size: version*4 + 17}
			q.dark, q.used = make([]bool, q.size*q.size), make([]bool, q.size*q.size)
			q.patterns(version)
			q.fill(qrInterleave(qrCodewords(data, version, room), raw, ecc, blocks))
			return q, nil
		}
	}
	return nil, errors.New("too long for a QR code")
}

// qrHeader is the size of mode and length, in bytes, rounded up.
func qrHeader(version int) int {
	if version < 10 {
		return 2
	}
	return 3
}

// qrRawModules counts the modules that carry data or error correction.
func qrRawModules(v int) int {
	n := (16*v+128)*v + 64
	if v >= 2 {
		align := v/7 + 2
		n -= (25*align-10)*align - 55
	}
	if v >= 7 {
		n -= 36
	}
	return n
}

// qrCodewords writes mode, length, data and padding into room bytes.
func qrCodewords(data []byte, version, room int) []byte {
	out := make([]byte, 0, room+1)
	var acc, bits uint
	put := func(value, n uint) {
		acc, bits = acc<<n|value, bits+n
		for bits >= 8 {
			bits -= 8
			out = append(out, byte(acc>>bits))
		}
	}
	put(4, 4)
	put(uint(len(data)), uint(8*(qrHeader(version)-1)))
	for _, b := range data {
		put(uint(b), 8)
	}
	put(0, 4)
	for pad := byte(0xec); len(out) < room; pad ^= 0xec ^ 0x11 {
		out = append(out, pad)
	}
	return out
}

// qrInterleave splits data into blocks, appends Reed-Solomon codewords to each
// and takes the blocks' bytes in turn.
func qrInterleave(data []byte, raw, ecc, blocks int) []byte {
	short, shortLen := blocks-raw%blocks, raw/blocks-ecc
	divisor := rsDivisor(ecc)
	parts, checks := make([][]byte, blocks), make([][]byte, blocks)
	for i := range blocks {
		n := shortLen
		if i >= short {
			n++
		}
		parts[i], data = data[:n], data[n:]
		checks[i] = rsRemainder(parts[i], divisor)
	}
	out := make([]byte, 0, raw)
	for col := range shortLen + 1 {
		for _, p := range parts {
			if col < len(p) {
				out = append(out, p[col])
			}
		}
	}
	for col := range ecc {
		for _, c := range checks {
			out = append(out, c[col])
		}
	}
	return out
}

// gfMul multiplies in GF(2^8) modulo 0x11d.
func gfMul(x, y byte) byte {
	z := 0
	for i := 7; i >= 0; i-- {
		z = z<<1 ^ z>>7*0x11d
		z ^= int(y>>i&1) * int(x)
	}
	return byte(z)
}

func rsDivisor(degree int) []byte {
	out := make([]byte, degree)
	out[degree-1] = 1
	root := byte(1)
	for range degree {
		for j := range out {
			out[j] = gfMul(out[j], root)
			if j+1 < degree {
				out[j] ^= out[j+1]
			}
		}
		root = gfMul(root, 2)
	}
	return out
}

func rsRemainder(data, divisor []byte) []byte {
	out := make([]byte, len(divisor))
	for _, b := range data {
		factor := b ^ out[0]
		copy(out, out[1:])
		out[len(out)-1] = 0
		for i, d := range divisor {
			out[i] ^= gfMul(d, factor)
		}
	}
	return out
}

// set draws a module of a pattern.
func (q *qrCode) set(x, y int, dark bool) {
	if x >= 0 && y >= 0 && x < q.size && y < q.size {
		q.dark[y*q.size+x], q.used[y*q.size+x] = dark, true
	}
}

func (q *qrCode) patterns(version int) {
	for i := range q.size {
		q.set(6, i, i%2 == 0)
		q.set(i, 6, i%2 == 0)
	}
	for _, corner := range [][2]int{{3, 3}, {q.size - 4, 3}, {3, q.size - 4}} {
		q.rings(corner[0], corner[1], 4)
	}
	positions := qrAlignment(version, q.size)
	last := len(positions) - 1
	for i, x := range positions {
		for j, y := range positions {
			if i == 0 && j == 0 || i == 0 && j == last || i == last && j == 0 {
				continue // a finder is there
			}
			q.rings(x, y, 2)
		}
	}
	q.formatBits()
	if version >= 7 {
		rem := version
		for range 12 {
			rem = rem<<1 ^ rem>>11*0x1f25
		}
		for i := range 18 {
			bit := (version<<12|rem)>>i&1 == 1
			q.set(q.size-11+i%3, i/3, bit)
			q.set(i/3, q.size-11+i%3, bit)
		}
	}
}

// rings draws a finder (reach 4, with its separator) or an alignment pattern
// (reach 2) around a centre.
func (q *qrCode) rings(cx, cy, reach int) {
	for dy := -reach; dy <= reach; dy++ {
		for dx := -reach; dx <= reach; dx++ {
			dist := max(dx, -dx, dy, -dy)
			dark := dist != 1
			if reach == 4 {
				dark = dist != 2 && dist != 4
			}
			q.set(cx+dx, cy+dy, dark)
		}
	}
}

func qrAlignment(version, size int) []int {
	if version == 1 {
		return nil
	}
	n := version/7 + 2
	step := (version*8 + n*3 + 5) / (n*4 - 4) * 2
	out := make([]int, n)
	out[0] = 6
	for i, pos := n-1, size-7; i > 0; i, pos = i-1, pos-step {
		out[i] = pos
	}
	return out
}

// formatBits draws level L and mask 0.
func (q *qrCode) formatBits() {
	const data = 1 << 3
	rem := data
	for range 10 {
		rem = rem<<1 ^ rem>>9*0x537
	}
	bits := (data<<10 | rem) ^ 0x5412
	bit := func(i int) bool { return bits>>i&1 == 1 }
	for i := range 6 {
		q.set(8, i, bit(i))
	}
	q.set(8, 7, bit(6))
	q.set(8, 8, bit(7))
	q.set(7, 8, bit(8))
	for i := 9; i < 15; i++ {
		q.set(14-i, 8, bit(i))
	}
	for i := range 8 {
		q.set(q.size-1-i, 8, bit(i))
	}
	for i := 8; i < 15; i++ {
		q.set(8, q.size-15+i, bit(i))
	}
	q.set(8, q.size-8, true)
}

// fill draws the codewords in their zigzag, masked by (x+y) even.
func (q *qrCode) fill(words []byte) {
	i := 0
	for right := q.size - 1; right >= 1; right -= 2 {
		if right == 6 {
			right = 5
		}
		for vert := range q.size {
			y := vert
			if (right+1)&2 == 0 {
				y = q.size - 1 - vert
			}
			for _, x := range []int{right, right - 1} {
				at := y*q.size + x
				if q.used[at] {
					continue
				}
				dark := i < len(words)*8 && words[i/8]>>(7-i%8)&1 == 1
				q.dark[at] = dark != ((x+y)%2 == 0)
				i++
			}
		}
	}
}

// draw renders two modules a character with a quiet zone, light on dark: with
// colours both are set, without the terminal is taken to be dark.
func (q *qrCode) draw(colours bool) []byte {
	const quiet = 4
	light := func(x, y int) bool {
		return x < 0 || y < 0 || x >= q.size || y >= q.size || !q.dark[y*q.size+x]
	}
	var b bytes.Buffer
	for y := -quiet; y < q.size+quiet; y += 2 {
		if colours {
			b.WriteString("\x1b[97;40m")
		}
		for x := -quiet; x < q.size+quiet; x++ {
			switch up, down := light(x, y), light(x, y+1); {
			case up && down:
				b.WriteRune('█')
			case up:
				b.WriteRune('▀')
			case down:
				b.WriteRune('▄')
			default:
				b.WriteByte(' ')
			}
		}
		if colours {
			b.WriteString("\x1b[0m")
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}
