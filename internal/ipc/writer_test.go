package ipc

import (
	"bytes"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

// boundless counts no bytes.
type boundless struct{}

func (boundless) takeBytes(int) error { return nil }
func (boundless) giveBytes(int)       {}

// pipe is a connection whose other end is read by the test, with a deadline as a
// socket has it.
func pipe(t *testing.T, o Options) (w *writer, far net.Conn, wasCut *atomic.Bool) {
	near, far := net.Pipe()
	t.Cleanup(func() { near.Close(); far.Close() })
	w, wasCut = new(writer), new(atomic.Bool)
	w.init(near, o.withDefaults(), boundless{}, func() { wasCut.Store(true); near.Close() })
	return w, far, wasCut
}

// The write deadline runs from the moment the queue is full, not before, and is
// lifted when the client reads on.
func TestWriteDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, far, wasCut := pipe(t, Options{WriteQueue: 100})
		var wg sync.WaitGroup
		add := func(n int) {
			for range n {
				wg.Go(func() {
					mustFlush, err := w.line(answer, "id", api.StatusOK, []byte(`"123456789012345678901234567890"`))
					if err == nil && mustFlush {
						w.flush()
					}
				})
				synctest.Wait()
			}
		}
		add(2) // one is being written, one queued: not full
		time.Sleep(time.Hour)
		if wasCut.Load() {
			t.Fatal("cut off with a queue that is not full")
		}
		add(3) // full
		time.Sleep(9 * time.Second)
		if _, err := far.Read(make([]byte, 1000)); err != nil { // reads on, in time
			t.Fatal(err)
		}
		synctest.Wait()
		time.Sleep(9 * time.Second)
		if wasCut.Load() {
			t.Fatal("cut off although it read in time")
		}
		add(5) // full again
		time.Sleep(10*time.Second + time.Millisecond)
		synctest.Wait()
		if !wasCut.Load() {
			t.Fatal("not cut off after 10 s with a full queue")
		}
		wg.Wait() // all who waited were released
		if _, err := w.line(answer, "id", api.StatusOK, nil); !errors.Is(err, errQueueFull) && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("later lines give %v", err)
		}
	})
}

// One large answer that is left unread costs the client its connection too, though
// no other waits behind it; events never do.
func TestWriteDeadlineOfLargeAnswer(t *testing.T) {
	for _, tc := range []struct {
		urgency
		cut bool
	}{{answer, true}, {patient, false}} {
		synctest.Test(t, func(t *testing.T) {
			w, far, wasCut := pipe(t, Options{WriteQueue: 100})
			var wg sync.WaitGroup
			wg.Go(func() {
				if mustFlush, err := w.line(tc.urgency, "id", api.StatusOK, bytes.Repeat([]byte("1"), 101)); err == nil && mustFlush {
					w.flush()
				}
			})
			time.Sleep(10*time.Second - time.Millisecond)
			synctest.Wait()
			if wasCut.Load() {
				t.Error("cut off too early")
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if wasCut.Load() != tc.cut {
				t.Errorf("urgency %d: cut off is %v", tc.urgency, wasCut.Load())
			}
			far.Close()
			wg.Wait()
		})
	}
}

// The last line, and what is written before it, is to be read in time however little
// it is; then there is no limit any more.
func TestWriteDeadlineOfLastLine(t *testing.T) {
	for _, before := range []int{0, 1, 2} { // lines: none, one being written, one more queued
		for reads := range before + 2 {
			synctest.Test(t, func(t *testing.T) {
				w, far, wasCut := pipe(t, Options{})
				var wg sync.WaitGroup
				for range before {
					wg.Go(func() {
						if mustFlush, err := w.line(answer, "id", api.StatusOK, nil); err == nil && mustFlush {
							w.flush()
						}
					})
					synctest.Wait()
				}
				time.Sleep(time.Hour)
				last := errors.New("it waits")
				wg.Go(func() { last = w.last("id", api.StatusStreaming) })
				writes := min(before+1, 2) // what is queued is written at once
				for range min(reads, writes) {
					time.Sleep(9 * time.Second)
					if _, err := far.Read(make([]byte, 1000)); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
				}
				time.Sleep(10*time.Second + time.Millisecond)
				synctest.Wait()
				all := reads >= writes
				if wasCut.Load() == all || (last == nil) != all {
					t.Errorf("%d lines before, %d of %d writes read: cut off is %v, error %v", before, reads, writes, wasCut.Load(), last)
				}
				if all {
					wg.Go(func() { _, _ = w.conn.Write([]byte("raw")) })
					time.Sleep(time.Hour)
					if n, err := far.Read(make([]byte, 1000)); n != 3 || err != nil {
						t.Errorf("of the stream %d bytes came: %v", n, err)
					}
				}
				far.Close()
				wg.Wait()
			})
		}
	}
}

func TestWriteUrgency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, far, wasCut := pipe(t, Options{WriteQueue: 10})
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if mustFlush, err := w.line(patient, "id", api.StatusOK, nil); err == nil && mustFlush {
					w.flush()
				}
			})
			synctest.Wait()
		}
		patientDone := false
		wg.Go(func() {
			mustFlush, err := w.line(patient, "late", api.StatusOK, nil)
			patientDone = err == nil
			if mustFlush { // if all before it was written by then
				w.flush()
			}
		})
		if _, err := w.line(atOnce, "id", api.StatusOK, nil); !errors.Is(err, errQueueFull) {
			t.Errorf("at once: %v", err)
		}
		time.Sleep(time.Hour)
		if wasCut.Load() || patientDone {
			t.Fatalf("cut %v, patient done %v; want neither", wasCut.Load(), patientDone)
		}
		var got bytes.Buffer
		buf := make([]byte, 1000)
		for bytes.Count(got.Bytes(), []byte("\n")) < 3 {
			n, err := far.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			got.Write(buf[:n])
		}
		wg.Wait()
		if !patientDone {
			t.Error("the patient line was not queued when there was room")
		}
	})
}

// A buffer that a large answer needed is not kept.
func TestWriterShrinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, far, _ := pipe(t, Options{})
		var wg sync.WaitGroup
		wg.Go(func() {
			big := append(append([]byte{'"'}, bytes.Repeat([]byte("x"), 100<<10)...), '"')
			if mustFlush, err := w.line(answer, "id", api.StatusOK, big); err == nil && mustFlush {
				w.flush()
			}
		})
		buf := make([]byte, 200<<10)
		if _, err := far.Read(buf); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if n := cap(w.pending) + cap(w.spare); n > 2*keptBuffer {
			t.Errorf("%d bytes are kept", n)
		}
	})
}

func TestStreamResultsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var table streamTable
		table.init(3, api.StreamResultTTL)
		end := func(id string) {
			e, err := table.add(1, id, nil)
			if err != nil {
				t.Fatal(err)
			}
			e.finish(api.StreamResult{Clean: true})
		}
		end("a")
		if _, err := table.add(1, "a", nil); api.CodeOf(err) != api.CodeConflict {
			t.Errorf("the id of an ended stream again: %v", err)
		}
		time.Sleep(4 * time.Minute)
		end("b")
		running, err := table.add(1, "running", nil)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(59 * time.Second)
		if table.get(1, "a") == nil {
			t.Error("a was forgotten before 5 minutes")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if table.get(1, "a") != nil || table.get(1, "b") == nil {
			t.Error("after 5 minutes a is to be forgotten, b not yet")
		}
		time.Sleep(time.Hour)
		if table.get(1, "b") != nil || table.get(1, "running") == nil {
			t.Error("after an hour b is to be forgotten, the running one not")
		}
		for _, id := range []string{"1", "2", "3", "4"} {
			end(id)
		}
		if table.get(1, "1") != nil || table.get(1, "2") == nil {
			t.Error("of four ends the latest three are kept")
		}
		running.drop(api.Refusal())
		if <-running.done; running.result.Code != api.CodeRefused {
			t.Errorf("who waited is told %+v", running.result)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(table.users) != 0 || table.timer != nil {
			t.Errorf("%d users and a timer %v are left", len(table.users), table.timer != nil)
		}
		table.close()
	})
}
