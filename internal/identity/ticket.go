package identity

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

const (
	ticketPrefix = "fastn1"
	ticketDomain = "fastn-ticket-v1"
	ticketType   = "/fastn/ticket/1"

	// MaxTicket bounds a ticket's text, in characters.
	MaxTicket = 4 << 10
	// MaxTicketAddresses and MaxTicketAddress bound what a ticket lists, in
	// addresses and in bytes of each.
	MaxTicketAddresses = 16
	MaxTicketAddress   = 255
)

// Ticket is an invitation: who redeems it at Delegation's node, before Expires,
// with Secret, becomes a contact of Identity. Secret is sent to no other node.
type Ticket struct {
	Identity   ID
	Delegation []byte    // issued with the ticket, lives at least as long
	Addresses  []string  // multiaddrs of the node, loopback last
	Expires    time.Time // to the microsecond
	Secret     Secret    // used once
}

// Seal signs t with the key of its identity and gives its text. It refuses a
// ticket that ParseTicket would, apart from one that has expired, and sorts
// loopback addresses last.
func (t Ticket) Seal(key Key) (string, error) {
	t.Addresses = loopbackLast(t.Addresses)
	if err := t.check(); err != nil {
		return "", fmt.Errorf("make a ticket: %w", err)
	}
	if _, err := t.openDelegation(); err != nil {
		return "", fmt.Errorf("make a ticket: %w", err)
	}
	raw, err := seal((*ticketRecord)(&t), key)
	if err != nil {
		return "", fmt.Errorf("make a ticket: %w", err)
	}
	text := ticketPrefix + alphabet.EncodeToString(raw)
	if len(text) > MaxTicket {
		return "", fmt.Errorf("make a ticket: %d characters are more than %d, list fewer addresses", len(text), MaxTicket)
	}
	return text, nil
}

// ParseTicket reads a ticket's text, with or without white space around it, and
// checks all that can be checked before its node is asked: form, both
// signatures, both ends in time. The Delegation is the ticket's, opened; it has
// not passed a Verifier. Errors wrap ErrMalformed, ErrKeyType, ErrPayloadType,
// ErrSigner, ErrExpired or ErrFuture and never hold any of the text.
func ParseTicket(s string, now time.Time) (*Ticket, *Delegation, error) {
	t, err := openTicket(strings.TrimSpace(s))
	if err != nil {
		return nil, nil, fmt.Errorf("ticket: %w", err)
	}
	d, err := t.openDelegation()
	if err != nil {
		return nil, nil, fmt.Errorf("ticket: %w", err)
	}
	if err := checkTime(d.Issued, t.Expires, now); err != nil {
		return nil, nil, fmt.Errorf("ticket: %w", err)
	}
	return t, d, nil
}

func openTicket(s string) (*Ticket, error) {
	body, ok := strings.CutPrefix(s, ticketPrefix)
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: a ticket starts with %q", ErrMalformed, ticketPrefix)
	case len(s) > MaxTicket:
		return nil, fmt.Errorf("%w: a ticket has at most %d characters", ErrMalformed, MaxTicket)
	case strings.ContainsAny(body, " \t\r\n"):
		return nil, fmt.Errorf("%w: there is white space inside the ticket", ErrMalformed)
	}
	raw, err := alphabet.DecodeString(body)
	if err != nil || alphabet.EncodeToString(raw) != body {
		return nil, fmt.Errorf("%w: the ticket is cut short or mistyped, copy it whole", ErrMalformed)
	}
	t := &Ticket{}
	err = open(raw, (*ticketRecord)(t))
	switch {
	case errors.Is(err, ErrMalformed):
		return nil, fmt.Errorf("%w: the ticket is cut short or mistyped, copy it whole", ErrMalformed)
	case err != nil:
		return nil, err
	}
	return t, nil
}

// openDelegation checks that the delegation inside is the ticket's own.
func (t *Ticket) openDelegation() (*Delegation, error) {
	d, err := openDelegation(t.Delegation)
	switch {
	case err != nil:
		return nil, err
	case d.Identity != t.Identity:
		return nil, fmt.Errorf("its delegation is %w", ErrSigner)
	case d.Expires.Before(t.Expires.Truncate(time.Microsecond)):
		return nil, fmt.Errorf("%w: its delegation ends before it", ErrMalformed)
	}
	return d, nil
}

// check is about the fields alone.
func (t *Ticket) check() error {
	if len(t.Addresses) > MaxTicketAddresses {
		return fmt.Errorf("%w: %d addresses are more than %d", ErrMalformed, len(t.Addresses), MaxTicketAddresses)
	}
	for i, a := range t.Addresses {
		if len(a) > MaxTicketAddress || !strings.HasPrefix(a, "/") || strings.ContainsFunc(a, notPrintable) {
			return fmt.Errorf("%w: address %d is not a multiaddr", ErrMalformed, i+1)
		}
	}
	switch {
	case t.Expires.UnixMicro() <= 0:
		return fmt.Errorf("%w: no end in time", ErrMalformed)
	case t.Secret == Secret{}:
		return fmt.Errorf("%w: no secret", ErrMalformed)
	}
	return nil
}

func notPrintable(r rune) bool { return r <= ' ' || r > '~' }

// loopbackLast copies, stably: others on the same machine may use loopback, all
// others would lose time with it.
func loopbackLast(addrs []string) []string {
	var near, far []string
	for _, a := range addrs {
		if strings.HasPrefix(a, "/ip4/127.") || strings.HasPrefix(a, "/ip6/::1/") {
			near = append(near, a)
		} else {
			far = append(far, a)
		}
	}
	return append(far, near...)
}

// ticketRecord is the payload of a ticket's envelope: identity (32), secret
// (32), expires (8, µs since 1970), delegation (length 2), count of addresses
// (1) and each of them (length 1); big endian, nothing after.
type ticketRecord Ticket

func (*ticketRecord) Domain() string { return ticketDomain }
func (*ticketRecord) Codec() []byte  { return []byte(ticketType) }
func (t *ticketRecord) signer() ID   { return t.Identity }

func (t *ticketRecord) MarshalRecord() ([]byte, error) {
	var b []byte
	b = append(b, t.Identity[:]...)
	b = append(b, t.Secret[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(t.Expires.UnixMicro()))
	b = binary.BigEndian.AppendUint16(b, uint16(len(t.Delegation)))
	b = append(b, t.Delegation...)
	b = append(b, byte(len(t.Addresses)))
	for _, a := range t.Addresses {
		b = append(b, byte(len(a)))
		b = append(b, a...)
	}
	return b, nil
}

func (t *ticketRecord) UnmarshalRecord(b []byte) error {
	r := reader{rest: b}
	var got Ticket
	copy(got.Identity[:], r.take(idSize))
	copy(got.Secret[:], r.take(len(got.Secret)))
	got.Expires = time.UnixMicro(int64(r.number(8)))
	got.Delegation = append([]byte(nil), r.take(int(r.number(2)))...)
	for range r.number(1) {
		got.Addresses = append(got.Addresses, string(r.take(int(r.number(1)))))
	}
	if r.short || len(r.rest) > 0 {
		return fmt.Errorf("%w: the payload's length is wrong", ErrMalformed)
	}
	if err := got.check(); err != nil {
		return err
	}
	*t = ticketRecord(got)
	return nil
}

// reader takes fields off a payload; past its end it gives nothing and says so
// in short.
type reader struct {
	rest  []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.rest) {
		r.short, r.rest = true, nil
		return nil
	}
	field := r.rest[:n]
	r.rest = r.rest[n:]
	return field
}

func (r *reader) number(size int) uint64 {
	var n uint64
	for _, c := range r.take(size) {
		n = n<<8 | uint64(c)
	}
	return n
}
