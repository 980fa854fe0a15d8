package main

import (
	"bytes"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

type inviteCmd struct {
	For     string `valid:"name" what:"contact's name" help:"Name the new contact will have here." placeholder:"NAME"`
	Expires period `help:"How long the ticket can be used, at most 30d." default:"24h"`
	QR      bool   `name:"qr" help:"Draw the ticket as a QR code on standard error, too."`
}

func (*inviteCmd) Help() string {
	return `The ticket is the only thing on standard output. It can be used once, and makes both sides contacts
of each other. Hand it over on a way that others cannot read.

Example:
  fastn invite --for bob
  fastn invite --qr > /dev/null
  fastn invite --for bob | ssh bob.example fastn contact add alice -`
}

func (c *inviteCmd) run(a *app) error {
	expires := time.Duration(c.Expires)
	if expires < time.Second || expires > 30*24*time.Hour {
		return usage("--expires %v is out of range: 1s to 30d", c.Expires).
			WithHint(`try "fastn invite --expires 24h"`)
	}
	raw, err := a.verb(api.VerbContactInvite, api.InviteArgs{For: c.For, Expires: int64(expires / time.Second)})
	if err != nil {
		return err
	}
	var inv api.Invitation
	if err := decode(raw, &inv); err != nil {
		return err
	}
	a.warn(a.here(inv.Warning), "")
	if c.QR {
		code, err := newQR([]byte(inv.Ticket))
		if err != nil {
			return failed("the ticket is %v", err)
		}
		if _, err := a.std.Err.Write(code.draw(a.errTTY)); err != nil {
			return err
		}
	}
	if a.flags.JSON {
		return a.printJSON(raw)
	}
	return a.write(bytes.NewBufferString(visible(inv.Ticket) + "\n"))
}
