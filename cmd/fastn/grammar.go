package main

import "github.com/fastn-stack/fastnd/service/api"

const description = "Peer-to-peer calls, streams and messages for every user of this machine, through the fastn daemon."

// globals are the flags that every command takes, before or behind its name.
type globals struct {
	Home   string `help:"Use the per-user daemon of this folder (or $$FASTN_HOME)." placeholder:"DIR" complete:"dir"`
	Socket string `help:"Use the daemon at this socket (or $$FASTN_SOCKET)." placeholder:"PATH" complete:"file"`
	As     string `help:"Act as this identity of yours, by name or id52 (or $$FASTN_AS)." placeholder:"IDENTITY" complete:"identity"`
	JSON   bool   `name:"json" help:"Print JSON, with the keys of the control socket; a failure is an object on standard error."`
	Quiet  bool   `short:"q" help:"Print no notes and warnings on standard error."`
}

func (g *globals) check() error {
	if g.Home != "" && g.Socket != "" {
		return api.Errorf(api.CodeBadRequest, "--home and --socket name two daemons").
			WithHint("give one of them")
	}
	return nil
}

// command is one word behind fastn.
type command struct {
	name    string
	help    string
	grammar func() any
}

// commands lists them in the order of the help text.
func commands() []command {
	return []command{
		{"daemon", "Start, stop and look after the daemon.", func() any { return &daemonCmd{} }},
		{"status", "Show what is wrong, the node, identities, peers and budgets.", func() any { return &statusCmd{} }},
		{"id", "Your identities.", func() any { return &idCmd{} }},
		{"invite", "Print a ticket that makes its user a contact of yours.", func() any { return &inviteCmd{} }},
		{"contact", "Your contacts.", func() any { return &contactCmd{} }},
		{"grant", "Who may use which protocol of yours.", func() any { return &grantCmd{} }},
		{"access", "Explain access.", func() any { return &accessCmd{} }},
		{"ping", "Measure the round trip to a peer, and tell the path.", func() any { return &pingCmd{} }},
		{"call", "Send one request and print the answer.", func() any { return &callCmd{} }},
		{"stream", "Connect standard input and output to a peer's protocol.", func() any { return &streamCmd{} }},
		{"listen", "Serve a protocol of your own.", func() any { return &listenCmd{} }},
		{"send", "Send a durable message.", func() any { return &sendCmd{} }},
		{"inbox", "Messages you received.", func() any { return &inboxCmd{} }},
		{"outbox", "Messages you sent.", func() any { return &outboxCmd{} }},
		{"peers", "Show connections and their paths.", func() any { return &peersCmd{} }},
		{"watch", "Print events as they happen.", func() any { return &watchCmd{} }},
		{"completion", "Print the completion script of a shell.", func() any { return &completionCmd{} }},
		{"version", "Print the versions of client and daemon.", func() any { return &versionCmd{} }},
	}
}
