package p2p_test

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/p2p"
	"github.com/fastn-stack/fastnd/internal/p2p/p2ptest"
	"github.com/fastn-stack/fastnd/internal/testutil"
)

const asNode = "FASTN_TEST_NODE" // seed, port, quic|tcp, static peer's address or -

// childNode is a node in a process of its own, to be killed.
type childNode struct {
	cmd   *exec.Cmd
	stdin io.Closer
	addr  string
	key   identity.Key
	id    identity.ID
}

func startNode(t *testing.T, key identity.Key, port int, transport, peer string) *childNode {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestCrashedPeerComesBack$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %s %s", asNode, hex.EncodeToString(key.Seed()), port, transport, peer))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the node did not start: %v", err)
	}
	n := &childNode{cmd: cmd, stdin: in, addr: strings.TrimSpace(line), key: key, id: key.ID()}
	t.Cleanup(n.kill)
	return n
}

func (n *childNode) kill() {
	_ = n.cmd.Process.Kill()
	_ = n.cmd.Wait()
}

// runNode is the child: it serves until its standard input ends.
func runNode(t *testing.T, spec string) {
	var seedHex, transport, peer string
	var port int
	if _, err := fmt.Sscan(spec, &seedHex, &port, &transport, &peer); err != nil {
		t.Fatal(err)
	}
	seed, err := hex.DecodeString(seedHex)
	if err != nil {
		t.Fatal(err)
	}
	key, err := identity.KeyFromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	h := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), func(o *p2p.Options) {
		o.Key, o.Port, o.QUIC, o.TCP = key, port, transport == "quic", transport == "tcp"
		if _, id, ok := strings.Cut(peer, "/p2p/"); ok {
			node, err := identity.ParseID(id)
			if err != nil {
				t.Fatal(err)
			}
			o.StaticPeers = map[identity.ID][]string{node: {peer}}
		}
	})
	fmt.Println(h.Addrs()[0])
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// A node that was killed says no good-bye. When it is back and connects, the old
// connection is found dead and no request is lost in it.
func TestCrashedPeerComesBack(t *testing.T) {
	if spec := os.Getenv(asNode); spec != "" {
		runNode(t, spec)
		return
	}
	for name, only := range map[string]p2ptest.Option{"quic": p2ptest.QUICOnly, "tcp": p2ptest.TCPOnly} {
		t.Run(name, func(t *testing.T) {
			testutil.LeakCheck(t)
			book := p2ptest.NewBook()
			a := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), only, func(o *p2p.Options) { o.Book = book })
			key := p2ptest.Key(t)
			b := startNode(t, key, 0, name, "-")
			book.Add(key.ID(), b.addr)
			for range 200 { // until QUIC has nothing more to find out, and is silent
				callNode(t, a, key.ID())
			}
			port := 0
			if _, err := fmt.Sscanf(strings.SplitN(b.addr, "/", 5)[4], "%d", &port); err != nil {
				t.Fatal(b.addr, err)
			}
			b.kill()
			restarted := time.Now()
			startNode(t, key, port, name, a.Addrs()[0])
			eventually(t, "the new connection alone", func() bool {
				p := a.Peers()
				return len(p) == 1 && p[0].Since.After(restarted) && a.Connections() == 1
			})
			within(t, restarted, 5*time.Second)
			callNode(t, a, key.ID())
		})
	}
}
