package main

import (
	"bytes"
	"cmp"
	"fmt"
	"strings"

	"github.com/fastn-stack/fastnd/service/api"
)

type idCmd struct {
	List    idListCmd    `cmd:"" default:"1" help:"List your identities (what fastn id does by itself)."`
	New     idNewCmd     `cmd:"" help:"Make an identity."`
	Show    idShowCmd    `cmd:"" help:"Show one identity."`
	Rename  idRenameCmd  `cmd:"" help:"Give an identity another name."`
	Export  idExportCmd  `cmd:"" help:"Write an identity's secret key to a new file."`
	Import  idImportCmd  `cmd:"" help:"Take over an identity from a key file."`
	Remove  idRemoveCmd  `cmd:"" help:"Remove an identity and its key."`
	Online  idOnlineCmd  `cmd:"" help:"Serve an identity again."`
	Offline idOfflineCmd `cmd:"" help:"Stop serving an identity."`
}

func (*idCmd) Help() string {
	return `An identity is a key of yours that the daemon keeps; the first one is made on first use and named
after you. Peers know it by its id52.

Example:
  fastn id
  fastn id new work
  fastn --as work invite`
}

type idListCmd struct{}

func (*idListCmd) Help() string {
	return `Example:
  fastn id list
  fastn id --json | jq -r '.[].id52'`
}

func (*idListCmd) run(a *app) error {
	if a.flags.As != "" { // all are listed, but one that is not there is a slip
		if _, err := a.verb(api.VerbIdentityShow, api.IdentityArgs{Identity: a.flags.As}); err != nil {
			return err
		}
	}
	var list []api.Identity
	if printed, err := a.ask(api.VerbIdentityList, struct{}{}, &list); printed || err != nil {
		return err
	}
	if err := a.showIdentities(list...); err != nil {
		return err
	}
	switch {
	case len(list) == 0:
		a.note("you have none so far: the first is made when it is needed, or with %s", a.here(`"fastn id new NAME"`))
	case len(list) > 1 && a.identity() == "":
		own, err := fetch[api.Identity](a, api.VerbIdentityShow, api.IdentityArgs{})
		switch {
		case err == nil:
			a.note("%s is the one that speaks where --as names no other", own.Name)
		case api.CodeOf(err) == api.CodeBadRequest: // none is: each command needs --as
			a.note("%s: choose one with --as or $FASTN_AS", api.AsError(err).Message)
		default:
			return err
		}
	}
	return nil
}

func (a *app) showIdentities(list ...api.Identity) error {
	var b bytes.Buffer
	a.identities(&b, list)
	if err := a.write(&b); err != nil {
		return err
	}
	for _, i := range list {
		if i.Problem != "" {
			a.warn(cmp.Or(i.Name, i.ID52)+" is refused: "+i.Problem, i.Fix)
		}
	}
	return nil
}

// identityVerb runs a verb that answers with one identity and shows it.
func (a *app) identityVerb(verb string, args any) error {
	var i api.Identity
	if printed, err := a.ask(verb, args, &i); printed || err != nil {
		return err
	}
	return a.showIdentities(i)
}

type idNewCmd struct {
	Name string `arg:"" valid:"name" help:"Name of the identity to be, your own choice."`
}

func (*idNewCmd) Help() string {
	return `Example:
  fastn id new work`
}

func (c *idNewCmd) run(a *app) error {
	return a.identityVerb(api.VerbIdentityNew, api.NameArgs{Name: c.Name})
}

type idShowCmd struct {
	Name string `arg:"" optional:"" help:"Name or id52; else the one of --as, or your first." complete:"identity"`
}

func (*idShowCmd) Help() string {
	return `Example:
  fastn id show work
  fastn id show work --json | jq -r .id52`
}

func (c *idShowCmd) run(a *app) error {
	var i api.Identity
	args := api.IdentityArgs{Identity: cmp.Or(c.Name, a.identity())}
	if printed, err := a.ask(api.VerbIdentityShow, args, &i); printed || err != nil {
		return err
	}
	var b bytes.Buffer
	pairs(&b, "name", i.Name, "id52", i.ID52, "owner", i.Owner,
		"state", yesNo(i.Online, "online", "offline"),
		"protocols", cmp.Or(strings.Join(i.Protocols, ", "), "-"))
	if i.Problem != "" {
		pairs(&b, "problem", i.Problem, "fix", i.Fix)
	}
	return a.write(&b)
}

type idRenameCmd struct {
	Name string `arg:"" help:"Name or id52 of the identity." complete:"identity"`
	To   string `arg:"" valid:"name" what:"new name" help:"Its new name."`
}

func (*idRenameCmd) Help() string {
	return `Peers do not see the name.

Example:
  fastn id rename work office`
}

func (c *idRenameCmd) run(a *app) error {
	return a.identityVerb(api.VerbIdentityRename, api.RenameArgs{Name: c.Name, To: c.To})
}

type idRemoveCmd struct {
	Name  string `arg:"" help:"Name or id52 of the identity." complete:"identity"`
	Force bool   `help:"Remove it with its contacts, without a question."`
}

func (*idRemoveCmd) Help() string {
	return `The key is deleted, with the identity's contacts, grants and messages; without an export nobody can bring it back. One that has
contacts or messages is removed behind a question on the terminal, or with --force.

Example:
  fastn id export work work.pem
  fastn id remove work`
}

func (c *idRemoveCmd) run(a *app) error {
	if what := c.lost(a); what != "" && !c.Force && !a.confirm("remove %s, its key and its %s?", c.Name, what) {
		return api.Errorf(api.CodeConflict, "%s was not removed: it has %s", c.Name, what).
			WithHint("export its key if it may be needed again, or give --force")
	}
	raw, err := a.verb(api.VerbIdentityRemove, api.IdentityArgs{Identity: c.Name})
	if err != nil {
		return err
	}
	return a.done(raw, "removed identity %s", c.Name)
}

// lost tells what goes with the identity, "" if that is nothing.
func (c *idRemoveCmd) lost(a *app) string {
	p, err := a.locate()
	if err != nil {
		return ""
	}
	d := dial(p.socket, c.Name)
	defer d.Close()
	var what []string
	var list []api.Contact
	if raw, err := d.Verb(a.ctx, api.VerbContactList, struct{}{}); err == nil && decode(raw, &list) == nil && len(list) > 0 {
		what = append(what, fmt.Sprintf("contacts (%d)", len(list)))
	}
	var inbox api.InboxPage
	if raw, err := d.Verb(a.ctx, api.VerbInboxList, api.InboxListArgs{Limit: 1}); err == nil && decode(raw, &inbox) == nil && len(inbox.Messages) > 0 {
		what = append(what, "messages")
	}
	return strings.Join(what, " and ")
}

type idOnlineCmd struct {
	Name string `arg:"" help:"Name or id52 of the identity." complete:"identity"`
}

func (*idOnlineCmd) Help() string {
	return `Example:
  fastn id online work`
}

func (c *idOnlineCmd) run(a *app) error {
	return a.identityVerb(api.VerbIdentityOnline, api.IdentityArgs{Identity: c.Name})
}

type idOfflineCmd struct {
	Name string `arg:"" help:"Name or id52 of the identity." complete:"identity"`
}

func (*idOfflineCmd) Help() string {
	return `Contacts are told that the identity is offline, strangers nothing, until it is online again.

Example:
  fastn id offline work`
}

func (c *idOfflineCmd) run(a *app) error {
	return a.identityVerb(api.VerbIdentityOffline, api.IdentityArgs{Identity: c.Name})
}
