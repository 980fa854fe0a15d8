package systemd

import (
	"testing"
	"testing/fstest"
)

func TestMemoryLimit(t *testing.T) {
	const base = "sys/fs/cgroup"
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  int64
		ok    bool
	}{
		{"no proc", nil, 0, false},
		{"cgroup v1 only", map[string]string{"proc/self/cgroup": "4:memory:/x\n"}, 0, false},
		{"no limit", map[string]string{"proc/self/cgroup": "0::/a/b\n", base + "/a/b/memory.max": "max\n"}, 0, false},
		{"own", map[string]string{"proc/self/cgroup": "0::/a/b\n", base + "/a/b/memory.max": "1000\n"}, 1000, true},
		{"above", map[string]string{"proc/self/cgroup": "1:x:/\n0::/a/b/c\n", base + "/a/b/c/memory.max": "max\n", base + "/a/memory.max": "500\n"}, 500, true},
		{"smallest", map[string]string{"proc/self/cgroup": "0::/a/b\n", base + "/a/b/memory.max": "1000\n", base + "/a/memory.max": "500\n"}, 500, true},
		{"root of a namespace", map[string]string{"proc/self/cgroup": "0::/\n", base + "/memory.max": "7\n"}, 7, true},
		{"outside", map[string]string{"proc/self/cgroup": "0::/../other\n", base + "/other/memory.max": "7\n"}, 7, true},
		{"garbage", map[string]string{"proc/self/cgroup": "0::/a\n", base + "/a/memory.max": "lots\n"}, 0, false},
	} {
		root := fstest.MapFS{}
		for name, text := range tt.files {
			root[name] = &fstest.MapFile{Data: []byte(text)}
		}
		if got, ok := memoryLimit(root); got != tt.want || ok != tt.ok {
			t.Errorf("%s: %d, %v", tt.name, got, ok)
		}
	}
}
