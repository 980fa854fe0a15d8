package fire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fastn-stack/fastnd/service/api"
)

// attack presses on the daemon until s.ctx ends. Its error is an answer that is
// not the promised one.
type attack func(s *siege) error

// attacks are all that one user does to the control socket while another works.
func attacks() map[string]attack {
	return map[string]attack{
		"partial-lines":       partialLines,
		"line-of-2-MiB":       tooLong,
		"deep-nesting":        badLine(callLine("1", "Echo", strings.Repeat("[", 100_000)+strings.Repeat("]", 100_000)), "1", api.CodeBadRequest),
		"bad-utf8-in-call":    badLine(callLine("1", "Echo", "{\"message\":\"\xc3\x28\"}"), "1", api.CodeBadRequest),
		"duplicate-keys":      badLine(callLine("1", "Echo", `{"message":"a","\u006dessage":"b"}`), "1", api.CodeBadRequest),
		"unknown-type":        badLine(`{"id":"1","type":"cal","target":"self","protocol":"Echo"}`, "1", api.CodeUnsupported),
		"no-JSON":             badLine(strings.Repeat("x", 100_000), "null", api.CodeBadRequest),
		"duplicate-ids":       duplicateIDs,
		"never-reads":         neverReads,
		"descriptors":         descriptors,
		"disconnects":         disconnects,
		"connections-held":    connectionsHeld,
		"connection-flood":    connectionFlood,
		"requests-full":       requestsFull,
		"streams-full":        streamsFull,
		"bytes-full":          bytesFull,
		"call-rate":           callRate,
		"refused-line-rate":   refusedLineRate,
		"pipelined-bad-lines": pipelinedBadLines,
		"stream-bytes":        streamBytes,
	}
}

// badLine sends a line over and over: each gets exactly one error, and the
// connection goes on.
func badLine(line, id string, code api.Code) attack {
	return func(s *siege) error {
		return s.repeat(4, func(w *lineConn) error {
			if err := w.ask(line, id, string(code)); err != nil {
				return err
			}
			return w.echo(1)
		})
	}
}

// partialLines leaves lines unfinished, and finishes them in the end.
func partialLines(s *siege) error {
	const n, head = 200, 100 << 10
	line := `{"id":"late","type":"hello","data":{"client":` + letters(2*head) + "}}\n"
	var all []*lineConn
	for range n {
		w, err := dialLine(s.socket)
		if err != nil {
			return err
		}
		defer w.Close()
		if err := w.send(line[:head]); err != nil {
			return err
		}
		all = append(all, w)
		s.times.Add(1)
	}
	s.hold()
	for i, w := range all {
		if err := errors.Join(w.SetDeadline(time.Now().Add(patience)), w.quiet()); err != nil {
			return err
		}
		if i%2 == 0 { // the others leave as they are
			if err := w.ask(strings.TrimSuffix(line[head:], "\n"), "late", api.StatusOK); err != nil {
				return err
			}
		}
	}
	return nil
}

// quiet expects that nothing has come.
func (w *lineConn) quiet() error {
	raw, err := w.SyscallConn()
	if err != nil {
		return err
	}
	var found int
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		found, _, _ = unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	})
	if err == nil && found > 0 {
		return errors.New("an answer came to what is no request")
	}
	return err
}

// tooLong sends lines of 2 MiB: one error, then the end.
func tooLong(s *siege) error {
	line := strings.Repeat("x", 2*api.MaxLine) + "\n"
	return s.each(4, func(w *lineConn) error {
		// It fails when the daemon has enough of it.
		if err := w.send(line); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
			return err
		}
		if _, err := w.expect("null", string(api.CodeTooLarge)); err != nil {
			return err
		}
		return w.ended()
	})
}

// duplicateIDs uses ids that are in flight: the first request is not affected.
func duplicateIDs(s *siege) error {
	return s.repeat(4, func(w *lineConn) error {
		if err := w.ask(`{"id":"S","type":"subscribe"}`, "S", api.StatusOK); err != nil && s.times.Load() == 0 {
			return err
		}
		for range 50 {
			if err := w.ask(`{"id":"S","type":"hello"}`, "S", string(api.CodeBadRequest)); err != nil {
				return err
			}
		}
		return w.echo(1)
	})
}

// neverReads asks a program of its own for large answers and does not read them.
func neverReads(s *siege) error {
	program, err := dialLine(s.socket)
	if err != nil {
		return err
	}
	defer program.Close()
	if err := program.ask(`{"id":"L","type":"listen","protocol":"Large"}`, "L", api.StatusOK); err != nil {
		return err
	}
	go program.answerAll(letters(100 << 10))
	line := `{"id":"1","type":"call","target":"self","protocol":"Large"}`
	return s.each(8, func(w *lineConn) error {
		for i := 0; ; i++ {
			if err := w.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
				return err
			}
			text := strings.Replace(line, `"1"`, fmt.Sprintf(`"%d"`, i), 1) + "\n"
			if err := w.send(text); errors.Is(err, os.ErrDeadlineExceeded) {
				break // the daemon reads no more either
			} else if err != nil {
				return err
			}
		}
		s.hold()
		// What comes before the daemon cuts it off are whole answers.
		for {
			if err := w.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
				return err
			}
			a, err := w.answer()
			if err != nil {
				return nil
			}
			if a.Status != api.StatusOK && a.Code != api.CodeOverBudget && a.Code != api.CodeTimeout {
				return fmt.Errorf("%s: %.200s", a.Code, a.Data)
			}
		}
	})
}

// answerAll replies to all calls with data, or with an error if there is no room,
// until the connection ends.
func (w *lineConn) answerAll(data string) {
	for {
		a, err := w.answer()
		if err != nil {
			return
		}
		var in api.Incoming
		if a.Status != api.StatusIncoming || json.Unmarshal(a.Data, &in) != nil || in.Cancel {
			continue
		}
		if w.SetDeadline(time.Now().Add(patience)) != nil ||
			w.send(`{"id":"`+in.Incoming+`","type":"reply","incoming":"`+in.Incoming+`","data":`+data+"}\n") != nil {
			return
		}
	}
}

// descriptors sends open files where none is expected, or too many of them. The
// daemon's copies are seen to be closed: a pipe whose last writer is gone ends.
func descriptors(s *siege) error {
	return s.each(4, func(w *lineConn) error {
		r, p, err := os.Pipe()
		if err != nil {
			return err
		}
		defer r.Close()
		defer p.Close()
		hello := []byte(`{"id":"1","type":"hello"}` + "\n")
		for _, n := range []int{1, 4, 5, 250} {
			if err := w.sendFiles(hello, p, n); err != nil {
				return err
			}
			if _, err := w.expect("1", string(api.CodeBadRequest)); err != nil {
				return err
			}
		}
		if err := w.ask(`{"id":"1","type":"stream","target":"self","protocol":"Echo"}`, "1", api.StatusStreaming); err != nil {
			return err
		}
		if err := w.sendFiles([]byte("raw"), p, 3); err != nil {
			return err
		}
		back := make([]byte, 3)
		if _, err := w.r.Read(back); err != nil || string(back) != "raw" {
			return fmt.Errorf("the stream gives %q, %v", back, err)
		}
		half, err := dialLine(s.socket)
		if err != nil {
			return err
		}
		if err := errors.Join(half.sendFiles([]byte(`{"id":`), p, 2), half.Close(), w.Close(), p.Close()); err != nil {
			return err
		}
		if err := r.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		if n, err := r.Read(back); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("the daemon keeps descriptors: %d, %v", n, err)
		}
		return nil
	})
}

// sendFiles sends b with n copies of a descriptor.
func (w *lineConn) sendFiles(b []byte, f *os.File, n int) error {
	fds := make([]int, n)
	for i := range fds {
		fds[i] = int(f.Fd())
	}
	_, _, err := w.WriteMsgUnix(b, unix.UnixRights(fds...), nil)
	return err
}

// callRate makes calls as fast as they are answered, many at a time.
func callRate(s *siege) error {
	const together = 64
	var lines strings.Builder
	for i := range together {
		lines.WriteString(callLine(fmt.Sprint(i), "Echo", `{"message":"fast"}`) + "\n")
	}
	return s.repeat(16, func(w *lineConn) error {
		if err := w.send(lines.String()); err != nil {
			return err
		}
		for range together {
			if a, err := w.answer(); err != nil || a.Status != api.StatusOK {
				return fmt.Errorf("%s: %s, %w", a.Code, a.Data, err)
			}
		}
		return nil
	})
}

// pipelinedBadLines sends what is no request as fast as the answers are read.
func pipelinedBadLines(s *siege) error {
	const together = 200
	lines := strings.Repeat("x\n", together)
	return s.repeat(16, func(w *lineConn) error {
		if err := w.send(lines); err != nil {
			return err
		}
		for range together {
			if _, err := w.expect("null", string(api.CodeBadRequest)); err != nil {
				return err
			}
		}
		return nil
	})
}

// streamBytes keeps as many streams busy as the user may have.
func streamBytes(s *siege) error {
	chunk := []byte(letters(32 << 10))
	return s.repeat(streamsMost, func(w *lineConn) error {
		if err := w.ask(`{"id":"1","type":"stream","target":"self","protocol":"Echo"}`, "1", api.StatusStreaming); err != nil {
			return err
		}
		back := make([]byte, len(chunk))
		for s.ctx.Err() == nil {
			s.engaged()
			if _, err := w.Write(chunk); err != nil {
				return err
			}
			if _, err := io.ReadFull(w.r, back); err != nil || !bytes.Equal(back, chunk) {
				return fmt.Errorf("the stream gives other bytes, %w", err)
			}
		}
		return errors.Join(w.CloseWrite(), w.ended())
	})
}
