package main

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/fastn-stack/fastnd/service/api"
)

// daemonUser runs the system's daemon, where systemd does not listen for it.
const daemonUser = "fastn-daemon"

// trusted tells who may listen at socket: root, who is systemd there, and this
// user; at the system's socket its daemon; for root, who may look after the
// daemons of others, also whoever owns the socket's folder.
func trusted(socket string) func(uid uint32) bool {
	return func(uid uint32) bool {
		own := uint32(os.Geteuid())
		switch {
		case uid == 0, uid == own:
			return true
		case socket == api.SystemSocket:
			u, err := user.Lookup(daemonUser)
			return err == nil && u.Uid == strconv.FormatUint(uint64(uid), 10)
		case own == 0:
			info, err := os.Stat(filepath.Dir(socket))
			return err == nil && info.Sys().(*syscall.Stat_t).Uid == uid
		}
		return false
	}
}
