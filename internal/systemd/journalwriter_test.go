package systemd

import (
	"bytes"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/testutil"
)

// A journal that does not read holds up nobody; what was lost is counted and
// told when it reads again.
func TestStalledJournal(t *testing.T) {
	testutil.LeakCheck(t)
	j := newFakeJournal(t)
	log, w := j.log(slog.LevelInfo)
	sent := 0
	for w.dropped.Load() == 0 {
		log.Info("text")
		if sent++; sent > 1_000_000 {
			t.Fatal("the queue has no bound")
		}
	}
	if sent < queueLength {
		t.Errorf("dropped after %d records", sent)
	}
	for {
		got := j.next()
		if n := got["FASTN_DROPPED"]; n != nil {
			if v, err := strconv.Atoi(n[0]); err != nil || v < 1 || got["PRIORITY"][0] != "4" {
				t.Errorf("told as %v", got)
			}
			break
		}
	}
}

func TestCloseWritesTheQueue(t *testing.T) {
	testutil.LeakCheck(t)
	j := newFakeJournal(t)
	log, w := j.log(slog.LevelInfo)
	const records = 100
	read := make(chan int)
	go func() {
		n := 0
		buf := make([]byte, 1<<16)
		for n < records {
			if _, err := j.conn.Read(buf); err != nil {
				break
			}
			n++
		}
		read <- n
	}()
	for i := range records {
		log.Info("text", "i", i)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if n := <-read; n != records {
		t.Errorf("%d of %d records arrived", n, records)
	}
	log.Info("after")
	if n := w.dropped.Load(); n != 1 {
		t.Errorf("%d dropped after Close, want 1", n)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

func TestCloseDoesNotHang(t *testing.T) {
	testutil.LeakCheck(t)
	j := newFakeJournal(t)
	log, w := j.log(slog.LevelInfo)
	for w.dropped.Load() == 0 {
		log.Info("text")
	}
	start := time.Now()
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if d := time.Since(start); d > closeTimeout+time.Second {
		t.Errorf("took %s", d)
	}
}

// A journald that was replaced, socket and all, is found again.
func TestJournalRestart(t *testing.T) {
	j := newFakeJournal(t)
	log, _ := j.log(slog.LevelInfo)
	log.Info("one")
	j.next()
	j.conn.Close()
	if err := os.Remove(j.path); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: j.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	j.conn = conn
	log.Info("two")
	if got := j.next(); got["MESSAGE"][0] != "two" {
		t.Errorf("got %v", got)
	}
}

func TestOpenLogWithoutJournal(t *testing.T) {
	t.Setenv("JOURNAL_STREAM", "1:1")
	var out bytes.Buffer
	l := OpenLog("fastnd", slog.LevelInfo, &out)
	slog.New(l).Info("text", "peer", "a\nb=c")
	if err := l.Close(); err != nil || l.Dropped() != 0 {
		t.Error(err)
	}
	if s := out.String(); strings.Count(s, "\n") != 1 || !strings.Contains(s, `peer="a\nb=c"`) {
		t.Errorf("got %q", s)
	}
}

func TestOpenJournalWithoutSocket(t *testing.T) {
	testutil.LeakCheck(t)
	if _, err := openJournal(t.TempDir()+"/none", "x"); err == nil {
		t.Error("a missing socket was opened")
	}
}
