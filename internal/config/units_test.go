package config

import (
	"testing"
	"time"
)

func TestSize(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "1": 1, "17B": 17, "1KiB": KiB, "3 MiB": 3 * MiB, "1GiB": GiB, "2TiB": 2 * TiB,
	} {
		got, err := ParseSize(text)
		if err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
		if again, err := ParseSize(got.String()); err != nil || again != got {
			t.Errorf("%q: %q does not read back: %v", text, got, err)
		}
	}
	if s := (1536 * KiB).String(); s != "1536KiB" {
		t.Errorf("got %s", s)
	}
	for _, text := range []string{"", "B", "-1", "1.5GiB", "1gib", "1 GiB ", "0x10", "1__0", "9223372036854775808"} {
		if n, err := ParseSize(text); err == nil {
			t.Errorf("%q was read as %d", text, n)
		}
	}
}

func TestDuration(t *testing.T) {
	for text, want := range map[string]struct {
		d    time.Duration
		text string
	}{
		"7d":       {7 * 24 * time.Hour, "7d"},
		"1d12h":    {36 * time.Hour, "1d12h"},
		"36h":      {36 * time.Hour, "1d12h"},
		"90m":      {90 * time.Minute, "1h30m"},
		"90s":      {90 * time.Second, "1m30s"},
		"10m":      {10 * time.Minute, "10m"},
		"20s":      {20 * time.Second, "20s"},
		"1d0h0m1s": {24*time.Hour + time.Second, "1d1s"},
		"0s":       {0, "0s"},
	} {
		got, err := ParseDuration(text)
		if err != nil || got.Std() != want.d || got.String() != want.text {
			t.Errorf("%q: %s (%s), %v", text, got, got.Std(), err)
		}
	}
	for _, text := range []string{"", "d", "7", "-1d", "1d-1h", "-5s", "1.5d", "1h1d", "4294967295d", "106751d24h", "7 d"} {
		if d, err := ParseDuration(text); err == nil {
			t.Errorf("%q was read as %s", text, d)
		}
	}
}

func TestMultiaddr(t *testing.T) {
	for _, good := range []string{
		"/ip4/1.2.3.4/tcp/4100", "/ip4/1.2.3.4/udp/4100/quic-v1", "/ip6/2001:db8::1/udp/1/quic-v1/p2p/" + peerID,
		"/dns/a.example/tcp/1", "/dns4/a/tcp/65535", "/dns6/a/tcp/1/p2p/" + peerID,
	} {
		if err := checkMultiaddr(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{
		"", "/", "1.2.3.4:4100", "/ip4/1.2.3.4", "/ip4/1.2.3/tcp/1", "/ip4/::1/tcp/1", "/ip6/1.2.3.4/tcp/1",
		"/ip4/1.2.3.4/udp/1", "/ip4/1.2.3.4/udp/1/quic", "/ip4/1.2.3.4/tcp/0", "/ip4/1.2.3.4/tcp/65536",
		"/ip4/1.2.3.4/tcp/1/", "/ip4/1.2.3.4/tcp/1/p2p/x", "/ip4/1.2.3.4/tcp/1/ws", "/dns//tcp/1", "/dns/a b/tcp/1",
		"/ip4/1.2.3.4/sctp/1", "/ip6/fe80::1%eth0/tcp/1", "/unix/run/x/y",
	} {
		if checkMultiaddr(bad) == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}
