package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/fastn-stack/fastnd/internal/ipc"
	"github.com/fastn-stack/fastnd/internal/peercred"
	"github.com/fastn-stack/fastnd/service/api"
)

// Status is what daemon.status tells c: the machine's state, and the caller's
// own identities, peers and budgets. It answers when the daemon is locked too.
func (d *Daemon) Status(ctx context.Context, c ipc.Caller) api.Status {
	s := api.Status{
		Problems: []api.Problem{}, Wanted: []api.Wanted{}, Identities: []api.Identity{}, Mail: []api.Mail{}, Peers: []api.Peer{},
		Node:    api.NodeStatus{Addresses: []string{}, Ports: []string{}},
		Budgets: d.budgets.Usage(c.UID),
		Daemon: api.DaemonStatus{Version: d.o.Version, Started: d.started, PID: os.Getpid(), Socket: d.place.socket,
			Config: d.o.configPath(), PerUser: d.o.perUser()},
	}
	if c.Admin {
		s.Daemon.Runtime = runtimeNow(d.idleGoroutines())
	}
	if p := d.locked.Load(); p != nil {
		s.Node.Locked = true
		s.Problems = append(s.Problems, *p)
	}
	s.Problems = append(s.Problems, d.machineProblems()...)
	n := d.node.Load()
	if n == nil {
		return s
	}
	s.Problems = append(s.Problems, n.lossProblems()...)
	n.mail.status(ctx, &s, c.UID)
	s.Node.ID, s.Node.PeerID = n.host.Node().String(), n.host.Node().PeerID().String()
	s.Node.Addresses, s.Node.Ports = n.host.Addrs(), n.host.Ports()
	if c.Admin {
		s.Node.RefusedOpens = n.refused.Load()
	}
	s.Identities = n.verbs.Identities(c.UID, c.User)
	if p, ok, _ := n.roster.Known(c.UID, c.User); ok { // why there is none, each request tells
		s.DefaultIdentity = p.ID.String()
	}
	s.Peers = n.verbs.Peers(c)
	for _, p := range s.Identities {
		if p.Problem != "" {
			s.Problems = append(s.Problems, api.Problem{Text: fmt.Sprintf("identity %s is offline: %s", p.Name, p.Problem), Fix: p.Fix})
		}
	}
	s.Problems = append(s.Problems, n.otherProblems(c.UID, c.Admin)...)
	return s
}

func (d *Daemon) idleGoroutines() int {
	idle := d.server.IdleGoroutines()
	if n := d.node.Load(); n != nil {
		idle += n.host.IdleGoroutines()
	}
	return idle
}

func (d *Daemon) requestStop() error {
	if !d.o.perUser() {
		return api.Errorf(api.CodeNotPermitted, "systemd runs this daemon").
			WithHint("systemctl stop fastn.socket fastnd.service")
	}
	d.stop.Do(func() { close(d.stopped) })
	return nil
}

func (d *Daemon) disconnect(data json.RawMessage) (any, error) {
	var args api.UserArgs
	if err := api.DecodeArgs(data, &args); err != nil {
		return nil, err
	}
	if args.User == "" {
		return nil, api.Errorf(api.CodeBadRequest, `"user" is missing: a name or a number`)
	}
	uid, err := peercred.LookupUID(args.User)
	if err != nil {
		return nil, err
	}
	n := d.server.Disconnect(uid)
	d.log.Info("disconnected a user", "uid", uid, "connections", n)
	return api.Disconnected{Connections: n}, nil
}
