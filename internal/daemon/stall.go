package daemon

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/fastn-stack/fastnd/internal/systemd"
	"github.com/fastn-stack/fastnd/service/api"
)

const (
	// ownTasks is where the kernel tells of this process's threads.
	ownTasks = "/proc/self/task"
	// stallLooks is how often a thread must be seen to wait for the disk, stallPause
	// apart: all do so for moments.
	stallLooks = 3
	stallPause = 20 * time.Millisecond
)

// diskStalls tells whether a thread of ours waits for a disk that does not answer,
// in which case another daemon would do the same, and this one cannot even be
// ended: err is what does not go on for it. A thread that waits so outside of a
// system call, for a page of a mapped file, stops Go's collector and soon all else.
func (d *Daemon) diskStalls(ctx context.Context, err error) bool {
	if !stalled(ctx, d.disk.tasks) {
		return false
	}
	dir := d.place.dir
	p := &api.Problem{Text: fmt.Sprintf("the disk under %s does not answer; changes wait for it", dir),
		Fix: fmt.Sprintf(`"journalctl -k" shows what the kernel says, "findmnt --target %s" which file system it is`, api.ShellQuote(dir))}
	if d.disk.trouble.CompareAndSwap(nil, p) {
		d.log.Error("the disk does not answer", systemd.MsgDiskRefuses.Attr(), "problem", p.Text, "fix", p.Fix, "error", err)
		d.tellStatus()
	}
	d.watch() // it is tried, and found well once it answers
	return true
}

// stalled looks for a thread that stays in uninterruptible sleep.
func stalled(ctx context.Context, tasks string) bool {
	waiting := uninterruptible(tasks)
	for range stallLooks - 1 {
		select {
		case <-time.After(stallPause):
		case <-ctx.Done():
			return false
		}
		now := uninterruptible(tasks)
		maps.DeleteFunc(waiting, func(task string, _ bool) bool { return !now[task] })
	}
	return len(waiting) > 0
}

// uninterruptible are the threads in state D of proc(5), which mostly means that
// they wait for a disk.
func uninterruptible(tasks string) map[string]bool {
	out := make(map[string]bool)
	list, _ := filepath.Glob(filepath.Join(tasks, "*", "stat"))
	for _, file := range list {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // ended meanwhile
		}
		if _, rest, ok := bytes.Cut(b[max(0, bytes.LastIndexByte(b, ')')):], []byte(") ")); ok && bytes.HasPrefix(rest, []byte("D")) {
			out[file] = true
		}
	}
	return out
}
