package messages

import (
	"io"
	"os"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/testutil"
)

// A store of many messages is whole when it starts, also after a kill, when the log is
// to be read. The bench times it with a million.
func TestStartWithManyMessages(t *testing.T) {
	testutil.LeakCheck(t)
	n := testutil.Rounds(5_000, 200_000)
	b := newBoxAt(t, t.TempDir())
	const batch = 5_000
	for i := 0; i < n; i += batch {
		ms := make([]Message, batch)
		for j := range ms {
			ms[j] = lane.message(uuid(int64(i+j)), "a message of the usual length, more or less")
		}
		if got := b.take(ms...); !got[0].Fresh || !got[batch-1].Fresh {
			t.Fatal(got[0].Err)
		}
	}
	// What a kill leaves: the file and its log as they are.
	killed := &box{t: t, dir: t.TempDir(), clock: b.clock, limits: b.limits}
	for _, part := range []string{"", "-wal", ".schema"} {
		copyFile(t, b.path()+part, killed.path()+part)
	}
	b.must(b.Close())
	info, err := os.Stat(b.path())
	b.must(err)
	for name, b := range map[string]*box{"closed": b, "killed": killed} {
		start := time.Now()
		b.open()
		took := time.Since(start)
		t.Logf("%s: %d messages, %d MiB: started in %v", name, n, info.Size()>>20, took.Round(time.Millisecond))
		if b.Recovery() != nil || b.Unread(lane.To) != int64(n) {
			t.Errorf("%s: %d unread, recovery %+v", name, b.Unread(lane.To), b.Recovery())
		}
		start = time.Now()
		b.must(b.CheckAll(t.Context()))
		t.Logf("%s: all checked in %v", name, time.Since(start).Round(time.Millisecond))
		b.must(b.Close())
	}
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	src, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = src.Close() }()
	dst, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dst.Close() }()
	if _, err := io.Copy(dst, src); err != nil {
		t.Fatal(err)
	}
}
