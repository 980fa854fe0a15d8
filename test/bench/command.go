package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/fastn-stack/fastnd/test/process"
)

// noop is a program with kong that does nothing: what any such command costs.
const noop = `package main

import "github.com/alecthomas/kong"

func main() { var cli struct{ Home string }; kong.Parse(&cli) }
`

// benchCommand: `fastn call` as a whole process, beside ssh over ControlMaster
// and beside a program with kong that does nothing.
func benchCommand(ctx context.Context, b *bench) (err error) {
	x, y, err := process.Pair(ctx, b.bin, process.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.Close(), y.Close()) }()
	dir, err := os.MkdirTemp("", "fastn-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	call := command(ctx, filepath.Join(b.bin, "fastn"), "--home", x.Home, "call", "peer", "Echo", string(hello))
	nothing, err := buildNoop(ctx, dir)
	if err != nil {
		return err
	}
	const runs = 40
	mine, base, err := inTurn(5, times(runs, call), times(runs, command(ctx, nothing)))
	if err != nil {
		return err
	}
	b.add(beside("fastn call, whole process, p50", mine/1e3, "ms", base/1e3, "a kong program that does nothing"))
	ssh, stop, err := startSSH(ctx, dir)
	if err != nil {
		b.add(atMost("fastn call, whole process, p50", 0, "ms", 0, "ssh true over ControlMaster", 1).unmeasured(err))
		return nil
	}
	defer stop()
	mine, base, err = inTurn(5, times(runs, call), times(runs, command(ctx, ssh[0], ssh[1:]...)))
	if err != nil {
		return err
	}
	b.add(atMost("fastn call, whole process, p50", mine/1e3, "ms", base/1e3, "ssh true over ControlMaster", 1))
	return nil
}

func command(ctx context.Context, name string, args ...string) func() error {
	return func() error {
		if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", name, err, out)
		}
		return nil
	}
}

func times(n int, f func() error) func() ([]float64, error) {
	return func() ([]float64, error) { return micros(n, f) }
}

// buildNoop builds the program in this module, for its version of kong.
func buildNoop(ctx context.Context, dir string) (string, error) {
	src, out := filepath.Join(dir, "noop.go"), filepath.Join(dir, "noop")
	if err := os.WriteFile(src, []byte(noop), 0o600); err != nil {
		return "", err
	}
	return out, command(ctx, "go", "build", "-o", out, src)()
}

// startSSH runs a throw-away sshd on loopback and a master connection to it, and
// returns the command that runs `true` over it. Login start-up files are bypassed.
func startSSH(ctx context.Context, dir string) (run []string, stop func(), err error) {
	sshd, err := exec.LookPath("/usr/sbin/sshd")
	if err != nil {
		return nil, nil, err
	}
	host, user := filepath.Join(dir, "host"), filepath.Join(dir, "user")
	for _, k := range []string{host, user} {
		if err := command(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", k)(); err != nil {
			return nil, nil, err
		}
	}
	public, err := os.ReadFile(user + ".pub")
	if err != nil {
		return nil, nil, err
	}
	keys := filepath.Join(dir, "authorized")
	if err := os.WriteFile(keys, public, 0o600); err != nil {
		return nil, nil, err
	}
	if os.Geteuid() == 0 { // then it wants this folder
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			return nil, nil, err
		}
	}
	port, err := freePort()
	if err != nil {
		return nil, nil, err
	}
	server := exec.CommandContext(ctx, sshd, "-D", "-e", "-f", "/dev/null", "-p", port, "-h", host,
		"-o", "ListenAddress=127.0.0.1", "-o", "AuthorizedKeysFile="+keys, "-o", "StrictModes=no",
		"-o", "PidFile=none", "-o", "UsePAM=no", "-o", "PermitRootLogin=yes", "-o", "SetEnv=SHLVL=5")
	if err := server.Start(); err != nil {
		return nil, nil, err
	}
	base := []string{"ssh", "-F", "none", "-i", user, "-p", port, "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR",
		"-o", "UserKnownHostsFile=/dev/null", "-o", "ControlPath=" + filepath.Join(dir, "master"), "127.0.0.1"}
	stop = func() {
		_ = exec.CommandContext(ctx, base[0], append([]string{"-O", "exit"}, base[1:]...)...).Run()
		_ = server.Process.Kill()
		_ = server.Wait()
	}
	master := append([]string{"-M", "-N", "-f"}, base[1:]...)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		// The master stays in the background and holds no pipe of ours.
		if err = exec.CommandContext(ctx, base[0], master...).Run(); err == nil {
			return append(base, "true"), stop, nil
		}
		if time.Now().After(deadline) {
			stop()
			return nil, nil, fmt.Errorf("%s: %w", strings.Join(master, " "), err)
		}
	}
}
