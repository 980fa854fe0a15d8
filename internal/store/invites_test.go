package store

import (
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

var (
	soon = micro(time.Now())
	far  = soon.Add(24 * time.Hour)
)

func secret(n int) identity.Secret { return identity.Secret(id(5000 + n)) }

func hashOf(s identity.Secret) [32]byte { return sha256.Sum256(s[:]) }

// invited gives a store in which id(1) made ticket 1 for "bob".
func invited(t *testing.T) *Store {
	s := open(t)
	must(t, s.AddInvite(t.Context(), id(1), hashOf(secret(1)), "bob", far))
	return s
}

func wantRedeemed(t *testing.T, s *Store, by int, wantName string, wantAgain bool) {
	t.Helper()
	name, again, err := s.Redeem(t.Context(), id(1), secret(1), id(by), soon)
	if err != nil || name != wantName || again != wantAgain {
		t.Errorf("got %q, %v, %v; want %q, %v", name, again, err, wantName, wantAgain)
	}
	if got, ok := s.Contact(id(1), id(by)); !ok || got != wantName {
		t.Errorf("the contact is %q, %v", got, ok)
	}
}

func wantRefused(t *testing.T, s *Store, by int, want error) {
	t.Helper()
	before := len(s.Contacts(id(1)))
	name, again, err := s.Redeem(t.Context(), id(1), secret(1), id(by), soon)
	if !errors.Is(err, want) || name != "" || again {
		t.Errorf("got %q, %v, %v; want %v", name, again, err, want)
	}
	if len(s.Contacts(id(1))) != before {
		t.Error("a contact was added all the same")
	}
}

// TestLongestInvite: of those that can still be used, whoever else has longer ones.
func TestLongestInvite(t *testing.T) {
	s, ctx := open(t), t.Context()
	want := func(want time.Time) {
		t.Helper()
		if got := s.LongestInvite(id(1)); !got.Equal(want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	want(time.Time{})
	must(t, s.AddInvite(ctx, id(1), hashOf(secret(2)), "", far))
	must(t, s.AddInvite(ctx, id(1), hashOf(secret(1)), "", far.Add(time.Hour)))
	must(t, s.AddInvite(ctx, id(2), hashOf(secret(3)), "", far.Add(2*time.Hour)))
	want(far.Add(time.Hour))
	wantRedeemed(t, s, 10, id(10).String()[:8], false)
	want(far)
}

func TestRedeemMakesAContact(t *testing.T) {
	s := invited(t)
	wantRedeemed(t, s, 10, "bob", false)
	wantRedeemed(t, s, 10, "bob", true) // the answer was lost
	wantRefused(t, s, 11, ErrTicketUsed)
	// Renaming is no removing.
	must(t, s.RenameContact(t.Context(), id(1), "bob", "rob"))
	wantRedeemed(t, s, 10, "rob", true)
}

func TestRedeemSurvivesReopening(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir)
	must(t, s.AddInvite(t.Context(), id(1), hashOf(secret(1)), "bob", far))
	must(t, s.Close())
	s = openAt(t, dir)
	wantRedeemed(t, s, 10, "bob", false)
	must(t, s.Close())
	s = openAt(t, dir)
	wantRedeemed(t, s, 10, "bob", true)
	wantRefused(t, s, 11, ErrTicketUsed)
	must(t, s.RemoveContact(t.Context(), id(1), "bob"))
	must(t, s.Close())
	wantRefused(t, openAt(t, dir), 10, ErrTicketUsed)
}

func TestRemovalAndBlockVoidTheTicket(t *testing.T) {
	ctx := t.Context()
	s := invited(t)
	wantRedeemed(t, s, 10, "bob", false)
	must(t, s.RemoveContact(ctx, id(1), "bob"))
	wantRefused(t, s, 10, ErrTicketUsed)
	add(t, s, id(1), "bob", id(10)) // void stays void
	wantRefused(t, s, 10, ErrTicketUsed)

	s = invited(t)
	wantRedeemed(t, s, 10, "bob", false)
	must(t, s.Block(ctx, id(1), id(10)))
	wantRefused(t, s, 10, ErrNoTicket)
	must(t, s.Unblock(ctx, id(1), id(10)))
	wantRefused(t, s, 10, ErrTicketUsed)
}

func TestRedeemRefusals(t *testing.T) {
	s := invited(t)
	ctx := t.Context()
	redeem := func(owner, n, by int, now time.Time) error {
		_, _, err := s.Redeem(ctx, id(owner), secret(n), id(by), now)
		return err
	}
	must(t, s.Block(ctx, id(1), id(12)))
	must(t, s.SetIdentity(ctx, id(2), 1, "other", true))
	for name, tt := range map[string]struct{ got, want error }{
		"wrong secret":  {redeem(1, 2, 10, soon), ErrNoTicket},
		"another owner": {redeem(2, 1, 10, soon), ErrNoTicket},
		"blocked":       {redeem(1, 1, 12, soon), ErrNoTicket},
		"its own":       {redeem(1, 1, 1, soon), ErrNoTicket},
		"at its end":    {redeem(1, 1, 10, far), ErrTicketExpired},
		"long after":    {redeem(1, 1, 10, far.Add(time.Hour)), ErrTicketExpired},
	} {
		if !errors.Is(tt.got, tt.want) {
			t.Errorf("%s: got %v, want %v", name, tt.got, tt.want)
		}
	}
	if len(s.Contacts(id(1)))+len(s.Contacts(id(2))) != 0 {
		t.Error("a refusal added a contact")
	}
	must(t, redeem(1, 1, 10, soon)) // none of them used it up
	if redeem(1, 1, 10, far) != nil {
		t.Error("the lost answer cannot be asked for after the ticket's end")
	}
}

func TestRedeemNamesTheContact(t *testing.T) {
	ctx := t.Context()
	prefix := func(n int) string { return id(10).String()[:n] }
	t.Run("no name", func(t *testing.T) {
		s := open(t)
		must(t, s.AddInvite(ctx, id(1), hashOf(secret(1)), "", far))
		wantRedeemed(t, s, 10, prefix(8), false)
	})
	t.Run("name taken", func(t *testing.T) {
		s := invited(t)
		add(t, s, id(1), "bob", id(11))
		add(t, s, id(1), prefix(8), id(12))
		wantRedeemed(t, s, 10, prefix(9), false)
		if c, err := s.ContactByName(id(1), "bob"); err != nil || c.ID != id(11) {
			t.Errorf("the existing contact: %+v %v", c, err)
		}
	})
	t.Run("a contact already", func(t *testing.T) {
		s := invited(t)
		add(t, s, id(1), "rob", id(10))
		add(t, s, id(1), "carol", id(11))
		wantRedeemed(t, s, 10, "rob", false)
		wantRefused(t, s, 11, ErrTicketUsed)
	})
}

// Of many who come at once with one secret, one gets it.
func TestRedeemRace(t *testing.T) {
	s := invited(t)
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for n := range errs {
		wg.Go(func() { _, _, errs[n] = s.Redeem(t.Context(), id(1), secret(1), id(10+n), soon) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, ErrTicketUsed) {
			t.Error(err)
		}
	}
	if won != 1 || len(s.Contacts(id(1))) != 1 {
		t.Errorf("%d redeemed it, %d contacts", won, len(s.Contacts(id(1))))
	}
}

func TestInvitesAreSweptAndBounded(t *testing.T) {
	s, ctx := open(t), t.Context()
	now := soon
	s.now = func() time.Time { return now }
	expires := soon.Add(time.Hour)
	must(t, s.write(ctx, func(_ *state, p *plan) error { // at once, for speed
		for n := range maxInvites {
			p.addInvite(id(1), hashOf(secret(n)), invite{expires: micro(expires)})
		}
		return nil
	}))
	wantCode(t, s.AddInvite(ctx, id(1), hashOf(secret(-1)), "", far), api.CodeOverBudget)
	must(t, s.AddInvite(ctx, id(2), hashOf(secret(-2)), "", far)) // others have their own
	now = expires
	must(t, s.AddInvite(ctx, id(1), hashOf(secret(-1)), "", expires.Add(24*time.Hour)))
	if _, _, err := s.Redeem(ctx, id(1), secret(5), id(10), now); !errors.Is(err, ErrTicketExpired) {
		t.Errorf("one that ended just now: %v", err)
	}
	now = expires.Add(inviteMemory + time.Second)
	must(t, s.AddInvite(ctx, id(2), hashOf(secret(-3)), "", now.Add(time.Hour)))
	if got := len(s.state.of(id(1)).invites); got != 1 {
		t.Errorf("%d of id 1's are remembered, not 1", got)
	}
	if _, _, err := s.Redeem(ctx, id(1), secret(5), id(10), now); !errors.Is(err, ErrNoTicket) {
		t.Errorf("one that ended long ago: %v", err)
	}
	wantCode(t, s.AddInvite(ctx, id(1), hashOf(secret(-4)), "self", far), api.CodeBadRequest)
}

// The secret itself is nowhere on the disk.
func TestSecretsAreNotStored(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir)
	plain := identity.Secret([]byte("0123456789abcdefghijklmnopqrstuv"))
	must(t, s.AddInvite(t.Context(), id(1), hashOf(plain), "bob", far))
	_, _, err := s.Redeem(t.Context(), id(1), plain, id(10), soon)
	must(t, err)
	files, err := os.ReadDir(dir)
	must(t, err)
	for _, f := range files {
		raw, err := os.ReadFile(filepath.Join(dir, f.Name()))
		must(t, err)
		if strings.Contains(string(raw), string(plain[:])) {
			t.Errorf("%s holds the secret", f.Name())
		}
		if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", f.Name(), info.Mode())
		}
	}
}
