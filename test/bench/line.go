package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"

	"github.com/fastn-stack/fastnd/service/api"
)

// lineConn is a client of few bytes: what is measured of many is not its own.
type lineConn struct {
	net.Conn
	r *bufio.Reader
}

func newLineConn(c net.Conn) *lineConn { return &lineConn{c, bufio.NewReaderSize(c, 256)} }

func dialLine(ctx context.Context, socket string) (*lineConn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	return newLineConn(c), nil
}

// ask sends r and reads its answer. An error is no answer: it comes sooner, and
// leaves less behind, than what is measured.
func (l *lineConn) ask(r *api.Request) error {
	if _, err := l.Write(api.AppendRequest(nil, r)); err != nil {
		return err
	}
	line, err := l.r.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("no answer to %s: %w", r.Type, err)
	}
	var a api.Response
	if err := json.Unmarshal(line, &a); err != nil {
		return err
	}
	if err := a.Err(); err != nil {
		return fmt.Errorf("%s: %w", r.Type, err)
	}
	if a.Status != api.StatusOK || a.ID == nil || *a.ID != r.ID {
		return fmt.Errorf("%s was answered with %s", r.Type, line)
	}
	return nil
}

// echoSelf is the least call that is one.
func echoSelf() *api.Request {
	return &api.Request{ID: "1", Type: api.TypeCall, Target: api.TargetSelf, Protocol: api.ProtocolEcho, Data: hello}
}

// hangUp closes all that there are.
func hangUp(all []*lineConn) {
	for _, l := range all {
		if l != nil {
			_ = l.Close()
		}
	}
}
