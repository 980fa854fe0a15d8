package fire

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/test/process"
)

// killsBetweenLooks is how many kills are followed by a look at what arrived.
const killsBetweenLooks = 100

// Either daemon, or both, killed at any moment while messages are sent: what was
// acknowledged arrives, once, in order, as it was.
func TestMailSurvivesKills(t *testing.T) {
	const pairs = 2
	for i := range pairs {
		t.Run(fmt.Sprint("pair ", i), func(t *testing.T) {
			t.Parallel()
			x, y := pair(t, process.Options{Stderr: newComplaints(t)})
			o := newOffice(t, x, y)
			left, kills, arrived := testutil.Rounds(50, 3000)/pairs, 0, 0
			began := time.Now()
			for left > 0 {
				n := min(left, killsBetweenLooks)
				left -= n
				o.work(t, true)
				for range n {
					o.kill(t)
				}
				o.rest()
				kills += n
				a, _ := o.settle(t)
				arrived += a
				if testutil.Torture() {
					t.Logf("after %d kills and %v %d messages arrived", kills, time.Since(began).Round(time.Second), arrived)
				}
			}
			t.Logf("%d kills in %v: %d messages arrived, of %d that was known before; the program was told %d more than once; failures that senders saw: %v",
				kills, time.Since(began).Round(time.Millisecond), arrived, o.told, o.heard.again, o.codes())
			if arrived == 0 || o.told == 0 {
				t.Error("nothing was sent, or known to have arrived")
			}
		})
	}
}

// kill ends some of the daemons without a good-bye and starts them again.
func (o *office) kill(t *testing.T) {
	t.Helper()
	time.Sleep(rand.N(120 * time.Millisecond)) // the moment of the kill
	victims := [][]*process.Daemon{{o.x}, {o.y}, {o.x, o.y}}[rand.N(3)]
	var wg sync.WaitGroup
	for _, d := range victims {
		late := rand.N(60 * time.Millisecond)
		wg.Go(func() {
			if err := d.Kill(); err != nil {
				t.Error(err)
			}
			time.Sleep(late) // how long it is away
			if err := d.Run(context.WithoutCancel(t.Context())); err != nil {
				t.Error(full(err))
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}
