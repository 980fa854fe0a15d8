package daemon

import (
	"os"
	"testing"

	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
)

// Every verb of the list is done, with arguments that are wrong where it takes
// any: none is unknown, and none fails within.
func TestEveryVerbIsKnown(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	for _, v := range api.Verbs() {
		var files []*os.File
		if v.Files > 0 {
			f, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
		_, err := d.doneAs(admin, v.Name, nil, files...)
		if code := api.CodeOf(err); code == api.CodeUnsupported || code == api.CodeInternal {
			t.Errorf("%s: %s", v.Name, full(err))
		}
		for _, f := range files {
			if f.Close() == nil {
				t.Errorf("%s left its descriptor open", v.Name)
			}
		}
	}
	receive(t, "daemon.stop", d.stopped)
}

// Arguments that no verb has are refused, not passed over.
func TestUnknownArgumentsAreRefused(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	for _, name := range []string{api.VerbIdentityShow, api.VerbContactInvite, api.VerbGrantAdd, api.VerbPeerPing} {
		refused(t, d.c, api.CodeBadRequest, name, map[string]string{"nonsense": "x"})
	}
}

// The socket refuses administrators' verbs to others. The test's own process is
// none: see testDaemon.
func TestAdministratorsVerbs(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	if h, err := d.c.Hello(limited(t)); err != nil || h.Admin || h.UID != admin.UID || !h.PerUser || h.Daemon != "test" {
		t.Fatalf("hello: %+v, %v", h, err)
	}
	admins := 0
	for _, v := range api.Verbs() {
		if v.Admin {
			admins++
			refused(t, d.c, api.CodeNotPermitted, v.Name, nil)
		}
	}
	if admins == 0 {
		t.Error("no verb is for administrators")
	}
	select {
	case <-d.stopped:
		t.Error("the daemon was stopped")
	default:
	}
}

func TestDisconnect(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	s := openStream(t, d, api.TargetSelf, api.ProtocolEcho)
	for user, code := range map[string]api.Code{"": api.CodeBadRequest, "no such user": api.CodeNotFound} {
		_, err := d.doneAs(admin, api.VerbDaemonDisconnect, api.UserArgs{User: user})
		wantCode(t, err, code)
	}
	got, err := d.doneAs(admin, api.VerbDaemonDisconnect, api.UserArgs{User: admin.User})
	if n := got.(api.Disconnected).Connections; err != nil || n < 2 {
		t.Errorf("%d connections were cut, %v; want the stream's and the client's", n, err)
	}
	if r := result(t, s); r.Clean {
		t.Errorf("the stream that was cut ended with %+v", r)
	}
	wantEcho(t, d.c, api.TargetSelf) // on a new connection
}
