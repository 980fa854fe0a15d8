package main

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
)

// A daemon that is being killed still takes a connection, and breaks it: the next
// start asks again, and starts one.
func TestStartBesideADyingDaemon(t *testing.T) {
	testutil.LeakCheck(t)
	home, err := os.MkdirTemp("", "fh") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(home)
	if err := os.WriteFile(filepath.Join(home, "fastn.toml"), []byte("[p2p]\nlisten = [\"127.0.0.1\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(home, api.HomeSocket))
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	died := make(chan struct{})
	go func() {
		defer close(died)
		defer l.Close()
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, err = bufio.NewReader(conn).ReadString('\n')
			conn.Close()
			if err == nil { // it was asked, and has not answered
				return
			}
		}
	}()
	fastn := func(words ...string) (string, error) {
		out, err := exec.Command(filepath.Join(binaries, "fastn"), append([]string{"--home", home, "daemon"}, words...)...).CombinedOutput()
		return string(out), err
	}
	out, err := fastn("start")
	if err != nil || !strings.Contains(out, " runs, pid ") {
		t.Errorf("start: %v\n%s", err, out)
	}
	l.Close()
	<-died
	if out, err := fastn("stop"); err != nil {
		t.Errorf("stop: %v\n%s", err, out)
	}
}

// A daemon that will not serve who started it is asked once, says why, and is ended.
func TestStartByNobody(t *testing.T) {
	home, err := os.MkdirTemp("", "fh")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(home)
	if err := os.WriteFile(filepath.Join(home, "fastn.toml"), []byte("[p2p]\nlisten = [\"127.0.0.1\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Where no user is mapped everybody is the one who stands for nobody.
	if out, err := exec.Command("unshare", "--user", "true").CombinedOutput(); err != nil {
		t.Skipf("no user namespace here: %v\n%s", err, out)
	}
	began := time.Now()
	out, err := exec.Command("unshare", "--user", filepath.Join(binaries, "fastn"), "--home", home, "daemon", "start").CombinedOutput()
	if took := time.Since(began); err == nil || took >= startTimeout {
		t.Errorf("after %v: %v", took, err)
	}
	if !strings.Contains(string(out), "which stands for nobody in particular\nhint: run fastn as a user of its own") {
		t.Errorf("%s", out)
	}
	if _, err := os.Lstat(filepath.Join(home, api.HomeSocket)); err == nil {
		t.Error("the daemon runs still")
	}
}

// The kernel's words about a process, proc_pid_stat(5).
func TestStatDying(t *testing.T) {
	for stat, want := range map[string]bool{
		"7 (fastnd) S 1 7 7 0 -1 4194560 1 0":   false,
		"7 (fastnd) R 1 7 7 0 -1 4194564 1 0":   true,
		"7 (fastnd) Z 1 7 7 0 -1 4194560 1 0":   true,
		"7 (a) Z (b) S 1 7 7 0 -1 4194560 1":    false,
		"7 (fastnd) T 1 7 7 0 -1 1077936128 12": false,
		"":                                      true,
	} {
		if got := statDying(stat); got != want {
			t.Errorf("%q: %v, want %v", stat, got, want)
		}
	}
	if dying(os.Getpid()) || dying(0) {
		t.Error("this test is dying")
	}
}
