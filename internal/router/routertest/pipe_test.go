package routertest

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
)

func TestBytesCrossBothWays(t *testing.T) {
	testutil.LeakCheck(t)
	a, b := Pipe()
	sent := make([]byte, 5*Window+17)
	_, _ = rand.Read(sent)
	var wg sync.WaitGroup
	for _, ends := range [][2]*Conn{{a, b}, {b, a}} {
		wg.Go(func() {
			if _, err := ends[0].Write(sent); err != nil {
				t.Error(err)
			}
			if err := ends[0].CloseWrite(); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			got, err := io.ReadAll(ends[1])
			if err != nil || !bytes.Equal(got, sent) {
				t.Errorf("%d of %d bytes came, %v", len(got), len(sent), err)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(a.Close(), b.Close()); err != nil {
		t.Error(err)
	}
}

func TestWriterWaitsForItsReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe()
		var n int
		done := false
		go func() {
			n, _ = a.Write(make([]byte, Window+1))
			done = true
		}()
		synctest.Wait()
		if done {
			t.Error("a write of more than the window did not wait")
		}
		if _, err := b.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !done || n != Window+1 {
			t.Errorf("after a read the writer wrote %d bytes, over: %v", n, done)
		}
	})
}

func TestResetEndsAllFourDirections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe()
		var errs [4]error
		full := make([]byte, Window+1)
		go func() { _, errs[0] = a.Write(full) }()
		go func() { _, errs[1] = b.Write(full) }()
		synctest.Wait()
		b.Reset(api.CodeStalled)
		a.Reset(api.CodeTimeout) // too late
		synctest.Wait()
		_, errs[2] = a.Read(full)
		_, errs[3] = b.Read(full)
		for i, err := range errs {
			if api.CodeOf(err) != api.CodeStalled {
				t.Errorf("direction %d: %v", i, err)
			}
		}
	})
}

func TestCloseBeforeTheEndAborts(t *testing.T) {
	a, b := Pipe()
	if err := a.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	_ = a.Close() // b has not ended
	if err := b.CloseWrite(); api.CodeOf(err) != api.CodeAborted {
		t.Errorf("CloseWrite: %v", err)
	}
}

func TestResetAfterTheEndIsNothing(t *testing.T) {
	a, b := Pipe()
	_ = a.CloseWrite()
	_ = b.CloseWrite()
	a.Reset(api.CodeStalled)
	_ = a.Close()
	a.Reset(api.CodeStalled)
	if _, err := b.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read after the end: %v", err)
	}
	if a.Closes() != 1 || len(a.Resets()) != 2 || b.Closes() != 0 {
		t.Errorf("counts: closes %d, resets %v; %d", a.Closes(), a.Resets(), b.Closes())
	}
}
