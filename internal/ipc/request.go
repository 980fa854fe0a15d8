package ipc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

// request answers one line. It runs on the reading goroutine.
func (c *conn) request(line []byte, a attached) {
	defer a.close()
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) == 0 {
		return
	}
	r, id, ok, err := api.ParseRequest(line)
	if err != nil {
		c.fail(id, !ok, api.AsError(err))
		c.refused += len(line)
		return
	}
	t, err := c.check(r, a)
	if err == nil {
		r.Data, c.held, err = c.in.own(r.Data)
	}
	if err != nil {
		c.respond(r, nil, err)
		c.refused += len(line)
		return
	}
	defer c.giveHeld() // what is answered at once
	files := a.files
	a.files = nil // the type's now
	t.serve(c, r, files)
}

// check finds the type of r and refuses what is wrong before anything is done.
func (c *conn) check(r *api.Request, a attached) (requestType, error) {
	t, known := c.s.types[r.Type]
	switch {
	case r.Type != api.TypeReply && c.isDraining():
		return t, errStopping()
	case !known:
		return t, c.s.unknownType(r.Type)
	case t.admin && !c.caller.Admin:
		return t, api.Errorf(api.CodeNotPermitted, "%s is for administrators", r.Type).
			WithHint(`run it as root or as a member of group "fastn-admin"`)
	case a.over:
		return t, api.Errorf(api.CodeBadRequest, "more than %d descriptors came with the request, or than the daemon can take", api.MaxFiles)
	case len(a.files) > 0 && t.files == 0:
		return t, api.Errorf(api.CodeBadRequest, "%s came with %q, which takes none", descriptors(len(a.files)), r.Type)
	case len(a.files) != t.files:
		return t, api.Errorf(api.CodeBadRequest, "%s came with %q, which takes %d", descriptors(len(a.files)), r.Type, t.files)
	case c.inUse(r.ID):
		return t, api.Errorf(api.CodeBadRequest, "a request with this id is in flight on this connection").
			WithHint("use an id again once it is answered")
	}
	return t, t.checkMembers(r)
}

func (c *conn) isDraining() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.draining
}

func (c *conn) serveHello(r *api.Request, _ []*os.File) {
	var args api.HelloArgs
	if err := api.DecodeArgs(r.Data, &args); err != nil {
		c.respond(r, nil, err)
		return
	}
	if args.Version < 0 || args.Version > api.Version {
		c.respond(r, nil, api.Errorf(api.CodeUnsupported, "the client speaks version %d of the control protocol, the daemon version %d", args.Version, api.Version).
			WithHint("install the same version of fastn and fastnd"))
		return
	}
	data, err := marshal(c.s.backend.Hello(c.caller, args))
	c.respond(r, data, err)
}

func (c *conn) serveCall(r *api.Request, _ []*os.File) {
	c.start(r, func(ctx context.Context) (json.RawMessage, error) {
		ctx, cancel := context.WithTimeout(ctx, r.Timeout())
		defer cancel()
		rr, err := c.routerRequest(ctx, r, router.Call)
		if err != nil {
			return nil, err
		}
		return c.s.backend.Route(ctx, rr)
	})
}

// routerRequest resolves who asks and who is asked.
func (c *conn) routerRequest(ctx context.Context, r *api.Request, kind router.Kind) (*router.Request, error) {
	from, err := c.s.backend.Identity(ctx, c.caller, r.From)
	if err != nil {
		return nil, err
	}
	to, err := c.s.backend.Target(ctx, c.caller, from, r.Target)
	if err != nil {
		return nil, err
	}
	return &router.Request{From: from, To: to, Protocol: r.Protocol, Instance: api.Instance(r.Instance), Kind: kind,
		Payload: r.Data, Timeout: r.Timeout(), Trace: strconv.FormatUint(rand.Uint64(), 36)}, nil
}

// own resolves the identity that r speaks for.
func (c *conn) own(ctx context.Context, r *api.Request) (identity.ID, error) {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout())
	defer cancel()
	return c.s.backend.Identity(ctx, c.caller, r.From)
}

func (c *conn) serveVerb(r *api.Request, files []*os.File) {
	release, ok := c.begin(r)
	if !ok {
		for _, f := range files {
			f.Close()
		}
		return
	}
	if r.Type == api.VerbDaemonDisconnect {
		c.mu.Lock()
		c.dismissing++
		c.mu.Unlock()
	}
	turn := c.turnOf(r)
	c.aside(func() {
		ctx, cancel := context.WithTimeout(c.ctx, r.Timeout())
		defer cancel()
		ctx, err := turn.wait(ctx)
		var v any
		if err == nil {
			v, err = c.verb(ctx, r, files)
		}
		var data json.RawMessage
		if err == nil {
			data, err = marshal(v)
		}
		if turn.waits() { // it gave up, and is counted for as long as it keeps its place
			c.finishFlight(r, data, err, func() {})
			turn.leave()
			release()
			return
		}
		turn.place()
		c.finishFlight(r, data, err, release)
		if r.Type == api.VerbDaemonDisconnect {
			c.afterDismissing()
		}
	})
}

// verb has a verb done. One that only waits ends as soon as the server stops.
func (c *conn) verb(ctx context.Context, r *api.Request, files []*os.File) (any, error) {
	if !onlyWaits(r) {
		return c.s.backend.Verb(ctx, c.caller, r, files)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.s.stopping, func() { cancel(errStopping()) })()
	v, err := c.s.backend.Verb(ctx, c.caller, r, files)
	if why, ok := errors.AsType[*api.Error](context.Cause(ctx)); ok && why.Code == api.CodeUnavailable {
		return nil, why
	}
	return v, err
}

// onlyWaits tells a request that changes nothing and waits for others to act, maybe
// for an hour: who sent it asks again.
func onlyWaits(r *api.Request) bool {
	switch r.Type {
	case api.VerbOutboxWait:
		return true
	case api.VerbInboxList:
		var args api.InboxListArgs
		return api.DecodeArgs(r.Data, &args) == nil && args.Wait
	}
	return false
}

// afterDismissing cuts a connection that was to be cut before it had its answer.
func (c *conn) afterDismissing() {
	c.mu.Lock()
	c.dismissing--
	why := c.dismissed
	over := c.dismissing == 0 && why != nil
	c.mu.Unlock()
	if !over {
		return
	}
	// What fails here fails because the client does not read, or is gone.
	_ = c.uc.SetWriteDeadline(time.Now().Add(c.s.o.WriteTimeout))
	_ = c.out.idle()
	c.cut(why)
}

// marshal makes the data of an answer; nil becomes {}.
func marshal(v any) (json.RawMessage, error) {
	if v == nil {
		return json.RawMessage("{}"), nil
	}
	return api.Marshal(v)
}

func descriptors(n int) string {
	if n == 1 {
		return "1 descriptor"
	}
	return strconv.Itoa(n) + " descriptors"
}
