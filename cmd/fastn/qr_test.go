package main

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
)

// The digests are of the modules that rsc.io/qr v0.2.0 makes of the same text,
// version and mask: two encoders that know nothing of each other.
func TestQRIsWhatAnotherEncoderMakes(t *testing.T) {
	for n, want := range map[int]string{
		1:    "6bc00267db8cc3087c32eb729ca25afda1c6b677c569ab5d5a28d08717b55c3e",
		18:   "500d331a29a1c64640317896249ab23edf59e0ffe3936ffe1ba1ac50a94e906d",
		230:  "04f03179dd4ba860512eb8fcbdbae38862b54c993c6bc5235b8c2b5c8f30a44b",
		300:  "09b3b02f350dbc01c9b3f8d6653aecdbb651c9ebf3722adff4773af5e7afd828",
		900:  "2c70921d6dc4ed0627752256b765473ded353c6182e9de4ee88638b3dfae1211",
		2953: "45feb35b6d1108300449fc049aafecd0f9b8e26dc16633d5579b072fc9bbd666",
	} {
		q, err := newQR(qrText(n))
		if err != nil {
			t.Fatal(err)
		}
		bits := make([]byte, len(q.dark))
		for i, dark := range q.dark {
			bits[i] = '0'
			if dark {
				bits[i] = '1'
			}
		}
		if sum := sha256.Sum256(bits); hex.EncodeToString(sum[:]) != want {
			t.Errorf("%d bytes: other modules", n)
		}
	}
	if _, err := newQR(qrText(2954)); err == nil {
		t.Error("2954 bytes fit into no QR code of level L")
	}
}

func qrText(n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = "0123456789abcdefghijklmnopqrstuv"[(i*7+i/5)%32]
	}
	data[0] = 'z'
	return data
}

func TestQRDrawing(t *testing.T) {
	q, err := newQR([]byte("hello"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(q.draw(false)), "\n"), "\n")
	if len(lines) != (21+8+1)/2 {
		t.Errorf("%d lines", len(lines))
	}
	// The top of a finder: seven dark modules, the ring's light ones below.
	if want := "████ ▄▄▄▄▄ █"; !strings.HasPrefix(lines[2], want) {
		t.Errorf("the first row of modules is %q", lines[2])
	}
	if strings.Contains(string(q.draw(false)), "\x1b") || !strings.Contains(string(q.draw(true)), "\x1b[") {
		t.Error("colours are for terminals only")
	}
}
