package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/fastn-stack/fastnd/service/api"
)

type streamCmd struct {
	destination
	Data string `arg:"" optional:"" name:"json" help:"The request's data as JSON."`
}

func (*streamCmd) Help() string {
	return `Each direction ends on its own: the end of standard input ends only what is sent. If standard input
is a terminal, the end of what is received ends both. The exit code is 1 if the stream was aborted by
either side; an interruption aborts it.

Example:
  tar c photos | fastn stream bob Backup
  fastn stream bob Backup '{"name":"photos"}' < photos.tar`
}

func (c *streamCmd) run(a *app) error {
	r := c.request(a)
	var err error
	if r.Data, err = a.readData(c.Data, false); err != nil {
		return err
	}
	d, err := a.daemon()
	if err != nil {
		return err
	}
	s, err := d.Stream(a.ctx, r)
	if err != nil {
		return a.explain(err)
	}
	return a.pump(s)
}

// pump connects s with standard input and output until both directions ended,
// and closes it. The goroutine that reads standard input may outlive the call
// if s was aborted: such a read cannot be woken, and the program ends then.
func (a *app) pump(s stream) error {
	// A reader of ours that went away must abort the stream, not end the program.
	pipe := make(chan os.Signal, 1)
	signal.Notify(pipe, syscall.SIGPIPE)
	defer signal.Stop(pipe)

	defer s.Close()
	interrupted := context.AfterFunc(a.ctx, func() { _ = s.Reset() })
	defer interrupted()

	go func() {
		if _, err := copyBytes(s, a.std.In); err != nil && fromInput(err) {
			_ = s.Reset()
			return
		}
		_ = s.CloseWrite()
	}()
	_, err := copyBytes(a.std.Out, s)
	if fromOutput(err) {
		_ = s.Reset()
		return writeFailed(err)
	}
	if isTerminal(a.std.In) {
		_ = s.CloseWrite()
	}
	return a.streamEnd(s)
}

// streamEnd waits until the stream is over and makes an abort an error.
func (a *app) streamEnd(s stream) error {
	res, err := s.Result(a.ctx)
	if a.ctx.Err() != nil {
		_ = s.Reset() // again, so that it is done before the program ends
		return a.ctx.Err()
	}
	if err != nil {
		return a.explain(err)
	}
	if res.Clean {
		return nil
	}
	if res.Reason != "" {
		return api.Errorf(api.CodeAborted, "%s", res.Reason)
	}
	return api.Errorf(api.CodeAborted, "the stream was aborted: %s", res.Code)
}
