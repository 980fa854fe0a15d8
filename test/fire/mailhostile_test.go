package fire

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/p2p/p2ptest"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
	"github.com/fastn-stack/fastnd/test/process"
)

// mailbag is a Deliver of the attacker's with these letters' data.
func (a *attacker) mailbag(to identity.ID, protocol string, data ...string) (*wire.Frame, []byte) {
	d := &wire.Deliver{From: a.delegation(a.node.ID()), To: to[:], Protocol: protocol, Instance: api.DefaultInstance}
	var payload []byte
	for _, s := range data {
		d.Letters = append(d.Letters, &wire.Letter{Id: uuid(rand.IntN(1 << 40)), CreatedUs: time.Now().UnixMicro(), Size: uint32(len(s))})
		payload = append(payload, s...)
	}
	return &wire.Frame{Body: &wire.Frame_Deliver{Deliver: d}}, payload
}

// outcomes counts the codes of an answer; "" is taken.
func outcomes(r *wire.Reply) map[api.Code]int {
	n := make(map[api.Code]int)
	for _, o := range r.GetOutcomes() {
		n[api.Code(o.GetCode())]++
	}
	if r.GetCode() != "" {
		n[api.Code(r.GetCode())]++
	}
	return n
}

func many(n int, data string) []string { return slices.Repeat([]string{data}, n) }

// A contact may send what it likes: it fills its own budget and no other, its lies
// are refused, and what is kept of it is bounded.
func TestMailOfAHostileContact(t *testing.T) {
	most, bytes := testutil.Rounds(2_000, 100_000), testutil.Rounds(8<<20, 256<<20)
	config := []string{"[budgets]", fmt.Sprintf("per_peer_unread_messages = %d", most), fmt.Sprintf(`per_peer_unread_bytes = "%dMiB"`, bytes>>20)}
	x, y := victims(t, config...)
	to := idOf(t, y)
	a := newAttacker(t, quicLoopback)
	a.befriend(y, "evil")
	before := settled(t, y)
	s := a.stream(a.connect(y))

	// Small ones up to the budget, and replays of them.
	taken, over := 0, 0
	var first *wire.Frame
	var firstPayload []byte
	for taken+over < most+1000 {
		f, payload := a.mailbag(to, api.ProtocolText, many(wire.MaxLetters, `{"text":"x"}`)...)
		if first == nil {
			first, firstPayload = f, payload
		}
		r, _ := s.ask(f, payload)
		n := outcomes(r)
		taken, over = taken+n[""], over+n[api.CodeOverBudget]
		if n[""]+n[api.CodeOverBudget] != wire.MaxLetters {
			t.Fatalf("answered %v", n)
		}
	}
	if taken != most {
		t.Errorf("%d messages were taken, the budget is %d", taken, most)
	}
	for range testutil.Rounds(20, 500) {
		if r, _ := s.ask(first, firstPayload); outcomes(r)[""] != wire.MaxLetters {
			t.Fatalf("a replay is answered %v", outcomes(r))
		}
	}
	if n := status(t, y).Unread; n != int64(most) {
		t.Errorf("%d messages are unread, want %d", n, most)
	}
	// The same ids with other content, and what is no Text.
	firstPayload = []byte(strings.ReplaceAll(string(firstPayload), `"x"`, `"y"`))
	if r, _ := s.ask(first, firstPayload); outcomes(r)[api.CodeConflict] != wire.MaxLetters {
		t.Errorf("other content is answered %v", outcomes(r))
	}
	f, payload := a.mailbag(to, api.ProtocolText, `{"text":1}`, `[]`, `{"text":"x","more":1}`)
	if r, _ := s.ask(f, payload); outcomes(r)[api.CodeBadRequest] != 3 {
		t.Errorf("what is no text is answered %v", outcomes(r))
	}

	// Giant ones, once there is room for messages again.
	for _, m := range allMail(t, y) {
		if err := y.Client.Verb(t.Context(), api.VerbInboxRemove, api.InboxArgs{MessageID: m.MessageID}, nil); err != nil {
			t.Fatal(full(err))
		}
	}
	giant := string(textData(strings.Repeat("g", api.MaxPayload-20)))
	taken = 0
	for range bytes/len(giant) + 5 {
		f, payload := a.mailbag(to, api.ProtocolText, giant)
		r, _ := s.ask(f, payload)
		taken += outcomes(r)[""]
	}
	if taken*len(giant) > bytes || taken == 0 {
		t.Errorf("%d giant messages were taken", taken)
	}
	for _, m := range []struct{ age time.Duration }{{31 * 24 * time.Hour}, {61 * 24 * time.Hour}} {
		f, payload := a.mailbag(to, api.ProtocolText, `{"text":"old"}`)
		f.GetDeliver().Letters[0].CreatedUs = time.Now().Add(-m.age).UnixMicro()
		if r, _ := s.ask(f, payload); outcomes(r)[api.CodeExpired] != 1 {
			t.Errorf("a message of %v ago is answered %v", m.age, outcomes(r))
		}
	}

	a.unknownProtocols(s, y, to)
	s.close()
	a.forge(x, y, to)
	a.lieAboutLetters(y, to)

	// What another contact sends has its own budget.
	sent, err := x.Client.Send(t.Context(), client.Message{Target: "peer", Protocol: api.ProtocolText, Data: textData("honest")})
	if err != nil {
		t.Fatal(full(err))
	}
	if m, err := x.Client.WaitFinal(t.Context(), sent.MessageID); err != nil || m.State != api.StateDelivered {
		t.Errorf("another contact's message: %+v, %v", m, err)
	}
	size := int64(0)
	for _, name := range []string{"messages.db", "messages.db-wal"} {
		if fi, err := os.Stat(filepath.Join(y.Home, name)); err == nil {
			size += fi.Size()
		}
	}
	after := measure(t, y)
	t.Logf("on the disk %d KiB, heap before %d KiB, after %d KiB, rss %.0f, %.0f KiB", size>>10, before.HeapBytes>>10, after.HeapBytes>>10, before.rss, after.rss)
	if limit := int64(2*bytes + most*4096 + 64<<20); size > limit {
		t.Errorf("%d bytes on the disk, at most %d are expected", size, limit)
	}
	if after.rss > before.rss+256<<10 {
		t.Errorf("%.0f KiB of memory, before %.0f", after.rss, before.rss)
	}
}

// unknownProtocols asks for thousands of protocols that nobody serves.
func (a *attacker) unknownProtocols(s *rawStream, y *process.Daemon, to identity.ID) {
	a.t.Helper()
	for i := range testutil.Rounds(500, 20_000) {
		f, payload := a.mailbag(to, fmt.Sprint("Unknown", i), `{"x":1}`)
		if r, _ := s.ask(f, payload); outcomes(r)[api.CodePending] != 1 {
			a.t.Fatalf("an unknown protocol is answered %v", outcomes(r))
		}
	}
	if n := len(status(a.t, y).Wanted); n == 0 || n > 16 {
		a.t.Errorf("%d protocols are remembered as wanted", n)
	}
}

// forge sends mail in others' names.
func (a *attacker) forge(x, y *process.Daemon, to identity.ID) {
	a.t.Helper()
	before := status(a.t, y).Unread
	victim := idOf(a.t, x)
	forged, err := identity.Delegate(a.id, a.node.ID(), time.Now(), time.Hour)
	if err != nil {
		a.t.Fatal(err)
	}
	named := []byte(strings.ReplaceAll(string(forged.Raw), string(idBytes(a.id.ID())), string(idBytes(victim))))
	elsewhere, err := identity.Delegate(a.id, p2ptest.Key(a.t).ID(), time.Now(), time.Hour)
	if err != nil {
		a.t.Fatal(err)
	}
	for name, from := range map[string][]byte{"another's name": named, "another node's": elsewhere.Raw, "nothing": {1}} {
		s := a.stream(a.connect(y))
		f, payload := a.mailbag(to, api.ProtocolText, `{"text":"forged"}`)
		f.GetDeliver().From = from
		if r, _, err := s.tryAsk(f, payload); err == nil && (r.GetCode() == "" || len(r.GetOutcomes()) > 0) {
			a.t.Errorf("%s: answered %v", name, r)
		}
		s.close()
	}
	if n := status(a.t, y).Unread; n != before {
		a.t.Errorf("forged mail was taken: %d unread, before %d", n, before)
	}
}

func idBytes(id identity.ID) []byte { return id[:] }

// lieAboutLetters sends frames whose letters are not what they say.
func (a *attacker) lieAboutLetters(y *process.Daemon, to identity.ID) {
	a.t.Helper()
	before := status(a.t, y).Unread
	for name, change := range map[string]func(*wire.Deliver){
		"too small": func(d *wire.Deliver) { d.Letters[0].Size-- },
		"too large": func(d *wire.Deliver) { d.Letters[0].Size++ },
		"overflow": func(d *wire.Deliver) {
			d.Letters[0].Size, d.Letters[1].Size = 1<<32-1, d.Letters[0].Size+d.Letters[1].Size+1
		},
		"none":         func(d *wire.Deliver) { d.Letters = nil },
		"too many":     func(d *wire.Deliver) { d.Letters = slices.Repeat(d.Letters, wire.MaxLetters) },
		"no id":        func(d *wire.Deliver) { d.Letters[0].Id = "x\n" },
		"an early age": func(d *wire.Deliver) { d.Letters[0].CreatedUs = -1 << 63 },
	} {
		s := a.stream(a.connect(y))
		f, payload := a.mailbag(to, api.ProtocolText, `{"text":"one"}`, `{"text":"two"}`)
		change(f.GetDeliver())
		r, _, err := s.tryAsk(f, payload)
		if n := outcomes(r)[""]; err == nil && n > 0 && name != "an early age" {
			a.t.Errorf("%s: answered %v", name, r)
		}
		s.close()
	}
	if n := status(a.t, y).Unread; n > before+1 { // the one beside that of an early age
		a.t.Errorf("lies were taken: %d unread, before %d", n, before)
	}
}

// A contact that sends frames at full rate, hints in a loop, and asks for unknown
// protocols: others notice little more than when it does so to somebody else on
// this machine.
func TestMailFloodOfAContact(t *testing.T) {
	config := []string{"[budgets]", "per_peer_unread_messages = 20_000"}
	o := process.Options{Config: config, Stderr: quiet{}}
	x, y := pair(t, o)
	elsewhere := start(t, o)
	a := newAttacker(t, quicLoopback)
	a.befriend(y, "evil")
	// To make somebody an identity of its own is what the first invitation does.
	a.befriend(elsewhere, "evil")
	delegation := a.delegation(a.node.ID())
	kinds := map[string]func(to identity.ID) (*wire.Frame, []byte){
		"full frames": func(to identity.ID) (*wire.Frame, []byte) {
			return a.mailbag(to, api.ProtocolText, many(wire.MaxLetters, `{"text":"x"}`)...)
		},
		"hints": func(to identity.ID) (*wire.Frame, []byte) {
			return &wire.Frame{Body: &wire.Frame_Available{Available: &wire.Available{From: delegation, To: to[:], Protocol: "Any", Instance: api.DefaultInstance}}}, nil
		},
		"unknown protocols": func(to identity.ID) (*wire.Frame, []byte) {
			return a.mailbag(to, fmt.Sprint("P", rand.IntN(1<<30)), `{}`)
		},
	}
	for name, frame := range kinds {
		t.Run(name, func(t *testing.T) {
			var ratios []float64
			var asked int64
			for range testutil.Rounds(1, 9) {
				var took [2][]time.Duration
				var median [2]time.Duration
				for i, d := range []*process.Daemon{elsewhere, y} {
					stop := a.pour(t, d, frame)
					took[i] = others(t, x, testutil.Rounds(60, 400))
					asked += stop()
					median[i] = p50(took[i])
				}
				ratios = append(ratios, slower(took[1], took[0]))
				t.Logf("p50 %v, under attack %v; p99 %v, under attack %v", median[0], median[1], p99(took[0]), p99(took[1]))
			}
			slices.Sort(ratios)
			median := ratios[len(ratios)/2]
			t.Logf("%s: %d frames were answered; another contact's p99 is %.1f times as long (%.1f)", name, asked, median, ratios)
			if testutil.Torture() && median > 2 {
				t.Errorf("others are slowed by %.1f", median)
			}
		})
	}
}

// pour sends frames to a daemon over four streams, each as fast as they are
// answered, until stop, which tells how many were.
func (a *attacker) pour(t *testing.T, d *process.Daemon, frame func(to identity.ID) (*wire.Frame, []byte)) (stop func() int64) {
	t.Helper()
	to, node := idOf(t, d), a.connect(d)
	ctx, cancel := context.WithCancel(t.Context())
	var asked atomic.Int64
	var wg sync.WaitGroup
	began := make(chan struct{}, 4)
	for range 4 {
		wg.Go(func() {
			s, err := a.tryStream(ctx, node)
			if err != nil {
				t.Error(err)
				began <- struct{}{}
				return
			}
			defer s.close()
			for first := true; ctx.Err() == nil; first = false {
				f, payload := frame(to)
				if _, _, err := s.tryAsk(f, payload); err != nil && ctx.Err() == nil {
					t.Error(err)
					cancel()
				}
				asked.Add(1)
				if first {
					began <- struct{}{}
				}
			}
		})
	}
	for range 4 {
		<-began
	}
	return func() int64 {
		cancel()
		wg.Wait()
		return asked.Load()
	}
}

// others is what another contact's calls and messages take.
func others(t *testing.T, x *process.Daemon, n int) (all []time.Duration) {
	t.Helper()
	for i := range n {
		all = append(all, echo(t, x))
		if i%10 != 0 {
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		sent, err := x.Client.Send(ctx, client.Message{Target: "peer", Protocol: api.ProtocolText, Data: textData("x")})
		if err == nil {
			_, err = x.Client.WaitFinal(ctx, sent.MessageID)
		}
		cancel()
		if err != nil {
			t.Errorf("a message while under attack: %s", full(err))
		}
	}
	return all
}
