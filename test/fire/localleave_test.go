package fire

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/fastn-stack/fastnd/service/api"
)

// disconnects leaves at every step of every kind of request. What is left behind
// is told to those who waited for it, and only to them.
func disconnects(s *siege) error {
	return s.repeat(4, func(w *lineConn) error {
		k := int(s.step.Add(1))
		for _, step := range []func(*siege, int) error{
			leaveEarly, leaveCall, leaveListener, leaveStream, leaveAccept, leaveLong,
		} {
			if err := step(s, k); err != nil {
				return err
			}
		}
		return w.echo(k)
	})
}

// leave connects, sends text and leaves; if half, it ends its own direction first.
func (s *siege) leave(text string, half bool) error {
	w, err := dialLine(s.socket)
	if err != nil {
		return err
	}
	err = w.send(text)
	if half {
		err = errors.Join(err, w.CloseWrite())
	}
	return errors.Join(err, w.Close())
}

// leaveEarly leaves before, in and behind a line.
func leaveEarly(s *siege, _ int) error {
	line := callLine("1", "Echo", `{"message":"gone"}`) + "\n"
	var errs []error
	for _, cut := range []int{0, 1, len(line) / 2, len(line) - 1, len(line)} {
		errs = append(errs, s.leave(line[:cut], false), s.leave(line[:cut], true), s.leave(line+line[:cut], false))
	}
	return errors.Join(errs...)
}

// served has c ask for a call or a stream that l, which listens, was told of as in.
// name and k make it an instance of its own. The caller closes both.
func (s *siege) served(kind, name string, k int) (l, c *lineConn, in api.Incoming, err error) {
	instance := fmt.Sprintf("%s%d", name, k)
	if l, err = dialLine(s.socket); err != nil {
		return nil, nil, in, err
	}
	if c, err = dialLine(s.socket); err != nil {
		return nil, nil, in, errors.Join(err, l.Close())
	}
	err = l.ask(`{"id":"L","type":"listen","protocol":"Mine","instance":"`+instance+`"}`, "L", api.StatusOK)
	if err == nil {
		err = c.send(`{"id":"1","type":"` + kind + `","target":"self","protocol":"Mine","instance":"` + instance + `"}` + "\n")
	}
	if err == nil {
		in, err = l.incoming()
	}
	if err != nil {
		return nil, nil, in, errors.Join(err, l.Close(), c.Close())
	}
	return l, c, in, nil
}

// incoming reads what a listener is told.
func (w *lineConn) incoming() (in api.Incoming, err error) {
	a, err := w.expect("L", api.StatusIncoming)
	if err != nil {
		return in, err
	}
	return in, json.Unmarshal(a.Data, &in)
}

// leaveCall leaves during a call: the program that serves it is told.
func leaveCall(s *siege, k int) error {
	l, c, in, err := s.served(api.TypeCall, "call", k)
	if err != nil {
		return err
	}
	defer l.Close()
	defer c.Close()
	c.Close()
	gone, err := l.incoming()
	if err != nil || gone.Incoming != in.Incoming || !gone.Cancel {
		return fmt.Errorf("the program was told %+v, %w", gone, err)
	}
	return l.ask(`{"id":"2","type":"reply","incoming":"`+in.Incoming+`"}`, "2", string(api.CodeNotFound))
}

// leaveListener leaves with a call to answer: its caller is told, and the place is
// free again.
func leaveListener(s *siege, k int) error {
	for range 2 {
		l, c, _, err := s.served(api.TypeCall, "listener", k)
		if err != nil {
			return err
		}
		defer l.Close()
		defer c.Close()
		l.Close()
		if _, err := c.expect("1", string(api.CodeOutcomeUnknown)); err != nil {
			return err
		}
	}
	return nil
}

// leaveStream leaves while a stream is opened, when it is open, in the middle of
// bytes, and after its own end.
func leaveStream(s *siege, k int) error {
	id := uuid(1000 + k)
	line := `{"id":"1","type":"stream","target":"self","protocol":"Echo","stream":"` + id + `"}` + "\n"
	if err := s.leave(line, false); err != nil {
		return err
	}
	for i, end := range []func(w *lineConn) error{
		func(*lineConn) error { return nil },
		func(w *lineConn) error { return w.send(letters(64 << 10)) },
		func(w *lineConn) error { return errors.Join(w.send("last"), w.CloseWrite()) },
	} {
		w, err := dialLine(s.socket)
		if err != nil {
			return err
		}
		id := uuid((i+2)<<32 + k)
		line := `{"id":"1","type":"stream","target":"self","protocol":"Echo","stream":"` + id + `"}`
		if err := errors.Join(w.ask(line, "1", api.StatusStreaming), end(w), w.Close()); err != nil {
			return err
		}
		if i == 2 {
			continue // the other side's end may have come before
		}
		if err := s.aborted(id); err != nil {
			return fmt.Errorf("end %d: %w", i, err)
		}
	}
	return nil
}

// aborted expects that a stream ended by an abort.
func (s *siege) aborted(id string) error {
	w, err := dialLine(s.socket)
	if err != nil {
		return err
	}
	defer w.Close()
	if err := w.send(`{"id":"1","type":"stream.result","stream":"` + id + `"}` + "\n"); err != nil {
		return err
	}
	a, err := w.expect("1", api.StatusOK)
	if err != nil {
		return err
	}
	var r api.StreamResult
	if err := json.Unmarshal(a.Data, &r); err != nil || r.Clean || r.Code != api.CodeAborted {
		return fmt.Errorf("the result of a stream that was left is %s, %w", a.Data, err)
	}
	return nil
}

// leaveAccept leaves before it accepts a stream, and after.
func leaveAccept(s *siege, k int) error {
	for _, accepted := range []bool{false, true} {
		l, c, in, err := s.served(api.TypeStream, fmt.Sprint("accept-", accepted, "-"), k)
		if err != nil {
			return err
		}
		defer l.Close()
		defer c.Close()
		if !accepted {
			l.Close()
			if _, err := c.expect("1", string(api.CodeProtocolUnavailable)); err != nil {
				return err
			}
			continue
		}
		a, err := dialLine(s.socket)
		if err != nil {
			return err
		}
		err = a.ask(`{"id":"1","type":"accept","incoming":"`+in.Incoming+`"}`, "1", api.StatusStreaming)
		if err := errors.Join(err, a.Close()); err != nil {
			return err
		}
		if _, err := c.expect("1", api.StatusStreaming); err != nil {
			return err
		}
		if err := errors.Join(c.ended(), s.aborted(in.Incoming), l.Close()); err != nil {
			return err
		}
	}
	return nil
}

// leaveLong leaves with a subscription, and with a wait for a stream's end.
func leaveLong(s *siege, k int) error {
	w, err := dialLine(s.socket)
	if err != nil {
		return err
	}
	defer w.Close()
	id := uuid(9<<32 + k)
	if err := w.ask(`{"id":"1","type":"stream","target":"self","protocol":"Echo","stream":"`+id+`"}`, "1", api.StatusStreaming); err != nil {
		return err
	}
	return errors.Join(
		s.leave(`{"id":"1","type":"stream.result","stream":"`+id+`"}`+"\n", false),
		s.leave(`{"id":"S","type":"subscribe"}`+"\n", false),
		w.send("still"), w.CloseWrite(), w.reads("still"))
}

// reads expects text and then the end.
func (w *lineConn) reads(text string) error {
	back := make([]byte, len(text))
	for n := 0; n < len(back); {
		m, err := w.r.Read(back[n:])
		if err != nil {
			return err
		}
		n += m
	}
	if string(back) != text {
		return fmt.Errorf("read %q instead of %q", back, text)
	}
	return w.ended()
}
