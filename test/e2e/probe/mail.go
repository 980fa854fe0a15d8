package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
)

const (
	// mailPace makes an upgrade of the daemon fall among a few thousand messages.
	mailPace = 10 * time.Millisecond
	// mailBegun is how many are acknowledged before "ready".
	mailBegun = 100
	// sendLimit bounds one message with all its tries.
	sendLimit = 60 * time.Second
)

// mailer is one program that sends messages one after the other.
type mailer struct {
	peer string
	send func(ctx context.Context, text, id string) error
	Sent int            // so many were acknowledged
	Told map[string]int // codes of the tries that were not
}

func mail(peer string, clients, n int) error {
	var stopped atomic.Bool
	var begun atomic.Int64
	errs := make([]error, clients)
	all := make([]*mailer, clients)
	var wg sync.WaitGroup
	for i := range all {
		m := &mailer{peer: peer, Told: map[string]int{}}
		m.send = m.alone
		if i%2 == 0 {
			c := newClient()
			defer c.Close()
			m.send = func(ctx context.Context, text, id string) error {
				_, err := c.Send(ctx, client.Message{Target: peer, Protocol: api.ProtocolText, Data: textData(text), ID: id})
				return err
			}
		}
		all[i] = m
		wg.Go(func() {
			for errs[i] == nil && (m.Sent < n || !stopped.Load()) {
				errs[i] = m.next(i)
				if begun.Add(1) == mailBegun {
					fmt.Println("ready")
				}
				time.Sleep(mailPace)
			}
		})
	}
	go func() {
		io.Copy(io.Discard, os.Stdin)
		stopped.Store(true)
	}()
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(all)
}

// next sends the next message until it is acknowledged.
func (m *mailer) next(i int) error {
	ctx, cancel := context.WithTimeout(context.Background(), sendLimit)
	defer cancel()
	text := fmt.Sprintf("mail %d %d", i, m.Sent)
	id := fmt.Sprintf("%08x-0000-4000-8000-%012x", i, m.Sent)
	for {
		err := m.send(ctx, text, id)
		if err == nil {
			m.Sent++
			return nil
		}
		code := api.CodeOf(err)
		m.Told[string(code)]++
		if ctx.Err() != nil || code != api.CodeUnavailable && code != api.CodeOutcomeUnknown {
			return fmt.Errorf("%s: %s: %w", text, code, err)
		}
		time.Sleep(mailPace)
	}
}

// alone sends with a connection of its own.
func (m *mailer) alone(_ context.Context, text, id string) error {
	c, err := dial()
	if err != nil {
		return err // systemd's socket refuses none
	}
	defer c.conn.Close()
	line, err := json.Marshal(api.Request{ID: "1", Type: api.TypeSend, Target: m.peer, Protocol: api.ProtocolText, Data: textData(text), MessageID: id})
	if err != nil {
		return err
	}
	var a api.Response
	answer, err := c.do(line, nil)
	if err != nil {
		return api.Errorf(api.CodeOutcomeUnknown, "%v", err)
	}
	if err := json.Unmarshal([]byte(answer), &a); err != nil {
		return err
	}
	return a.Err()
}

func textData(text string) json.RawMessage {
	data, _ := json.Marshal(map[string]string{"text": text}) // strings always can be
	return data
}
