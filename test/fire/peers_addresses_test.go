package fire

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/test/process"
)

// What internal/p2p lets one address have; the loopback is exempt.
const (
	strangersPerAddress = 32  // connections
	connsAtOnce         = 512 // new ones, then
	connsPerSecond      = 10
)

// The flood from eight addresses that are none of the loopback's, so that what one
// address may have counts too: from one come more strangers than may be connected,
// from another more connections than may be made. Both are held to it, by which
// nobody at another address suffers, nor a contact.
func TestPeersFloodFromRealAddresses(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	l := newLabHere(t)
	addrs := make([]string, 8)
	for i := range addrs {
		addrs[i] = fmt.Sprintf("2.1.0.%d", 11+i)
		l.x.ip(t, "addr", "add", addrs[i]+"/24", "dev", l.x.link)
	}
	o := process.Options{Env: eager, Stderr: quiet{}, Listen: `"` + l.x.addr + `"`}
	x := start(t, o)
	o.Prefix, o.Listen = l.y.prefix(), `"`+l.y.addr+`"`
	y := start(t, o)
	if err := process.Join(t.Context(), x, y); err != nil {
		t.Fatal(full(err))
	}
	strangers := flood{x: x, y: y, length: time.Duration(testutil.Rounds(1000, 7000)) * time.Millisecond,
		least: int64(testutil.Rounds(500, 10_000))}
	for _, addr := range addrs {
		strangers.crowd = append(strangers.crowd, newAttacker(t, addr))
	}
	crowd := make([]*attacker, strangersPerAddress+8)
	for i := range crowd {
		crowd[i] = newAttacker(t, addrs[0])
	}
	unharmed(t, x, y, func(look func()) {
		strangers.run(t, look)
		crowdOneAddress(t, x, y, crowd, strangers.crowd[1])
		dialWithoutPause(t, x, y, addrs[7], addrs[1])
		look()
	})
	strangers.check(t)
}

// crowdOneAddress has more strangers connect from one address than may be connected.
func crowdOneAddress(t *testing.T, x, y *process.Daemon, crowd []*attacker, elsewhere *attacker) {
	t.Helper()
	for _, a := range crowd {
		a.connect(y)
	}
	from := func() (n int) {
		for _, p := range status(t, y).Peers {
			if p.Connected && strings.HasPrefix(p.Address, "/ip4/2.1.0.11/") {
				n++
			}
		}
		return n
	}
	// Less than idle strangers are given.
	for deadline := time.Now().Add(10 * time.Second); from() > strangersPerAddress; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("%d strangers are connected from one address", from())
			break
		}
	}
	t.Logf("of %d strangers at one address %d are connected", len(crowd), from())
	s := elsewhere.stream(elsewhere.connect(y))
	if reply, _ := s.ask(elsewhere.open(wire.Kind_KIND_CALL, idOf(t, y), api.ProtocolEcho), nil); reply.Code != string(api.CodeRefused) {
		t.Errorf("a stranger at another address is answered %v", reply)
	}
	s.close()
	elsewhere.leave(y)
	echo(t, x)
	for _, a := range crowd {
		a.leave(y)
	}
}

// dialWithoutPause makes connections from one address, until enough are refused for
// their rate.
func dialWithoutPause(t *testing.T, x, y *process.Daemon, address, elsewhere string) {
	t.Helper()
	to := tcpOf(t, y)
	begin, admitted, refused := time.Now(), 0, 0
	for n := 0; refused < 20; n++ {
		if n == 10*connsAtOnce {
			t.Fatalf("of %d connections from one address %d were refused", n, refused)
		}
		if greeted(t, address, to) {
			admitted++
		} else {
			refused++
		}
	}
	took := time.Since(begin)
	t.Logf("of %d connections from one address within %v %d were refused", admitted+refused, took.Round(time.Millisecond), refused)
	if most := connsAtOnce + int(took.Seconds()*connsPerSecond) + 1; admitted > most {
		t.Errorf("%d connections were made from one address in %v, want at most %d", admitted, took, most)
	}
	if !greeted(t, elsewhere, to) {
		t.Error("what one address does is held against another")
	}
	echo(t, x)
}

// greeted makes a TCP connection and tells whether the daemon has something to say
// to it.
func greeted(t *testing.T, from, to string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.DialContext(ctx, "tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	n, err := c.Read(make([]byte, 1))
	if e, ok := err.(net.Error); ok && e.Timeout() {
		t.Fatal("a connection is neither served nor closed")
	}
	return n == 1
}

// tcpOf is where a daemon takes TCP connections.
func tcpOf(t *testing.T, d *process.Daemon) string {
	t.Helper()
	for _, m := range infoOf(t, d).Addrs {
		if _, err := m.ValueForProtocol(ma.P_TCP); err != nil {
			continue
		}
		network, addr, err := manet.DialArgs(m)
		if err != nil || network != "tcp4" {
			t.Fatal(network, err)
		}
		return addr
	}
	t.Fatal("the daemon listens on no TCP port")
	return ""
}
