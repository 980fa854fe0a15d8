package ipc

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"

	"github.com/fastn-stack/fastnd/service/api"
)

// subscription tells events to one connection, from a goroutine of its own. It
// asks for the next ones only when the last are queued, so a client that is slow
// costs no memory and finds a gap.
type subscription struct{ cancel context.CancelFunc }

func (s *subscription) end()   { s.cancel() }
func (s *subscription) drain() { s.cancel() }

func (c *conn) serveSubscribe(r *api.Request, _ []*os.File) {
	args, err := subscribeArgs(r.Data)
	if err != nil {
		c.respond(r, nil, err)
		return
	}
	release, ok := c.begin(r)
	if !ok {
		return
	}
	c.wg.Go(func() {
		ctx, cancel := context.WithCancel(c.ctx)
		defer cancel()
		if !c.lengthen(r.ID, &subscription{cancel}) {
			c.finishFlight(r, nil, errStopping(), release)
			return
		}
		c.tellEvents(ctx, r, args)
		c.forget(r.ID)
		release()
	})
}

// subscribeArgs refuses kinds that do not exist: who asked for one would wait for
// ever.
func subscribeArgs(data json.RawMessage) (args api.SubscribeArgs, err error) {
	if err := api.DecodeArgs(data, &args); err != nil {
		return args, err
	}
	if args.Cursor != nil && *args.Cursor >= api.CursorLimit {
		return args, api.Errorf(api.CodeBadRequest, `"data": "cursor" must be below 2^53, as each that was told`)
	}
	kinds := api.EventKinds()
	for _, k := range args.Kinds {
		if slices.Contains(kinds, k) {
			continue
		}
		e := api.Errorf(api.CodeBadRequest, `"data": there is no kind of event %q`, api.Shorten(k))
		if near := api.Nearest(k, kinds); near != "" {
			return args, e.WithHint("did you mean %q?", near)
		}
		return args, e.WithHint("the kinds are %s", strings.Join(kinds, ", "))
	}
	return args, nil
}

// tellEvents answers a subscription and tells its events until ctx ends or the
// connection does.
func (c *conn) tellEvents(ctx context.Context, r *api.Request, args api.SubscribeArgs) {
	cursor := c.s.backend.EventCursor()
	if args.Cursor != nil {
		cursor = *args.Cursor
	}
	data, err := marshal(api.Subscribed{Cursor: cursor})
	mustFlush := c.queue(r, data, err)
	c.answered()
	if mustFlush {
		c.out.flush()
	}
	for {
		events, next, err := c.s.backend.NextEvents(ctx, c.caller, args.Kinds, cursor)
		if err != nil {
			return
		}
		cursor = next
		for _, e := range events {
			line, err := marshal(e)
			if err != nil {
				c.s.log.Error("an event cannot be told", "kind", e.Kind, "error", err)
				continue
			}
			mustFlush, err := c.out.line(patient, r.ID, api.StatusEvent, line)
			if err != nil {
				return
			}
			if mustFlush { // before the next: whoever is to flush must not wait for room
				c.out.flush()
			}
		}
	}
}
