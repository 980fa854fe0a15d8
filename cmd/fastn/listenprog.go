package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

const (
	// endGrace is what a program has between being told to end and being killed.
	endGrace = 5 * time.Second
	// exitGrace is what a program has between closing its output and ending,
	// so that its failure can still abort the stream.
	exitGrace = 2 * time.Second
	// discardMost bounds what is read on behalf of a program that ended well
	// without reading everything, in bytes.
	discardMost = 4 << 20
)

// program prepares CMD for one request. When ctx ends, its process group is
// told to end, and killed after endGrace.
func (c *listenCmd) program(ctx context.Context, a *app, in *incoming) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.Command[0], c.Command[1:]...)
	cmd.Env = append(a.environment(), "FASTN_FROM="+in.From, "FASTN_CONTACT="+in.Contact,
		"FASTN_PROTOCOL="+in.Protocol, "FASTN_INSTANCE="+in.Instance, "FASTN_KIND="+in.Kind, "FASTN_MESSAGE_ID="+in.MessageID)
	cmd.Stderr = a.std.Err
	endWithGroup(cmd)
	return cmd
}

// answerCall gives the data to a program and replies with what it prints. tell
// is as for serveStream.
func (c *listenCmd) answerCall(a *app, in *incoming, tell func(error)) error {
	out := &limited{most: api.MaxPayload}
	err := c.runFor(a, in, out)
	answer, fail := callAnswer(out, err)
	select {
	case <-in.Gone:
		return errors.New("the caller went away")
	default:
	}
	if fail != nil {
		tell(fail)
	}
	// An interruption of ours still tells the caller that it failed.
	reply, cancelReply := context.WithTimeout(context.WithoutCancel(a.ctx), endGrace)
	defer cancelReply()
	if err := in.Reply(reply, answer, fail); err != nil {
		return err
	}
	if fail != nil {
		return fail
	}
	return nil
}

// runFor runs a program with the data on its standard input, until the caller
// goes away.
func (c *listenCmd) runFor(a *app, in *incoming, out io.Writer) error {
	ctx, cancel := context.WithCancel(a.ctx)
	var helper sync.WaitGroup
	defer helper.Wait()
	defer cancel()
	helper.Go(func() {
		select {
		case <-in.Gone:
			cancel()
		case <-ctx.Done():
		}
	})
	cmd := c.program(ctx, a, in)
	cmd.Stdin, cmd.Stdout = bytes.NewReader(in.Data), out
	return runGroup(ctx, cmd)
}

// takeMessage gives a message to a program, which takes it by ending well.
func (c *listenCmd) takeMessage(a *app, in *incoming) error {
	err := c.runFor(a, in, a.std.Out)
	if a.ctx.Err() != nil {
		return nil // not answered: it is told again
	}
	if err == nil {
		return in.Reply(a.ctx, nil, nil)
	}
	fail := api.Errorf(api.CodeHandlerFailed, "the serving program failed: %v", pathCause(err))
	if err := in.Reply(a.ctx, nil, fail); err != nil {
		return err
	}
	return failed("message %s: %v; it is told again later", in.MessageID, pathCause(err))
}

func callAnswer(out *limited, err error) (json.RawMessage, *api.Error) {
	answer := bytes.TrimSpace(out.buf.Bytes())
	switch {
	case out.over:
		return nil, api.Errorf(api.CodeTooLarge, "the serving program printed more than %d bytes", api.MaxPayload)
	case err != nil:
		return nil, api.Errorf(api.CodeHandlerFailed, "the serving program failed: %v", pathCause(err))
	case !json.Valid(answer):
		return nil, api.Errorf(api.CodeHandlerFailed, "the serving program did not print JSON")
	}
	return answer, nil
}

// limited collects up to most bytes and fails behind them.
type limited struct {
	buf  bytes.Buffer // not embedded: its ReadFrom would pass Write by
	most int
	over bool
}

func (l *limited) Write(p []byte) (int, error) {
	if l.buf.Len()+len(p) > l.most {
		l.over = true
		return 0, errors.New("too much output")
	}
	return l.buf.Write(p)
}

// serveStream gives a stream to a program as its standard input and output. A
// failure that the peer is to learn of goes to tell before, and is returned too.
func (c *listenCmd) serveStream(a *app, in *incoming, tell func(error)) error {
	s, err := in.Accept(a.ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	ctx, cancel := context.WithCancel(a.ctx)
	cmd := c.program(ctx, a, in)
	signalled, signal := make(chan struct{}), cmd.Cancel
	cmd.Cancel = func() error { defer close(signalled); return signal() }
	input, output, err := startPiped(cmd)
	if err != nil {
		cancel()
		tell(err)
		_ = s.Reset()
		return err
	}
	p := &piped{stream: s, cmd: cmd, input: input, output: output, tell: tell, cancel: cancel,
		over: make(chan struct{}), waited: make(chan struct{}),
		exited: make(chan error, 1), fed: make(chan struct{}), drained: make(chan struct{})}
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer cancel()
	helpers.Go(func() { p.exited <- waitGroup(ctx, cmd); close(p.waited) })
	helpers.Go(p.feed)
	helpers.Go(p.drain)
	helpers.Go(func() { // an abort reads as an end: only the result tells
		defer close(p.over)
		res, err := s.Result(ctx)
		p.clean = err == nil && res.Clean
		if err == nil && !res.Clean {
			cancel()
		}
	})
	stop := context.AfterFunc(ctx, func() {
		select { // its input ends after it was told to end: it must not take that for the whole
		case <-signalled:
		case <-p.waited:
		}
		p.abort()
	})
	defer stop()
	return p.finish()
}

// startPiped starts cmd between two pipes. They are pipes and not the socket,
// because the socket's first bytes may have been read already.
func startPiped(cmd *exec.Cmd) (input, output *os.File, err error) {
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	outR, outW, err := os.Pipe()
	if err == nil {
		cmd.Stdin, cmd.Stdout = inR, outW
		err = cmd.Start()
		_ = outW.Close()
	}
	_ = inR.Close()
	if err != nil {
		_ = inW.Close()
		if outR != nil {
			_ = outR.Close()
		}
		return nil, nil, err
	}
	return inW, outR, nil
}

// piped is one program that serves one stream. finish owns the end.
type piped struct {
	stream        stream
	cmd           *exec.Cmd
	input, output *os.File      // our ends of its pipes
	tell          func(error)   // told of a program that failed, before the peer learns of it
	cancel        func()        // tells the program to end, then calls abort
	over          chan struct{} // closed when clean is set
	clean         bool          // the stream came to its end in both directions
	exited        chan error    // one value: how the program ended
	waited        chan struct{} // closed behind it
	fed           chan struct{} // closed when the peer's bytes ended, or nobody reads them
	drained       chan struct{} // closed when the program's output ended
}

// abort resets the stream and wakes feed and drain. It may be called by anyone.
func (p *piped) abort() {
	_ = p.stream.Reset()
	_ = p.input.Close()
	_ = p.output.Close()
}

// abortDrained aborts behind what the program printed before it failed, if the
// peer takes that within exitGrace.
func (p *piped) abortDrained() {
	late := time.NewTimer(exitGrace)
	defer late.Stop()
	select {
	case <-p.drained:
	case <-late.C:
	}
	p.abort()
}

func (p *piped) feed() {
	defer close(p.fed)
	_, err := copyBytes(p.input, p.stream)
	if err == nil && p.gone() {
		// Aborted, or the daemon died: a program that read an end now would
		// take what it got for the whole.
		if <-p.over; !p.clean {
			p.cancel()
			return
		}
	}
	_ = p.input.Close()
	if errors.Is(err, syscall.EPIPE) && fromOutput(err) {
		// The program reads no more, which is its right. What the peer still
		// sends is thrown away within a bound, so that it can end cleanly.
		if n, _ := io.CopyN(io.Discard, p.stream, discardMost); n == discardMost {
			_ = p.stream.Reset()
		}
	}
}

// gone tells, at the end of the peer's bytes, the end of the whole stream from
// that of one direction: only to the latter something can be written, if only
// nothing. After our own end every end is the whole stream's.
func (p *piped) gone() bool {
	_, err := p.stream.Write(nil)
	return err != nil
}

func (p *piped) drain() {
	defer close(p.drained)
	_, _ = copyBytes(p.stream, p.output)
	_ = p.output.Close() // if the peer reads no more, the program learns it by SIGPIPE
}

// finish waits for the program and its output, and ends our direction: cleanly
// if the program ended well, else with an abort. A program that closes its
// output and works on has our direction ended after exitGrace.
func (p *piped) finish() error {
	var err error
	select {
	case err = <-p.exited:
	case <-p.drained:
		late := time.NewTimer(exitGrace)
		defer late.Stop()
		select {
		case err = <-p.exited:
		case <-late.C:
			_ = p.stream.CloseWrite()
			err = <-p.exited
		}
	}
	if err != nil {
		err = failed("%s: %v", p.cmd.Path, err)
		p.tell(err)
		p.abortDrained()
	} else {
		<-p.drained
		_ = p.stream.CloseWrite()
	}
	<-p.fed
	<-p.drained
	return err
}
