package daemon

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/store"
	"github.com/fastn-stack/fastnd/internal/testutil"
)

// The watchdog's question is answered by a daemon that works, also by a locked one.
func TestProbe(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	if err := d.probe(limited(t)); err != nil {
		t.Error(err)
	}
	d.stop()
	if d.probe(limited(t)) == nil {
		t.Error("a closed daemon answered")
	}
	if err := os.Chmod(filepath.Join(d.home, "keystore", "node.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	d = d.again(t, opts{})
	if d.locked.Load() == nil {
		t.Fatal("not locked")
	}
	if err := d.probe(limited(t)); err != nil {
		t.Error(err)
	}
}

// hangs probes and wants to be told that what, and nothing else, does not answer.
func (d *testDaemon) hangs(what string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 300*time.Millisecond)
	defer cancel()
	err := d.probe(ctx)
	if err == nil || !strings.Contains(err.Error(), what) || !strings.Contains(d.log.String(), what) {
		d.t.Errorf("probe: %v, want one of %s", err, what)
	}
}

func TestProbeOfHungMainLoop(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	d.reloading.Lock()
	d.hup <- syscall.SIGHUP
	d.hangs("the main loop")
	d.reloading.Unlock()
	if err := d.probe(limited(t)); err != nil {
		t.Errorf("after the hang: %v", err)
	}
}

// Another process holds the database's lock, so that a write that waits for it
// holds up all others.
func TestProbeOfHungWriter(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	db, err := sql.Open("sqlite", "file:"+filepath.Join(d.home, store.File))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	d.hangs("the store's writer")
	if _, err := conn.ExecContext(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if err := d.probe(limited(t)); err != nil {
		t.Errorf("after the hang: %v", err)
	}
}

// The control socket takes connections, but a lock on the way to the answer is
// never given back.
func TestProbeOfHungSocket(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	d.names.mu.Lock()
	d.hangs("hello on the control socket")
	d.names.mu.Unlock()
	if err := d.probe(limited(t)); err != nil {
		t.Errorf("after the hang: %v", err)
	}
}
