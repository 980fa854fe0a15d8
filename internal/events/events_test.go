package events

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

func TestOnlyOwnEvents(t *testing.T) {
	h := New(time.Now)
	start := h.Cursor()
	h.Publish(api.Event{Kind: "a"}, 1)
	h.Publish(api.Event{Kind: "b"}, 2)
	h.Publish(api.Event{Kind: "c"})
	got, _, err := h.Next(t.Context(), 1, nil, start)
	if err != nil || len(got) != 2 || got[0].Kind != "a" || got[1].Kind != "c" {
		t.Fatalf("uid 1 saw %+v, %v; want a and c", got, err)
	}
	got, _, err = h.Next(t.Context(), 2, []string{"b"}, start)
	if err != nil || len(got) != 1 || got[0].Kind != "b" {
		t.Fatalf("uid 2 saw %+v, %v; want b", got, err)
	}
}

func TestCursorResumes(t *testing.T) {
	h := New(time.Now)
	h.Publish(api.Event{Kind: "old"})
	cursor := h.Cursor()
	h.Publish(api.Event{Kind: "new"})
	got, next, err := h.Next(t.Context(), 1, nil, cursor)
	if err != nil || len(got) != 1 || got[0].Kind != "new" || got[0].Gap {
		t.Fatalf("got %+v, %v; want only new, without a gap", got, err)
	}
	if next != h.Cursor() {
		t.Fatalf("next cursor %d, want %d", next, h.Cursor())
	}
}

func TestGapIsTold(t *testing.T) {
	h := New(time.Now)
	start := h.Cursor()
	for range kept + 10 {
		h.Publish(api.Event{Kind: "x"}, 1)
	}
	got, _, err := h.Next(t.Context(), 1, nil, start)
	if err != nil || !got[0].Gap {
		t.Fatalf("no gap told after %d events, %v", kept+10, err)
	}
}

func TestUsersDoNotPushOutEachOther(t *testing.T) {
	h := New(time.Now)
	start := h.Cursor()
	h.Publish(api.Event{Kind: "mine"}, 1)
	for range 10 * kept {
		h.Publish(api.Event{Kind: "theirs"}, 2)
	}
	got, _, err := h.Next(t.Context(), 1, nil, start)
	if err != nil || len(got) != 1 || got[0].Kind != "mine" || got[0].Gap {
		t.Fatalf("uid 1 saw %+v, %v; want its own event, without a gap", got, err)
	}
}

// TestGapAlone: a loss is told at once, though nothing is left to tell.
func TestGapAlone(t *testing.T) {
	h := New(time.Now)
	for name, cursor := range map[string]uint64{"of an earlier daemon": h.Cursor() - 1, "from the future": h.Cursor() + 3600e6} {
		got, next, err := h.Next(t.Context(), 1, []string{"some"}, cursor)
		if err != nil || len(got) != 1 || !got[0].Gap || got[0].Kind != api.EventGap || next != h.Cursor() {
			t.Errorf("%s: %+v, %d, %v", name, got, next, err)
		}
	}
	h.Publish(api.Event{Kind: "some"}, 1)
	got, _, err := h.Next(t.Context(), 1, nil, h.Cursor()+3600e6)
	if err != nil || len(got) != 1 || got[0].Kind != "some" || !got[0].Gap {
		t.Errorf("a cursor from the future hides %+v, %v", got, err)
	}
}

func TestEverybodysEventsKeepTheirOrder(t *testing.T) {
	h := New(time.Now)
	start := h.Cursor()
	for i, uids := range [][]uint32{{1}, {}, {1, 2}, {}} {
		h.Publish(api.Event{Kind: string(rune('a' + i))}, uids...)
	}
	got, _, err := h.Next(t.Context(), 1, nil, start)
	if err != nil || len(got) != 4 {
		t.Fatalf("%+v, %v", got, err)
	}
	for i, e := range got {
		if e.Kind != string(rune('a'+i)) {
			t.Errorf("event %d is %s", i, e.Kind)
		}
	}
}

func TestNextWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(time.Now)
		done := make(chan api.Event, 1)
		go func() {
			got, _, err := h.Next(context.Background(), 7, nil, h.Cursor())
			if err == nil {
				done <- got[0]
			}
		}()
		synctest.Wait()
		h.Publish(api.Event{Kind: "theirs"}, 8)
		synctest.Wait()
		select {
		case e := <-done:
			t.Fatalf("told %+v, which is another user's", e)
		default:
		}
		h.Publish(api.Event{Kind: "mine"}, 7)
		if e := <-done; e.Kind != "mine" {
			t.Fatalf("got %+v", e)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, _, err := h.Next(ctx, 7, nil, h.Cursor()); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("error %v, want the deadline's", err)
		}
	})
}
