package main

import (
	"context"
	"encoding/json"
	"os"

	"github.com/fastn-stack/fastnd/service/api"
)

// dial is replaced by service/client.
func dial(socket string) daemon { return noDaemon{} }

type noDaemon struct{}

func (noDaemon) Hello(context.Context) (*api.Hello, error) {
	return nil, api.Errorf(api.CodeUnavailable, "%v", errNoClient)
}
func (noDaemon) Verb(context.Context, string, string, any, ...*os.File) (json.RawMessage, error) {
	return nil, api.Errorf(api.CodeUnavailable, "%v", errNoClient)
}
func (noDaemon) Call(context.Context, api.Request) (json.RawMessage, error) {
	return nil, api.Errorf(api.CodeUnavailable, "%v", errNoClient)
}
func (noDaemon) Stream(context.Context, api.Request) (stream, error) {
	return nil, api.Errorf(api.CodeUnavailable, "%v", errNoClient)
}
func (noDaemon) Listen(context.Context, api.Request) (listener, error) {
	return nil, api.Errorf(api.CodeUnavailable, "%v", errNoClient)
}
func (noDaemon) Subscribe(context.Context, api.SubscribeArgs, func(api.Event) error) error {
	return api.Errorf(api.CodeUnavailable, "%v", errNoClient)
}
func (noDaemon) Close() error { return nil }
