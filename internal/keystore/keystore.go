// Package keystore keeps the private keys of a node and its identities in files:
//
//	DIR/node.key                       the node's
//	DIR/identities/<uid>/<id52>.key    an identity's; the folder says whose it is
//
// Files are PKCS#8 PEM, mode 0600, in folders of mode 0700, all owned by the
// uid the daemon runs as. Whatever is not exactly so is refused with a *Refusal
// that names the mend, and never replaced or made anew.
package keystore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fastn-stack/fastnd/internal/identity"
)

const (
	nodeFile       = "node.key"
	identityFolder = "identities"
	keySuffix      = ".key"
	tempPrefix     = ".tmp-"
)

// Keystore is an open keystore folder. Files are reached through descriptors of
// their folders, never by path, so that nobody can swap a folder meanwhile.
// Safe for concurrent use, also by several processes.
type Keystore struct {
	dir   *folder
	owner uint32

	mu sync.Mutex // see lock

	// step is called before each step of a write; an error stops it there, as a
	// crash would. nil outside of tests.
	step func(name string) error
}

// Open opens the keystore in dir, making the folder (not its parents) if it is
// missing. owner is the uid that must own all of it, as a rule the process's
// own. Errors are a *Refusal if the folder is not private to owner.
func Open(dir string, owner uint32) (*Keystore, error) {
	dir = filepath.Clean(dir)
	k := &Keystore{owner: owner}
	parent, err := openParent(filepath.Dir(dir))
	if err != nil {
		return nil, fmt.Errorf("open the keystore: %w", err)
	}
	defer parent.Close()
	k.dir, err = k.openOrMakeFolder(parent, filepath.Base(dir))
	if err != nil {
		return nil, fmt.Errorf("open the keystore: %w", err)
	}
	unlock := k.lock()
	err = k.sweep(k.dir)
	unlock()
	if err != nil {
		_ = k.dir.Close()
		return nil, fmt.Errorf("open the keystore: %w", err)
	}
	return k, nil
}

// Close closes the folder. Later calls fail with fs.ErrClosed.
func (k *Keystore) Close() error { return k.dir.Close() }

// lock keeps others, in this process and in others, from writing and sweeping
// until the function it returns is called. Where a file system has no locks,
// other processes are not kept out; then still no key is ever replaced.
func (k *Keystore) lock() (unlock func()) {
	k.mu.Lock()
	for errors.Is(k.dir.control(func(fd int) error { return unix.Flock(fd, unix.LOCK_EX) }), unix.EINTR) {
	}
	return func() {
		_ = k.dir.control(func(fd int) error { return unix.Flock(fd, unix.LOCK_UN) })
		k.mu.Unlock()
	}
}

// StoredNodeKey reads the node's key. The error is fs.ErrNotExist if there is none, a
// *Refusal if it is refused.
func (k *Keystore) StoredNodeKey() (identity.Key, error) {
	defer k.lock()()
	if err := k.dir.check(k.owner); err != nil {
		return identity.Key{}, fmt.Errorf("node key: %w", err)
	}
	key, err := k.readKey(k.dir, nodeFile)
	return key, wrap("node key", err)
}

// NodeKey reads the node's key, and makes it if there is no such file. A key
// that is refused (*Refusal) stays as it is.
func (k *Keystore) NodeKey() (identity.Key, error) {
	defer k.lock()()
	if err := k.dir.check(k.owner); err != nil {
		return identity.Key{}, fmt.Errorf("node key: %w", err)
	}
	key, err := k.readKey(k.dir, nodeFile)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, wrap("node key", err)
	}
	key, err = identity.GenerateKey()
	if err != nil {
		return identity.Key{}, fmt.Errorf("node key: %w", err)
	}
	err = k.write(k.dir, nodeFile, key)
	if errors.Is(err, fs.ErrExist) { // another process was faster
		key, err = k.readKey(k.dir, nodeFile)
	}
	if err != nil {
		return identity.Key{}, fmt.Errorf("node key: %w", err)
	}
	return key, nil
}

// Create makes a new identity of uid.
func (k *Keystore) Create(uid uint32) (identity.Key, error) {
	key, err := identity.GenerateKey()
	if err != nil {
		return identity.Key{}, err
	}
	if err := k.Add(uid, key); err != nil {
		return identity.Key{}, err
	}
	return key, nil
}

// Add stores an identity of uid. The error is fs.ErrExist if the identity is
// here already, under this or another uid.
func (k *Keystore) Add(uid uint32, key identity.Key) error {
	if key.IsZero() {
		return errors.New("keystore: no key to add")
	}
	if uid == NoUID {
		return errors.New("keystore: an identity needs an owner")
	}
	defer k.lock()()
	return wrap("keystore: add an identity", k.add(uid, key))
}

func (k *Keystore) add(uid uint32, key identity.Key) error {
	if err := k.dir.check(k.owner); err != nil {
		return err
	}
	all, err := k.openOrMakeFolder(k.dir, identityFolder)
	if err != nil {
		return err
	}
	defer all.Close()
	name := key.ID().String() + keySuffix
	if err := elsewhere(all, name); err != nil {
		return err
	}
	mine, err := k.openOrMakeFolder(all, strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return err
	}
	defer mine.Close()
	return k.write(mine, name, key)
}

// elsewhere fails with fs.ErrExist if a file called name is in any folder of
// all: an identity has one owner.
func elsewhere(all *folder, name string) error {
	owners, err := all.names()
	if err != nil {
		return err
	}
	for _, o := range owners {
		var st unix.Stat_t
		if unix.Fstatat(all.fd(), o+"/"+name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			return &fs.PathError{Op: "add", Path: all.join(o, name), Err: fs.ErrExist}
		}
	}
	return nil
}

// Remove deletes the key of an identity for good, also a refused one. The error
// is fs.ErrNotExist if uid has no such identity.
func (k *Keystore) Remove(uid uint32, id identity.ID) error {
	defer k.lock()()
	return wrap("keystore: remove an identity", k.remove(uid, id))
}

func (k *Keystore) remove(uid uint32, id identity.ID) error {
	if err := k.dir.check(k.owner); err != nil {
		return err
	}
	all, err := k.openFolder(k.dir, identityFolder)
	if err != nil {
		return err
	}
	defer all.Close()
	mine, err := k.openFolder(all, strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return err
	}
	defer mine.Close()
	name := id.String() + keySuffix
	if err := unix.Unlinkat(mine.fd(), name, 0); err != nil {
		return &fs.PathError{Op: "remove", Path: mine.join(name), Err: err}
	}
	return mine.Sync()
}

func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// openParent opens the folder that the keystore is in. It need not be private,
// and links on the way to it are the administrator's own.
func openParent(path string) (*folder, error) {
	f, err := os.OpenFile(path, unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &folder{File: f, path: path}, nil
}
