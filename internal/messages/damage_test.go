package messages

import (
	"bytes"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/sqlite"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
)

func (b *box) path() string { return filepath.Join(b.dir, File) }

// damage changes the closed file.
func (b *box) damage(change func(raw []byte) []byte) {
	b.t.Helper()
	b.must(b.Close())
	raw, err := os.ReadFile(b.path())
	b.must(err)
	b.must(os.WriteFile(b.path(), change(raw), 0o600))
	b.open()
}

// forgetPages has SQLite read the file again.
func (b *box) forgetPages() {
	b.t.Helper()
	b.must(b.view(b.t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec("PRAGMA shrink_memory")
		return err
	}))
}

// replace replaces the only place where from stands.
func replace(t testing.TB, from, to string) func(raw []byte) []byte {
	return func(raw []byte) []byte {
		if n := bytes.Count(raw, []byte(from)); n != 1 {
			t.Fatalf("%q stands at %d places", from, n)
		}
		return bytes.Replace(raw, []byte(from), []byte(to), 1)
	}
}

// A changed byte in a message is noticed whoever reads it; the message is set
// aside, once, and the others are served.
func TestChangedDataIsSetAside(t *testing.T) {
	testutil.LeakCheck(t)
	reads := map[string]func(b *box){
		"Head":     func(b *box) { b.head(lane) },
		"ListOut":  func(b *box) { _, err := b.ListOut(b.t.Context(), lane.From, Page{}, true); b.must(err) },
		"ListIn":   func(b *box) { b.inbox(lane.To) },
		"CheckAll": func(b *box) { b.must(b.CheckAll(b.t.Context())) },
		"Outgoing": func(b *box) {
			_, err := b.Outgoing(b.t.Context(), lane.From, "2")
			wantCode(b.t, err, api.CodeNotFound)
		},
		"Incoming": func(b *box) {
			_, err := b.Incoming(b.t.Context(), lane.To, "2")
			wantCode(b.t, err, api.CodeNotFound)
		},
		"Waiting": func(b *box) {
			_, err := b.Waiting(b.t.Context(), lane.To, lane.Protocol, lane.Instance, Page{})
			b.must(err)
		},
	}
	for name, read := range reads {
		b := newBox(t)
		out := !slices.Contains([]string{"ListIn", "Incoming", "Waiting"}, name)
		if out {
			b.put(lane, "1", "2", "3")
		} else {
			b.take(lane.message("1", "text of 1"), lane.message("2", "text of 2"), lane.message("3", "text of 3"))
		}
		b.damage(replace(t, "text of 2", "text of X"))
		for range 2 {
			read(b)
		}
		if b.AsideCount() != 1 || len(b.aside) != 1 || b.aside[0].ID != "2" || b.aside[0].From != lane.From || b.aside[0].To != lane.To {
			t.Errorf("%s: %d aside, told %+v", name, b.AsideCount(), b.aside)
		}
		b.must(b.Prune(t.Context()))
		b.checkUsage()
		b.reopen()
		list, err := b.Store.Aside(t.Context(), 10)
		if err != nil || len(list) != 1 || list[0] != b.aside[0] || b.AsideCount() != 1 {
			t.Errorf("%s: %+v, %v", name, list, err)
		}
		left := ids(b.head(lane))
		for _, m := range b.inbox(lane.To) {
			left = append(left, m.ID)
		}
		if !slices.Equal(left, []string{"1", "3"}) {
			t.Errorf("%s: %v are left", name, left)
		}
		if out { // it is as if it had never been sent: a retry queues it
			b.put(lane, "2")
		}
	}
}

// Any changed byte anywhere: what is served was sent, as it was, and whatever is
// not served any more is told.
func TestAnyChangedByte(t *testing.T) {
	testutil.LeakCheck(t)
	random := rand.New(rand.NewPCG(1, uint64(testutil.Rounds(2, int(time.Now().UnixNano())))))
	other := Lane{id("c"), lane.To, "Other", "default"}
	whole := newBox(t)
	var names []string
	var mine, others []Message
	for i := range 30 {
		name := fmt.Sprint("message-", i)
		names = append(names, name)
		mine = append(mine, lane.message(name, "text of "+name))
		others = append(others, other.message(name, strings.Repeat("text of "+name, 20)))
	}
	whole.put(lane, names...)
	whole.take(mine...)
	whole.take(others...)
	whole.must(whole.Close())
	sound, err := os.ReadFile(whole.path())
	whole.must(err)
	layout, err := os.ReadFile(whole.path() + ".schema")
	whole.must(err)
	for round := range testutil.Rounds(20, 1000) {
		raw := bytes.Clone(sound)
		at := random.IntN(len(raw))
		if round%3 == 0 {
			at = random.IntN(4096)
		}
		raw[at] ^= 1 << random.IntN(8)
		b := &box{t: t, dir: memory(t), clock: newClock(), limits: bigLimits()}
		b.must(os.WriteFile(b.path(), raw, 0o600))
		b.must(os.WriteFile(b.path()+".schema", layout, 0o600))
		b.open()
		recovered := b.Recovery()
		b.o.OnRecovery = func(r *sqlite.Recovery) { recovered = r }
		b.must(b.CheckAll(t.Context()))
		aside := len(b.aside)
		b.must(b.CheckAll(t.Context()))
		if len(b.aside) != aside {
			t.Errorf("byte %d: set aside only at the second look: %+v", at, b.aside)
		}
		served := 0
		for _, m := range b.head(lane) {
			served++
			if string(m.Data) != string(text("text of "+m.ID)) || !slices.Contains(names, m.ID) {
				t.Errorf("byte %d: served %+v", at, m)
			}
		}
		seen := map[string]bool{}
		for _, m := range b.inbox(lane.To) {
			served++
			want := text("text of " + m.ID)
			if m.From == other.From {
				want = text(strings.Repeat("text of "+m.ID, 20))
			}
			if key := m.From.String() + m.ID; seen[key] || string(m.Data) != string(want) || m.To != lane.To {
				t.Errorf("byte %d: served %+v", at, m)
			} else {
				seen[key] = true
			}
		}
		if served < 90 && len(b.aside) == 0 && (recovered == nil || !recovered.Lost()) {
			t.Errorf("byte %d: %d of 90 are served, and nobody was told (%+v)", at, served, recovered)
		}
		if served < 90-40 {
			t.Errorf("byte %d: only %d of 90 are served", at, served)
		}
		// It works on.
		b.put(lane, "new")
		if got := b.take(lane.message("new", "x")); got[0].Err != nil {
			t.Error(got)
		}
		b.checkUsage()
		b.must(b.Told())
		b.reopen()
		if b.Recovery() != nil {
			t.Errorf("byte %d: repaired again: %+v", at, b.Recovery())
		}
		b.must(b.Close())
	}
}

// An index with another condition has no rows, and nothing else is wrong with it.
func TestChangedIndex(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	b.put(lane, "1")
	b.damage(replace(t, "ON outbox (who, lane, seq) WHERE state = 'queued'", "ON outbox (who, lane, seq) WHERE state = 'uueued'"))
	if b.Recovery() == nil || len(b.head(lane)) != 1 {
		t.Errorf("%+v, head %v", b.Recovery(), b.head(lane))
	}
}

// SQLite finds this table by its name as it is written, all else by any case.
func TestChangedSequences(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	b.put(lane, "1")
	b.damage(replace(t, "CREATE TABLE sqlite_sequence", "CREATE TABLE sqlite_Sequence"))
	b.put(lane, "2")
	if got := b.queued(); b.Recovery() == nil || !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("%+v, %v", b.Recovery(), got)
	}
}

// Damage that the light check does not see, and the loading does.
func TestDamagedCounters(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	const n = 300
	for i := range n {
		b.take(Lane{id(fmt.Sprint("s", i)), lane.To, "Text", "default"}.message("1", "x"))
	}
	// The page of counters in the middle of the table.
	key := id("s150")
	b.damage(func(raw []byte) []byte {
		for i := 4096; i < len(raw); i += 4096 {
			page := raw[i : i+4096]
			if page[0] == 0x0d && bytes.Contains(page, key[:]) && !bytes.Contains(page, []byte("Text")) {
				clear(page)
			}
		}
		return raw
	})
	if b.Recovery() == nil || len(b.inbox(lane.To)) != 256 || b.Unread(lane.To) != n {
		t.Errorf("%+v, %d unread", b.Recovery(), b.Unread(lane.To))
	}
	b.checkUsage()
}

// Whole pages that are gone, in the order of the file: the rest is served.
func TestLostPages(t *testing.T) {
	testutil.LeakCheck(t)
	const n = 300
	fresh := func() *box {
		b := newBox(t)
		var ms []Message
		for i := range n {
			ms = append(ms, lane.message(fmt.Sprint("message-", i), strings.Repeat("x", 200)))
		}
		for i := 0; i < n; i += 100 {
			b.take(ms[i : i+100]...)
		}
		return b
	}
	pages := 0
	for page := 0; page == 0 || page < pages; page += testutil.Rounds(11, 1) {
		b := fresh()
		b.damage(func(raw []byte) []byte {
			pages = len(raw) / 4096
			copy(raw[page*4096:], make([]byte, 4096))
			return raw
		})
		b.must(b.CheckAll(t.Context()))
		in, err := b.ListIn(t.Context(), lane.To, Page{Limit: 2 * n}, false)
		if err != nil || len(in) < n-30 {
			t.Errorf("page %d of %d: %d of %d messages, %v", page+1, pages, len(in), n, err)
		}
		for i := 1; i < len(in); i++ {
			if in[i].Seq <= in[i-1].Seq {
				t.Errorf("page %d: out of order", page+1)
			}
		}
		b.checkUsage()
		b.must(b.Close())
	}
}

// Damage that is met while the store is in use is mended without a restart; if it
// comes again at once that is told instead of being mended for ever.
func TestDamageInUse(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	var told []*sqlite.Recovery
	b.o.OnRecovery = func(r *sqlite.Recovery) { told = append(told, r) }
	const n = 250
	var ms []Message
	for i := range n {
		ms = append(ms, lane.message(fmt.Sprint("message-", i), strings.Repeat("x", 500)))
	}
	b.take(ms...)
	b.reopen()
	b.o.OnRecovery = func(r *sqlite.Recovery) { told = append(told, r) }
	spoil := func() {
		raw, err := os.ReadFile(b.path())
		b.must(err)
		for i := 4096; i < len(raw); i += 4096 {
			if bytes.Contains(raw[i:i+4096], []byte("message-200")) {
				clear(raw[i : i+4096])
			}
		}
		b.must(os.WriteFile(b.path(), raw, 0o600))
		b.forgetPages()
	}
	list := func() (int, error) {
		in, err := b.ListIn(t.Context(), lane.To, Page{Limit: 2 * n}, false)
		return len(in), err
	}
	spoil()
	got, err := list()
	if err != nil || got < n-20 || got == n || len(told) != 1 || !told[0].Lost() {
		t.Errorf("%d of %d messages, %v, told %d times", got, n, err, len(told))
	}
	b.checkUsage()
	spoilAll := func() {
		b.must(os.Truncate(b.path(), 8192))
		b.forgetPages()
	}
	b.clock.advance(30 * time.Second)
	spoilAll()
	if _, err := list(); err == nil || len(told) != 1 {
		t.Errorf("%v, told %d times", err, len(told))
	}
	b.clock.advance(time.Minute)
	if _, err := list(); err != nil || len(told) != 2 {
		t.Errorf("%v, told %d times", err, len(told))
	}
	b.put(lane, "new")
}
