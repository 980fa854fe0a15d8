package ipc

import (
	"context"
	"sync"

	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

// turn has the sends of one connection queued in the order of their lines, while
// their commits are waited for together.
type turn struct {
	before <-chan struct{} // closed when the send before has its place; nil if there was none
	placed chan struct{}
	once   sync.Once
}

// turnOf is nil for what is no send. It runs on the reading goroutine.
func (c *conn) turnOf(r *api.Request) *turn {
	if r.Type != api.TypeSend {
		return nil
	}
	t := &turn{before: c.lastSend, placed: make(chan struct{})}
	c.lastSend = t.placed
	return t
}

// wait returns the context of the send once those before it have their places, or
// ctx's error.
func (t *turn) wait(ctx context.Context) (context.Context, error) {
	if t == nil {
		return ctx, nil
	}
	if t.before != nil {
		select {
		case <-t.before:
		case <-ctx.Done():
			return ctx, ctx.Err()
		}
	}
	return router.WithPlaced(ctx, t.place), nil
}

// place lets the next send have its place. t may be nil.
func (t *turn) place() {
	if t != nil {
		t.once.Do(func() { close(t.placed) })
	}
}

// waits tells whether sends before it have no places yet. t may be nil.
func (t *turn) waits() bool {
	if t == nil || t.before == nil {
		return false
	}
	select {
	case <-t.before:
		return false
	default:
		return true
	}
}

// leave is for a send that gave up waiting: it lets none past those before it.
func (t *turn) leave() {
	<-t.before
	t.place()
}
