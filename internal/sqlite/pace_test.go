package sqlite

import (
	"database/sql"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// BenchmarkCommit sets the Batch beside what the disk and the driver can do.
// Each is one operation of about 200 bytes, synced.
func BenchmarkCommit(b *testing.B) {
	b.Run("fdatasync", func(b *testing.B) {
		f, err := os.Create(filepath.Join(b.TempDir(), "f"))
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		page := make([]byte, pageSize)
		for b.Loop() {
			if _, err := f.Write(page); err != nil {
				b.Fatal(err)
			}
			if err := syscall.Fdatasync(int(f.Fd())); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("bare inserts by 64", func(b *testing.B) {
		db := openAt(b, filepath.Join(b.TempDir(), "x.db"), notes)
		n := 0
		for n < b.N {
			err := db.Update(b.Context(), func(tx *sql.Tx) error {
				s, err := tx.Prepare(insertNote)
				if err != nil {
					return err
				}
				for range 64 {
					n++
					if _, err := s.Exec(n, noteText(n)); err != nil {
						return err
					}
				}
				return s.Close()
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	for name, callers := range map[string]int{"1 caller": 1, "64 callers": 64} {
		b.Run(name, func(b *testing.B) {
			db := openAt(b, filepath.Join(b.TempDir(), "x.db"), notes)
			batch := db.NewBatch(BatchHooks{})
			var next atomic.Int64
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for {
						n := int(next.Add(1))
						if n > b.N {
							return
						}
						if err := batch.Do(b.Context(), putNote(n)); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}
