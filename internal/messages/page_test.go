package messages

import (
	"slices"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/internal/testutil"
)

// A page that bytes end leaves nothing out, also where it is made of two lists.
func TestPagesEndedByBytes(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	other := lane
	other.Protocol = "Other"
	for _, m := range []struct {
		l    Lane
		id   string
		size int
	}{{lane, "large-1", 300}, {lane, "large-2", 300}, {other, "small-1", 10}, {lane, "small-2", 10}, {other, "large-3", 400}} {
		o, err := b.Put(t.Context(), m.l.message(m.id, strings.Repeat("x", m.size)))
		b.must(err)
		if m.l == other {
			b.must(b.Settle(t.Context(), other, []Outcome{{Seq: o.Seq, ID: o.ID, State: Refused, Code: "refused"}}, nil))
		}
	}
	var got []string
	for p := (Page{MaxBytes: 512}); ; {
		list, err := b.ListOut(t.Context(), lane.From, p, true)
		b.must(err)
		if len(list) == 0 {
			break
		}
		for _, o := range list {
			got = append(got, o.ID)
		}
		p.After = list[len(list)-1].Seq
	}
	if want := []string{"large-1", "large-2", "small-1", "small-2", "large-3"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
