package ipc_test

import (
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/ipc"
)

// Who has many lines refused is read slowly; every line is still answered, and
// others of another uid do not wait.
func TestManyRefusedLines(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{})
	const lines = 300
	c := dial(t, path)
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
	b.As.Store(4242)
	other := dial(t, path)
	other.works()
	other.want(other.ask("x"), "null", "bad_request")
}
