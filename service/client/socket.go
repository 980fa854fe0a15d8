package client

import (
	"os"
	"path/filepath"
	"syscall"

	"github.com/fastn-stack/fastnd/service/api"
)

// unitFile exists where fastn is installed for the whole system.
const unitFile = "/usr/lib/systemd/system/fastn.socket"

// DefaultHome is the folder of a per-user daemon below the user's home.
const DefaultHome = ".fastn"

// ResolveSocket finds the daemon's socket: the flags --socket and --home, then
// FASTN_SOCKET and FASTN_HOME, then the system's socket, then the user's. The
// system's is passed over if it is not there or not for this user while the
// user has one of their own.
func ResolveSocket(flagSocket, flagHome string) string {
	home, err := os.UserHomeDir()
	if err != nil {
		home = "/" // a user without a home has no daemon of their own there
	}
	return places{system: api.SystemSocket, unit: unitFile, home: home, getenv: os.Getenv}.resolve(flagSocket, flagHome)
}

// places are where sockets may be.
type places struct {
	system, unit, home string
	getenv             func(string) string
}

func (p places) resolve(flagSocket, flagHome string) string {
	for _, at := range []struct{ path, below string }{
		{flagSocket, ""}, {flagHome, api.HomeSocket},
		{p.getenv(api.EnvSocket), ""}, {p.getenv(api.EnvHome), api.HomeSocket},
	} {
		if at.path != "" {
			return filepath.Join(at.path, at.below)
		}
	}
	own := filepath.Join(p.home, DefaultHome, api.HomeSocket)
	switch {
	case writable(p.system):
		return p.system
	case exists(own):
		return own
	case exists(p.system), exists(p.unit):
		return p.system // its error and hint are the ones that help
	}
	return own
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// writable tells whether connect(2) would be permitted.
func writable(path string) bool {
	const wOK = 2
	return syscall.Access(path, wOK) == nil
}
