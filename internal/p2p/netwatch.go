package p2p

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// settleTime gathers the burst of messages that one change makes.
const settleTime = 100 * time.Millisecond

// watchNetwork follows links and addresses over rtnetlink(7), so that a moved
// or returned link is acted on at once rather than after timeouts.
func (h *Host) watchNetwork() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("watch the network: %w", err)
	}
	groups := uint32(unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		_ = unix.Close(fd)
		return fmt.Errorf("watch the network: %w", err)
	}
	f := os.NewFile(uintptr(fd), "rtnetlink") // in the poller: Close ends a Read
	w := &netWatch{f: f, changed: make(chan struct{}, 1)}
	stop := context.AfterFunc(h.ctx, func() { _ = f.Close() })
	ok := h.tasks.run(w.read) && h.tasks.run(func() { h.followNetwork(w) })
	if !ok && stop() {
		_ = f.Close()
	}
	return nil
}

// netWatch reads what rtnetlink tells.
type netWatch struct {
	f       *os.File
	changed chan struct{}
	lost    atomic.Bool // an address or a link went away, if only for a moment
}

// read tells that something happened; what there is now, is read from the
// interfaces. It ends when f is closed.
func (w *netWatch) read() {
	defer close(w.changed)
	buf := make([]byte, 64<<10)
	for {
		n, err := w.f.Read(buf)
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return
		}
		if err != nil || removes(buf[:n]) { // ENOBUFS: some were missed
			w.lost.Store(true)
		}
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}

// removes tells whether an address or a link went away.
func removes(b []byte) bool {
	list, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return true
	}
	return slices.ContainsFunc(list, func(m syscall.NetlinkMessage) bool {
		return m.Header.Type == unix.RTM_DELADDR || m.Header.Type == unix.RTM_DELLINK
	})
}

// followNetwork acts on changes. What is new is often only a counter or a
// lifetime, so the state is compared.
func (h *Host) followNetwork(w *netWatch) {
	last := networkState()
	for range w.changed {
		select {
		case <-time.After(settleTime):
		case <-h.ctx.Done():
			return
		}
		lost := w.lost.Swap(false)
		if now := networkState(); now != last || lost {
			last = now
			h.networkChanged(interfaceIPs())
			if h.o.OnAddresses != nil {
				h.o.OnAddresses()
			}
		}
	}
}

// networkState is a text that changes with what matters: which interfaces run,
// with which addresses.
func networkState() string {
	list, err := net.Interfaces()
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for _, i := range list {
		up := i.Flags & (net.FlagUp | net.FlagRunning)
		addrs, _ := i.Addrs()
		fmt.Fprintln(&b, i.Index, i.Name, up, addrs)
	}
	return b.String()
}

// networkChanged closes connections from addresses that are gone, which would
// only time out, asks the others whether they still live, and dials protected
// nodes at once. One whose link is down may go on when it is up again.
func (h *Host) networkChanged(ips []netip.Addr) {
	h.o.Log.Info("the network changed", "addresses", len(ips))
	usable := usableIPs()
	var closing sync.WaitGroup
	for _, c := range h.conns.list() {
		if c.source.IsValid() && !c.source.IsLoopback() && !c.source.IsLinkLocalUnicast() && !slices.Contains(ips, c.source) {
			closing.Go(func() { c.giveUp("this machine's address on it is gone") })
			continue
		}
		if slices.Contains(usable, c.source) {
			c.suspect(doubt{4 * time.Second, "it does not answer since this machine's links changed"})
		}
	}
	closing.Wait()
	for _, n := range h.nodes.list() {
		h.sw.Backoff().Clear(n.id.PeerID())
		n.kick(true)
	}
}

// usableIPs gives the addresses of links that are up.
func usableIPs() []netip.Addr {
	list, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var ips []netip.Addr
	for _, i := range list {
		const up = net.FlagUp | net.FlagRunning
		if i.Flags&up != up {
			continue
		}
		addrs, _ := i.Addrs()
		ips = append(ips, ipsOf(addrs)...)
	}
	return ips
}
