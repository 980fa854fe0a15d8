package p2p

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
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
	w := &netWatch{f: f, changed: make(chan struct{}, 1), downs: make(map[int]bool)}
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

	mu    sync.Mutex
	lost  bool         // an address or a link went away, if only for a moment
	downs map[int]bool // indices of links that did not run, if only for a moment
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
		w.note(buf[:max(n, 0)], err != nil) // ENOBUFS: some were missed
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}

// note remembers what cannot be seen any more when the interfaces are looked at.
func (w *netWatch) note(b []byte, missed bool) {
	list, err := syscall.ParseNetlinkMessage(b)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lost = w.lost || missed || err != nil
	for _, m := range list {
		switch m.Header.Type {
		case unix.RTM_DELADDR, unix.RTM_DELLINK:
			w.lost = true
		case unix.RTM_NEWLINK: // struct ifinfomsg, rtnetlink(7)
			if len(m.Data) < unix.SizeofIfInfomsg {
				continue
			}
			if flags := binary.NativeEndian.Uint32(m.Data[8:]); flags&running != running {
				w.downs[int(binary.NativeEndian.Uint32(m.Data[4:]))] = true
			}
		}
	}
}

const running = unix.IFF_UP | unix.IFF_RUNNING

// take gives what was noted, and forgets it.
func (w *netWatch) take() (lost bool, downs map[int]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	lost, downs = w.lost, w.downs
	w.lost, w.downs = false, make(map[int]bool)
	return lost, downs
}

// links is what this machine's network interfaces are at one moment.
type links struct {
	text string             // changes with what matters
	of   map[netip.Addr]int // the index of each address' link
	runs map[int]bool       // whether a link is up; by index, of all that there are
}

func readLinks() links {
	l := links{of: make(map[netip.Addr]int), runs: make(map[int]bool)}
	list, err := net.Interfaces()
	if err != nil {
		l.text = err.Error()
		return l
	}
	var b strings.Builder
	for _, i := range list {
		const up = net.FlagUp | net.FlagRunning
		addrs, _ := i.Addrs()
		fmt.Fprintln(&b, i.Index, i.Name, i.Flags&up, addrs)
		l.runs[i.Index] = i.Flags&up == up
		for _, ip := range ipsOf(addrs) {
			l.of[ip] = i.Index
		}
	}
	l.text = b.String()
	return l
}

// away are addresses that went with their links, by index: with IPv6 a link that
// is down has none, and gets them back when it is up.
type away map[netip.Addr]int

// follow tells which addresses are back.
func (a away) follow(last, now links, downs map[int]bool) (back []netip.Addr) {
	for ip, link := range last.of {
		_, here := now.of[ip]
		if runs, there := now.runs[link]; ip.Is6() && !here && there && (!runs || downs[link]) {
			a[ip] = link
		}
	}
	for ip, link := range a {
		_, here := now.of[ip]
		if here {
			back = append(back, ip)
		}
		if _, there := now.runs[link]; here || !there {
			delete(a, ip)
		}
	}
	return back
}

// followNetwork acts on changes. What is new is often only a counter or a
// lifetime, so the state is compared.
func (h *Host) followNetwork(w *netWatch) {
	last, gone := readLinks(), make(away)
	for range w.changed {
		if !wait(h.ctx, settleTime) {
			return
		}
		lost, downs := w.take()
		now := readLinks()
		if now.text == last.text && !lost {
			continue
		}
		back := gone.follow(last, now, downs)
		last = now
		h.networkChanged(now, gone, back)
		if h.o.OnAddresses != nil {
			h.o.OnAddresses()
		}
	}
}

// networkChanged dials protected nodes at once, closes connections from addresses
// that are gone, which would only time out, and asks the others whether they still
// live. One whose link is down may go on when it is up again.
func (h *Host) networkChanged(now links, gone away, back []netip.Addr) {
	h.o.Log.Info("the network changed", "addresses", len(now.of))
	for _, n := range h.nodes.list() {
		n.hurryUp()
	}
	for _, c := range h.conns.list() {
		link, here := now.of[c.source]
		if !here {
			link, here = gone[c.source]
		}
		switch {
		case here && now.runs[link]:
			c.suspect(doubt{4 * time.Second, "it does not answer since this machine's links changed"}, slices.Contains(back, c.source))
		case here, !c.source.IsValid(), c.source.IsLoopback(), c.source.IsLinkLocalUnicast():
		default:
			h.tasks.run(func() { // who dials that node need not wait for a timeout meanwhile
				c.giveUp("this machine's address on it is gone")
				if n := h.nodes.peek(c.peer.Node); n != nil {
					n.hurryUp()
				}
			})
		}
	}
}

// hurryUp ends the pause between dials of the node, since the network changed.
func (n *node) hurryUp() {
	n.h.sw.Backoff().Clear(n.id.PeerID())
	n.kick(true)
}
