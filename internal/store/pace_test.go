package store

import (
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
)

// onDisk tells when the delegation that the disk has was issued.
func onDisk(t testing.TB, s *Store, who, node identity.ID) time.Time {
	t.Helper()
	var issued int64
	must(t, s.db.View(t.Context(), func(tx *sql.Tx) error {
		return tx.QueryRowContext(t.Context(), "SELECT issued FROM delegations WHERE identity = ? AND node = ?", who[:], node[:]).Scan(&issued)
	}))
	return time.UnixMicro(issued)
}

// flooder is a store in which me's contact bob has spent the writes of his
// delegations; next makes him another, always newer and ending earlier.
type flooder struct {
	*Store
	t       *testing.T
	me, bob identity.ID
	clock   time.Time
	made    int
	last    *identity.Delegation // that was put
}

func flooded(t *testing.T, s *Store) *flooder {
	f := &flooder{Store: s, t: t, me: id(1), bob: id(10), clock: delegation(id(0), id(0), 1).Issued}
	s.now = func() time.Time { return f.clock }
	add(t, s, f.me, "bob", f.bob)
	for range putsAtOnce {
		f.put(f.next(id(20)))
	}
	return f
}

func (f *flooder) next(node identity.ID) *identity.Delegation {
	f.made++
	d := delegation(f.bob, node, 0)
	d.Issued = d.Issued.Add(time.Duration(f.made) * time.Microsecond)
	d.Expires = d.Expires.Add(-time.Duration(f.made) * time.Second)
	return d
}

func (f *flooder) put(d *identity.Delegation) {
	f.t.Helper()
	f.last = d
	must(f.t, f.PutDelegation(f.t.Context(), f.me, d))
}

// wantNewest checks what counts, and what the disk has.
func (f *flooder) wantNewest(memory, disk *identity.Delegation) {
	f.t.Helper()
	issued, expires, ok := f.NewestDelegation(f.bob, id(20))
	if !ok || !issued.Equal(memory.Issued) || !expires.Equal(memory.Expires) {
		f.t.Errorf("the one of %v counts, not of %v", issued, memory.Issued)
	}
	if got := onDisk(f.t, f.Store, f.bob, id(20)); !got.Equal(disk.Issued) {
		f.t.Errorf("the one of %v is on the disk, not of %v", got, disk.Issued)
	}
}

// A contact may sign as many delegations as it likes: they all count, and cost
// the disk no more than one write a minute.
func TestDelegationsAreWrittenAtARate(t *testing.T) {
	f := flooded(t, open(t))
	written := f.last
	f.wantNewest(written, written) // at once, as many as are allowed
	for range 100 {
		f.put(f.next(id(20)))
	}
	f.wantNewest(f.last, written)
	if list := f.Delegations(f.me, f.bob); len(list) != 1 || list[0] != f.last {
		t.Errorf("given to pick from are %+v", list)
	}
	f.clock = f.clock.Add(putEvery - time.Microsecond)
	f.put(f.next(id(20)))
	f.wantNewest(f.last, written)
	f.clock = f.clock.Add(time.Microsecond)
	f.put(f.next(id(20)))
	written = f.last
	f.put(f.next(id(20)))
	f.wantNewest(f.last, written)
	f.clock = f.clock.Add(-1000 * time.Hour) // it had been wrong
	f.put(f.next(id(20)))
	f.wantNewest(f.last, f.last)
}

// Nodes that are new cost writes too, and there is no end of them.
func TestNewNodesAreWrittenAtARate(t *testing.T) {
	f := flooded(t, open(t))
	f.put(f.next(id(21)))
	if f.NodeKnown(id(21)) {
		t.Error("kept without a write")
	}
	// Who has not seen it gets no older one by that.
	newest := f.next(id(20))
	f.clock = f.clock.Add(putEvery)
	f.put(newest)
	add(t, f.Store, id(2), "bob", f.bob)
	must(t, f.PutDelegation(t.Context(), id(2), delegation(f.bob, id(20), -1)))
	f.wantNewest(newest, newest)
	// Others' contacts have a rate of their own.
	add(t, f.Store, f.me, "carol", id(11))
	f.put(delegation(id(11), id(22), 1))
	if !f.NodeKnown(id(22)) {
		t.Error("carol suffers from bob")
	}
}

// A node tells new addresses whenever it likes.
func TestAddressesAreWrittenAtARate(t *testing.T) {
	s, node := open(t), id(20)
	clock := delegation(id(0), id(0), 1).Issued
	s.now = func() time.Time { return clock }
	must(t, s.AddContact(t.Context(), NewContact{Owner: id(1), ID: id(10), Name: "bob", Node: node, Address: "/hint"}))
	want := func(n, written int) {
		t.Helper()
		must(t, s.SetAddresses(t.Context(), node, []string{fmt.Sprint("/", n)}))
		var disk string
		must(t, s.db.View(t.Context(), func(tx *sql.Tx) error {
			return tx.QueryRowContext(t.Context(), "SELECT address FROM addresses WHERE node = ?", node[:]).Scan(&disk)
		}))
		if got := s.Addresses(node)[0]; got != fmt.Sprint("/", n) || disk != fmt.Sprint("/", written) {
			t.Errorf("of %d, %s counts and %s is on the disk", n, got, disk)
		}
	}
	for n := range putsAtOnce {
		want(n, n)
	}
	want(putsAtOnce, putsAtOnce-1)
	want(putsAtOnce+1, putsAtOnce-1)
	clock = clock.Add(putEvery)
	want(putsAtOnce+2, putsAtOnce+2)
}
