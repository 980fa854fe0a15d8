// Package identity holds what an identity is and how it proves itself: Ed25519
// keys and their textual ids, the delegation by which an identity lets a node
// speak for it, and the ticket by which two users become contacts.
//
// Nothing here does I/O. Private keys and ticket secrets redact themselves
// wherever they are formatted, logged or marshalled.
package identity

import (
	"encoding/base32"
	"errors"
	"fmt"
	"strings"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	idSize   = 32
	id52Size = 52
	// peerIDPrefix opens the binary peer id of every Ed25519 key: an identity
	// multihash (0x00) of 36 bytes that hold the protobuf {Type: Ed25519, Data: 32 bytes}.
	peerIDPrefix = "\x00\x24\x08\x01\x12\x20"
	// maxIDText bounds what is handed to libp2p's decoders, whose base58 is quadratic.
	maxIDText = 128
	// shortestPeerID is that of an RSA key: Qm….
	shortestPeerID = 46
)

// alphabet is base32hex of RFC 4648 §7 in lower case, without padding.
var alphabet = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// ErrID is what every refusal of an id's text or form answers to.
var ErrID = errors.New("not an id")

var errNoID = fmt.Errorf("%w: an id52 has %d characters, a peer id starts with 12D3KooW", ErrID, id52Size)

// ID is an Ed25519 public key: that of a person, a service or a node.
// The zero ID is no key.
type ID [idSize]byte

// ParseID reads an id52 (52 characters, lower case) or a libp2p peer id of an
// Ed25519 key (12D3KooW… or its CIDv1 form). Errors wrap ErrID, peer ids of
// other keys ErrKeyType as well.
func ParseID(s string) (ID, error) {
	switch {
	case s == "":
		return ID{}, fmt.Errorf("%w: it is empty", ErrID)
	case len(s) > maxIDText:
		return ID{}, fmt.Errorf("%w: %d characters are too many", ErrID, len(s))
	case len(s) == id52Size && !strings.HasPrefix(s, "12D3KooW"):
		return parseID52(s)
	case len(s) < shortestPeerID: // a contact's name, as most targets are
		return ID{}, errNoID
	}
	p, err := peer.Decode(s)
	if err != nil {
		return ID{}, errNoID
	}
	id, err := FromPeerID(p)
	if err != nil {
		return ID{}, fmt.Errorf("%w: %w", ErrID, err)
	}
	if !id.onCurve() {
		return ID{}, fmt.Errorf("%w: no Ed25519 key has this peer id", ErrID)
	}
	return id, nil
}

// parseID52 re-encodes what it decoded: 52 characters carry 4 bits more than a
// key, and decoders ignore those and line breaks.
func parseID52(s string) (ID, error) {
	if lower := strings.ToLower(s); lower != s {
		return ID{}, fmt.Errorf("%w: an id52 is written in lower case", ErrID)
	}
	var id ID
	// Room for the decoder's whole output; a key fills the first 32 bytes.
	var buf [idSize + 1]byte
	n, err := alphabet.Decode(buf[:], []byte(s))
	if err != nil || n != idSize {
		return ID{}, fmt.Errorf("%w: an id52 has only the characters 0-9 and a-v", ErrID)
	}
	copy(id[:], buf[:])
	if id.String() != s {
		return ID{}, fmt.Errorf("%w: the last character of this id52 cannot be right", ErrID)
	}
	if !id.onCurve() {
		return ID{}, fmt.Errorf("%w: no Ed25519 key has this id52, a character is mistyped", ErrID)
	}
	return id, nil
}

// FromPeerID takes the key out of a binary peer id. Peer ids of other key types,
// and unusual encodings of an Ed25519 one, give ErrKeyType. The key itself is
// not checked: a peer id that comes from a connection has been proven there.
func FromPeerID(p peer.ID) (ID, error) {
	rest, ok := strings.CutPrefix(string(p), peerIDPrefix)
	if !ok || len(rest) != idSize {
		return ID{}, fmt.Errorf("%w: the peer id is not that of an Ed25519 key", ErrKeyType)
	}
	return ID([]byte(rest)), nil
}

// FromPublicKey gives the ID of an Ed25519 key, ErrKeyType for any other.
func FromPublicKey(k crypto.PubKey) (ID, error) {
	if k == nil || k.Type() != crypto.Ed25519 {
		return ID{}, fmt.Errorf("%w: the key is not Ed25519", ErrKeyType)
	}
	raw, err := k.Raw()
	if err != nil || len(raw) != idSize {
		return ID{}, fmt.Errorf("%w: the key has no 32 bytes", ErrKeyType)
	}
	return ID(raw), nil
}

// String gives the id52.
func (id ID) String() string { return alphabet.EncodeToString(id[:]) }

// Short gives the first 8 characters of the id52, for display only.
func (id ID) Short() string { return id.String()[:8] }

// IsZero reports whether id is no key at all.
func (id ID) IsZero() bool { return id == ID{} }

// PeerID gives the libp2p peer id of the key.
func (id ID) PeerID() peer.ID { return peer.ID(peerIDPrefix + string(id[:])) }

// PublicKey gives the key as libp2p has it.
func (id ID) PublicKey() crypto.PubKey {
	k, err := crypto.UnmarshalEd25519PublicKey(id[:])
	if err != nil {
		panic("identity: 32 bytes are an Ed25519 public key: " + err.Error())
	}
	return k
}

// MarshalText gives the id52.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what ParseID reads.
func (id *ID) UnmarshalText(text []byte) error {
	parsed, err := ParseID(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}
