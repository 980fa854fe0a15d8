package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
)

// open gives a store in a new folder, closed at the test's end.
func open(t testing.TB) *Store {
	t.Helper()
	testutil.LeakCheck(t)
	dir := t.TempDir()
	var s *Store
	t.Cleanup(func() { checkReload(t, s, dir) }) // after it is closed
	s = openAt(t, dir)
	return s
}

func openAt(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// checkReload fails t unless a new load of the closed s gives what s has in
// memory. Each test of open's ends with it.
func checkReload(t testing.TB, s *Store, dir string) {
	t.Helper()
	again, err := Open(context.Background(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if again.Recovery() != nil {
		t.Error("a whole file was repaired")
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	if !t.Failed() && !reflect.DeepEqual(normal(s.state), normal(again.state)) {
		t.Errorf("after reopening the store differs:\n%+v\n%+v", s.state, again.state)
	}
}

// id makes an ID that is the same for the same n; it need not be on the curve.
func id(n int) identity.ID {
	var seed [8]byte
	binary.BigEndian.PutUint64(seed[:], uint64(n))
	return sha256.Sum256(seed[:])
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantCode fails t unless err has the code, and, unless the disk failed, a text
// and a hint that users can read.
func wantCode(t testing.TB, err error, code api.Code) {
	t.Helper()
	if api.CodeOf(err) != code {
		t.Fatalf("got %v (%q), want code %s", err, api.CodeOf(err), code)
	}
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Message == "" {
		t.Fatalf("%v is not for users", err)
	}
}

func add(t testing.TB, s *Store, owner identity.ID, name string, who identity.ID) {
	t.Helper()
	must(t, s.AddContact(t.Context(), NewContact{Owner: owner, ID: who, Name: name}))
}

// Whatever happens, memory and disk say the same.
func TestReopenKeepsEverything(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := open(t)
			clock := time.UnixMicro(1_700_000_000_000_000)
			s.now = func() time.Time { clock = clock.Add(4 * time.Hour); return clock }
			scribble(t, s, rand.New(rand.NewPCG(seed, 1)))
			checkTrust(t, s)
		})
	}
}

// scribble does some hundred random things; refusals are part of it.
func scribble(t *testing.T, s *Store, r *rand.Rand) {
	ctx := t.Context()
	names := []string{"bob", "carol", "dave", "erin"}
	someone := func() identity.ID { return id(r.IntN(6)) }
	owner := func() identity.ID { return id(100 + r.IntN(3)) }
	name := func() string { return names[r.IntN(len(names))] }
	who := func() Who {
		return []Who{WhoContact(someone()), WhoContacts(), WhoAnyone()}[r.IntN(3)]
	}
	ops := []func() error{
		func() error { return s.SetIdentity(ctx, owner(), uint32(r.IntN(2)), name(), r.IntN(2) == 0) },
		func() error {
			n := NewContact{Owner: owner(), ID: someone(), Name: name()}
			if r.IntN(2) == 0 {
				n.Delegation, n.Addresses = delegation(n.ID, id(200+r.IntN(40)), r.IntN(100)), []string{"/ip4/1.1.1.1"}
			}
			if r.IntN(2) == 0 {
				n.Node, n.Address = id(200+r.IntN(40)), "/ip4/2.2.2.2"
			}
			return s.AddContact(ctx, n)
		},
		func() error { return s.RenameContact(ctx, owner(), name(), name()) },
		func() error { return s.RemoveContact(ctx, owner(), name()) },
		func() error { return s.Block(ctx, owner(), someone()) },
		func() error { return s.Unblock(ctx, owner(), someone()) },
		func() error { _, err := s.AddGrant(ctx, owner(), who(), "P"+name(), ""); return err },
		func() error { return s.RemoveGrant(ctx, owner(), who(), "P"+name(), "") },
		func() error {
			secret := identity.Secret(id(r.IntN(1000)))
			o := owner()
			if err := s.AddInvite(ctx, o, sha256.Sum256(secret[:]), name(), s.now().Add(time.Hour*time.Duration(r.IntN(9)))); err != nil {
				return err
			}
			_, _, err := s.Redeem(ctx, o, secret, someone(), s.now())
			return err
		},
		func() error {
			return s.PutDelegation(ctx, owner(), delegation(someone(), id(200+r.IntN(40)), r.IntN(100)))
		},
		func() error { return s.SetAddresses(ctx, id(200+r.IntN(40)), []string{"/a/" + name(), "/b"}) },
		func() error { return s.SetMeta(ctx, name(), name()) },
	}
	done := 0
	for n := range 400 {
		op := ops[r.IntN(len(ops))]
		if n%150 == 149 {
			op = func() error { return s.RemoveIdentity(ctx, owner()) }
		}
		if op() == nil {
			done++
		}
	}
	if done < 100 {
		t.Fatalf("only %d of the writes did anything", done)
	}
}

func delegation(who, node identity.ID, issuedHour int) *identity.Delegation {
	issued := time.UnixMicro(1_700_000_000_000_000).Add(time.Duration(issuedHour) * time.Hour)
	return &identity.Delegation{Identity: who, Node: node, Issued: issued, Expires: issued.Add(time.Hour * 168), Raw: []byte{1, byte(issuedHour)}}
}

// normal drops what is empty, which memory may hold and a new load does not.
func normal(st *state) *state {
	for owner, o := range st.owners {
		for id, h := range o.hints {
			if len(h) == 0 {
				delete(o.hints, id)
			}
		}
		if reflect.DeepEqual(o, newOwned()) {
			delete(st.owners, owner)
		}
	}
	for node, a := range st.addresses {
		if len(a) == 0 {
			delete(st.addresses, node)
		}
	}
	for id, d := range st.delegations {
		if len(d) == 0 {
			delete(st.delegations, id)
		}
	}
	return st
}

// A file of which nothing reads gives an empty store that works, and a report.
func TestDamagedFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, File)
	must(t, os.WriteFile(path, []byte("this is no database, whatever it was"), 0o600))
	s := openAt(t, dir)
	if r := s.Recovery(); r == nil || !r.Lost() || r.MovedTo == "" {
		t.Errorf("recovery %+v", r)
	}
	add(t, s, id(1), "bob", id(10))
}

func TestMeta(t *testing.T) {
	s := open(t)
	if _, ok := s.Meta("port"); ok {
		t.Error("something came from nowhere")
	}
	must(t, s.SetMeta(t.Context(), "port", "4100"))
	must(t, s.SetMeta(t.Context(), "port", "4101"))
	if v, ok := s.Meta("port"); v != "4101" || !ok {
		t.Errorf("got %q, %v", v, ok)
	}
}

func TestCancelledBeforeTheWrite(t *testing.T) {
	s := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := s.AddContact(ctx, NewContact{Owner: id(1), ID: id(2), Name: "bob"})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if len(s.Contacts(id(1))) != 0 {
		t.Error("the contact was added all the same")
	}
}
