package messages

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

// orders is a lane for a program.
var orders = Lane{From: id("a"), To: id("b"), Protocol: "Orders", Instance: "default"}

func mailOf(l Lane, ids ...string) *router.Mail {
	m := &router.Mail{From: l.From, To: l.To, Protocol: l.Protocol, Instance: l.Instance}
	for _, id := range ids {
		m.Letters = append(m.Letters, router.Letter{ID: id, Created: time.Now(), Data: text("text of " + id)})
	}
	return m
}

// arrive has mail come in, which must be taken.
func (r *rig) arrive(l Lane, ids ...string) {
	r.t.Helper()
	for _, err := range errsOf(r.Deliver(r.t.Context(), mailOf(l, ids...))) {
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

func errsOf(each []error, err error) []error { return append(each, err) }

// program listens for messages; do answers each.
type program struct {
	mu    sync.Mutex
	do    func(ctx context.Context, r *router.Request) error
	heard []string
	now   map[identity.ID]int
	most  int // at once, of one sender
}

func (p *program) Serve(ctx context.Context, r *router.Request) (json.RawMessage, error) {
	p.mu.Lock()
	p.heard = append(p.heard, string(r.From[:1])+r.MessageID)
	if p.now == nil {
		p.now = make(map[identity.ID]int)
	}
	p.now[r.From]++
	p.most = max(p.most, p.now[r.From])
	do := p.do
	p.mu.Unlock()
	var err error
	if do != nil {
		err = do(ctx, r)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now[r.From]--; p.now[r.From] == 0 {
		delete(p.now, r.From)
	}
	return nil, err
}

// told gives what it heard since the last call, by sender, once nothing moves.
func (p *program) told() string {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	heard := p.heard
	p.heard = nil
	slices.SortStableFunc(heard, func(a, b string) int { return int(a[0]) - int(b[0]) })
	return strings.Join(heard, " ")
}

func (p *program) does(do func(ctx context.Context, r *router.Request) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.do = do
}

func (r *rig) attend(p *program) (leave func()) {
	return r.Attend(orders.To, orders.Protocol, orders.Instance, p)
}

func (r *rig) kept(owner identity.ID) (list []string) {
	r.t.Helper()
	synctest.Wait()
	in, err := r.s.ListIn(r.t.Context(), owner, Page{}, false)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, m := range in {
		list = append(list, string(m.From[:1])+m.ID)
	}
	return list
}

// A program is told of what waited and of what comes, in order, one of a sender at a
// time, and of nothing that it took.
func TestProgramIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.arrive(orders, "1", "2")
		p := &program{}
		leave := r.attend(p)
		if got := p.told(); got != "a1 a2" {
			t.Errorf("of what waited: %q", got)
		}
		other := orders
		other.From = id("c")
		r.arrive(orders, "3", "4")
		r.arrive(other, "1")
		if got := p.told(); got != "a3 a4 c1" || p.most != 1 {
			t.Errorf("of what came: %q, %d at once", got, p.most)
		}
		r.arrive(orders, "3") // sent again
		r.arrive(Lane{orders.From, orders.To, "Other", "default"}, "9")
		r.arrive(Lane{orders.From, orders.To, "Orders", "second"}, "8")
		leave()
		r.arrive(orders, "5")
		if got := p.told(); got != "" {
			t.Errorf("it is told of %q", got)
		}
		if got := r.kept(orders.To); !slices.Equal(got, []string{"a9", "a8", "a5"}) {
			t.Errorf("kept: %v", got)
		}
		if told := r.told(api.EventMessageReceived); !slices.Equal(told, []string{"", "9", "8", "5"}) {
			t.Errorf("its user is told of %q", told)
		}
	})
}

// A message that the program would not have is told again, later and later; those
// of others go on, those behind it wait.
func TestProgramIsToldAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		p := &program{}
		p.does(func(_ context.Context, q *router.Request) error {
			if q.From == orders.From && q.MessageID == "1" {
				return errors.New("not now")
			}
			return nil
		})
		defer r.attend(p)()
		other := orders
		other.From = id("c")
		r.arrive(orders, "1", "2")
		r.arrive(other, "1", "2")
		if got := p.told(); got != "a1 c1 c2" {
			t.Errorf("at first: %q", got)
		}
		want := againMin
		for range 12 {
			time.Sleep(want - time.Nanosecond)
			if got := p.told(); got != "" {
				t.Fatalf("sooner than after %v: %q", want, got)
			}
			time.Sleep(time.Nanosecond)
			if got := p.told(); got != "a1" {
				t.Fatalf("after %v: %q", want, got)
			}
			want = min(2*want, againMax)
		}
		r.arrive(orders, "3") // no reason to try again
		if got := p.told(); got != "" {
			t.Errorf("at a new message: %q", got)
		}
		p.does(nil)
		time.Sleep(againMax)
		if got := p.told(); got != "a1 a2 a3" {
			t.Errorf("once it takes them: %q", got)
		}
	})
}

// A message whose pause ends while others are told is not overtaken by those behind it.
func TestProgramIsToldInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		p := &program{}
		p.does(func(_ context.Context, q *router.Request) error {
			if q.MessageID == "slow" {
				time.Sleep(2 * againMin)
				p.does(nil)
				return nil
			}
			return errors.New("not now")
		})
		other := orders
		other.From = id("c")
		r.arrive(orders, "1")
		r.arrive(other, "slow")
		r.arrive(orders, "2")
		defer r.attend(p)()
		time.Sleep(time.Minute)
		if got := p.told(); got != "a1 a1 a1 a2 cslow" {
			t.Errorf("%q", got)
		}
	})
}

// The next program is told of what the one before did not acknowledge.
func TestNextProgramIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		first, second := &program{}, &program{}
		first.does(func(ctx context.Context, q *router.Request) error {
			if q.MessageID == "1" {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		})
		leave := r.attend(first)
		r.arrive(orders, "1", "2", "3")
		if got := first.told(); got != "a1 a2" {
			t.Errorf("the first: %q", got)
		}
		leave()
		leave() // again, for nothing
		if synctest.Wait(); len(first.now) != 0 {
			t.Error("who left is not told that nothing is wanted of it any more")
		}
		defer r.attend(second)()
		if got := second.told(); got != "a2 a3" {
			t.Errorf("the second: %q", got)
		}
		if got := r.kept(orders.To); len(got) != 0 {
			t.Errorf("kept: %v", got)
		}
	})
}

// A program that is told when the courier ends hears of it from the next courier,
// with the same id; what it took just then it does not.
func TestProgramOverRestart(t *testing.T) {
	for _, takes := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			dir := memory(t)
			r := newRigAt(t, dir)
			p := &program{}
			p.does(func(ctx context.Context, _ *router.Request) error {
				<-ctx.Done()
				if takes {
					return nil
				}
				return ctx.Err()
			})
			r.attend(p)
			r.arrive(orders, "1", "2")
			if got := p.told(); got != "a1" {
				t.Errorf("before: %q", got)
			}
			r.stop()
			next, again := newRigAt(t, dir), &program{}
			defer next.attend(again)()
			want := "a1 a2"
			if takes {
				want = "a2"
			}
			if got := again.told(); got != want {
				t.Errorf("taken %v: after it %q, want %q", takes, got, want)
			}
		})
	}
}

// A message whose answer is lost is sent again, and is there once.
func TestLostReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, peer := newRig(t), newRig(t)
		p := &program{}
		defer peer.attend(p)()
		r.is(func(m *router.Mail) ([]error, error) {
			if _, err := peer.Deliver(t.Context(), m); err != nil {
				return nil, err
			}
			return nil, api.Errorf(api.CodeOutcomeUnknown, "the connection broke")
		})
		r.send(lane, "1", "2")
		r.send(orders, "3")
		synctest.Wait()
		if m := r.state("1"); m.State != Queued || m.Code != api.CodeOutcomeUnknown {
			t.Errorf("%+v", m)
		}
		r.is(func(m *router.Mail) ([]error, error) { return peer.Deliver(t.Context(), m) })
		r.Reachable(lane.To)
		r.wantStates("1 delivered", "2 delivered", "3 delivered")
		if got := peer.kept(lane.To); !slices.Equal(got, []string{"a1", "a2"}) {
			t.Errorf("the inbox: %v", got)
		}
		if got := p.told(); got != "a3" {
			t.Errorf("the program: %q", got)
		}
	})
}

// To oneself and to others of this machine a message takes the same way.
func TestMessageToSelf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.is(func(m *router.Mail) ([]error, error) { return r.Deliver(t.Context(), m) })
		self := Lane{lane.From, lane.From, "Text", "default"}
		news := r.Arrivals(lane.From)
		r.send(self, "1")
		<-news
		r.wantStates("1 delivered")
		if got := r.kept(lane.From); !slices.Equal(got, []string{"a1"}) {
			t.Errorf("%v", got)
		}
		if told := r.told(api.EventMessageReceived); !slices.Equal(told, []string{"1"}) {
			t.Errorf("told of %q", told)
		}
		r.send(Lane{lane.From, lane.To, "Text", "default"}, "2")
		if got := r.kept(lane.To); !slices.Equal(got, []string{"a2"}) {
			t.Errorf("another's inbox: %v", got)
		}
	})
}

// An identity that is removed while its mail is on its way leaves nothing behind.
func TestRemovedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		release := make(chan struct{})
		r.is(func(m *router.Mail) ([]error, error) {
			<-release
			return []error{nil, api.Errorf(api.CodeOverBudget, "full")}, nil
		})
		r.send(lane, "1", "2")
		synctest.Wait()
		if err := r.Courier.Forget(t.Context(), lane.From); err != nil {
			t.Fatal(err)
		}
		close(release)
		r.is(taken)
		time.Sleep(time.Hour)
		r.wantStates()
		if a := r.since(); len(a) != 1 || len(r.lanes.all) != 0 {
			t.Errorf("%v; %d lanes are left", a, len(r.lanes.all))
		}
	})
}

func TestWantsAreToldOnceByTheCourier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		for range 5 {
			if _, err := r.Wanted(t.Context(), mailOf(orders, "1")); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Hour)
		}
		other := orders
		other.From = id("c")
		if _, err := r.Wanted(t.Context(), mailOf(other, "1")); err != nil {
			t.Error(err)
		}
		if told := r.told(api.EventProtocolWanted); len(told) != 2 {
			t.Errorf("told %d times of two", len(told))
		}
		if got := r.kept(orders.To); len(got) != 0 {
			t.Errorf("stored: %v", got)
		}
		// Served and granted: both are told to send it, once.
		r.set(func() { r.takes = true })
		r.Recheck(t.Context(), orders.To)
		synctest.Wait()
		r.Recheck(t.Context(), orders.To)
		synctest.Wait()
		slices.SortFunc(r.hinted, func(a, b identity.ID) int { return strings.Compare(a.String(), b.String()) })
		if !slices.Equal(r.hinted, []identity.ID{orders.From, other.From}) {
			t.Errorf("told to send it: %v", r.hinted)
		}
	})
}
