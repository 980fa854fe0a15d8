package main

import (
	"testing"

	"github.com/fastn-stack/fastnd/service/api"
)

// What "fastn inbox read" leaves to programs is what the daemon leaves to them: all
// but Text of the default instance.
func TestForProgram(t *testing.T) {
	for _, c := range []struct {
		m    api.InboxMessage
		want bool
	}{
		{api.InboxMessage{Protocol: api.ProtocolText}, false},
		{api.InboxMessage{Protocol: api.ProtocolText, Instance: "work"}, true},
		{api.InboxMessage{Protocol: "Orders"}, true},
		{api.InboxMessage{Protocol: "Orders", Read: true}, false},
	} {
		if got := forProgram(c.m); got != c.want {
			t.Errorf("%+v: %v", c.m, got)
		}
	}
}
