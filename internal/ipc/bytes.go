package ipc

import (
	"fmt"

	"github.com/fastn-stack/fastnd/service/api"
)

// byteHolder counts, for the uid of a connection, what is held of long lines, of
// requests in flight and of unread answers. What fits in a connection's idle
// buffers counts for nothing: their number bounds it.
type byteHolder interface {
	// takeBytes counts n bytes, all or none; the error is for the client.
	takeBytes(n int) error
	giveBytes(n int)
}

func (c *conn) takeBytes(n int) error { return c.s.backend.TakeBytes(c.caller, n) }

func (c *conn) giveBytes(n int) {
	if n != 0 {
		c.s.backend.GiveBytes(c.caller, n)
	}
}

// giveHeld gives back what the request counted that nobody has taken.
func (c *conn) giveHeld() {
	c.giveBytes(c.held)
	c.held = 0
}

// nothingDone is the error of a line that there was no room for.
func nothingDone(why error) *api.Error {
	e := api.AsError(why)
	return &api.Error{Code: e.Code, Message: e.Message + "; nothing was done", Hint: e.Hint, Peer: e.Peer}
}

// answerDropped is the error of a request whose answer of n bytes has no room.
func answerDropped(why *api.Error, n int) *api.Error {
	return &api.Error{Code: why.Code, Message: fmt.Sprintf("%s; the request was done, but there is no room for its answer of %d bytes", why.Message, n), Hint: why.Hint}
}
