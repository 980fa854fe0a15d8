package messages

import (
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/testutil"
)

// What is counted is what ListOut shows as refused or expired: not what waits,
// was delivered or is taken off the list, and none of another identity.
func TestFailed(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	ms := b.put(lane, "delivered", "refused", "dismissed", "expired")
	b.must(b.Settle(t.Context(), lane, []Outcome{
		{Seq: ms[0].Seq, ID: ms[0].ID, State: Delivered},
		{Seq: ms[1].Seq, ID: ms[1].ID, State: Refused, Code: "refused"},
		{Seq: ms[2].Seq, ID: ms[2].ID, State: Refused, Code: "refused"},
	}, nil))
	_, err := b.Cancel(t.Context(), lane.From, ms[2].ID)
	b.must(err)
	b.clock.advance(DefaultLife + time.Hour)
	_, err = b.Expire(t.Context())
	b.must(err)
	b.put(lane, "queued")
	for most, want := range map[int64]int64{1000: 2, 2: 2, 1: 1} {
		if n, err := b.Failed(t.Context(), lane.From, most); err != nil || n != want {
			t.Errorf("up to %d: %d, %v; want %d", most, n, err, want)
		}
	}
	if n, err := b.Failed(t.Context(), id("c"), 1000); err != nil || n != 0 {
		t.Errorf("another identity has %d, %v", n, err)
	}
}
