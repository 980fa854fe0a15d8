package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"

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
for people, and safe for a terminal. FASTN_AS is the identity that the event is of, where it is of one: a
fastn that CMD runs speaks for it. CMD runs for a gap if no kinds were named, or gap was. A CMD that fails
is noted and ends nothing; while it runs, the next events wait.

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
		isGap := e.Kind == api.EventGap // told whatever kinds are asked for
		skip := isGap && c.Exec != "" && len(c.Kinds) > 0 && !slices.Contains(c.Kinds, e.Kind)
		if e.Gap && (!isGap || skip) { // else the event itself tells it
			a.note("some events were lost here")
		}
		switch {
		case skip:
			return nil
		case c.Exec != "":
			return c.exec(a, e)
		case a.flags.JSON:
			return a.printValue(e)
		}
		_, text := a.whose(e)
		line := fmt.Sprintf("%s  %-18s  %s", clock(e.Time), visible(e.Kind), visible(text))
		if e.Message != "" {
			line += "  " + visible(shortID(e.Message))
		}
		return a.write(bytes.NewBufferString(line + "\n"))
	})
	return endOfWatch(a, a.explain(err))
}

// whose gives the name of the identity that e is of, or its id, and e's text, which
// begins with the name where a user has several. It is asked for each time: it may
// have been renamed.
func (a *app) whose(e api.Event) (own, text string) {
	if e.Identity == "" {
		return "", e.Text
	}
	list, err := fetch[[]api.Identity](a, api.VerbIdentityList, struct{}{})
	i := slices.IndexFunc(list, func(i api.Identity) bool { return i.ID52 == e.Identity })
	switch {
	case err != nil: // the daemon has ended
		return e.Identity, e.Text
	case i < 0: // removed
		return "", e.Text
	case len(list) == 1 || e.Kind == api.EventIdentityChanged: // whose text names it
		return list[i].Name, e.Text
	}
	return list[i].Name, list[i].Name + ": " + e.Text
}

// exec runs the command for one event. Only what keeps an event from it is an error.
func (c *watchCmd) exec(a *app, e api.Event) error {
	event, err := json.Marshal(e)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(a.ctx, "/bin/sh", "-c", c.Exec)
	own, text := a.whose(e)
	cmd.Env = append(a.environment(), "FASTN_EVENT="+string(event), "FASTN_KIND="+e.Kind, "FASTN_CONTACT="+e.Contact,
		"FASTN_PROTOCOL="+e.Protocol, "FASTN_MESSAGE_ID="+e.Message, "FASTN_TEXT="+visible(text))
	if own != "" {
		cmd.Env = append(cmd.Env, "FASTN_AS="+own)
	}
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
