package main

import (
	"bufio"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"github.com/fastn-stack/fastnd/service/api"
)

// answering is a daemon that gives every connection this line, and its path.
func answering(t *testing.T, line []byte) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				if _, err := bufio.NewReader(c).ReadBytes('\n'); err == nil {
					_, _ = c.Write(line)
				}
			})
		}
	})
	return path
}

// A daemon that is locked, or refuses its clients, is not measured as a fast or a
// small one.
func TestOnlyAnswersCount(t *testing.T) {
	locked := &api.Error{Code: api.CodeLocked, Message: "the node key is refused"}
	for name, tc := range map[string]struct {
		line []byte
		ok   bool
	}{
		"ok":             {api.AppendAnswer(nil, "1", api.StatusOK, []byte(`{}`)), true},
		"locked":         {api.AppendError(nil, "1", false, locked), false},
		"refused":        {api.AppendError(nil, "", true, api.Errorf(api.CodeOverBudget, "too many connections")), false},
		"another answer": {api.AppendAnswer(nil, "2", api.StatusOK, []byte(`{}`)), false},
		"nothing":        {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			path := answering(t, tc.line)
			c, err := dialLine(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.ask(echoSelf()); (err == nil) != tc.ok {
				t.Errorf("the first answer: %v", err)
			}
			conns, err := greeted(t.Context(), path, 3)
			defer hangUp(conns)
			if (err == nil) != tc.ok || tc.ok && len(conns) != 3 {
				t.Errorf("%d idle clients: %v", len(conns), err)
			}
		})
	}
}
