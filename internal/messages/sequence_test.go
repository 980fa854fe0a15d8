package messages

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/internal/testutil"
)

// lost clears the leaves of tables that hold text.
func lost(text string) func(raw []byte) []byte {
	return func(raw []byte) []byte {
		for i := 4096; i < len(raw); i += 4096 {
			if page := raw[i : i+4096]; page[0] == 0x0d && bytes.Contains(page, []byte(text)) {
				clear(page)
			}
		}
		return raw
	}
}

// Who has read up to the last message gets the next one, also where a repair lost
// the last ones, a backup does not have them, or the log's end was damaged.
func TestNumbersAreNotUsedAgain(t *testing.T) {
	const n = 250
	for name, harm := range map[string]func(b *box) *box{
		"repair": func(b *box) *box {
			b.damage(lost(fmt.Sprint("message-", n-1)))
			b.must(b.CheckAll(t.Context()))
			return b
		},
		"restore": func(b *box) *box {
			dir := b.t.TempDir()
			b.must(b.Backup(t.Context(), filepath.Join(dir, File)))
			b.take(lane.message("after the backup", "x"))
			b.put(lane, "after the backup")
			return newBoxAt(b.t, dir)
		},
		"the file is gone": func(b *box) *box {
			b.must(b.Close())
			b.must(os.Remove(b.path()))
			b.open()
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			testutil.LeakCheck(t)
			was := newBox(t)
			for i := range n {
				was.take(lane.message(fmt.Sprint("message-", i), strings.Repeat("x", 500)))
			}
			was.put(lane, "1", "2")
			b := harm(was)
			in, out := int64(n+1), int64(3)
			taken := b.take(lane.message("new", "x"))
			put := b.put(lane, "new")
			if taken[0].Err != nil || taken[0].Seq <= in || put[0].Seq <= out {
				t.Errorf("the new ones are %+v and %d, behind %d and %d", taken[0], put[0].Seq, in, out)
			}
			behind, err := b.ListIn(t.Context(), lane.To, Page{After: in}, false)
			if err != nil || len(behind) != 1 {
				t.Errorf("a follower is told of %d, %v", len(behind), err)
			}
			next := b.put(lane, "the next")
			b.reopen()
			if again := b.put(lane, "later"); name != "restore" && b.Recovery() == nil || again[0].Seq <= next[0].Seq {
				t.Errorf("%+v: %d, then %d", b.Recovery(), next[0].Seq, again[0].Seq)
			}
		})
	}
}

// An answer that was on its way during a repair is that of the message that was
// sent, whichever has its number now.
func TestAnswerForALostMessage(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	var names []string
	for i := range 250 {
		names = append(names, fmt.Sprint("message-", i)+strings.Repeat("y", 200))
	}
	b.put(lane, names...)
	flying := b.head(lane)
	b.damage(lost("text of message-249"))
	b.must(b.CheckAll(t.Context()))
	if left := b.head(lane); len(left) == len(flying) {
		t.Fatal("nothing was lost")
	}
	b.put(lane, "new")
	var outcomes []Outcome
	for _, m := range flying {
		outcomes = append(outcomes, Outcome{Seq: m.Seq, ID: m.ID, State: Delivered})
	}
	// Even if it had the number of a lost one.
	outcomes = append(outcomes, Outcome{Seq: b.state(lane.From, "new").Seq, ID: names[0], State: Delivered})
	b.must(b.Settle(t.Context(), lane, outcomes, nil))
	if got := ids(b.head(lane)); !slices.Equal(got, []string{"new"}) {
		t.Errorf("%q are queued", got)
	}
	b.checkUsage()
}
