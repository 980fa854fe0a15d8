package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/libp2p/go-libp2p/core/crypto"
)

const redacted = "[redacted]"

// Key is an Ed25519 private key. It redacts itself in fmt, slog and JSON; also
// inside other structs, since only a pointer is within it. The zero Key is none.
type Key struct{ priv crypto.PrivKey }

// GenerateKey makes a new key from the system's random source.
func GenerateKey() (Key, error) {
	priv, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return Key{}, fmt.Errorf("generate an Ed25519 key: %w", err)
	}
	return Key{priv: priv}, nil
}

// KeyFromSeed makes the key of a 32-byte seed (RFC 8032 §5.1.5).
func KeyFromSeed(seed []byte) (Key, error) {
	if len(seed) != ed25519.SeedSize {
		return Key{}, fmt.Errorf("an Ed25519 seed has %d bytes, not %d", ed25519.SeedSize, len(seed))
	}
	priv, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		return Key{}, errors.New("the seed makes no Ed25519 key")
	}
	return Key{priv: priv}, nil
}

// IsZero reports whether k is no key at all.
func (k Key) IsZero() bool { return k.priv == nil }

// ID gives the public half, the zero ID for the zero Key.
func (k Key) ID() ID {
	if k.IsZero() {
		return ID{}
	}
	id, err := FromPublicKey(k.priv.GetPublic())
	if err != nil {
		panic("identity: a Key is Ed25519: " + err.Error())
	}
	return id
}

// PrivKey gives the key as libp2p has it, nil for the zero Key. Unlike Key it
// does not redact itself: hand it on, never format it.
func (k Key) PrivKey() crypto.PrivKey { return k.priv }

// Seed gives a copy of the 32-byte seed, nil for the zero Key.
func (k Key) Seed() []byte {
	if k.IsZero() {
		return nil
	}
	raw, err := k.priv.Raw()
	if err != nil {
		panic("identity: an Ed25519 key has bytes: " + err.Error())
	}
	return raw[:ed25519.SeedSize]
}

// String redacts.
func (k Key) String() string { return redacted }

// GoString redacts.
func (k Key) GoString() string { return redacted }

// Format redacts, whatever the verb.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue redacts.
func (k Key) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText redacts; a key is written with keystore.EncodePEM.
func (k Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Secret is what proves that a ticket was received. It redacts itself like Key.
type Secret [32]byte

// NewSecret makes a secret from the system's random source.
func NewSecret() Secret {
	var s Secret
	_, _ = rand.Read(s[:]) // never fails: it ends the process instead
	return s
}

// String redacts.
func (s Secret) String() string { return redacted }

// GoString redacts.
func (s Secret) GoString() string { return redacted }

// Format redacts, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue redacts.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText redacts.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
