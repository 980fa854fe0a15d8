package peercred

import (
	"fmt"
	"sync"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

// Users that stand for "unknown": whoever the kernel could not map into this
// user namespace, and (uid_t)-1.
const (
	uidNobody  = 65534
	uidInvalid = 0xFFFFFFFF
)

// groupTTL is how long a group's number is remembered. It is short, because a
// group may be made after the daemon has started, and not zero, because the
// look-up may ask a server for every connection.
const groupTTL = 5 * time.Second

// Policy decides who may use the control socket. Its fields are set before the
// first Check and then left alone; Check may be called concurrently.
type Policy struct {
	// PerUser is true for a daemon of one user: OwnUID and root use it, both
	// as administrators, and groups count for nothing.
	PerUser bool
	OwnUID  uint32
	// Namespaced says that this process is in a user namespace that does not map
	// every user, which is then why one is unknown.
	Namespaced bool
	// Group may use the daemon, AdminGroup may also administer it. Both by
	// name; a group that does not exist has no members.
	Group      string
	AdminGroup string

	mu     sync.Mutex
	groups map[string]groupEntry
	// lookup is replaced by tests; nil asks the system.
	lookup func(name string) (uint32, error)
}

type groupEntry struct {
	gid   uint32
	found bool
	until time.Time
}

// Check tells whether c may use the daemon and whether as an administrator. A
// refusal is an [*api.Error] with code not_permitted that says why and what to
// do. A name that cannot be looked up is a reason to refuse, never a failure.
func (p *Policy) Check(c Cred) (admin bool, err error) {
	switch {
	case c.UID == uidNobody || c.UID == uidInvalid:
		return false, p.errUnmapped(c.UID)
	case c.UID == 0:
		return true, nil
	case p.PerUser:
		if c.UID == p.OwnUID {
			return true, nil
		}
		return false, errOtherUser(c.UID, p.OwnUID)
	case p.member(c, p.AdminGroup):
		return true, nil
	case p.member(c, p.Group):
		return false, nil
	}
	return false, errNotMember(c.UID, p.Group)
}

func (p *Policy) member(c Cred, group string) bool {
	gid, ok := p.gid(group)
	return ok && c.InGroup(gid)
}

// gid looks a group up, at most once in groupTTL.
func (p *Policy) gid(group string) (uint32, bool) {
	if group == "" {
		return 0, false
	}
	p.mu.Lock()
	e, ok := p.groups[group]
	p.mu.Unlock()
	if ok && time.Now().Before(e.until) {
		return e.gid, e.found
	}
	// Outside the lock: a slow directory must not hold up those whose group
	// is known.
	lookup := lookupGID
	if p.lookup != nil {
		lookup = p.lookup
	}
	gid, err := lookup(group)
	e = groupEntry{gid: gid, found: err == nil, until: time.Now().Add(groupTTL)}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.groups == nil {
		p.groups = make(map[string]groupEntry)
	}
	p.groups[group] = e
	return e.gid, e.found
}

func (p *Policy) errUnmapped(uid uint32) error {
	if p.Namespaced && !p.PerUser {
		return &api.Error{
			Code:    api.CodeNotPermitted,
			Message: fmt.Sprintf("the daemon sees you as user %d, which could be anybody: it runs in a user namespace (PrivateUsers= or a container)", uid),
			Hint: "in a container, an administrator can map your user id into it; " +
				`else remove PrivateUsers= from the unit ("systemctl cat fastnd" shows which file has it), ` +
				"then: systemctl daemon-reload && systemctl restart fastn.socket fastnd.service",
		}
	}
	if p.PerUser {
		return &api.Error{
			Code:    api.CodeNotPermitted,
			Message: fmt.Sprintf("the daemon sees you as user %d, which stands for nobody in particular", uid),
			Hint:    "run fastn as a user of its own; inside a container, map your user id into it",
		}
	}
	return &api.Error{
		Code:    api.CodeNotPermitted,
		Message: fmt.Sprintf("the daemon sees you as user %d, which stands for nobody in particular", uid),
		Hint:    "if this happens to every user, remove PrivateUsers= from fastnd.service; inside a container, map your user id into it",
	}
}

func errOtherUser(uid, owner uint32) error {
	return &api.Error{
		Code:    api.CodeNotPermitted,
		Message: fmt.Sprintf("this daemon belongs to %s, and you are %s", UserName(owner), UserName(uid)),
		Hint:    `start your own with "fastn daemon start"`,
	}
}

func errNotMember(uid uint32, group string) error {
	e := &api.Error{
		Code:    api.CodeNotPermitted,
		Message: fmt.Sprintf("you are not in group %q", group),
		Hint:    fmt.Sprintf("an administrator can add user %d to that group, then log in again", uid),
	}
	// A command that would not find the user is no help.
	if name, ok := userName(uid); ok {
		e.Hint = fmt.Sprintf(`an administrator can add you with "adduser %s %s", then log in again`, name, group)
	}
	return e
}
