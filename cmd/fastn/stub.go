package main

type daemonCmd struct{ Start, Stop, Status, Reload struct{} `kong:"-"` }
type streamCmd struct{}
type listenCmd struct{}
type completionCmd struct{}
func (a *app) complete([]string) error { return nil }
func (a *app) writeMan() error { return nil }
