package identity

import (
	"math/big"
	"slices"
)

// curve is edwards25519 as far as telling points from other bytes needs it
// (RFC 8032 §5.1): the prime of its field and its constant d.
type curve struct {
	p, d  *big.Int
	words words // p
}

var edwards = newCurve()

func newCurve() curve {
	p := new(big.Int).Lsh(big.NewInt(1), 255)
	p.Sub(p, big.NewInt(19))
	// d = -121665/121666
	d := new(big.Int).ModInverse(big.NewInt(121666), p)
	d.Mul(d, big.NewInt(-121665)).Mod(d, p)
	return curve{p: p, d: d, words: toWords(p)}
}

// onCurve reports whether id is a canonical point that can be someone's key.
// Points of small order are refused: a signature that verifies under one can be
// made by anybody.
func (id ID) onCurve() bool {
	raw := id
	raw[31] &= 0x7f // the sign of x
	slices.Reverse(raw[:])
	y := new(big.Int).SetBytes(raw[:])
	return y.Cmp(edwards.p) < 0 && edwards.hasPoint(y)
}

// hasPoint: x² = (y²-1)/(dy²+1) has a root other than 0 exactly if
// (y²-1)(dy²+1) is a non-zero square. The order of (x, y) divides 8 exactly if
// y³-y = 0 (orders 1, 2, 4) or dy⁴+2y²-1 = 0 (order 8: doubling gives y = 0).
func (c curve) hasPoint(y *big.Int) bool {
	one := big.NewInt(1)
	yy := new(big.Int).Mul(y, y)
	yy.Mod(yy, c.p)
	dyy := new(big.Int).Mul(yy, c.d)
	dyy.Mod(dyy, c.p)

	order8 := new(big.Int).Add(dyy, big.NewInt(2))
	order8.Mul(order8, yy).Sub(order8, one).Mod(order8, c.p)
	if y.Sign() == 0 || order8.Sign() == 0 {
		return false
	}
	uv := new(big.Int).Sub(yy, one)
	uv.Mul(uv, dyy.Add(dyy, one)).Mod(uv, c.p)
	return jacobi(toWords(uv), c.words) == 1
}
