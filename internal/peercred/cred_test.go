package peercred

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/fastn-stack/fastnd/internal/testutil"
)

// childEnv makes the test binary connect to a socket and wait.
const childEnv = "FASTND_TEST_CONNECT"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		c, err := net.Dial("unix", path)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		// Until the parent has looked.
		c.Read(make([]byte, 1))
		return
	}
	os.Exit(m.Run())
}

// listen makes a socket that any user may connect to.
func listen(t *testing.T) (*net.UnixListener, string) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "fastn-peercred-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for p, mode := range map[string]os.FileMode{dir: 0o755, path: 0o666} {
		if err := os.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
	}
	return l, path
}

func TestOwnCredentials(t *testing.T) {
	testutil.LeakCheck(t)
	l, path := listen(t)
	client, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c, err := From(conn)
	if err != nil {
		t.Fatal(err)
	}
	if int(c.PID) != os.Getpid() || int(c.UID) != os.Geteuid() || int(c.GID) != os.Getegid() {
		t.Errorf("got %+v", c)
	}
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		if !c.InGroup(uint32(g)) {
			t.Errorf("group %d is missing in %+v", g, c)
		}
	}
	conn.Close()
	if _, err := From(conn); err == nil {
		t.Error("a closed connection has credentials")
	}
}

// Other users' credentials are seen as the kernel has them, also with more
// groups than the first look-up has room for.
func TestOtherUsersCredentials(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to run a child as another user")
	}
	testutil.LeakCheck(t)
	many := make([]uint32, 1000)
	for i := range many {
		many[i] = uint32(70_000 + i)
	}
	l, path := listen(t)
	// The child's user cannot read the folder of the test binary.
	program := filepath.Join(filepath.Dir(path), "child")
	copyFile(t, os.Args[0], program)
	for _, want := range []Cred{
		{UID: 4242, GID: 4343, Groups: []uint32{}},
		{UID: 4242, GID: 4343, Groups: []uint32{4444, 4545}},
		{UID: 4_000_000_000, GID: 4343, Groups: many},
	} {
		t.Run(fmt.Sprintf("%d groups", len(want.Groups)), func(t *testing.T) {
			cmd := exec.Command(program)
			cmd.Env = []string{childEnv + "=" + path}
			cmd.Stderr = os.Stderr
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: want.UID, Gid: want.GID, Groups: want.Groups}}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Wait()
			conn, err := l.AcceptUnix()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			got, err := From(conn)
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(got.Groups)
			if int(got.PID) != cmd.Process.Pid || got.UID != want.UID || got.GID != want.GID || !slices.Equal(got.Groups, want.Groups) {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if !got.InGroup(want.GID) || got.InGroup(0) {
				t.Errorf("InGroup is wrong for %+v", got)
			}
		})
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o755); err != nil {
		t.Fatal(err)
	}
}
