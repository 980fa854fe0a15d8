package router_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/router/routertest"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
)

// spliced is two users and the daemon between them: left and right are the
// users' ends, inLeft and inRight what Splice copies between.
type spliced struct {
	left, inLeft, inRight, right *routertest.Conn
	end                          chan error
}

func splice() *spliced { return spliceUntil(context.Background()) }

func spliceUntil(ctx context.Context) *spliced {
	s := &spliced{end: make(chan error, 1)}
	s.left, s.inLeft = routertest.Pipe()
	s.inRight, s.right = routertest.Pipe()
	go func() { s.end <- router.Splice(ctx, s.inLeft, s.inRight) }()
	return s
}

func (s *spliced) wantClosedOnce(t *testing.T) {
	t.Helper()
	if l, r := s.inLeft.Closes(), s.inRight.Closes(); l != 1 || r != 1 {
		t.Errorf("closed %d and %d times", l, r)
	}
}

func TestSpliceCopiesBothWays(t *testing.T) {
	testutil.LeakCheck(t)
	s := splice()
	var wg sync.WaitGroup
	transfer := func(from, to *routertest.Conn, size int) {
		sent := make([]byte, size)
		_, _ = rand.Read(sent)
		wg.Go(func() {
			if _, err := from.Write(sent); err != nil {
				t.Error(err)
			}
			if err := from.CloseWrite(); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			got, err := io.ReadAll(to)
			if err != nil || !bytes.Equal(got, sent) {
				t.Errorf("%d of %d bytes came, %v", len(got), len(sent), err)
			}
		})
	}
	transfer(s.left, s.right, 16<<20+3)
	transfer(s.right, s.left, 5<<20+1)
	wg.Wait()
	if err := <-s.end; err != nil {
		t.Error(err)
	}
	s.wantClosedOnce(t)
	if r := append(s.inLeft.Resets(), s.inRight.Resets()...); r != nil {
		t.Errorf("a clean end was reset: %q", r)
	}
}

// TestSpliceKeepsHalfClose: a direction that ended leaves the other one open.
func TestSpliceKeepsHalfClose(t *testing.T) {
	for name, way := range map[string]func(*spliced) (from, to *routertest.Conn){
		"left":  func(s *spliced) (a, b *routertest.Conn) { return s.left, s.right },
		"right": func(s *spliced) (a, b *routertest.Conn) { return s.right, s.left },
	} {
		t.Run(name, func(t *testing.T) {
			testutil.LeakCheck(t)
			s := splice()
			from, to := way(s)
			_, _ = from.Write([]byte("question"))
			_ = from.CloseWrite()
			if got, err := io.ReadAll(to); string(got) != "question" || err != nil {
				t.Fatalf("%q, %v", got, err)
			}
			// Only now does the other side begin to answer.
			_, _ = to.Write([]byte("answer"))
			_ = to.CloseWrite()
			if got, err := io.ReadAll(from); string(got) != "answer" || err != nil {
				t.Fatalf("%q, %v", got, err)
			}
			if err := <-s.end; err != nil {
				t.Error(err)
			}
			s.wantClosedOnce(t)
		})
	}
}

func TestSpliceCarriesResets(t *testing.T) {
	for name, way := range map[string]func(*spliced) (by, other *routertest.Conn){
		"left":  func(s *spliced) (a, b *routertest.Conn) { return s.left, s.right },
		"right": func(s *spliced) (a, b *routertest.Conn) { return s.right, s.left },
	} {
		t.Run(name, func(t *testing.T) {
			testutil.LeakCheck(t)
			s := splice()
			by, other := way(s)
			by.Reset(api.CodeStalled)
			wantCode(t, <-s.end, api.CodeStalled)
			_, err := other.Read(make([]byte, 1))
			wantCode(t, err, api.CodeStalled)
			s.wantClosedOnce(t)
		})
	}
}

// TestSpliceResetAfterHalfClose: a reset is told even where one direction has
// ended already.
func TestSpliceResetAfterHalfClose(t *testing.T) {
	testutil.LeakCheck(t)
	s := splice()
	_ = s.left.CloseWrite()
	if _, err := s.right.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
	s.right.Reset(api.CodeOverBudget)
	wantCode(t, <-s.end, api.CodeOverBudget)
	_, err := s.left.Read(make([]byte, 1))
	wantCode(t, err, api.CodeOverBudget)
	s.wantClosedOnce(t)
}

// TestSpliceEndsWithContext: both users are told why, and nobody sends anything.
func TestSpliceEndsWithContext(t *testing.T) {
	for name, tc := range map[string]struct {
		cause error
		want  api.Code
	}{
		"withdrawn": {api.Errorf(api.CodeNotPermitted, "withdrawn"), api.CodeNotPermitted},
		"gone":      {nil, api.CodeCancelled},
		"a defect":  {errors.New("a defect"), api.CodeAborted}, // on the streams: nothing inside of us is told
	} {
		t.Run(name, func(t *testing.T) {
			testutil.LeakCheck(t)
			ctx, cancel := context.WithCancelCause(context.Background())
			s := spliceUntil(ctx)
			cancel(tc.cause)
			err := <-s.end
			if tc.cause != nil && err.Error() != tc.cause.Error() {
				t.Errorf("got %v, want %v", err, tc.cause)
			}
			for _, end := range []*routertest.Conn{s.left, s.right} {
				_, err := end.Read(make([]byte, 1))
				wantCode(t, err, tc.want)
			}
			s.wantClosedOnce(t)
		})
	}
}

// TestSpliceHoldsBack: nobody reads on the right, so the left writer waits
// rather than filling memory; a reset frees all.
// abortable is an end that tells of an abort beside Read and Write.
type abortable struct {
	*routertest.Conn
	ctx context.Context
}

func (a abortable) Aborted() context.Context { return a.ctx }

// An abort that comes while neither side reads or writes ends both.
func TestSpliceHearsOfAborts(t *testing.T) {
	for name, swap := range map[string]bool{"left": false, "right": true} {
		t.Run(name, func(t *testing.T) {
			testutil.LeakCheck(t)
			user, ours := routertest.Pipe()
			theirs, peer := routertest.Pipe()
			ctx, abort := context.WithCancelCause(t.Context())
			a, b := router.Conn(ours), router.Conn(abortable{theirs, ctx})
			if swap {
				a, b = b, a
			}
			end := make(chan error, 1)
			go func() { end <- router.Splice(t.Context(), a, b) }()
			if err := peer.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(user); err != nil {
				t.Fatalf("a clean end reads as %v", err)
			}
			abort(api.Errorf(api.CodeHandlerFailed, "killed"))
			if err := <-end; api.CodeOf(err) != api.CodeHandlerFailed {
				t.Errorf("it ended with %v", err)
			}
			if _, err := user.Write([]byte("x")); api.CodeOf(err) != api.CodeHandlerFailed {
				t.Errorf("the user was told %v", err)
			}
		})
	}
}

func TestSpliceHoldsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := splice()
		over := make(chan error, 1)
		go func() {
			_, err := s.left.Write(make([]byte, 1<<20))
			over <- err
		}()
		synctest.Wait()
		select {
		case <-over:
			t.Error("1 MiB went nowhere")
		default:
		}
		s.right.Reset(api.CodeStalled)
		wantCode(t, <-over, api.CodeStalled)
		wantCode(t, <-s.end, api.CodeStalled)
		s.wantClosedOnce(t)
	})
}

// brokenEnd is a Conn of which one operation fails without a reset.
type brokenEnd struct {
	*routertest.Conn
	closeWrite, close error
}

func (b brokenEnd) CloseWrite() error {
	if b.closeWrite != nil {
		return b.closeWrite
	}
	return b.Conn.CloseWrite()
}

func (b brokenEnd) Close() error { return errors.Join(b.Conn.Close(), b.close) }

// TestSpliceFailedEnd: an end that cannot be told ends both, though the other
// side sends nothing.
func TestSpliceFailedEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		left, inLeft := routertest.Pipe()
		inRight, right := routertest.Pipe()
		failed := errors.New("failed")
		_ = left.CloseWrite()
		if err := router.Splice(t.Context(), inLeft, brokenEnd{Conn: inRight, closeWrite: failed}); err != failed {
			t.Errorf("got %v", err)
		}
		for _, end := range []*routertest.Conn{left, right} {
			_, err := end.Read(make([]byte, 1))
			wantCode(t, err, api.CodeAborted) // nothing inside of us is told
		}
	})
}

func TestSpliceReportsFailedClose(t *testing.T) {
	left, inLeft := routertest.Pipe()
	inRight, right := routertest.Pipe()
	failed := errors.New("failed")
	_, _ = left.CloseWrite(), right.CloseWrite()
	if err := router.Splice(t.Context(), inLeft, brokenEnd{Conn: inRight, close: failed}); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
}
