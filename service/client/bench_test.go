package client_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"testing"

	"github.com/fastn-stack/fastnd/internal/ipc"
	"github.com/fastn-stack/fastnd/internal/ipc/ipctest"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/client"
)

// BenchmarkBareEcho is the baseline: a line to and fro over a bare Unix socket.
func BenchmarkBareEcho(b *testing.B) {
	path := ipctest.Socket(b)
	l, err := net.Listen("unix", path)
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(struct{ io.Writer }{c}, c) // ends with the client
	}()
	c, err := net.Dial("unix", path)
	if err != nil {
		b.Fatal(err)
	}
	line := []byte(`{"id":"1","type":"call","target":"self","protocol":"Null","data":{"message":"hello"}}` + "\n")
	in := bufio.NewReader(c)
	for b.Loop() {
		if _, err := c.Write(line); err != nil {
			b.Fatal(err)
		}
		if _, err := in.ReadSlice('\n'); err != nil {
			b.Fatal(err)
		}
	}
	c.Close()
	l.Close()
	<-done
}

func null(_ context.Context, r *router.Request) (json.RawMessage, error) { return r.Payload, nil }

// BenchmarkCall is a call whose handler does nothing.
func BenchmarkCall(b *testing.B) {
	c, backend, _ := start(b, ipc.Options{})
	backend.Handle("Null", router.HandlerFunc(null))
	q := client.Request{Target: "self", Protocol: "Null", Data: json.RawMessage(`{"message":"hello"}`)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Call(context.Background(), q); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCallParallel shares the connection among many.
func BenchmarkCallParallel(b *testing.B) {
	c, backend, _ := start(b, ipc.Options{})
	backend.Handle("Null", router.HandlerFunc(null))
	q := client.Request{Target: "self", Protocol: "Null", Data: json.RawMessage(`{"message":"hello"}`)}
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := c.Call(context.Background(), q); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkStream echoes 64 KiB blocks through the control socket.
func BenchmarkStream(b *testing.B) {
	c, _, _ := start(b, ipc.Options{})
	s, err := c.Stream(b.Context(), client.Request{Target: "self", Protocol: "Echo"})
	if err != nil {
		b.Fatal(err)
	}
	block, back := make([]byte, 64<<10), make([]byte, 64<<10)
	b.SetBytes(int64(len(block)))
	for b.Loop() {
		if _, err := s.Write(block); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(s, back); err != nil {
			b.Fatal(err)
		}
	}
	_ = s.CloseWrite()
	_, _ = io.ReadAll(s)
	s.Close()
}
