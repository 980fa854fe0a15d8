package keystore

import (
	"errors"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"github.com/fastn-stack/fastnd/internal/identity"
)

// NoUID is the UID of an Entry whose folder names no user.
const NoUID = ^uint32(0)

// Entry is one identity key, or something in its place that cannot be used.
type Entry struct {
	UID uint32      // NoUID if the folder names no user
	ID  identity.ID // from the file's name; zero if that is no id52
	Key identity.Key
	// Err, a *Refusal or an error of the file system, says why there is no Key.
	Err  error
	Path string
}

// List reads all identities, in the order of uid folder and file name. What is
// refused gives an Entry with Err and the others go on; only if the folder of
// all identities cannot be used is there an error (*Refusal). What a crash left
// half written is deleted on the way.
func (k *Keystore) List() ([]Entry, error) {
	defer k.lock()()
	entries, err := k.list()
	if err != nil {
		return nil, wrap("keystore: list identities", err)
	}
	refuseTwins(entries)
	return entries, nil
}

func (k *Keystore) list() ([]Entry, error) {
	if err := k.dir.check(k.owner); err != nil {
		return nil, err
	}
	all, err := k.openFolder(k.dir, identityFolder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer all.Close()
	if err := k.sweep(all); err != nil {
		return nil, err
	}
	names, err := all.names()
	if err != nil {
		return nil, err
	}
	var entries []Entry
	for _, n := range names {
		entries = append(entries, k.listUser(all, n)...)
	}
	return entries, nil
}

func (k *Keystore) listUser(all *folder, name string) []Entry {
	path := all.join(name)
	uid, ok := parseUID(name)
	if !ok {
		return []Entry{{UID: NoUID, Path: path, Err: stray(path, "its name is not a uid")}}
	}
	mine, err := k.openFolder(all, name)
	if err != nil {
		return []Entry{{UID: uid, Path: path, Err: err}}
	}
	defer mine.Close()
	err = k.sweep(mine)
	var names []string
	if err == nil {
		names, err = mine.names()
	}
	if err != nil {
		return []Entry{{UID: uid, Path: path, Err: err}}
	}
	var entries []Entry
	for _, n := range names {
		entries = append(entries, k.listKey(mine, uid, n))
	}
	return entries
}

func (k *Keystore) listKey(mine *folder, uid uint32, name string) Entry {
	e := Entry{UID: uid, Path: mine.join(name)}
	base, ok := strings.CutSuffix(name, keySuffix)
	id, err := identity.ParseID(base)
	if !ok || err != nil || id.String() != base {
		e.Err = stray(e.Path, "its name is not that of an identity's key")
		return e
	}
	e.ID = id
	key, err := k.readKey(mine, name)
	switch {
	case err != nil:
		e.Err = err
	case key.ID() != id:
		e.Err = broken(e.Path, "the key in it is not the one its name says")
	default:
		e.Key = key
	}
	return e
}

// refuseTwins refuses an identity that two users have: who owns it is unknown.
func refuseTwins(entries []Entry) {
	first := make(map[identity.ID]int)
	for i := range entries {
		if entries[i].ID.IsZero() {
			continue
		}
		j, twice := first[entries[i].ID]
		if !twice {
			first[entries[i].ID] = i
			continue
		}
		for _, n := range []int{j, i} {
			e := &entries[n]
			e.Key = identity.Key{}
			e.Err = stray(e.Path, "the same identity is in the folder of another uid, leave only its owner's")
		}
	}
}

// parseUID accepts one spelling of each uid.
func parseUID(name string) (uint32, bool) {
	n, err := strconv.ParseUint(name, 10, 32)
	uid := uint32(n)
	return uid, err == nil && uid != NoUID && strconv.FormatUint(n, 10) == name
}

// readKey reads a key file of dir. The error is fs.ErrNotExist if there is none.
func (k *Keystore) readKey(dir *folder, name string) (identity.Key, error) {
	f, err := openAt(dir, name, wantFile, k.owner)
	if err != nil {
		return identity.Key{}, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return identity.Key{}, err
	}
	key, err := parsePEM(data)
	if err != nil {
		return identity.Key{}, broken(dir.join(name), err.Error())
	}
	return key, nil
}
