package identity

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

const (
	delegationDomain = "fastn-delegation-v1"
	delegationType   = "/fastn/delegation/1"
	delegationSize   = 2*idSize + 2*8
	// MaxDelegation bounds the envelope, in bytes.
	MaxDelegation = 1 << 10
)

// Delegation says that Node speaks for Identity until Expires. Values that the
// Verifier returns are shared: they, and Raw, are read only.
type Delegation struct {
	Identity, Node ID
	// Issued and Expires have microseconds. Issued orders the delegations of one
	// identity and node. Expires, from a Verifier, is the earlier of what Raw
	// says and what a newer delegation left of it.
	Issued, Expires time.Time
	Raw             []byte // the signed envelope, as it travels
}

// Delegate lets node speak for the key's identity from now until now+ttl.
// The issuer must not let its clock run backwards between two delegations of
// one node: the later one would count as the older.
func Delegate(key Key, node ID, now time.Time, ttl time.Duration) (*Delegation, error) {
	switch {
	case key.IsZero():
		return nil, errors.New("cannot delegate without a key")
	case node.IsZero():
		return nil, errors.New("cannot delegate to no node")
	case ttl < time.Microsecond:
		return nil, fmt.Errorf("cannot delegate for %v", ttl)
	}
	issued := time.UnixMicro(now.UnixMicro())
	d := &Delegation{
		Identity: key.ID(), Node: node,
		Issued: issued, Expires: issued.Add(ttl.Truncate(time.Microsecond)),
	}
	raw, err := seal((*delegationRecord)(d), key)
	if err != nil {
		return nil, fmt.Errorf("delegate: %w", err)
	}
	d.Raw = raw
	return d, nil
}

// openDelegation checks form, types and signature, not time nor node.
func openDelegation(raw []byte) (*Delegation, error) {
	if len(raw) > MaxDelegation {
		return nil, fmt.Errorf("delegation: %w: over %d bytes", ErrMalformed, MaxDelegation)
	}
	d := &Delegation{}
	if err := open(raw, (*delegationRecord)(d)); err != nil {
		return nil, fmt.Errorf("delegation: %w", err)
	}
	d.Raw = append([]byte(nil), raw...)
	return d, nil
}

// delegationRecord is the payload of a delegation's envelope: identity (32),
// node (32), issued and expires (8 each, µs since 1970, big endian), no more.
type delegationRecord Delegation

func (*delegationRecord) Domain() string { return delegationDomain }
func (*delegationRecord) Codec() []byte  { return []byte(delegationType) }
func (d *delegationRecord) signer() ID   { return d.Identity }

func (d *delegationRecord) MarshalRecord() ([]byte, error) {
	b := make([]byte, 0, delegationSize)
	b = append(b, d.Identity[:]...)
	b = append(b, d.Node[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(d.Issued.UnixMicro()))
	return binary.BigEndian.AppendUint64(b, uint64(d.Expires.UnixMicro())), nil
}

func (d *delegationRecord) UnmarshalRecord(b []byte) error {
	if len(b) != delegationSize {
		return fmt.Errorf("%w: %d bytes of payload, not %d", ErrMalformed, len(b), delegationSize)
	}
	issued := int64(binary.BigEndian.Uint64(b[2*idSize:]))
	expires := int64(binary.BigEndian.Uint64(b[2*idSize+8:]))
	if issued <= 0 || expires <= issued {
		return fmt.Errorf("%w: it ends before it begins", ErrMalformed)
	}
	d.Identity, d.Node = ID(b[:idSize]), ID(b[idSize:2*idSize])
	d.Issued, d.Expires = time.UnixMicro(issued), time.UnixMicro(expires)
	return nil
}
