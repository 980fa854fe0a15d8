package ipc_test

import (
	"context"
	"os"
	"testing"

	"github.com/fastn-stack/fastnd/internal/ipc"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

// A send waits for the places of those before it and for no answer of theirs; one
// that gives up waiting lets none past them.
func TestSendsTakeTheirPlacesInOrder(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{})
	place, answer := make(chan struct{}), make(chan struct{})
	begun := make(chan string, 4)
	b.HandleVerb(api.TypeSend, func(ctx context.Context, _ ipc.Caller, r *api.Request, _ []*os.File) (any, error) {
		begun <- r.ID
		if r.ID == "first" {
			select {
			case <-place:
			case <-ctx.Done():
			}
			placed, _ := router.Placed(ctx)
			placed()
			select {
			case <-answer:
			case <-ctx.Done():
			}
		}
		return nil, nil
	})
	c := dial(t, path)
	c.send(`{"id":"first","type":"send","target":"self","protocol":"Text","data":null}`)
	c.send(`{"id":"hasty","type":"send","target":"self","protocol":"Text","data":null,"timeout_ms":20}`)
	c.send(`{"id":"third","type":"send","target":"self","protocol":"Text","data":null}`)
	c.want(c.answer(), "hasty", "timeout")
	if n := b.InUse(ipc.BudgetRequests); n != 3 {
		t.Errorf("%d requests are counted, want all that keep a place", n)
	}
	c.want(c.ask(`{"id":"call","type":"call","target":"self","protocol":"Echo","data":{"message":"x"}}`), "call", "ok")
	if len(begun) > 1 {
		t.Errorf("%d sends have begun before the first has its place", len(begun))
	}
	close(place)
	c.want(c.answer(), "third", "ok")
	close(answer)
	c.want(c.answer(), "first", "ok")
	if one, two := <-begun, <-begun; one != "first" || two != "third" || len(begun) > 0 {
		t.Errorf("%s, %s", one, two)
	}
}

// A message has data, if only null.
func TestSendNeedsData(t *testing.T) {
	path, _, _ := serve(t, ipc.Options{})
	c := dial(t, path)
	got := c.ask(`{"id":"1","type":"send","target":"self","protocol":"Orders"}`)
	c.want(got, "1", "bad_request")
	if e := got.Err().Error(); e != `"send" needs "data"` {
		t.Error(e)
	}
	c.want(c.ask(`{"id":"2","type":"send","target":"self","protocol":"Orders","data":null}`), "2", "ok")
}
