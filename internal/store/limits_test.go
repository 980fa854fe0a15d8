package store

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

// full gives a store in which id(1), "alice", has all that she may have. It is
// put into memory only: 30,000 writes would take long.
func full(t *testing.T) *Store {
	s := openAt(t, t.TempDir())
	must(t, s.SetIdentity(t.Context(), id(1), 1000, "alice", true))
	must(t, s.AddInvite(t.Context(), id(1), hashOf(secret(1)), "", far))
	o := s.state.make(id(1))
	for n := range maxContacts {
		s.state.putContact(Contact{Owner: id(1), ID: many(n), Name: fmt.Sprint("c", n)})
	}
	for n := range maxBlocks {
		o.blocks[many(n)] = time.Time{}
	}
	for n := range maxGrants {
		o.grants[grantKey{WhoAnyone(), fmt.Sprint("P", n), api.DefaultInstance}] = time.Time{}
	}
	return s
}

func many(n int) identity.ID { return identity.ID{byte(n), byte(n >> 8), 1} }

// Each budget refuses one more, names itself, its limit and whose it is, takes
// what is there already, and leaves others alone.
func TestBudgets(t *testing.T) {
	s, ctx := full(t), t.Context()
	grant := func(owner int, who Who, protocol string) error {
		_, err := s.AddGrant(ctx, id(owner), who, protocol, "")
		return err
	}
	contact := func(owner int) error {
		return s.AddContact(ctx, NewContact{Owner: id(owner), ID: id(10), Name: "more"})
	}
	for what, c := range map[string]struct {
		over         error
		again, other error
	}{
		"contacts": {contact(1), s.RenameContact(ctx, id(1), "c1", "one"), contact(2)},
		"blocks":   {s.Block(ctx, id(1), id(10)), s.Block(ctx, id(1), many(1)), s.Block(ctx, id(2), id(10))},
		"grants":   {grant(1, WhoContacts(), "Q"), grant(1, WhoAnyone(), "P1"), grant(2, WhoContacts(), "Q")},
	} {
		wantCode(t, c.over, api.CodeOverBudget)
		e, _ := errors.AsType[*api.Error](c.over)
		if e.Message != "over budget: your identity alice has 2000 of 2000 "+what || e.Hint == "" {
			t.Errorf("%s: told %+v", what, e)
		}
		if c.again != nil || c.other != nil {
			t.Errorf("%s: what is there: %v, another's: %v", what, c.again, c.other)
		}
	}
}

// A ticket brings no contact too many; it stays unused, and who has it is told
// whose side is full and nothing more.
func TestRedeemOverBudget(t *testing.T) {
	s, ctx := full(t), t.Context()
	_, _, err := s.Redeem(ctx, id(1), secret(1), id(10), soon)
	wantCode(t, err, api.CodeOverBudget)
	if e, _ := errors.AsType[*api.Error](err); e.Message != "over budget: contacts (2000) on the peer's side" || strings.Contains(e.Hint, "alice") {
		t.Errorf("told %+v", e)
	}
	if _, ok := s.Contact(id(1), id(10)); ok {
		t.Error("a contact all the same")
	}
	must(t, s.RemoveContact(ctx, id(1), "c1"))
	wantRedeemed(t, s, 10, id(10).String()[:8], false)
	// Who is a contact already needs no room.
	must(t, s.Unblock(ctx, id(1), many(2)))
	must(t, s.AddInvite(ctx, id(1), hashOf(secret(2)), "", far))
	if name, _, err := s.Redeem(ctx, id(1), secret(2), many(2), soon); err != nil || name != "c2" {
		t.Errorf("%q, %v", name, err)
	}
}
