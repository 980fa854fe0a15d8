package fire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
	"github.com/fastn-stack/fastnd/test/process"
)

// notes is the protocol of a program that listens for messages.
const notes = "Notes"

// drained bounds how long the mail of a pair takes to arrive, once both are up.
const drained = 3 * time.Minute

// line is what one sender sends to one receiver for one protocol, one message
// after the other, and the ledger of it: it is kept here, outside of the daemons.
type line struct {
	name     string
	d        *process.Daemon
	from     string // identity name, the default one if empty
	protocol string
	raw      bool // each try on a connection of its own, as far as it goes; else by service/client

	mu    sync.Mutex
	sizes []int  // of the messages that were tried
	acked []bool // what the daemon acknowledged
	told  []bool // what it told to be delivered
	codes map[api.Code]int
	done  int // so many were compared already
}

func (l *line) id(n int) string {
	var sum uint32 = 2166136261 // FNV-1a
	for _, c := range []byte(l.name) {
		sum = (sum ^ uint32(c)) * 16777619
	}
	return fmt.Sprintf("%08x-0000-4000-8000-%012x", sum, n)
}

func (l *line) text(n, size int) string {
	return fmt.Sprintf("%s %d ", l.name, n) + strings.Repeat(string(rune('a'+n%26)), size)
}

func textData(text string) json.RawMessage {
	data, _ := json.Marshal(map[string]string{"text": text})
	return data
}

// errUnknown means that the connection ended before the answer.
var errUnknown = errors.New("outcome unknown")

// try sends message n once, or with a client until its time is over.
func (l *line) try(ctx context.Context, n int, text string) error {
	if !l.raw {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		c := client.New(l.d.Socket, client.Options{Name: "sender", From: l.from})
		defer c.Close()
		_, err := c.Send(ctx, client.Message{Target: "peer", Protocol: l.protocol, Data: textData(text), ID: l.id(n)})
		return err
	}
	w, err := dialLine(l.d.Socket)
	if err != nil {
		return api.Errorf(api.CodeUnavailable, "%v", err)
	}
	defer w.Close()
	request, err := json.Marshal(api.Request{ID: "1", Type: api.TypeSend, From: l.from, Target: "peer", Protocol: l.protocol,
		Data: textData(text), MessageID: l.id(n)})
	if err != nil {
		return err
	}
	if _, err := w.Write(append(request, '\n')); err != nil {
		return errUnknown
	}
	a, err := w.answer()
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), err != nil:
		return errUnknown
	case a.Status != api.StatusOK:
		var text string
		_ = json.Unmarshal(a.Data, &text)
		return api.Errorf(a.Code, "%s", text)
	}
	return nil
}

// send sends one message until it is acknowledged, or is left in doubt: some of
// those of which nothing is known after a daemon was killed.
func (l *line) send(ctx context.Context, t *testing.T, size int, doubts bool, wrong func(string, ...any)) {
	l.mu.Lock()
	n := len(l.sizes)
	l.sizes, l.acked, l.told = append(l.sizes, size), append(l.acked, false), append(l.told, false)
	l.mu.Unlock()
	text := l.text(n, size)
	began := time.Now()
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		err := l.try(ctx, n, text)
		if err == nil {
			l.mu.Lock()
			l.acked[n] = true
			l.mu.Unlock()
			break
		}
		if ctx.Err() != nil || errors.Is(err, errUnknown) && doubts && rand.N(3) == 0 {
			return
		}
		code := api.CodeOf(err)
		if errors.Is(err, errUnknown) {
			code = api.CodeOutcomeUnknown
		}
		l.mu.Lock()
		l.codes[code]++
		l.mu.Unlock()
		switch code {
		case api.CodeUnavailable, api.CodeOutcomeUnknown, api.CodeTimeout, api.CodeStorage, api.CodeInternal:
		default:
			t.Errorf("%s: message %d: %s", l.name, n, full(err))
			return
		}
		if time.Since(began) > drained {
			t.Errorf("%s: message %d is not taken within %v: %s", l.name, n, drained, full(err))
			return
		}
		select {
		case <-time.After(pause): // a program that tries again
		case <-ctx.Done():
			return
		}
	}
	if rand.N(8) == 0 {
		l.follow(ctx, n)
	}
	// What was sent is no second message, nor may it change.
	if rand.N(50) != 0 {
		return
	}
	if err := l.try(ctx, n, text+"!"); api.CodeOf(err) != api.CodeConflict && !passingCode(err) {
		wrong("%s: message %d with other content: %v", l.name, n, err)
	}
	if err := l.try(ctx, n, text); err != nil && !passingCode(err) {
		wrong("%s: message %d again: %v", l.name, n, err)
	}
}

// follow waits for a while for the news that message n was delivered.
func (l *line) follow(ctx context.Context, n int) {
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	c := client.New(l.d.Socket, client.Options{Name: "follower", From: l.from})
	defer c.Close()
	if m, err := c.WaitFinal(ctx, l.id(n)); err == nil && m.State == api.StateDelivered {
		l.mu.Lock()
		l.told[n] = true
		l.mu.Unlock()
	}
}

func passingCode(err error) bool {
	switch api.CodeOf(err) {
	case api.CodeUnavailable, api.CodeOutcomeUnknown, api.CodeTimeout, api.CodeStorage, api.CodeInternal:
		return true
	}
	return errors.Is(err, errUnknown)
}

// office is a pair of daemons with lines between them.
type office struct {
	x, y  *process.Daemon
	lines []*line
	heard *hearing // what a program at y was told
	told  int      // messages of which the sender heard that they were delivered
	// wrong is told of what arrived and should not have, or not like this, and of what
	// was acknowledged and is not known any more.
	wrong func(format string, args ...any)

	stop func() // ends the senders
	wg   sync.WaitGroup
}

func newOffice(t *testing.T, x, y *process.Daemon) *office {
	o := &office{x: x, y: y, heard: &hearing{byName: make(map[string][]string)}, wrong: t.Errorf}
	secondIdentity(t, x, y)
	grant(t, y, "peer", notes)
	grant(t, y, "second", notes)
	for i, l := range []*line{
		{d: x, protocol: api.ProtocolText}, {d: x, protocol: api.ProtocolText, raw: true}, {d: x, from: "second", protocol: api.ProtocolText, raw: true},
		{d: x, protocol: notes, raw: true}, {d: x, from: "second", protocol: notes}, {d: y, protocol: api.ProtocolText, raw: true},
	} {
		l.name, l.codes = fmt.Sprintf("line-%d", i), make(map[api.Code]int)
		o.lines = append(o.lines, l)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() { o.heard.listen(ctx, t, y) })
	o.stop = func() {}
	t.Cleanup(func() {
		o.rest()
		cancel()
		wg.Wait()
	})
	return o
}

// work starts the senders.
func (o *office) work(t *testing.T, doubts bool) {
	stopped := make(chan struct{})
	o.stop = sync.OnceFunc(func() { close(stopped) })
	ctx := context.WithoutCancel(t.Context())
	for _, l := range o.lines {
		o.wg.Go(func() {
			for {
				select {
				case <-stopped:
					return
				default:
				}
				size := rand.N(300)
				if rand.N(150) == 0 {
					size = 100_000 + rand.N(800_000)
				}
				l.send(ctx, t, size, doubts, o.wrong)
			}
		})
	}
}

// rest ends the senders, behind the message that each is at. Both daemons are up.
func (o *office) rest() {
	o.stop()
	o.wg.Wait()
}

// settle waits until nothing is queued and compares what arrived with the
// ledgers: nothing that was acknowledged is missing, nothing is there twice, each
// line is in order and its texts as they were. It gives what is missing, and has
// the rest removed.
func (o *office) settle(t *testing.T) (arrived, missing int) {
	t.Helper()
	for _, l := range o.lines {
		emptyOutbox(t, l.d, l.from)
	}
	eventually(t, "the program has taken its messages", func() bool {
		return !slices.ContainsFunc(allMail(t, o.y), func(m api.InboxMessage) bool { return m.Protocol == notes })
	})
	got := o.heard.take()
	for _, d := range []*process.Daemon{o.x, o.y} {
		for _, m := range allMail(t, d) {
			var text struct{ Text string }
			if err := json.Unmarshal(m.Data, &text); err != nil {
				t.Fatal(err)
			}
			name, _, _ := strings.Cut(text.Text, " ")
			got[name] = append(got[name], text.Text)
			if err := d.Client.Verb(t.Context(), api.VerbInboxRemove, api.InboxArgs{MessageID: m.MessageID, From: m.From}, nil); err != nil {
				t.Fatal(full(err))
			}
		}
	}
	for _, l := range o.lines {
		o.told += l.stillDelivered(t, o.wrong)
		a, m := l.compare(got[l.name], o.wrong)
		arrived, missing = arrived+a, missing+m
		delete(got, l.name)
	}
	if missing > 0 {
		for _, d := range []*process.Daemon{o.x, o.y} {
			t.Logf("%s: problems %+v", d.Home, problems(t, d))
		}
	}
	if len(got) > 0 {
		o.wrong("messages of nobody: %.500v", got)
	}
	return arrived, missing
}

// stillDelivered asks for what was told to be delivered since the last look: it is so
// for good, whatever happened to the record of it.
func (l *line) stillDelivered(t *testing.T, wrong func(string, ...any)) (told int) {
	c := client.New(l.d.Socket, client.Options{Name: "follower", From: l.from})
	defer c.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for n := l.done; n < len(l.told); n++ {
		if !l.told[n] {
			continue
		}
		told++
		var m api.OutboxMessage
		if err := c.Verb(t.Context(), api.VerbOutboxShow, api.OutboxArgs{MessageID: l.id(n)}, &m); err != nil || m.State != api.StateDelivered {
			wrong("%s: message %d was told to be delivered and is %q: %v", l.name, n, m.State, err)
		}
	}
	return told
}

// compare checks one line, from where it ended before.
func (l *line) compare(texts []string, wrong func(string, ...any)) (arrived, missing int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	there := make([]bool, len(l.sizes))
	last := -1
	for _, text := range texts {
		var n int
		if _, err := fmt.Sscanf(text, l.name+" %d ", &n); err != nil || n < 0 || n >= len(l.sizes) {
			wrong("%s: what nobody sent: %.100q", l.name, text)
			continue
		}
		if want := l.text(n, l.sizes[n]); text != want {
			wrong("%s: message %d arrived as %.100q, %d bytes instead of %d", l.name, n, text, len(text), len(want))
		}
		if there[n] || n < l.done {
			wrong("%s: message %d is there twice", l.name, n)
		} else if n < last {
			wrong("%s: message %d came behind %d", l.name, n, last)
		}
		there[n], last = true, n
	}
	firstLost, lastLost := -1, -1
	for n := l.done; n < len(l.acked); n++ {
		if l.told[n] && !there[n] {
			wrong("%s: message %d was told to be delivered, and is not there", l.name, n)
		}
		if there[n] {
			arrived++
		} else if l.acked[n] {
			missing++
			if lastLost = n; firstLost < 0 {
				firstLost = n
			}
		}
	}
	if missing > 0 {
		wrong("%s: %d of %d messages that were acknowledged are lost, the first is %d, the last %d", l.name, missing, len(l.acked)-l.done, firstLost, lastLost)
	}
	l.done = len(l.acked)
	return arrived, missing
}

func emptyOutbox(t *testing.T, d *process.Daemon, from string) {
	t.Helper()
	c := client.New(d.Socket, client.Options{Name: "outbox", From: from})
	defer c.Close()
	var p api.OutboxPage
	defer func() {
		if t.Failed() && len(p.Messages) > 0 {
			t.Logf("of %q %d and more are in the outbox still: %+v", from, len(p.Messages), p.Messages[0])
		}
	}()
	eventually(t, "the outbox is empty", func() bool {
		p = api.OutboxPage{}
		if err := c.Verb(t.Context(), api.VerbOutboxList, nil, &p); err != nil {
			t.Fatal(full(err))
		}
		for _, m := range p.Messages {
			if m.State != api.StateQueued && m.State != api.StateDelivered { // that is not recorded yet
				t.Errorf("message %s is %s: %s", m.MessageID, m.State, m.Reason)
			}
		}
		return len(p.Messages) == 0 && !p.More // all of a page may be delivered, and not recorded yet
	})
}

// eventually looks until done tells so.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(drained); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", drained, what)
		}
	}
}

// allMail is the inbox of a daemon's first identity, oldest first.
func allMail(t *testing.T, d *process.Daemon) (list []api.InboxMessage) {
	t.Helper()
	for args := (api.InboxListArgs{Limit: 1000}); ; {
		var p api.InboxPage
		if err := d.Client.Verb(t.Context(), api.VerbInboxList, args, &p); err != nil {
			t.Fatal(full(err))
		}
		list = append(list, p.Messages...)
		if !p.More {
			return list
		}
		args.After = p.Cursor
	}
}

// hearing is what a program that listens was told, first tellings in order.
type hearing struct {
	mu     sync.Mutex
	seen   map[string]string // message id to text
	byName map[string][]string
	again  int
}

// listen serves for as long as ctx lasts, as an honest program would: what it was
// told it has before it replies. Now and then it refuses a message for now, or
// ends in the middle.
func (h *hearing) listen(ctx context.Context, t *testing.T, d *process.Daemon) {
	for ctx.Err() == nil {
		c := client.New(d.Socket, client.Options{Name: "listener"})
		l, err := c.Listen(ctx, client.ListenOptions{Protocol: notes, Kinds: []string{"message"}})
		if err == nil {
			for err == nil {
				var in *client.Incoming
				if in, err = l.Next(ctx); err == nil {
					err = h.told(ctx, t, in)
				}
			}
			_ = l.Close()
		}
		_ = c.Close()
		select {
		case <-time.After(10 * time.Millisecond): // a program that is started again
		case <-ctx.Done():
		}
	}
}

var errCrash = errors.New("the program crashed")

func (h *hearing) told(ctx context.Context, t *testing.T, in *client.Incoming) error {
	var m struct{ Text string }
	if err := json.Unmarshal(in.Data, &m); err != nil || in.Kind != "message" {
		t.Errorf("told of %s: %.100s", in.Kind, in.Data)
	}
	h.mu.Lock()
	if h.seen == nil {
		h.seen = make(map[string]string)
	}
	if before, ok := h.seen[in.MessageID]; ok {
		if h.again++; before != m.Text {
			t.Errorf("message %s had another text before", in.MessageID)
		}
	} else {
		h.seen[in.MessageID] = m.Text
		name, _, _ := strings.Cut(m.Text, " ")
		h.byName[name] = append(h.byName[name], m.Text)
	}
	h.mu.Unlock()
	switch rand.N(400) {
	case 0:
		return in.Fail(ctx, &api.Error{Message: "not now"})
	case 1, 2, 3:
		return errCrash
	}
	return in.Reply(ctx, nil)
}

func (h *hearing) take() map[string][]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	got := h.byName
	h.byName = make(map[string][]string)
	return got
}

// codes counts the failures that senders saw.
func (o *office) codes() map[api.Code]int {
	sum := make(map[api.Code]int)
	for _, l := range o.lines {
		for c, n := range l.codes {
			sum[c] += n
		}
	}
	return sum
}

// complaints keeps the last lines that daemons log of what goes wrong, and shows
// them if the test fails.
type complaints struct {
	mu    sync.Mutex
	lines []string
}

func newComplaints(t *testing.T) *complaints {
	c := &complaints{}
	t.Cleanup(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if t.Failed() {
			t.Logf("the daemons said last:\n%s", strings.Join(c.lines, ""))
		}
	})
	return c
}

func (c *complaints) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for line := range strings.Lines(string(p)) {
		if !strings.Contains(line, "level=INFO") {
			c.lines = append(c.lines, fmt.Sprintf("%.600s", line))
		}
	}
	c.lines = c.lines[max(0, len(c.lines)-50):]
	return len(p), nil
}
