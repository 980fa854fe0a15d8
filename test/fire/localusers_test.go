package fire

import (
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/peercred"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/test/process"
)

// firstUser and those behind it are many users of one machine.
const firstUser = 55000

// What a user of TestLocalUsers may have.
const (
	usersConnections = 3
	usersRequests    = 2
	usersStreams     = 1
)

// Many users of a machine are served at once, each with all of his budgets in use:
// what is refused to one for what he has is not refused to another, and what he gives
// back is his again.
func TestLocalUsers(t *testing.T) {
	d := startSystem(t, "[budgets]", fmt.Sprintf("per_uid_connections = %d", usersConnections),
		fmt.Sprintf("per_uid_requests = %d", usersRequests), fmt.Sprintf("per_uid_streams = %d", usersStreams))
	all := make([]*crowdUser, testutil.Rounds(24, 1000))
	for i := range all {
		all[i] = &crowdUser{d: d, uid: firstUser + uint32(i)}
		defer all[i].leave()
		if err := all[i].fill(); err != nil {
			t.Fatalf("user %d of %d: %v", i+1, len(all), err)
		}
	}
	for i, u := range all { // with everybody else's in use
		if err := u.stillServed(); err != nil {
			t.Errorf("user %d of %d: %v", i+1, len(all), err)
		}
	}
	for i, u := range all {
		u.leave()
		if err := u.servedAgain(); err != nil {
			t.Errorf("user %d of %d comes again: %v", i+1, len(all), err)
		}
	}
}

// crowdUser is one of many users, whose programs this process is.
type crowdUser struct {
	d    *process.Daemon
	uid  uint32
	open []*lineConn
}

func (u *crowdUser) leave() {
	for _, w := range u.open {
		w.Close()
	}
	u.open = nil
}

// dial opens a connection that is kept until leave.
func (u *crowdUser) dial() (*lineConn, error) {
	c, err := u.d.DialAs(u.uid)
	if err != nil {
		return nil, err
	}
	w, err := newLine(c)
	if err == nil {
		u.open = append(u.open, w)
	}
	return w, err
}

const streamLine = `{"id":"1","type":"stream","target":"self","protocol":"Echo"}`

// fill is served with all that the user may have, and refused more of each.
func (u *crowdUser) fill() error {
	for i := range usersConnections {
		w, err := u.dial()
		if err == nil {
			err = w.echo(i) // the first makes his identity
		}
		if err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
	}
	full, stream, line := u.open[0], u.open[1], u.open[2]
	for i := range usersRequests {
		id := fmt.Sprint("s", i)
		if err := full.ask(`{"id":"`+id+`","type":"subscribe"}`, id, api.StatusOK); err != nil {
			return err
		}
	}
	if err := stream.ask(streamLine, "1", api.StatusStreaming); err != nil {
		return err
	}
	more, err := u.dial()
	if err != nil {
		return err
	}
	return errors.Join(u.refused(more, "null", "budgets.per_uid_connections"), more.ended(),
		line.send(callLine("1", "Echo", `{"message":"x"}`)+"\n"), u.refused(line, "1", "budgets.per_uid_requests"),
		line.send(streamLine+"\n"), u.refused(line, "1", "budgets.per_uid_streams"))
}

// refused expects a refusal that names this user and the setting.
func (u *crowdUser) refused(w *lineConn, id, setting string) error {
	a, err := w.expect(id, string(api.CodeOverBudget))
	if err != nil {
		return err
	}
	return names(a, setting, peercred.UserName(u.uid))
}

// stillServed has bytes go through the stream, and an answer come beside it.
func (u *crowdUser) stillServed() error {
	stream, line := u.open[1], u.open[2]
	if err := errors.Join(stream.SetDeadline(time.Now().Add(patience)), line.SetDeadline(time.Now().Add(patience)), stream.send("still here")); err != nil {
		return err
	}
	got := make([]byte, len("still here"))
	if _, err := io.ReadFull(stream.r, got); err != nil || string(got) != "still here" {
		return fmt.Errorf("%q of its stream came back: %w", got, err)
	}
	return line.ask(`{"id":"h","type":"hello"}`, "h", api.StatusOK)
}

// servedAgain waits until the daemon has seen the user leave.
func (u *crowdUser) servedAgain() error {
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		w, err := u.dial()
		if err != nil {
			return err
		}
		err = w.echo(0)
		u.leave()
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}
