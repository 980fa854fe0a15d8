package peercred

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

const (
	gidFastn = 900
	gidAdmin = 901
)

// systemPolicy is that of a system's daemon whose groups exist.
func systemPolicy() *Policy {
	return &Policy{Group: "fastn", AdminGroup: "fastn-admin", lookup: func(name string) (uint32, error) {
		switch name {
		case "fastn":
			return gidFastn, nil
		case "fastn-admin":
			return gidAdmin, nil
		}
		return 0, errors.New("no such group")
	}}
}

func TestCheck(t *testing.T) {
	perUser := func() *Policy {
		return &Policy{PerUser: true, OwnUID: 1000, Group: "fastn", lookup: systemPolicy().lookup}
	}
	noGroups := func() *Policy {
		return &Policy{Group: "fastn", AdminGroup: "fastn-admin", lookup: func(string) (uint32, error) { return 0, errors.New("down") }}
	}
	inNamespace := func() *Policy { return &Policy{Namespaced: true, Group: "fastn", lookup: systemPolicy().lookup} }
	unnamed := func() *Policy { return &Policy{lookup: systemPolicy().lookup} }
	for _, tt := range []struct {
		name   string
		policy func() *Policy
		cred   Cred
		admin  bool
		refuse string // part of the message
	}{
		{"root", systemPolicy, Cred{UID: 0}, true, ""},
		{"primary group", systemPolicy, Cred{UID: 1000, GID: gidFastn}, false, ""},
		{"supplementary group", systemPolicy, Cred{UID: 1000, GID: 1000, Groups: []uint32{5, gidFastn}}, false, ""},
		{"admin", systemPolicy, Cred{UID: 1000, GID: 1000, Groups: []uint32{gidAdmin, gidFastn}}, true, ""},
		{"admin only", systemPolicy, Cred{UID: 1000, GID: gidAdmin}, true, ""},
		{"outsider", systemPolicy, Cred{UID: 1000, GID: 1000, Groups: []uint32{5}}, false, `not in group "fastn"`},
		{"outsider with root's group", systemPolicy, Cred{UID: 1000, GID: 0, Groups: []uint32{0}}, false, "not in group"},
		{"nobody", systemPolicy, Cred{UID: 65534, GID: gidFastn}, false, "user 65534"},
		{"nobody as admin", systemPolicy, Cred{UID: 65534, GID: gidAdmin}, false, "user 65534"},
		{"invalid", systemPolicy, Cred{UID: 0xFFFFFFFF, GID: gidFastn}, false, "user 4294967295"},
		{"nobody, in a user namespace", inNamespace, Cred{UID: 65534, GID: gidFastn}, false, "runs in a user namespace (PrivateUsers= or a container)"},
		{"no such groups", noGroups, Cred{UID: 1000, GID: 0, Groups: []uint32{0}}, false, "not in group"},
		{"no such groups, root", noGroups, Cred{UID: 0}, true, ""},
		{"no groups configured", unnamed, Cred{UID: 1000}, false, "not in group"},
		{"per user: owner", perUser, Cred{UID: 1000, GID: 1000}, true, ""},
		{"per user: root", perUser, Cred{UID: 0}, true, ""},
		{"per user: a member", perUser, Cred{UID: 1001, GID: gidFastn}, false, "belongs to"},
		{"per user: nobody", perUser, Cred{UID: 65534}, false, "user 65534"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			admin, err := tt.policy().Check(tt.cred)
			if tt.refuse == "" {
				if err != nil || admin != tt.admin {
					t.Errorf("admin %v, %v", admin, err)
				}
				return
			}
			var e *api.Error
			if !errors.As(err, &e) || e.Code != api.CodeNotPermitted || e.Hint == "" || admin {
				t.Fatalf("admin %v, %#v", admin, err)
			}
			if !strings.Contains(e.Message, tt.refuse) {
				t.Errorf("got %q", e.Message)
			}
		})
	}
}

// nobody owns a daemon, and yet is refused: the kernel says 65534 for
// everybody whom it cannot name.
func TestNobodysOwnDaemon(t *testing.T) {
	p := &Policy{PerUser: true, OwnUID: 65534}
	_, err := p.Check(Cred{UID: 65534})
	var e *api.Error
	if !errors.As(err, &e) || !strings.Contains(e.Hint, "as a user of its own") {
		t.Errorf("got %v", err)
	}
}

// A group is looked up again after a while, found or not, and not each time.
func TestGroupsAreLookedUpAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lookups, gid := 0, uint32(0)
		p := &Policy{Group: "fastn", lookup: func(string) (uint32, error) {
			lookups++
			if gid == 0 {
				return 0, errors.New("no such group")
			}
			return gid, nil
		}}
		member := Cred{UID: 1000, GID: 900}
		check := func(want bool, wantLookups int) {
			t.Helper()
			if _, err := p.Check(member); (err == nil) != want || lookups != wantLookups {
				t.Errorf("%v after %d look-ups", err, lookups)
			}
		}
		check(false, 1)
		gid = 900 // the group is made now
		check(false, 1)
		time.Sleep(groupTTL)
		check(true, 2)
		check(true, 2)
		gid = 0 // and removed
		time.Sleep(groupTTL - time.Nanosecond)
		check(true, 2)
		time.Sleep(time.Nanosecond)
		check(false, 3)
	})
}

func TestNames(t *testing.T) {
	if got := UserName(0); got != "root" {
		t.Errorf("uid 0 is %q", got)
	}
	if got := UserName(3_999_999_999); got != "uid-3999999999" {
		t.Errorf("an unknown uid is %q", got)
	}
	for text, want := range map[string]uint32{"root": 0, "0": 0, "1234567": 1234567, "uid-1234567": 1234567} {
		if got, err := LookupUID(text); err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "no-such-user", "-1", "4294967296", "uid-", "uid-x", "1 "} {
		if got, err := LookupUID(text); api.CodeOf(err) != api.CodeNotFound {
			t.Errorf("%q is uid %d, %v", text, got, err)
		}
	}
	if gid, err := lookupGID("root"); err != nil || gid != 0 {
		t.Errorf("group root is %d, %v", gid, err)
	}
}
