package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fastn-stack/fastnd/internal/systemd"
	"github.com/fastn-stack/fastnd/service/api"
)

// unitFix is how an administrator takes a setting back that a drop-in made.
const unitFix = `%s ("systemctl cat fastnd" shows which file has it), then: systemctl daemon-reload && systemctl restart fastn.socket fastnd.service`

// confined names what the unit, as an administrator changed it, takes away from
// the daemon that it needs. The result does not change while the process lives.
func (d *Daemon) confined() []api.Problem {
	var out []api.Problem
	add := func(text, fix string) {
		out = append(out, api.Problem{Text: text, Fix: fmt.Sprintf(unitFix, fix)})
	}
	if d.o.perUser() {
		return nil
	}
	if d.policy.Namespaced {
		add("fastnd runs in a user namespace (PrivateUsers= or a container): it sees the users that are not mapped there as number 65534, which could be anybody, and refuses them",
			"in a container, map all users into it; else remove PrivateUsers= from the unit")
	}
	if missing := missingFamilies(); len(missing) > 0 {
		list := strings.Join(missing, " ")
		text := "fastnd may not use " + list + ": RestrictAddressFamilies= of fastnd.service leaves it out"
		if slices.Contains(missing, "AF_NETLINK") {
			text += "; without AF_NETLINK it does not know this machine's addresses"
		}
		add(text, "add "+list+" to RestrictAddressFamilies= of the unit")
	}
	if slices.Contains(filepath.SplitList(os.Getenv("RUNTIME_DIRECTORY")), filepath.Dir(d.place.socket)) {
		add("fastnd.service sets RuntimeDirectory=fastn: systemd gives the control socket to fastnd's own user, so that nobody else may connect",
			"remove RuntimeDirectory= from the unit")
	}
	return out
}

// readOnlyUnit says that the unit, and not the disk, is why nothing can be written;
// nil if the unit does let fastnd write.
func (d *Daemon) readOnlyUnit() *api.Problem {
	if d.o.perUser() || os.Getenv("STATE_DIRECTORY") != "" {
		return nil
	}
	return &api.Problem{
		Text: "fastnd.service has no StateDirectory=fastn, so that fastnd may not write to " + d.place.dir,
		Fix:  fmt.Sprintf(unitFix, "remove the line that empties StateDirectory= of the unit"),
	}
}

// missingFamilies are those that RestrictAddressFamilies= refuses.
func missingFamilies() []string {
	var missing []string
	for _, f := range []struct {
		name        string
		family, typ int
	}{{"AF_INET", unix.AF_INET, unix.SOCK_DGRAM}, {"AF_INET6", unix.AF_INET6, unix.SOCK_DGRAM}, {"AF_NETLINK", unix.AF_NETLINK, unix.SOCK_RAW}} {
		fd, err := unix.Socket(f.family, f.typ|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			_ = unix.Close(fd)
			continue
		}
		// A kernel without IPv6 says the same of it.
		if errors.Is(err, unix.EAFNOSUPPORT) && (f.family != unix.AF_INET6 || kernelHasIPv6()) {
			missing = append(missing, f.name)
		}
	}
	return missing
}

func kernelHasIPv6() bool {
	_, err := os.Stat("/proc/self/net/if_inet6")
	return err == nil
}

// namespaced tells whether some users cannot be told apart here: those that this
// process's user namespace does not map (user_namespaces(7)).
func namespaced() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(b)), " ") != "0 0 4294967295"
}

// noteConfined tells of it in the journal.
func (d *Daemon) noteConfined() {
	d.confinement = d.confined()
	for _, p := range d.confinement {
		d.log.Error("the unit takes away what fastnd needs", systemd.MsgUnitConfines.Attr(), "problem", p.Text, "fix", p.Fix)
	}
}
