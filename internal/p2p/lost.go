package p2p

import (
	"context"
	"errors"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/quic-go/quic-go"

	"github.com/fastn-stack/fastnd/service/api"
)

// lostError is of a request that was sent over a connection that broke.
func (c *connState) lostError() *api.Error {
	what := "the connection to the peer broke after the request was sent"
	if why := c.whyLost(); why != "" {
		what += " (" + why + ")"
	}
	return api.Errorf(api.CodeOutcomeUnknown, "%s; whether the peer acted on it is not known", what).
		WithHint("find out before you repeat what must not happen twice")
}

// whyLost tells why the connection was closed, "" if that is not known or it is
// open.
func (c *connState) whyLost() string {
	if why := c.why.Load(); why != nil {
		return *why
	}
	var q *quic.Conn
	if !c.conn.As(&q) {
		return ""
	}
	cause := context.Cause(q.Context())
	var reset *quic.StatelessResetError
	var idle *quic.IdleTimeoutError
	var app *quic.ApplicationError
	switch {
	case errors.As(cause, &reset):
		return "the node there was started anew"
	case errors.As(cause, &idle):
		return "nothing came from it for " + c.table.h.o.Timing.Idle.String()
	case errors.As(cause, &app) && app.Remote:
		return "the peer closed it"
	}
	return ""
}

// streamError is streamError with the reason why the connection was lost.
func (c *connState) streamError(err error) error {
	var se *network.StreamError
	if err == nil || streamEnded(err) || errors.As(err, &se) {
		return streamError(err)
	}
	if why := c.whyLost(); why != "" {
		return api.Errorf(api.CodeAborted, "the stream broke: %s", why)
	}
	return streamError(err)
}
