package fire

import (
	"context"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
	"github.com/fastn-stack/fastnd/test/process"
)

// back is how soon calls must work again after the other side is back.
const back = 5 * time.Second

// fault is what happens to the other side y, or on the way there.
type fault struct {
	name string
	over cable
	// fate of what was under way.
	fate fate
	// strike does it and returns when y is back.
	strike func(t *testing.T, c *crash)
}

// cable is what is between the daemons.
type cable int

const (
	loopback cable = iota
	ipv4           // each has a machine of its own: a network namespace
	ipv6
)

// fate is what becomes of work under way.
type fate int

const (
	mayEnd      fate = iota // it may end either way
	mustBreak               // it cannot survive
	mustAnswer              // a call is answered, streams cannot survive
	mustSurvive             // nothing of it may be lost
)

// crash is one cell: a pair of daemons with work between them, and a fault.
type crash struct {
	x, y *process.Daemon
	lab  *lab // nil on loopback
}

var faults = []fault{
	{"killed", loopback, mustBreak, func(t *testing.T, c *crash) {
		c.kill(t)
		c.run(t)
	}},
	{"killed, back on another port", loopback, mustBreak, func(t *testing.T, c *crash) {
		c.kill(t)
		c.configure(t, fmt.Sprintf("port = %d", freePort(t)))
		c.run(t)
	}},
	{"killed, back on another address", ipv4, mustBreak, func(t *testing.T, c *crash) {
		c.kill(t)
		c.lab.y.move(t, "2.1.0.3")
		c.run(t)
	}},
	{"stopped", loopback, mustAnswer, func(t *testing.T, c *crash) {
		if err := c.y.Stop(); err != nil {
			t.Fatal(err)
		}
		c.run(t)
	}},
	{"frozen for 3 s", loopback, mustSurvive, func(t *testing.T, c *crash) { c.freeze(t, 3*time.Second) }},
	{"frozen for 20 s", loopback, mayEnd, func(t *testing.T, c *crash) { c.freeze(t, 20*time.Second) }},
	{"its address replaced", ipv4, mustBreak, func(t *testing.T, c *crash) { c.lab.y.move(t, "2.1.0.3") }},
	{"our address replaced", ipv4, mustBreak, func(t *testing.T, c *crash) { c.lab.x.move(t, "2.1.0.4") }},
	// What was lost is sent again after pauses that double: QUIC may be as long silent
	// after the link is back as it was away, and is given 4 s for that.
	{"link down for 2 s", ipv4, mustSurvive, func(t *testing.T, c *crash) { c.lab.linkDown(t, 2*time.Second) }},
	{"link down for 5 s", ipv4, mayEnd, func(t *testing.T, c *crash) { c.lab.linkDown(t, 5*time.Second) }},
	{"link down for 20 s", ipv4, mayEnd, func(t *testing.T, c *crash) { c.lab.linkDown(t, 20*time.Second) }},
	{"link down for 2 s, IPv6", ipv6, mustSurvive, func(t *testing.T, c *crash) { c.lab.linkDown(t, 2*time.Second) }},
	{"our address replaced, IPv6", ipv6, mustBreak, func(t *testing.T, c *crash) { c.lab.x.move(t, "2001:db9::4") }},
}

// crashTransports leave one transport, or none out.
var crashTransports = map[string][]string{"quic": {"tcp = false"}, "tcp": {"quic = false"}, "both": nil}

// Whatever happens to the other side: no call waits beyond its time, what fails
// has a code that says what is known, no broken stream seems to end cleanly, and
// calls work within 5 s of its return.
func TestCrashOfTheOtherSide(t *testing.T) {
	if testutil.Torture() {
		for _, f := range faults {
			for transport := range crashTransports {
				for _, w := range works {
					cell(t, transport, f, w)
				}
				cell(t, transport, f, works...)
			}
		}
		return
	}
	for _, short := range []struct{ transport, fault string }{
		{"quic", "killed"}, {"tcp", "killed, back on another port"}, {"both", "killed, back on another address"},
		{"quic", "stopped"}, {"quic", "frozen for 3 s"}, {"both", "its address replaced"}, {"quic", "our address replaced"}, {"tcp", "link down for 2 s"},
		{"quic", "link down for 2 s"}, {"quic", "link down for 2 s, IPv6"},
	} {
		for _, f := range faults {
			if f.name == short.fault {
				cell(t, short.transport, f, works...)
			}
		}
	}
}

func cell(t *testing.T, transport string, f fault, works ...work) {
	name := "everything"
	if len(works) == 1 {
		name = works[0].name
	}
	t.Run(strings.Join([]string{transport, f.name, name}, "/"), func(t *testing.T) {
		t.Parallel()
		c := newCrash(t, f.over, process.Options{Config: crashTransports[transport]})
		call(t, c.x, patience)
		call(t, c.y, patience) // both know where the other is
		var under []job
		for _, w := range works {
			under = append(under, w.start(t, c))
		}
		f.strike(t, c)
		began := time.Now()
		eventuallyCalls(t, c)
		took := time.Since(began)
		t.Logf("a call works %v after the other side is back", took.Round(time.Millisecond))
		limit := back
		if !testutil.Torture() {
			limit += slack()
		}
		if took > limit {
			t.Errorf("it took %v until a call worked again, want at most %v", took, limit)
		}
		for _, j := range under {
			j.check(t, f.fate)
		}
	})
}

// eventuallyCalls waits until x reaches y and y reaches x.
func eventuallyCalls(t *testing.T, c *crash) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for _, d := range []*process.Daemon{c.x, c.y} {
		for {
			began := time.Now()
			err := tryCall(t.Context(), d, 2*time.Second)
			if err == nil {
				break
			}
			if took := time.Since(began); took > 2*time.Second+slack() {
				t.Errorf("a call with 2 s took %v", took)
			}
			if time.Now().After(deadline) {
				t.Fatalf("no call works: %v", err)
			}
			select {
			case <-time.After(50 * time.Millisecond): // a user who tries again
			case <-t.Context().Done():
			}
		}
	}
}

// slack is what a busy machine may add to a time limit: every request is answered by
// its time (PROTOCOL). Where others are at work on the machine, that is much.
func slack() time.Duration {
	if testutil.Torture() {
		return 1500 * time.Millisecond
	}
	return 15 * time.Second
}

func tryCall(ctx context.Context, d *process.Daemon, timeout time.Duration) error {
	_, err := d.Client.Call(ctx, client.Request{Target: "peer", Protocol: "Echo", Data: []byte(`{"message":"hello"}`), Timeout: timeout})
	return err
}

func call(t *testing.T, d *process.Daemon, timeout time.Duration) {
	t.Helper()
	if err := tryCall(t.Context(), d, timeout); err != nil {
		t.Fatal(full(err))
	}
}

// full is an error as a user sees it.
func full(err error) string {
	e := api.AsError(err)
	return fmt.Sprintf("%s: %s (%s)", e.Code, e.Message, e.Hint)
}

func newCrash(t *testing.T, over cable, o process.Options) *crash {
	c := &crash{}
	if over == loopback {
		c.x, c.y = pair(t, o)
	} else {
		c.lab = newLab(t, over)
		o.Listen = `"0.0.0.0"`
		if over == ipv6 {
			o.Listen = `"::"`
		}
		o.Prefix = c.lab.x.prefix()
		c.x = start(t, o)
		o.Prefix = c.lab.y.prefix()
		c.y = start(t, o)
		if err := process.Join(t.Context(), c.x, c.y); err != nil {
			t.Fatal(full(err))
		}
	}
	for _, p := range []string{"Slow", "Pipe"} {
		grant(t, c.y, "peer", p)
	}
	return c
}

func (c *crash) kill(t *testing.T) {
	t.Helper()
	if err := c.y.Kill(); err != nil {
		t.Fatal(err)
	}
}

func (c *crash) run(t *testing.T) {
	t.Helper()
	if err := c.y.Run(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
}

func (c *crash) configure(t *testing.T, lines ...string) {
	t.Helper()
	if err := c.y.Configure(lines...); err != nil {
		t.Fatal(err)
	}
}

func (c *crash) freeze(t *testing.T, d time.Duration) {
	t.Helper()
	for _, s := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGCONT} {
		if err := c.y.Signal(s); err != nil {
			t.Fatal(err)
		}
		if s == syscall.SIGSTOP {
			time.Sleep(d) // the fault itself
		}
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// A peer whose daemon is gone, on a machine that answers: nobody waits for a
// timeout. On one that does not: for that of a dial, and the error names what
// was tried.
func TestCallsToAPeerThatIsGone(t *testing.T) {
	for transport, config := range crashTransports {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			c := newCrash(t, loopback, process.Options{Config: config})
			call(t, c.x, patience)
			c.kill(t)
			for i := range 5 {
				began := time.Now()
				err := tryCall(t.Context(), c.x, 30*time.Second)
				took := time.Since(began)
				t.Logf("call %d failed after %v: %v", i, took.Round(time.Millisecond), err)
				code := api.CodeOf(err)
				if code != api.CodePeerUnreachable && (i > 0 || code != api.CodeOutcomeUnknown) {
					t.Errorf("call %d: %s", i, full(err))
				}
				if i > 0 && !strings.Contains(err.Error(), "connection refused") {
					t.Errorf("call %d does not say why: %s", i, full(err))
				}
				if took > slack()+2*time.Second {
					t.Errorf("call %d took %v", i, took)
				}
			}
		})
		if transport != "both" && !testutil.Torture() {
			continue
		}
		t.Run(transport+"/silent", func(t *testing.T) {
			t.Parallel()
			c := newCrash(t, ipv4, process.Options{Config: config})
			call(t, c.x, patience)
			if err := c.y.Stop(); err != nil {
				t.Fatal(err)
			}
			c.lab.y.silence(t)
			for _, timeout := range []time.Duration{time.Second, 30 * time.Second} {
				began := time.Now()
				err := tryCall(t.Context(), c.x, timeout)
				took := time.Since(began)
				t.Logf("with %v a call failed after %v: %v", timeout, took.Round(time.Millisecond), err)
				late := took >= timeout && api.CodeOf(err) == api.CodeTimeout // on a machine that is very busy
				if !late && (api.CodeOf(err) != api.CodePeerUnreachable || !strings.Contains(err.Error(), "/2.1.0.2/")) {
					t.Errorf("with %v: %s", timeout, full(err))
				}
				if took > min(timeout, 5*time.Second)+slack() {
					t.Errorf("with %v it took %v", timeout, took)
				}
			}
		})
	}
}

// An idle stream to a machine of which nothing is heard any more ends too.
func TestIdleStreamToASilentMachine(t *testing.T) {
	if !testutil.Torture() {
		t.Skip("takes 45 s: make torture")
	}
	for transport, config := range crashTransports {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			c := newCrash(t, ipv4, process.Options{Config: config})
			s := startStream(t, c, false, false)
			c.lab.y.silence(t)
			s.check(t, mustBreak)
		})
	}
}
