package keystore

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fastn-stack/fastnd/service/api"
)

// Refusal says why a file or folder of the keystore is not used. Nothing in it
// comes from inside a key file.
type Refusal struct {
	Path   string // as under the folder given to Open; quote it before showing it
	Reason string
	// Fix is what to do: a shell command for root if Command is true, else a
	// phrase such as "restore … from a backup". What root is to paste follows no
	// link, as whoever broke into the daemon may have planted one in its folder,
	// or does so between the look at the file and the pasting.
	Fix     string
	Command bool
}

// Error does not hold the Fix: that is for a hint.
func (r *Refusal) Error() string {
	return fmt.Sprintf("%s is refused: %s", api.ShellQuote(r.Path), r.Reason)
}

type kind int

const (
	wantFile kind = iota
	wantFolder
)

// mode that a file or folder must not exceed.
func (k kind) mode() uint32 {
	if k == wantFolder {
		return 0o700
	}
	return 0o600
}

func (k kind) String() string {
	if k == wantFolder {
		return "folder"
	}
	return "file"
}

// checkStat refuses what is not a private file or folder of owner. ACLs that let
// others in show in the mode's group bits.
func checkStat(path string, st *unix.Stat_t, want kind, owner uint32) error {
	is := st.Mode & unix.S_IFMT
	switch {
	case is == unix.S_IFLNK:
		return &Refusal{Path: path, Reason: "it is a symbolic link", Fix: replace(path, want)}
	case want == wantFile && is != unix.S_IFREG, want == wantFolder && is != unix.S_IFDIR:
		return &Refusal{
			Path: path, Reason: fmt.Sprintf("it is a %s, not a %s", fileType(is), want),
			Fix: restore(path, want),
		}
	}
	// Before its owner and mode: under its other name it may be another's file.
	if want == wantFile && st.Nlink > 1 {
		return &Refusal{Path: path, Reason: fmt.Sprintf("it has %d names (hard links)", st.Nlink), Fix: replace(path, want)}
	}
	return checkAccess(path, st, want, owner)
}

// checkAccess mends owner and mode in one command, so that it is run once.
func checkAccess(path string, st *unix.Stat_t, want kind, owner uint32) error {
	var reasons, fixes []string
	if st.Uid != owner {
		reasons = append(reasons, fmt.Sprintf("it belongs to uid %d, not %d", st.Uid, owner))
		fixes = append(fixes, fmt.Sprintf("chown -h %d %s", owner, api.ShellQuote(path)))
	}
	if perm := st.Mode & 0o777; perm&0o077 != 0 {
		reasons = append(reasons, fmt.Sprintf("others may use it (mode %04o)", perm))
		fixes = append(fixes, chmod(path, want, owner))
	}
	if len(reasons) == 0 {
		return nil
	}
	return command(path, strings.Join(reasons, ", "), strings.Join(fixes, " && "))
}

// firstUserID is where the numbers of people begin, below are the system's own.
const firstUserID = 1000

// chmod follows links, so for the system's daemon root does it as the daemon's
// user. A person who runs a daemon of their own is that user.
func chmod(path string, want kind, owner uint32) string {
	as := ""
	if owner != 0 && owner < firstUserID {
		as = fmt.Sprintf("setpriv --reuid=%d ", owner)
	}
	return fmt.Sprintf("%schmod %o %s", as, want.mode(), api.ShellQuote(path))
}

func unreadable(path string, want kind, owner uint32) *Refusal {
	return command(path, "its owner may not read it", chmod(path, want, owner))
}

// broken is a refusal of what is in a file.
func broken(path, reason string) *Refusal {
	return &Refusal{Path: path, Reason: reason, Fix: restore(path, wantFile)}
}

// stray is a refusal of something that has no place in the keystore.
func stray(path, reason string) *Refusal {
	return &Refusal{Path: path, Reason: reason, Fix: "move " + api.ShellQuote(path) + " out of the keystore"}
}

func command(path, reason, fix string) *Refusal {
	r := &Refusal{Path: path, Reason: reason, Fix: fix, Command: true}
	if strings.ContainsFunc(path, unprintable) { // nobody should paste that
		r.Fix, r.Command = "move "+api.ShellQuote(path)+" out of the keystore", false
	}
	return r
}

// replace is for what is not to be looked into, let alone copied by root.
func replace(path string, what kind) string {
	return fmt.Sprintf("move %s away and %s", api.ShellQuote(path), restore(path, what))
}

func restore(path string, what kind) string {
	return fmt.Sprintf("restore the %s %s from a backup", what, api.ShellQuote(path))
}

func fileType(mode uint32) string {
	switch mode {
	case unix.S_IFDIR:
		return "folder"
	case unix.S_IFREG:
		return "file"
	case unix.S_IFIFO:
		return "named pipe"
	case unix.S_IFSOCK:
		return "socket"
	case unix.S_IFCHR, unix.S_IFBLK:
		return "device"
	}
	return "special file"
}

func unprintable(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }
