package fire

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

// lineConn is a client that knows no protocol: it sends bytes and reads lines.
type lineConn struct {
	*net.UnixConn
	r *bufio.Reader
}

// dialLine connects; every wait on the connection is bounded.
func dialLine(socket string) (*lineConn, error) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket})
	if err != nil {
		return nil, err
	}
	return newLine(c)
}

func newLine(c *net.UnixConn) (*lineConn, error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &lineConn{c, bufio.NewReader(c)}, nil
}

func (w *lineConn) send(text string) error {
	_, err := io.WriteString(w.UnixConn, text)
	return err
}

func (w *lineConn) answer() (api.Response, error) {
	var a api.Response
	line, err := w.r.ReadBytes('\n')
	if err != nil {
		return a, fmt.Errorf("read an answer: %w (%.100q)", err, line)
	}
	return a, json.Unmarshal(line, &a)
}

// expect reads an answer, which is to have this id ("null" if none) and this
// status, or code if it is an error.
func (w *lineConn) expect(id, statusOrCode string) (api.Response, error) {
	a, err := w.answer()
	if err != nil {
		return a, fmt.Errorf("instead of %s: %w", statusOrCode, err)
	}
	got, gotID := a.Status, "null"
	if a.Status == api.StatusError {
		got = string(a.Code)
	}
	if a.ID != nil {
		gotID = *a.ID
	}
	if got != statusOrCode || gotID != id {
		return a, fmt.Errorf("%s for %s instead of %s for %s: %.300s", got, gotID, statusOrCode, id, a.Data)
	}
	return a, nil
}

// ask sends a line and expects its answer.
func (w *lineConn) ask(line, id, statusOrCode string) error {
	if err := w.send(line + "\n"); err != nil {
		return err
	}
	_, err := w.expect(id, statusOrCode)
	return err
}

// ended expects the end of the connection and nothing before it.
func (w *lineConn) ended() error {
	rest, err := io.ReadAll(w.r)
	if len(rest) > 0 {
		return fmt.Errorf("more came: %.100q", rest)
	}
	if errors.Is(err, syscall.ECONNRESET) {
		return nil // what the daemon did not read was thrown away
	}
	return err
}

// echo makes a call and checks its answer.
func (w *lineConn) echo(i int) error {
	text := fmt.Sprintf("%d of a bystander", i)
	if err := w.send(fmt.Sprintf(`{"id":"%d","type":"call","target":"self","protocol":"Echo","data":{"message":"%s"}}`, i, text) + "\n"); err != nil {
		return err
	}
	a, err := w.expect(fmt.Sprint(i), api.StatusOK)
	if err != nil {
		return err
	}
	if want := `{"echoed":"Echo: ` + text + `"}`; string(a.Data) != want {
		return fmt.Errorf("echoed %s instead of %s", a.Data, want)
	}
	return nil
}

// callLine is a call with a newline; data is JSON.
func callLine(id, protocol, data string) string {
	return `{"id":"` + id + `","type":"call","target":"self","protocol":"` + protocol + `","data":` + data + `}`
}

// letters is a JSON string of n bytes between its quotes.
func letters(n int) string { return `"` + strings.Repeat("x", n) + `"` }

// siege is an attack under way.
type siege struct {
	ctx    context.Context // ends when the attack is to end
	socket string
	once   sync.Once
	on     chan struct{} // closed when the attack has its full weight
	times  atomic.Int64  // how often it was repeated
	step   *atomic.Int64 // counts on from one attack to the next
}

// engaged tells that the attack has its full weight.
func (s *siege) engaged() { s.once.Do(func() { close(s.on) }) }

// hold waits until the attack is to end.
func (s *siege) hold() {
	s.engaged()
	<-s.ctx.Done()
}

// repeat does step from n goroutines, each on a connection of its own, until the
// attack is to end. The first error ends it early.
func (s *siege) repeat(n int, step func(w *lineConn) error) error {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	errs := make(chan error, n)
	for range n {
		go func() {
			w, err := dialLine(s.socket)
			if err != nil {
				cancel()
				errs <- err
				return
			}
			defer w.Close()
			for err == nil && ctx.Err() == nil {
				if err = w.SetDeadline(time.Now().Add(patience)); err == nil {
					err = step(w)
				}
				s.times.Add(1)
				s.engaged()
			}
			if err != nil {
				cancel()
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

// each is repeat with a new connection for every step.
func (s *siege) each(n int, step func(w *lineConn) error) error {
	return s.repeat(n, func(*lineConn) error {
		w, err := dialLine(s.socket)
		if err != nil {
			return err
		}
		defer w.Close()
		return step(w)
	})
}
