package messages

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/fastn-stack/fastnd/internal/router"
)

func ordersOf(sender string) Lane {
	l := orders
	l.From = id(sender)
	return l
}

// numbered gives the ids of n messages.
func numbered(n int) (ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprintf("%03d", i))
	}
	return ids
}

// A message that the program has for long holds up those of its sender alone.
func TestSlowMessageHoldsUpItsSenderAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, p := newRig(t), &program{}
		release := make(chan struct{})
		p.does(func(_ context.Context, q *router.Request) error {
			if q.From == id("a") && q.MessageID == "1" {
				<-release
			}
			return nil
		})
		defer r.attend(p)()
		r.arrive(ordersOf("a"), "1", "2")
		r.arrive(ordersOf("c"), "1", "2")
		if got := p.told(); got != "a1 c1 c2" {
			t.Errorf("while one takes long: %q", got)
		}
		r.arrive(ordersOf("d"), "1")
		if got := p.told(); got != "d1" {
			t.Errorf("what comes meanwhile: %q", got)
		}
		close(release)
		if got := p.told(); got != "a2" {
			t.Errorf("afterwards: %q", got)
		}
		if p.most != 1 {
			t.Errorf("it had %d of one sender at once", p.most)
		}
	})
}

// A program has no more than some messages that it did not answer, whoever sent them.
func TestProgramHasSoManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, p := newRig(t), &program{}
		go1 := make(chan struct{})
		p.does(func(context.Context, *router.Request) error { <-go1; return nil })
		defer r.attend(p)()
		const senders = mailmanHands + 5
		for i := range senders {
			r.arrive(ordersOf(string(rune('A'+i))), "1", "2")
		}
		for told, want := 0, mailmanHands; told < 2*senders; want = 1 {
			n := len(strings.Fields(p.told()))
			if n != min(want, 2*senders-told) && n != 0 {
				t.Fatalf("told %d at once, behind %d", n, told)
			}
			told += n
			go1 <- struct{}{}
		}
		close(go1)
		synctest.Wait()
		if got := r.kept(orders.To); len(got) != 0 {
			t.Errorf("kept: %v", got)
		}
	})
}

// More than is kept in memory is told all the same, in order and once, beside a
// message that is not answered. What its owner removes is not told.
func TestMoreMailThanRoom(t *testing.T) {
	for name, size := range map[string]int{"many": 1, "large": mailmanAheadBytes / 8} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, p := newRig(t), &program{}
				release := make(chan struct{})
				p.does(func(_ context.Context, q *router.Request) error {
					if q.From == id("a") && q.MessageID == "000" {
						<-release
					}
					return nil
				})
				senders, each := []string{"a", "c", "d"}, mailmanAhead+20
				if size > 1 {
					each = 12
				}
				fat := strings.Repeat("x", size)
				for _, s := range senders {
					m := mailOf(ordersOf(s), numbered(each)...)
					for i := range m.Letters {
						m.Letters[i].Data = text(fat)
					}
					for _, err := range errsOf(r.Deliver(t.Context(), m)) {
						if err != nil {
							t.Fatal(err)
						}
					}
				}
				defer r.attend(p)()
				if got, want := p.told(), told("a", "000")+" "+told("c", numbered(each)...)+" "+told("d", numbered(each)...); got != want {
					t.Errorf("while one takes long: %.200s…, want %.200s…", got, want)
				}
				in, err := r.s.ListIn(t.Context(), orders.To, Page{Limit: 10_000}, false)
				if err != nil || len(in) != each {
					t.Fatalf("%d are kept, %v", len(in), err)
				}
				last := in[each-1]
				if err := r.s.Remove(t.Context(), orders.To, last.Seq); err != nil {
					t.Fatal(err)
				}
				close(release)
				if got, want := p.told(), told("a", numbered(each - 1)[1:]...); got != want {
					t.Errorf("afterwards: %.200s…, want %.200s…", got, want)
				}
			})
		})
	}
}

func told(sender string, ids ...string) string {
	list := slices.Clone(ids)
	for i := range list {
		list[i] = sender + list[i]
	}
	return strings.Join(list, " ")
}

// What is read ahead is bounded, however many wait.
func TestReadAheadIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		synctest.Wait()
		for _, s := range []string{"a", "c", "d"} {
			r.arrive(ordersOf(s), numbered(mailmanAhead)...)
		}
		w := newRound(r.Courier, &mailman{service: service{orders.To, orders.Protocol, orders.Instance}})
		for !w.all {
			if err := w.look(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		n := 0
		for _, b := range w.of {
			n += len(b.next)
		}
		if n != mailmanAhead || n != w.ahead {
			t.Errorf("%d are in memory, counted are %d", n, w.ahead)
		}
	})
}

// A newcomer need not wait until those have nothing left who keep all hands busy.
func TestNewcomerHasItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, p := newRig(t), &program{}
		step := make(chan struct{})
		p.does(func(context.Context, *router.Request) error { <-step; return nil })
		for i := range 2 * mailmanHands {
			r.arrive(ordersOf(string(rune('A'+i))), numbered(8)...)
		}
		defer r.attend(p)()
		p.told()
		r.arrive(ordersOf("z"), "new")
		heard := 0
		for ; !strings.Contains(p.told(), "znew"); heard++ {
			step <- struct{}{}
		}
		if heard > 4*mailmanHands {
			t.Errorf("it was told behind %d others", heard)
		}
		close(step)
		synctest.Wait()
	})
}

// What finds no room is where the next look begins.
func TestSift(t *testing.T) {
	page := []Incoming{{Message: Message{Seq: 3, From: id("a")}}, {Message: Message{Seq: 4, From: id("c")}},
		{Message: Message{Seq: 5, From: id("a")}}, {Message: Message{Seq: 6, From: id("a")}}, {Message: Message{Seq: 9, From: id("a")}}}
	for _, c := range []struct {
		room, seen  int
		rest, taken int64
	}{
		{10, 20, 9, 4}, {10, 9, nothing, 4}, {10, 8, nothing, 3}, {2, 20, 5, 2}, {1, 20, 4, 1}, {0, 20, 3, 1},
	} {
		w := newRound(nil, nil)
		w.seen, w.ahead = int64(c.seen), mailmanAhead-c.room
		b := &bundle{from: id("a"), rest: 2}
		if rest := w.sift(b, page); rest != c.rest || int64(len(b.next)) != c.taken {
			t.Errorf("%+v: rest %d, taken %d", c, rest, len(b.next))
		}
	}
	w := newRound(nil, nil)
	if rest := w.sift(&bundle{}, nil); rest != nothing {
		t.Errorf("of an empty page: %d", rest)
	}
}
