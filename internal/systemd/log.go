package systemd

import (
	"io"
	"log/slog"

	"github.com/coreos/go-systemd/v22/journal"
)

// Log is where the daemon's records go. Use it with [slog.New] and close it
// last.
type Log struct {
	slog.Handler
	journal *journalWriter
}

// OpenLog writes to the journal natively if standard error is connected to it
// (JOURNAL_STREAM, see systemd.exec(5)), else as text to stderr. level may
// change while in use. identifier is what journalctl shows as the sender.
// An unreachable journal is no error: text to stderr takes its place.
func OpenLog(identifier string, level slog.Leveler, stderr io.Writer) *Log {
	if native, err := journal.StderrIsJournalStream(); err == nil && native {
		if w, err := openJournal(journalSocket, identifier); err == nil {
			return &Log{Handler: newJournalHandler(level, w), journal: w}
		}
	}
	return &Log{Handler: slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level})}
}

// Dropped counts records that were lost because the journal did not take them
// in time.
func (l *Log) Dropped() uint64 {
	if l.journal == nil {
		return 0
	}
	return l.journal.dropped.Load()
}

// Close writes out what is queued, within two seconds. Records logged during
// or after Close are dropped. It may be called again.
func (l *Log) Close() error {
	if l.journal == nil {
		return nil
	}
	return l.journal.Close()
}

// journalSocket is where journald takes native messages.
const journalSocket = "/run/systemd/journal/socket"
