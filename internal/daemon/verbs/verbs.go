// Package verbs does the management requests of the control socket: each
// resolves whose object is meant, changes it, and answers with what it is now.
package verbs

import (
	"context"
	"encoding/json"
	"os"
	"sync"
	"time"

	"github.com/fastn-stack/fastnd/internal/access"
	"github.com/fastn-stack/fastnd/internal/events"
	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/ipc"
	"github.com/fastn-stack/fastnd/internal/messages"
	"github.com/fastn-stack/fastnd/internal/p2p"
	"github.com/fastn-stack/fastnd/internal/remote"
	"github.com/fastn-stack/fastnd/internal/roster"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/store"
	"github.com/fastn-stack/fastnd/service/api"
)

// Verbs answers the management requests about identities, contacts, grants and
// peers. It is safe for concurrent use.
type Verbs struct {
	Roster   *roster.Roster
	Store    *store.Store
	Host     *p2p.Host
	Router   *router.Router
	Remote   *remote.Remote
	Budgets  *access.Budgets
	Events   *events.Hub
	Messages *messages.Store
	Courier  *messages.Courier
	Builtin  []string // protocols every identity serves
	Now      func() time.Time
	Dir      string // the state folder
	Version  string

	files     fileTurns
	backingUp sync.Mutex

	made  sync.Once // of table, which is handlers: not made anew for each request
	table map[string]func(call) (any, error)
}

// call is one request under way.
type call struct {
	ctx    context.Context
	caller ipc.Caller
	from   string // the identity asked for, "" for the default one
	data   json.RawMessage
	file   *os.File // of a verb that takes one
}

// handlers tells what does each verb. A verb that is not here is the daemon's.
func (v *Verbs) handlers() map[string]func(call) (any, error) {
	return map[string]func(call) (any, error){
		api.VerbIdentityList:    v.identityList,
		api.VerbIdentityNew:     with(v.identityNew),
		api.VerbIdentityShow:    with(v.identityShow),
		api.VerbIdentityRename:  with(v.identityRename),
		api.VerbIdentityExport:  with(v.identityExport),
		api.VerbIdentityImport:  with(v.identityImport),
		api.VerbIdentityRemove:  with(v.identityRemove),
		api.VerbIdentityOnline:  with(v.identityOnline(true)),
		api.VerbIdentityOffline: with(v.identityOnline(false)),
		api.VerbContactInvite:   with(v.contactInvite),
		api.VerbContactAdd:      with(v.contactAdd),
		api.VerbContactList:     v.contactList,
		api.VerbContactRename:   with(v.contactRename),
		api.VerbContactRemove:   with(v.contactRemove),
		api.VerbContactBlock:    with(v.contactBlock(true)),
		api.VerbContactUnblock:  with(v.contactBlock(false)),
		api.VerbGrantAdd:        with(v.grantAdd),
		api.VerbGrantList:       v.grantList,
		api.VerbGrantRemove:     with(v.grantRemove),
		api.VerbAccessWhy:       with(v.accessWhy),
		api.VerbPeerList:        v.peerList,
		api.VerbPeerPing:        with(v.peerPing),
		api.VerbOutboxList:      with(v.outboxList),
		api.VerbOutboxShow:      v.ofOutbox(v.Messages.Outgoing),
		api.VerbOutboxWait:      v.ofOutbox(v.Courier.WaitFinal),
		api.VerbOutboxCancel:    v.ofOutbox(v.Courier.Cancel),
		api.VerbOutboxRetry:     v.ofOutbox(v.Courier.Retry),
		api.VerbInboxList:       with(v.inboxList),
		api.VerbInboxShow:       v.ofInbox(v.inboxShow),
		api.VerbInboxRead:       v.ofInbox(v.inboxRead),
		api.VerbInboxRemove:     v.ofInbox(v.inboxRemove),
		api.VerbDaemonBackup:    v.backup,
	}
}

// with decodes the data of a verb into its arguments.
func with[A any](do func(call, A) (any, error)) func(call) (any, error) {
	return func(c call) (any, error) {
		var args A
		if err := api.DecodeArgs(c.data, &args); err != nil {
			return nil, err
		}
		return do(c, args)
	}
}

// Do answers one verb. It owns files and closes them.
func (v *Verbs) Do(ctx context.Context, caller ipc.Caller, r *api.Request, files []*os.File) (any, error) {
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	v.made.Do(func() { v.table = v.handlers() })
	do := v.table[r.Type]
	if r.Type == api.TypeSend {
		do = func(c call) (any, error) { return v.send(c, r) }
	}
	if do == nil {
		return nil, api.Errorf(api.CodeUnsupported, "unknown request type %q", r.Type)
	}
	if len(files) > 0 {
		leave, err := v.files.enter(caller.UID)
		if err != nil {
			return nil, err
		}
		defer leave()
	}
	c := call{ctx: ctx, caller: caller, from: r.From, data: r.Data}
	if len(files) == 1 {
		c.file = files[0]
	}
	return do(c)
}

// Identity resolves the identity that a caller names; "" is the default one,
// which is made on first use.
func (v *Verbs) Identity(ctx context.Context, c ipc.Caller, from string) (roster.Resident, error) {
	if from == "" {
		return v.Roster.Default(ctx, c.UID, c.User)
	}
	return v.Roster.Find(c.UID, from)
}

// own is the identity that the request is about.
func (v *Verbs) own(c call) (roster.Resident, error) {
	return v.Identity(c.ctx, c.caller, c.from)
}

// known is own for who only looks: ok is false for a user who has no identity so
// far, and none is made.
func (v *Verbs) known(c call) (p roster.Resident, ok bool, err error) {
	if c.from == "" {
		return v.Roster.Known(c.caller.UID, c.caller.User)
	}
	p, err = v.Roster.Find(c.caller.UID, c.from)
	return p, err == nil, err
}

// Target resolves what a request is sent to: a contact of from, an id52, a peer
// id, or "self".
func (v *Verbs) Target(from identity.ID, target string) (identity.ID, error) {
	if target == "" {
		return identity.ID{}, api.Errorf(api.CodeBadRequest, `"target" is missing`)
	}
	if target == api.TargetSelf {
		return from, nil
	}
	if id, err := identity.ParseID(target); err == nil {
		return id, v.noNode(id)
	}
	return v.contactID(from, target)
}
