package identity

import (
	"encoding/binary"
	"math/big"
	"math/bits"
)

// words is a number below 2²⁵⁶, least significant word first.
type words [4]uint64

func toWords(n *big.Int) words {
	var b [32]byte
	n.FillBytes(b[:])
	var w words
	for i := range w {
		w[i] = binary.BigEndian.Uint64(b[24-8*i:])
	}
	return w
}

// jacobi gives the Jacobi symbol (a/n) of a < n, n odd, by the binary algorithm.
// big.Jacobi takes several times as long, and every id that is read needs it.
// Not in constant time: ids are public.
func jacobi(a, n words) int {
	sign := 1
	for a != (words{}) {
		if a.halve()&1 == 1 && (n[0]&7 == 3 || n[0]&7 == 5) { // (2/n) = -1
			sign = -sign
		}
		diff, borrow := a.minus(n)
		if borrow { // a < n: quadratic reciprocity
			if a[0]&n[0]&3 == 3 {
				sign = -sign
			}
			diff, _ = n.minus(a)
			n = a
		}
		a = diff
	}
	if n != (words{1}) {
		return 0
	}
	return sign
}

// halve divides w, which is not 0, by 2 until it is odd and gives how often.
func (w *words) halve() (times int) {
	for w[0] == 0 {
		w[0], w[1], w[2], w[3] = w[1], w[2], w[3], 0
		times += 64
	}
	s := uint(bits.TrailingZeros64(w[0]))
	for i := range 3 {
		w[i] = w[i]>>s | w[i+1]<<(64-s) // a shift by 64 gives 0
	}
	w[3] >>= s
	return times + int(s)
}

func (w words) minus(o words) (diff words, borrow bool) {
	var b uint64
	for i := range w {
		diff[i], b = bits.Sub64(w[i], o[i], b)
	}
	return diff, b != 0
}
