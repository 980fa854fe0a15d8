package main

import (
	"bytes"
	_ "embed"
)

//go:embed completion/fastn.bash
var bashCompletion string

//go:embed completion/fastn.zsh
var zshCompletion string

//go:embed completion/fastn.fish
var fishCompletion string

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

func (*completionCmd) Help() string {
	return `Contacts, identities and protocols are completed from the daemon.

Example:
  fastn completion bash > ~/.local/share/bash-completion/completions/fastn
  fastn completion zsh > ~/.zfunc/_fastn
  fastn completion fish > ~/.config/fish/completions/fastn.fish`
}

func (c *completionCmd) run(a *app) error {
	script := bashCompletion
	switch c.Shell {
	case "zsh":
		script = zshCompletion
	case "fish":
		script = fishCompletion
	}
	if a.flags.JSON {
		return a.printValue(script)
	}
	return a.write(bytes.NewBufferString(script))
}
