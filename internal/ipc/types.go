package ipc

import (
	"maps"
	"os"
	"slices"

	"github.com/fastn-stack/fastnd/service/api"
)

// member names the members of a request that not every type uses. id, type,
// from, instance and timeout_ms stand in any request.
type member uint16

const (
	memberTarget member = 1 << iota
	memberProtocol
	memberStream
	memberIncoming
	memberMessageID
	memberExpires
	memberData
	memberError
)

var memberNames = []struct {
	member
	name string
}{
	{memberTarget, "target"}, {memberProtocol, "protocol"}, {memberStream, "stream"}, {memberIncoming, "incoming"},
	{memberMessageID, "message_id"}, {memberExpires, "expires_s"}, {memberData, "data"}, {memberError, "error"},
}

// requestType is what the socket knows about one type of request.
type requestType struct {
	needs, takes member // takes is beside needs
	files        int    // descriptors that come with it
	admin        bool
	verb         bool
	args         any // of a verb: see api.Verb
	serve        func(c *conn, r *api.Request, files []*os.File)
}

func requestTypes() map[string]requestType {
	t := map[string]requestType{
		api.TypeHello:  {takes: memberData, serve: (*conn).serveHello},
		api.TypeCall:   {needs: memberTarget | memberProtocol, takes: memberData, serve: (*conn).serveCall},
		api.TypeStream: {needs: memberTarget | memberProtocol, takes: memberData | memberStream, serve: (*conn).serveStream},
		api.TypeSend: {needs: memberTarget | memberProtocol | memberData, takes: memberMessageID | memberExpires,
			serve: (*conn).serveVerb},
		api.TypeStreamResult: {needs: memberStream, serve: (*conn).serveStreamResult},
		api.TypeStreamReset:  {needs: memberStream, serve: (*conn).serveStreamReset},
		api.TypeListen:       {needs: memberProtocol, takes: memberData, serve: (*conn).serveListen},
		api.TypeUnlisten:     {needs: memberProtocol, serve: (*conn).serveUnlisten},
		api.TypeAccept:       {needs: memberIncoming, serve: (*conn).serveAccept},
		api.TypeReply:        {needs: memberIncoming, takes: memberData | memberError, serve: (*conn).serveReply},
		api.TypeSubscribe:    {takes: memberData, serve: (*conn).serveSubscribe},
	}
	for _, v := range api.Verbs() {
		t[v.Name] = requestType{takes: memberData, files: v.Files, admin: v.Admin, verb: true, args: v.Args, serve: (*conn).serveVerb}
	}
	return t
}

func membersOf(r *api.Request) member {
	var m member
	set := func(on bool, f member) {
		if on {
			m |= f
		}
	}
	set(r.Target != "", memberTarget)
	set(r.Protocol != "", memberProtocol)
	set(r.Stream != "", memberStream)
	set(r.Incoming != "", memberIncoming)
	set(r.MessageID != "", memberMessageID)
	set(r.ExpiresS != 0, memberExpires)
	set(len(r.Data) > 0, memberData)
	set(r.Error != nil, memberError)
	return m
}

// checkMembers refuses members that the type does not use, lacks, or that have
// a form that no value of theirs can have.
func (t requestType) checkMembers(r *api.Request) error {
	has := membersOf(r)
	for _, m := range memberNames {
		switch {
		case t.needs&m.member != 0 && has&m.member == 0:
			return api.Errorf(api.CodeBadRequest, "%q needs %q", r.Type, m.name)
		case (t.needs|t.takes)&m.member == 0 && has&m.member != 0:
			return api.Errorf(api.CodeBadRequest, "%q does not use %q", r.Type, m.name)
		}
	}
	if r.Protocol != "" {
		if err := api.ValidProtocol(r.Protocol); err != nil {
			return err
		}
	}
	if r.Instance != "" {
		if err := api.ValidName("the instance", r.Instance); err != nil {
			return err
		}
	}
	for _, id := range []struct{ name, value string }{{"stream", r.Stream}, {"incoming", r.Incoming}, {"message_id", r.MessageID}} {
		if id.value != "" && !api.ValidUUID(id.value) {
			return api.Errorf(api.CodeBadRequest, "%q must be a UUID such as 123e4567-e89b-42d3-a456-426614174000", id.name)
		}
	}
	if t.verb {
		return api.CheckArgs(r.Data, t.args)
	}
	return nil
}

// unknownType names the type that is most like the unknown one.
func (s *Server) unknownType(name string) error {
	e := api.Errorf(api.CodeUnsupported, "unknown request type %q", api.Shorten(name))
	if near := api.Nearest(name, slices.Sorted(maps.Keys(s.types))); near != "" {
		return e.WithHint("did you mean %q?", near)
	}
	return e.WithHint("the types are in PROTOCOL.md; a newer client may need a newer daemon")
}
