package daemon

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fastn-stack/fastnd/internal/p2p"
)

const (
	// portFile is where the port of a daemon that may choose it is kept: contacts
	// know it, so that it must not go with a lost store.
	portFile = "port"
	// portKey is where the store keeps it too, which is what backups have.
	portKey = "p2p.port"
)

// keptPort is the port that an earlier start took; 0 if there was none.
func (n *node) keptPort() int {
	if port := parsePort(n.portInFile()); port != 0 {
		return port
	}
	kept, _ := n.store.Meta(portKey)
	return parsePort(kept)
}

func parsePort(text string) int {
	port, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil || port < 1 || port > math.MaxUint16 {
		return 0
	}
	return port
}

func (n *node) portInFile() string {
	f, err := os.OpenFile(filepath.Join(n.d.place.dir, portFile), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, 16)
	count, _ := f.Read(b) // what is not read is no port
	return string(b[:count])
}

// keepPort remembers the port.
func (n *node) keepPort(ctx context.Context) error {
	ports := n.host.Ports()
	if len(ports) == 0 {
		return nil
	}
	port, _, _ := strings.Cut(ports[0], "/")
	if strings.TrimSpace(n.portInFile()) != port {
		if err := n.writePort(port); err != nil {
			n.d.log.Warn("the port is kept in the store only", "error", err)
		}
	}
	if err := n.store.SetMeta(ctx, portKey, port); err != nil {
		return fmt.Errorf("keep the port: %w", err)
	}
	return nil
}

// writePort replaces the file, so that a crash leaves one of the two ports in it.
func (n *node) writePort(port string) error {
	path := filepath.Join(n.d.place.dir, portFile)
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, port)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// newHost listens on the port of o, or if that is 0 on the one kept from earlier, or on
// another that is free. Contacts are told of that by Identify.
func (n *node) newHost(o p2p.Options) (*p2p.Host, error) {
	if o.Port != 0 {
		return p2p.New(o, (*frames)(n))
	}
	if kept := n.keptPort(); kept != 0 {
		o.Port = kept
		host, err := p2p.New(o, (*frames)(n))
		if err == nil {
			return host, nil
		}
		n.d.log.Warn("the port kept from earlier is taken, another is used", "port", kept, "error", err)
	}
	for range lastingTries {
		if o.Port = lastingPort(); o.Port == 0 {
			break
		}
		if host, err := p2p.New(o, (*frames)(n)); !errors.Is(err, unix.EADDRINUSE) {
			return host, err
		}
	}
	o.Port = 0
	return p2p.New(o, (*frames)(n))
}

// lastingTries is how often a port is chosen by lastingPort before the kernel chooses.
const lastingTries = 8

// lastingPort gives a port that the kernel gives to nobody who asks for any: it is more
// likely to be free at the next start too. 0 if there are few of them.
func lastingPort() int {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return 0
	}
	return portAbove(string(text))
}

// portAbove gives one above a range of ports, "32768 60999".
func portAbove(ports string) int {
	const last, few = 65535, 256
	var low, high int
	if n, _ := fmt.Sscan(ports, &low, &high); n != 2 || high < 1024 || last-high < few {
		return 0
	}
	return high + 1 + rand.IntN(last-high)
}
