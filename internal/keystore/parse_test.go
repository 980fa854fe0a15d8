package keystore

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/fastn-stack/fastnd/internal/identity"
)

func TestParsePrivate(t *testing.T) {
	key := mustKey(t)
	text := string(EncodePEM(key))
	digits := hex.EncodeToString(key.Seed())
	for name, in := range map[string]string{
		"PEM":            text,
		"no last line":   strings.TrimSpace(text),
		"Windows":        strings.ReplaceAll(text, "\n", "\r\n"),
		"white space":    "\n  " + text + "\n\n",
		"hex":            digits,
		"hex, newline":   digits + "\n",
		"hex, Windows":   digits + "\r\n",
		"hex, big digit": strings.ToUpper(digits),
	} {
		got, err := ParsePrivate(strings.NewReader(in))
		if err != nil || !bytes.Equal(got.Seed(), key.Seed()) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPEMIsStandard: other programs read what is written here and the reverse.
func TestPEMIsStandard(t *testing.T) {
	key := mustKey(t)
	block, rest := pem.Decode(EncodePEM(key))
	if block == nil || len(rest) > 0 {
		t.Fatal("not PEM")
	}
	std, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	must(t, err)
	if !bytes.Equal(std.(ed25519.PrivateKey).Seed(), key.Seed()) {
		t.Error("another key")
	}
	if EncodePEM(identity.Key{}) != nil {
		t.Error("no key has a form")
	}
}

func TestParsePrivateRefuses(t *testing.T) {
	key := mustKey(t)
	digits := hex.EncodeToString(key.Seed())
	for name, in := range map[string]string{
		"63 digits":     digits[1:],
		"65 digits":     digits + "0",
		"not hex":       "g" + digits[1:],
		"two lines":     digits + "\n" + digits,
		"hex and PEM":   digits + "\n" + string(EncodePEM(key)),
		"PEM and hex":   string(EncodePEM(key)) + digits,
		"0x":            "0x" + digits[2:],
		"id52":          key.ID().String(),
		"seed as bytes": string(key.Seed()),
		"huge":          strings.Repeat(digits, 1000),
	} {
		got, err := ParsePrivate(strings.NewReader(in))
		if err == nil || !got.IsZero() {
			t.Errorf("%s is accepted", name)
			continue
		}
		checkNoLeak(t, key, err)
	}
	broken := errors.New("disk on fire")
	if _, err := ParsePrivate(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

func checkNoLeak(t *testing.T, key identity.Key, err error) {
	t.Helper()
	digits := hex.EncodeToString(key.Seed())
	for i := 0; i+8 <= len(digits); i += 8 {
		if strings.Contains(err.Error(), digits[i:i+8]) {
			t.Errorf("the error holds a part of the key: %v", err)
		}
	}
}

func FuzzParsePrivate(f *testing.F) {
	key, err := identity.KeyFromSeed(bytes.Repeat([]byte{4}, 32))
	must(f, err)
	good := EncodePEM(key)
	f.Add(good)
	f.Add([]byte(hex.EncodeToString(key.Seed()) + "\n"))
	f.Add(append(bytes.Clone(good), good...))
	f.Add(block("PRIVATE KEY", derV2(key)))
	f.Add([]byte("-----BEGIN X-----\n" + string(good)))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := ParsePrivate(bytes.NewReader(data))
		if err != nil {
			if !got.IsZero() {
				t.Fatal("a key came with the error")
			}
			return
		}
		text := bytes.TrimSpace(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")))
		if !bytes.Equal(text, bytes.TrimSpace(EncodePEM(got))) &&
			!strings.EqualFold(string(text), hex.EncodeToString(got.Seed())) {
			t.Fatalf("%q is accepted", data)
		}
	})
}
