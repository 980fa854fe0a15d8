package main

import (
	"bytes"
	"fmt"

	"github.com/fastn-stack/fastnd/service/api"
)

type versionCmd struct{}

func (*versionCmd) Help() string {
	return `A daemon that does not answer is told and is no error. With --json: "client", "daemon" (null if
none answers) and "skew".

Example:
  fastn version`
}

const skewText = "the running daemon is not of this version"

type versionOf struct {
	Version  string `json:"version"`
	Protocol int    `json:"protocol"`
}

type versions struct {
	Client versionOf  `json:"client"`
	Daemon *versionOf `json:"daemon"`
	Skew   bool       `json:"skew"`
}

func (*versionCmd) run(a *app) error {
	v := versions{Client: versionOf{version, api.Version}}
	h, err := a.hello()
	if err == nil {
		v.Daemon = &versionOf{h.Daemon, h.Version}
		v.Skew = *v.Daemon != v.Client
	}
	if v.Skew {
		a.warn(skewText, a.restartHint(h))
	}
	if a.flags.JSON {
		return a.printValue(v)
	}
	daemonText := ""
	if err != nil {
		daemonText = "not known: " + err.Error()
	} else {
		daemonText = fmt.Sprintf("%s (protocol %d)", h.Daemon, h.Version)
	}
	var b bytes.Buffer
	pairs(&b, "fastn", fmt.Sprintf("%s (protocol %d)", version, api.Version), "fastnd", daemonText)
	return a.write(&b)
}

func (a *app) hello() (*api.Hello, error) {
	d, err := a.daemon()
	if err != nil {
		return nil, err
	}
	h, err := d.Hello(a.ctx)
	if err != nil {
		return nil, a.explain(err)
	}
	return &h, nil
}
