package main

import (
	"bytes"

	"github.com/fastn-stack/fastnd/service/api"
)

type grantCmd struct {
	Add    grantAddCmd    `cmd:"" help:"Let somebody use a protocol."`
	List   grantListCmd   `cmd:"" default:"1" help:"List your grants (what fastn grant does by itself)."`
	Remove grantRemoveCmd `cmd:"" help:"Take a grant back."`
}

func (*grantCmd) Help() string {
	return `Contacts may use Ping, Echo, Text and offer files. Everything else is refused until it is granted:
to one contact, to all contacts, or to anyone.

Example:
  fastn grant add bob Chat
  fastn grant`
}

// grantWords are the arguments that grants and access share.
type grantWords struct {
	Who      string `arg:"" valid:"some" help:"A contact, \"contacts\" or \"anyone\"." complete:"who"`
	Protocol string `arg:"" valid:"protocol" help:"Name of the protocol." complete:"protocol"`
	Instance string `valid:"name" help:"Instance of the protocol, if it has several." placeholder:"NAME"`
}

func (g *grantWords) args() api.GrantArgs {
	return api.GrantArgs{Who: g.Who, Protocol: g.Protocol, Instance: g.Instance}
}

type grantAddCmd struct {
	grantWords
}

func (*grantAddCmd) Help() string {
	return `Example:
  fastn grant add bob Chat
  fastn grant add contacts Status
  fastn grant add anyone Website`
}

func (c *grantAddCmd) run(a *app) error {
	var g api.Grant
	if printed, err := a.ask(api.VerbGrantAdd, c.args(), &g); printed || err != nil {
		return err
	}
	return a.showGrants(g)
}

type grantListCmd struct{}

func (*grantListCmd) Help() string {
	return `Example:
  fastn grant list
  fastn grant list --json`
}

func (*grantListCmd) run(a *app) error {
	var list []api.Grant
	if printed, err := a.ask(api.VerbGrantList, struct{}{}, &list); printed || err != nil {
		return err
	}
	return a.showGrants(list...)
}

func (a *app) showGrants(list ...api.Grant) error {
	rows := make([][]string, 0, len(list))
	for _, g := range list {
		rows = append(rows, []string{g.Who, g.Protocol, g.Instance, clock(g.Added), g.ID52})
	}
	var b bytes.Buffer
	a.table(&b, []string{"WHO", "PROTOCOL", "INSTANCE", "ADDED", "ID52"}, rows)
	return a.write(&b)
}

type grantRemoveCmd struct {
	grantWords
}

func (*grantRemoveCmd) Help() string {
	return `What is open by this grant ends.

Example:
  fastn grant remove bob Chat`
}

func (c *grantRemoveCmd) run(a *app) error {
	raw, err := a.verb(api.VerbGrantRemove, c.args())
	if err != nil {
		return err
	}
	return a.done(raw, "removed the grant of %s to %s", c.Protocol, c.Who)
}

type accessCmd struct {
	Why accessWhyCmd `cmd:"" help:"Tell whether somebody may use a protocol, and which rule decides."`
}

func (*accessCmd) Help() string {
	return `Example:
  fastn access why bob Shell`
}

type accessWhyCmd struct {
	grantWords
}

func (*accessWhyCmd) Help() string {
	return `WHO may be an id52, too. The exit code is 0 for both answers.

Example:
  fastn access why bob Shell
  fastn access why anyone Website --json | jq .allowed`
}

func (c *accessWhyCmd) run(a *app) error {
	var d api.Decision
	if printed, err := a.ask(api.VerbAccessWhy, c.args(), &d); printed || err != nil {
		return err
	}
	var b bytes.Buffer
	pairs(&b,
		"answer", yesNo(d.Allowed, "allowed", "refused"),
		"rule", d.Rule,
		"because", d.Detail)
	return a.write(&b)
}
