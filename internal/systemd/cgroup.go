package systemd

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
)

// CgroupMemoryLimit is the smallest memory.max, in bytes, of the process's
// control group and the groups above it (cgroup v2). ok is false if none is
// set or this machine does not tell.
func CgroupMemoryLimit() (limit int64, ok bool) {
	return memoryLimit(os.DirFS("/"))
}

// memoryLimit reads /proc and /sys below root. It stops at the root group,
// which has no memory.max.
func memoryLimit(root fs.FS) (limit int64, ok bool) {
	own, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(own)) {
		group, found := strings.CutPrefix(strings.TrimRight(line, "\n"), "0::")
		if !found {
			continue
		}
		// Clean drops the leading "/.." of a group outside this namespace.
		for group = path.Clean("/" + group); ; group = path.Dir(group) {
			n, err := readLimit(root, path.Join("sys/fs/cgroup", group, "memory.max"))
			if err == nil && (!ok || n < limit) {
				limit, ok = n, true
			}
			if group == "/" {
				return limit, ok
			}
		}
	}
	return 0, false
}

var errNoLimit = errors.New("no limit")

func readLimit(root fs.FS, name string) (int64, error) {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, err
	}
	value := strings.TrimSpace(string(text))
	if value == "max" {
		return 0, errNoLimit
	}
	return strconv.ParseInt(value, 10, 64)
}
