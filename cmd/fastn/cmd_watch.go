package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"

	"github.com/fastn-stack/fastnd/service/api"
)

type watchCmd struct {
	Kinds []string `arg:"" optional:"" name:"kind" help:"Only events of these kinds." enum:"peer_connected,peer_disconnected,contact_added,contact_removed,contact_renamed,contact_blocked,contact_unblocked,grant_changed,identity_changed,listening,listen_ended,message_received,message_delivered,message_refused,message_expired,message_damaged,protocol_wanted,reloaded,gap"`
	Exec  string   `valid:"some" help:"Run this with /bin/sh -c for each event, one after the other, instead of printing it." placeholder:"CMD"`
}

func (*watchCmd) Help() string {
	return `Kinds are peer_connected, peer_disconnected, contact_added, contact_removed, contact_renamed,
contact_blocked, contact_unblocked, grant_changed, identity_changed, listening, listen_ended,
message_received, message_delivered, message_refused, message_expired, message_damaged, protocol_wanted,
reloaded and gap, which tells that events were lost. Runs until interrupted, also over restarts of the daemon. With
--json it is one object a line.

With --exec the event is in the environment: FASTN_EVENT is the whole as JSON, FASTN_KIND, FASTN_CONTACT,
FASTN_PROTOCOL, FASTN_MESSAGE_ID and FASTN_TEXT are parts of it, empty where there is none. FASTN_TEXT is
for people, and safe for a terminal. A CMD that fails is noted and ends nothing; while it runs, the next
events wait.

fastn-mail.service, a unit of the user's own systemd, tells by this how many messages are new at each
login, and of those that come: "systemctl --user enable --now fastn-mail".

Example:
  fastn watch
  fastn watch peer_connected peer_disconnected --json
  fastn watch message_received --exec 'notify-send -- "$FASTN_TEXT"'`
}

func (c *watchCmd) run(a *app) error {
	d, err := a.daemon()
	if err != nil {
		return err
	}
	err = d.Subscribe(a.ctx, api.SubscribeArgs{Kinds: c.Kinds}, func(e api.Event) error {
		if e.Gap {
			a.note("some events were lost here")
		}
		switch {
		case c.Exec != "":
			return c.exec(a, e)
		case a.flags.JSON:
			return a.printValue(e)
		}
		line := fmt.Sprintf("%s  %-18s  %s", clock(e.Time), visible(e.Kind), visible(e.Text))
		if e.Message != "" {
			line += "  " + visible(shortID(e.Message))
		}
		return a.write(bytes.NewBufferString(line + "\n"))
	})
	return endOfWatch(a, a.explain(err))
}

// exec runs the command for one event. Only what keeps an event from it is an error.
func (c *watchCmd) exec(a *app, e api.Event) error {
	event, err := json.Marshal(e)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(a.ctx, "/bin/sh", "-c", c.Exec)
	cmd.Env = append(a.environment(), "FASTN_EVENT="+string(event), "FASTN_KIND="+e.Kind, "FASTN_CONTACT="+e.Contact,
		"FASTN_PROTOCOL="+e.Protocol, "FASTN_MESSAGE_ID="+e.Message, "FASTN_TEXT="+visible(e.Text))
	cmd.Stdout, cmd.Stderr = a.std.Out, a.std.Err
	endWithGroup(cmd)
	if err := runGroup(a.ctx, cmd); err != nil && a.ctx.Err() == nil {
		a.note("the command for %s: %v", e.Kind, err)
	}
	return a.ctx.Err()
}

// environment makes a program that runs fastn reach the same daemon, as the
// same identity.
func (a *app) environment() []string {
	env := os.Environ()
	switch {
	case a.flags.Home != "":
		env = append(env, api.EnvHome+"="+a.flags.Home, api.EnvSocket+"=")
	case a.flags.Socket != "":
		env = append(env, api.EnvSocket+"="+a.flags.Socket)
	}
	if a.flags.As != "" {
		env = append(env, "FASTN_AS="+a.flags.As)
	}
	return env
}
