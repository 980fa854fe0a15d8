package daemon

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
)

// Without a ticket both sides name each other and where they live; the first
// request asks who lives there.
func TestContactsByAddress(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob := start(t, opts{}), start(t, opts{})
	introduce(t, alice, "bob", bob.own().ID52, bob)
	wantNoEcho(t, alice.c, "bob", api.CodeRefused) // bob does not know alice yet
	introduce(t, bob, "alice", alice.own().ID52, alice)
	wantEcho(t, alice.c, "bob")
	wantEcho(t, bob.c, "alice")
}

// An address that names another node than the one found there gets nothing sent.
func TestContactByTheAddressOfAnotherNode(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob, carol := start(t, opts{}), start(t, opts{}), start(t, opts{})
	asked := make(chan string, 16)
	verb[api.Grant](t, bob.c, api.VerbGrantAdd, api.GrantArgs{Who: api.WhoAnyone, Protocol: "pipe"})
	verb[api.Grant](t, carol.c, api.VerbGrantAdd, api.GrantArgs{Who: api.WhoAnyone, Protocol: "pipe"})
	listen := func(d *testDaemon, name string) {
		l, err := d.c.Listen(limited(t), listenPipe)
		if err != nil {
			t.Fatal(full(err))
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				if _, err := l.Next(t.Context()); err != nil {
					return
				}
				asked <- name
			}
		}()
	}
	listen(bob, "bob")
	listen(carol, "carol")

	where, _, _ := strings.Cut(carol.status().Node.Addresses[0], "/p2p/")
	verb[api.Contact](t, alice.c, api.VerbContactAdd, api.ContactAddArgs{Name: "mixed", ID: bob.own().ID52,
		Address: where + "/p2p/" + bob.status().Node.PeerID})
	_, err := alice.c.Call(limited(t), to("mixed", "pipe", nil))
	wantCode(t, err, api.CodePeerUnreachable)
	// Carol's node does not speak for bob.
	verb[struct{}](t, alice.c, api.VerbContactRemove, api.NameArgs{Name: "mixed"})
	introduce(t, alice, "moved", bob.own().ID52, carol)
	_, err = alice.c.Call(limited(t), to("moved", "pipe", nil))
	wantCode(t, err, api.CodeRefused)
	select {
	case who := <-asked:
		t.Errorf("%s was asked", who)
	default:
	}
}

func TestAddressesThatAreNone(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	node := "/p2p/" + d.status().Node.PeerID
	for _, a := range []string{"/ip4/127.0.0.1/udp/4100/quic-v1", node, "127.0.0.1:4100" + node, "/ip4/127.0.0.1/udp/4100/quic-v1/p2p/bob", "/ip4/300.0.0.1/tcp/1" + node} {
		e := refused(t, d.c, api.CodeBadRequest, api.VerbContactAdd, api.ContactAddArgs{Name: "x", ID: d.status().Node.ID, Address: a})
		if e.Message == "" {
			t.Errorf("%s: nothing is said", a)
		}
	}
	wantNames(t, "contacts", d.contacts())
}

func (d *testDaemon) port() int {
	d.t.Helper()
	port, _, _ := strings.Cut(d.status().Node.Ports[0], "/")
	n, err := strconv.Atoi(port)
	if err != nil {
		d.t.Fatal(err)
	}
	return n
}

func TestPortIsKept(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob := pair(t)
	port := bob.port()
	bob = bob.again(t, opts{})
	if got := bob.port(); got != port {
		t.Errorf("the port was %d, now it is %d", port, got)
	}
	wantEcho(t, alice.c, "bob")
}

// The port is none that the kernel gives to whoever asks for any, which would be taken at
// some later start.
func TestPortIsNobodyElses(t *testing.T) {
	testutil.LeakCheck(t)
	for range 1000 {
		if p := portAbove("32768\t60999\n"); p <= 60999 || p > 65535 {
			t.Fatalf("above 60999 is %d", p)
		}
	}
	for _, all := range []string{"1024\t65535\n", "1024\t65400\n", "0\t0\n", "1 2 3", "x", ""} {
		if p := portAbove(all); p != 0 {
			t.Errorf("above %q is %d", all, p)
		}
	}
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		t.Fatal(err)
	}
	if portAbove(string(text)) == 0 {
		t.Skipf("the kernel gives all ports: %s", text)
	}
	var low, high int
	if _, err := fmt.Sscan(string(text), &low, &high); err != nil {
		t.Fatal(err)
	}
	if port := start(t, opts{}).port(); port <= high {
		t.Errorf("the port is %d, the kernel gives %d to %d", port, low, high)
	}
}

// When another program has the port, contacts learn the new one.
func TestTakenPort(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob := pair(t)
	wantEcho(t, alice.c, "bob")
	port := bob.port()
	bob.stop()
	other, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	bob = start(t, opts{home: bob.home})
	if bob.port() == port {
		t.Fatalf("both have port %d", port)
	}
	wantText(t, bob.log.String(), "taken")
	moved := "/" + strconv.Itoa(bob.port())
	eventually(t, "alice learns bob's new address", func() bool {
		c := verb[[]api.Contact](t, alice.c, api.VerbContactList, nil)[0]
		return strings.Contains(strings.Join(c.Addresses, " "), moved)
	})
	// Kept on the disk: a new start knows it, without a connection.
	alice = alice.again(t, opts{})
	wantEcho(t, alice.c, "bob")
	kept := bob.port()
	bob = bob.again(t, opts{})
	if bob.port() != kept {
		t.Errorf("the new port %d was not kept", kept)
	}
}

// A port that the administrator chose is not changed silently.
func TestChosenPortThatIsTaken(t *testing.T) {
	testutil.LeakCheck(t)
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := other.Addr().(*net.TCPAddr).Port
	d := start(t, opts{config: fmt.Sprintf("port = %d\n", port)})
	s := d.status()
	if !s.Node.Locked || len(s.Problems) != 1 {
		t.Fatalf("status: %+v", s)
	}
	wantText(t, s.Problems[0].Text, strconv.Itoa(port), "p2p.port")
	wantText(t, s.Problems[0].Fix, "daemon reload")
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	d.mustReload()
	if d.port() != port {
		t.Errorf("the port is %d, not %d", d.port(), port)
	}
}
