package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

// backupTimeout bounds a backup: the longest that the daemon allows.
const backupTimeout = time.Hour

type daemonBackupCmd struct {
	File string `arg:"" help:"The file to make; it must not exist." complete:"file"`
}

func (*daemonBackupCmd) Help() string {
	return `Writes everything that the daemon keeps of all its users, as it is at this moment, while it serves: keys,
identities, contacts, grants and messages. Not the configuration. The file is new, a tar archive, and
readable by you alone: whoever has it can act as this machine and all of its users.

What is restored later is as it was then. Messages that were queued and have been delivered since are sent
once more, and are not there twice at their receivers, which know them for 60 days. Those that were
cancelled since are queued again, and sent. What was received since is lost: its senders know it as
delivered. What was read, removed or taken by a program since is there again, as it was. Never run two
machines with the same backup at once: they would be one for others, and each gets some of the messages.

Example:
  fastn daemon backup fastn.tar`
}

func (c *daemonBackupCmd) run(a *app) error {
	f, err := newSecret(c.File, "the backup")
	if err != nil {
		return err
	}
	d, err := a.daemon()
	if err == nil {
		var out api.Backup
		ctx, cancel := context.WithTimeout(a.ctx, backupTimeout)
		defer cancel()
		raw, verbErr := d.Verb(ctx, api.VerbDaemonBackup, nil, f)
		if err = a.explain(verbErr); err == nil {
			err = decode(raw, &out)
		}
		if err == nil {
			err = syncAll(f)
		}
		if err == nil {
			_ = f.Close()
			for _, name := range out.Skipped {
				a.warn("not in the backup, since it is no private key: "+name, `"fastn status" tells what is wrong with it`)
			}
			return a.done(raw, "wrote %d keys and all data, %d bytes, to %s: keep it secret", out.Keys, out.Bytes, c.File)
		}
	}
	_ = f.Close()
	_ = os.Remove(c.File)
	return err
}

// newSecret makes a file that is new and the user's alone.
func newSecret(path, what string) (*os.File, error) {
	if path == "-" {
		return nil, usage("%s is never written to standard output", what).
			WithHint("give a file that does not exist; one that is named -, as ./-")
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, api.Errorf(api.CodeConflict, "cannot write %s to %s: it exists", what, path).
			WithHint("name a file that does not exist; a secret never replaces a file")
	}
	if err != nil {
		return nil, failed("cannot write %s to %s: %v", what, path, pathCause(err)).
			WithHint("name a new file in a folder that exists and that you may write to")
	}
	return f, nil
}

// syncAll makes a new file and its name last.
func syncAll(f *os.File) error {
	dir, err := os.Open(filepath.Dir(f.Name()))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), dir.Sync(), dir.Close())
}

type daemonRestoreCmd struct {
	File string `arg:"" help:"What fastn daemon backup wrote." complete:"file"`
}

func (*daemonRestoreCmd) Help() string {
	return `Runs "fastnd --restore", which makes keys and data anew in a folder that has none; the daemon must not run.
For the system's daemon it prints the commands for an administrator instead. What an old backup means for
messages is told by "fastn daemon backup --help".

Example:
  fastn --home ~/.fastn daemon restore fastn.tar`
}

func (c *daemonRestoreCmd) run(a *app) error {
	file, err := filepath.Abs(c.File)
	if err != nil {
		return err
	}
	p, own, err := a.ownDaemon()
	if err != nil {
		return err
	}
	if !own {
		return c.systemCommands(a, file)
	}
	unlock, err := a.claimHome(p)
	if err != nil {
		return err
	}
	defer unlock()
	program, err := findDaemon()
	if err != nil {
		return err
	}
	var said, why bytes.Buffer
	cmd := exec.CommandContext(a.ctx, program, "--home", p.home, "--restore", file)
	cmd.Stdout, cmd.Stderr = &said, &why
	if err := cmd.Run(); err != nil {
		return restoreFailed(err, why.String())
	}
	if a.flags.JSON {
		return a.printValue(map[string]string{"home": p.home})
	}
	a.note("%s", strings.TrimSpace(said.String()))
	return nil
}

// restoreFailed makes an error of what fastnd said.
func restoreFailed(err error, why string) error {
	e := failed("fastnd did not restore it: %v", err).WithHint(`it takes an empty folder, room for it, and what "fastn daemon backup" wrote`)
	for line := range strings.Lines(why) {
		line = strings.TrimSuffix(line, "\n")
		if text, ok := strings.CutPrefix(line, "fastnd: "); ok {
			e = failed("%s", text).WithHint("%s", e.Hint)
		} else if text, ok := strings.CutPrefix(line, "hint: "); ok {
			e = e.WithHint("%s", text)
		}
	}
	return e
}

func (c *daemonRestoreCmd) systemCommands(a *app, file string) error {
	commands := []string{"systemctl stop fastn.socket fastnd.service", "fastnd --restore " + api.ShellQuote(file), "systemctl enable --now fastn.socket fastnd.service"}
	if a.flags.JSON {
		return a.printValue(map[string][]string{"commands": commands})
	}
	a.note("an administrator restores the system's daemon by these commands:")
	return a.write(bytes.NewBufferString(strings.Join(commands, "\n") + "\n"))
}
