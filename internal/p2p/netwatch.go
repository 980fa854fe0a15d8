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
	changed := make(chan struct{}, 1)
	stop := context.AfterFunc(h.ctx, func() { _ = f.Close() })
	ok := h.tasks.run(func() { readNetlink(f, changed) }) &&
		h.tasks.run(func() { h.followNetwork(changed) })
	if !ok && stop() {
		_ = f.Close()
	}
	return nil
}

// readNetlink tells that something happened; what, is read from the interfaces.
func readNetlink(f *os.File, changed chan<- struct{}) {
	defer close(changed)
	buf := make([]byte, 64<<10)
	for {
		_, err := f.Read(buf)
		if err != nil && !errors.Is(err, unix.ENOBUFS) { // some were missed: as good as one
			return
		}
		select {
		case changed <- struct{}{}:
		default:
		}
	}
}

func (h *Host) followNetwork(changed <-chan struct{}) {
	last := networkState()
	for range changed {
		select {
		case <-time.After(settleTime):
		case <-h.ctx.Done():
			return
		}
		if now := networkState(); now != last {
			last = now
			h.networkChanged(interfaceIPs())
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
// only time out, and dials protected nodes at once.
func (h *Host) networkChanged(ips []netip.Addr) {
	h.o.Log.Info("the network changed", "addresses", len(ips))
	for _, c := range h.conns.list() {
		if c.source.IsValid() && !c.source.IsLoopback() && !c.source.IsLinkLocalUnicast() && !slices.Contains(ips, c.source) {
			_ = c.conn.Close()
		}
	}
	for _, n := range h.nodes.list() {
		h.sw.Backoff().Clear(n.id.PeerID())
		n.kick(true)
	}
}
