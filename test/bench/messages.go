package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/messages"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
	"github.com/fastn-stack/fastnd/test/process"
)

var text = json.RawMessage(`{"text":"hello, this is a message of an ordinary length, one hundred bytes or so, for a friend"}`)

var wideQueues = append([]string{}, append(wideBudgets, "per_uid_queued_messages = 10000000", `per_uid_queued_bytes = "100GiB"`,
	"per_peer_unread_messages = 10000000", `per_peer_unread_bytes = "100GiB"`)...)

// aLine is about as long as a request to send.
var aLine = make([]byte, 256)

// sendNothing asks for what is refused as late as can be before anything is stored:
// what all but the storing costs.
func sendNothing(ctx context.Context, c *client.Client, target string) error {
	_, err := c.Send(ctx, client.Message{Target: target, Protocol: api.ProtocolText, Data: json.RawMessage(`{"text":1}`)})
	if api.CodeOf(err) != api.CodeBadRequest {
		return fmt.Errorf("not refused: %w", err)
	}
	return nil
}

func send(ctx context.Context, c *client.Client, target string) (api.SendResult, error) {
	return c.Send(ctx, client.Message{Target: target, Protocol: api.ProtocolText, Data: text})
}

// benchMessages: durable messages beside what the disk and a bare database do.
func benchMessages(ctx context.Context, b *bench) error {
	if err := sendRates(ctx, b); err != nil {
		return err
	}
	if err := delivered(ctx, b); err != nil {
		return err
	}
	if err := drained(ctx, b); err != nil {
		return err
	}
	return startFull(ctx, b)
}

// sendRates: to one who is away, so that nothing but the sending is measured.
func sendRates(ctx context.Context, b *bench) (err error) {
	x, y, err := process.Pair(ctx, b.bin, process.Options{Config: wideQueues})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.Close(), y.Close()) }()
	if err := y.Stop(); err != nil {
		return err
	}
	disk, err := newDisk()
	if err != nil {
		return err
	}
	defer disk.Close()
	const long = time.Second
	one := func(ctx context.Context, c *client.Client) error {
		_, err := send(ctx, c, "peer")
		return err
	}
	none := func(ctx context.Context, c *client.Client) error { return sendNothing(ctx, c, "peer") }
	bare, err := echoed(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bare.Close()) }()
	bareSync, err := synced(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bareSync.Close()) }()
	var ones, syncs, many, bareTrips, bareSyncs, bareOnes, inserts, oneNothing, manyNothing []float64
	for range 7 {
		for _, m := range []struct {
			to   *[]float64
			rate func() (float64, error)
		}{
			{&syncs, func() (float64, error) { return often(long/2, disk.sync) }},
			{&ones, func() (float64, error) { return sendRate(ctx, x.Socket, 1, long, one) }},
			{&oneNothing, func() (float64, error) { return sendRate(ctx, x.Socket, 1, long/2, none) }},
			{&bareTrips, func() (float64, error) { return often(long/2, func() error { return exchange(bare, aLine) }) }},
			{&bareSyncs, func() (float64, error) { return often(long/2, func() error { return exchange(bareSync, aLine) }) }},
			{&bareOnes, func() (float64, error) { return disk.inserts(1, long/2) }},
			{&inserts, func() (float64, error) { return disk.inserts(64, long/2) }},
			{&many, func() (float64, error) { return sendRate(ctx, x.Socket, 64, long, one) }},
			{&manyNothing, func() (float64, error) { return sendRate(ctx, x.Socket, 64, long/2, none) }},
		} {
			r, err := m.rate()
			if err != nil {
				return err
			}
			*m.to = append(*m.to, r)
		}
	}
	syncRate, insertRate := median(syncs), median(inserts)
	b.add(atLeast("durable sends a second, 1 client", median(ones), "/s", syncRate, "the disk's fdatasync", 0.5),
		beside("the same, if to store one took a sync and no time else", oneAfterTheOther(median(oneNothing), syncRate), "/s", syncRate, "the disk's fdatasync"),
		beside("the same, if it were a bare line to a process and back, and a bare insert", oneAfterTheOther(median(bareTrips), median(bareOnes)), "/s", syncRate, "the disk's fdatasync"),
		beside("the same, of a bare line to a process that syncs a page and sends it back", median(bareSyncs), "/s", syncRate, "the disk's fdatasync"),
		atLeast("durable sends a second, 64 clients", median(many), "/s", insertRate, "bare inserts in batches of 64", 0.2),
		beside("the same, if to store them took no time at all", median(manyNothing), "/s", insertRate, "bare inserts in batches of 64"))
	return nil
}

// oneAfterTheOther is the rate of doing one, then the other.
func oneAfterTheOther(one, other float64) float64 { return 1 / (1/one + 1/other) }

// sendRate is how often a second that many clients do one after the other.
func sendRate(ctx context.Context, socket string, clients int, long time.Duration, do func(context.Context, *client.Client) error) (float64, error) {
	var n atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, clients)
	all := make([]*client.Client, clients)
	for i := range all {
		c, err := client.Dial(ctx, socket, client.Options{})
		if err != nil {
			return 0, err
		}
		defer c.Close()
		all[i] = c
	}
	start := time.Now()
	for _, c := range all {
		wg.Go(func() {
			for time.Since(start) < long {
				if err := do(ctx, c); err != nil {
					errs <- err
					return
				}
				n.Add(1)
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	close(errs)
	return float64(n.Load()) / took.Seconds(), <-errs
}

// delivered: from the client until the receiver has it on its disk and the client
// knows, beside two syncs and a round trip.
func delivered(ctx context.Context, b *bench) (err error) {
	x, raw, end, err := pairBesideRaw(ctx, b, wideQueues)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	disk, err := newDisk()
	if err != nil {
		return err
	}
	defer disk.Close()
	message := func() error {
		sent, err := send(ctx, x.Client, "peer")
		if err != nil {
			return err
		}
		m, err := x.Client.WaitFinal(ctx, sent.MessageID)
		if err == nil && m.State != api.StateDelivered {
			err = fmt.Errorf("the message is %s: %s", m.State, m.Reason)
		}
		return err
	}
	trip := func() error { return raw.roundTrip(ctx, hello) }
	if _, err := micros(300, func() error { return errors.Join(message(), disk.sync(), trip()) }); err != nil {
		return err
	}
	nothing := func() error { return sendNothing(ctx, x.Client, "peer") }
	bare, err := echoed(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bare.Close()) }()
	insert := func() error { return disk.insert(1) }
	line := func() error { return exchange(bare, aLine) }
	call := func() error {
		_, err := x.Client.Call(ctx, client.Request{Target: "peer", Protocol: api.ProtocolEcho, Data: hello})
		return err
	}
	m, err := interleaved(15, times(200, message), times(200, disk.sync), times(200, trip), times(200, nothing), times(200, call), times(200, insert), times(200, line))
	if err != nil {
		return err
	}
	least := 2*m[1] + m[2]
	b.add(atMost("send until delivered, p50", m[0], "µs", least, "two syncs and a raw round trip", 1.5),
		beside("the same, if it took a call, a request to wait, two syncs and no time else", 2*m[1]+m[3]+m[4], "µs", least, "two syncs and a raw round trip"),
		beside("the same, if it were two bare lines to a process and back, two bare inserts and a raw round trip", 2*m[5]+2*m[6]+m[2], "µs", least, "two syncs and a raw round trip"))
	return nil
}

// drained: many messages that wait for one who comes back.
func drained(ctx context.Context, b *bench) (err error) {
	const messages = 100_000
	x, y, err := process.Pair(ctx, b.bin, process.Options{Config: wideQueues})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.Close(), y.Close()) }()
	if err := y.Stop(); err != nil {
		return err
	}
	var left atomic.Int64
	left.Store(int64(messages))
	var wg sync.WaitGroup
	errs := make(chan error, 64)
	for range cap(errs) {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if _, err := send(ctx, x.Client, "peer"); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	if err := <-errs; err != nil {
		return err
	}
	sender, err := memoryOf(x)
	if err != nil {
		return err
	}
	disk, err := newDisk()
	if err != nil {
		return err
	}
	defer disk.Close()
	inserts, err := disk.inserts(64, time.Second)
	if err != nil {
		return err
	}
	if err := y.Run(ctx); err != nil {
		return err
	}
	receiver, err := memoryOf(y)
	if err != nil {
		return err
	}
	if err := x.Client.Verb(ctx, api.VerbPeerPing, api.TargetArgs{Target: "peer"}, nil); err != nil {
		return err
	}
	start := time.Now()
	for {
		if err := errors.Join(sender.look(), receiver.look()); err != nil {
			return err
		}
		var page api.OutboxPage
		if err := x.Client.Verb(ctx, api.VerbOutboxList, api.OutboxListArgs{Limit: 1}, &page); err != nil {
			return err
		}
		if len(page.Messages) == 0 && !page.More {
			break
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	rate := float64(messages) / time.Since(start).Seconds()
	b.add(beside("messages drained a second, of 100,000", rate, "/s", inserts, "bare inserts in batches of 64"),
		under("memory added by draining, at the sender", sender.added(), "MiB", 32),
		under("memory added by draining, at the receiver", receiver.added(), "MiB", 32))
	return nil
}

// memory is the highest resident memory of a daemon since memoryOf, in KiB.
type memory struct {
	d            *process.Daemon
	before, most float64
}

func memoryOf(d *process.Daemon) (*memory, error) {
	m := &memory{d: d}
	err := m.look()
	m.before = m.most
	return m, err
}

func (m *memory) look() error {
	now, err := m.d.RSS()
	m.most = max(m.most, now)
	return err
}

// added is in MiB.
func (m *memory) added() float64 { return (m.most - m.before) / 1024 }

// startFull: how long it takes until a daemon with a million messages answers.
func startFull(ctx context.Context, b *bench) (err error) {
	d, err := process.Start(ctx, b.bin, process.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	var own api.Identity
	if err := d.Client.Verb(ctx, api.VerbIdentityShow, nil, &own); err != nil {
		return err
	}
	if err := d.Stop(); err != nil {
		return err
	}
	id, err := identity.ParseID(own.ID52)
	if err != nil {
		return err
	}
	killed, err := os.MkdirTemp("", "fastn-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(killed)) }()
	if err := fill(ctx, d.Home, id, 1_000_000, killed); err != nil {
		return err
	}
	took, err := micros(5, func() error { return errors.Join(d.Run(ctx), d.Stop()) })
	if err != nil {
		return err
	}
	b.add(under("start and stop with 1,000,000 messages", median(took)/1e6, "s", 1))
	took = took[:0]
	for range 3 {
		if err := copyStore(killed, d.Home); err != nil {
			return err
		}
		start := time.Now()
		if err := d.Run(ctx); err != nil {
			return err
		}
		took = append(took, time.Since(start).Seconds())
		if err := d.Stop(); err != nil {
			return err
		}
	}
	b.add(under("start with 1,000,000 messages after a kill", median(took), "s", 1))
	return nil
}

// copyStore copies the messages of one folder to another, their log with them.
func copyStore(from, to string) error {
	for _, part := range []string{"", "-wal", ".schema"} {
		if err := copyFile(filepath.Join(from, messages.File+part), filepath.Join(to, messages.File+part)); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return errors.Join(err, src.Close())
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close(), src.Close())
}

// fill puts n messages into the inbox of id. The folder killed gets what a kill then
// leaves.
func fill(ctx context.Context, home string, id identity.ID, n int, killed string) error {
	const many = 1 << 40
	s, err := messages.Open(ctx, home, messages.Options{
		Owner: func(identity.ID) (uint32, bool) { return 0, true },
		Limits: func() messages.Limits {
			return messages.Limits{PerUIDQueuedMessages: many, PerUIDQueuedBytes: many, PerPeerUnreadMessages: many,
				PerPeerUnreadBytes: many, PerUIDStoredMessages: many, PerPeerStoredMessages: many, NodeMessageBytes: many, KeepRead: time.Hour}
		},
	})
	if err != nil {
		return err
	}
	batch := make([]messages.Message, 0, 4096)
	for i := range n {
		batch = append(batch, messages.Message{ID: fmt.Sprintf("123e4567-e89b-42d3-a456-%012x", i), From: id, To: id,
			Protocol: api.ProtocolText, Instance: api.DefaultInstance, Data: text, Created: time.Now()})
		if len(batch) < cap(batch) && i < n-1 {
			continue
		}
		for _, t := range s.Take(ctx, batch) {
			if t.Err != nil {
				return errors.Join(t.Err, s.Close())
			}
		}
		batch = batch[:0]
	}
	return errors.Join(copyStore(home, killed), s.Close())
}
