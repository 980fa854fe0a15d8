package verbs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/fastn-stack/fastnd/internal/backup"
	"github.com/fastn-stack/fastnd/internal/messages"
	"github.com/fastn-stack/fastnd/internal/store"
	"github.com/fastn-stack/fastnd/service/api"
)

// Snapshots is where copies of the databases lie while they are written to the
// backup's file, below the state folder. It is of no use to another daemon.
const Snapshots = ".backup"

// backup writes everything that the daemon keeps to the caller's file.
func (v *Verbs) backup(c call) (any, error) {
	if err := onlyOwn(c.file, c.caller.UID, "backup"); err != nil {
		return nil, err
	}
	if !v.backingUp.TryLock() {
		return nil, api.Errorf(api.CodeConflict, "another backup is under way").WithHint("wait until it is done")
	}
	defer v.backingUp.Unlock()
	dir := filepath.Join(v.Dir, Snapshots)
	if err := os.RemoveAll(dir); err != nil { // one that was interrupted
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	out, err := v.writeBackup(c.ctx, c.file, dir)
	if err = errors.Join(err, os.RemoveAll(dir)); err == nil {
		return out, nil
	}
	switch {
	case c.ctx.Err() != nil:
		return nil, c.ctx.Err()
	case errors.Is(err, backup.ErrSink): // the caller's disk, not the daemon's
		return nil, api.Errorf(api.CodeBadRequest, "%v", err).WithHint("name a file on a disk that has room for it")
	}
	return nil, err
}

func (v *Verbs) writeBackup(ctx context.Context, file io.Writer, dir string) (out api.Backup, err error) {
	out.Skipped = []string{}
	w, err := backup.NewWriter(ctx, file, backup.About{Version: v.Version, Node: v.Host.Node().String(), Created: v.Now().UTC()})
	if err != nil {
		return out, err
	}
	// The keys last: a key without a name is served, a name without its key is a loss.
	for _, db := range []struct {
		name string
		copy func(context.Context, string) error
	}{{messages.File, v.Messages.Backup}, {store.File, v.Store.Backup}} {
		path := filepath.Join(dir, db.name)
		if err := db.copy(ctx, path); err != nil {
			return out, err
		}
		if err := errors.Join(w.Database(db.name, path), os.Remove(path)); err != nil {
			return out, err
		}
	}
	var skipped []string
	if out.Keys, skipped, err = w.Keys(v.Dir); err != nil {
		return out, fmt.Errorf("back up the keystore: %w", err)
	}
	out.Skipped = append(out.Skipped, skipped...)
	out.Bytes, err = w.Close()
	return out, err
}
