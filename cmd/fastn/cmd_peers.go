package main

import (
	"bytes"

	"github.com/fastn-stack/fastnd/service/api"
)

type peersCmd struct{}

func (*peersCmd) Help() string {
	return `Nodes that are connected, or known to hold a contact of yours: the path in use, the round-trip
time, and for the others why there is no connection.

Example:
  fastn peers
  fastn peers --json | jq '.[] | select(.connected | not)'`
}

func (*peersCmd) run(a *app) error {
	var list []api.Peer
	if printed, err := a.ask(api.VerbPeerList, struct{}{}, &list); printed || err != nil {
		return err
	}
	var b bytes.Buffer
	a.peers(&b, list)
	return a.write(&b)
}
