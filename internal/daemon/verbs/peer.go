package verbs

import (
	"cmp"
	"slices"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/ipc"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

func (v *Verbs) peerList(c call) (any, error) { return v.Peers(c.caller), nil }

// Peers lists the nodes where a contact of the caller lives, connected or not;
// administrators see every node that is connected.
func (v *Verbs) Peers(c ipc.Caller) []api.Peer {
	byNode := make(map[identity.ID]*api.Peer)
	for _, own := range v.Roster.List(c.UID) {
		for _, contact := range v.Store.Contacts(own.ID) {
			for _, node := range v.Store.Nodes(own.ID, contact.ID) {
				p := byNode[node]
				if p == nil {
					p = &api.Peer{Node: node.String(), Contacts: []string{}, Reason: v.whyNot(node)}
					byNode[node] = p
				}
				p.Contacts = append(p.Contacts, contact.Name)
			}
		}
	}
	delete(byNode, v.Host.Node())
	for _, s := range v.Host.Peers() {
		p := byNode[s.Node]
		if p == nil {
			if !c.Admin {
				continue
			}
			p = &api.Peer{Node: s.Node.String(), Contacts: []string{}}
			byNode[s.Node] = p
		}
		p.Connected, p.Path, p.Address, p.Reason = true, s.Path, s.Addr, ""
		p.RTTMicros = s.RTT.Microseconds()
		if c.Admin { // all users' streams run over it
			p.Streams = s.Streams
		}
	}
	out := make([]api.Peer, 0, len(byNode))
	for _, p := range byNode {
		slices.Sort(p.Contacts)
		p.Contacts = slices.Compact(p.Contacts)
		out = append(out, *p)
	}
	slices.SortFunc(out, func(a, b api.Peer) int { return cmp.Compare(a.Node, b.Node) })
	return out
}

// whyNot tells why a node is not connected.
func (v *Verbs) whyNot(node identity.ID) string {
	if why := v.Host.WhyNot(node); why != "" {
		return why
	}
	return "no request needed it yet"
}

// peerPing calls Ping at the target and tells how long that took and by which
// path: it proves access and the far daemon, not just the connection.
func (v *Verbs) peerPing(c call, a api.TargetArgs) (any, error) {
	own, err := v.own(c)
	if err != nil {
		return nil, err
	}
	to, err := v.Target(own.ID, a.Target)
	if err != nil {
		return nil, err
	}
	deadline, ok := c.ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(api.DefaultTimeout)
	}
	start := time.Now()
	_, err = v.Router.Route(c.ctx, &router.Request{From: own.ID, To: to, Protocol: api.ProtocolPing, Kind: router.Call,
		Payload: []byte(`{}`), Timeout: time.Until(deadline)})
	if err != nil {
		return nil, err
	}
	out := api.Pong{RTTMicros: time.Since(start).Microseconds(), Path: "this machine"}
	if here, _ := v.Roster.Here(to); here {
		return out, nil
	}
	nodes := v.Remote.Nodes(own.ID, to)
	for _, s := range v.Host.Peers() {
		if slices.Contains(nodes, s.Node) {
			out.Path, out.Address = s.Path, s.Addr
		}
	}
	return out, nil
}
