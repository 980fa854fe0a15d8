package fire

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fastn-stack/fastnd/internal/peercred"
	"github.com/fastn-stack/fastnd/service/api"
)

// names checks that a refusal names the budget's owner and its setting, and tells
// how it is raised.
func names(a api.Response, setting, owner string) error {
	for _, part := range []string{owner + " ", "(" + setting + ")"} {
		if !strings.Contains(string(a.Data), part) {
			return fmt.Errorf("the refusal %s does not name %q", a.Data, part)
		}
	}
	if !strings.Contains(a.Hint, setting+" in fastn.toml") {
		return fmt.Errorf("the hint %q does not name %s", a.Hint, setting)
	}
	return nil
}

// refused expects a refusal of the attacker's budget.
func (w *lineConn) refused(id, setting string) error {
	a, err := w.expect(id, string(api.CodeOverBudget))
	if err != nil {
		return err
	}
	return names(a, setting, peercred.UserName(attackerUID))
}

// crowd is how many connections one user makes.
const crowd = 5000

// connectionsHeld makes more connections than the user may have, and keeps them.
func connectionsHeld(s *siege) error {
	const mine = 256
	for i := range crowd {
		w, err := dialLine(s.socket)
		if err != nil {
			return err
		}
		defer w.Close()
		if i < mine {
			err = w.echo(i)
		} else {
			err = errors.Join(w.refused("null", "budgets.per_uid_connections"), w.ended())
		}
		if err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
		s.times.Add(1)
	}
	s.hold()
	return nil
}

// connectionFlood holds all connections that the user may have and tries to make
// more, as fast as they are refused.
func connectionFlood(s *siege) error {
	for i := range 256 {
		w, err := dialLine(s.socket)
		if err != nil {
			return err
		}
		defer w.Close()
		if err := w.echo(i); err != nil {
			return err
		}
	}
	errs := make(chan error)
	const n = 4
	for range n {
		go func() {
			var err error
			for err == nil && s.ctx.Err() == nil {
				var w *lineConn
				if w, err = dialLine(s.socket); err == nil {
					err = errors.Join(w.refused("null", "budgets.per_uid_connections"), w.Close())
				}
				if s.times.Add(1) == 100 {
					s.engaged()
				}
			}
			errs <- err
		}()
	}
	var all []error
	for range n {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

// requestsFull keeps as many requests in flight as the user may, and has more
// refused as fast as possible.
func requestsFull(s *siege) error {
	const most = 1024
	id := uuid(int(s.step.Add(1)))
	stream, err := s.stream(id)
	if err != nil {
		return err
	}
	defer stream.Close()
	w, err := dialLine(s.socket)
	if err != nil {
		return err
	}
	defer w.Close()
	for i := range most + 1 {
		if err := w.send(fmt.Sprintf(`{"id":"%d","type":"stream.result","stream":"%s"}`, i, id) + "\n"); err != nil {
			return err
		}
	}
	if err := w.refused(fmt.Sprint(most), "budgets.per_uid_requests"); err != nil {
		return err
	}
	err = s.repeat(4, func(w *lineConn) error {
		if err := w.send(callLine("1", "Echo", "{}") + "\n"); err != nil {
			return err
		}
		return w.refused("1", "budgets.per_uid_requests")
	})
	if err != nil {
		return err
	}
	// None of those in flight was affected: all end with the stream.
	if err := errors.Join(w.SetDeadline(time.Now().Add(patience)), stream.CloseWrite(), stream.ended()); err != nil {
		return err
	}
	for range most {
		a, err := w.answer()
		if err != nil || a.Status != api.StatusOK || string(a.Data) != `{"clean":true}` {
			return fmt.Errorf("%s: %s, %w", a.Code, a.Data, err)
		}
	}
	return nil
}

// uuid is the n-th stream's id.
func uuid(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012x", n) }

// stream opens an echo stream.
func (s *siege) stream(id string) (*lineConn, error) {
	w, err := dialLine(s.socket)
	if err != nil {
		return nil, err
	}
	err = w.ask(`{"id":"1","type":"stream","target":"self","protocol":"Echo","stream":"`+id+`"}`, "1", api.StatusStreaming)
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// streamsMost is budgets.per_uid_streams of the daemon under attack: as many as
// there may be connections could not be gone beyond.
const streamsMost = 64

// streamsFull opens as many streams as the user may, and has more refused.
func streamsFull(s *siege) error {
	line := `{"id":"1","type":"stream","target":"self","protocol":"Echo"}`
	var open []*lineConn
	for range streamsMost {
		w, err := dialLine(s.socket)
		if err != nil {
			return err
		}
		defer w.Close()
		if err := w.ask(line, "1", api.StatusStreaming); err != nil {
			return err
		}
		open = append(open, w)
	}
	err := s.repeat(4, func(w *lineConn) error {
		if err := w.send(line + "\n"); err != nil {
			return err
		}
		return w.refused("1", "budgets.per_uid_streams")
	})
	if err != nil {
		return err
	}
	for _, w := range open {
		if err := errors.Join(w.SetDeadline(time.Now().Add(patience)), w.CloseWrite(), w.ended()); err != nil {
			return err
		}
	}
	return nil
}

// bytesFull fills the user's bytes with unfinished lines, and has more refused.
func bytesFull(s *siege) error {
	part := strings.Repeat("x", 600<<10) // each needs a buffer of 1 MiB
	for range 64 {
		w, err := dialLine(s.socket)
		if err != nil {
			return err
		}
		defer w.Close()
		if err := w.send(part); err != nil {
			return err
		}
	}
	line := `{"id":"1","type":"hello","data":{"client":` + letters(200<<10) + "}}"
	if err := s.untilLeft(len(line)); err != nil {
		return err
	}
	return s.repeat(4, func(w *lineConn) error {
		if err := w.send(line + "\n"); err != nil {
			return err
		}
		return w.refused("1", "budgets.per_uid_buffered_bytes")
	})
}

// untilLeft waits until the daemon holds all but less than n of the user's bytes.
func (s *siege) untilLeft(n int) error {
	w, err := dialLine(s.socket)
	if err != nil {
		return err
	}
	defer w.Close()
	for ; ; time.Sleep(time.Millisecond) {
		a, err := w.askStatus()
		if err != nil {
			return err
		}
		var status api.Status
		if err := json.Unmarshal(a.Data, &status); err != nil {
			return err
		}
		if bytes := status.Budgets[3]; bytes.Limit-bytes.Used < int64(n) {
			return nil
		}
	}
}

// refusedLineRate has lines refused that are thrown away, many at a time.
func refusedLineRate(s *siege) error {
	line := `{"id":"1","type":"daemon.stop"}` + "\n"
	const together = 100
	lines := strings.Repeat(line, together)
	return s.repeat(16, func(w *lineConn) error {
		if err := w.send(lines); err != nil {
			return err
		}
		for range together {
			if _, err := w.expect("1", string(api.CodeNotPermitted)); err != nil {
				return err
			}
		}
		return nil
	})
}
