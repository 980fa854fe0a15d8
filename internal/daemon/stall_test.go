package daemon

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/testutil"
)

func TestStalled(t *testing.T) {
	for name, c := range map[string]struct {
		stats []string
		want  bool
	}{
		"all well":      {[]string{"1 (fastnd) S 0", "2 (fastnd) R 0"}, false},
		"one waits":     {[]string{"1 (fastnd) S 0", "2 (fastnd) D 0"}, true},
		"a name":        {[]string{"1 (D) D) S 0"}, false},
		"another name":  {[]string{"1 (a) S) D 0"}, true},
		"nothing there": {[]string{"", "1 (x)", ")"}, false},
	} {
		dir := threads(t, c.stats...)
		if got := stalled(t.Context(), dir); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// threads is a folder as the kernel has one of a process's threads.
func threads(t *testing.T, stats ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for i, text := range stats {
		task := filepath.Join(dir, fmt.Sprint(i))
		if err := os.Mkdir(task, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(task, "stat"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// A writer that waits for a disk that does not answer is no reason to end the
// daemon; what is wrong is told until the disk answers.
func TestProbeOfStalledDisk(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	release := d.holdWriter()
	d.hangs("the store's writer")
	answers := make(chan struct{})
	d.disk.probing.Lock()
	d.disk.write = func(string) error { <-answers; return nil }
	d.disk.probing.Unlock()
	d.disk.tasks = threads(t, "1 (fastnd) D 0")
	// A quarter of it is for looking at the threads, also on a busy machine.
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	if err := d.probe(ctx); err != nil {
		t.Errorf("while the disk stalls: %v", err)
	}
	if p := d.status().Problems; len(p) != 1 || !strings.Contains(p[0].Text, "does not answer") {
		t.Errorf("problems: %+v", p)
	}
	release()
	close(answers)
	eventually(t, "the disk to be found well", func() bool { return len(d.status().Problems) == 0 })
}
