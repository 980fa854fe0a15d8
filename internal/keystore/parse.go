package keystore

import (
	"bytes"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"

	"github.com/fastn-stack/fastnd/internal/identity"
)

const (
	maxKeyFile = 16 << 10
	seedSize   = 32
	pemType    = "PRIVATE KEY"
	pemBegin   = "-----BEGIN "
)

// derPrefix opens the PKCS#8 form of every Ed25519 key (RFC 8410 §7, version 1):
// 32 bytes of seed follow, and nothing else.
var derPrefix = []byte{
	0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
}

// ParsePrivate reads one Ed25519 private key of at most 16 KiB: PKCS#8 PEM, or
// the 64 hex digits that the Rust fastn-p2p keeps in `.private-key` files. White
// space around it is ignored, anything else is refused. Errors say what was
// found instead, never any of its bytes.
func ParsePrivate(r io.Reader) (identity.Key, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxKeyFile+1))
	if err != nil {
		return identity.Key{}, fmt.Errorf("read a private key: %w", err)
	}
	if text := bytes.TrimSpace(data); len(text) == hex.EncodedLen(seedSize) && !bytes.HasPrefix(text, []byte(pemBegin)) {
		seed := make([]byte, seedSize)
		if _, err := hex.Decode(seed, text); err != nil {
			return identity.Key{}, errors.New("not a private key: 64 characters, but not all of them hex digits")
		}
		return identity.KeyFromSeed(seed)
	}
	return parsePEM(data)
}

// EncodePEM gives the PKCS#8 PEM form of key, nil for the zero Key.
func EncodePEM(key identity.Key) []byte {
	if key.IsZero() {
		return nil
	}
	der := append(bytes.Clone(derPrefix), key.Seed()...)
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})
}

// parsePEM is strict: what EncodePEM would not give back, but for line ends and
// white space around it, is refused.
func parsePEM(data []byte) (identity.Key, error) {
	text := bytes.TrimSpace(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")))
	switch {
	case len(data) > maxKeyFile:
		return identity.Key{}, fmt.Errorf("it is over %d KiB", maxKeyFile>>10)
	case len(text) == 0:
		return identity.Key{}, errors.New("it is empty")
	case bytes.Count(text, []byte(pemBegin)) > 1:
		return identity.Key{}, errors.New("there is more than one key in it")
	}
	block, rest := pem.Decode(text)
	if block == nil || !bytes.HasPrefix(text, []byte(pemBegin)) {
		return identity.Key{}, errors.New("it is not a PEM private key")
	}
	if len(rest) > 0 {
		return identity.Key{}, errors.New("there is something after the key")
	}
	if err := checkType(block); err != nil {
		return identity.Key{}, err
	}
	key, err := identity.KeyFromSeed(block.Bytes[len(derPrefix):])
	if err != nil {
		return identity.Key{}, err
	}
	if !bytes.Equal(text, bytes.TrimSpace(EncodePEM(key))) {
		return identity.Key{}, errors.New("there is something beside the key")
	}
	return key, nil
}

// checkType names what a block is if it is not a plain Ed25519 key.
func checkType(block *pem.Block) error {
	switch block.Type {
	case pemType:
	case "ENCRYPTED PRIVATE KEY":
		return errors.New("it is encrypted, decrypt it first with openssl pkey")
	case "OPENSSH PRIVATE KEY":
		return errors.New("it is an OpenSSH key, not PKCS#8")
	case "RSA PRIVATE KEY", "EC PRIVATE KEY", "DSA PRIVATE KEY":
		return errors.New("it is not an Ed25519 key")
	default:
		return errors.New("it is not a private key")
	}
	if len(block.Bytes) == len(derPrefix)+seedSize && bytes.HasPrefix(block.Bytes, derPrefix) {
		return nil
	}
	var head struct {
		Version   int
		Algorithm struct{ OID asn1.ObjectIdentifier }
	}
	ed25519 := asn1.ObjectIdentifier{1, 3, 101, 112}
	rest, err := asn1.Unmarshal(block.Bytes, &head)
	switch {
	case err != nil:
		return errors.New("it is not PKCS#8")
	case !head.Algorithm.OID.Equal(ed25519):
		return errors.New("it is not an Ed25519 key")
	case len(rest) > 0:
		return errors.New("there is something after the key")
	}
	return errors.New("it is an unusual form of an Ed25519 key, only RFC 8410 version 1 is read")
}
