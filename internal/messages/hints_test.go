package messages

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

// A contact that says "I take it now" and then "pending", over and over, does not
// choose how often it is sent everything.
func TestHintsHaveARate(t *testing.T) {
	for name, hint := range map[string]struct {
		duringTry bool
		code      api.Code
	}{
		"while it is tried":              {true, api.CodePending},
		"while it is tried, and offline": {true, api.CodeOffline},
		"while it waits":                 {false, api.CodePending},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				available := func() { r.Available(lane.To, lane.From, lane.Protocol, "") }
				r.is(func(m *router.Mail) ([]error, error) {
					if hint.duringTry {
						available()
					}
					return nil, api.Errorf(hint.code, "not served")
				})
				r.send(lane, "1")
				for range 10 {
					available()
					synctest.Wait()
				}
				if a := r.since(); len(a) != 2 { // its own, and for the first hint
					t.Errorf("%d tries in no time", len(a))
				}
				for range 600 {
					available()
					time.Sleep(100 * time.Millisecond)
				}
				var pauses []time.Duration
				last := time.Time{}
				for _, a := range r.since() {
					pauses = append(pauses, a.at.Sub(last).Truncate(time.Second))
					last = a.at
				}
				if len(pauses) < 4 || len(pauses) > 7 && hint.code == api.CodePending {
					t.Errorf("%d tries in a minute: %v", len(pauses), pauses[1:])
				}
				for i, p := range pauses[1:] {
					if want := 2 * time.Second << i; p != want && hint.code == api.CodePending {
						t.Errorf("pause %d is %v, want %v", i, p, want)
					}
				}
			})
		})
	}
}

// Once the receiver took something, its word counts again.
func TestHintIsFollowedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		available := func() { r.Available(lane.To, lane.From, lane.Protocol, "") }
		r.is(refusedAll(api.CodePending))
		for i := range maxLetters + 1 {
			r.send(lane, number(i))
		}
		for range 1000 {
			available()
			time.Sleep(time.Second)
		}
		r.since()
		r.is(func(m *router.Mail) ([]error, error) {
			if len(m.Letters) == maxLetters {
				return taken(m)
			}
			return nil, api.Errorf(api.CodePending, "no more")
		})
		time.Sleep(hintPauseMost)
		if a := r.since(); len(a) != 2 {
			t.Fatalf("%d batches", len(a))
		}
		r.is(taken)
		available()
		if a := r.since(); len(a) != 1 {
			t.Errorf("%d tries at its word", len(a))
		}
	})
}
