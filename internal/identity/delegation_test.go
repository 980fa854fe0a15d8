package identity

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/record"
)

// noon is a time with microseconds, as delegations have.
var noon = time.UnixMicro(1_790_000_000_123_456)

func delegate(t testing.TB, k Key, node ID, now time.Time, ttl time.Duration) *Delegation {
	t.Helper()
	d, err := Delegate(k, node, now, ttl)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// forged is a record that says what it likes.
type forged struct {
	domain, codec string
	payload       []byte
}

func (f *forged) Domain() string                 { return f.domain }
func (f *forged) Codec() []byte                  { return []byte(f.codec) }
func (f *forged) MarshalRecord() ([]byte, error) { return f.payload, nil }
func (f *forged) UnmarshalRecord([]byte) error   { return nil }

func (f forged) seal(t testing.TB, k crypto.PrivKey) []byte {
	t.Helper()
	env, err := record.Seal(&f, k)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := env.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func payload(identity, node ID, issued, expires time.Time) []byte {
	b, _ := (&delegationRecord{Identity: identity, Node: node, Issued: issued, Expires: expires}).MarshalRecord()
	return b
}

func TestDelegationRoundTrip(t *testing.T) {
	k, node := newKey(t), newKey(t).ID()
	d := delegate(t, k, node, noon.Add(789*time.Nanosecond), time.Hour+time.Nanosecond)
	if len(d.Raw) > MaxDelegation/2 {
		t.Errorf("%d bytes", len(d.Raw))
	}
	got, err := NewVerifier(nil).Verify(d.Raw, node, noon.Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if got.Identity != k.ID() || got.Node != node || !got.Issued.Equal(noon) ||
		!got.Expires.Equal(noon.Add(time.Hour)) || !bytes.Equal(got.Raw, d.Raw) {
		t.Fatalf("%+v", got)
	}
}

func TestDelegateRefuses(t *testing.T) {
	k := newKey(t)
	for name, f := range map[string]func() (*Delegation, error){
		"no key":  func() (*Delegation, error) { return Delegate(Key{}, k.ID(), noon, time.Hour) },
		"no node": func() (*Delegation, error) { return Delegate(k, ID{}, noon, time.Hour) },
		"no time": func() (*Delegation, error) { return Delegate(k, k.ID(), noon, 0) },
		"past":    func() (*Delegation, error) { return Delegate(k, k.ID(), noon, -time.Hour) },
	} {
		if d, err := f(); err == nil {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

func TestVerifyTable(t *testing.T) {
	k, other, node := newKey(t), newKey(t), newKey(t).ID()
	secp, _, err := crypto.GenerateSecp256k1Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsa, _, err := crypto.GenerateRSAKeyPair(2048, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := delegate(t, k, node, noon, time.Hour)
	body := payload(k.ID(), node, noon, noon.Add(time.Hour))
	right := forged{delegationDomain, delegationType, body}
	with := func(b []byte) []byte {
		return forged{delegationDomain, delegationType, b}.seal(t, k.PrivKey())
	}
	swapped := bytes.Replace(delegate(t, other, node, noon, time.Hour).Raw,
		idBytes(other.ID()), idBytes(k.ID()), 1)
	huge := append(bytes.Clone(good.Raw), make([]byte, MaxDelegation)...)

	cases := []struct {
		name string
		raw  []byte
		node ID
		at   time.Duration
		want error
	}{
		{"good", good.Raw, node, 0, nil},
		{"good, made by hand", right.seal(t, k.PrivKey()), node, 0, nil},
		{"last moment", good.Raw, node, time.Hour - time.Microsecond, nil},
		{"expired", good.Raw, node, time.Hour, ErrExpired},
		{"long expired", good.Raw, node, 1000 * time.Hour, ErrExpired},
		{"receiver's clock 5 min slow", good.Raw, node, -MaxSkew, nil},
		{"issued in the future", good.Raw, node, -MaxSkew - time.Microsecond, ErrFuture},
		{"wrong node", good.Raw, other.ID(), 0, ErrWrongNode},
		{"no node", good.Raw, ID{}, 0, ErrWrongNode},
		{"wrong time before wrong node", good.Raw, other.ID(), time.Hour, ErrExpired},
		{"signed by another", right.seal(t, other.PrivKey()), node, 0, ErrSigner},
		{"signed by another, key swapped", swapped, node, 0, ErrSigner},
		{"signature broken", flip(good.Raw, len(good.Raw)-1), node, 0, ErrSigner},
		{"other domain", forged{"fastn-ticket-v1", delegationType, body}.seal(t, k.PrivKey()), node, 0, ErrSigner},
		{"other payload type", forged{delegationDomain, "/fastn/ticket/1", body}.seal(t, k.PrivKey()), node, 0, ErrPayloadType},
		{"payload type's prefix", forged{delegationDomain, "/fastn/delegation/", body}.seal(t, k.PrivKey()), node, 0, ErrPayloadType},
		{"secp256k1", right.seal(t, secp), node, 0, ErrKeyType},
		{"RSA", right.seal(t, rsa), node, 0, ErrKeyType},
		{"trailing byte in the payload", with(append(bytes.Clone(body), 0)), node, 0, ErrMalformed},
		{"short payload", with(body[:len(body)-1]), node, 0, ErrMalformed},
		{"ends before it begins", with(payload(k.ID(), node, noon, noon)), node, 0, ErrMalformed},
		{"negative time", with(payload(k.ID(), node, time.UnixMicro(-5), noon)), node, 0, ErrMalformed},
		{"trailing bytes", append(bytes.Clone(good.Raw), 0), node, 0, ErrMalformed},
		{"unknown field", append(bytes.Clone(good.Raw), 0x78, 1), node, 0, ErrMalformed},
		{"field twice", append(bytes.Clone(good.Raw), good.Raw...), node, 0, ErrMalformed},
		{"cut short", good.Raw[:len(good.Raw)-1], node, 0, ErrMalformed},
		{"empty", nil, node, 0, ErrMalformed},
		{"too long", huge, node, 0, ErrMalformed},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			v := NewVerifier(nil)
			for range 2 { // the second time from the cache, if accepted
				got, err := v.Verify(c.raw, c.node, noon.Add(c.at))
				if !errors.Is(err, c.want) || (err == nil) != (got != nil) {
					t.Fatalf("%v, %v; want %v", got, err, c.want)
				}
			}
			if remembered := v.signed.Len() + v.seen.Len(); (remembered > 0) != (c.want == nil) {
				t.Errorf("%d things are remembered", remembered)
			}
		})
	}
}

// TestForgeableKeyRefused: under the neutral element as key, R = S·B is a
// signature of everything, here with S = 0 and R the neutral element.
func TestForgeableKeyRefused(t *testing.T) {
	nobody := ID{1}
	node := newKey(t).ID()
	raw := delegate(t, newKey(t), node, noon, time.Hour).Raw
	d, err := openDelegation(raw)
	if err != nil {
		t.Fatal(err)
	}
	sig := append(idBytes(nobody), make([]byte, 32)...)
	raw = bytes.ReplaceAll(raw, idBytes(d.Identity), idBytes(nobody))
	copy(raw[len(raw)-64:], sig)
	env, err := record.ConsumeTypedEnvelope(raw, &delegationRecord{})
	if err != nil || env == nil {
		t.Fatalf("this forgery should pass libp2p, else the test guards nothing: %v", err)
	}
	if _, err := NewVerifier(nil).Verify(raw, node, noon); !errors.Is(err, ErrSigner) {
		t.Fatalf("%v", err)
	}
}

func TestTimeErrorTellsTheClock(t *testing.T) {
	k, node := newKey(t), newKey(t).ID()
	d := delegate(t, k, node, noon, time.Hour)
	asked := &askedNewest{}
	v := NewVerifier(asked)
	for _, now := range []time.Time{noon.Add(-time.Hour), noon.Add(2 * time.Hour)} {
		_, err := v.Verify(d.Raw, node, now)
		te, ok := errors.AsType[*TimeError](err)
		if !ok || !te.Now.Equal(now) || !te.Issued.Equal(d.Issued) || !te.Expires.Equal(d.Expires) {
			t.Fatalf("%#v", err)
		}
		if !strings.Contains(err.Error(), now.UTC().Format(time.RFC3339)) {
			t.Errorf("%q does not tell the time here", err)
		}
	}
	if asked.times != 0 {
		t.Error("a wrong time is answered before any look-up")
	}
}

func idBytes(id ID) []byte { return bytes.Clone(id[:]) }

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

type askedNewest struct {
	times int
	span
	ok bool
}

func (a *askedNewest) NewestDelegation(ID, ID) (time.Time, time.Time, bool) {
	a.times++
	return a.issued, a.expires, a.ok
}

func FuzzDelegation(f *testing.F) {
	k, err := KeyFromSeed(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		f.Fatal(err)
	}
	node := k.ID()
	good := delegate(f, k, node, noon, time.Hour).Raw
	f.Add(good)
	f.Add(good[:40])
	f.Add(binary.AppendUvarint(nil, 1<<60))
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := NewVerifier(nil).Verify(raw, node, noon)
		if err == nil && (!bytes.Equal(d.Raw, raw) || !bytes.Equal(raw, good)) {
			t.Fatalf("a forged delegation is accepted: %x", raw)
		}
	})
}
