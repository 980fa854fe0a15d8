package main

import (
	"bytes"
	"fmt"

	"github.com/fastn-stack/fastnd/service/api"
)

type watchCmd struct {
	Kinds []string `arg:"" optional:"" name:"kind" help:"Only events of these kinds." enum:"peer_connected,peer_disconnected,contact_added,contact_removed,contact_renamed,contact_blocked,contact_unblocked,grant_changed,identity_changed,listening,listen_ended,message_received,message_delivered,message_refused,message_expired,protocol_wanted,reloaded,gap"`
}

func (*watchCmd) Help() string {
	return `Kinds are peer_connected, peer_disconnected, contact_added, contact_removed, contact_renamed,
contact_blocked, contact_unblocked, grant_changed, identity_changed, listening, listen_ended,
message_received, message_delivered, message_refused, message_expired, protocol_wanted, reloaded and gap. Runs until interrupted. With --json it is one object a line.

Example:
  fastn watch
  fastn watch peer_connected peer_disconnected --json`
}

func (c *watchCmd) run(a *app) error {
	d, err := a.daemon()
	if err != nil {
		return err
	}
	err = d.Subscribe(a.ctx, api.SubscribeArgs{Kinds: c.Kinds}, func(e api.Event) error {
		if a.flags.JSON {
			return a.printValue(e)
		}
		if e.Gap {
			a.note("some events were lost here")
		}
		line := fmt.Sprintf("%s  %-18s  %s", clock(e.Time), visible(e.Kind), visible(e.Text))
		return a.write(bytes.NewBufferString(line + "\n"))
	})
	return endOfWatch(a, a.explain(err))
}
