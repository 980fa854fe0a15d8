package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

// destination is what call and stream share.
type destination struct {
	Target   string `arg:"" valid:"some" help:"A contact, an id52, a peer id or self." complete:"target"`
	Protocol string `arg:"" valid:"protocol" help:"Name of the protocol." complete:"protocol"`
	Instance string `valid:"name" help:"Instance of the protocol, if it has several." placeholder:"NAME"`
}

func (d *destination) request(a *app) api.Request {
	a.asked = d.Target
	return api.Request{Target: d.Target, Protocol: d.Protocol, Instance: d.Instance, From: a.identity()}
}

type callCmd struct {
	destination
	Data    string `arg:"" optional:"" name:"json" help:"The request's data as JSON; - reads it from standard input."`
	Timeout period `help:"How long to wait for the answer, at most 1h." default:"30s"`
}

func (*callCmd) Help() string {
	return `Prints the answer's data as JSON.

Example:
  fastn call bob Echo '{"message":"hello"}'
  fastn call bob Lookup - < query.json | jq .`
}

func (c *callCmd) run(a *app) error {
	timeout := time.Duration(c.Timeout)
	if timeout < time.Millisecond || timeout > api.MaxTimeout {
		return usage("--timeout %v is out of range: 1ms to %v", timeout, api.MaxTimeout).
			WithHint("give it as 500ms, 10s or 2m")
	}
	r := c.request(a)
	r.TimeoutMS = int64(timeout / time.Millisecond)
	var err error
	if r.Data, err = a.readData(c.Data, true); err != nil {
		return err
	}
	d, err := a.daemon()
	if err != nil {
		return err
	}
	answer, err := d.Call(a.ctx, r)
	if err != nil {
		return a.explain(err)
	}
	return a.printJSON(answer)
}

// readData takes a JSON argument, or with stdin allowed and "-" what stands on
// standard input. No argument is no data.
func (a *app) readData(arg string, stdin bool) (json.RawMessage, error) {
	data, size := []byte(arg), strconv.Itoa(len(arg))
	if stdin && arg == "-" {
		var err error
		if data, size, err = a.readInput(); err != nil {
			return nil, err
		}
	}
	if len(data) == 0 && arg == "" {
		return nil, nil
	}
	if len(data) > api.MaxPayload {
		return nil, usage("the data has %s bytes, the limit is %d", size, api.MaxPayload).
			WithHint("send bulk data over a stream")
	}
	if err := scanData(data); err != nil {
		return nil, usage("the data is not JSON that can be sent: %v", err).
			WithHint(`quote it for the shell, as in '{"message":"hello"}'; a text is '"hello"'`)
	}
	return data, nil
}

// countMost bounds how much of what is too long is read only to say how long it
// is, in bytes.
const countMost = 64 << 20

// readInput reads what stands on standard input, or one byte more than a payload
// may have. size is for people: how many bytes there are.
func (a *app) readInput() (data []byte, size string, err error) {
	data, err = io.ReadAll(io.LimitReader(a.std.In, api.MaxPayload+1))
	if err != nil {
		return nil, "", failed("cannot read standard input: %v", pathCause(err)).
			WithHint("give it by a pipe, or from a file that you may read")
	}
	if len(data) <= api.MaxPayload {
		return data, strconv.Itoa(len(data)), nil
	}
	rest, _ := io.CopyN(io.Discard, a.std.In, countMost) // only to be told
	size = strconv.FormatInt(int64(len(data))+rest, 10)
	if rest == countMost {
		size = "more than " + size
	}
	return data, size, nil
}

// scanData checks data as the daemon does, but counts from its own first byte.
func scanData(data []byte) error {
	if err := api.Scan(data); err != nil {
		return err
	}
	// Inside of a request there is one level less.
	if api.Scan(slices.Concat([]byte("["), data, []byte("]"))) != nil {
		return fmt.Errorf("it is nested more than %d deep", api.MaxDepth-1)
	}
	return nil
}
