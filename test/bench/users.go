package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fastn-stack/fastnd/test/process"
)

// firstUser and those behind it have no names.
const firstUser = 55000

// benchUsers: what clients of many users add to the daemon of a whole machine, and
// how many calls they get done, beside as many clients of one user. Each has made a
// call, to an identity of his own. Both crowds are there at the same time, and the
// daemon without one that their memory is compared with.
func benchUsers(ctx context.Context, b *bench) (err error) {
	const users = 1000
	memory := beside(fmt.Sprintf("memory of a client, %d uids", users), 0, "KiB", 1, "as many of one uid")
	calls := beside(fmt.Sprintf("calls a second, %d uids", users), 0, "/s", 1, "as many clients of one uid")
	if os.Geteuid() != 0 {
		why := errors.New("needs root, to be other users")
		b.add(memory.unmeasured(why), calls.unmeasured(why))
		return nil
	}
	var of [3]*crowd // of nobody, of one user, of many
	for i := range of {
		if of[i], err = startCrowd(ctx, b); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, of[i].close()) }()
	}
	none, one, many := of[0], of[1], of[2]
	err = errors.Join(one.come(users, func(int) uint32 { return firstUser }),
		many.come(users, func(i int) uint32 { return firstUser + uint32(i) }))
	if err != nil {
		return err
	}
	if err := pause(ctx, settle); err != nil {
		return err
	}
	adds, err := added(none, one, many)
	if err != nil {
		return err
	}
	done, err := interleaved(3, many.rate, one.rate)
	if err != nil {
		return err
	}
	b.add(beside(memory.What, adds[1], memory.Unit, adds[0], memory.Beside), beside(calls.What, done[0], calls.Unit, done[1], calls.Beside))
	return nil
}

// added is what each client of a crowd adds to the memory of a daemon without one,
// in KiB.
func added(none *crowd, crowds ...*crowd) ([]float64, error) {
	empty, err := none.d.RSS()
	if err != nil {
		return nil, err
	}
	out := make([]float64, len(crowds))
	for i, c := range crowds {
		full, err := c.d.RSS()
		if err != nil {
			return nil, err
		}
		out[i] = (full - empty) / float64(len(c.conns))
	}
	return out, nil
}

// crowd is a daemon of a whole machine with the clients that it serves.
type crowd struct {
	d     *process.Daemon
	conns []*lineConn
}

// startCrowd starts the daemon and has it serve a first user, who leaves: what that
// brings into memory is no client's.
func startCrowd(ctx context.Context, b *bench) (*crowd, error) {
	// In memory: how long a disk takes for a thousand first keys is not measured here.
	d, err := process.StartSystem(ctx, b.bin, process.Options{Config: wideBudgets, Dir: "/dev/shm"})
	if err != nil {
		return nil, err
	}
	c := &crowd{d: d}
	err = c.come(1, func(int) uint32 { return firstUser - 1 })
	hangUp(c.conns)
	c.conns = nil
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return c, nil
}

// come connects n clients, the i-th of user uid(i), of which each makes a call. They
// come one after the other, as far as they have to wait.
func (c *crowd) come(n int, uid func(i int) uint32) error {
	const together = 8
	c.conns = make([]*lineConn, n)
	errs := make([]error, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range together {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := c.client(i, uid(i)); err != nil {
					errs[i] = fmt.Errorf("client %d, of user %d: %w", i, uid(i), err)
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (c *crowd) client(i int, uid uint32) error {
	conn, err := c.d.DialAs(uid)
	if err != nil {
		return err
	}
	c.conns[i] = newLineConn(conn)
	return c.conns[i].ask(echoSelf())
}

// rate is how many calls a second all clients get done together; each is answered
// at least once.
func (c *crowd) rate() ([]float64, error) {
	const long = time.Second / 2
	var wg sync.WaitGroup
	var calls atomic.Int64
	errs := make([]error, len(c.conns))
	start := time.Now()
	for i, l := range c.conns {
		wg.Go(func() {
			for ok := true; ok; ok = errs[i] == nil && time.Since(start) < long {
				errs[i] = l.ask(echoSelf())
				calls.Add(1)
			}
		})
	}
	wg.Wait()
	return []float64{float64(calls.Load()) / time.Since(start).Seconds()}, errors.Join(errs...)
}

func (c *crowd) close() error {
	hangUp(c.conns)
	return c.d.Close()
}
