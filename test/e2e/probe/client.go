package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
)

func newClient() *client.Client { return client.New(socket, client.Options{Name: "probe"}) }

func request(peer, protocol, text string) client.Request {
	data, _ := json.Marshal(map[string]string{"message": text}) // strings always can be
	return client.Request{Target: peer, Protocol: protocol, Data: data}
}

// echo makes one call and checks its answer.
func echo(c *client.Client, peer, text string) error {
	ctx, cancel := context.WithTimeout(context.Background(), answerLimit)
	defer cancel()
	answer, err := c.Call(ctx, request(peer, "Echo", text))
	if err != nil {
		return err
	}
	if want := fmt.Sprintf(`{"echoed":"Echo: %s"}`, text); string(answer) != want {
		return fmt.Errorf("got %s, want %s", answer, want)
	}
	return nil
}

func calls() error {
	c := newClient()
	defer c.Close()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		ctx, cancel := context.WithTimeout(context.Background(), answerLimit)
		fmt.Println("sent")
		_, err := c.Call(ctx, request(api.TargetSelf, in.Text(), "x"))
		cancel()
		if err != nil {
			fmt.Println(api.CodeOf(err), err)
			continue
		}
		fmt.Println("ok")
	}
	return nil
}

// pace leaves the machine time for what is done to the daemon meanwhile.
const pace = time.Millisecond

func crowd(n int) error {
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var mu sync.Mutex
	outcomes := map[string]int{}
	for i := range n {
		wg.Go(func() {
			for k := 0; ctx.Err() == nil; k++ {
				c := newClient()
				outcome := "ok"
				if err := echo(c, api.TargetSelf, fmt.Sprintf("%d of %d", k, i)); err != nil {
					outcome = fmt.Sprintf("%s: %v", api.CodeOf(err), err)
				}
				c.Close()
				mu.Lock()
				outcomes[outcome]++
				mu.Unlock()
				time.Sleep(pace)
			}
		})
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	stop()
	wg.Wait()
	return json.NewEncoder(os.Stdout).Encode(outcomes)
}

// wearer does what may leave something behind in a daemon, and checks what it gets.
type wearer struct {
	c       *client.Client
	peer    string
	payload []byte
}

func wear(peer string, n int) error {
	w := wearer{newClient(), peer, bytes.Repeat([]byte("0123456789abcdef"), 4<<10)}
	defer w.c.Close()
	if err := w.crowd(100); err != nil {
		return err
	}
	for i := range n {
		todo := []func(context.Context) error{w.call, w.callAlone, w.breakOff}
		if i%10 == 0 {
			todo = append(todo, w.stream, w.breakOffStream, w.listen)
		}
		for k, do := range todo {
			ctx, cancel := context.WithTimeout(context.Background(), answerLimit)
			err := do(ctx)
			cancel()
			if err != nil {
				return fmt.Errorf("part %d of round %d: %w", k, i, err)
			}
		}
	}
	fmt.Println("worn")
	return nil
}

// crowd has n calls in flight at once, more than come later: the daemon keeps the
// goroutines of some, and from then on needs no new ones.
func (w wearer) crowd(n int) error {
	const protocol = "Crowd"
	ctx, cancel := context.WithTimeout(context.Background(), answerLimit)
	defer cancel()
	l, err := w.c.Listen(ctx, client.ListenOptions{Protocol: protocol})
	if err != nil {
		return err
	}
	defer l.Close()
	done := make(chan error, n)
	for range n {
		go func() {
			_, err := w.c.Call(ctx, request(api.TargetSelf, protocol, "x"))
			done <- err
		}()
	}
	calls := make([]*client.Incoming, n)
	for i := range calls {
		if calls[i], err = l.Next(ctx); err != nil {
			return err
		}
	}
	for _, in := range calls {
		if err := in.Reply(ctx, json.RawMessage(`"x"`)); err != nil {
			return err
		}
	}
	for range n {
		err = errors.Join(err, <-done)
	}
	return err
}

func (w wearer) call(context.Context) error { return echo(w.c, w.peer, "shared") }

func (w wearer) callAlone(context.Context) error {
	c := newClient()
	defer c.Close()
	return echo(c, w.peer, "alone")
}

// breakOff goes away in the middle of a request, with another one in flight.
func (w wearer) breakOff(context.Context) error {
	c, err := dial()
	if err != nil {
		return err
	}
	defer c.conn.Close()
	_, err = fmt.Fprintf(c.conn, "%s\n%s", `{"id":"1","type":"call","target":"self","protocol":"Echo","data":{}}`, `{"id":"2","ty`)
	return err
}

func (w wearer) stream(ctx context.Context) error {
	s, err := w.c.Stream(ctx, request(w.peer, "Echo", ""))
	if err != nil {
		return err
	}
	defer s.Close()
	sent := make(chan error, 1)
	go func() {
		_, err := s.Write(w.payload)
		if err == nil {
			err = s.CloseWrite()
		}
		sent <- err
	}()
	back, err := io.ReadAll(s)
	if sendErr := <-sent; sendErr != nil {
		return sendErr
	}
	if err != nil || !bytes.Equal(back, w.payload) {
		return fmt.Errorf("%d bytes of %d came back: %w", len(back), len(w.payload), err)
	}
	return nil
}

func (w wearer) breakOffStream(ctx context.Context) error {
	s, err := w.c.Stream(ctx, request(w.peer, "Echo", ""))
	if err != nil {
		return err
	}
	if _, err := s.Write(w.payload[:1000]); err != nil {
		return err
	}
	return s.Close()
}

// listen serves a protocol for one call, which is not answered.
func (w wearer) listen(ctx context.Context) error {
	const protocol = "Wear"
	l, err := w.c.Listen(ctx, client.ListenOptions{Protocol: protocol})
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() {
		_, err := w.c.Call(ctx, request(api.TargetSelf, protocol, "x"))
		failed <- err
	}()
	if _, err := l.Next(ctx); err != nil {
		return err
	}
	l.Close()
	if err := <-failed; err == nil || api.CodeOf(err) == api.CodeTimeout {
		return fmt.Errorf("a call whose program went away: %w", err)
	}
	return nil
}
