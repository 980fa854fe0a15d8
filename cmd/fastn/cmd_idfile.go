package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/fastn-stack/fastnd/service/api"
)

// maxKeyFile bounds what id import reads from standard input; it must fit into
// a pipe, since nobody reads before the descriptor is passed on.
const maxKeyFile = 16 << 10

type idExportCmd struct {
	Name string `arg:"" help:"Name or id52 of the identity." complete:"identity"`
	File string `arg:"" help:"The file to make; it must not exist." complete:"file"`
}

func (*idExportCmd) Help() string {
	return `The file is new, readable by you alone, and holds the secret key as PEM (PKCS#8): whoever has it
can act as this identity.

Example:
  fastn id export work work.pem`
}

func (c *idExportCmd) run(a *app) error {
	f, err := newSecret(c.File, "the key")
	if err != nil {
		return err
	}
	raw, err := a.verb(api.VerbIdentityExport, api.IdentityArgs{Identity: c.Name}, f)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		_ = os.Remove(c.File)
		return err
	}
	return a.done(raw, "exported %s to %s: keep it secret", c.Name, c.File)
}

type idImportCmd struct {
	Name string `arg:"" valid:"name" help:"Name of the identity to be."`
	File string `arg:"" help:"Key file: PEM, or the hex of a fastn-p2p .private-key; - is standard input." complete:"file"`
}

func (*idImportCmd) Help() string {
	return `Example:
  fastn id import work work.pem
  fastn id import old ~/.fastn/old.private-key
  ssh other cat work.pem | fastn id import work -`
}

func (c *idImportCmd) run(a *app) error {
	f, err := c.open(a)
	if err != nil {
		return err
	}
	defer f.Close()
	var i api.Identity
	printed, err := a.ask(api.VerbIdentityImport, api.NameArgs{Name: c.Name}, &i, f)
	if err != nil {
		return err
	}
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		a.warn(fmt.Sprintf("%s has mode %04o: others on this machine may have read the key, and can be the identity then", c.File, info.Mode().Perm()),
			"chmod 600 "+api.ShellQuote(c.File)+" keeps it from them; or remove the file, as the daemon has its own copy")
	}
	if printed {
		return nil
	}
	return a.showIdentities(i)
}

// open returns a file that can be read to its end without waiting.
func (c *idImportCmd) open(a *app) (*os.File, error) {
	if c.File == "-" {
		return keyFromInput(a.std.In)
	}
	// O_NONBLOCK: a FIFO must not hold up the opening.
	f, err := os.OpenFile(c.File, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, failed("cannot import %s: %v", c.File, pathCause(err)).
			WithHint("name a key file that you can read, or - for standard input")
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		_ = f.Close()
		return nil, failed("cannot import %s: %v", c.File, pathCause(err)).
			WithHint("name a key file, or - for standard input")
	}
	return f, nil
}

// keyFromInput moves standard input into a pipe, so that the daemon never
// waits for a terminal and the key never touches a disk.
func keyFromInput(in *os.File) (*os.File, error) {
	key, err := io.ReadAll(io.LimitReader(in, maxKeyFile+1))
	if err != nil {
		return nil, failed("cannot read the key from standard input: %v", pathCause(err))
	}
	if len(key) == 0 || len(key) > maxKeyFile {
		return nil, usage("standard input holds no key: %d bytes or more, a key file has 1 to %d", len(key), maxKeyFile).
			WithHint("pipe a file made by id export into it")
	}
	// Non-blocking from the start, since the daemon takes no other pipe; the two
	// ends of os.Pipe become blocking when their descriptors are passed on.
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC|syscall.O_NONBLOCK); err != nil {
		return nil, failed("cannot make a pipe: %v", err)
	}
	r, w := os.NewFile(uintptr(fds[0]), "key"), os.NewFile(uintptr(fds[1]), "key")
	_, err = w.Write(key)
	clear(key)
	if closeErr := w.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		_ = r.Close()
		return nil, err
	}
	return r, nil
}

// pathCause drops the operation and path that our own text already has.
func pathCause(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}
