// Package testutil holds what the tests of several packages share.
package testutil

import (
	"testing"

	"go.uber.org/goleak"
)

// LeakCheck fails t if goroutines started during the test are still running
// after all other cleanups. Call it first, so that its cleanup runs last.
func LeakCheck(t testing.TB, opts ...goleak.Option) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		t.Helper()
		if t.Failed() {
			return
		}
		goleak.VerifyNone(t, append(opts, before)...)
	})
}
