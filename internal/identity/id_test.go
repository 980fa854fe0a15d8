package identity

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

func newKey(t testing.TB) Key {
	t.Helper()
	k, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestIDRoundTrip(t *testing.T) {
	for range 200 {
		k := newKey(t)
		id := k.ID()
		want, err := peer.IDFromPublicKey(id.PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		if id.PeerID() != want {
			t.Fatalf("PeerID %s, libp2p says %s", id.PeerID(), want)
		}
		for _, text := range []string{id.String(), want.String(), peer.ToCid(want).String()} {
			got, err := ParseID(text)
			if err != nil || got != id {
				t.Fatalf("ParseID(%s) = %s, %v", text, got, err)
			}
		}
		if len(id.String()) != 52 || !strings.HasPrefix(id.String(), id.Short()) || len(id.Short()) != 8 {
			t.Fatalf("String %q Short %q", id.String(), id.Short())
		}
		again, err := KeyFromSeed(k.Seed())
		if err != nil || again.ID() != id {
			t.Fatalf("KeyFromSeed: %s, %v, want %s", again.ID(), err, id)
		}
	}
}

func TestIDVector(t *testing.T) {
	// RFC 8032 §7.1, test 1.
	seed, _ := hex.DecodeString("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
	k, err := KeyFromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	raw := k.ID()
	if got := hex.EncodeToString(raw[:]); got != "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a" {
		t.Fatalf("public key %s", got)
	}
	if got, want := k.ID().String(), "qtd9g0c2m45bflabvr9sip07787e2snjraj269df08d6hto7a4d0"; got != want {
		t.Fatalf("id52 %s, want %s", got, want)
	}
}

func TestParseIDRefuses(t *testing.T) {
	good := newKey(t).ID().String()
	rsa, _, err := crypto.GenerateRSAKeyPair(2048, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	secp, _, err := crypto.GenerateSecp256k1Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	peerOf := func(k crypto.PrivKey) string {
		p, err := peer.IDFromPrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		return p.String()
	}
	offCurve := ID{2} // y = 2 has no x
	cases := map[string]struct{ in, says string }{
		"empty":            {"", "empty"},
		"upper case":       {strings.ToUpper(good), "lower case"},
		"mixed case":       {strings.ToUpper(good[:1]+"a") + good[2:], "lower case"},
		"short":            {good[:51], "52 characters"},
		"long":             {good + "0", "52 characters"},
		"newline for char": {good[:51] + "\n", "0-9 and a-v"},
		"foreign alphabet": {"z" + good[1:], "0-9 and a-v"},
		"space":            {" " + good[:51], "0-9 and a-v"},
		"huge":             {strings.Repeat("1", 1<<20), "too many"},
		"zero":             {ID{}.String(), "no Ed25519 key"},
		"off the curve":    {offCurve.String(), "no Ed25519 key"},
		"off, as peer id":  {offCurve.PeerID().String(), "no Ed25519 key"},
		"RSA peer id":      {peerOf(rsa), "not that of an Ed25519 key"},
		"secp256k1":        {peerOf(secp), "not that of an Ed25519 key"},
		"a contact's name": {"bob", "52 characters"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			id, err := ParseID(c.in)
			if !errors.Is(err, ErrID) || !id.IsZero() {
				t.Fatalf("got %s, %v", id, err)
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q does not say %q", err, c.says)
			}
		})
	}
}

func TestParseIDTrailingBits(t *testing.T) {
	const chars = "0123456789abcdefghijklmnopqrstuv"
	good := newKey(t).ID().String()
	for _, c := range chars {
		text := good[:51] + string(c)
		id, err := ParseID(text)
		if text == good {
			continue
		}
		if err == nil && id.String() != text {
			t.Errorf("%s is accepted as %s", text, id)
		}
		if strings.IndexRune(chars, c)%16 != 0 && err == nil {
			t.Errorf("%s has stray bits and is accepted", text)
		}
	}
}

func TestIDText(t *testing.T) {
	id := newKey(t).ID()
	text, err := json.Marshal(map[ID]ID{id: id})
	if err != nil {
		t.Fatal(err)
	}
	var back map[ID]ID
	if err := json.Unmarshal(text, &back); err != nil || back[id] != id {
		t.Fatalf("%s: %v %v", text, back, err)
	}
	before := back[id]
	if err := before.UnmarshalText([]byte("nonsense")); err == nil || before != id {
		t.Fatalf("bad text: %v, changed: %v", err, before != id)
	}
}

func TestFromPeerIDRefusesOddForms(t *testing.T) {
	p := string(newKey(t).ID().PeerID())
	for name, bad := range map[string]string{
		"empty": "", "short": p[:37], "long": p + "x",
		// An unknown protobuf field more: libp2p would find the same key in it.
		"more fields": "\x00\x26" + p[2:] + "\x18\x01",
	} {
		if _, err := FromPeerID(peer.ID(bad)); !errors.Is(err, ErrKeyType) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOnCurve compares with the definition: x = sqrt((y²-1)/(dy²+1)), and 8·P is
// not the neutral element.
func TestOnCurve(t *testing.T) {
	p := edwards.p
	on := 0
	for range 500 {
		var id ID
		_, _ = rand.Read(id[:])
		raw := id
		raw[31] &= 0x7f
		for i, j := 0, 31; i < j; i, j = i+1, j-1 {
			raw[i], raw[j] = raw[j], raw[i]
		}
		y := new(big.Int).SetBytes(raw[:])
		yy := new(big.Int).Exp(y, big.NewInt(2), p)
		u := new(big.Int).Sub(yy, big.NewInt(1))
		v := new(big.Int).Add(new(big.Int).Mul(edwards.d, yy), big.NewInt(1))
		xx := u.Mul(u, v.ModInverse(v.Mod(v, p), p)).Mod(u, p)
		want := y.Cmp(p) < 0 && new(big.Int).ModSqrt(xx, p) != nil
		if got := id.onCurve(); got != want {
			t.Fatalf("%x: %v, want %v", id, got, want)
		}
		if want {
			on++
		}
	}
	if on < 150 || on > 350 {
		t.Errorf("%d of 500 random strings are points, expected about half", on)
	}
}

func TestSmallOrderRefused(t *testing.T) {
	// All y of points whose order divides 8, and their non-canonical spellings
	// (as listed by libsodium and by "Taming the many EdDSAs", SSR 2020).
	for _, h := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	} {
		b, _ := hex.DecodeString(h)
		for _, sign := range []byte{0, 0x80} {
			id := ID(b)
			id[31] |= sign
			if id.onCurve() {
				t.Errorf("%x is accepted", id)
			}
		}
	}
}

func TestSecretsRedact(t *testing.T) {
	k, s := newKey(t), NewSecret()
	seed := k.Seed()
	holder := struct {
		Public  Key
		private Key
		Secret  Secret
	}{k, k, s}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "key", k, "secret", s, "holder", holder)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", k, "secret", s, "holder", holder)
	js, err := json.Marshal(holder)
	if err != nil {
		t.Fatal(err)
	}
	out := log.String() + string(js) + fmt.Sprint(k, s, holder, &holder, holder.private) +
		fmt.Sprintf("%v %+v %#v %x %d %s %q", k, k, k, k, k, k, k) +
		fmt.Sprintf("%v %+v %#v %x %d %s %q", s, s, s, s, s, s, s) +
		fmt.Sprintf("%v %+v %#v", holder, holder, holder)
	for _, b := range [][]byte{seed, s[:]} {
		for _, f := range []string{"%x", "%X", "%d", "%v", "%s"} {
			// Any eight bytes in a row would be a leak.
			part := strings.Trim(fmt.Sprintf(f, b[4:12]), "[]")
			if strings.Contains(out, part) {
				t.Errorf("leaked as %s", f)
			}
		}
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%d", "%x", "%q"} {
		if got := fmt.Sprintf(verb, k) + fmt.Sprintf(verb, s); got != redacted+redacted {
			t.Errorf("%s gives %s", verb, got)
		}
	}
}

func BenchmarkParseID52(b *testing.B) {
	s := newKey(b).ID().String()
	for b.Loop() {
		if _, err := ParseID(s); err != nil {
			b.Fatal(err)
		}
	}
}

func TestJacobi(t *testing.T) {
	limit := new(big.Int).Lsh(big.NewInt(1), 256)
	for i := range 5000 {
		n, _ := rand.Int(rand.Reader, limit)
		n.SetBit(n, 0, 1)
		if i%2 == 0 {
			n.Set(edwards.p)
		}
		a, _ := rand.Int(rand.Reader, n)
		a.Rsh(a, uint(i%200)) // small ones and those with many zeros too
		a.Lsh(a, uint(i%190)).Mod(a, n)
		if got, want := jacobi(toWords(a), toWords(n)), big.Jacobi(a, n); got != want {
			t.Fatalf("(%s/%s) = %d, want %d", a, n, got, want)
		}
	}
}
