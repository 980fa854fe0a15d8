package fire

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
)

// work is what goes on between the daemons when the fault strikes.
type work struct {
	name  string
	start func(t *testing.T, c *crash) job
}

// job is work that was started. check waits for its end, or ends it.
type job interface {
	check(t *testing.T, f fate)
}

var works = []work{
	{"idle", func(*testing.T, *crash) job { return idle{} }},
	{"call in flight", startCall},
	{"100 calls a second", startRate},
	{"stream out", func(t *testing.T, c *crash) job { return startStream(t, c, true, false) }},
	{"stream in", func(t *testing.T, c *crash) job { return startStream(t, c, false, true) }},
	{"stream idle", func(t *testing.T, c *crash) job { return startStream(t, c, false, false) }},
}

type idle struct{}

func (idle) check(*testing.T, fate) {}

// lostCodes are what a call may say that was under way.
var lostCodes = []api.Code{api.CodePeerUnreachable, api.CodeOutcomeUnknown, api.CodeTimeout, api.CodeProtocolUnavailable,
	api.CodeOffline}

func checkError(t *testing.T, what string, err error) {
	t.Helper()
	e := api.AsError(err)
	if !slices.Contains(lostCodes, e.Code) || e.Message == "" {
		t.Errorf("%s failed with %s", what, full(err))
	}
}

// flight is a call that its server holds.
type flight struct {
	timeout time.Duration
	began   time.Time
	ended   chan struct{}
	took    time.Duration
	err     error
}

// answerAfter is less than a daemon that stops waits for answers (PROTOCOL §3).
const answerAfter = 3500 * time.Millisecond

func startCall(t *testing.T, c *crash) job {
	f := &flight{timeout: 12 * time.Second, began: time.Now(), ended: make(chan struct{})}
	taken := make(chan struct{})
	l, err := c.y.Client.Listen(t.Context(), client.ListenOptions{Protocol: "Slow"})
	if err != nil {
		t.Fatal(full(err))
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		in, err := l.Next(context.WithoutCancel(t.Context()))
		if err != nil {
			return
		}
		close(taken)
		select {
		case <-in.Done():
		case <-time.After(answerAfter):
			_ = in.Reply(context.WithoutCancel(t.Context()), nil)
		}
	})
	wg.Go(func() {
		defer close(f.ended)
		_, f.err = c.x.Client.Call(context.WithoutCancel(t.Context()), client.Request{Target: "peer", Protocol: "Slow", Timeout: f.timeout})
		f.took = time.Since(f.began)
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	select {
	case <-taken:
	case <-f.ended:
		t.Fatalf("the call failed before anything happened: %s", full(f.err))
	}
	return f
}

func (f *flight) check(t *testing.T, fate fate) {
	<-f.ended
	t.Logf("the call in flight ended after %v: %v", f.took.Round(time.Millisecond), f.err)
	if f.took > f.timeout+slack() {
		t.Errorf("the call took %v of %v", f.took, f.timeout)
	}
	switch {
	case f.err != nil && fate >= mustAnswer:
		t.Errorf("the call was not answered: %s", full(f.err))
	case f.err != nil:
		checkError(t, "the call in flight", f.err)
	case fate == mustBreak:
		t.Error("the call was answered by a daemon that was gone")
	}
}

// rate is a program that makes 100 calls a second.
type rate struct {
	end func() // no more calls; waits for those under way
	wg  sync.WaitGroup

	mu    sync.Mutex
	ok    int
	slow  time.Duration // the longest
	codes map[api.Code]int
	bad   []error
}

const rateTimeout = 2 * time.Second

func startRate(t *testing.T, c *crash) job {
	stop := make(chan struct{})
	r := &rate{codes: make(map[api.Code]int)}
	r.end = sync.OnceFunc(func() {
		close(stop)
		r.wg.Wait()
	})
	ctx := context.WithoutCancel(t.Context())
	r.wg.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				r.wg.Go(func() { r.call(ctx, c) })
			case <-stop:
				return
			}
		}
	})
	t.Cleanup(r.end)
	return r
}

func (r *rate) call(ctx context.Context, c *crash) {
	began := time.Now()
	err := tryCall(ctx, c.x, rateTimeout)
	took := time.Since(began)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.slow = max(r.slow, took)
	switch code := api.CodeOf(err); {
	case err == nil:
		r.ok++
	case slices.Contains(lostCodes, code):
		r.codes[code]++
	default:
		r.bad = append(r.bad, err)
	}
}

func (r *rate) check(t *testing.T, _ fate) {
	r.end()
	t.Logf("%d calls were answered, the slowest took %v; failed: %v", r.ok, r.slow.Round(time.Millisecond), r.codes)
	if r.slow > rateTimeout+slack() {
		t.Errorf("a call with %v took %v", rateTimeout, r.slow)
	}
	for _, err := range r.bad[:min(3, len(r.bad))] {
		checkError(t, "a call", err)
	}
}

// pipe is a stream with or without bytes under way.
type pipe struct {
	near *client.Stream
	wg   sync.WaitGroup
	end  chan struct{} // closed to let the senders come to their end
	stop func()        // closes it
}

func startStream(t *testing.T, c *crash, out, in bool) job {
	// Each of the works has an instance of its own.
	instance := map[[2]bool]string{{true, false}: "out", {false, true}: "in", {false, false}: "idle"}[[2]bool{out, in}]
	if err := c.y.Client.Verb(t.Context(), api.VerbGrantAdd, api.GrantArgs{Who: "peer", Protocol: "Pipe", Instance: instance}, nil); err != nil {
		t.Fatal(full(err))
	}
	l, err := c.y.Client.Listen(t.Context(), client.ListenOptions{Protocol: "Pipe", Instance: instance})
	if err != nil {
		t.Fatal(full(err))
	}
	p := &pipe{end: make(chan struct{})}
	p.stop = sync.OnceFunc(func() { close(p.end) })
	p.wg.Go(func() {
		incoming, err := l.Next(context.WithoutCancel(t.Context()))
		if err != nil {
			return
		}
		far, err := incoming.Accept(context.WithoutCancel(t.Context()))
		if err != nil {
			return
		}
		p.pump(far, in)
	})
	p.near, err = c.x.Client.Stream(t.Context(), client.Request{Target: "peer", Protocol: "Pipe", Instance: instance})
	if err != nil {
		t.Fatal(full(err))
	}
	p.wg.Go(func() { p.pump(p.near, out) })
	t.Cleanup(func() {
		p.stop()
		_ = p.near.Reset(context.WithoutCancel(t.Context()))
		_ = l.Close()
		p.wg.Wait()
	})
	return p
}

// pump sends until the end if it is to send, and reads to the other side's end.
func (p *pipe) pump(s *client.Stream, send bool) {
	defer s.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		block := make([]byte, 16<<10)
		pace := time.NewTicker(5 * time.Millisecond)
		defer pace.Stop()
		for {
			select {
			case <-p.end:
				_ = s.CloseWrite()
				return
			case <-pace.C:
			}
			if !send {
				continue
			}
			if _, err := s.Write(block); err != nil {
				return
			}
		}
	})
	_, _ = io.Copy(io.Discard, s)
	wg.Wait()
}

// lostStreams are the codes with which a stream may break.
var lostStreams = []api.Code{api.CodeAborted, api.CodeStalled, api.CodeTimeout}

func (p *pipe) check(t *testing.T, fate fate) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience+30*time.Second)
	defer cancel()
	var res api.StreamResult
	var err error
	lost := fate == mustBreak || fate == mustAnswer
	if lost {
		res, err = p.near.Result(ctx) // nobody ends it
		p.stop()
	} else {
		p.stop()
		res, err = p.near.Result(ctx)
	}
	t.Logf("the stream's end was told after %v: clean %v, %s: %s", time.Since(began).Round(time.Millisecond), res.Clean, res.Code, res.Reason)
	switch {
	case errors.Is(err, context.DeadlineExceeded) || api.CodeOf(err) == api.CodeTimeout:
		t.Error("the stream has no end")
	case err != nil:
		t.Errorf("the stream's end cannot be had: %s", full(err))
	case res.Clean && lost:
		t.Error("a broken stream seems to have ended cleanly")
	case !res.Clean && fate == mustSurvive:
		t.Errorf("the stream was broken (%s: %s)", res.Code, res.Reason)
	case !res.Clean && !slices.Contains(lostStreams, res.Code):
		t.Errorf("the stream ended with %s: %s", res.Code, res.Reason)
	}
}
