package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/internal/ipc"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
)

func (d *testDaemon) limitOf(setting string) int64 {
	for _, b := range d.status().Budgets {
		if b.Setting == setting {
			return b.Limit
		}
	}
	return -1
}

func (d *testDaemon) reload() (api.ReloadResult, error) {
	d.t.Helper()
	return d.Reload(limited(d.t))
}

func (d *testDaemon) mustReload() api.ReloadResult {
	d.t.Helper()
	r, err := d.reload()
	if err != nil {
		d.t.Fatal(full(err))
	}
	return r
}

func TestReloadRefusesABadFileAndServesOn(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{config: "[budgets]\nper_uid_requests = 7\n"})
	d.configure(loopbackOnly + "[budgets]\nper_uid_requests = 8\nper_uid_reqests = 9\n")
	_, err := d.reload()
	e := wantCode(t, err, api.CodeBadRequest)
	wantText(t, e.Message, homeConfig, "per_uid_reqests", "stays")
	wantText(t, e.Hint, "daemon reload")
	if got := d.limitOf("budgets.per_uid_requests"); got != 7 {
		t.Errorf("per_uid_requests is %d, want the 7 that was in force", got)
	}
	if p := d.status().Problems; len(p) != 1 || !strings.Contains(p[0].Text, "per_uid_reqests") || p[0].Fix == "" {
		t.Errorf("status tells %+v", p)
	}
	wantEcho(t, d.c, api.TargetSelf)

	d.configure(loopbackOnly + "[budgets]\nper_uid_requests = 8\n")
	r := d.mustReload()
	wantNames(t, "applied", r.Applied, "budgets.per_uid_requests")
	wantNames(t, "for a restart", r.Restart)
	if got := d.limitOf("budgets.per_uid_requests"); got != 8 {
		t.Errorf("per_uid_requests is %d, want 8", got)
	}
	if p := d.status().Problems; len(p) != 0 {
		t.Errorf("status still tells %+v", p)
	}
}

// A key that needs a restart is told as long as it is not in force.
func TestReloadTellsWhatNeedsARestart(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	d.configure(loopbackOnly + "tcp = false\n")
	for range 2 {
		r := d.mustReload()
		wantNames(t, "for a restart", r.Restart, "p2p.tcp")
		wantNames(t, "applied", r.Applied)
		if p := d.status().Problems; len(p) != 1 || !strings.Contains(p[0].Text, "p2p.tcp") {
			t.Fatalf("status tells %+v", p)
		}
	}
	d.configure(loopbackOnly)
	if r := d.mustReload(); len(r.Restart) != 0 {
		t.Errorf("for a restart: %q, though the file says what is in force", r.Restart)
	}
	if p := d.status().Problems; len(p) != 0 {
		t.Errorf("status tells %+v", p)
	}
}

// What is told to be applied is.
func TestReloadDoesNotClaimTooMuch(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	d.configure(loopbackOnly + "announce = [\"/ip4/2.3.4.5/udp/4100/quic-v1\"]\n[identity]\ndelegation_ttl = \"2h\"\n")
	r := d.mustReload()
	announced := slices.ContainsFunc(d.status().Node.Addresses, func(a string) bool { return strings.HasPrefix(a, "/ip4/2.3.4.5/") })
	if slices.Contains(r.Applied, "p2p.announce") != announced {
		t.Errorf("applied: %q, the address is announced: %v", r.Applied, announced)
	}
	if !slices.Contains(r.Applied, "p2p.announce") && !slices.Contains(r.Restart, "p2p.announce") {
		t.Errorf("nothing is told of p2p.announce: %+v", r)
	}
}

// The keystore is read again with the configuration; if that fails, what was in
// force stays.
func TestReloadWithARefusedKeystore(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	d.own()
	mode(t, d.home+"/keystore/identities", 0o755)
	d.configure(loopbackOnly + "[budgets]\nper_uid_requests = 8\n")
	_, err := d.reload()
	if err == nil {
		t.Fatal("a keystore that others may read was taken")
	}
	if got := d.limitOf("budgets.per_uid_requests"); got == 8 {
		t.Error("a refused reload applied a budget")
	}
	p := d.status().Problems
	if len(p) != 1 || !strings.Contains(p[0].Fix, "chmod 700") {
		t.Fatalf("status tells %+v", p)
	}
	if e := api.AsError(err); e.Hint != p[0].Fix {
		t.Errorf("the error's hint is %q, status says %q", e.Hint, p[0].Fix)
	}
	wantEcho(t, d.c, api.TargetSelf)
	d.runFix(p[0].Fix)
	d.mustReload()
	if p := d.status().Problems; len(p) != 0 {
		t.Errorf("status still tells %+v", p)
	}
}

// An identity that is made while the keystore is read again is not forgotten:
// its user would be given another.
func TestReloadForgetsNoNewIdentity(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	done, reloaded := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			if _, err := d.Reload(context.Background()); err != nil {
				reloaded <- err
				return
			}
			select {
			case <-done:
				reloaded <- nil
				return
			default:
			}
		}
	}()
	for i := range 50 {
		c := ipc.Caller{UID: uint32(5000 + i), User: fmt.Sprint("user", i)}
		made, err := d.doneAs(c, api.VerbIdentityShow, nil)
		if err != nil {
			t.Fatal(full(err))
		}
		if _, err := d.doneAs(c, api.VerbIdentityShow, api.IdentityArgs{Identity: made.(api.Identity).ID52}); err != nil {
			t.Errorf("the identity of user %d is gone: %s", i, full(err))
		}
	}
	close(done)
	if err := receive(t, "the reloads", reloaded); err != nil {
		t.Error(full(err))
	}
}
