package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// benchCold: from the first client's connect to its answer, with the socket made
// beforehand and passed as systemd passes it. Keys and store exist already.
func benchCold(ctx context.Context, b *bench) error {
	const what, most = "socket activation, first answer", 150
	if os.Geteuid() != 0 {
		b.add(under(what, 0, "ms", most).unmeasured(errors.New("needs root, as the system-wide daemon's only user here")))
		return nil
	}
	dir, err := os.MkdirTemp("", "fastn-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	port, err := freePort()
	if err != nil {
		return err
	}
	config := filepath.Join(dir, "fastn.toml")
	text := fmt.Sprintf("[p2p]\nlisten = [\"127.0.0.1\"]\nport = %s\n", port)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	const rounds = 11
	took, err := micros(rounds, func() error { return coldStart(ctx, b, dir, config) })
	if err != nil {
		return err
	}
	b.add(under(what, median(took[1:])/1e3, "ms", most))
	return nil
}

func coldStart(ctx context.Context, b *bench, dir, config string) (err error) {
	path := filepath.Join(dir, "socket")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		return err
	}
	defer l.Close()
	file, err := l.File()
	if err != nil {
		return err
	}
	defer file.Close()
	conn, err := dialLine(ctx, path)
	if err != nil {
		return err
	}
	defer conn.Close()
	bin, err := filepath.Abs(filepath.Join(b.bin, "fastnd"))
	if err != nil {
		return err
	}
	// The shell knows the pid that LISTEN_PID must name.
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh", bin, "--config", config)
	cmd.Env = append(os.Environ(), "LISTEN_FDS=1", "LISTEN_FDNAMES=control", "STATE_DIRECTORY="+dir)
	cmd.ExtraFiles = []*os.File{file}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		err = errors.Join(err, cmd.Wait())
	}()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	return conn.ask(echoSelf())
}
