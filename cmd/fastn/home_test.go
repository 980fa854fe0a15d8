package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/fastn-stack/fastnd/service/api"
)

// Root leaves nothing in a user's folder that would keep the user out of it.
func TestRootInAUsersHome(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give a folder to another user")
	}
	const user = 12345
	p := place{home: t.TempDir()}
	if err := os.Chown(p.home, user, -1); err != nil {
		t.Fatal(err)
	}
	a := testApp(t)
	if _, err := a.claimHome(p); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("a folder of another user was claimed: %v", err)
	}
	if list, err := os.ReadDir(p.home); err != nil || len(list) > 0 {
		t.Errorf("left in it: %v, %v", list, err)
	}
	unlock, err := a.lockHome(p)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if owner, ok := ownerOf(filepath.Join(p.home, lockName)); !ok || owner != user {
		t.Errorf("the lock belongs to %d", owner)
	}
}
