package identity

import (
	"errors"
	"sync"
	"testing"
	"time"
)

// steps presents delegations of one identity and node, one after another.
type step struct {
	issued, ends time.Duration // of the delegation, after noon
	at           time.Duration // when it is presented
	want         error
	until        time.Duration // what is left of it
}

func TestNewerDelegationCapsOlder(t *testing.T) {
	h := time.Hour
	for name, steps := range map[string][]step{
		"renewal: the old one goes on":       {{0, 7 * h, 1 * h, nil, 7 * h}, {1 * h, 8 * h, 1 * h, nil, 8 * h}, {0, 7 * h, 2 * h, nil, 7 * h}},
		"revocation: an earlier end counts":  {{0, 7 * h, 1 * h, nil, 7 * h}, {1 * h, 2 * h, 1 * h, nil, 2 * h}, {0, 7 * h, 1 * h, nil, 2 * h}, {0, 7 * h, 2 * h, ErrSuperseded, 0}, {0, 7 * h, 6 * h, ErrSuperseded, 0}, {0, 7 * h, 7 * h, ErrExpired, 0}},
		"revocation first, older one after":  {{1 * h, 2 * h, 1 * h, nil, 2 * h}, {0, 7 * h, 1 * h, nil, 2 * h}, {0, 7 * h, 3 * h, ErrSuperseded, 0}},
		"an expired one revokes nothing":     {{0, 7 * h, 1 * h, nil, 7 * h}, {1 * h, 2 * h, 2 * h, ErrExpired, 0}, {0, 7 * h, 3 * h, nil, 7 * h}},
		"a future one revokes nothing":       {{0, 7 * h, 1 * h, nil, 7 * h}, {2 * h, 2*h + 1, 1 * h, ErrFuture, 0}, {0, 7 * h, 1 * h, nil, 7 * h}},
		"after a revocation a new one":       {{1 * h, 2 * h, 1 * h, nil, 2 * h}, {3 * h, 9 * h, 3 * h, nil, 9 * h}, {0, 7 * h, 4 * h, nil, 7 * h}},
		"same microsecond: the shorter wins": {{0, 7 * h, 1 * h, nil, 7 * h}, {0, 2 * h, 1 * h, nil, 2 * h}, {0, 7 * h, 3 * h, ErrSuperseded, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			k, node := newKey(t), newKey(t).ID()
			v := NewVerifier(nil)
			for i, s := range steps {
				d := delegate(t, k, node, noon.Add(s.issued), max(s.ends-s.issued, time.Microsecond))
				got, err := v.Verify(d.Raw, node, noon.Add(s.at))
				if !errors.Is(err, s.want) {
					t.Fatalf("step %d: %v, want %v", i, err, s.want)
				}
				if err == nil && !got.Expires.Equal(noon.Add(s.until)) {
					t.Fatalf("step %d: until %v, want %v", i, got.Expires.Sub(noon), s.until)
				}
			}
		})
	}
}

func TestRevocationIsPerIdentityAndNode(t *testing.T) {
	k, other := newKey(t), newKey(t)
	node, elsewhere := newKey(t).ID(), newKey(t).ID()
	v := NewVerifier(nil)
	for _, d := range []*Delegation{
		delegate(t, k, node, noon.Add(time.Minute), 2*time.Minute),
		delegate(t, k, elsewhere, noon, time.Hour),
		delegate(t, other, node, noon, time.Hour),
	} {
		got, err := v.Verify(d.Raw, d.Node, noon.Add(time.Minute))
		if err != nil || !got.Expires.Equal(d.Expires) {
			t.Fatalf("%v %v", got, err)
		}
	}
}

func TestDurableMemory(t *testing.T) {
	k, node := newKey(t), newKey(t).ID()
	old := delegate(t, k, node, noon, 7*time.Hour)
	durable := &askedNewest{span: span{noon.Add(time.Hour), noon.Add(2 * time.Hour)}, ok: true}
	v := NewVerifier(durable)

	if _, err := v.Verify(old.Raw, node, noon.Add(3*time.Hour)); !errors.Is(err, ErrSuperseded) {
		t.Fatalf("revoked before the restart: %v", err)
	}
	got, err := v.Verify(old.Raw, node, noon.Add(90*time.Minute))
	if err != nil || !got.Expires.Equal(durable.expires) {
		t.Fatalf("%v %v", got, err)
	}
	asked := durable.times
	for range 10 {
		if _, err := v.Verify(old.Raw, node, noon.Add(90*time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	if durable.times != asked {
		t.Errorf("asked %d times more for what is remembered", durable.times-asked)
	}
	if _, err := v.Verify(old.Raw, node, noon.Add(3*time.Hour)); !errors.Is(err, ErrSuperseded) {
		t.Fatalf("what the durable memory said was overwritten by an older delegation: %v", err)
	}
}

func TestVerifierConcurrently(t *testing.T) {
	k, node := newKey(t), newKey(t).ID()
	v := NewVerifier(nil)
	var ds []*Delegation
	for i := range 8 {
		ds = append(ds, delegate(t, k, node, noon.Add(time.Duration(i)*time.Minute), 24*time.Hour))
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 50 {
				if _, err := v.Verify(ds[(i+j)%8].Raw, node, noon.Add(10*time.Minute)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if newest, _ := v.seen.Get(pair{k.ID(), node}); !newest.issued.Equal(ds[7].Issued) {
		t.Errorf("newest is %v", newest)
	}
}

func BenchmarkVerifyCached(b *testing.B) {
	k, node := newKey(b), newKey(b).ID()
	d := delegate(b, k, node, noon, time.Hour)
	v := NewVerifier(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(d.Raw, node, noon); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifyFirst(b *testing.B) {
	k, node := newKey(b), newKey(b).ID()
	d := delegate(b, k, node, noon, time.Hour)
	for b.Loop() {
		if _, err := NewVerifier(nil).Verify(d.Raw, node, noon); err != nil {
			b.Fatal(err)
		}
	}
}
