package ipc_test

import (
	"strings"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/ipc"
)

// Who has many lines refused is read slowly, on a new connection too; every line is
// still answered, and others of another uid do not wait.
func TestManyRefusedLines(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{})
	refusedSlowly := func(lines int) {
		t.Helper()
		c := dial(t, path)
		defer c.Close()
		begin := time.Now()
		for range lines {
			c.send("x")
		}
		for range lines {
			c.want(c.answer(), "null", "bad_request")
		}
		if took := time.Since(begin); took < 50*time.Millisecond {
			t.Errorf("%d lines were refused in %v", lines, took)
		}
		c.works()
	}
	refusedSlowly(300)
	refusedSlowly(100)
	b.As.Store(4242)
	other := dial(t, path)
	other.works()
	other.want(other.ask("x"), "null", "bad_request")
}

// A new connection waits too until its uid has paid.
func TestManyConnections(t *testing.T) {
	path, _, _ := serve(t, ipc.Options{})
	c := dial(t, path)
	long := strings.Repeat("x", 900<<10)
	begin := time.Now() // time that passes here on a busy machine pays too
	for range 3 {       // the last is answered before it is counted
		c.want(c.ask(long), "null", "bad_request")
	}
	dial(t, path).works()
	if took := time.Since(begin); took < 50*time.Millisecond {
		t.Errorf("a connection was served after %v", took)
	}
}
