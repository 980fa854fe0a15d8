package messages

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

// rig is a Courier whose peers are what a test says, in a time that stands still
// while anything is done. It is for the inside of a synctest.Test.
type rig struct {
	*Courier
	t *testing.T

	mu       sync.Mutex
	answer   func(m *router.Mail) ([]error, error)
	near     bool
	takes    bool
	attempts []attempt
	notices  []Notice
	hinted   []identity.ID
	stop     func()
}

// attempt is one delivery.
type attempt struct {
	at time.Time
	to identity.ID
	id []string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	return newRigAt(t, memory(t))
}

func newRigAt(t *testing.T, dir string) *rig {
	t.Helper()
	r := newRigStopped(t, dir)
	r.run()
	<-r.loaded // what is sent before is looked for again
	return r
}

// newRigStopped is a rig that does nothing before its run.
func newRigStopped(t *testing.T, dir string) *rig {
	t.Helper()
	r := &rig{t: t, answer: taken}
	s, err := Open(t.Context(), dir, Options{
		Now: time.Now, Limits: bigLimits,
		Owner:    func(id identity.ID) (uint32, bool) { return uint32(id[0]), true },
		UserName: func(uid uint32) string { return fmt.Sprint(uid) },
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Courier = NewCourier(CourierOptions{Store: s, Deliver: r.deliver, Near: func(_, _ identity.ID) bool { return r.get(&r.near) },
		Takes: func(_, _ identity.ID, _, _ string) bool { return r.get(&r.takes) },
		Announce: func(_ context.Context, _, to identity.ID, _, _ string) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.hinted = append(r.hinted, to)
			return nil
		},
		Tell: func(n Notice) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.notices = append(r.notices, n)
		},
	})
	return r
}

// run has the courier work until stop.
func (r *rig) run() {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	synctest.Wait() // it has read what the disk has
	r.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		if err := r.s.Close(); err != nil {
			r.t.Error(err)
		}
	})
	r.t.Cleanup(r.stop)
	synctest.Wait() // the disk was read
}

func (r *rig) get(at *bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return *at
}

func (r *rig) set(do func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	do()
}

func (r *rig) deliver(_ context.Context, m *router.Mail) ([]error, error) {
	a := attempt{at: time.Now(), to: m.To}
	for _, l := range m.Letters {
		a.id = append(a.id, l.ID)
	}
	r.mu.Lock()
	answer := r.answer
	r.attempts = append(r.attempts, a)
	r.mu.Unlock()
	return answer(m)
}

// taken answers as a receiver that has all of it.
func taken(m *router.Mail) ([]error, error) { return make([]error, len(m.Letters)), nil }

// refusedAll answers that nothing of it was taken.
func refusedAll(code api.Code) func(*router.Mail) ([]error, error) {
	return func(*router.Mail) ([]error, error) { return nil, api.Errorf(code, "not now") }
}

// is makes e the answer from now on.
func (r *rig) is(answer func(*router.Mail) ([]error, error)) { r.set(func() { r.answer = answer }) }

func (r *rig) send(l Lane, ids ...string) {
	r.t.Helper()
	for _, id := range ids {
		if _, err := r.Send(r.t.Context(), l.message(id, "text of "+id)); err != nil {
			r.t.Fatal(err)
		}
	}
}

// since gives the attempts since the last call, once nothing moves.
func (r *rig) since() []attempt {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.attempts
	r.attempts = nil
	return a
}

func (r *rig) state(id string) Outgoing {
	r.t.Helper()
	recorded()
	out, err := r.s.Outgoing(r.t.Context(), lane.From, id)
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

func (r *rig) wantStates(want ...string) {
	r.t.Helper()
	recorded()
	list, err := r.s.ListOut(r.t.Context(), lane.From, Page{}, true)
	if err != nil {
		r.t.Fatal(err)
	}
	var got []string
	for _, m := range list {
		got = append(got, m.ID+" "+m.State.String())
	}
	if !slices.Equal(got, want) {
		r.t.Errorf("%q, want %q", got, want)
	}
}

// told lists the notices of a kind, by message.
func (r *rig) told(kind string) (ids []string) {
	recorded()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.notices {
		if n.Kind == kind {
			ids = append(ids, n.ID)
		}
	}
	return ids
}

func number(i int) string { return fmt.Sprintf("%04d", i) }

// recorded returns when what was answered is on the disk as well.
func recorded() {
	synctest.Wait()
	time.Sleep(recordAfter)
	synctest.Wait()
}
