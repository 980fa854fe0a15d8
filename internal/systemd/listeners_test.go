package systemd

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// childEnv makes the test binary act as a service that systemd started.
const childEnv = "FASTND_TEST_ACTIVATED"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		child()
		return
	}
	os.Exit(m.Run())
}

// report is what the child found.
type report struct {
	Listeners map[string][]string
	Packets   map[string][]string
	Again     int
	Env       []string
	Err       string
}

func child() {
	// Only systemd, which forks, can set the right pid beforehand.
	os.Setenv("LISTEN_PID", fmt.Sprint(os.Getpid()))
	r := report{Listeners: map[string][]string{}, Packets: map[string][]string{}}
	s, err := Inherit()
	if err != nil {
		r.Err = err.Error()
	}
	for name, group := range s.Listeners {
		for _, l := range group {
			r.Listeners[name] = append(r.Listeners[name], l.Addr().String())
		}
	}
	for name, group := range s.PacketConns {
		for _, c := range group {
			r.Packets[name] = append(r.Packets[name], c.LocalAddr().String())
		}
	}
	if again, err := Listeners(); err == nil {
		r.Again = len(again)
	}
	for _, e := range os.Environ() {
		if strings.HasPrefix(e, "LISTEN_") {
			r.Env = append(r.Env, e)
		}
	}
	if l := s.Listeners["control"]; len(l) > 0 {
		if c, err := l[0].Accept(); err == nil {
			fmt.Fprint(c, "hello")
			c.Close()
		}
	}
	if err := s.Close(); err != nil {
		r.Err = err.Error()
	}
	json.NewEncoder(os.Stdout).Encode(r)
}

func runChild(t *testing.T, files []*os.File, names string) report {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.ExtraFiles = files
	cmd.Env = append(os.Environ(), childEnv+"=1", fmt.Sprintf("LISTEN_FDS=%d", len(files)), "LISTEN_FDNAMES="+names)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	return r
}

func TestActivation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "daemon.sock")
	unixL, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer unixL.Close()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	var files []*os.File
	for _, s := range []interface{ File() (*os.File, error) }{tcp.(*net.TCPListener), udp.(*net.UDPConn), unixL} {
		f, err := s.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	// The client connects before the service runs, as with socket activation.
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	r := runChild(t, files, "extra:quic:control")
	if r.Err != "" || r.Again != 0 || r.Env != nil {
		t.Errorf("%+v", r)
	}
	if !slices.Equal(r.Listeners["control"], []string{path}) || !slices.Equal(r.Listeners["extra"], []string{tcp.Addr().String()}) ||
		!slices.Equal(r.Packets["quic"], []string{udp.LocalAddr().String()}) || len(r.Listeners) != 2 || len(r.Packets) != 1 {
		t.Errorf("%+v", r)
	}
	buf := make([]byte, 16)
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != "hello" {
		t.Errorf("the waiting client got %q, %v", buf[:n], err)
	}
	// The socket's file is systemd's: it must outlive the service.
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func TestActivationRefusesOtherFiles(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if r := runChild(t, []*os.File{f}, "control"); !strings.Contains(r.Err, `"control" is not a socket`) {
		t.Errorf("%+v", r)
	}
}

func TestNoActivation(t *testing.T) {
	t.Setenv("LISTEN_PID", "")
	t.Setenv("LISTEN_FDS", "")
	l, err := Listeners()
	if err != nil || l == nil || len(l) != 0 {
		t.Errorf("%v, %v", l, err)
	}
}
