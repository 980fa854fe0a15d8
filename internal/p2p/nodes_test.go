package p2p_test

import (
	"encoding/binary"
	"testing"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/p2p/p2ptest"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

// Anybody here can ask for nodes that never connect; they are not remembered
// for ever, those in use are.
func TestNodesThatNeverConnectAreForgotten(t *testing.T) {
	testutil.LeakCheck(t)
	a, b := p2ptest.NewPair(t)
	callNode(t, a, b.Node())
	kept := p2ptest.Key(t).ID()
	a.Protect(kept, "test")
	since := a.Peers()[0].Since
	for i := range uint32(6000) {
		var id identity.ID
		copy(id[:], kept[:])
		binary.BigEndian.PutUint32(id[:], i)
		_, _, err := a.Request(t.Context(), id, p2ptest.Open(wire.Kind_KIND_CALL), nil)
		wantCode(t, err, api.CodePeerUnreachable)
	}
	if n := a.Nodes(); n > 4096 {
		t.Errorf("%d nodes are remembered", n)
	}
	callNode(t, a, b.Node())
	if p := a.Peers(); len(p) != 1 || !p[0].Since.Equal(since) {
		t.Error("a node in use was forgotten")
	}
	if !a.Protected(kept) {
		t.Error("a protected node was forgotten")
	}
}
