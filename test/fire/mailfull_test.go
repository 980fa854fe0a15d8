package fire

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
	"github.com/fastn-stack/fastnd/test/process"
)

// A full disk: its daemon acknowledges nothing, neither to a program nor to a
// peer, says what to do, and goes on by itself when there is room. Who sends to
// it waits. What was acknowledged arrives.
func TestMailOnAFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	t.Parallel()
	x, y := pair(t, process.Options{Stderr: quiet{}})
	disks := map[*process.Daemon]*disk{x: newDisk(t, x, "32M"), y: newDisk(t, y, "32M")}
	var acked []string
	send := func() error {
		text := fmt.Sprintf("%d %s", len(acked), strings.Repeat("x", 20_000))
		_, err := x.Client.Send(t.Context(), client.Message{Target: "peer", Protocol: api.ProtocolText, Data: textData(text)})
		if err == nil {
			acked = append(acked, string(textData(text)))
		}
		return err
	}
	if err := send(); err != nil {
		t.Fatal(full(err))
	}

	disks[x].fill(t)
	var err error
	eventually(t, "a message is refused", func() bool { err = send(); return err != nil })
	if e := api.AsError(err); e.Code != api.CodeStorage || !strings.Contains(e.Message, "full") || !strings.Contains(e.Hint, "df -h") {
		t.Errorf("on a full disk: %s", full(err))
	}
	if p := problems(t, x); len(p) != 1 || !strings.Contains(p[0].Text, "full") {
		t.Errorf("problems: %+v", p)
	}
	disks[x].free(t)
	eventually(t, "it goes on by itself", func() bool { return len(problems(t, x)) == 0 })
	if err := send(); err != nil {
		t.Fatal(full(err))
	}

	disks[y].fill(t)
	var p api.OutboxPage
	eventually(t, "messages wait", func() bool {
		if len(acked) < 400 {
			if err := send(); err != nil {
				t.Fatal(full(err))
			}
		}
		p = api.OutboxPage{}
		if err := x.Client.Verb(t.Context(), api.VerbOutboxList, nil, &p); err != nil {
			t.Fatal(full(err))
		}
		return len(p.Messages) > 0 && p.Messages[0].Tries > 0
	})
	t.Logf("%d wait: %s: %s", len(p.Messages), p.Messages[0].Code, p.Messages[0].Reason)
	if m := p.Messages[0]; m.State != api.StateQueued || m.NextTry == nil || strings.Contains(m.Reason, y.Home) {
		t.Errorf("it waits as %+v", m)
	}
	eventually(t, "the receiver knows why", func() bool { return len(problems(t, y)) == 1 })
	if _, err := y.Client.Call(t.Context(), client.Request{Target: "peer", Protocol: api.ProtocolEcho, Data: []byte(`{"message":"x"}`), Timeout: 20 * time.Second}); err != nil {
		t.Errorf("a call: %s", full(err))
	}
	disks[y].free(t)
	emptyOutbox(t, x, "")
	got := allMail(t, y)
	if len(got) != len(acked) {
		t.Errorf("%d messages arrived, %d were acknowledged", len(got), len(acked))
	}
	for i := range min(len(got), len(acked)) {
		if string(got[i].Data) != acked[i] {
			t.Fatalf("message %d is %.50s instead of %.50s", i, got[i].Data, acked[i])
		}
	}
	eventually(t, "the receiver goes on by itself", func() bool { return len(problems(t, y)) == 0 })
}

// fill takes all room that the disk has.
func (k *disk) fill(t *testing.T) {
	t.Helper()
	shell(t, `cat /dev/zero >"$1" 2>/dev/null || true`, filepath.Join(k.dir, "fill"))
}

func (k *disk) free(t *testing.T) {
	t.Helper()
	if err := os.Remove(filepath.Join(k.dir, "fill")); err != nil {
		t.Error(err)
	}
}
