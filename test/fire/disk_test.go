package fire

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
	"github.com/fastn-stack/fastnd/test/process"
)

// TestDiskFails has every read and write of the disk fail (EIO) under a running
// daemon: changes are refused, the rest goes on. Nothing is stored in the folder that
// is there once the disk was taken away, nor on another disk in its place before the
// restart that the hint names.
func TestDiskFails(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	d := start(t, process.Options{})
	self := ownID(t, d)
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	image, copied := filepath.Join(dir, "image"), filepath.Join(dir, "copy")
	shell(t, `truncate -s 32M "$1" && mkfs.ext4 -q "$1"`, image)
	mount(t, image, d.Home, `mkdir "$2.keep" && cp -a "$2/." "$2.keep/"`)
	shell(t, `cp -a "$1.keep/." "$1/" && rm -r "$1.keep" && chmod 700 "$1" && sync --file-system "$1"`, d.Home)
	if err := d.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Kill() }) // before the disk goes
	add := func(name string) error {
		return d.Client.Verb(t.Context(), api.VerbGrantAdd, api.GrantArgs{Who: api.WhoContacts, Protocol: name}, nil)
	}
	if err := add("Before"); err != nil {
		t.Fatal(err)
	}

	send := func(text string) (api.SendResult, error) {
		return d.Client.Send(t.Context(), client.Message{Target: api.TargetSelf, Protocol: api.ProtocolText, Data: textData(text)})
	}
	deliver := func(text string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		sent, err := send(text)
		if err != nil {
			t.Fatal(full(err))
		}
		if m, err := d.Client.WaitFinal(ctx, sent.MessageID); err != nil || m.State != api.StateDelivered {
			t.Fatalf("%q: %+v, %v", text, m, full(err))
		}
	}
	// Not under way when the disk dies: this way to have it die tells success of what
	// is just being synced.
	deliver("before")

	shutdown(t, d.Home)
	if _, err := send("refused"); api.CodeOf(err) != api.CodeStorage || api.AsError(err).Hint == "" {
		t.Errorf("a message while the disk is dead: %s", full(err))
	}
	err := add("Refused")
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.CodeStorage || e.Hint == "" {
		t.Fatalf("a write to a dead disk: %v (%s)", err, api.CodeOf(err))
	}
	t.Logf("%s; hint: %s", e.Message, e.Hint)
	if _, err := d.Client.Call(t.Context(), client.Request{Target: api.TargetSelf, Protocol: "Echo", Data: []byte(`{"message":"x"}`)}); err != nil {
		t.Errorf("a call: %v", err)
	}
	if p := problems(t, d); len(p) != 1 {
		t.Errorf("problems: %+v", p)
	}

	// Below it is the folder of the first daemon, and behind it the other disk.
	elsewhere := func() {
		t.Helper()
		_, err := send("lost")
		for _, err := range []error{err, add("Lost")} {
			e := api.AsError(err)
			if e.Code != api.CodeStorage || !strings.Contains(e.Message, "is another folder than fastnd has open") {
				t.Errorf("stored elsewhere: %s", full(err))
			}
			if hint := fmt.Sprintf("kill %[1]d; tail --pid=%[1]d -f /dev/null; fastn --home %[2]s daemon start", d.PID(), d.Home); !strings.HasSuffix(e.Hint, hint) {
				t.Errorf("the hint is %q", e.Hint)
			}
		}
	}
	shell(t, `cp "$1" "$2"`, image, copied)
	shell(t, `umount --lazy "$1"`, d.Home)
	elsewhere()
	mount(t, copied, d.Home, ":")
	t.Cleanup(func() { _ = d.Kill() })
	elsewhere()
	_ = d.Stop() // as the hint says; it cannot end well
	if err := d.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p := problems(t, d); len(p) > 0 {
		t.Errorf("on the other disk: %+v", p)
	}
	if err := add("After"); err != nil {
		t.Fatal(err)
	}
	deliver("after")
	if err := d.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := d.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, m := range allMail(t, d) {
		texts = append(texts, string(m.Data))
	}
	if want := []string{`{"text":"before"}`, `{"text":"after"}`}; !slices.Equal(texts, want) {
		t.Errorf("in the inbox are %q, want %q", texts, want)
	}
	var grants []api.Grant
	if err := d.Client.Verb(t.Context(), api.VerbGrantList, nil, &grants); err != nil {
		t.Fatal(err)
	}
	if len(grants) != 2 || grants[0].Protocol != "After" || grants[1].Protocol != "Before" || ownID(t, d) != self {
		t.Errorf("after a restart: %+v, %s was %s", grants, ownID(t, d), self)
	}
}

func ownID(t *testing.T, d *process.Daemon) string {
	t.Helper()
	var own api.Identity
	if err := d.Client.Verb(t.Context(), api.VerbIdentityShow, nil, &own); err != nil {
		t.Fatal(err)
	}
	return own.ID52
}

func problems(t *testing.T, d *process.Daemon) []api.Problem {
	t.Helper()
	var s api.Status
	if err := d.Client.Verb(t.Context(), api.VerbDaemonStatus, nil, &s); err != nil {
		t.Fatal(err)
	}
	return s.Problems
}

func shell(t *testing.T, script string, args ...string) {
	t.Helper()
	if out, err := exec.Command("sh", append([]string{"-euc", script, "sh"}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", script, args, err, out)
	}
}

// mount mounts an image after the script before, until the test ends.
func mount(t *testing.T, image, dir, before string) {
	t.Helper()
	shell(t, before+` && mount -o loop "$1" "$2"`, image, dir)
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// shutdown makes a mounted ext4 fail as a disk that was pulled out does.
func shutdown(t *testing.T, dir string) {
	t.Helper()
	const (
		ext4Shutdown = 0x8004587d // EXT4_IOC_SHUTDOWN
		noLogFlush   = 2
	)
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.IoctlSetPointerInt(int(f.Fd()), ext4Shutdown, noLogFlush); err != nil {
		t.Fatal(err)
	}
}
