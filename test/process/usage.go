package process

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// RSS is the daemon's resident memory, in KiB.
func (d *Daemon) RSS() (float64, error) { return RSS(d.PID()) }

// CPU is what the daemon has used so far.
func (d *Daemon) CPU() (time.Duration, error) { return CPU(d.PID()) }

// Descriptors is how many files the daemon holds open.
func (d *Daemon) Descriptors() (int, error) {
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.PID()))
	return len(list), err
}

// RSS is the resident memory of a process, in KiB.
func RSS(pid int) (float64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var kib float64
		if n, _ := fmt.Sscanf(s.Text(), "VmRSS: %f kB", &kib); n == 1 {
			return kib, nil
		}
	}
	return 0, errors.New("no VmRSS")
}

// CPU is what a process has used so far.
func CPU(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if !ok || len(f) < 13 {
		return 0, errors.New("unreadable stat")
	}
	var user, system int64
	if _, err := fmt.Sscan(f[11]+" "+f[12], &user, &system); err != nil {
		return 0, err
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 on Linux
	return time.Duration(user+system) * tick, nil
}
