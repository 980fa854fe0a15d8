package peercred

import (
	"os/user"
	"strconv"
	"strings"

	"github.com/fastn-stack/fastnd/service/api"
)

// UserName is the login name of uid, or "uid-1000" if no name can be found:
// directories such as LDAP may be down or may not know it.
func UserName(uid uint32) string {
	if name, ok := userName(uid); ok {
		return name
	}
	return "uid-" + strconv.FormatUint(uint64(uid), 10)
}

func userName(uid uint32) (name string, ok bool) {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil || u.Username == "" {
		return "", false
	}
	return u.Username, true
}

// LookupUID is the uid of a login name, of a number, or of what [UserName]
// made of a uid without a name. A name wins over a number. The error is an
// [*api.Error] with code not_found.
func LookupUID(nameOrNumber string) (uint32, error) {
	if u, err := user.Lookup(nameOrNumber); err == nil {
		return parseID(u.Uid)
	}
	if n, err := parseID(strings.TrimPrefix(nameOrNumber, "uid-")); err == nil {
		return n, nil
	}
	return 0, api.Errorf(api.CodeNotFound, "no user %q on this machine", nameOrNumber).WithHint(`"getent passwd" lists the users`)
}

func lookupGID(name string) (uint32, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, err
	}
	return parseID(g.Gid)
}

func parseID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err
}
