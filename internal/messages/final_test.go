package messages

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

// Whose word ends a message: the receiver's on it, or on all; ours does not, not
// even where the sender's user may not send it.
func TestWhoseWordIsFinal(t *testing.T) {
	codes := []api.Code{api.CodeRefused, api.CodeBadRequest, api.CodeTooLarge, api.CodeConflict, api.CodeExpired, api.CodeClockSkew,
		api.CodeNotPermitted, api.CodeOverBudget, api.CodePending, api.CodeOffline, api.CodeStorage, api.CodeInternal, "of a newer version"}
	ends := func(code ...api.Code) map[api.Code]bool {
		m := make(map[api.Code]bool)
		for _, c := range code {
			m[c] = true
		}
		return m
	}
	for name, c := range map[string]struct {
		answer func(e *api.Error) ([]error, error)
		ends   map[api.Code]bool
	}{
		"of the letter": {func(e *api.Error) ([]error, error) { return []error{e}, nil }, ends(codes[:7]...)},
		"of the whole":  {func(e *api.Error) ([]error, error) { return nil, &router.Said{Err: e} }, ends(codes[:3]...)},
		"ours":          {func(e *api.Error) ([]error, error) { return nil, e }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.is(func(m *router.Mail) ([]error, error) {
					return c.answer(api.Errorf(api.Code(m.Letters[0].ID), "why"))
				})
				for _, code := range codes {
					l := lane
					l.To = id(string(code)) // each in a lane of its own
					r.send(l, string(code))
				}
				synctest.Wait()
				for _, code := range codes {
					want := Queued
					if c.ends[code] {
						want = Refused
					}
					if m := r.state(string(code)); m.State != want || m.Code != code || m.Reason != "why" {
						t.Errorf("%s: %v, %s, %q; want %v", code, m.State, m.Code, m.Reason, want)
					}
				}
			})
		})
	}
}

// receiver answers as another node's courier does.
func receiver(t *testing.T) (*Store, func(*router.Mail) ([]error, error)) {
	s, err := Open(t.Context(), memory(t), Options{Limits: bigLimits, Owner: func(identity.ID) (uint32, bool) { return 1, true }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	c := NewCourier(CourierOptions{Store: s, Tell: func(Notice) {}})
	return s, func(m *router.Mail) ([]error, error) { return c.Deliver(context.Background(), m) }
}

// A message made while the sender's clock was a month ahead is refused, and those
// behind it go on.
func TestMessageFromTheFutureBlocksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		_, answer := receiver(t)
		r.is(answer)
		m := lane.message("1", "from the future")
		m.Created = time.Now().Add(30 * day)
		m.Expires = m.Created.Add(DefaultLife)
		if _, err := r.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		r.send(lane, "2", "3")
		r.wantStates("1 refused", "2 delivered", "3 delivered")
		if m := r.state("1"); m.Code != api.CodeClockSkew {
			t.Errorf("%+v", m)
		}
	})
}

// What a receiver says it has is delivered, also behind one that it does not take
// now: it has it from an earlier time.
func TestTakenBehindOneThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.is(refusedAll(api.CodePeerUnreachable))
		r.send(lane, "1", "2", "3", "4")
		r.since()
		r.is(func(m *router.Mail) ([]error, error) {
			out := make([]error, len(m.Letters))
			for i, l := range m.Letters {
				switch l.ID {
				case "1", "3":
					out[i] = api.Errorf(api.CodeOverBudget, "full")
				case "4":
					out[i] = api.Errorf(api.CodeConflict, "another")
				}
			}
			return out, nil
		})
		r.Reachable(lane.To)
		r.wantStates("1 queued", "2 delivered", "3 queued", "4 refused")
		if got := fmt.Sprint(r.told(api.EventMessageDelivered), r.told(api.EventMessageRefused)); got != "[2] [4]" {
			t.Errorf("told of %s", got)
		}
		r.since()
		r.is(taken)
		time.Sleep(time.Hour)
		if a := r.since(); len(a) != 1 || fmt.Sprint(a[0].id) != "[1 3]" {
			t.Errorf("%v", a)
		}
		r.wantStates("1 delivered", "2 delivered", "3 delivered", "4 refused")
	})
}

// What its sender may not send waits, however long, and goes at once when he may
// again, also if that is while it is tried; a message that may not be sent is not
// stored, but one that is stored is answered.
func TestWhatItsSenderMayNotSendWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		blocked := refusedAll(api.CodeNotPermitted)
		r.is(blocked)
		r.send(lane, "1")
		time.Sleep(time.Hour)
		if m := r.state("1"); m.State != Queued || m.Code != api.CodeNotPermitted || m.Tries < 5 {
			t.Fatalf("%+v", m)
		}
		r.s.o.MaySend = func(_, _ identity.ID) error { return api.Errorf(api.CodeNotPermitted, "blocked") }
		if _, err := r.Send(t.Context(), lane.message("2", "two")); api.CodeOf(err) != api.CodeNotPermitted {
			t.Errorf("%v", err)
		}
		r.send(lane, "1")
		r.wantStates("1 queued")
		r.since()
		r.is(func(m *router.Mail) ([]error, error) {
			r.is(taken)
			r.Allowed(lane.From, lane.To) // the answer is of before it
			return blocked(m)
		})
		began := time.Now()
		r.Allowed(lane.From, lane.To)
		if a := r.since(); len(a) != 2 || a[1].at.After(began) {
			t.Errorf("%v after %v", a, began)
		}
		r.wantStates("1 delivered")
		if got := r.told(api.EventMessageRefused); len(got) != 0 {
			t.Errorf("told of %v", got)
		}
	})
}
