package daemon

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/sqlite"
	"github.com/fastn-stack/fastnd/internal/store"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
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

// A write that waits for the database's lock, which another process holds, holds up
// all others.
func TestProbeOfHungWriter(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	release := d.holdWriter()
	d.hangs("the store's writer")
	// It may be a repair that holds it up: that is waited for, while it gets on.
	done := repairing(t, d.Daemon)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := d.probe(ctx); err != nil {
		t.Errorf("while a database is repaired: %v", err)
	}
	extends(t, d.Daemon)
	done()
	d.hangs("the store's writer")
	release()
	if err := d.probe(limited(t)); err != nil {
		t.Errorf("after the hang: %v", err)
	}
}

// holdWriter has another process hold the lock of the store's database.
func (d *testDaemon) holdWriter() (release func()) {
	d.t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(d.home, store.File))
	if err != nil {
		d.t.Fatal(err)
	}
	conn, err := db.Conn(d.t.Context())
	if err == nil {
		_, err = conn.ExecContext(d.t.Context(), "BEGIN IMMEDIATE")
	}
	if err != nil {
		d.t.Fatal(errors.Join(err, db.Close()))
	}
	release = sync.OnceFunc(func() {
		_, err := conn.ExecContext(context.Background(), "ROLLBACK")
		if err := errors.Join(err, conn.Close(), db.Close()); err != nil {
			d.t.Error(err)
		}
	})
	d.t.Cleanup(release)
	return release
}

// repairing has a damaged database repaired until done is called.
func repairing(t *testing.T, d *Daemon) (done func()) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.db")
	o := sqlite.Options{Migrations: []sqlite.Migration{{Name: "notes", SQL: "CREATE TABLE notes (n INTEGER PRIMARY KEY, text TEXT)"}}}
	db, err := sqlite.Open(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(t.Context(), func(tx *sql.Tx) error {
		for n := range 500 {
			if _, err := tx.Exec("INSERT INTO notes VALUES (?, ?)", n, strings.Repeat("x", 200)); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, db.Close(), os.Truncate(path, 8*4096)); err != nil {
		t.Fatal(err)
	}
	began, end := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	o.Progress, o.Salvage = &d.opening, func(int64, []any) (string, []any, bool) {
		select {
		case <-began:
		default:
			close(began)
			<-end
		}
		return "", nil, false
	}
	wg.Go(func() {
		db, err := sqlite.Open(context.Background(), path, o)
		if err == nil {
			err = db.Close()
		}
		if err != nil {
			t.Error(err)
		}
	})
	select {
	case <-began:
	case <-time.After(patience):
		t.Fatal("no repair")
	}
	return func() {
		close(end)
		wg.Wait()
	}
}

// extends wants systemd to be asked for more time to start.
func extends(t *testing.T, d *Daemon) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	d.extend()
	b := make([]byte, 1000)
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	n, err := conn.Read(b)
	if err != nil || !strings.HasPrefix(string(b[:n]), "EXTEND_TIMEOUT_USEC=60000000\n") {
		t.Errorf("%q, %v", b[:n], err)
	}
	os.Unsetenv("NOTIFY_SOCKET") // the test's end sets it as it was
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

// A daemon that stops does not leave its own request behind in the socket: systemd
// would start another one for it.
func TestProbeIsNotLeftInTheSocket(t *testing.T) {
	testutil.LeakCheck(t)
	path := filepath.Join(newHome(t), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := &Daemon{place: &place{socket: path}}
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan error, 1)
	go func() { asked <- d.askSocket(ctx, api.TypeHello) }()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cancel()
	line, err := bufio.NewReader(conn).ReadBytes('\n')
	if err != nil {
		t.Fatalf("the request was %q: %v", line, err)
	}
	if _, err := conn.Write([]byte(`{"id":"watchdog","status":"ok","data":{}}` + "\n")); err != nil {
		t.Errorf("it does not wait for the answer: %v", err)
	}
	if err := <-asked; err != nil {
		t.Error(err)
	}
	// No other is made.
	if err := d.askSocket(ctx, api.TypeHello); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
