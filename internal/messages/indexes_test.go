package messages

import (
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/sqlite"
	"github.com/fastn-stack/fastnd/internal/testutil"
)

// indexed is a folder with messages in every state, and where its indexes begin.
type indexed struct {
	dir    string
	root   map[string]int64 // by name of the index
	queued map[Lane][]string
	inbox  []string
}

func newIndexed(t *testing.T) *indexed {
	x := &indexed{root: map[string]int64{}, queued: map[Lane][]string{}}
	b := newBox(t)
	x.dir = b.dir
	for i := range 3 {
		l := Lane{lane.From, id(fmt.Sprint("p", i)), "Text", "default"}
		if i == 2 {
			l.From = id("c")
		}
		for n := range 60 {
			x.queued[l] = append(x.queued[l], fmt.Sprintf("q%d-%02d", i, n))
		}
		b.put(l, x.queued[l]...)
		ended := b.put(Lane{l.From, id("gone"), "Text", "default"}, fmt.Sprintf("d%d", i), fmt.Sprintf("r%d", i), fmt.Sprintf("c%d", i))
		b.must(b.Settle(b.t.Context(), ended[0].Lane(), []Outcome{{Seq: ended[0].Seq, ID: ended[0].ID, State: Delivered},
			{Seq: ended[1].Seq, ID: ended[1].ID, State: Refused, Code: "refused"}}, nil))
		_, err := b.Cancel(t.Context(), l.From, ended[2].ID)
		b.must(err)
		b.must(b.Settle(t.Context(), l, nil, &Wait{Code: "offline"}))
		for n := range 20 {
			m := Lane{id(fmt.Sprint("s", i)), lane.To, "Text", "default"}.message(fmt.Sprintf("i%d-%02d", i, n), "x")
			got := b.take(m)
			switch b.must(got[0].Err); n % 4 {
			case 0:
				b.must(b.Remove(t.Context(), lane.To, got[0].Seq))
				continue
			case 1:
				b.must(b.MarkRead(t.Context(), lane.To, got[0].Seq))
			}
			x.inbox = append(x.inbox, m.ID)
		}
		_, err = b.Want(t.Context(), lane.To, id(fmt.Sprint("w", i)), "Other", "default")
		b.must(err)
	}
	b.must(b.flushWants(t.Context()))
	b.must(b.view(t.Context(), func(tx *sql.Tx) error {
		rows, err := tx.Query("SELECT name, rootpage FROM sqlite_schema WHERE type = 'index'")
		if err != nil {
			return err
		}
		return each(rows, func(row []any) (bool, error) {
			x.root[row[0].(string)] = row[1].(int64)
			return true, nil
		})
	}))
	b.must(b.Close())
	return x
}

// copy makes another such folder.
func (x *indexed) copy(t *testing.T) string {
	t.Helper()
	dir := memory(t)
	for _, name := range []string{File, File + ".schema"} {
		raw, err := os.ReadFile(filepath.Join(x.dir, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), raw, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// flip changes one bit of an entry of the index.
func (x *indexed) flip(t *testing.T, dir, index string, random *rand.Rand) (what string) {
	t.Helper()
	path := filepath.Join(dir, File)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := entries(raw, x.root[index])
	if len(at) == 0 {
		t.Fatalf("%s has no entries", index)
	}
	i, bit := at[random.IntN(len(at))], random.IntN(8)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{raw[i] ^ 1<<bit}, int64(i)); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s, bit %d of byte %d", index, bit, i)
}

// entries are the places of all bytes of entries in the leaves below a page.
func entries(raw []byte, page int64) (at []int) {
	begin := int(page-1) * 4096
	p := raw[begin : begin+4096]
	cell := func(header, n int) int { return int(binary.BigEndian.Uint16(p[header+2*n:])) }
	n := int(binary.BigEndian.Uint16(p[3:]))
	switch p[0] {
	case 0x02: // https://sqlite.org/fileformat2.html#b_tree_pages
		for i := range n {
			at = append(at, entries(raw, int64(binary.BigEndian.Uint32(p[cell(12, i):])))...)
		}
		return append(at, entries(raw, int64(binary.BigEndian.Uint32(p[8:])))...)
	case 0x0a:
		for i := range n {
			from := cell(8, i)
			for j := range 1 + int(p[from]) {
				at = append(at, begin+from+j)
			}
		}
	}
	return at
}

// Any bit of any entry of any index, changed before a start: it is found and mended
// by that, nothing is lost or told as lost, and mail goes on.
func TestEveryIndexDamagedBeforeAStart(t *testing.T) {
	x := newIndexed(t)
	forEachIndex(t, x, func(t *testing.T, index string, random *rand.Rand) {
		dir := x.copy(t)
		what := x.flip(t, dir, index, random)
		r := newRigStopped(t, dir)
		if got := r.s.Recovery(); got == nil || lostMail(got) {
			t.Errorf("%s: recovery %+v", what, got)
		}
		x.check(t, what, r)
	})
}

// The same below a store that runs and read what it did: nothing is lost, mail goes
// on, and at the latest the daily check mends what it finds.
func TestEveryIndexDamagedInUse(t *testing.T) {
	x := newIndexed(t)
	forEachIndex(t, x, func(t *testing.T, index string, random *rand.Rand) {
		dir := x.copy(t)
		r := newRigStopped(t, dir)
		var told []*sqlite.Recovery
		r.s.o.OnRecovery = func(got *sqlite.Recovery) { told = append(told, got) }
		r.s.o.OnAside = func(a Aside) { t.Errorf("set aside: %+v", a) }
		what := x.flip(t, dir, index, random)
		const shrink = "PRAGMA shrink_memory" // each reads the file again
		if err := r.s.view(t.Context(), func(tx *sql.Tx) error { _, err := tx.Exec(shrink); return err }); err != nil {
			t.Fatal(err)
		}
		if err := r.s.write(t.Context(), func(tx *sqlite.Tx) error { _, err := tx.Exec(shrink); return err }); err != nil {
			t.Fatal(err)
		}
		x.check(t, what, r)
		if len(told) != 1 || lostMail(told[0]) {
			t.Errorf("%s: told %d times", what, len(told))
			for _, got := range told {
				t.Errorf("%+v", got)
			}
		}
	})
}

// lostMail tells whether r is told as a loss of messages; counters are counted anew.
func lostMail(r *sqlite.Recovery) bool {
	return r.Commits > 0 || slices.ContainsFunc(r.Tables, func(t sqlite.TableRecovery) bool {
		return t.Lost && (t.Name == boxOut || t.Name == boxIn)
	})
}

func forEachIndex(t *testing.T, x *indexed, do func(t *testing.T, index string, random *rand.Rand)) {
	seed := uint64(testutil.Rounds(1, int(time.Now().UnixNano())))
	random := rand.New(rand.NewPCG(1, seed))
	for _, index := range slices.Sorted(maps.Keys(x.root)) {
		for range testutil.Rounds(3, 10) {
			synctest.Test(t, func(t *testing.T) { do(t, index, random) })
		}
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	}
}

// check runs r and sees that all that was queued is delivered, with what is sent now, that the
// inbox is what it was, takes what comes, and that all of it is sound in the end.
func (x *indexed) check(t *testing.T, what string, r *rig) {
	t.Helper()
	arrived := make(map[string]bool)
	r.is(func(m *router.Mail) ([]error, error) {
		r.set(func() {
			for _, l := range m.Letters {
				arrived[l.ID] = true
			}
		})
		return taken(m)
	})
	r.run()
	var all []string
	for l, ids := range x.queued {
		r.send(l, "new "+ids[0])
		all = append(append(all, ids...), "new "+ids[0])
	}
	fresh := Lane{id("s9"), lane.To, "Text", "default"}.message("fresh", "x")
	fresh.Created = time.Now()
	if got := r.s.Take(context.Background(), []Message{fresh}); got[0].Err != nil {
		t.Errorf("%s: %v", what, got[0].Err)
	}
	time.Sleep(time.Hour)
	if err := r.s.CheckAll(context.Background()); err != nil { // as the daemon does
		t.Errorf("%s: %v", what, err)
	}
	time.Sleep(time.Hour)
	recorded()
	for _, id := range all {
		if !arrived[id] {
			t.Errorf("%s: %s did not arrive", what, id)
		}
	}
	in, err := r.s.ListIn(context.Background(), lane.To, Page{}, false)
	var got []string
	for _, m := range in {
		got = append(got, m.ID)
	}
	if want := append(slices.Clone(x.inbox), "fresh"); err != nil || !slices.Equal(got, want) {
		t.Errorf("%s: the inbox has %q, want %q, %v", what, got, want, err)
	}
	if left := r.s.senders(); len(left) > 0 {
		t.Errorf("%s: %d senders have queued messages", what, len(left))
	}
	if err := r.s.CheckAll(context.Background()); err != nil || r.Trouble() != nil {
		t.Errorf("%s: %v, %v", what, err, r.Trouble())
	}
}
