package p2p_test

import (
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/p2p"
	"github.com/fastn-stack/fastnd/internal/p2p/p2ptest"
	"github.com/fastn-stack/fastnd/internal/testutil"
)

// dials is a book that tells when a node is dialled.
type dials chan time.Time

func (d dials) Addresses(identity.ID) []string {
	d <- time.Now()
	return []string{"/ip4/127.0.0.1/tcp/1"}
}

func (d dials) Learned(identity.ID, []string) {}

// A node that is sought is dialled ever more seldom, beyond the longest pause of
// one that is to be kept.
func TestSoughtNodesAreDialledSeldom(t *testing.T) {
	testutil.LeakCheck(t)
	book := make(dials, 1000)
	a := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), p2ptest.TCPOnly, func(o *p2p.Options) {
		o.Book, o.Timing.RedialMin, o.Timing.RedialMax = book, 20*time.Millisecond, 20*time.Millisecond
		o.Timing.SeekMax = time.Hour
	})
	gone := p2ptest.Key(t).ID()
	a.Seek(gone, "moved", time.Now().Add(time.Hour))
	last := recv(t, book, "dial")
	for least := 16 * time.Millisecond; least < time.Second; least *= 2 {
		at := recv(t, book, "dial")
		if pause := at.Sub(last); pause < least {
			t.Fatalf("dialled after %v, want at least %v", pause, least)
		}
		last = at
	}
}

// A node that is sought is dialled at once when it is to be kept after all.
func TestSoughtNodeIsToBeKept(t *testing.T) {
	testutil.LeakCheck(t)
	book := make(dials, 1000)
	a := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), p2ptest.TCPOnly, func(o *p2p.Options) {
		o.Book, o.Timing.RedialMin, o.Timing.RedialMax = book, time.Hour, time.Hour
	})
	gone := p2ptest.Key(t).ID()
	a.Seek(gone, "moved", time.Now().Add(time.Hour))
	recv(t, book, "dial")
	a.Protect(gone, "kept")
	recv(t, book, "dial")
}

// That a node is sought makes it no friend: nobody here may want it by now.
func TestSoughtNodeIsAStranger(t *testing.T) {
	testutil.LeakCheck(t)
	a := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), p2ptest.TCPOnly, func(o *p2p.Options) {
		o.Trusted = func(identity.ID) bool { return false }
	})
	node := p2ptest.Key(t).ID()
	a.Seek(node, "moved", time.Now().Add(time.Hour))
	if !a.Sought(node) || a.Trusts(node) {
		t.Errorf("sought %v, trusted %v", a.Sought(node), a.Trusts(node))
	}
	a.Protect(node, "kept")
	if !a.Trusts(node) {
		t.Error("one that is to be kept is a stranger")
	}
}

// A node that was sought in vain is let go at the end of its time.
func TestSeekingEnds(t *testing.T) {
	testutil.LeakCheck(t)
	book := make(dials, 1000)
	a := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), p2ptest.TCPOnly, func(o *p2p.Options) {
		o.Book, o.Timing.RedialMin, o.Timing.SeekMax = book, 10*time.Millisecond, 10*time.Millisecond
	})
	gone := p2ptest.Key(t).ID()
	a.Seek(gone, "moved", time.Now().Add(100*time.Millisecond))
	recv(t, book, "dial")
	for deadline := time.After(20 * time.Second); a.Sought(gone); {
		select {
		case <-book:
		case <-time.After(10 * time.Millisecond):
		case <-deadline:
			t.Fatal("it is sought for ever")
		}
	}
}
