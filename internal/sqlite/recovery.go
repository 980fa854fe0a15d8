package sqlite

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
)

// Recovery tells what became of a damaged database. It is kept beside the database
// until DB.Told: what nobody was told of, since the start failed after it or the
// process ended, is told by the next Open. One that comes on top is added to it.
type Recovery struct {
	// Missing tells that the file was gone, and another was made.
	Missing bool
	// MovedTo is where the damaged file is now; nothing reads it any more. Of
	// several only the first and the newest are kept.
	MovedTo string
	// Cause is what SQLite said. Empty if an earlier version was interrupted
	// between the copy and the exchange of the files.
	Cause string
	// Commits counts those at the log's end that are lost with a bad frame of it.
	// There may have been one more.
	Commits int
	// LogLost tells that the log was gone, or shorter than it had been: what was
	// committed last may be lost, and nobody knows how much.
	LogLost bool `json:",omitempty"`
	// Tables tells for each table, by name, how far it could be read.
	Tables []TableRecovery

	Log string `json:",omitempty"` // SHA-256 of the damaged log of which Commits are
}

// TableRecovery counts rows.
type TableRecovery struct {
	Name   string
	Copied int
	Lost   bool // the table could not be read to its end, or not all rows are what was written
	// Missing is how many rows were lost, as an index tells it; 0 if Lost without
	// it being known how many.
	Missing int
}

// Lost tells whether anything could not be read.
func (r *Recovery) Lost() bool {
	return r.Missing || r.LogLost || r.Commits > 0 || slices.ContainsFunc(r.Tables, func(t TableRecovery) bool { return t.Lost })
}

const (
	// recoverySuffix is of the file that holds what is to be told, with
	// plannedSuffix while the files of the database are not exchanged yet.
	recoverySuffix = ".recovery"
	plannedSuffix  = ".recovery.new"
)

// add gives what is to be told of an earlier recovery, which may be nil, and r.
func (r Recovery) add(earlier *Recovery) *Recovery {
	if earlier == nil {
		return &r
	}
	r.Missing = r.Missing || earlier.Missing
	r.LogLost = r.LogLost || earlier.LogLost
	r.Commits += earlier.Commits
	if r.Log == "" {
		r.Log = earlier.Log
	}
	if r.MovedTo == "" {
		r.MovedTo = earlier.MovedTo
	}
	if r.Cause == "" {
		r.Cause = earlier.Cause
	}
	r.Tables = slices.Clone(r.Tables)
	for _, was := range earlier.Tables {
		i := slices.IndexFunc(r.Tables, func(t TableRecovery) bool { return t.Name == was.Name })
		switch {
		case i < 0:
			r.Tables = append(r.Tables, was)
		case was.Lost && r.Tables[i].Lost && (was.Missing == 0 || r.Tables[i].Missing == 0):
			r.Tables[i].Missing = 0 // it is not known how many
		case was.Lost:
			r.Tables[i].Lost, r.Tables[i].Missing = true, r.Tables[i].Missing+was.Missing
		}
	}
	return &r
}

// untold gives what is kept beside the database at path, nil if that is nothing.
func untold(path string) (*Recovery, error) {
	b, err := os.ReadFile(path + recoverySuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var r Recovery
	if err := json.Unmarshal(b, &r); err != nil {
		// Not nothing: something happened.
		return &Recovery{Cause: fmt.Sprintf("what a repair found cannot be read: %v", err)}, nil
	}
	return &r, nil
}

// keep puts r in the file of that suffix beside the database, durably.
func (r *Recovery) keep(path, suffix string) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return writeFile(path+suffix, b)
}

// Told forgets what Recovery says: somebody was told. Before that another Open says
// it again.
func (db *DB) Told() error {
	err := os.Remove(db.path + recoverySuffix)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return classify(err)
	}
	return classify(syncDir(db.path))
}
