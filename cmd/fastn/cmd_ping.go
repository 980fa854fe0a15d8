package main

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

type pingCmd struct {
	Target   string `arg:"" valid:"some" help:"A contact, an id52, a peer id or self." complete:"target"`
	Count    int    `short:"c" help:"How many times." default:"4" placeholder:"N"`
	Interval period `help:"Time between two." default:"200ms"`
}

func (*pingCmd) Help() string {
	return `Each answer is shown with its round-trip time and the path it took. With --json it is one object a
line: "rtt_us", "path", "address".

Example:
  fastn ping bob
  fastn ping bob -c 1 --json`
}

func (c *pingCmd) run(a *app) error {
	if c.Count < 1 {
		return usage("-c %d: the least is 1", c.Count).WithHint(`try "fastn ping self -c 1"`)
	}
	var s pingStats
	for n := range c.Count {
		if n > 0 && sleep(a.ctx, time.Duration(c.Interval)) != nil {
			break
		}
		err := c.one(a, n, &s)
		if err == nil {
			continue
		}
		s.lost, s.last = s.lost+1, err
		if !transient(err) || a.ctx.Err() != nil {
			break
		}
		if n+1 < c.Count {
			a.note("%s: %v", c.Target, err)
		}
	}
	return c.summary(a, &s)
}

// pingStats counts; times are in microseconds.
type pingStats struct {
	answered, lost int
	min, max, sum  int64
	last           error
}

func (c *pingCmd) one(a *app, n int, s *pingStats) error {
	raw, err := a.verb(api.VerbPeerPing, api.TargetArgs{Target: c.Target})
	if err != nil {
		return err
	}
	var p api.Pong
	if err := decode(raw, &p); err != nil {
		return err
	}
	if s.answered == 0 || p.RTTMicros < s.min {
		s.min = p.RTTMicros
	}
	s.max = max(s.max, p.RTTMicros)
	s.sum += p.RTTMicros
	s.answered++
	if a.flags.JSON {
		return a.printJSON(raw)
	}
	line := fmt.Sprintf("%s: %d  %.2f ms  %s", c.Target, n+1, float64(p.RTTMicros)/1000, p.Path)
	if p.Address != "" {
		line += "  " + p.Address
	}
	return a.write(bytes.NewBufferString(visible(line) + "\n"))
}

// summary ends with the last error if nobody ever answered.
func (c *pingCmd) summary(a *app, s *pingStats) error {
	if s.answered == 0 {
		return s.last
	}
	if s.lost > 0 {
		a.note("%s: %v", c.Target, s.last)
	}
	if a.flags.JSON {
		return nil
	}
	ms := func(us int64) float64 { return float64(us) / 1000 }
	return a.write(bytes.NewBufferString(fmt.Sprintf("%d sent, %d answered, round trip min/avg/max %.2f/%.2f/%.2f ms\n",
		s.answered+s.lost, s.answered, ms(s.min), ms(s.sum/int64(s.answered)), ms(s.max))))
}

// transient tells of errors that may be over at the next try.
func transient(err error) bool {
	if _, hangs := errors.AsType[noAnswer](err); hangs {
		return false
	}
	switch api.CodeOf(err) {
	case api.CodePeerUnreachable, api.CodeTimeout, api.CodeOutcomeUnknown:
		return true
	}
	return false
}
