package ipc_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fastn-stack/fastnd/service/api"
)

// fuzzPatience is shorter than the time after which the fuzzer counts an input as
// a hanging one, of which it tells nothing.
const fuzzPatience = 4 * time.Second

// scripted is a client that sends what it is told to and notes what it is owed.
type scripted struct {
	t       *testing.T
	conn    *net.UnixConn
	devNull *os.File
	done    chan struct{} // closed when the reader has ended

	// What was sent.
	asked   []asked // one for each answer owed
	sent    []byte  // everything
	partial []byte  // of the last line
	tooLong bool    // the daemon may close
	half    bool    // our direction ended
	over    bool    // closed by us

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced with each line
	lines    int
	seen     int // lines that waitLine was called for
	answers  []api.Response
	raw      []byte
	isRaw    bool
	eof      bool
	readErr  error
	incoming string
	faults   []string
}

// asked is a line that was sent.
type asked struct {
	id   string
	noID bool
	kind string
	big  bool // there may be no room for it, and its id may be far behind
	end  int  // offset behind its newline
}

func newScripted(t *testing.T, path string) *scripted {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &scripted{t: t, conn: c, devNull: null, done: make(chan struct{}), changed: make(chan struct{})}
	go s.read()
	return s
}

func (s *scripted) send(b []byte, withFile bool) {
	if s.half || s.over {
		return
	}
	var oob []byte
	if withFile {
		oob = unix.UnixRights(int(s.devNull.Fd()))
	}
	_ = s.conn.SetWriteDeadline(time.Now().Add(fuzzPatience))
	n, _, err := s.conn.WriteMsgUnix(b, oob, nil)
	for err == nil && n < len(b) {
		var more int
		more, err = s.conn.Write(b[n:])
		n += more
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.t.Fatalf("the daemon does not read; it has read %d of %d bytes", n, len(b))
	}
	s.owe(b[:n])
}

// owe notes the answers that b calls for.
func (s *scripted) owe(b []byte) {
	for len(b) > 0 && !s.tooLong {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			i = len(b) - 1
		}
		s.partial = append(s.partial, b[:i+1]...)
		s.sent = append(s.sent, b[:i+1]...)
		b = b[i+1:]
		ended := s.partial[len(s.partial)-1] == '\n'
		line := bytes.TrimSuffix(s.partial, []byte("\n"))
		switch {
		case len(line) >= api.MaxLine:
			s.tooLong = true
			s.asked = append(s.asked, asked{noID: true, end: len(s.sent)})
		case ended:
			s.oweLine(bytes.TrimSuffix(line, []byte("\r")))
			s.partial = s.partial[:0]
		}
	}
	s.sent = append(s.sent, b...)
}

func (s *scripted) oweLine(line []byte) {
	if len(line) == 0 {
		return
	}
	r, id, ok, err := api.ParseRequest(line)
	a := asked{id: id, noID: !ok, big: len(line) >= 32<<10, end: len(s.sent)}
	if err == nil {
		a.kind = r.Type
	}
	s.asked = append(s.asked, a)
}

func (s *scripted) read() {
	defer close(s.done)
	r := bufio.NewReader(s.conn)
	for {
		line, err := r.ReadBytes('\n')
		if err == nil {
			err = s.take(line)
		} else if len(line) > 0 && errors.Is(err, io.EOF) { // else we closed
			s.fault("an unfinished line: " + string(line))
		}
		if err != nil {
			s.ended(err)
			return
		}
		if s.isRaw { // only this goroutine sets it
			raw, err := io.ReadAll(r)
			s.mu.Lock()
			s.raw = raw
			s.mu.Unlock()
			s.ended(err)
			return
		}
	}
}

func (s *scripted) ended(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.eof, s.readErr = true, err
	s.tell()
}

// tell wakes who waits. s.mu is held.
func (s *scripted) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *scripted) fault(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, text)
}

// take notes one line of the daemon.
func (s *scripted) take(line []byte) error {
	var a api.Response
	if err := json.Unmarshal(line, &a); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.tell()
	s.lines++
	switch a.Status {
	case api.StatusIncoming, api.StatusEvent:
		if a.ID == nil || !slices.ContainsFunc(s.answers, func(b api.Response) bool { return b.ID != nil && *b.ID == *a.ID && b.Status == api.StatusOK }) {
			s.faults = append(s.faults, "told before its ok: "+string(line))
		}
		var in api.Incoming
		if a.Status == api.StatusIncoming && json.Unmarshal(a.Data, &in) == nil {
			s.incoming = in.Incoming
		}
		return nil
	case api.StatusStreaming:
		s.isRaw = true
	case api.StatusOK:
	case api.StatusError:
		if a.Code == api.CodeInternal || a.Code == "" {
			s.faults = append(s.faults, "a defect: "+string(line))
		}
	default:
		s.faults = append(s.faults, "no status of an answer: "+string(line))
	}
	s.answers = append(s.answers, a)
	return nil
}

func (s *scripted) lastIncoming() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.incoming
}

// until waits for what the reader makes true; false after the time.
func (s *scripted) until(most time.Duration, ok func() bool) bool {
	limit := time.After(most)
	for {
		s.mu.Lock()
		fulfilled, changed := ok(), s.changed
		s.mu.Unlock()
		if fulfilled {
			return true
		}
		select {
		case <-changed:
		case <-limit:
			return false
		}
	}
}

// waitLine gives the daemon the time to say one more thing. That it says nothing
// is no fault: it may wait for us.
func (s *scripted) waitLine() bool {
	s.seen++
	return s.until(20*time.Millisecond, func() bool { return s.lines >= s.seen || s.eof })
}

func (s *scripted) end() {
	if !s.half && !s.over {
		s.half = true
		_ = s.conn.CloseWrite() // fails only if the daemon has closed
	}
}

// settle waits until everything is answered, and for the end that must follow
// the client's own unless something goes on behind its answer.
func (s *scripted) settle() {
	if s.over {
		return
	}
	s.answered()
	s.mu.Lock()
	early := s.eof && !s.half && !s.tooLong && !s.isRaw
	lines := !s.eof && !s.half && !s.tooLong && !s.isRaw
	s.mu.Unlock()
	if early {
		s.t.Fatalf("the daemon closed a connection of lines: %v", s.readErr)
	}
	if lines {
		s.again()
	}
	s.end()
	goesOn := slices.ContainsFunc(s.asked, asked.goesOn)
	if !goesOn && !s.until(fuzzPatience, func() bool { return s.eof }) {
		s.t.Fatal("the daemon does not close after the client's end")
	}
}

// goesOn tells requests whose id is in use behind their answer.
func (a asked) goesOn() bool { return a.kind == api.TypeListen || a.kind == api.TypeSubscribe }

func (s *scripted) answered() {
	s.t.Helper()
	if !s.until(fuzzPatience, func() bool { return len(s.answers) >= len(s.asked) || s.isRaw || s.eof }) {
		s.t.Fatalf("%d of %d lines are answered", len(s.answers), len(s.asked))
	}
}

// again uses each id once more: all that was answered is free.
func (s *scripted) again() {
	s.send([]byte("\n"), false) // ends what was begun
	s.answered()
	s.mu.Lock()
	raw := s.isRaw
	s.mu.Unlock()
	if raw {
		return
	}
	for _, a := range slices.Clone(s.asked) {
		if a.noID || slices.ContainsFunc(s.asked, func(b asked) bool { return b.goesOn() && b.id == a.id }) {
			continue
		}
		s.send(api.AppendRequest(nil, &api.Request{ID: a.id, Type: api.VerbPeerList}), false)
		s.answered()
		s.mu.Lock()
		got := s.answers[len(s.answers)-1]
		s.mu.Unlock()
		if got.Status != api.StatusOK && got.Code != api.CodeOverBudget {
			s.t.Fatalf("id %q is not free again: %s", a.id, got.Data)
		}
	}
}

func (s *scripted) close() {
	if !s.over {
		s.over = true
		s.conn.Close()
		<-s.done
		s.devNull.Close()
	}
}

// check compares what was answered with what was asked. A connection that was
// closed in between may owe some answers.
func (s *scripted) check(listens bool) {
	for _, f := range s.faults {
		s.t.Error(f)
	}
	owed := s.asked
	if s.isRaw {
		n := len(s.answers)
		if n > len(owed) {
			s.t.Fatalf("%d answers to %d lines", n, len(owed))
		}
		opens := owed[n-1]
		if got := s.answers[n-1].ID; got == nil || opens.id != *got || opens.kind != api.TypeStream && opens.kind != api.TypeAccept {
			s.t.Fatalf("line %d became raw, which is %+v", n, opens)
		}
		if rest := s.sent[opens.end:]; !listens && opens.kind == api.TypeStream && !bytes.HasPrefix(rest, s.raw) {
			s.t.Errorf("Echo answers %q with %q", rest, s.raw)
		}
		owed = owed[:n]
	}
	open := slices.Clone(owed)
	for _, a := range s.answers {
		i := slices.IndexFunc(open, func(o asked) bool {
			return o.noID == (a.ID == nil) && (o.noID || o.id == *a.ID) || o.big && a.ID == nil && a.Code == api.CodeOverBudget
		})
		if i < 0 {
			s.t.Fatalf("an answer that nobody asked for, or a second one: %+v %s", a, a.Data)
		}
		open = slices.Delete(open, i, i+1)
	}
}
