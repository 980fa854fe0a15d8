package messages

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/internal/testutil"
)

// A backup is what was committed when it was made, and opens as a store does.
func TestBackup(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	b.put(lane, "1", "2")
	got := b.take(lane.message("1", "x"), lane.message("2", "x"))
	b.must(b.MarkRead(t.Context(), lane.To, got[0].Seq))
	dir := t.TempDir()
	to := filepath.Join(dir, File)
	b.must(b.Backup(t.Context(), to))
	b.put(lane, "3")
	if err := b.Backup(t.Context(), to); !errors.Is(err, os.ErrExist) {
		t.Errorf("written over: %v", err)
	}
	if info, err := os.Stat(to); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	// Restored beside what is kept of the file that was there.
	copyFile(t, b.path()+".schema", to+".schema")
	restored := &box{t: t, dir: dir, clock: b.clock, limits: b.limits}
	restored.open()
	if got := restored.queued(); !slices.Equal(got, []string{"1", "2"}) || restored.Recovery() != nil || restored.Unread(lane.To) != 1 {
		t.Errorf("%v, %+v", got, restored.Recovery())
	}
	restored.must(restored.CheckAll(t.Context()))
	restored.checkUsage()
	// What was delivered after the backup is queued again; the receiver knows it.
	delivered := b.head(lane)[:2]
	b.must(b.Settle(t.Context(), lane, []Outcome{{Seq: delivered[0].Seq, ID: delivered[0].ID, State: Delivered}, {Seq: delivered[1].Seq, ID: delivered[1].ID, State: Delivered}}, nil))
	peer := newBox(t)
	peer.take(delivered...)
	for _, again := range peer.take(restored.head(lane)...) {
		if again.Err != nil || again.Fresh {
			t.Errorf("taken twice: %+v", again)
		}
	}
	restored.must(restored.Close())
}

// stored are files of all schemas that were released, each with what
// writeStored put into it. The last one is made with FASTN_WRITE_STORED=1, when
// a release changes the schema; the others never change.
var stored = []string{"testdata/v1.db"}

func writeStored(b *box) {
	ms := b.put(lane, "queued", "delivered", "refused")
	b.must(b.Settle(b.t.Context(), lane, []Outcome{{Seq: ms[1].Seq, ID: ms[1].ID, State: Delivered}, {Seq: ms[2].Seq, ID: ms[2].ID, State: Refused, Code: "refused", Reason: "no"}},
		&Wait{"peer_unreachable", "off", b.clock.Now().Add(day)}))
	got := b.take(lane.message("unread", "x"), lane.message("read", "x"), lane.message("gone", "x"))
	b.must(b.MarkRead(b.t.Context(), lane.To, got[1].Seq))
	b.must(b.Acknowledge(b.t.Context(), lane.To, lane.From, "gone"))
	_, err := b.Want(b.t.Context(), lane.To, lane.From, "Mail", "default")
	b.must(err)
}

// Files of every released schema open, with all that is in them.
func TestStoredSchemas(t *testing.T) {
	testutil.LeakCheck(t)
	if os.Getenv("FASTN_WRITE_STORED") != "" {
		b := newBox(t)
		writeStored(b)
		b.must(b.Backup(t.Context(), stored[len(stored)-1]))
	}
	if len(stored) != len(migrations()) {
		t.Errorf("%d schemas are stored, there are %d", len(stored), len(migrations()))
	}
	for _, file := range stored {
		b := &box{t: t, dir: t.TempDir(), clock: newClock(), limits: bigLimits()}
		copyFile(t, file, b.path())
		b.must(os.Chmod(b.path(), 0o600))
		b.open()
		if b.Recovery() != nil {
			t.Errorf("%s: %+v", file, b.Recovery())
		}
		for name, state := range map[string]State{"queued": Queued, "delivered": Delivered, "refused": Refused} {
			if o := b.state(lane.From, name); o.State != state || o.Created != b.clock.Now().Local() {
				t.Errorf("%s: %+v", file, o)
			}
		}
		if o := b.state(lane.From, "queued"); o.Reason != "off" || o.Tries != 1 || string(o.Data) != string(text("text of queued")) {
			t.Errorf("%s: %+v", file, o)
		}
		in := b.inbox(lane.To)
		if len(in) != 2 || in[0].ID != "unread" || in[0].Read || !in[1].Read || b.Unread(lane.To) != 1 {
			t.Errorf("%s: %+v", file, in)
		}
		if got := b.take(lane.message("gone", "x"))[0]; got.Fresh || got.Err != nil {
			t.Errorf("%s: %+v", file, got)
		}
		if w := b.wantedOf(lane.To); len(w) != 1 || w[0].Protocol != "Mail" {
			t.Errorf("%s: %+v", file, w)
		}
		b.must(b.CheckAll(t.Context()))
		b.checkUsage()
		if len(b.aside) != 0 {
			t.Errorf("%s: %+v", file, b.aside)
		}
		b.put(lane, "new")
		b.must(b.Close())
	}
}

// FuzzRow: whatever stands in a row, what is served is what was stored.
func FuzzRow(f *testing.F) {
	for box, columns := range map[string]string{boxOut: outColumns, boxIn: inColumns} {
		for column := range strings.SplitSeq(columns, ", ") {
			f.Add(box, column, "other", []byte("other"), int64(12345))
		}
	}
	f.Add("outbox", "state", "delivered", []byte(nil), int64(0))
	f.Add("outbox", "data", "", []byte(`{"text":"other"}`), int64(0))
	f.Add("outbox", "expires", "", []byte(nil), int64(-1))
	f.Add("inbox", "owner", "", []byte("short"), int64(0))
	f.Add("inbox", "size", "text", []byte(nil), int64(1<<62))
	f.Add("inbox", "content", "", make([]byte, 32), int64(0))
	f.Fuzz(func(t *testing.T, box, column, text string, blob []byte, number int64) {
		decode, columns := decodeOutAny, outColumns
		if box == boxIn {
			decode, columns = decodeInAny, inColumns
		}
		names := strings.Split(columns, ", ")
		i := slices.Index(names, column)
		if i < 0 {
			return
		}
		row, want := soundRow(box)
		for _, v := range []any{text, blob, number, nil, float64(number)} {
			changed := slices.Clone(row)
			changed[i] = v
			if got, bad := decode(changed); bad == nil && string(got.Data) != string(want.Data) && got.Data != nil {
				t.Errorf("%s = %v: served %+v", column, v, got)
			} else if bad == nil && (got.ID != want.ID || got.Lane() != want.Lane() || !got.Created.Equal(want.Created)) {
				t.Errorf("%s = %v: served %+v", column, v, got)
			}
		}
		for n := range row { // a row that is too short
			if _, bad := decode(row[:n]); bad == nil {
				t.Errorf("%d columns are enough", n)
			}
		}
	})
}

func decodeOutAny(row []any) (Message, *damage) { r, bad := decodeOut(row); return r.Message, bad }
func decodeInAny(row []any) (Message, *damage)  { r, bad := decodeIn(row); return r.Message, bad }

func soundRow(box string) ([]any, Message) {
	m := lane.message("1", "x")
	m.Created = newClock().Now()
	m.Expires = m.Created.Add(day)
	size, content := int64(len(m.Data)), contentOf(&m)
	sum := digestOf(box, &m, size, m.Expires.UnixMicro(), content)
	if box == boxIn {
		return []any{int64(1), hash(m.To, m.ID), short(m.From), short(m.To), hash(m.To, m.Protocol, m.Instance), m.To[:], m.From[:], m.Protocol, m.Instance, m.ID, size, m.Created.UnixMicro(), m.Expires.UnixMicro(),
			nil, unread, content[:], sum[:], []byte(m.Data)}, m
	}
	return []any{int64(1), hash(m.From, m.ID), short(m.From), m.Lane().hash(), m.From[:], m.To[:], m.Protocol, m.Instance, m.ID, size, m.Created.UnixMicro(), m.Expires.UnixMicro(),
		"queued", "", "", nil, content[:], sum[:], []byte(m.Data)}, m
}
