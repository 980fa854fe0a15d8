package process

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// DialAs connects to a daemon of StartSystem as a program of uid that is a member of
// Group: the kernel notes who connects, not who writes later. Only root can.
func (d *Daemon) DialAs(uid uint32) (*net.UnixConn, error) {
	var c *net.UnixConn
	err := asUser(uid, func() (err error) {
		c, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: d.Socket})
		return err
	})
	if err != nil && c != nil {
		c.Close()
	}
	return c, err
}

// asUser has f done by a thread of uid, in Group.
func asUser(uid uint32, f func() error) error {
	done := make(chan error)
	go func() {
		// Credentials are a thread's. One that cannot have its own back is not used
		// for anything else: it ends with this goroutine.
		runtime.LockOSThread()
		own, err := os.Getgroups()
		if err == nil {
			err = errors.Join(setGroups([]int{Group}), setEffective(unix.SYS_SETRESGID, int(uid)), setEffective(unix.SYS_SETRESUID, int(uid)))
		}
		if err == nil {
			err = f()
		}
		back := errors.Join(setEffective(unix.SYS_SETRESUID, 0), setEffective(unix.SYS_SETRESGID, os.Getgid()), setGroups(own))
		if back == nil {
			runtime.UnlockOSThread()
		}
		done <- errors.Join(err, back)
	}()
	return <-done
}

// setEffective sets the effective uid or gid of this thread alone; package syscall
// would set those of all.
func setEffective(call uintptr, id int) error {
	const same = ^uintptr(0)
	if _, _, err := unix.RawSyscall(call, same, uintptr(id), same); err != 0 {
		return fmt.Errorf("become %d: %w", id, err)
	}
	return nil
}

func setGroups(list []int) error {
	gids := make([]uint32, len(list), len(list)+1)
	for i, g := range list {
		gids[i] = uint32(g)
	}
	if _, _, err := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(gids)), uintptr(unsafe.Pointer(unsafe.SliceData(gids))), 0); err != 0 {
		return fmt.Errorf("set groups: %w", err)
	}
	return nil
}
