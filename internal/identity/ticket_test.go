package identity

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func newTicket(t testing.TB, k Key) Ticket {
	t.Helper()
	d := delegate(t, k, newKey(t).ID(), noon, 24*time.Hour)
	return Ticket{
		Identity: k.ID(), Delegation: d.Raw, Expires: d.Expires, Secret: NewSecret(),
		Addresses: []string{"/ip4/127.0.0.1/tcp/4100", "/ip6/::1/tcp/4100", "/ip4/2.0.0.1/udp/4100/quic-v1"},
	}
}

func sealed(t testing.TB, tk Ticket, k Key) string {
	t.Helper()
	text, err := tk.Seal(k)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestTicketRoundTrip(t *testing.T) {
	k := newKey(t)
	tk := newTicket(t, k)
	text := sealed(t, tk, k)
	for _, s := range []string{text, "\n\t " + text + " \r\n"} {
		got, d, err := ParseTicket(s, noon)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{tk.Addresses[2], tk.Addresses[0], tk.Addresses[1]} // loopback last
		if got.Identity != k.ID() || got.Secret != tk.Secret || !got.Expires.Equal(tk.Expires) ||
			!bytes.Equal(got.Delegation, tk.Delegation) || !slices.Equal(got.Addresses, want) {
			t.Fatalf("%+v", got)
		}
		if d.Identity != k.ID() || !bytes.Equal(d.Raw, tk.Delegation) {
			t.Fatalf("%+v", d)
		}
	}
	if tk.Addresses[0] != "/ip4/127.0.0.1/tcp/4100" {
		t.Error("Seal sorted the caller's own addresses")
	}
	if strings.Trim(text[len(ticketPrefix):], "0123456789abcdefghijklmnopqrstuv") != "" {
		t.Errorf("%s", text)
	}
}

// TestTicketEveryCorruptionRefused changes each character to each other one of
// the alphabet (and to some that are not in it), drops it, and doubles it.
func TestTicketEveryCorruptionRefused(t *testing.T) {
	const chars = "0123456789abcdefghijklmnopqrstuvwzA-\n \x00"
	k := newKey(t)
	tk := newTicket(t, k)
	tk.Addresses = tk.Addresses[2:]
	text := sealed(t, tk, k)
	for i := range text {
		var bad []string
		for _, c := range chars {
			bad = append(bad, text[:i]+string(c)+text[i+1:])
		}
		bad = append(bad, text[:i]+text[i+1:], text[:i]+text[i:i+1]+text[i:], text[:i])
		for _, s := range bad {
			if strings.TrimSpace(s) == text {
				continue
			}
			if _, _, err := ParseTicket(s, noon); err == nil {
				t.Errorf("corrupted at %d and accepted: %q", i, s)
			} else if strings.Contains(err.Error(), text[20:60]) {
				t.Fatalf("the error holds the ticket: %v", err)
			}
		}
	}
}

// TestTicketTrailingBits: depending on its length a ticket's last character
// carries up to four bits that are not the ticket's.
func TestTicketTrailingBits(t *testing.T) {
	k := newKey(t)
	for n := range 5 {
		tk := newTicket(t, k)
		tk.Addresses = []string{"/dns/" + strings.Repeat("a", n+1)}
		text := sealed(t, tk, k)
		last := len(text) - 1
		for _, c := range "0123456789abcdefghijklmnopqrstuv" {
			if s := text[:last] + string(c); s != text {
				if _, _, err := ParseTicket(s, noon); !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrSigner) {
					t.Errorf("length %d: %q for %q: %v", len(text), c, text[last], err)
				}
			}
		}
	}
}

func TestTicketRefused(t *testing.T) {
	k, other, node := newKey(t), newKey(t), newKey(t).ID()
	d := delegate(t, k, node, noon, 24*time.Hour)
	base := newTicket(t, k)
	// raw seals a ticket as an attacker would, without Seal's checks.
	raw := func(signer Key, change func(*Ticket)) string {
		tk := base
		change(&tk)
		body, err := (*ticketRecord)(&tk).MarshalRecord()
		if err != nil {
			t.Fatal(err)
		}
		return ticketPrefix + alphabet.EncodeToString(forged{ticketDomain, ticketType, body}.seal(t, signer.PrivKey()))
	}
	body, _ := (*ticketRecord)(&base).MarshalRecord()
	seal := func(domain, codec string, payload []byte) string {
		return ticketPrefix + alphabet.EncodeToString(forged{domain, codec, payload}.seal(t, k.PrivKey()))
	}
	same := func(*Ticket) {}
	cases := []struct {
		name, text string
		at         time.Duration
		want       error
		says       string
	}{
		{"good", raw(k, same), 0, nil, ""},
		{"last moment", raw(k, same), 24*time.Hour - time.Microsecond, nil, ""},
		{"expired", raw(k, same), 24 * time.Hour, ErrExpired, "clock here"},
		{"from the future", raw(k, same), -time.Hour, ErrFuture, "clock here"},
		{"foreign signer", raw(other, same), 0, ErrSigner, ""},
		{"another's identity", raw(other, func(x *Ticket) { x.Identity = other.ID() }), 0, ErrSigner, ""},
		{"another's delegation", raw(k, func(x *Ticket) { x.Delegation = delegate(t, other, node, noon, 24*time.Hour).Raw }), 0, ErrSigner, ""},
		{"delegation ends first", raw(k, func(x *Ticket) { x.Delegation = delegate(t, k, node, noon, time.Hour).Raw }), 0, ErrMalformed, "ends before"},
		{"delegation outlives it", raw(k, func(x *Ticket) { x.Expires = noon.Add(time.Hour) }), 0, nil, ""},
		{"expired, delegation not", raw(k, func(x *Ticket) { x.Expires = noon.Add(time.Hour) }), time.Hour, ErrExpired, ""},
		{"delegation forged", raw(k, func(x *Ticket) { x.Delegation = flip(d.Raw, len(d.Raw)-1) }), 0, ErrSigner, ""},
		{"delegation huge", raw(k, func(x *Ticket) { x.Delegation = make([]byte, MaxDelegation+1) }), 0, ErrMalformed, "over 1024 bytes"},
		{"no delegation", raw(k, func(x *Ticket) { x.Delegation = nil }), 0, ErrMalformed, ""},
		{"no secret", raw(k, func(x *Ticket) { x.Secret = Secret{} }), 0, ErrMalformed, ""},
		{"17 addresses", raw(k, func(x *Ticket) { x.Addresses = slices.Repeat([]string{"/ip4/2.0.0.1/tcp/1"}, 17) }), 0, ErrMalformed, ""},
		{"address with a newline", raw(k, func(x *Ticket) { x.Addresses = []string{"/ip4/2.0.0.1\n/tcp/1"} }), 0, ErrMalformed, ""},
		{"address that is a word", raw(k, func(x *Ticket) { x.Addresses = []string{"example.org"} }), 0, ErrMalformed, ""},
		{"payload type", seal(ticketDomain, delegationType, body), 0, ErrPayloadType, ""},
		{"domain", seal(delegationDomain, ticketType, body), 0, ErrSigner, ""},
		{"trailing byte", seal(ticketDomain, ticketType, append(bytes.Clone(body), 0)), 0, ErrMalformed, ""},
		{"empty", "", 0, ErrMalformed, "starts with"},
		{"a bare id", k.ID().String(), 0, ErrMalformed, "starts with"},
		{"prefix only", ticketPrefix, 0, ErrMalformed, "cut short"},
		{"wrapped", raw(k, same)[:60] + "\n" + raw(k, same)[60:], 0, ErrMalformed, "white space"},
		{"upper case", strings.ToUpper(raw(k, same)), 0, ErrMalformed, "starts with"},
		{"too long", ticketPrefix + strings.Repeat("0", MaxTicket), 0, ErrMalformed, "at most"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, d, err := ParseTicket(c.text, noon.Add(c.at))
			if !errors.Is(err, c.want) || (err == nil) != (got != nil && d != nil) {
				t.Fatalf("%v, %v; want %v", got, err, c.want)
			}
			if err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q does not say %q", err, c.says)
			}
		})
	}
}

func TestSealRefuses(t *testing.T) {
	k := newKey(t)
	for name, change := range map[string]func(*Ticket){
		"another's identity":    func(x *Ticket) { x.Identity = newKey(t).ID() },
		"another's delegation":  func(x *Ticket) { x.Delegation = newTicket(t, newKey(t)).Delegation },
		"delegation ends first": func(x *Ticket) { x.Expires = x.Expires.Add(time.Microsecond) },
		"no secret":             func(x *Ticket) { x.Secret = Secret{} },
		"no end":                func(x *Ticket) { x.Expires = time.Time{} },
		"17 addresses":          func(x *Ticket) { x.Addresses = slices.Repeat(x.Addresses[:1], 17) },
		"long address":          func(x *Ticket) { x.Addresses = []string{"/" + strings.Repeat("a", 255)} },
		"over 4 KiB": func(x *Ticket) {
			x.Addresses = slices.Repeat([]string{"/" + strings.Repeat("a", 200)}, 16)
		},
	} {
		tk := newTicket(t, k)
		change(&tk)
		if text, err := tk.Seal(k); err == nil {
			t.Errorf("%s: sealed as %s", name, text)
		}
	}
}

func TestTicketRedacts(t *testing.T) {
	tk := newTicket(t, newKey(t))
	out := fmt.Sprintf("%v %+v %#v", tk, &tk, tk)
	for _, f := range []string{"%x", "%d"} {
		if strings.Contains(out, strings.Trim(fmt.Sprintf(f, tk.Secret[:8]), "[]")) {
			t.Errorf("the secret is printed: %s", out)
		}
	}
}

func FuzzTicket(f *testing.F) {
	k, err := KeyFromSeed(bytes.Repeat([]byte{2}, 32))
	if err != nil {
		f.Fatal(err)
	}
	tk := Ticket{
		Identity: k.ID(), Delegation: delegate(f, k, k.ID(), noon, time.Hour).Raw,
		Addresses: []string{"/ip4/2.0.0.1/tcp/1"}, Expires: noon.Add(time.Hour), Secret: Secret{1},
	}
	good := sealed(f, tk, k)
	f.Add(good)
	f.Add(good[:100])
	f.Add(" " + ticketPrefix + "\n")
	f.Fuzz(func(t *testing.T, s string) {
		got, d, err := ParseTicket(s, noon)
		if err != nil {
			if got != nil || d != nil {
				t.Fatal("something is returned beside the error")
			}
			return
		}
		if strings.TrimSpace(s) != good {
			t.Fatalf("a forged ticket is accepted: %q", s)
		}
	})
}

// FuzzTicketPayload reaches what lies behind the signature.
func FuzzTicketPayload(f *testing.F) {
	tk := Ticket{Identity: ID{3}, Delegation: []byte("d"), Addresses: []string{"/a", "/b"}, Expires: noon, Secret: Secret{1}}
	good, _ := (*ticketRecord)(&tk).MarshalRecord()
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Fuzz(func(t *testing.T, b []byte) {
		var r ticketRecord
		if r.UnmarshalRecord(b) != nil {
			return
		}
		if again, err := r.MarshalRecord(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x became %x, %v", b, again, err)
		}
	})
}

func FuzzParseID(f *testing.F) {
	k, err := KeyFromSeed(bytes.Repeat([]byte{3}, 32))
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{k.ID().String(), k.ID().PeerID().String(), "", "self", strings.ToUpper(k.ID().String())} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseID(s)
		if err != nil {
			if !errors.Is(err, ErrID) || !id.IsZero() {
				t.Fatalf("%s, %v", id, err)
			}
			return
		}
		again, err := ParseID(id.String())
		if err != nil || again != id {
			t.Fatalf("%q: %s, %v", s, again, err)
		}
		if len(s) == id52Size && !strings.HasPrefix(s, "12D3KooW") && s != id.String() {
			t.Fatalf("%q is a second spelling of %s", s, id)
		}
	})
}
