package messages

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/sqlite"
	"github.com/fastn-stack/fastnd/internal/testutil"
)

// pace is how many operations a second something does.
type pace func(t testing.TB, n int) float64

// TestPace sets Put and Take beside what the disk and the driver can do, in
// turns since other work on the machine disturbs all alike. It shows, and does not
// judge: the budgets are those of make bench.
func TestPace(t *testing.T) {
	share := testutil.Rounds(10, 1) // the short form shows that it can be measured
	sync, bare := fdatasyncs(t), bareInserts(t)
	for _, c := range []struct {
		name     string
		is, base pace
		n, of    int
	}{
		{"Put, 1 caller / fdatasync", puts(t, 1), sync, 1000, 1000},
		{"Put, 64 callers / bare inserts by 64", puts(t, 64), bare, 6400, 6400},
		{"Take of 64 / bare inserts by 64", takes(t, 64), bare, 6400, 6400},
	} {
		var ratios []float64
		for range testutil.Rounds(1, 9) {
			is, base := c.is(t, c.n/share), c.base(t, c.of/share)
			ratios = append(ratios, is/base)
			t.Logf("%s: %.0f/s, %.0f/s: %.2f", c.name, is, base, is/base)
		}
		m := median(ratios)
		t.Logf("%s: median %.2f", c.name, m)
	}
}

func median(of []float64) float64 {
	for i := range of {
		for j := i; j > 0 && of[j] < of[j-1]; j-- {
			of[j], of[j-1] = of[j-1], of[j]
		}
	}
	return of[len(of)/2]
}

func perSecond(n int, since time.Time) float64 { return float64(n) / time.Since(since).Seconds() }

func fdatasyncs(t testing.TB) pace {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	page := make([]byte, 4096)
	return func(t testing.TB, n int) float64 {
		start := time.Now()
		for range n {
			if _, err := f.Write(page); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Fdatasync(int(f.Fd())); err != nil {
				t.Fatal(err)
			}
		}
		return perSecond(n, start)
	}
}

// bareInserts inserts rows of a message's size into a table without indexes.
func bareInserts(t testing.TB) pace {
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "bare.db"), sqlite.Options{
		Migrations: []sqlite.Migration{{Name: "bare", SQL: "CREATE TABLE bare (n INTEGER PRIMARY KEY, data BLOB)"}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	data := make([]byte, 300)
	return func(t testing.TB, n int) float64 {
		start := time.Now()
		for done := 0; done < n; done += 64 {
			err := db.Update(t.Context(), func(tx *sql.Tx) error {
				s, err := tx.Prepare("INSERT INTO bare (data) VALUES (?)")
				if err != nil {
					return err
				}
				for range 64 {
					if _, err := s.Exec(data); err != nil {
						return err
					}
				}
				return s.Close()
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		return perSecond(n, start)
	}
}

func puts(t testing.TB, callers int) pace {
	b := newBoxAt(t, t.TempDir())
	var next atomic.Int64
	return func(t testing.TB, n int) float64 {
		start := time.Now()
		var wg sync.WaitGroup
		var left atomic.Int64
		left.Store(int64(n))
		for range callers {
			l := lane
			wg.Go(func() {
				for left.Add(-1) >= 0 {
					if _, err := b.Put(context.Background(), l.message(uuid(next.Add(1)), "a message of the usual length, more or less")); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		return perSecond(n, start)
	}
}

// uuid is as random as one, so that it comes anywhere into an index.
func uuid(n int64) string {
	h := Lane{From: identity.ID{byte(n), byte(n >> 8), byte(n >> 16)}}.hash()
	return fmt.Sprintf("%08x-%04x-4000-8000-%012x", uint32(h>>32), uint16(h>>16), n)
}

func takes(t testing.TB, batch int) pace {
	b := newBoxAt(t, t.TempDir())
	next := 0
	return func(t testing.TB, n int) float64 {
		start := time.Now()
		for done := 0; done < n; done += batch {
			ms := make([]Message, batch)
			for i := range ms {
				next++
				ms[i] = lane.message(uuid(int64(next)), "a message of the usual length, more or less")
				ms[i].Created = b.clock.Now()
			}
			for _, got := range b.Take(t.Context(), ms) {
				if got.Err != nil {
					t.Fatal(got.Err)
				}
			}
		}
		return perSecond(n, start)
	}
}

func BenchmarkPut(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) { puts(b, callers)(b, b.N) })
	}
}

func BenchmarkTake(b *testing.B) { takes(b, 64)(b, b.N) }
